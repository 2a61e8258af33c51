"""Field paths, as errors print them: ``spec.ingress[0].ports[0].endPort``."""

from __future__ import annotations

import re
from dataclasses import dataclass

Path = tuple[str | int, ...]

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong at one place of one object; ``load`` adds file and line.

    ``also`` names the other places that the message is about: when one of those is wrong
    itself, this finding may be a mere consequence and is dropped.
    """

    path: Path
    message: str
    also: tuple[Path, ...] = ()


def show(path: Path) -> str:
    """The path as text; keys that are not plain words are quoted in brackets."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN.match(step):
            text += f".{step}" if text else step
        else:
            text += f'["{step}"]'
    return text


def overlap(one: Path, other: Path) -> bool:
    """Whether one path contains the other."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]
