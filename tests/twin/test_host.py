"""The host as an endpoint, packet by packet: what the uplinks' programs take for the host's, and
what its table says of it, as ``policy.decide`` reads it."""

from __future__ import annotations

import os
import random
import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from crafted import (
    A4,
    ACK,
    ICMP,
    ICMPV6,
    SHOT,
    SYN,
    TCP,
    UDP,
    WORLD4,
    WORLD6,
    Kernel,
    allow,
    arp,
    ethernet,
    frame4,
    frame6,
    ipv4,
    tcp,
    udp,
)

from sixfold.host import bpf
from sixfold.host.datapath import KernelDatapath
from sixfold.model.datapath import (
    ALLOW,
    DENY,
    EGRESS,
    INGRESS,
    Datapath,
    IPAddress,
    IpcacheEntry,
    PolicyEntry,
    PolicyTable,
)
from sixfold.model.endpoint import HOST_ENDPOINT, EndpointId
from sixfold.model.identity import FIRST_CIDR, HOST, RESOLVER, WORLD, Identity
from sixfold.model.reason import DropReason
from sixfold.policy.decide import Party, lookup

pytestmark = pytest.mark.root

NEXT = 0xFFFFFFFF
RST, FIN = 4, 1
VERDICT, DROP, CUT, AUDIT = 1, 2, 4, 5
HOST4, HOST6 = IPv4Address("198.51.100.1"), IPv6Address("2001:db8:a::1")
LINK_LOCAL = IPv6Address("fe80::7")
CIDR = Identity(FIRST_CIDR)
IPCACHE = {
    ip_network(HOST4): IpcacheEntry(HOST),
    ip_network(HOST6): IpcacheEntry(HOST),
    ip_network("169.254.20.10"): IpcacheEntry(RESOLVER),
    ip_network("0.0.0.0/0"): IpcacheEntry(WORLD),
    ip_network("::/0"): IpcacheEntry(WORLD),
    ip_network("203.0.113.64/26"): IpcacheEntry(WORLD, CIDR),
}
INTO = (WORLD4, HOST4)
OUT = (HOST4, WORLD4)
SSH = PolicyEntry(INGRESS, WORLD, TCP, 22, 16, ALLOW, 31)
OPEN_OUT = PolicyEntry(EGRESS, Identity(0), 0, 0, 0, ALLOW, 41)
OPEN_IN = PolicyEntry(INGRESS, Identity(0), 0, 0, 0, ALLOW, 42)


class Uplink:
    """The programs of an uplink, on a device that is no pod's."""

    def __init__(self, datapath: KernelDatapath) -> None:
        self.kernel = Kernel(datapath)
        self.kernel.desired = replace(self.kernel.desired, ipcache=IPCACHE)
        self.datapath = datapath
        self.enforce(SSH)

    def state(self, *entries: PolicyEntry, audit: PolicyTable | None = None) -> Datapath:
        table = PolicyTable.of(entries, 10, 11, audit)
        desired = self.kernel.desired
        return replace(desired, policies={**desired.policies, HOST_ENDPOINT: table})

    def enforce(self, *entries: PolicyEntry) -> None:
        self.datapath.apply(self.state(*entries))
        self.clear()

    def clear(self) -> None:
        self.kernel.events()
        for name in ("conntrack", "fragments"):
            connections = self.datapath.maps[name]
            connections.delete([key for key, _ in connections.items()])

    def _run(self, program: str, packet: bytes, came_from: int = 0) -> bool:
        """Whether it passes: on to the next program, never past it."""
        context = bytearray(192)
        struct.pack_into("<II", context, 36, came_from, 1)  # ingress_ifindex, ifindex
        found = bpf.run_program(self.datapath.programs[program], packet, context=bytes(context))
        assert found.verdict in (NEXT, SHOT)
        assert found.packet == packet
        return found.verdict == NEXT

    def receive(self, packet: bytes) -> bool:
        return self._run("from_uplink", packet)

    def send(self, packet: bytes) -> bool:
        """Something that the host made itself."""
        return self._run("to_uplink", packet)

    def forward(self, packet: bytes) -> bool:
        """Something that came in by another device, and is leaving here."""
        return self._run("to_uplink", packet, came_from=7)

    def drops(self) -> list[tuple[int, int, int]]:
        return [
            (one.reason, one.direction, one.rule[one.direction])
            for one in self.kernel.events()
            if one.type == DROP
        ]


