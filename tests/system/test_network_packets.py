"""Packets that no honest stack sends, sent from inside a pod: each is dropped for its own reason.

And the odd ones that are honest: fragments, extension headers, a pod that forgets its neighbours.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest
from tests.twin.crafted import (
    ARP,
    HOST_MAC,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    POD_MAC,
    TCP,
    UDP,
    ethernet,
    tcp,
    udp,
)

from sixfold.cli.client import Client

from .conftest import System
from .places import (
    FAMILIES,
    OPEN,
    SILENCE_S,
    Place,
    checksummed,
    manifest,
    places_of,
    pod,
    policy,
    received,
    service,
)

pytestmark = pytest.mark.root

STRANGER4, STRANGER6 = "10.244.77.7", "fd00:5f:244::77"
PORT = 9000
ROUTING, HOP_BY_HOP, DESTINATION, FRAGMENT = 43, 0, 60, 44
MANIFEST = manifest(
    pod("one", labels={"open": "yes"}),
    pod("two", labels={"open": "yes"}),
    pod("shut"),
    service("two", ports=[{"port": 80, "targetPort": PORT, "protocol": "UDP"}]),
    policy("open", {"open": "yes"}, **OPEN),
)


@dataclass(frozen=True)
class Net:
    system: System
    one: Place
    two: Place
    shut: Place
    vip: str

    def drop_of(self, send: Callable[[], None]) -> dict[str, Any]:
        """The flow of the packet that is dropped once sent."""
        before = self._last()
        send()
        return self.system.eventually(
            lambda: (last := self._last()) != before and last, "a flow of the drop"
        )

    def _last(self) -> dict[str, Any] | None:
        client = Client(self.system.paths.api_socket)
        with client.stream("/v1/flows", {"verdict": "DROPPED", "last": 1}) as (_, lines):
            return next((json.loads(line)["flow"] for line in lines), None)


@pytest.fixture(scope="module")
def net(module_system: System) -> Net:
    module_system.up(manifest=MANIFEST)
    vip = module_system.json("get", "svc", "two")["spec"]["clusterIP"]
    return Net(module_system, *places_of(module_system, "one", "two", "shut"), vip)


def transmit(place: Place, frame: bytes) -> None:
    with place.make_socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 0))
        sock.send(frame)


def ipv4(payload: bytes, source: str, destination: str, protocol: int = UDP, **more: int) -> bytes:
    """An IPv4 packet with a right checksum, unless told otherwise."""
    first, fragment = more.get("first", 0x45), more.get("fragment", 0)
    total = more.get("total", (first & 15) * 4 + len(payload))
    header = struct.pack("!BBHHHBBH", first, 0, total, more.get("id", 7), fragment, 64, protocol, 0)
    header += ip_address(source).packed + ip_address(destination).packed
    return checksummed(header, 10) + payload


def ipv6(payload: bytes, source: str, destination: str, protocol: int = UDP, **more: int) -> bytes:
    length = more.get("length", len(payload))
    header = struct.pack("!IHBB", 6 << 28, length, protocol, 64)
    return header + ip_address(source).packed + ip_address(destination).packed + payload


def udp6(payload: bytes, source: str, destination: str) -> bytes:
    """IPv6 insists on the checksum."""
    pseudo = ip_address(source).packed + ip_address(destination).packed
    pseudo += struct.pack("!II", 8 + len(payload), UDP)
    datagram = udp(payload, 1000, PORT)
    return checksummed(pseudo + datagram, len(pseudo) + 6)[len(pseudo) :]


def arp(operation: int, mac: bytes, sender: str, target: str) -> bytes:
    fixed = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return fixed + mac + ip_address(sender).packed + bytes(6) + ip_address(target).packed


def extension(kind_of_next: int, kind: int) -> bytes:
    """One eight-byte extension header: options are padding, a routing header is of type 0."""
    if kind == ROUTING:
        return bytes([kind_of_next, 0, 0, 1]) + bytes(4)
    return bytes([kind_of_next, 0, 1, 4]) + bytes(4)


def chain(kinds: list[int], payload: bytes) -> tuple[int, bytes]:
    """Extension headers in front of a UDP datagram; the first one's number, and all bytes."""
    following = [*kinds[1:], UDP]
    packed = b"".join(map(extension, following, kinds))
    return kinds[0], packed + payload


