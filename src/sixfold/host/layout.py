"""How model values look in kernel memory: the Python twin of ``bpf/sixfold.h``.

Pure: bytes in, values out, and back. Addresses are 16 bytes, IPv4 as ``::ffff:a.b.c.d``;
ports are big-endian, the rest little-endian (the objects are compiled for ``bpfel``).
``tests/twin/test_layout.py`` compares every struct with the BTF of the objects.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from struct import Struct, unpack
from typing import NamedTuple

import msgspec

from sixfold.model import place as wire
from sixfold.model.datapath import (
    ANY_PROTOCOL,
    EndpointEntry,
    FrontendEntry,
    IPAddress,
    IpcacheEntry,
    IPNetwork,
    PolicyTable,
    PortRule,
    PortRules,
    Section,
)
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import Identity
from sixfold.model.place import MAPPED
from sixfold.model.place import pack_port as pack_port
from sixfold.model.place import unpack_address as unpack_address
from sixfold.model.place import unpack_port as unpack_port

U32 = Struct("<I")
U64 = Struct("<Q")
ENDPOINT = Struct("<6I16s16s")
IPCACHE_KEY = Struct("<I16s")
IPCACHE_ENTRY = Struct("<III")
POLICY_KEY = Struct("<IIBB2s")
POLICY_ENTRY = Struct("<III")
POLICY_TABLE = Struct("<2I4II")
FRONTEND_KEY = Struct("<16s2sB5x")
FRONTEND = Struct("<6IBB2x")
RUN = Struct("<4I")  # of it
SOURCE_RANGE = Struct("<II16s")
SERVICE_NETWORK = Struct("<16s16s")
DEVICE = Struct("<6s2x")
ARRIVAL = Struct("<16s2sBBIIIII2Q")
PAIR = Struct("<2Q2QI4x")
LINE_BITS = 14
LINE_FACTORS = (
    *(0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F),
    *(0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3),
)  # bpf/sixfold.h
LOW_64 = (1 << 64) - 1
ARRIVAL_LINE = Struct("<16s16s2s2sBB2x16s2sBxIIIII2Q")
SLOT_LINE = Struct("<16I")
BACKEND = Struct("<16s2sB5x")
BACKENDS = Struct("<18sB5x")  # the same, its address and port as one
LOAD = Struct("<qQ")
DEAF_KEY = Struct("<16sI2s2x")
TUPLE = CONNTRACK_KEY = Struct("<16s16s2s2sBB2x")
CONNTRACK = Struct("<I2II2I2IIBB2sI2sBB2Q2Q16sIB3x")
CAPTURED_KEY = Struct("<Q16s2s6x")
PORT_MODE_KEY = Struct("<I2s2x")
PORT_MODE = Struct("<IBBBx")
PLAINTEXT_KEY = Struct("<II2s6x")
PLAINTEXT = Struct("<QQ")
UPLINK_HOST, UPLINK_FORWARDED = 1, 3  # enum uplink; + 1: the host is the second side
UPLINK_RELAYED = 4
FLOW_EVENT = Struct("<Q8B16s16s2s2s7I2sBBB3x")
EVENT_KIND = Struct("<8xBB42xII")  # of it: type, reason, identities of both sides
_EVENT_TYPE, _EVENT_TRANSPORT = 8, 84  # of it
CAPTURED = (1, 5)  # of enum event_type: let pass, or told only
SPEAKERS = Struct("<I32I32I")
CONFINEMENT = Struct("<QI4x")
REFUSAL_KEY = Struct("<QHH4x")
REFUSAL_TOLD = Struct("<QII")
REFUSAL_EVENT = Struct("<QQIIIHH16s96s")
SYSTEM_CALL_KNOWN = Struct("<QHHI")
NAME_KEY = Struct("<QIH2x")
NAME_FACTORS = Struct("<64Q")
NAME_RECORDS = Struct("<HHBBBBI4x")
NAME_ZONE = Struct("<HHHBx128s320s")
NAMED_ADDRESS = Struct("<4IQQ")
POD_OWNER = Struct("<II")
DIALS = Struct("<QQ6I16s")
VIEW_KEY = Struct("<II")
VIEW_LINE = Struct("<8Q")

ACCELERATED = 1  # of enum endpoint_flag
BY_SOCKETS = 1  # of enum carried
MTLS, TUNNEL, OUTWARD, GIVEN = 1, 2, 3, 4  # of enum transport
TCP, ENDED = 6, 0x05  # FIN or RST was seen
IDLE_TCP_S, IDLE_S, IDLE_FORWARDED_S = 6 * 3600.0, 60.0, 27.0
IPV4_BITS = 96
NO_ADDRESS = bytes(16)
SLOTS_PER_LINE = 16
SLOT_NUMBER_BITS = 18
PART = 1024  # of what is joined


def pack_address(address: IPAddress | None) -> bytes:
    """16 bytes; all zero for none."""
    return NO_ADDRESS if address is None else wire.pack_address(address)


def pack_side(address: IPAddress, port: int) -> bytes:
    """One end of a connection, as events have it."""
    return pack_address(address) + pack_port(port)


def client_key(event: bytes) -> bytes | None:
    """Of an event that tells of a captured connection: its client's side."""
    if event[_EVENT_TRANSPORT] != MTLS or event[_EVENT_TYPE] not in CAPTURED:
        return None
    return event[16:32] + event[48:50]