@pytest.fixture
def uplink(datapath: KernelDatapath) -> Uplink:
    return Uplink(datapath)


def test_a_host_that_no_policy_selects_is_open_and_not_looked_at(uplink: Uplink) -> None:
    uplink.datapath.apply(uplink.kernel.desired)
    uplink.clear()
    assert uplink.receive(frame4(tcp(SYN), TCP, *INTO))
    assert uplink.send(frame4(tcp(SYN), TCP, *OUT))
    assert uplink.kernel.events() == []
    assert list(uplink.datapath.conntrack()) == []


def test_a_selected_host_is_closed_but_for_what_a_rule_allows(uplink: Uplink) -> None:
    assert uplink.receive(frame4(tcp(SYN, destination=22), TCP, *INTO))
    (event,) = uplink.kernel.events()
    assert (event.type, event.rule, event.direction) == (VERDICT, (31, 0), INGRESS)
    assert (event.source_identity, event.destination_identity) == (WORLD, HOST)
    assert not uplink.receive(frame4(tcp(SYN, destination=23), TCP, *INTO))
    assert not uplink.send(frame4(tcp(SYN, destination=22), TCP, *OUT))
    denied = DropReason.POLICY_DENIED
    assert uplink.drops() == [(denied, INGRESS, 10), (denied, EGRESS, 11)]


def test_ipv6_is_judged_alike_and_neighbours_are_outside(uplink: Uplink) -> None:
    assert uplink.receive(frame6(tcp(SYN, destination=22), TCP, WORLD6, HOST6))
    assert not uplink.receive(frame6(tcp(SYN, destination=23), TCP, WORLD6, HOST6))
    for neighbour in (LINK_LOCAL, HOST6):  # the latter lies
        assert uplink.receive(frame6(tcp(SYN, destination=22), TCP, neighbour, HOST6))
        assert not uplink.receive(frame6(tcp(SYN, destination=23), TCP, neighbour, HOST6))
        assert not uplink.send(frame6(tcp(SYN), TCP, HOST6, neighbour))


def test_answers_pass_where_the_question_did(uplink: Uplink) -> None:
    assert uplink.receive(frame4(tcp(SYN, 1000, 22), TCP, *INTO))
    assert uplink.send(frame4(tcp(SYN | ACK, 22, 1000), TCP, *OUT))
    assert uplink.receive(frame4(tcp(ACK, 1000, 22), TCP, *INTO))
    assert not uplink.send(frame4(tcp(ACK, 22, 1001), TCP, *OUT))
    (found,) = uplink.datapath.conntrack()
    assert (found.source, found.destination, found.packets) == (WORLD4, HOST4, (2, 1))


def test_what_is_addressed_to_others_is_nobody_s_business_here(uplink: Uplink) -> None:
    assert uplink.receive(frame4(tcp(SYN), TCP, WORLD4, A4))
    assert uplink.receive(frame4(tcp(SYN), TCP, WORLD4, IPv4Address("203.0.113.10")))
    assert uplink.forward(frame4(tcp(SYN), TCP, A4, WORLD4))
    assert list(uplink.datapath.conntrack()) == []


@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
def test_answers_to_what_is_forwarded_under_the_hosts_address_pass(
    uplink: Uplink, protocol: int
) -> None:
    def packet(source: int, destination: int, *way: IPAddress, flags: int = ACK) -> bytes:
        if protocol == TCP:
            return frame4(tcp(flags, source, destination), TCP, *way)
        return frame4(udp(b"", source, destination), UDP, *way)

    answer = packet(80, 1000, *INTO)
    assert not uplink.receive(answer)
    assert uplink.forward(packet(1000, 80, *OUT, flags=SYN))
    assert uplink.receive(answer)
    assert not uplink.receive(packet(81, 1000, *INTO))
    # The host itself is not let out by it, nor does it let anybody in.
    assert not uplink.send(packet(1000, 80, *OUT, flags=SYN))
    if protocol == TCP:
        assert not uplink.receive(packet(80, 1000, *INTO, flags=SYN))
    assert uplink.receive(answer)


