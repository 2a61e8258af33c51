"""A name of ours that stands for one of the world: the alias is ours, the rest is upstream's.

Bytes in, bytes out; who asks upstream is not known here. The upstream's records are written anew,
because the names in them are compressed against its own message. Source: RFC 1034 §4.3.2 (the
alias and what it leads to are one answer), RFC 6604 (the last name decides the rcode), RFC 3597
(which types have compressed names in them).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from sixfold.discovery.wire import IN, RECORD, TYPE_NUMBERS, encode_all, encode_name
from sixfold.discovery.zone import Answer, Rcode
from sixfold.serve.dns_addresses import expand_name
from sixfold.serve.dns_wire import AA, HEADER, OPT, RCODE, Malformed, Query, compose

MX, SOA = 15, TYPE_NUMBERS["SOA"]
NAMES_BEFORE = {2: 0, 5: 0, 12: 0, MX: 2}  # one name, behind so many bytes


class Alias(NamedTuple):
    """What was asked, the aliases that are ours, and what to ask upstream."""

    asked: Query
    chain: Answer
    rest: Query

    @classmethod
    def of(cls, query: Query, chain: Answer) -> Alias:
        question = encode_name(chain.beyond) + struct.pack("!HH", query.type, IN)
        return cls(query, chain, query._replace(question=question, name=chain.beyond))

    def complete(self, reply: bytes, limit: int) -> bytes | None:
        """The whole answer, of at most ``limit`` bytes; None when the reply is malformed."""
        try:
            sections = list(_sections(reply))
        except (Malformed, struct.error, IndexError):
            return None
        answers = encode_all(self.chain.answers, self.asked.name) + sections[0]
        code = reply[3] & RCODE
        rcode = Rcode(code) if code in Rcode.__members__.values() else Rcode.SERVFAIL
        authority, additional = sections[1], list[bytes]()
        whole = (answers, authority, additional)
        return compose(self.asked, rcode, whole, limit=limit, flags=AA)


def _sections(reply: bytes) -> Iterator[list[bytes]]:
    """The records of the answer and of the authority, each by itself."""
    questions, *counts = struct.unpack_from("!HHH", reply, 4)
    offset = HEADER.size
    for _ in range(questions):
        offset = expand_name(reply, offset)[1] + 4
    for count in counts:
        records = []
        for _ in range(count):
            record, offset = _record(reply, offset)
            records.append(record)
        yield [record for record in records if record]


def _record(reply: bytes, offset: int) -> tuple[bytes, int]:
    """One record without compression, and the offset behind it; empty: not to be passed on."""
    owner, offset = expand_name(reply, offset)
    type_, class_, ttl_s, length = RECORD.unpack_from(reply, offset)
    start = offset + RECORD.size
    end = start + length
    if end > len(reply):
        raise Malformed("truncated")
    if type_ == OPT:
        return b"", end
    if type_ in NAMES_BEFORE:
        at = start + NAMES_BEFORE[type_]
        rdata = reply[start:at] + encode_name(expand_name(reply, at)[0])
    elif type_ == SOA:
        server, at = expand_name(reply, start)
        mailbox, at = expand_name(reply, at)
        rdata = encode_name(server) + encode_name(mailbox) + reply[at:end]
    else:
        rdata = reply[start:end]
    return encode_name(owner) + RECORD.pack(type_, class_, ttl_s, len(rdata)) + rdata, end
