"""What a packet costs in each program, by BPF_PROG_TEST_RUN: hot caches, no device, no stack.

``empty`` is a program that does nothing: what the kernel's test loop itself costs. All cases
are measured in turn, round after round, so that a noisy machine is noisy for all of them.
"""

from __future__ import annotations

import ctypes
import os
import socket
import statistics
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

from bench.lab import Lab, ip
from bench.schedule import urgent
from sixfold.host import bpf, netns
from sixfold.host.datapath import KernelDatapath
from sixfold.model.config import HOST_MAC, POD_MAC
from sixfold.model.datapath import (
    EGRESS,
    INGRESS,
    PROTOCOL_NUMBERS,
    Backend,
    Datapath,
    EndpointEntry,
    Frontend,
    FrontendEntry,
    FrontendFlag,
    IPAddress,
    IpcacheEntry,
    PolicyEntry,
    PolicyTable,
)
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import HOST as IDENTITY_HOST
from sixfold.model.identity import WORLD, Identity

ROUNDS, REPEAT, REPEAT_TOLD, CONNECTS = 9, 100_000, 10_000, 2_000
PROG_LOAD, ENABLE_STATS, SCHED_CLS = 5, 32, 3  # linux/bpf.h
RUN_TIME = 192  # offset in struct bpf_prog_info
TCP, UDP = PROTOCOL_NUMBERS["TCP"], PROTOCOL_NUMBERS["UDP"]
SYN, RST, ACK = 2, 4, 16
ETHERNET = bytes.fromhex((HOST_MAC + POD_MAC).replace(":", ""))
A4, B4 = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
A6, B6 = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")
CLIENT4, CLIENT6 = IPv4Address("203.0.113.9"), IPv6Address("2001:db8:f::9")
UPLINK_MAC = "02:00:00:00:00:aa"
HOST, SERVICE = IPv4Address("198.51.100.1"), IPv4Address("198.51.100.10")
A, B = Identity(1001), Identity(1002)
CROWD = 10_000  # policy entries and services beside those that matter


@dataclass(frozen=True, slots=True)
class Case:
    """``run`` returns nanoseconds per packet."""

    name: str
    run: Callable[[], float]


def measure(lab: Lab) -> dict[str, float]:
    """Median ns per packet, by case; the first is the empty program."""
    with _loaded(lab) as (datapath, a, b):
        cases = _cases(datapath, a, b)
        figures: dict[str, list[float]] = {case.name: [] for case in cases}
        for _ in range(ROUNDS):
            for case in cases:
                with urgent():
                    figures[case.name].append(case.run())
    return {name: round(statistics.median(values), 1) for name, values in figures.items()}


@contextmanager
def _loaded(lab: Lab) -> Iterator[tuple[KernelDatapath, int, int]]:
    """A datapath of our own with two pods, which are interfaces without anybody behind, and a
    device to the world."""
    host = lab.namespace("programs")
    ip(host, *(f"link add pod{name} type veth peer name peer{name}" for name in "ab"))
    ip(host, f"link add uplink0 address {UPLINK_MAC} type veth peer name uplink1")
    ip(host, "route add default dev lo")  # what is dialled needs a route, not an answer
    instance = f"{lab.prefix}programs"
    lab.stack.callback(KernelDatapath.remove, instance)
    with netns.inside(host):
        a, b = socket.if_nametoindex("poda"), socket.if_nametoindex("podb")
        datapath = KernelDatapath.open(instance)
        try:
            datapath.apply(_world(a, b))
            yield datapath, a, b
        finally:
            datapath.close()


