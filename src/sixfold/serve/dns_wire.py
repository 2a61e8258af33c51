"""DNS messages on the wire: read a query, compose an answer.

Pure bytes in, bytes out. Source: RFC 1035 §4, RFC 6891 (EDNS0), RFC 2782 (SRV targets are not
compressed). Hand-packed because this is the resolver's hot path; ``tests/host/test_dns.py`` and
``tests/serve/test_dns_wire.py`` read what it writes with dnspython and dig.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from sixfold.discovery.wire import RECORD
from sixfold.discovery.zone import Rcode

HEADER = struct.Struct("!HHHHHH")
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
OPCODE, RCODE = 0x7800, 0x000F
DO = 0x8000  # in the flags of an OPT record
OPT = 41
UDP_PLAIN = 512  # without EDNS
UDP_MAX = 1232  # ours: never a fragment, whatever the client could take (DNS flag day 2020)


class Edns(NamedTuple):
    """What a client's OPT record says."""

    size: int
    version: int
    dnssec_ok: bool
    options: bytes = b""  # as sent


class Query(NamedTuple):
    """One question. ``question`` is its bytes as sent: answers echo the case of the name."""

    id: int
    flags: int
    question: bytes
    name: str  # lower case, no final dot
    type: int
    class_: int
    edns: Edns | None

    @property
    def udp_limit(self) -> int:
        """Bytes that an answer over UDP may have."""
        if self.edns is None:
            return UDP_PLAIN
        return max(UDP_PLAIN, min(self.edns.size, UDP_MAX))


class Malformed(Exception):
    """Bytes that are no answerable query."""


def parse_query(packet: bytes) -> Query:
    """Read a standard query; Malformed when the bytes are not one."""
    try:
        id_, flags, questions, answers, authorities, additionals = HEADER.unpack_from(packet)
        if questions != 1 or answers or authorities or additionals > 2:
            raise Malformed("one question, and nothing but EDNS beside it")
        name, end = read_name(packet, HEADER.size)
        type_, class_ = struct.unpack_from("!HH", packet, end)
        edns = _read_edns(packet, end + 4, additionals)
    except (struct.error, IndexError) as error:
        raise Malformed("truncated") from error
    question = packet[HEADER.size : end + 4]
    return Query(id_, flags, question, name, type_, class_, edns)


def read_name(packet: bytes, offset: int) -> tuple[str, int]:
    """A name that is not compressed, lower case, and the offset behind it."""
    labels = []
    start = offset
    while length := packet[offset]:
        if length > 63 or offset - start > 254:
            raise Malformed("bad name")
        label = packet[offset + 1 : offset + 1 + length]
        if len(label) < length:
            raise Malformed("truncated")
        # A dot inside a label is escaped, so that it cannot pass for another name's separator.
        labels.append(label.lower().decode("latin-1").replace(".", "\\."))
        offset += 1 + length
    return ".".join(labels), offset + 1


def _read_edns(packet: bytes, offset: int, additionals: int) -> Edns | None:
    edns = None
    for _ in range(additionals):
        _, offset = read_name(packet, offset)
        type_, size, ttl, length = RECORD.unpack_from(packet, offset)
        options = packet[offset + RECORD.size : offset + RECORD.size + length]
        offset += RECORD.size + length
        if offset > len(packet) or (type_ == OPT and edns is not None):
            raise Malformed("bad OPT")
        if type_ == OPT:
            edns = Edns(size, ttl >> 16 & 0xFF, bool(ttl & DO), options)
    return edns


def opt_record(query: Query, rcode: int = 0, options: bytes = b"") -> bytes:
    """The OPT record of an answer; empty when the client sent none."""
    if query.edns is None:
        return b""
    ttl = (rcode >> 4) << 24 | (DO if query.edns.dnssec_ok else 0)
    return b"\0" + RECORD.pack(OPT, UDP_MAX, ttl, len(options)) + options


def compose(
    query: Query,
    rcode: Rcode,
    sections: tuple[list[bytes], list[bytes], list[bytes]] = ([], [], []),
    *,
    limit: int,
    flags: int = 0,
    recursive: bool = True,
    options: bytes = b"",
) -> bytes:
    """An answer of at most ``limit`` bytes; ``options`` are those of EDNS.

    What does not fit goes in this order: additional records silently, then everything, with TC
    set, so that the client asks again over TCP.
    """
    opt = opt_record(query, rcode, options)
    flags |= QR | (RA if recursive else 0) | query.flags & (OPCODE | RD | CD) | rcode & RCODE
    for answers, authority, additional in (sections, (*sections[:2], []), ([], [], [])):
        size = HEADER.size + len(query.question) + len(opt)
        size += sum(map(len, answers)) + sum(map(len, authority)) + sum(map(len, additional))
        if size <= limit:
            break
    if len(answers) < len(sections[0]) or len(authority) < len(sections[1]):
        flags |= TC
    counts = (1, len(answers), len(authority), len(additional) + bool(opt))
    header = HEADER.pack(query.id, flags, *counts)
    return b"".join((header, query.question, *answers, *authority, *additional, opt))


def refuse(packet: bytes, rcode: Rcode) -> bytes | None:
    """A bare header for what could not be read; None when it deserves no answer."""
    if len(packet) < HEADER.size:
        return None
    id_, flags = struct.unpack_from("!HH", packet)
    if flags & QR:  # an answer: never answer it, or two servers talk for ever
        return None
    return HEADER.pack(id_, QR | flags & (OPCODE | RD) | rcode, 0, 0, 0, 0)
