"""The kernel's names: what it answers, kept in step with the plan.

One element is one answer, put or deleted whole. Its key has a hash of the name, which the kernel
works out while it reads the question; the name itself is in the element, to be compared.
The order of writes lets every question meet the old plan or the new one: a name that comes has its
records before it has its entry of type 0 (without that entry no type is denied), a name that goes
loses that entry first.

What the maps have no room for is left out, and so is a name whose hash another has. Then nothing
is denied any more, because who is left out would be among the denied: those questions go to the
resolver's process, and ``apply`` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from operator import mul
from secrets import randbits
from struct import unpack
from typing import NamedTuple

from sixfold.discovery.wire import encode_name
from sixfold.host import layout
from sixfold.host.bpf import Map
from sixfold.host.name_elements import (
    LARGE,
    NAME_MAX,
    flags_of,
    is_large,
    pack_answer,
    pack_set,
    pack_zone,
    unpack_answer,
    unpack_key,
)
from sixfold.model.layers import Layers, differing
from sixfold.model.names import (
    NAME_TYPE,
    NameAnswer,
    NameKey,
    NamePlan,
    NameZone,
)

ZONES_MAX, ORIGIN_MAX, SOA_MAX = 16, 128, 320
HASH_MASK = (1 << 64) - 1
CHECKED = 512  # entries that one repair looks at
PLACES_KEPT = 64  # a name's types are packed one after the other
ZERO = layout.U32.pack(0)
Puts = dict[NameKey, NameAnswer]


class Place(NamedTuple):
    """A name as an element has it, and its hash."""

    name: bytes
    hash: int


class NameTable:
    """The only writer of ``names``, ``name_sets``, ``name_zones`` and ``name_factors``."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._names, self._sets = maps["names"], maps["name_sets"]
        self._zones, self._factors = maps["name_zones"], maps["name_factors"]
        self._held: Layers[NameKey, NameAnswer] | None = None  # None: to be read
        self._held_zones: dict[bytes, bytes] = {}
        self._wanted: NamePlan | None = None
        self._check: Iterator[NameKey] = iter(())
        self._named: dict[int, str] = {}  # by hash
        self._draw(self._factors.lookup(ZERO) or b"")
        self.left_out = 0

    def apply(self, plan: NamePlan) -> int:
        """Bring the maps to ``plan``; returns the number of writes."""
        if plan is self._wanted and self._held is not None:
            return 0
        held = self._held if self._held is not None else self._adopt()
        self._held = None  # an error leaves it to be read anew
        answers = self._fitting(held, plan.answers)
        zones = self._packed_zones(plan.zones)
        if self.left_out:
            self._put_zones(zones)  # before anything is missing, deny nothing
        changes = {
            key: answers.get(key)
            for key in differing(held, answers)
            if held.get(key) != answers.get(key)
        }
        self._write(changes, held)
        self._put_zones(zones)
        self._held, self._wanted = answers, plan
        return len(changes)

    def repair(self) -> list[str]:
        """Compare some of what should be there with the kernel, and put it right."""
        if self._held is None or self._wanted is None:
            return []
        wrong = [key for key in self._some() if self._loaded(key) != self._held[key]]
        count = len(self._held)
        strangers: dict[bytes, NameKey] = {}
        if count <= CHECKED:  # else nobody notices what is too many before the next start
            strangers = {
                packed: key
                for packed, key in self._keys()
                if key not in self._held or packed != self._key(key)
            }
        zones = dict(self._zones.items())
        lines = [f"names[{key.name} {key.type}]: missing or changed; put back" for key in wrong]
        lines += [
            f"names[{key.name} {key.type}]: nobody asked for it; deleted"
            for key in strangers.values()
        ]
        if self._factors.lookup(ZERO) != self._multipliers:
            lines.append("name_factors: changed; put back")
            self._factors.update([(ZERO, self._multipliers)])
        self._names.delete(strangers)
        self._sets.delete(strangers)
        self._write({key: self._held[key] for key in wrong}, self._held)
        if zones != self._held_zones:
            lines.append("name_zones: changed; put back")
            held, self._held_zones = self._held_zones, zones
            self._put_zones(held)
        return lines

    def lookup(self, key: NameKey) -> NameAnswer | None:
        """What the kernel holds for a question, read from it now."""
        return self._loaded(key)

    def denies(self, name: str) -> bool:
        """Whether the kernel says NXDOMAIN and NODATA to a name that it has no records of."""
        wire = encode_name(name)
        for packed in self._held_zones.values():  # narrower first
            length, _, _, passes, origin, _ = layout.NAME_ZONE.unpack(packed)
            if wire.endswith(origin[:length]):
                return not passes
        return False

    def _some(self) -> list[NameKey]:
        assert self._held is not None
        some = list(islice(self._check, CHECKED))
        if len(some) < CHECKED:
            self._check = iter(self._held)
            some += islice(self._check, CHECKED - len(some))
        return [key for key in dict.fromkeys(some) if key in self._held]

    def _loaded(self, key: NameKey) -> NameAnswer | None:
        packed = self._key(key)
        value = self._names.lookup(packed)
        if value is None or not value.startswith(self._place(key.name).name):
            return None
        if flags_of(value) & LARGE:
            value = self._sets.lookup(packed) or value
        return unpack_answer(value)

    def read(self) -> dict[NameKey, NameAnswer]:
        """All that the kernel holds now."""
        sets = dict(self._sets.items())
        return {
            unpack_key(key, value): unpack_answer(
                sets.get(key, value) if flags_of(value) & LARGE else value
            )
            for key, value in self._names.items()
        }

    def _keys(self) -> Iterator[tuple[bytes, NameKey]]:
        for packed, value in self._names.items():
            yield packed, unpack_key(packed, value)

    def _adopt(self) -> Layers[NameKey, NameAnswer]:
        """What an earlier agent left, without what nobody finds."""
        if not any(self._multipliers):
            self._draw(layout.NAME_FACTORS.pack(*(randbits(64) | 1 for _ in range(NAME_MAX // 4))))
            self._factors.update([(ZERO, self._multipliers)])
        self._names.delete([packed for packed, key in self._keys() if packed != self._key(key)])
        found = self.read()
        sets = {self._key(key) for key, answer in found.items() if is_large(answer)}
        self._sets.delete([key for key, _ in self._sets.items() if key not in sets])
        self._held_zones = dict(self._zones.items())
        self._named = {self._place(key.name).hash: key.name for key in found}
        return Layers(found)

    def _draw(self, multipliers: bytes) -> None:
        """Hash by these from now on."""
        self._multipliers = multipliers
        numbers = layout.NAME_FACTORS.unpack(multipliers) if multipliers else ()

        def place(name: str) -> Place:
            wire = encode_name(name)
            words = -(-len(wire) // 4)
            packed = wire.ljust(NAME_MAX, b"\0")
            hash_ = sum(map(mul, unpack(f"<{words}I", packed[: words * 4]), numbers))
            return Place(packed, hash_ & HASH_MASK)

        self._place = lru_cache(PLACES_KEPT)(place)

    def _key(self, key: NameKey) -> bytes:
        return layout.NAME_KEY.pack(self._place(key.name).hash, key.seen, key.type)

    def _fitting(
        self, held: Layers[NameKey, NameAnswer], answers: Layers[NameKey, NameAnswer]
    ) -> Layers[NameKey, NameAnswer]:
        """All, or as much as the maps hold."""
        room, rooms = (each.definition.max_entries for each in (self._names, self._sets))
        second = {
            key.name
            for key in differing(held, answers)
            if key in answers and not self._is_first(key.name)
        }
        if second:
            answers = answers.changed({}, [key for key in answers if key.name in second])
        self.left_out = max(0, len(answers) - room)
        if self.left_out:
            answers = answers.changed({}, list(answers)[room:])
        self.left_out += len(second)
        if len(answers) > rooms:
            large = [key for key, answer in answers.items() if is_large(answer)]
            answers = answers.changed(dict.fromkeys(large[rooms:], NameAnswer(passes=True)))
        return answers

    def _is_first(self, name: str) -> bool:
        """Whether no other name has its hash."""
        return self._named.setdefault(self._place(name).hash, name) == name

    def _write(
        self,
        changes: Mapping[NameKey, NameAnswer | None],
        held: Layers[NameKey, NameAnswer],
    ) -> None:
        puts = {key: answer for key, answer in changes.items() if answer is not None}
        gone = [key for key, answer in changes.items() if answer is None]
        large = {key: answer for key, answer in puts.items() if is_large(answer)}
        self._names.delete(self._key(key) for key in gone if key.type == NAME_TYPE)
        self._sets.update((self._key(key), self._set(key, one)) for key, one in large.items())
        self._names.update(self._packed(puts, kept=False))
        self._names.update(self._packed(puts, kept=True))
        self._names.delete(self._key(key) for key in gone if key.type != NAME_TYPE)
        before = (key for key in changes if (old := held.get(key)) and is_large(old))
        self._sets.delete(self._key(key) for key in before if key not in large)
        for key in gone:
            if key.type == NAME_TYPE:
                self._named.pop(self._place(key.name).hash, None)

    def _packed(self, puts: Puts, *, kept: bool) -> Iterator[tuple[bytes, bytes]]:
        """Entries of names themselves (``kept``), or of their types."""
        for key, answer in puts.items():
            if (key.type == NAME_TYPE) == kept:
                yield self._key(key), self._place(key.name).name + pack_answer(answer)

    def _set(self, key: NameKey, answer: NameAnswer) -> bytes:
        return self._place(key.name).name + pack_set(answer)

    def _packed_zones(self, zones: Iterable[NameZone]) -> dict[bytes, bytes]:
        fitting = (zone for zone in zones if len(zone.soa) <= SOA_MAX)
        short = (zone for zone in fitting if len(encode_name(zone.origin)) <= ORIGIN_MAX)
        return {
            layout.U32.pack(number): pack_zone(zone, passes=zone.passes or bool(self.left_out))
            for number, zone in enumerate(islice(short, ZONES_MAX))
        }

    def _put_zones(self, zones: dict[bytes, bytes]) -> None:
        put = [(key, zone) for key, zone in zones.items() if self._held_zones.get(key) != zone]
        gone = [key for key in self._held_zones if key not in zones]
        self._zones.delete(gone)
        self._zones.update(put)
        self._held_zones = zones
