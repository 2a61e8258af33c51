"""The kernel's names: what it answers, kept in step with the plan.

One key is one answer, put or deleted whole. The order of writes lets every question meet the old
plan or the new one: a name that comes has its records before it has its entry of type 0 (without
that entry no type is denied), a name that goes loses that entry first.

What the maps have no room for is left out. Then nothing is denied any more, because who is left
out would be among the denied: those questions go to the resolver's process, and ``apply`` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from sixfold.discovery.wire import encode_name
from sixfold.errors import HostError
from sixfold.host import layout
from sixfold.host.bpf import Map
from sixfold.model.layers import Layers, differing
from sixfold.model.names import (
    NAME_TYPE,
    NameAnswer,
    NameKey,
    NamePlan,
    NameZone,
)

PASS, LARGE, SHARED, DIRECT = 1, 2, 4, 8  # enum name_flags
RECORDS, SET_RECORDS = 160, 2432  # NAME_RECORDS, 2 * NAME_SET_MAX
ZONES_MAX, ORIGIN_MAX, SOA_MAX = 16, 128, 320
FLAGS_AT = 7  # in struct name_records
CHECKED = 1024  # entries that one repair looks at
Puts = dict[NameKey, NameAnswer]


class NameTable:
    """The only writer of ``names``, ``name_sets`` and ``name_zones``."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._names, self._sets = maps["names"], maps["name_sets"]
        self._zones = maps["name_zones"]
        self._held: Layers[NameKey, NameAnswer] | None = None  # None: to be read
        self._held_zones: dict[bytes, bytes] = {}
        self._wanted: NamePlan | None = None
        self._check: Iterator[NameKey] = iter(())
        self.left_out = 0

    def apply(self, plan: NamePlan) -> int:
        """Bring the maps to ``plan``; returns the number of writes."""
        if plan is self._wanted and self._held is not None:
            return 0
        held = self._held if self._held is not None else self._adopt()
        self._held = None  # an error leaves it to be read anew
        answers = self._fitting(plan.answers)
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
        strangers: list[NameKey] = []
        if count <= CHECKED:  # else nobody notices what is too many before the next start
            kept = (unpack_key(key) for key, _ in self._names.items())
            strangers = [key for key in kept if key not in self._held]
        zones = dict(self._zones.items())
        lines = [f"names[{key.name} {key.type}]: missing or changed; put back" for key in wrong]
        lines += [
            f"names[{key.name} {key.type}]: nobody asked for it; deleted" for key in strangers
        ]
        self._write({key: self._held[key] for key in wrong}, self._held)
        self._write(dict.fromkeys(strangers), self._held)
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
        packed = pack_key(key)
        value = self._names.lookup(packed)
        if value is None:
            return None
        if flags_of(value) & LARGE:
            value = self._sets.lookup(packed) or value
        return unpack_answer(value)

    def read(self) -> dict[NameKey, NameAnswer]:
        """All that the kernel holds now."""
        sets = dict(self._sets.items())
        return {
            unpack_key(key): unpack_answer(
                sets.get(key, value) if flags_of(value) & LARGE else value
            )
            for key, value in self._names.items()
        }

    def _adopt(self) -> Layers[NameKey, NameAnswer]:
        """What an earlier agent left, without sets that nobody has."""
        found = self.read()
        sets = {pack_key(key) for key, answer in found.items() if is_large(answer)}
        self._sets.delete([key for key, _ in self._sets.items() if key not in sets])
        self._held_zones = dict(self._zones.items())
        return Layers(found)

    def _fitting(self, answers: Layers[NameKey, NameAnswer]) -> Layers[NameKey, NameAnswer]:
        """All, or as much as the maps hold."""
        room, rooms = (each.definition.max_entries for each in (self._names, self._sets))
        self.left_out = max(0, len(answers) - room)
        if self.left_out:
            answers = answers.changed({}, list(answers)[room:])
        if len(answers) > rooms:
            large = [key for key, answer in answers.items() if is_large(answer)]
            answers = answers.changed(dict.fromkeys(large[rooms:], NameAnswer(passes=True)))
        return answers

    def _write(
        self,
        changes: Mapping[NameKey, NameAnswer | None],
        held: Layers[NameKey, NameAnswer],
    ) -> None:
        puts = {key: answer for key, answer in changes.items() if answer is not None}
        gone = [key for key, answer in changes.items() if answer is None]
        large = {key: answer for key, answer in puts.items() if is_large(answer)}
        self._names.delete(pack_key(key) for key in gone if key.type == NAME_TYPE)
        self._sets.update((pack_key(key), pack_set(answer)) for key, answer in large.items())
        self._names.update(_packed(puts, kept=False))
        self._names.update(_packed(puts, kept=True))
        self._names.delete(pack_key(key) for key in gone if key.type != NAME_TYPE)
        before = (key for key in changes if (old := held.get(key)) and is_large(old))
        self._sets.delete(pack_key(key) for key in before if key not in large)

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