FRAMES: list[Any] = []


def frame(reason: str, id_: str) -> Callable[[Any], Any]:
    """Collects what is dropped: a function of sender and receiver that makes the frame."""

    def collect(make: Callable[[Place, Place], bytes]) -> Callable[[Place, Place], bytes]:
        FRAMES.append(pytest.param(make, reason, id=id_))
        return make

    return collect


@frame("INVALID_SOURCE_IP", "spoofed-ipv4-source")
def _(one: Place, two: Place) -> bytes:
    return ethernet(IPV4, ipv4(udp(), STRANGER4, two.ipv4))


@frame("INVALID_SOURCE_IP", "spoofed-ipv6-source")
def _(one: Place, two: Place) -> bytes:
    return ethernet(IPV6, ipv6(udp6(b"", STRANGER6, two.ipv6), STRANGER6, two.ipv6))


@frame("INVALID_SOURCE_IP", "another-pods-source")
def _(one: Place, two: Place) -> bytes:
    return ethernet(IPV4, ipv4(tcp(), two.ipv4, one.ipv4, TCP))


@frame("INVALID_SOURCE_MAC", "spoofed-mac")
def _(one: Place, two: Place) -> bytes:
    return ethernet(IPV4, ipv4(udp(), one.ipv4, two.ipv4), bytes.fromhex("025f00000009"))


@frame("ARP_STRANGER", "arp-in-anothers-name")
def _(one: Place, two: Place) -> bytes:
    return ethernet(ARP, arp(1, POD_MAC, two.ipv4, "169.254.1.1"))


@frame("ARP_STRANGER", "gratuitous-arp-reply-for-the-gateway")
def _(one: Place, two: Place) -> bytes:
    return ethernet(ARP, arp(2, POD_MAC, "169.254.1.1", "169.254.1.1"))


@frame("ARP_STRANGER", "neighbour-advertisement-for-another")
def _(one: Place, two: Place) -> bytes:
    body = bytes([136, 0, 0, 0, 0x20, 0, 0, 0]) + ip_address(two.ipv6).packed
    return ethernet(IPV6, ipv6(body, one.ipv6, "fe80::1", ICMPV6))


@frame("ARP_STRANGER", "router-advertisement")
def _(one: Place, two: Place) -> bytes:
    body = bytes([134, 0, 0, 0]) + bytes(12)
    return ethernet(IPV6, ipv6(body, one.ipv6, "ff02::1", ICMPV6))


@frame("UNSUPPORTED_L2", "vlan")
def _(one: Place, two: Place) -> bytes:
    tag = struct.pack("!HHH", 0x8100, 7, 0x0800)
    return HOST_MAC + POD_MAC + tag + ipv4(udp(), one.ipv4, two.ipv4)


@frame("UNSUPPORTED_L2", "two-vlans")
def _(one: Place, two: Place) -> bytes:
    tag = struct.pack("!HHHHH", 0x88A8, 7, 0x8100, 7, 0x0800)
    return HOST_MAC + POD_MAC + tag + ipv4(udp(), one.ipv4, two.ipv4)


@frame("UNSUPPORTED_L2", "lldp")
def _(one: Place, two: Place) -> bytes:
    return ethernet(0x88CC, bytes(46))


@frame("EXTENSION_HEADERS", "routing-header")
def _(one: Place, two: Place) -> bytes:
    kind, body = chain([ROUTING], udp6(b"", one.ipv6, two.ipv6))
    return ethernet(IPV6, ipv6(body, one.ipv6, two.ipv6, kind))


@frame("EXTENSION_HEADERS", "chain-beyond-the-bound")
def _(one: Place, two: Place) -> bytes:
    kind, body = chain([DESTINATION] * 9, udp6(b"", one.ipv6, two.ipv6))
    return ethernet(IPV6, ipv6(body, one.ipv6, two.ipv6, kind))


