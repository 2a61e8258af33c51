"""Label selectors as kubectl takes them: ``app=web,tier!=db,env in (a,b),!old,new``."""

from __future__ import annotations

import re
from collections.abc import Mapping

import click

from sixfold.model.meta import LabelSelector, LabelSelectorRequirement

_TERM = re.compile(
    r"""\s*(?:
        !\s*(?P<absent>[^\s,!=()]+)
      | (?P<key>[^\s,!=()]+)\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\)
      | (?P<left>[^\s,!=()]+)\s*(?P<operator>==|=|!=)\s*(?P<right>[^\s,!=()]*)
      | (?P<present>[^\s,!=()]+)
    )\s*(?:,|$)""",
    re.VERBOSE,
)


def parse_selector(text: str) -> LabelSelector:
    """The selector; raises UsageError."""
    lines: list[LabelSelectorRequirement] = []
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if not match:
            raise click.UsageError(
                f"selector {text!r}: cannot read {text[position:]!r}; "
                "give key=value, key!=value, key in (a,b), key or !key"
            )
        lines.append(_requirement(match))
        position = match.end()
    return LabelSelector(match_expressions=lines)


def _requirement(match: re.Match[str]) -> LabelSelectorRequirement:
    if key := match["absent"]:
        return LabelSelectorRequirement(key, "DoesNotExist")
    if key := match["present"]:
        return LabelSelectorRequirement(key, "Exists")
    if key := match["left"]:
        operator = match["operator"]
        return LabelSelectorRequirement(
            key, "NotIn" if operator == "!=" else "In", [match["right"]]
        )
    values = [value.strip() for value in match["values"].split(",")]
    return LabelSelectorRequirement(match["key"], "In" if match["set"] == "in" else "NotIn", values)


def selects(selector: LabelSelector, item: Mapping[str, object]) -> bool:
    """Whether the object's labels satisfy the selector."""
    metadata = item.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    return selector.matches(labels or {})