def test_what_a_published_port_answers_is_the_answer_of_the_host(uplink: Uplink) -> None:
    assert uplink.receive(frame4(tcp(SYN, 1000, 22), TCP, *INTO))
    assert uplink.forward(frame4(tcp(SYN | ACK, 22, 1000), TCP, *OUT))
    uplink.datapath.apply(uplink.state())
    uplink.datapath.sweep()
    assert not uplink.forward(frame4(tcp(ACK, 22, 1000), TCP, *OUT))


def test_nobody_outside_speaks_as_a_pod(uplink: Uplink) -> None:
    assert not uplink.receive(frame4(tcp(SYN, destination=22), TCP, A4, HOST4))
    assert uplink.drops() == [(DropReason.INVALID_SOURCE_IP, INGRESS, 0)]


def test_multicast_and_broadcast_are_the_hosts(uplink: Uplink) -> None:
    for group in ("224.0.0.251", "255.255.255.255"):
        packet = frame4(udp(b"", 5353, 5353), UDP, WORLD4, IPv4Address(group))
        assert not uplink.receive(packet)
    assert not uplink.receive(
        frame6(udp(b"", 5353, 5353), UDP, LINK_LOCAL, IPv6Address("ff02::fb"))
    )


def test_what_keeps_the_link_alive_is_exempt(uplink: Uplink) -> None:
    everybody, group = IPv4Address("255.255.255.255"), IPv6Address("ff02::1:ff00:1")
    solicitation = frame6(bytes([135]) + bytes(23), ICMPV6, LINK_LOCAL, group)
    report = frame6(bytes([143]) + bytes(7), ICMPV6, LINK_LOCAL, IPv6Address("ff02::16"))
    nobody = IPv4Address("0.0.0.0")
    servers = IPv6Address("ff02::1:2")
    into = [
        arp(),
        solicitation,
        report,
        frame6(bytes([134]) + bytes(15), ICMPV6, LINK_LOCAL, IPv6Address("ff02::1")),
        frame4(bytes(8), 2, WORLD4, IPv4Address("224.0.0.1")),
        frame4(udp(b"", 67, 68), UDP, WORLD4, everybody),
        frame6(udp(b"", 547, 546), UDP, LINK_LOCAL, HOST6),
    ]
    out = [
        arp(),
        solicitation,
        report,
        frame4(bytes(8), 2, HOST4, IPv4Address("224.0.0.22")),
        frame4(udp(b"", 68, 67), UDP, nobody, everybody),
        frame6(udp(b"", 546, 547), UDP, LINK_LOCAL, servers),
    ]
    assert all(map(uplink.receive, into))
    assert all(map(uplink.send, out))
    assert uplink.kernel.events() == []
    # The other way round they are no client's.
    assert not uplink.receive(frame4(udp(b"", 68, 67), UDP, nobody, everybody))
    assert not uplink.send(frame4(udp(b"", 67, 68), UDP, HOST4, WORLD4))


def unreachable(quoted: bytes, *way: IPAddress) -> bytes:
    return frame4(bytes([3, 3, 0, 0, 0, 0, 0, 0]) + quoted[:28], ICMP, *way)