@frame("EXTENSION_HEADERS", "chain-cut-short")
def _(one: Place, two: Place) -> bytes:
    return ethernet(IPV6, ipv6(bytes([UDP, 0, 1]), one.ipv6, two.ipv6, DESTINATION))


@frame("FRAGMENT_UNKNOWN", "later-fragment-without-its-first")
def _(one: Place, two: Place) -> bytes:
    return ethernet(IPV4, ipv4(bytes(64), one.ipv4, two.ipv4, fragment=100, id=4711))


@frame("FRAGMENT_UNKNOWN", "later-ipv6-fragment-without-its-first")
def _(one: Place, two: Place) -> bytes:
    header = struct.pack("!BBHI", UDP, 0, 800, 4711)
    return ethernet(IPV6, ipv6(header + bytes(64), one.ipv6, two.ipv6, FRAGMENT))


@frame("INVALID_PACKET", "ipv4-header-cut")
def _(one: Place, two: Place) -> bytes:
    return ethernet(IPV4, ipv4(b"", one.ipv4, two.ipv4)[:16])


@frame("INVALID_PACKET", "ipv4-longer-than-its-frame")
def _(one: Place, two: Place) -> bytes:
    return ethernet(IPV4, ipv4(udp(), one.ipv4, two.ipv4, total=1000))


@frame("INVALID_PACKET", "ipv6-longer-than-its-frame")
def _(one: Place, two: Place) -> bytes:
    return ethernet(IPV6, ipv6(udp(), one.ipv6, two.ipv6, length=1000))


@frame("INVALID_PACKET", "tcp-header-cut")
def _(one: Place, two: Place) -> bytes:
    return ethernet(IPV4, ipv4(tcp()[:12], one.ipv4, two.ipv4, TCP))


@frame("INVALID_PACKET", "ipv4-in-ipv6s-clothes")
def _(one: Place, two: Place) -> bytes:
    return ethernet(IPV6, ipv6(udp(), f"::ffff:{one.ipv4}", f"::ffff:{two.ipv4}"))


@frame("IP_OPTIONS", "source-routed")
def _(one: Place, two: Place) -> bytes:
    options = bytes([0x83, 7, 4]) + ip_address(two.ipv4).packed + b"\0"
    return ethernet(IPV4, ipv4(options + udp(), one.ipv4, two.ipv4, first=0x47, total=36))


@frame("MULTICAST", "ipv4-multicast")
def _(one: Place, two: Place) -> bytes:
    return ethernet(IPV4, ipv4(udp(), one.ipv4, "224.0.0.251"))


@frame("MULTICAST", "broadcast")
def _(one: Place, two: Place) -> bytes:
    return ethernet(IPV4, ipv4(udp(), one.ipv4, "255.255.255.255"))


@frame("MULTICAST", "ipv6-multicast")
def _(one: Place, two: Place) -> bytes:
    return ethernet(IPV6, ipv6(udp6(b"", one.ipv6, "ff02::fb"), one.ipv6, "ff02::fb"))


@frame("ICMP_UNRELATED", "unreachable-about-nothing")
def _(one: Place, two: Place) -> bytes:
    quoted = ipv4(udp(b"", 1, 2), two.ipv4, one.ipv4)
    message = checksummed(bytes([3, 3, 0, 0]) + bytes(4) + quoted, 2)
    return ethernet(IPV4, ipv4(message, one.ipv4, two.ipv4, ICMP))


@frame("ICMP_UNRELATED", "too-big-about-nothing")
def _(one: Place, two: Place) -> bytes:
    quoted = ipv6(udp(b"", 1, 2), two.ipv6, one.ipv6)
    return ethernet(IPV6, ipv6(bytes([2, 0, 0, 0]) + bytes(4) + quoted, one.ipv6, two.ipv6, ICMPV6))


@frame("ICMP_UNRELATED", "redirect")
def _(one: Place, two: Place) -> bytes:
    quoted = ipv4(udp(), two.ipv4, one.ipv4)
    message = checksummed(bytes([5, 1, 0, 0]) + ip_address(one.ipv4).packed + quoted, 2)
    return ethernet(IPV4, ipv4(message, one.ipv4, two.ipv4, ICMP))