def pack_endpoint(entry: EndpointEntry) -> bytes:
    return ENDPOINT.pack(
        entry.ifindex,
        entry.id,
        entry.identity,
        entry.cidr4,
        entry.cidr6,
        ACCELERATED if entry.accelerated else 0,
        pack_address(entry.ipv4),
        pack_address(entry.ipv6),
    )


def unpack_endpoint(packed: bytes, netns_cookie: int = 0) -> EndpointEntry:
    ifindex, number, identity, cidr4, cidr6, flags, ipv4, ipv6 = ENDPOINT.unpack(packed)
    return EndpointEntry(
        ifindex=ifindex,
        id=EndpointId(number),
        identity=Identity(identity),
        ipv4=None if ipv4 == NO_ADDRESS else IPv4Address(ipv4[12:]),
        ipv6=None if ipv6 == NO_ADDRESS else IPv6Address(ipv6),
        cidr4=Identity(cidr4),
        cidr6=Identity(cidr6),
        netns_cookie=netns_cookie,
        accelerated=bool(flags & ACCELERATED),
    )


def pack_network(network: IPNetwork) -> bytes:
    """Key of the ipcache: IPv4 prefixes count the 96 mapped bits."""
    bits = network.prefixlen + (IPV4_BITS if network.version == 4 else 0)
    return IPCACHE_KEY.pack(bits, pack_address(network.network_address))


def unpack_network(packed: bytes) -> IPNetwork:
    bits, address = IPCACHE_KEY.unpack(packed)
    if bits >= IPV4_BITS and address.startswith(MAPPED):
        return IPv4Network((address[12:], bits - IPV4_BITS))
    return IPv6Network((address, bits))


def pack_ipcache_entry(entry: IpcacheEntry) -> bytes:
    return IPCACHE_ENTRY.pack(entry.identity, entry.cidr, entry.domain)


def unpack_ipcache_entry(packed: bytes) -> IpcacheEntry:
    return IpcacheEntry(*map(Identity, IPCACHE_ENTRY.unpack(packed)))