def _packed(puts: Puts, *, kept: bool) -> Iterator[tuple[bytes, bytes]]:
    """Entries of names themselves (``kept``), or of their types."""
    for key, answer in puts.items():
        if (key.type == NAME_TYPE) == kept:
            yield pack_key(key), pack_answer(answer)


def pack_key(key: NameKey) -> bytes:
    return layout.NAME_KEY.pack(key.view, key.type, encode_name(key.name))


def unpack_key(packed: bytes) -> NameKey:
    view, number, wire = layout.NAME_KEY.unpack(packed)
    labels, at = [], 0
    while length := wire[at]:
        labels.append(wire[at + 1 : at + 1 + length].decode("latin-1"))
        at += 1 + length
    return NameKey(view, ".".join(labels), number)


def _stored(answer: NameAnswer) -> bytes:
    """What rotates is stored twice: every rotation is one slice."""
    return answer.records * 2 if answer.stride else answer.records


def is_large(answer: NameAnswer) -> bool:
    return len(_stored(answer)) > RECORDS


def _head(answer: NameAnswer, flags: int) -> bytes:
    return layout.NAME_RECORDS.pack(
        len(answer.records),
        checksum(answer.records),
        answer.stride,
        answer.answers,
        answer.additionals,
        flags
        | (PASS if answer.passes else 0)
        | (SHARED if answer.shared else 0)
        | (DIRECT if answer.direct else 0),
        answer.owner,
    )


def pack_answer(answer: NameAnswer) -> bytes:
    """An element of ``names``; of a large one the records are in ``name_sets``."""
    if is_large(answer):
        return _head(answer, LARGE).ljust(layout.NAME_RECORDS.size + RECORDS, b"\0")
    return (_head(answer, 0) + _stored(answer)).ljust(layout.NAME_RECORDS.size + RECORDS, b"\0")


def pack_set(answer: NameAnswer) -> bytes:
    size = layout.NAME_RECORDS.size + SET_RECORDS
    packed = (_head(answer, LARGE) + _stored(answer)).ljust(size, b"\0")
    if len(packed) > size:
        raise HostError(f"put name_sets: {len(answer.records)} bytes of records do not fit")
    return packed


def flags_of(value: bytes) -> int:
    return value[FLAGS_AT]


def unpack_answer(value: bytes) -> NameAnswer:
    """Of either map."""
    length, _, stride, answers, additionals, flags, owner = layout.NAME_RECORDS.unpack_from(value)
    start = layout.NAME_RECORDS.size
    return NameAnswer(
        value[start : start + length],
        answers,
        additionals,
        stride,
        passes=bool(flags & PASS),
        owner=owner,
        shared=bool(flags & SHARED),
        direct=bool(flags & DIRECT),
    )


def pack_zone(zone: NameZone, *, passes: bool) -> bytes:
    wire = encode_name(zone.origin)
    sum_ = checksum(zone.soa)
    return layout.NAME_ZONE.pack(len(wire), len(zone.soa), sum_, passes, wire, zone.soa)


def checksum(content: bytes) -> int:
    """One's complement sum of 16-bit words in the order of this machine, as the kernel sums."""
    content += bytes(len(content) & 1)
    total = sum(memoryview(content).cast("H"))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
