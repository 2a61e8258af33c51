"""Answers for the kernel: every record set of the zone, as bytes behind its question.

Pure. What ``zone.lookup`` says of a name is written down here once, so that ``bpf/lib/names.h``
copies it; ``tests/twin/test_names.py`` holds the two equal. A name that exists has an entry of
its own, of type 0: with it another type is NODATA, without it NXDOMAIN. What the kernel cannot
give whole (sets longer than a packet, a CNAME, names that are made up when they are asked for)
has an entry that says so, and is the resolver process's to answer. Each entry has the number of
its owner, whom a pod must see to be told (``bpf/lib/views.h``). An address of several services has
entries for each choice of them, of which the kernel takes that which the pod sees.

Cost follows the change: a change of the zone touches its names, the names above them, and the SRV
records that point to them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from struct import pack

from sixfold.discovery.wire import (
    IN,
    POINTER_TO_QUESTION,
    RECORD,
    TYPE_NUMBERS,
    encode_name,
    encode_rdata,
)
from sixfold.discovery.zone import (
    Owner,
    RRset,
    Sees,
    ZoneDelta,
    ZoneSettings,
    ZoneTree,
    ancestors,
    lookup,
    owners_at,
)
from sixfold.model.layers import Layers
from sixfold.model.names import NAME_TYPE, NameAnswer, NameKey, NamePlan, NameZone, digest

ALL = 0  # of a name's owners
OWNERS_MAX = 3  # of a name for which every choice of them has its entries: NAME_OWNERS
BEHIND_NAME = 12 + 4  # header before the name, type and class behind it
RECORDS_MAX = 1216  # of one answer: what a packet of 1232 bytes has room for
COUNT_MAX = 255
ZONES_MAX = 16
POINTER = 0xC000
KERNEL_TYPES = ("A", "AAAA", "SRV", "PTR", "TXT", "NS")
ROTATING = ("A", "AAAA")
ADDRESS_TYPES = (1, 28, 33)  # A, AAAA, SRV: answers with addresses
PASS = NameAnswer(passes=True)
Entries = dict[NameKey, NameAnswer | None]


class AnswerPlanner:
    """Plans answers, change after change.

    serial  of the SOA at the start
    number  of an owner: the same for the same owner, always; 0: everybody is told
    direct  whether an owner's names lead to pods themselves
    """

    def __init__(
        self,
        serial: int = 1,
        number: Callable[[Owner], int] = lambda _: 0,
        direct: Callable[[Owner], bool] = lambda _: False,
    ) -> None:
        self._serial = serial
        self._number = number
        self._direct = direct
        self._targets: defaultdict[str, set[str]] = defaultdict(set)  # owners that point there
        self._pointing: dict[str, set[str]] = {}
        self._keys: dict[str, tuple[NameKey, ...]] = {}  # of each name that has entries
        self._plan = NamePlan()
        self.zone: ZoneTree | None = None

    def plan(self, settings: ZoneSettings, delta: ZoneDelta) -> NamePlan:
        """The plan after a change of the zone; the same object when there was none."""
        names: set[str] = set()
        if self.zone is None:
            self.zone = ZoneTree(settings)
            self.zone.serial = self._serial
            names.update(settings.origins)
        elif not delta:
            return self._plan
        assert settings == self.zone.settings, "settings are fixed for the life of an instance"
        self.zone.update(delta)
        for key in (*delta.set, *delta.delete):
            names.update(ancestors(key.name))
            if key.type in ROTATING:
                names |= self._targets.get(key.name, set())
        entries: Entries = {}
        for name in names:
            if self.zone.origin_of(name) is not None:
                self._compile(name, entries)
        self._plan = NamePlan(with_entries(self._plan.answers, entries), zones_of(self.zone))
        return self._plan

    def _compile(self, name: str, entries: Entries) -> None:
        zone = self.zone
        assert zone is not None
        found: dict[int, NameAnswer] = {}
        pointing: set[str] = set()
        if zone.exists(name):
            found[NAME_TYPE] = PASS if zone.get(name, "CNAME") else NameAnswer()
            for type_ in zone.types_at(name) if not found[NAME_TYPE].passes else ():
                found[TYPE_NUMBERS[type_]] = compile_answer(zone, name, type_)
                if type_ in ("SRV", "NS"):
                    pointing |= targets_of(zone.get(name, type_))
        self._point(name, pointing)
        for key in self._keys.pop(name, ()):
            entries[key] = None
        owners = sorted(owners_at(zone, name))
        if len(owners) > 1:
            compiled = self._shared(zone, name, found, owners)
        else:
            owner = self._number(owners[0]) if owners else 0
            noted = bool(owners) and self._direct(owners[0])
            compiled = {
                NameKey(ALL, name, number): answer._replace(
                    owner=owner, direct=noted and number in ADDRESS_TYPES
                )
                for number, answer in found.items()
            }
        if compiled:
            self._keys[name] = tuple(compiled)
        entries |= compiled

    def _shared(
        self, zone: ZoneTree, name: str, found: Mapping[int, NameAnswer], owners: Sequence[Owner]
    ) -> dict[NameKey, NameAnswer]:
        """What a name of several owners is answered, by which of them are seen."""
        numbers = {owner: self._number(owner) for owner in owners}
        whole = digest(numbers.values())
        compiled = {
            NameKey(ALL, name, number): answer._replace(owner=whole, shared=True)
            for number, answer in found.items()
        }
        itself = NameKey(ALL, name, NAME_TYPE)
        if len(owners) > OWNERS_MAX:
            return compiled
        packed = pack(f"<{len(owners)}I", *numbers.values())
        compiled[itself] = compiled[itself]._replace(records=packed, answers=len(owners))
        for seen in range(1, (1 << len(owners)) - 1):
            some = [owner for at, owner in enumerate(owners) if seen >> at & 1]
            owner = digest(map(numbers.__getitem__, some))
            for type_ in zone.types_at(name):
                answer = compile_answer(zone, name, type_, some.__contains__)
                key = NameKey(seen, name, TYPE_NUMBERS[type_])
                compiled[key] = answer._replace(owner=owner, shared=True)
        return compiled

    def _point(self, name: str, targets: set[str]) -> None:
        for target in self._pointing.pop(name, ()):
            self._targets[target].discard(name)
            if not self._targets[target]:
                del self._targets[target]
        if targets:
            self._pointing[name] = targets
        for target in targets:
            self._targets[target].add(name)


def with_entries(
    answers: Layers[NameKey, NameAnswer], entries: Entries
) -> Layers[NameKey, NameAnswer]:
    """With these put, or gone where there is None."""
    puts = {key: answer for key, answer in entries.items() if answer is not None}
    return answers.changed(puts, entries.keys() - puts.keys())


def targets_of(rdata: Iterable[str]) -> set[str]:
    return {text.split()[-1].rstrip(".") for text in rdata}


def compile_answer(zone: ZoneTree, name: str, type_: str, sees: Sees | None = None) -> NameAnswer:
    """What a question is answered, as bytes; or that it is not the kernel's to answer."""
    answer = lookup(zone, name, type_, sees)
    assert answer is not None, "only names of ours are compiled"
    writer = _Writer(name)
    for rrset in answer.answers:
        writer.write(rrset)
    count = writer.count
    for rrset in answer.additional:
        writer.write(rrset)
    additionals = writer.count - count
    stride = 0
    if type_ in ROTATING and count > 1:
        stride = len(writer.records) // count
    if len(writer.records) > RECORDS_MAX or max(count, additionals) > COUNT_MAX:
        return PASS
    return NameAnswer(bytes(writer.records), count, additionals, stride)