def _world(a: int, b: int) -> Datapath:
    crowd = {PolicyEntry(EGRESS, Identity(2000 + n), TCP, 80, 16, True, 9) for n in range(CROWD)}
    opened = {
        PolicyEntry(direction, peer, TCP, 80, 16, True, 9)
        for direction, peer in (
            (EGRESS, B),
            (INGRESS, A),
            (INGRESS, IDENTITY_HOST),
            (INGRESS, WORLD),
        )
    }
    table = PolicyTable.of(frozenset(crowd | opened), 10, 11)
    return Datapath(
        endpoints={
            a: EndpointEntry(a, EndpointId(1), A, A4, A6),
            b: EndpointEntry(b, EndpointId(2), B, B4, B6),
        },
        ipcache={ip_network(HOST): IpcacheEntry(IDENTITY_HOST)},
        policies={EndpointId(1): table, EndpointId(2): table},
        frontends={
            # A run of the kernel's has one packet, which the first pass rewrites: so that the
            # others do the same work, the pod has the address and port that are dialled.
            Frontend.at(B4, 80, TCP): FrontendEntry(
                2, (Backend.at(B4, 80),), flags=FrontendFlag.OUTSIDE
            ),
            Frontend.at(B6, 80, TCP): FrontendEntry(
                2, (Backend.at(B6, 80),), flags=FrontendFlag.OUTSIDE
            ),
        }
        | {
            Frontend.at(address, 80, protocol): FrontendEntry(1, (Backend.at(B4, 80),))
            for protocol in (TCP, UDP)
            for address in (SERVICE, *(SERVICE + 256 + n for n in range(CROWD // 2)))
        },
        host_netns_cookie=netns.cookie(),
    )


def _cases(datapath: KernelDatapath, a: int, b: int) -> list[Case]:
    outbound, inbound = (datapath.programs[name] for name in ("from_endpoint", "to_endpoint"))

    def established(opener: bytes, packet: bytes) -> float:
        run_program(outbound, opener, a, 1)
        return run_program(outbound, packet, a, REPEAT)

    def told(packet: bytes) -> float:
        datapath.events.drain()  # a full ring would be quicker
        return run_program(outbound, packet, a, REPEAT_TOLD)

    uplink = socket.if_nametoindex("uplink0")
    arriving = datapath.programs["from_uplink"]

    def arrived(opener: bytes, packet: bytes) -> float:
        run_program(arriving, outside(opener), uplink, 1)
        return run_program(arriving, outside(packet), uplink, REPEAT)

    def answered(opener: bytes, packet: bytes) -> float:
        run_program(arriving, outside(opener), uplink, 1)
        return run_program(outbound, packet, b, REPEAT)

    def from_host() -> float:
        run_program(inbound, frame4(HOST, A4, SYN), a, 1)
        return run_program(inbound, frame4(HOST, A4, ACK), a, REPEAT)

    empty = _load_empty()
    return [
        Case("empty program", lambda: run_program(empty, frame4(A4, B4, ACK), a, REPEAT)),
        Case(
            "from_endpoint, established, IPv4",
            lambda: established(frame4(A4, B4, SYN), frame4(A4, B4, ACK)),
        ),
        Case(
            "from_endpoint, established, IPv6",
            lambda: established(_frame6(A6, B6, SYN), _frame6(A6, B6, ACK)),
        ),
        Case("to_endpoint, established, IPv4", from_host),
        Case(
            "from_uplink, established, translated, IPv4",
            lambda: arrived(frame4(CLIENT4, B4, SYN), frame4(CLIENT4, B4, ACK)),
        ),
        Case(
            "from_uplink, established, translated, IPv6",
            lambda: arrived(_frame6(CLIENT6, B6, SYN), _frame6(CLIENT6, B6, ACK)),
        ),
        Case(
            "from_endpoint, answer to outside, IPv4",
            lambda: answered(frame4(CLIENT4, B4, SYN), frame4(B4, CLIENT4, ACK, port=80, to=1000)),
        ),
        Case(
            "from_endpoint, answer to outside, IPv6",
            lambda: answered(
                _frame6(CLIENT6, B6, SYN), _frame6(B6, CLIENT6, ACK, port=80, to=1000)
            ),
        ),
        Case(
            "from_uplink, nothing of ours",
            lambda: run_program(
                arriving, outside(frame4(CLIENT4, HOST, ACK, to=22)), uplink, REPEAT
            ),
        ),
        # A closed connection is opened anew each time: judged, inserted, told.
        Case("from_endpoint, new flow", lambda: told(frame4(A4, B4, SYN | RST, 1001))),
        Case("from_endpoint, denied", lambda: told(frame4(A4, B4, SYN, 1002, 81))),
        Case("from_endpoint, spoofed", lambda: told(frame4(B4, A4, SYN, 1003))),
        Case("connect4, to a service", lambda: _connects(datapath, "connect4", SERVICE)),
        Case("connect4, elsewhere", lambda: _connects(datapath, "connect4", HOST)),
    ]


def outside(frame: bytes) -> bytes:
    """The same, from a client outside to the device to the world."""
    return bytes.fromhex(UPLINK_MAC.replace(":", "")) + frame[6:]


def run_program(program: int, packet: bytes, ifindex: int, repeat: int) -> float:
    context = bytearray(192)
    struct.pack_into("<I", context, 40, ifindex)  # __sk_buff.ifindex
    done = bpf.run_program(program, packet, context=bytes(context), repeat=repeat)
    return float(done.duration_ns)


def _connects(datapath: KernelDatapath, name: str, address: IPAddress) -> float:
    """By the kernel's own statistics: this kind of program has no test run."""
    program = datapath.programs[name]
    statistics_on = bpf.bpf(ENABLE_STATS, struct.pack("<I4x", 0))
    try:
        before_ns, before = _run_time(program)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dialler:
            for _ in range(CONNECTS):
                dialler.connect((str(address), 80))
        after_ns, after = _run_time(program)
    finally:
        os.close(statistics_on)
    return (after_ns - before_ns) / (after - before)


def _run_time(program: int) -> tuple[int, int]:
    """(run_time_ns, run_cnt) of struct bpf_prog_info."""
    found: tuple[int, int] = struct.unpack_from("<QQ", bpf.object_info(program, 208), RUN_TIME)
    return found


def _load_empty() -> int:
    code = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)
    held, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "<IIQQ", SCHED_CLS, 2, ctypes.addressof(held), ctypes.addressof(licence)
    )
    return bpf.bpf(PROG_LOAD, attributes)


def _tcp(flags: int, source: int, destination: int) -> bytes:
    return struct.pack("!HHIIBBHHH", source, destination, 0, 0, 0x50, flags, 0, 0, 0)


def frame4(
    source: IPAddress, destination: IPAddress, flags: int, port: int = 1000, to: int = 80
) -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, TCP, 0)
    return (
        ETHERNET + b"\x08\x00" + header + source.packed + destination.packed + _tcp(flags, port, to)
    )


def _frame6(
    source: IPAddress, destination: IPAddress, flags: int, port: int = 1000, to: int = 80
) -> bytes:
    header = struct.pack("!IHBB", 6 << 28, 20, TCP, 64)
    return (
        ETHERNET + b"\x86\xdd" + header + source.packed + destination.packed + _tcp(flags, port, to)
    )