def test_errors_pass_if_they_are_about_a_connection_that_is_there(uplink: Uplink) -> None:
    uplink.enforce(PolicyEntry(EGRESS, WORLD, UDP, 9, 16, ALLOW, 1))
    out = ipv4(udp(b"", 1000, 9), UDP, *OUT)
    assert not uplink.receive(unreachable(out, *INTO))
    assert uplink.drops() == [(DropReason.ICMP_UNRELATED, INGRESS, 10)]
    assert uplink.send(ethernet(0x0800, out))
    assert uplink.receive(unreachable(out, *INTO))
    assert uplink.receive(unreachable(out, IPv4Address("203.0.113.77"), HOST4)), "of a router"
    # As a router the host tells others what became of theirs; of its own only what it let in.
    transit = ipv4(udp(), UDP, WORLD4, A4)
    assert uplink.send(unreachable(transit, *OUT))
    assert not uplink.send(unreachable(ipv4(udp(), UDP, *INTO), *OUT))


def test_where_everything_may_pass_the_malformed_may(uplink: Uplink) -> None:
    odd = [
        frame4(tcp(), TCP, *INTO, first=0x46),
        frame4(udp(), UDP, *INTO, fragment=5, number=9),
        unreachable(ipv4(udp(), UDP, *OUT), *INTO),
    ]
    assert not any(map(uplink.receive, odd))
    wanted = [DropReason.IP_OPTIONS, DropReason.FRAGMENT_UNKNOWN, DropReason.ICMP_UNRELATED]
    assert [reason for reason, *_ in uplink.drops()] == wanted
    uplink.enforce(OPEN_IN)
    assert all(map(uplink.receive, odd))


def test_later_fragments_go_with_their_first(uplink: Uplink) -> None:
    uplink.enforce(PolicyEntry(INGRESS, WORLD, UDP, 80, 16, ALLOW, 1))
    first = frame4(udp(bytes(16)), UDP, *INTO, fragment=0x2000)
    later = frame4(bytes(8), UDP, *INTO, fragment=3)
    assert not uplink.receive(later)
    assert uplink.receive(first)
    assert uplink.receive(later)


def test_a_tagged_frame_is_judged_at_the_device_of_its_vlan(uplink: Uplink) -> None:
    packet = frame4(tcp(SYN, destination=23), TCP, *INTO)
    tagged = packet[:12] + struct.pack("!HH", 0x8100, 5) + packet[12:]
    assert uplink.receive(tagged)


@pytest.mark.parametrize("direction", [INGRESS, EGRESS], ids=["into", "out"])
def test_pods_and_the_host_are_judged_on_both_sides(uplink: Uplink, direction: int) -> None:
    """to_endpoint and from_endpoint: the host's side has a say there, too."""
    pods_side = PolicyTable.of([allow(EGRESS, HOST), allow(INGRESS, HOST)], 10, 11)
    base = {**uplink.kernel.desired.policies, EndpointId(1): pods_side}
    uplink.kernel.desired = replace(uplink.kernel.desired, policies=base)

    def passes() -> bool:
        uplink.clear()
        if direction == INGRESS:
            return uplink.kernel.send(frame4(tcp(SYN), TCP, A4, HOST4)) != SHOT
        return uplink.kernel.receive(frame4(tcp(SYN), TCP, HOST4, A4)) != SHOT

    uplink.datapath.apply(uplink.kernel.desired)
    assert passes()
    uplink.enforce()
    assert not passes()
    (event,) = uplink.kernel.events()
    assert (event.direction, event.rule[direction]) == (direction, 10 + direction)
    uplink.enforce(PolicyEntry(direction, Identity(1001), TCP, 80, 16, ALLOW, 51))
    assert passes()
    (event,) = uplink.kernel.events()
    assert event.rule == ((51, 21) if direction == INGRESS else (20, 51))


def test_the_resolver_answers_pods_whatever_the_hosts_policy(uplink: Uplink) -> None:
    resolver = IPv4Address("169.254.20.10")
    table = PolicyTable.of([allow(EGRESS, RESOLVER)], 10, 11)
    base = {**uplink.kernel.desired.policies, EndpointId(1): table}
    uplink.kernel.desired = replace(uplink.kernel.desired, policies=base)
    uplink.enforce()
    assert uplink.kernel.send(frame4(tcp(SYN, destination=53), TCP, A4, resolver)) != SHOT
    assert not uplink.receive(frame4(tcp(SYN, destination=53), TCP, WORLD4, resolver))


