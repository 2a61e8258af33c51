"""Names as the kernel answers them: what to say for each question, and where to deny.

Plain values; ``host/names.py`` packs them into maps. ``Shards`` is a mapping that may hold a
hundred thousand entries and whose changes are cheap to make and to find: what did not change is
the same object.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

SHARDS = 1024
NAME_TYPE = 0  # of the entry that says that a name exists

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


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


class Shards(Mapping[K, V]):
    """An immutable mapping; ``changed`` makes the next, which shares what is the same."""

    __slots__ = ("_parts", "_size")

    def __init__(self, parts: tuple[Mapping[K, V], ...] = ()) -> None:
        self._parts = parts or tuple({} for _ in range(SHARDS))
        self._size = sum(map(len, self._parts))

    def __getitem__(self, key: K) -> V:
        return self._parts[hash(key) % SHARDS][key]

    def __iter__(self) -> Iterator[K]:
        for part in self._parts:
            yield from part

    def __len__(self) -> int:
        return self._size

    def changed(self, changes: Mapping[K, V | None]) -> Shards[K, V]:
        """With these put, or deleted where the value is None."""
        fresh: dict[int, dict[K, V]] = {}
        for key, value in changes.items():
            number = hash(key) % SHARDS
            part = fresh.get(number)
            if part is None:
                part = fresh[number] = dict(self._parts[number])
            if value is None:
                part.pop(key, None)
            else:
                part[key] = value
        if not fresh:
            return self
        return Shards(tuple(fresh.get(i, part) for i, part in enumerate(self._parts)))

    def changes_from(self, old: Shards[K, V]) -> dict[K, V | None]:
        """What ``old.changed`` has to be given to become this."""
        found: dict[K, V | None] = {}
        for before, after in zip(old._parts, self._parts, strict=True):
            if before is after:
                continue
            found |= {key: value for key, value in after.items() if before.get(key) != value}
            found |= dict.fromkeys(key for key in before if key not in after)
        return found


@dataclass(frozen=True, slots=True)
class NamePlan:
    """All that the kernel is to answer; zones narrower first."""

    answers: Shards[NameKey, NameAnswer] = field(default_factory=Shards)
    zones: tuple[NameZone, ...] = ()