def pack_section(number: int, section: Section) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of all entries: of each peer a head, and its rules for some ports."""
    pack_key = POLICY_KEY.pack
    entries: dict[int, tuple[bytes, list[tuple[int, int, bytes, bytes]]]] = {}
    for peer, rules in section.peers.items():
        if (known := entries.get(id(rules))) is None:
            known = entries[id(rules)] = _pack_rules(rules)
        head, others = known
        yield pack_key(number, peer, 0, 0, b"\0\0"), head
        for protocol, bits, port, value in others:
            yield pack_key(number, peer, protocol, bits, port), value


def _pack_rules(rules: PortRules) -> tuple[bytes, list[tuple[int, int, bytes, bytes]]]:
    """The value of the head; protocol, bits, port and value of the rest."""
    head_rule = head_strength = lengths = 0
    others = []
    for protocol, port, bits, verdict, rule, precedence in rules:
        strength = precedence << 2 | verdict
        if protocol == ANY_PROTOCOL:
            head_rule, head_strength = rule, strength
        else:
            lengths |= 1 << bits
            value = POLICY_ENTRY.pack(rule, strength, 0)
            others.append((protocol, bits, port.to_bytes(2, "big"), value))
    return POLICY_ENTRY.pack(head_rule, head_strength, lengths), others


def unpack_policy(key: bytes, value: bytes) -> tuple[int, Identity, PortRule | None]:
    """Section number, peer and rule of one entry; None for a head that says nothing itself."""
    section, peer, protocol, bits, port = POLICY_KEY.unpack(key)
    rule, strength, _ = POLICY_ENTRY.unpack(value)
    if not strength:
        return section, peer, None
    found = PortRule(protocol, unpack_port(port), bits, strength & 3, rule, strength >> 2)
    return section, peer, found


def pack_table(table: PolicyTable, sections: Iterable[int], audit: int) -> bytes:
    """What names the verdict when nothing matches, and the numbers of what is looked up.

    ``audit`` is the number of the table in audit, 0 if there is none.
    """
    return POLICY_TABLE.pack(table.ingress_default, table.egress_default, *sections, audit)


class Place(NamedTuple):
    """What has one number, and one load, whichever services it is a backend of."""

    address: IPAddress
    port: int
    protocol: int


class Load(NamedTuple):
    """Connections from this host to one place: open now, and ever since it was numbered."""

    active: int = 0
    total: int = 0


class Run(msgspec.Struct, frozen=True, gc=False):
    """What a frontend says of its slots; see ``struct frontend``."""

    base: int = 0
    count: int = 0
    members: int = 0
    revision: int = 0

    @property
    def words(self) -> tuple[int, int, int, int]:
        return self.base, self.count, self.members, self.revision

    @property
    def end(self) -> int:
        """The first slot that is not its own."""
        return self.base + self.count + self.members


def pack_frontends(entries: Sequence[FrontendEntry], runs: array[int]) -> list[bytes]:
    """``runs`` has four words of each; thousands at once."""
    size = FRONTEND.size
    words = array("I", bytes(size * len(entries)))
    words[0::7] = array("I", [entry.service for entry in entries])
    for at in range(4):
        words[at + 1 :: 7] = runs[at::4]
    words[5::7] = array("I", [entry.affinity_s for entry in entries])
    packed = bytearray(words)
    packed[24::size] = bytes([entry.algorithm for entry in entries])
    packed[25::size] = bytes([entry.flags for entry in entries])
    rows = bytes(packed)
    return [rows[at : at + size] for at in range(0, len(rows), size)]


class WrittenFrontend(NamedTuple):
    """A frontend without its backends; ``algorithm`` may be any number."""

    service: int
    run: Run
    affinity_s: int
    algorithm: int
    flags: int


def unpack_frontend(packed: bytes) -> WrittenFrontend:
    service, *run, affinity_s, algorithm, flags = FRONTEND.unpack(packed)
    return WrittenFrontend(service, Run(*run), affinity_s, algorithm, flags)


def pack_slot(number: int, weight: int) -> int:
    return weight << SLOT_NUMBER_BITS | number


def unpack_slot(slot: int) -> tuple[int, int]:
    """Backend number and weight."""
    return slot & (1 << SLOT_NUMBER_BITS) - 1, slot >> SLOT_NUMBER_BITS


def pack_backends(protocol: int, backends: Sequence[bytes]) -> bytes:
    """Of packed addresses and ports, one after the other; thousands at once."""
    return joined(backends, bytes((protocol, 0, 0, 0, 0, 0)))


def joined(pieces: Sequence[bytes], end: bytes = b"") -> bytes:
    """All of them in a row, each with this end. Python keeps 80 bytes of account for each piece of
    a join: in parts they stay in the cache, instead of in memory that nobody has touched yet."""
    parts = (pieces[at : at + PART] for at in range(0, len(pieces), PART))
    return b"".join([end.join(part) + end for part in parts])


def unpack_backends(packed: bytes) -> list[tuple[int, bytes]]:
    """Protocol, packed address and port, in the order of their numbers."""
    return [(protocol, place) for place, protocol in BACKENDS.iter_unpack(packed)]


def unpack_load(packed: bytes) -> Load:
    return Load(*LOAD.unpack(packed))


@dataclass(frozen=True, slots=True)
class Connection:
    """One conntrack entry, its sides in the direction in which it was opened."""

    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int
    protocol: int
    source_identity: Identity
    destination_identity: Identity
    source_ifindex: int  # 0 = behind the host's stack
    destination_ifindex: int
    rule: tuple[int, int]  # by direction
    service: int
    service_port: int
    tcp_flags: int
    packets: tuple[int, int]  # sent by source, by destination
    bytes: tuple[int, int]
    idle_s: float
    revision: int
    carried: tuple[int, int] = (0, 0)  # enum carried: what source sends, what destination sends
    uplink: int = 0  # whose it is, if the uplinks see it
    client_ifindex: int = 0  # where the client is, if it dialled a service from outside
    service_address: IPAddress | None = None  # what it dialled then
    transport: int = 0  # enum transport

    @property
    def forwarded(self) -> bool:
        """Somebody else's, by the host's stack: nobody is judged by this entry."""
        return self.uplink in (UPLINK_FORWARDED, UPLINK_RELAYED)

    @property
    def is_open(self) -> bool:
        """Not over, not expired, not cut: as ``expired()`` of bpf/lib/conntrack.h has it."""
        if not self.revision or (self.protocol == TCP and self.tcp_flags & ENDED):
            return False
        if self.transport in (MTLS, GIVEN):  # nobody sees its packets
            return True
        if self.protocol == TCP:
            return self.idle_s <= IDLE_TCP_S
        forwarded = self.uplink == UPLINK_FORWARDED
        return self.idle_s <= (IDLE_FORWARDED_S if forwarded else IDLE_S)


Side = tuple[IPAddress, int]  # address, port


def pack_sides(
    source: Side, destination: Side, protocol: int, icmp_request: int = 0
) -> tuple[bytes, bool]:
    """The key of a connection, and whether its sides are the other way round there."""
    a, b = ((pack_address(address), pack_port(port)) for address, port in (source, destination))
    swapped = _order(*a) > _order(*b)
    first, second = (b, a) if swapped else (a, b)
    key = CONNTRACK_KEY.pack(first[0], second[0], first[1], second[1], protocol, icmp_request)
    return key, swapped


def _order(address: bytes, port: bytes) -> tuple[int, int, int]:
    """As conntrack_key() of bpf/lib/conntrack.h compares sides: as the CPU reads their bytes."""
    low, high = U64.unpack(address[:8])[0], U64.unpack(address[8:])[0]
    return int(low), int(high), int.from_bytes(port, "little")


def unpack_connection(key: bytes, value: bytes, now_ns: int) -> Connection:
    """``now_ns`` is CLOCK_MONOTONIC."""
    address0, address1, port0, port1, protocol, _ = CONNTRACK_KEY.unpack(key)
    revision, *rest = CONNTRACK.unpack(value)
    ifindex, last_seen, identity = rest[0:2], rest[2], rest[3:5]
    rule, service, originator, flags, service_port = rest[5:7], rest[7], rest[8], rest[9], rest[10]
    carried, uplink, transport, packets, size = *rest[12:15], rest[15:17], rest[17:19]
    dialled, client_ifindex, _ = rest[19:]
    address, port = (address0, address1), (port0, port1)
    a, b = originator & 1, 1 - (originator & 1)
    return Connection(
        source=unpack_address(address[a]),
        source_port=unpack_port(port[a]),
        destination=unpack_address(address[b]),
        destination_port=unpack_port(port[b]),
        protocol=protocol,
        source_identity=Identity(identity[a]),
        destination_identity=Identity(identity[b]),
        source_ifindex=ifindex[a],
        destination_ifindex=ifindex[b],
        rule=(rule[0], rule[1]),
        service=service,
        service_port=unpack_port(service_port),
        tcp_flags=flags,
        packets=(packets[a], packets[b]),
        bytes=(size[a], size[b]),
        idle_s=max(0, (now_ns >> 30) - last_seen) * 2**30 / 1e9,
        revision=revision,
        carried=(carried[a], carried[b]),
        uplink=uplink,
        client_ifindex=client_ifindex,
        service_address=unpack_address(dialled) if client_ifindex else None,
        transport=transport,
    )


def pack_arrival(connection: Connection) -> bytes | None:
    """What the client outside sees of it; None: it came from no client outside."""
    if connection.service_address is None:
        return None
    client = pack_address(connection.source), pack_port(connection.source_port)
    dialled = pack_address(connection.service_address), pack_port(connection.service_port)
    return TUPLE.pack(client[0], dialled[0], client[1], dialled[1], connection.protocol, 0)


def line_of(tuple_: bytes) -> bytes:
    """Where in ``arrival_lines`` an arrival stands, if it does: line_of() of bpf/lib/line.h."""
    a, b, c, d, e = unpack("<5Q", tuple_)
    one, two, three, four, five = LINE_FACTORS
    sum_ = (a + one & LOW_64) * (b ^ two) + (c + three & LOW_64) * (d ^ four) + e * five
    return U32.pack((sum_ & LOW_64) >> 64 - LINE_BITS)


def with_arrival(
    connection: Connection, arrivals: Mapping[bytes, bytes], lines: Mapping[bytes, bytes]
) -> Connection:
    """With the packets of a client outside that only its arrival, or its line, has counted yet."""
    key = pack_arrival(connection)
    packets = size = 0
    if key is not None and (arrival := arrivals.get(key)) is not None:
        *_, packets, size = ARRIVAL.unpack(arrival)
    if key is not None and (line := lines.get(line_of(key), b"")).startswith(key):
        *_, more, longer = ARRIVAL_LINE.unpack(line)
        packets, size = packets + more, size + longer
    if not packets:
        return connection
    return replace(
        connection,
        packets=(connection.packets[0] + packets, connection.packets[1]),
        bytes=(connection.bytes[0] + size, connection.bytes[1]),
    )


class Plaintext(NamedTuple):
    """Who came to a permissive port without the tunnel."""

    client: EndpointId
    server: EndpointId
    port: int


def unpack_plaintext(key: bytes) -> Plaintext:
    client, server, port = PLAINTEXT_KEY.unpack(key)
    return Plaintext(EndpointId(client), EndpointId(server), unpack_port(port))


class RawEvent(NamedTuple):
    """``struct flow_event``, ports in host order, IPv4 unmapped."""

    time_ns: int
    type: int
    reason: int
    protocol: int
    direction: int
    tcp_flags: int
    icmp_type: int
    icmp_code: int
    is_reply: int
    source: IPAddress
    destination: IPAddress
    source_port: int
    destination_port: int
    source_identity: int
    destination_identity: int
    rule: tuple[int, int]
    service: int
    ifindex: int
    length: int
    service_port: int
    answer: int = 0  # DNS: 1 + rcode of what the kernel answered
    dial: int = 0  # model/dial.py
    transport: int = 0  # enum transport


def unpack_event(raw: bytes) -> RawEvent:
    """One record of the ring."""
    fields = FLOW_EVENT.unpack(raw)
    time_ns, type_, reason, protocol, direction = fields[:5]
    tcp_flags, icmp_type, icmp_code, is_reply = fields[5:9]
    source, destination, source_port, destination_port = fields[9:13]
    source_identity, destination_identity, ingress, egress = fields[13:17]
    service, ifindex, length, service_port, answer, dial, transport = fields[17:]
    return RawEvent(
        time_ns=time_ns,
        type=type_,
        reason=reason,
        protocol=protocol,
        direction=direction,
        tcp_flags=tcp_flags,
        icmp_type=icmp_type,
        icmp_code=icmp_code,
        is_reply=is_reply,
        source=unpack_address(source),
        destination=unpack_address(destination),
        source_port=unpack_port(source_port),
        destination_port=unpack_port(destination_port),
        source_identity=source_identity,
        destination_identity=destination_identity,
        rule=(ingress, egress),
        service=service,
        ifindex=ifindex,
        length=length,
        service_port=unpack_port(service_port),
        answer=answer,
        dial=dial,
        transport=transport,
    )