def test_a_change_judges_open_connections_anew(uplink: Uplink) -> None:
    uplink.enforce(SSH, OPEN_OUT)
    assert uplink.receive(frame4(tcp(SYN, 1000, 22), TCP, *INTO))
    assert uplink.send(frame6(tcp(SYN, 1000, 80), TCP, HOST6, LINK_LOCAL))
    assert uplink.forward(frame4(tcp(SYN, 2000, 80), TCP, *OUT))
    uplink.kernel.events()
    uplink.datapath.apply(uplink.state(OPEN_OUT))
    ((_, cut),) = uplink.datapath.sweep().items()
    assert (cut.source, cut.destination, cut.destination_port) == (WORLD4, HOST4, 22)
    (event,) = uplink.kernel.events()
    assert (event.type, event.direction, event.rule[INGRESS]) == (CUT, INGRESS, 10)
    assert (event.source_identity, event.destination_identity) == (WORLD, HOST)
    assert not uplink.receive(frame4(tcp(ACK, 1000, 22), TCP, *INTO))
    assert uplink.send(frame4(tcp(RST | ACK, 22, 1000), TCP, *OUT)), "the client is told"
    uplink.datapath.apply(uplink.state(SSH))
    ((_, cut),) = [
        (key, one) for key, one in uplink.datapath.sweep().items() if one.source == HOST6
    ]
    assert cut.destination == LINK_LOCAL
    assert uplink.receive(frame4(tcp(ACK, 80, 2000), TCP, *INTO)), "forwarded: not the host's"


def test_what_is_in_audit_passes_and_is_told(uplink: Uplink) -> None:
    full = PolicyTable.of([SSH], 10, 11)
    uplink.datapath.apply(uplink.state(OPEN_IN, OPEN_OUT, audit=full))
    uplink.clear()
    assert uplink.receive(frame4(tcp(SYN, destination=23), TCP, *INTO))
    (event,) = uplink.kernel.events()
    assert (event.type, event.reason, event.direction) == (AUDIT, DropReason.POLICY_DENIED, 0)


def test_uplinks_and_decide_name_the_same_rule(uplink: Uplink) -> None:
    seed = int(os.environ.get("SIXFOLD_FUZZ_SEED", random.randrange(2**32)))
    print(f"SIXFOLD_FUZZ_SEED={seed}")
    chance = random.Random(seed)
    peers = [Identity(0), WORLD, CIDR, HOST, Identity(1001)]
    for _ in range(20):
        entries = {}
        for rule in range(100, 100 + chance.randrange(16)):
            protocol = chance.choice([0, TCP, UDP])
            bits = chance.choice([0, 13, 16]) if protocol else 0
            port = chance.choice([80, 88]) if bits else 0
            key = chance.randrange(2), chance.choice(peers), protocol, port, bits
            verdict = chance.choice([ALLOW, ALLOW, DENY])
            entries[key] = PolicyEntry(*key, verdict, rule, chance.choice([0, 1]))
        uplink.enforce(*entries.values())
        table = PolicyTable.of(entries.values(), 10, 11)
        for _ in range(25):
            uplink.clear()
            direction, protocol = chance.randrange(2), chance.choice([TCP, UDP])
            port = chance.choice([79, 80, 81, 88, 95])
            remote = chance.choice([WORLD4, IPv4Address("203.0.113.65")])
            cidr = Identity(0) if remote == WORLD4 else CIDR
            segment = tcp(destination=port) if protocol == TCP else udp(destination=port)
            way = (HOST4, remote) if direction == EGRESS else (remote, HOST4)
            packet = frame4(segment, protocol, *way)
            passed = uplink.send(packet) if direction == EGRESS else uplink.receive(packet)
            wanted = lookup(table, direction, Party(WORLD, cidr), protocol, port)
            (event,) = uplink.kernel.events()
            assert (passed, event.rule[direction]) == (wanted.allow, wanted.rule)
