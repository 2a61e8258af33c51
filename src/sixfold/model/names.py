"""Names as the kernel answers them: what to say for each question, and where to deny.

Plain values; ``host/names.py`` packs them into maps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from sixfold.model.layers import Layers

NAME_TYPE = 0  # of the entry that says that a name exists


class NameKey(NamedTuple):
    """A question: lower case, no final dot. ``view`` is who asks; 0 is everybody."""

    view: int
    name: str
    type: int


class NameAnswer(NamedTuple):
    """Records as they stand behind the question, or that the kernel has none to give.

    stride  bytes of one record when they rotate, else 0
    passes  not the kernel's to answer: of the name itself (``NAME_TYPE``), or of this type
    """

    records: bytes = b""
    answers: int = 0
    additionals: int = 0
    stride: int = 0
    passes: bool = False


@dataclass(frozen=True, slots=True)
class NameZone:
    """A zone of ours; ``soa`` is its record without owner. ``passes``: nothing is denied here."""

    origin: str
    soa: bytes
    passes: bool = False


@dataclass(frozen=True, slots=True)
class NamePlan:
    """All that the kernel is to answer; zones narrower first."""

    answers: Layers[NameKey, NameAnswer] = field(default_factory=Layers)
    zones: tuple[NameZone, ...] = ()
