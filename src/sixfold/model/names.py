"""Names as the kernel answers them: what to say for each question, and where to deny.

Plain values; ``host/names.py`` packs them into maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sixfold.model.endpoint import EndpointId
from sixfold.model.layers import Layers

NAME_TYPE = 0  # of the entry that says that a name exists


class NameKey(NamedTuple):
    """A question: lower case, no final dot.

    seen  of a name of several owners, a bit for each that is told of, in the order in which its
          entry of type 0 has them; 0: all of them, or it is no such name
    """

    seen: int
    name: str
    type: int


class NameAnswer(NamedTuple):
    """Records as they stand behind the question, or that the kernel has none to give.

    stride  bytes of one record when they rotate, else 0
    passes  not the kernel's to answer: of the name itself (``NAME_TYPE``), or of this type
    owner   number of whom one must see to be told; 0: it is told to everybody; of what is shared,
            the digest of those that it tells of
    shared  of several owners: who sees some is answered what is told of those. Of the name itself
            the records are the owners' numbers; none: there are too many, the process answers
    direct  leads to pods themselves: who was told is noted
    """

    records: bytes = b""
    answers: int = 0
    additionals: int = 0
    stride: int = 0
    passes: bool = False
    owner: int = 0
    shared: bool = False
    direct: bool = False


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


OWNERS_FACTOR = 0x9E3779B1  # bpf/sixfold_names.h


def digest(owners: Iterable[int]) -> int:
    """Of the numbers of a name's owners, in order; of one it is its number."""
    found = 0
    for owner in owners:
        found = (found * OWNERS_FACTOR + owner) & 0xFFFFFFFF
    return found


NOTHING, EVERYTHING = 0, 1  # views; others are numbered as they come
LIMITED = 1 << 31  # beside a view: policy says which names may be asked for
LINE_BITS = 512
FIRST_POD_OWNER = 1 << 31  # + endpoint id: owners of names of pods; below are services

Lines = Mapping[int, int]  # owner // LINE_BITS → a bit for each owner that is seen


def sees(lines: Lines, owner: int) -> bool:
    return bool(lines.get(owner // LINE_BITS, 0) >> owner % LINE_BITS & 1)


def numbers_in(lines: Lines) -> Iterator[int]:
    """The owners that are seen, in order."""
    for line, bits in sorted(lines.items()):
        for at in range(bits.bit_length()):
            if bits >> at & 1:
                yield line * LINE_BITS + at


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """Who is told which names. An owner of names is a service, or a pod by its address.

    of       view of each endpoint
    clients  the same, by address, as the resolver's process meets them; None: all see everything
    seen     owners that are seen, of each view but NOTHING and EVERYTHING
    owners   number of each owner
    """

    of: Mapping[EndpointId, int] = field(default_factory=Layers)
    clients: Mapping[str, int] | None = None
    seen: Mapping[int, Lines] = field(default_factory=dict)
    owners: Mapping[str, int] = field(default_factory=Layers)

    def sees(self, view: int, owner: str) -> bool:
        """Whether who has this view is told names of the owner."""
        if view == EVERYTHING:
            return True
        return sees(self.seen.get(view, {}), self.owners.get(owner, 0))
