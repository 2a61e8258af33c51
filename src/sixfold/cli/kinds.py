"""Kinds as users type them: ``po``, ``deploy,svc``, ``pod/web``, ``all``."""

from __future__ import annotations

import difflib

import click

from sixfold.cli import elsewhere
from sixfold.model.kinds import ALIASES, Kind, find

ALL = ("Pod", "Service", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job")


def parse_kinds(text: str) -> list[Kind]:
    """``po,svc`` or ``all``, each once; raises UsageError for what is no kind."""
    words = [word for word in text.split(",") if word]
    names = [name for word in words for name in (ALL if word.lower() == "all" else (word,))]
    return list({kind.name: kind for kind in map(parse_kind, names)}.values())


def parse_kind(word: str) -> Kind:
    if kind := find(word):
        return kind
    if there := elsewhere.KINDS.get(word.lower()):
        raise click.UsageError(f"{word!r}: no kind of ours; {there}")
    close = difflib.get_close_matches(word.lower(), ALIASES, 1)
    hint = f"did you mean {close[0]!r}?" if close else "see sixfold get --help"
    raise click.UsageError(f"{word!r}: no kind of ours; {hint}")


def parse_targets(kind: str, names: tuple[str, ...]) -> tuple[list[Kind], list[tuple[Kind, str]]]:
    """Kinds to list, or objects to name: ``KIND NAME…`` or ``KIND/NAME…``."""
    if "/" in kind:
        return [], [_slashed(word) for word in (kind, *names)]
    kinds = parse_kinds(kind)
    if names and len(kinds) > 1:
        raise click.UsageError("names need one kind; give KIND/NAME for several")
    return kinds, [(kinds[0], name) for name in names]


def by_kind(text: str) -> tuple[str, Kind, str] | None:
    """``deploy/web`` or ``shop/deploy/web`` as namespace ("": not said), kind and name."""
    namespace, kind, name = ["", "", "", *text.split("/")][-3:]
    found = find(kind)
    if found is None or not name or text.count("/") != (2 if namespace else 1):
        return None
    return namespace, found, name


def _slashed(word: str) -> tuple[Kind, str]:
    kind, slash, name = word.partition("/")
    if not slash or not name:
        raise click.UsageError(f"{word!r}: give KIND/NAME, as in pod/web")
    return parse_kind(kind), name
