"""Records as bytes, as they go into DNS messages.

Pure. Source: RFC 1035 §4.1.3, RFC 2782 (SRV targets are not compressed). The resolver's process
and the answers that the kernel gives are both made of these.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from ipaddress import ip_address

from sixfold.discovery.zone import RRset

RECORD = struct.Struct("!HHIH")  # type, class, ttl, length of rdata
IN = 1
TXT_STRING = re.compile(r'"([^"]*)"')  # ours hold no quotes
POINTER_TO_QUESTION = b"\xc0\x0c"

TYPE_NAMES = {
    1: "A",
    2: "NS",
    5: "CNAME",
    6: "SOA",
    12: "PTR",
    16: "TXT",
    28: "AAAA",
    33: "SRV",
    251: "IXFR",
    252: "AXFR",
    255: "ANY",
}
TYPE_NUMBERS = {name: number for number, name in TYPE_NAMES.items()}


def encode_name(name: str) -> bytes:
    """Wire form of a name, uncompressed."""
    labels = name.rstrip(".").split(".") if name.strip(".") else []
    return b"".join(bytes((len(raw),)) + raw for raw in map(str.encode, labels)) + b"\0"


def encode_rdata(type_: str, text: str) -> bytes:
    """Wire form of rdata in presentation format, for the types that our zones have."""
    match type_:
        case "A" | "AAAA":
            return ip_address(text).packed
        case "NS" | "PTR" | "CNAME":
            return encode_name(text)
        case "SRV":
            priority, weight, port, target = text.split()
            return struct.pack("!HHH", int(priority), int(weight), int(port)) + encode_name(target)
        case "TXT":
            strings = [raw.encode() for raw in TXT_STRING.findall(text)]
            return b"".join(bytes((len(raw),)) + raw for raw in strings)
        case "SOA":
            server, mailbox, *numbers = text.split()
            timers = struct.pack("!IIIII", *map(int, numbers))
            return encode_name(server) + encode_name(mailbox) + timers
        case _:
            raise AssertionError(f"no records of type {type_} in our zones")


def encode_rrset(rrset: RRset, qname: str) -> list[bytes]:
    """One record each; the name of the question is a pointer to it."""
    owner = POINTER_TO_QUESTION if rrset.name == qname else encode_name(rrset.name)
    number = TYPE_NUMBERS[rrset.type]
    records = []
    for text in rrset.rdata:
        rdata = encode_rdata(rrset.type, text)
        records.append(owner + RECORD.pack(number, IN, rrset.ttl_s, len(rdata)) + rdata)
    return records


def encode_all(rrsets: Iterable[RRset], qname: str) -> list[bytes]:
    return [record for rrset in rrsets for record in encode_rrset(rrset, qname)]


def read_records(records: bytes, count: int) -> list[tuple[int, str]]:
    """TTL and rdata of the first ``count`` records, as ``encode_rrset`` wrote them."""
    found, at = [], 0
    for _ in range(count):
        at = at + 2 if records[at] >= 0xC0 else _name_at(records, at)[1]
        type_, _, ttl_s, length = RECORD.unpack_from(records, at)
        at += RECORD.size
        found.append((ttl_s, decode_rdata(TYPE_NAMES[type_], records[at : at + length])))
        at += length
    return found


def decode_rdata(type_: str, rdata: bytes) -> str:
    """The presentation format again."""
    match type_:
        case "A" | "AAAA":
            return str(ip_address(rdata))
        case "NS" | "PTR" | "CNAME":
            return f"{_name_at(rdata, 0)[0]}."
        case "SRV":
            numbers = " ".join(map(str, struct.unpack_from("!HHH", rdata)))
            return f"{numbers} {_name_at(rdata, 6)[0]}."
        case "TXT":
            strings, at = [], 0
            while at < len(rdata):
                strings.append(f'"{rdata[at + 1 : at + 1 + rdata[at]].decode()}"')
                at += 1 + rdata[at]
            return " ".join(strings)
        case _:
            raise AssertionError(f"no records of type {type_} in our zones")


def _name_at(message: bytes, at: int) -> tuple[str, int]:
    labels = []
    while length := message[at]:
        labels.append(message[at + 1 : at + 1 + length].decode("latin-1"))
        at += 1 + length
    return ".".join(labels), at + 1
