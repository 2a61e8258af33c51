"""Which addresses does an answer give to the name that was asked, and for how long?

Pure bytes in, values out. Source: RFC 1035 §4.1. Only what follows from the question counts: its
own records, and those at the end of its chain of CNAMEs, as a resolver library reads them. Other
records of the answer belong to nobody here, whatever they say.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from sixfold.discovery.wire import IN, RECORD
from sixfold.serve.dns_wire import HEADER, Malformed

A, CNAME, AAAA = 1, 5, 28
CHAIN_MAX = 16  # links; longer ones are not followed by libraries either
JUMPS_MAX = 32
SIZES = {A: 4, AAAA: 16}


class Record(NamedTuple):
    """One record of the answer section, as far as it matters."""

    owner: str
    type: int
    ttl_s: int
    value: str | IPv4Address | IPv6Address


def addresses_of(reply: bytes, name: str) -> Mapping[IPv4Address | IPv6Address, int]:
    """Seconds that each address of ``name`` is good for: the least TTL on the way to it."""
    try:
        records = list(_answers(reply))
    except (Malformed, struct.error, IndexError):
        return {}
    ttl_s = 1 << 31
    for _ in range(CHAIN_MAX):
        own = [one for one in records if one.owner == name]
        found = {one.value: min(ttl_s, one.ttl_s) for one in own if not isinstance(one.value, str)}
        alias = next((one for one in own if isinstance(one.value, str)), None)
        if found or alias is None:
            return found
        name, ttl_s = str(alias.value), min(ttl_s, alias.ttl_s)
    return {}


def _answers(reply: bytes) -> Iterator[Record]:
    questions, answers = struct.unpack_from("!HH", reply, 4)
    offset = HEADER.size
    for _ in range(questions):
        _, offset = expand_name(reply, offset)
        offset += 4
    for _ in range(answers):
        owner, offset = expand_name(reply, offset)
        type_, class_, ttl_s, length = RECORD.unpack_from(reply, offset)
        start = offset + RECORD.size
        offset = start + length
        if offset > len(reply):
            raise Malformed("truncated")
        ttl_s = 0 if ttl_s >> 31 else ttl_s  # RFC 2181 §8
        if class_ != IN:
            continue
        if type_ == CNAME:
            yield Record(owner, type_, ttl_s, expand_name(reply, start)[0])
        elif SIZES.get(type_) == length:
            yield Record(owner, type_, ttl_s, ip_address(reply[start:offset]))


def expand_name(message: bytes, offset: int) -> tuple[str, int]:
    """A name, perhaps compressed, spelled as ``dns_wire.read_name`` does; the offset behind it."""
    labels: list[str] = []
    end, jumps = 0, 0
    while length := message[offset]:
        if length >= 0xC0:
            end = end or offset + 2
            offset = (length & 0x3F) << 8 | message[offset + 1]
            jumps += 1
            if jumps > JUMPS_MAX:
                raise Malformed("a name that never ends")
            continue
        if length > 63 or len(labels) > 127:
            raise Malformed("bad name")
        label = message[offset + 1 : offset + 1 + length]
        if len(label) < length:
            raise Malformed("truncated")
        labels.append(label.lower().decode("latin-1").replace(".", "\\."))
        offset += 1 + length
    return ".".join(labels), end or offset + 1