class _Writer:
    """Records one after the other; an owner that is in the message already is pointed to."""

    def __init__(self, qname: str) -> None:
        self.records = bytearray()
        self.count = 0
        self._start = BEHIND_NAME + len(encode_name(qname))
        self._places = {qname: 12}

    def write(self, rrset: RRset) -> None:
        for text in rrset.rdata:
            rdata = encode_rdata(rrset.type, text)
            self.records += self._owner(rrset.name)
            self.records += RECORD.pack(TYPE_NUMBERS[rrset.type], IN, rrset.ttl_s, len(rdata))
            if rrset.type in ("SRV", "NS"):
                (target,) = targets_of([text])
                place = self._start + len(self.records) + len(rdata) - len(encode_name(target))
                self._places.setdefault(target, place)
            self.records += rdata
            self.count += 1

    def _owner(self, name: str) -> bytes:
        place = self._places.get(name, POINTER)
        return (POINTER | place).to_bytes(2, "big") if place < POINTER else encode_name(name)


def zones_of(zone: ZoneTree) -> tuple[NameZone, ...]:
    """Where names may be denied. Reverse zones beyond the bound are the process's."""
    settings, found = zone.settings, []
    if settings.pods_insecure:  # whatever is asked for there is made up on the way
        found.append(NameZone(f"pod.{settings.origins[0]}", b"", passes=True))
    for origin in settings.origins:
        soa = zone.soa(origin)
        rdata = encode_rdata(soa.type, soa.rdata[0])
        wire = RECORD.pack(TYPE_NUMBERS[soa.type], IN, soa.ttl_s, len(rdata)) + rdata
        found.append(NameZone(origin, wire))
    return tuple(found[:ZONES_MAX])


assert (POINTER | 12).to_bytes(2, "big") == POINTER_TO_QUESTION
