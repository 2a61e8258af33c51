"""Domain names and patterns of them, as policies write them and questions ask for them.

A *name* is lower case, without the final dot. A *pattern* is a name in which ``*`` stands for any
characters of one label (also none), or begins with ``**.``: one label or more. ``*`` alone is
every name. Source: Cilium's ``matchPattern``; in a ClusterNetworkPolicy ``*.`` is what ``**.``
is here, and ``languages/clusternetworkpolicy.py`` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

EVERY_NAME = "*"
SUBDOMAINS = "**."
NAME_MAX = 255
ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")  # what * stands for
_REMEMBERED_MAX = 16_384


def plain_name(text: str) -> str:
    """A name or pattern as it is compared."""
    return text.strip().lower().rstrip(".")


def is_pattern(text: str) -> bool:
    return "*" in text


def matches(pattern: str, name: str) -> bool:
    """Whether a plain name is meant by a plain pattern, or is it."""
    if pattern in (EVERY_NAME, name):
        return True
    if not is_pattern(pattern):
        return False
    labels = name.split(".")
    if not all(label and ALLOWED.issuperset(label) for label in labels):
        return False
    if pattern.startswith(SUBDOMAINS):
        wanted = pattern.removeprefix(SUBDOMAINS).split(".")
        labels = labels[-len(wanted) :] if len(labels) > len(wanted) else []
    else:
        wanted = pattern.split(".")
    return len(labels) == len(wanted) and all(map(_matches_label, wanted, labels))


def _matches_label(pattern: str, label: str) -> bool:
    """Each part between stars at its first place: no way back, so no pattern is slow."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == label
    *middle, last = rest
    if len(label) < len(first) + len(last):
        return False
    if not label.startswith(first) or not label.endswith(last):
        return False
    at, end = len(first), len(label) - len(last)
    for part in middle:
        found = label.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def an_example(pattern: str) -> str:
    """A name that the pattern means."""
    if pattern == EVERY_NAME:
        return "any.example"
    return pattern.replace(SUBDOMAINS, "any.").replace("*", "any")


class DomainMatcher:
    """Patterns, asked about name after name; remembers what it was asked."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self.patterns = frozenset(patterns)
        self._wild: Sequence[str] = sorted(filter(is_pattern, self.patterns))
        self._known: dict[str, frozenset[str]] = {}

    def of(self, name: str) -> frozenset[str]:
        """The patterns that mean this plain name."""
        if (known := self._known.get(name)) is None:
            found = {one for one in self._wild if matches(one, name)}
            known = frozenset(found | ({name} & self.patterns))
            if len(self._known) >= _REMEMBERED_MAX:
                self._known.clear()
            self._known[name] = known
        return known