@pytest.mark.parametrize(("make", "reason"), FRAMES)
def test_a_bad_packet_is_dropped_for_its_reason(
    net: Net, make: Callable[[Place, Place], bytes], reason: str
):
    flow = net.drop_of(lambda: transmit(net.one, make(net.one, net.two)))
    assert flow["sixfold"]["drop_reason"] == reason
    assert flow["traffic_direction"] == "EGRESS"


def test_a_packet_to_a_service_that_no_socket_translated_is_dropped(net: Net):
    flow = net.drop_of(
        lambda: transmit(net.one, ethernet(IPV4, ipv4(udp(b"", 1, 80), net.one.ipv4, net.vip)))
    )
    assert flow["sixfold"]["drop_reason"] == "NO_BACKEND"


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param([HOP_BY_HOP], id="hop-by-hop"),
        pytest.param([DESTINATION], id="destination-options"),
        pytest.param([HOP_BY_HOP, *[DESTINATION] * 5], id="six-headers"),
    ],
)
def test_extension_headers_within_the_bound_are_walked(net: Net, kinds: list[int]):
    kind, body = chain(kinds, udp6(b"through", net.one.ipv6, net.two.ipv6))
    with net.two.listen(PORT, version=6, kind=socket.SOCK_DGRAM) as server:
        transmit(net.one, ethernet(IPV6, ipv6(body, net.one.ipv6, net.two.ipv6, kind)))
        assert received(server) == b"through"


@FAMILIES
def test_extension_headers_do_not_hide_a_denied_port(net: Net, version: int):
    """Nor do fragments: the whole datagram is judged by its ports."""
    with (
        net.shut.listen(PORT, version=version, kind=socket.SOCK_DGRAM) as server,
        net.one.dial(net.shut.address(version), PORT, kind=socket.SOCK_DGRAM) as client,
    ):
        flow = net.drop_of(lambda: client.send(bytes(4000)) and None)
        assert flow["sixfold"]["drop_reason"] == "POLICY_DENIED"
        assert flow["ingress_denied_by"][0]["name"] == "default-deny"
        assert received(server) is None


@FAMILIES
def test_fragments_of_an_allowed_datagram_arrive(net: Net, version: int):
    with (
        net.two.listen(PORT, version=version, kind=socket.SOCK_DGRAM) as server,
        net.one.dial(net.two.address(version), PORT, kind=socket.SOCK_DGRAM) as client,
    ):
        for number in range(20):
            client.send(bytes([number]) * 4000)
            assert received(server) == bytes([number]) * 4000


@FAMILIES
def test_a_fragmented_datagram_is_refused_by_a_closed_port(net: Net, version: int):
    with net.one.dial(net.two.address(version), 9, kind=socket.SOCK_DGRAM) as client:
        client.send(bytes(4000))
        with pytest.raises(ConnectionRefusedError):
            client.recv(1)


@FAMILIES
def test_a_closed_udp_port_of_a_pod_is_refused(net: Net, version: int):
    with net.one.dial(net.two.address(version), 9, kind=socket.SOCK_DGRAM) as client:
        client.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(1)


@FAMILIES
def test_a_closed_tcp_port_of_a_pod_is_refused(net: Net, version: int):
    assert net.one.answer(net.two.address(version), 9) == "ECONNREFUSED"


@FAMILIES
def test_a_pod_that_forgets_its_neighbours_finds_them_again(net: Net, version: int):
    gateway = {4: "169.254.1.1", 6: "fe80::1"}[version]
    net.one.run("ip", "neigh", "del", gateway, "dev", "eth0")
    with net.two.listen(version=version):
        assert net.one.answer(net.two.address(version)) == "open"
    assert "02:5f:00:00:00:01" in net.one.run("ip", "neigh", "show", gateway)


def test_whoever_a_pod_asks_for_the_gateway_answers(net: Net):
    with net.one.make_socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", ARP))
        sock.send(ethernet(ARP, arp(1, POD_MAC, net.one.ipv4, net.two.ipv4)))
        sock.settimeout(SILENCE_S)
        answer = sock.recv(100)
    assert answer[14 + 6 : 14 + 18] == b"\0\2" + HOST_MAC + ip_address(net.two.ipv4).packed
