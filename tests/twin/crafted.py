"""Packets made by hand, and a datapath that takes them: pods a and b, and the world."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from sixfold.host import bpf
from sixfold.host.datapath import KernelDatapath
from sixfold.host.layout import RawEvent, unpack_event
from sixfold.model.datapath import (
    EGRESS,
    INGRESS,
    Datapath,
    EndpointEntry,
    Frontend,
    FrontendEntry,
    IPAddress,
    PolicyEntry,
    PolicyTable,
)
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import WORLD, Identity

PASS, SHOT, REDIRECT = 0, 2, 7
HOST_MAC, POD_MAC = bytes.fromhex("025f00000001"), bytes.fromhex("025f00000002")
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
SYN, ACK = 2, 16
IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806

A4, A6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")
B4, B6 = IPv4Address("192.0.2.2"), IPv6Address("2001:db8::2")
WORLD4, WORLD6 = IPv4Address("203.0.113.9"), IPv6Address("2001:db8:f::9")
SERVICE4 = IPv4Address("198.51.100.10")
SERVICE_NETWORKS = frozenset((IPv4Network("198.18.0.64/27"), IPv6Network("2001:db8:96::/112")))
A, B = Identity(1001), Identity(1002)
GATEWAY4 = IPv4Address("169.254.1.1")


def ethernet(kind: int, payload: bytes, source: bytes = POD_MAC) -> bytes:
    return HOST_MAC + source + struct.pack("!H", kind) + payload


def tcp(flags: int = SYN, source: int = 1000, destination: int = 80) -> bytes:
    return struct.pack("!HHIIBBHHH", source, destination, 0, 0, 0x50, flags, 0, 0, 0)


def udp(payload: bytes = b"", source: int = 1000, destination: int = 80) -> bytes:
    return struct.pack("!HHHH", source, destination, 8 + len(payload), 0) + payload


def ipv4(
    payload: bytes,
    protocol: int = TCP,
    source: IPAddress = A4,
    destination: IPAddress = B4,
    *,
    fragment: int = 0,
    first: int = 0x45,
    length: int | None = None,
    number: int = 1,
) -> bytes:
    total = 20 + len(payload) if length is None else length
    header = struct.pack("!BBHHHBBH", first, 0, total, number, fragment, 64, protocol, 0)
    return header + source.packed + destination.packed + payload


def ipv6(
    payload: bytes,
    protocol: int = TCP,
    source: IPAddress = A6,
    destination: IPAddress = B6,
    *,
    length: int | None = None,
) -> bytes:
    size = len(payload) if length is None else length
    header = struct.pack("!IHBB", 6 << 28, size, protocol, 255)
    return header + source.packed + destination.packed + payload


def frame4(payload: bytes, protocol: int = TCP, *args: IPAddress, **keywords: int) -> bytes:
    return ethernet(IPV4, ipv4(payload, protocol, *args, **keywords))


def frame6(payload: bytes, protocol: int = TCP, *args: IPAddress, **keywords: int) -> bytes:
    return ethernet(IPV6, ipv6(payload, protocol, *args, **keywords))


def arp(
    operation: int = 1,
    sender: IPAddress = A4,
    target: IPAddress = GATEWAY4,
    mac: bytes = POD_MAC,
) -> bytes:
    header = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
    return ethernet(ARP, header + mac + sender.packed + bytes(6) + target.packed)


def solicit(target: IPAddress, source: IPAddress = A6, kind: int = 135) -> bytes:
    message = struct.pack("!BBHI", kind, 0, 0, 0) + target.packed + b"\x01\x01" + POD_MAC
    group = IPv6Address("ff02::1:ff00:1")
    return frame6(message, ICMPV6, source, group)


def allow(direction: int, peer: int) -> PolicyEntry:
    return PolicyEntry(direction, Identity(peer), 0, 0, 0, True, 20 + direction)


def world_of(ifindex_a: int, ifindex_b: int) -> Datapath:
    """a may reach b and the world; nobody may reach a but the world."""
    return Datapath(
        endpoints={
            ifindex_a: EndpointEntry(ifindex_a, EndpointId(1), A, A4, A6),
            ifindex_b: EndpointEntry(ifindex_b, EndpointId(2), B, B4, B6),
        },
        policies={
            EndpointId(1): PolicyTable.of(
                frozenset({allow(EGRESS, B), allow(EGRESS, WORLD), allow(INGRESS, WORLD)}), 10, 11
            ),
            EndpointId(2): PolicyTable.of(frozenset({allow(INGRESS, A)}), 10, 11),
        },
        frontends={Frontend.at(SERVICE4, 0, 0): FrontendEntry(3, ())},
        service_networks=SERVICE_NETWORKS,
    )


class Kernel:
    """The two packet programs, as one pod's interface would run them."""

    def __init__(self, datapath: KernelDatapath) -> None:
        self.datapath = datapath
        self.a = socket.if_nametoindex("sfa")
        self.b = socket.if_nametoindex("sfb")
        self.desired = world_of(self.a, self.b)
        datapath.apply(self.desired)
        self.events()
        for name in ("conntrack", "fragments"):
            datapath.maps[name].delete([key for key, _ in datapath.maps[name].items()])

    def run(self, program: str, packet: bytes, ifindex: int = 0) -> bpf.ProgramRun:
        context = bytearray(192)
        struct.pack_into("<I", context, 40, ifindex or self.a)  # __sk_buff.ifindex
        return bpf.run_program(self.datapath.programs[program], packet, context=bytes(context))

    def send(self, packet: bytes, ifindex: int = 0) -> int:
        """What happens to a packet that leaves a pod (a, if not said otherwise)."""
        return self.run("from_endpoint", packet, ifindex).verdict

    def receive(self, packet: bytes, ifindex: int = 0) -> int:
        """What happens to a packet that the host's stack has for a pod."""
        return self.run("to_endpoint", packet, ifindex).verdict

    def events(self) -> list[RawEvent]:
        records, _ = self.datapath.events.drain()
        return [unpack_event(record) for record in records]
