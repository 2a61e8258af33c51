"""How names, their answers and their zones look in kernel memory: twin of ``bpf/sixfold_names.h``.

Pure: bytes in, values out, and back.
"""

from __future__ import annotations

from sixfold.discovery.wire import encode_name
from sixfold.errors import HostError
from sixfold.host import layout
from sixfold.model.names import NameAnswer, NameKey, NameZone

PASS, LARGE, SHARED, DIRECT = 1, 2, 4, 8  # enum name_flags
NAME_MAX, RECORDS, SET_RECORDS = 256, 160, 2432  # NAME_MAX, NAME_RECORDS, 2 * NAME_SET_MAX
FLAGS_AT = NAME_MAX + 7  # in struct name_answer


def unpack_key(packed: bytes, value: bytes) -> NameKey:
    """Of an element of ``names``: its key, and what begins with the name."""
    _, seen, number = layout.NAME_KEY.unpack(packed)
    labels, at = [], 0
    while length := value[at]:
        labels.append(value[at + 1 : at + 1 + length].decode("latin-1"))
        at += 1 + length
    return NameKey(seen, ".".join(labels), number)


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
    """What is behind the name in an element of ``names``; of a large one the records are in
    ``name_sets``."""
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
    length, _, stride, answers, additionals, flags, owner = layout.NAME_RECORDS.unpack_from(
        value, NAME_MAX
    )
    start = NAME_MAX + layout.NAME_RECORDS.size
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
