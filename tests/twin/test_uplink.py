"""The program on the uplinks: it picks as Python does, and what it rewrites is right to the bit."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import islice

import msgspec
import pytest
from crafted import (
    ACK,
    ARP,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    POD_MAC,
    REDIRECT,
    SHOT,
    SYN,
    TCP,
    UDP,
    allow,
)

from sixfold.balancing.pick import client_number, pick
from sixfold.balancing.table import table_of
from sixfold.host import bpf, layout
from sixfold.host.announce import checksum
from sixfold.host.arrivals import forget, know_uplinks
from sixfold.host.datapath import KernelDatapath
from sixfold.host.layout import RawEvent, unpack_event
from sixfold.model.algorithm import Algorithm
from sixfold.model.datapath import (
    INGRESS,
    Backend,
    Datapath,
    EndpointEntry,
    Frontend,
    FrontendEntry,
    FrontendFlag,
    IPAddress,
    IpcacheEntry,
    PolicyTable,
    SourceRange,
)
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import HOST, Identity
from sixfold.model.reason import DropReason

pytestmark = pytest.mark.root

NEXT = 0xFFFFFFFF
FIN, RST, PSH = 1, 4, 8
CHECKSUM_COMPLETE = 4  # BPF_F_TEST_SKB_CHECKSUM_COMPLETE
CLIENTS = {4: ip_address("198.51.100.2"), 6: ip_address("2001:db8:2::2")}
VIPS = {4: ip_address("192.0.2.64"), 6: ip_address("2001:db8:1::64")}
NODES = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8:1::1")}
PODS = {4: IPv4Address("10.244.0.2"), 6: IPv6Address("fd00:5f:244::2")}
NODE_PORT, PORT, TARGET = 30080, 80, 8080
AWAY = {4: (ip_address("203.0.113.9"), 9000), 6: (ip_address("2001:db8:3::9"), 9000)}
CLIENT_MAC = bytes.fromhex("020000000099")
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
PROTOCOLS = pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
BALANCER = FrontendFlag.OUTSIDE | FrontendFlag.ANNOUNCED


def segment(
    source: tuple[IPAddress, int],
    destination: tuple[IPAddress, int],
    protocol: int = TCP,
    flags: int = SYN,
    payload: bytes = b"",
) -> bytes:
    """A packet of which every checksum is right."""
    head = struct.pack("!HH", source[1], destination[1])
    if protocol == TCP:
        head += struct.pack("!IIBBHHH", 7, 9, 5 << 4, flags, 1024, 0, 0)
    else:
        head += struct.pack("!HH", 8 + len(payload), 0)
    body = head + payload
    pseudo = source[0].packed + destination[0].packed + struct.pack("!II", len(body), protocol)
    at = 16 if protocol == TCP else 6
    body = body[:at] + struct.pack("!H", checksum(pseudo + body)) + body[at + 2 :]
    return packet(source[0], destination[0], protocol, body)


def packet(source: IPAddress, destination: IPAddress, protocol: int, body: bytes) -> bytes:
    ends = source.packed + destination.packed
    if source.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + ends + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0)
    head = head[:10] + struct.pack("!H", checksum(head + ends)) + ends
    return head + body


def is_whole(found: bytes) -> bool:
    """Whether all checksums of an IP packet are right."""
    if found[0] >> 4 == 4:
        if checksum(found[:20]):
            return False
        ends, protocol, body = (
            found[12:20],
            found[9],
            found[20 : struct.unpack("!H", found[2:4])[0]],
        )
    else:
        (size,) = struct.unpack("!H", found[4:6])
        ends, protocol, body = found[8:40], found[6], found[40 : 40 + size]
    pseudo = b"" if protocol == ICMP else ends + struct.pack("!II", len(body), protocol)
    return checksum(pseudo + body) == 0


def ends_of(found: bytes) -> tuple[tuple[IPAddress, int], tuple[IPAddress, int]]:
    size, at = (4, 12) if found[0] >> 4 == 4 else (16, 8)
    ports = struct.unpack_from("!HH", found, at + 2 * size)
    addresses = [ip_address(found[at + n * size : at + (n + 1) * size]) for n in (0, 1)]
    return (addresses[0], ports[0]), (addresses[1], ports[1])


def entry(version: int, count: int, algorithm: Algorithm, **more: object) -> FrontendEntry:
    backends = tuple(Backend.at(PODS[version] + n, TARGET, 1 + n % 3) for n in range(count))
    table = table_of(algorithm, backends, 251)
    return FrontendEntry(9, backends, algorithm, table, **{"flags": BALANCER, **more})


def state(ifindex: int, entries: Mapping[int, FrontendEntry], pods: int = 1) -> Datapath:
    """Pods that all of the world may reach, on one interface, behind a few frontends."""
    frontends: dict[Frontend, FrontendEntry] = {}
    for version, one in entries.items():
        any_node = ip_address("0.0.0.0" if version == 4 else "::")
        frontends[Frontend.at(VIPS[version], 0, 0)] = FrontendEntry(9, (), flags=BALANCER)
        for protocol in (TCP, UDP):
            frontends[Frontend.at(VIPS[version], PORT, protocol)] = one
            frontends[Frontend.at(any_node, NODE_PORT, protocol)] = msgspec.structs.replace(
                one, flags=FrontendFlag.OUTSIDE
            )
    return Datapath(
        endpoints={
            ifindex + n: EndpointEntry(
                ifindex + n, EndpointId(n + 1), Identity(1001), PODS[4] + n, PODS[6] + n
            )
            for n in range(pods)
        },
        ipcache={ip_network(node): IpcacheEntry(HOST) for node in NODES.values()},
        policies={
            EndpointId(n + 1): PolicyTable.of(frozenset({allow(INGRESS, 0)}), 10, 11)
            for n in range(pods)
        },
        frontends=frontends,
    )


def pods_frame(content: bytes) -> bytes:
    kind = struct.pack("!H", IPV4 if content[0] >> 4 == 4 else IPV6)
    return bytes.fromhex("025f00000001") + POD_MAC + kind + content


def mac_of(device: str) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, 0x8927, struct.pack("40s", device.encode()))
    return answer[18:24]


class Uplink:
    """``sfa`` is the device to the world, ``sfb`` that of the first pod."""

    def __init__(self, datapath: KernelDatapath) -> None:
        self.datapath = datapath
        self.index = socket.if_nametoindex("sfa")
        self.pod = socket.if_nametoindex("sfb")
        self.mac = mac_of("sfa")
        know_uplinks(datapath.maps["uplinks"], {self.index: self.mac.hex(":")})
        for name in ("conntrack", "arrivals", "arrived", "affinities", "fragments"):
            datapath.maps[name].delete([key for key, _ in datapath.maps[name].items()])
        lines = datapath.maps["arrival_lines"]
        lines.update([(key, bytes(len(line))) for key, line in lines.items() if any(line)])
        datapath.events.drain()

    def frame(self, content: bytes, *, to: bytes = b"", kind: int = 0) -> bytes:
        kind = kind or (IPV4 if content[0] >> 4 == 4 else IPV6)
        return (to or self.mac) + CLIENT_MAC + struct.pack("!H", kind) + content

    def run(self, program: str, frame: bytes, ifindex: int, flags: int = 0) -> bpf.ProgramRun:
        context = bytearray(192)
        struct.pack_into("<I", context, 40, ifindex)
        fd = self.datapath.programs[program]
        return bpf.run_program(fd, frame, context=bytes(context), flags=flags)

    def arrive(self, content: bytes) -> tuple[int, bytes]:
        """Verdict, and the IP packet as it goes on."""
        done = self.run("from_uplink", self.frame(content), self.index)
        return done.verdict, done.packet[14:]

    def answer(self, content: bytes) -> tuple[int, bytes]:
        """The same of what the pod sends."""
        done = self.run("from_endpoint", pods_frame(content), self.pod)
        return done.verdict, done.packet[14:]

    def leave(self, content: bytes) -> tuple[int, bytes]:
        """The same of what the host's stack sends out."""
        done = self.run("to_uplink", self.frame(content), self.index)
        return done.verdict, done.packet[14:]

    def drops(self) -> list[str]:
        return [DropReason(event.reason).name for event in self.events() if event.reason]

    def events(self) -> list[RawEvent]:
        records, _ = self.datapath.events.drain()
        return [unpack_event(record) for record in records]

    def active(self) -> int:
        loads = islice(self.datapath.maps["loads"].items(), 64)
        return sum(layout.unpack_load(value).active for _, value in loads)


@pytest.fixture
def uplink(datapath: KernelDatapath) -> Uplink:
    return Uplink(datapath)


def load(uplink: Uplink, *, pods: int = 1, algorithm: Algorithm = Algorithm.RANDOM, **more) -> dict:
    entries = {version: entry(version, pods, algorithm, **more) for version in (4, 6)}
    uplink.datapath.apply(state(uplink.pod, entries, pods))
    deaf = uplink.datapath.maps["deaf"]
    deaf.delete([key for key, _ in deaf.items()])  # who refused in a test before
    return entries


@VERSIONS
@pytest.mark.parametrize("algorithm", [Algorithm.MAGLEV, Algorithm.SOURCE_HASH])
def test_a_client_gets_the_backend_that_pick_says(
    uplink: Uplink, version: int, algorithm: Algorithm
) -> None:
    chosen = load(uplink, pods=7, algorithm=algorithm)[version]
    for number in range(60):
        client = CLIENTS[version] + number * 77
        port = 1024 + number * 331
        verdict, found = uplink.arrive(segment((client, port), (VIPS[version], PORT)))
        assert verdict == REDIRECT
        name = client_number(client, port if algorithm is Algorithm.MAGLEV else 0)
        wanted = pick(chosen, client=name)
        assert wanted is not None
        assert ends_of(found) == ((client, port), (wanted.address, wanted.port))


@VERSIONS
def test_turns_are_taken_in_order(uplink: Uplink, version: int) -> None:
    """Wherever the rotation stands: frontends before may have had the same turn."""
    chosen = load(uplink, pods=5, algorithm=Algorithm.ROUND_ROBIN)[version]
    ports = range(1024, 1044)
    found = []
    for port in ports:
        _, arrived = uplink.arrive(segment((CLIENTS[version], port), (VIPS[version], PORT)))
        found.append(ends_of(arrived)[1][0])
    turns = [pick(chosen, turn=turn) for turn in range(len(ports) + 251)]
    addresses = [one.address for one in turns if one is not None]
    assert found in [addresses[n : n + len(ports)] for n in range(251)]


@VERSIONS
@PROTOCOLS
@pytest.mark.parametrize("way", ["balancer", "node"])
def test_what_arrives_and_what_is_answered_is_whole(
    uplink: Uplink, version: int, protocol: int, way: str
) -> None:
    load(uplink)
    client = (CLIENTS[version], 4000)
    dialled = (VIPS[version], PORT) if way == "balancer" else (NODES[version], NODE_PORT)
    pod = (PODS[version], TARGET)
    for flags, payload in ((SYN, b""), (ACK, b""), (ACK | PSH, b"odd"), (ACK, bytes(1001))):
        verdict, found = uplink.arrive(segment(client, dialled, protocol, flags, payload))
        assert (verdict, ends_of(found)) == (REDIRECT, (client, pod))
        assert is_whole(found)
        verdict, found = uplink.answer(segment(pod, client, protocol, flags | ACK, payload))
        assert (verdict, ends_of(found)) == (REDIRECT, (dialled, client))
        assert is_whole(found)


@VERSIONS
@PROTOCOLS
def test_the_sum_that_a_device_made_of_a_packet_stays_right(
    uplink: Uplink, version: int, protocol: int
) -> None:
    """The kernel compares it with a sum of its own after the run."""
    load(uplink)
    client, pod = (CLIENTS[version], 4000), (PODS[version], TARGET)
    inwards = segment(client, (VIPS[version], PORT), protocol, ACK, b"odd")
    outwards = segment(pod, client, protocol, ACK, b"odder")
    uplink.arrive(segment(client, (VIPS[version], PORT), protocol))
    try:
        for _ in range(3):
            uplink.run("from_uplink", uplink.frame(inwards), uplink.index, CHECKSUM_COMPLETE)
            uplink.run("from_endpoint", pods_frame(outwards), uplink.pod, CHECKSUM_COMPLETE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        pytest.skip("needs Linux 6.11: no test run sums packets up")


@VERSIONS
def test_a_datagram_without_checksum_stays_without(uplink: Uplink, version: int) -> None:
    """Over IPv6 too, where only tunnels send such (RFC 6935)."""
    load(uplink)
    at = (20 if version == 4 else 40) + 6
    sent = bytearray(segment((CLIENTS[version], 4000), (VIPS[version], PORT), UDP, payload=b"x"))
    sent[at : at + 2] = b"\0\0"
    _, found = uplink.arrive(bytes(sent))
    assert ends_of(found)[1] == (PODS[version], TARGET)
    assert found[at : at + 2] == b"\0\0"


@VERSIONS
@PROTOCOLS
def test_an_error_about_an_answer_reaches_the_pod_that_gave_it(
    uplink: Uplink, version: int, protocol: int
) -> None:
    load(uplink)
    client, dialled, pod = (CLIENTS[version], 4000), (VIPS[version], PORT), (PODS[version], TARGET)
    uplink.arrive(segment(client, dialled, protocol))
    router = CLIENTS[version] + 1
    quoted = segment(dialled, client, protocol, ACK, bytes(64))
    verdict, found = uplink.arrive(too_big(router, dialled[0], quoted))
    assert verdict == REDIRECT
    assert is_whole(found)
    offset = 28 if version == 4 else 48
    assert ends_of(found[offset:]) == (pod, client)
    assert ends_of(found)[1][0] == pod[0]


@VERSIONS
@PROTOCOLS
def test_an_error_of_a_pod_goes_out_under_the_services_address(
    uplink: Uplink, version: int, protocol: int
) -> None:
    load(uplink)
    client, dialled, pod = (CLIENTS[version], 4000), (VIPS[version], PORT), (PODS[version], TARGET)
    uplink.arrive(segment(client, dialled, protocol))
    quoted = segment(client, pod, protocol)
    verdict, found = uplink.answer(unreachable(pod[0], client[0], quoted))
    assert verdict == REDIRECT
    assert is_whole(found)
    offset = 28 if version == 4 else 48
    assert ends_of(found[offset:]) == (client, dialled)
    assert ends_of(found)[0][0] == dialled[0]


def hears_nothing(uplink: Uplink, *pods: int) -> None:
    """Nobody listens in these pods, and it is quite a while until that is forgotten."""
    maps = uplink.datapath.maps
    until = layout.U32.pack((time.monotonic_ns() >> 28) + (1 << 20))
    keys = [
        layout.DEAF_KEY.pack(bytes(16), number + 1, layout.pack_port(TARGET)) for number in pods
    ]
    maps["deaf"].delete([key for key, _ in maps["deaf"].items()])
    maps["deaf"].update([(key, until) for key in keys])
    maps["deaf_until"].update([(bytes(4), until)])


@pytest.fixture
def hearing_again(uplink: Uplink) -> Iterator[None]:
    yield
    hears_nothing(uplink)


@VERSIONS
@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.usefixtures("hearing_again")
def test_where_nobody_listens_is_passed_over(
    uplink: Uplink, version: int, algorithm: Algorithm
) -> None:
    load(uplink, pods=4, algorithm=algorithm)
    hears_nothing(uplink, 0, 2)
    port = 5100 + algorithm  # which no test before had
    found = Counter(
        ends_of(uplink.arrive(segment((CLIENTS[version] + n, port), (VIPS[version], PORT)))[1])[1]
        for n in range(60)
    )
    assert {*found} == {(PODS[version] + n, TARGET) for n in (1, 3)}


@VERSIONS
@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.usefixtures("hearing_again")
def test_the_only_one_that_listens_is_found(
    uplink: Uplink, version: int, algorithm: Algorithm
) -> None:
    load(uplink, pods=8, algorithm=algorithm)
    hears_nothing(uplink, *range(7))
    port = 5200 + algorithm
    found = {
        ends_of(uplink.arrive(segment((CLIENTS[version] + n, port), (VIPS[version], PORT)))[1])[1]
        for n in range(60)
    }
    assert found == {(PODS[version] + 7, TARGET)}


@VERSIONS
@pytest.mark.usefixtures("hearing_again")
def test_where_nobody_listens_anywhere_the_choice_stands(uplink: Uplink, version: int) -> None:
    load(uplink, pods=2, algorithm=Algorithm.ROUND_ROBIN)
    hears_nothing(uplink, 0, 1)
    found = {
        ends_of(uplink.arrive(segment((CLIENTS[version] + n, 4000), (VIPS[version], PORT)))[1])[1]
        for n in range(8)
    }
    assert found == {(PODS[version] + n, TARGET) for n in (0, 1)}


@VERSIONS
@pytest.mark.usefixtures("hearing_again")
def test_datagrams_have_nobody_who_listens(uplink: Uplink, version: int) -> None:
    load(uplink, pods=2, algorithm=Algorithm.ROUND_ROBIN)
    hears_nothing(uplink, 0)
    found = [
        ends_of(
            uplink.arrive(segment((CLIENTS[version] + n, 4000), (VIPS[version], PORT), UDP))[1]
        )[1]
        for n in range(8)
    ]
    assert len({*found}) == 2


def load_elsewhere(uplink: Uplink, version: int) -> None:
    entries = {version: FrontendEntry(9, (Backend.at(*AWAY[version]),), flags=BALANCER)}
    uplink.datapath.apply(state(uplink.pod, entries))


def deaf(uplink: Uplink) -> list[tuple[bytes, int, int]]:
    found = (layout.DEAF_KEY.unpack(key) for key, _ in uplink.datapath.maps["deaf"].items())
    return [(address, endpoint, layout.unpack_port(port)) for address, endpoint, port in found]


@VERSIONS
@pytest.mark.usefixtures("hearing_again")
def test_who_refuses_a_client_is_passed_over_by_the_next(uplink: Uplink, version: int) -> None:
    load(uplink, pods=2, algorithm=Algorithm.ROUND_ROBIN)
    hears_nothing(uplink)
    client, dialled = (CLIENTS[version], 4000), (VIPS[version], PORT)
    while ends_of(uplink.arrive(segment(client, dialled))[1])[1][0] != PODS[version]:
        client = (client[0], client[1] + 1)
    verdict, found = uplink.answer(segment((PODS[version], TARGET), client, TCP, RST | ACK))
    assert (verdict, ends_of(found), is_whole(found)) == (REDIRECT, (dialled, client), True)
    assert deaf(uplink) == [(bytes(16), 1, TARGET)]
    others = [segment((client[0] + 1, 4000 + n), dialled) for n in range(6)]
    assert {ends_of(uplink.arrive(one)[1])[1][0] for one in others} == {PODS[version] + 1}


@VERSIONS
@pytest.mark.usefixtures("hearing_again")
def test_a_backend_elsewhere_that_refuses_is_known_by_its_address(
    uplink: Uplink, version: int
) -> None:
    load_elsewhere(uplink, version)
    hears_nothing(uplink)
    client, away = (CLIENTS[version], 4000), AWAY[version]
    uplink.arrive(segment(client, (VIPS[version], PORT)))
    uplink.leave(segment(away, client, TCP, RST | ACK))
    mapped = bytes(10) + b"\xff\xff" if version == 4 else b""
    assert deaf(uplink) == [(mapped + away[0].packed, 0, away[1])]


@VERSIONS
@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        pytest.param([SYN], [SYN | ACK, RST | ACK], id="a server that ends what it took"),
        pytest.param([ACK], [RST], id="a packet of no connection"),
        pytest.param([PSH], [RST | ACK], id="a scan"),
        pytest.param([SYN], [FIN | ACK], id="an end in order"),
    ],
)
@pytest.mark.usefixtures("hearing_again")
def test_a_reset_that_refuses_nobody_makes_nobody_deaf(
    uplink: Uplink, version: int, sent: list[int], answers: list[int]
) -> None:
    load(uplink, algorithm=Algorithm.MAGLEV)
    hears_nothing(uplink)
    client = (CLIENTS[version], 4000)
    for flags in sent:
        assert uplink.arrive(segment(client, (VIPS[version], PORT), TCP, flags))[0] == REDIRECT
    for flags in answers:
        answer = segment((PODS[version], TARGET), client, TCP, flags)
        assert uplink.answer(answer)[0] == REDIRECT
    assert deaf(uplink) == []


@VERSIONS
@PROTOCOLS
def test_a_backend_elsewhere_is_for_the_stack_and_its_answer_comes_from_the_service(
    uplink: Uplink, version: int, protocol: int
) -> None:
    load_elsewhere(uplink, version)
    client, dialled, away = (CLIENTS[version], 4000), (VIPS[version], PORT), AWAY[version]
    before = uplink.active()
    for flags in (SYN, ACK, ACK | PSH):
        verdict, found = uplink.arrive(segment(client, dialled, protocol, flags, b"hello"))
        assert (verdict, ends_of(found), is_whole(found)) == (NEXT, (client, away), True)
        answer = segment(away, client, protocol, flags | ACK, b"well met")
        verdict, found = uplink.leave(answer)
        assert (verdict, ends_of(found), is_whole(found)) == (NEXT, (dialled, client), True)
    assert uplink.active() == before + 1
    uplink.arrive(segment(client, dialled, protocol, FIN | ACK))
    assert uplink.active() == before + (protocol == UDP)
    assert [event.service for event in uplink.events()] == [9]


@VERSIONS
@PROTOCOLS
def test_errors_about_a_backend_elsewhere_speak_of_the_service(
    uplink: Uplink, version: int, protocol: int
) -> None:
    load_elsewhere(uplink, version)
    client, dialled, away = (CLIENTS[version], 4000), (VIPS[version], PORT), AWAY[version]
    uplink.arrive(segment(client, dialled, protocol))
    router, offset = AWAY[version][0] + 1, 28 if version == 4 else 48
    for source in (router, away[0]):
        error = unreachable(source, client[0], segment(client, away, protocol, ACK, bytes(64)))
        verdict, found = uplink.leave(error)
        assert (verdict, is_whole(found)) == (NEXT, True)
        assert (ends_of(found)[0][0], ends_of(found[offset:])) == (dialled[0], (client, dialled))
    error = too_big(router, dialled[0], segment(dialled, client, protocol, ACK, bytes(64)))
    verdict, found = uplink.arrive(error)
    assert (verdict, is_whole(found)) == (NEXT, True)
    assert (ends_of(found)[1][0], ends_of(found[offset:])) == (away[0], (away, client))


@VERSIONS
def test_what_is_no_answer_of_a_backend_elsewhere_leaves_as_it_is(
    uplink: Uplink, version: int
) -> None:
    load_elsewhere(uplink, version)
    client, dialled, away = (CLIENTS[version], 4000), (VIPS[version], PORT), AWAY[version]
    uplink.arrive(segment(client, dialled))
    for ends in (((away[0], 1), client), (away, (client[0], 1)), (client, away)):
        content = segment(*ends, flags=ACK)
        assert uplink.leave(content) == (NEXT, content)


def icmp(source: IPAddress, destination: IPAddress, head: bytes, quoted: bytes) -> bytes:
    protocol = ICMP if source.version == 4 else ICMPV6
    body = head[:2] + b"\0\0" + head[4:] + quoted
    ends = source.packed + destination.packed
    pseudo = b"" if protocol == ICMP else ends + struct.pack("!II", len(body), protocol)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    return packet(source, destination, protocol, body)


def too_big(source: IPAddress, destination: IPAddress, quoted: bytes) -> bytes:
    kind = b"\x03\x04" if source.version == 4 else b"\x02\x00"
    return icmp(source, destination, kind + struct.pack("!HI", 0, 1280), quoted)


def unreachable(source: IPAddress, destination: IPAddress, quoted: bytes) -> bytes:
    kind = b"\x03\x03" if source.version == 4 else b"\x01\x04"
    return icmp(source, destination, kind + bytes(6), quoted)


@VERSIONS
def test_who_dials_nobody_is_reset_whole(uplink: Uplink, version: int) -> None:
    load(uplink, pods=0)
    client, dialled = (CLIENTS[version], 4000), (VIPS[version], PORT)
    for flags, payload, wanted in (
        (SYN, b"", (0, 8, RST | ACK)),
        (ACK | PSH, bytes(700), (9, 0, RST)),
    ):
        verdict, found = uplink.arrive(segment(client, dialled, TCP, flags, payload))
        assert (verdict, ends_of(found)) == (REDIRECT, (dialled, client))
        assert is_whole(found)
        at = 20 if version == 4 else 40
        sequence, acknowledged, _, seen = struct.unpack_from("!IIBB", found, at + 4)
        assert (sequence, acknowledged, seen) == wanted
        assert len(found) == at + 20
    assert set(uplink.drops()) == {"NO_BACKEND"}
    assert uplink.arrive(segment(client, dialled, TCP, RST))[0] == SHOT  # no answer to an answer


@VERSIONS
def test_who_sends_a_datagram_to_nobody_is_told(uplink: Uplink, version: int) -> None:
    load(uplink, pods=0)
    client, dialled = (CLIENTS[version], 4000), (VIPS[version], PORT)
    for size in (0, 3, 1200):
        sent = segment(client, dialled, UDP, payload=(bytes(range(256)) * 5)[:size])
        verdict, found = uplink.arrive(sent)
        assert (verdict, is_whole(found)) == (REDIRECT, True)
        at = 20 if version == 4 else 40
        assert [ends_of(found)[n][0] for n in (0, 1)] == [dialled[0], client[0]]
        assert found[at : at + 2] == (b"\x03\x03" if version == 4 else b"\x01\x04")
        assert found[at + 8 :] == sent[: at + 8]
    assert set(uplink.drops()) == {"NO_BACKEND"}


@VERSIONS
def test_who_is_outside_the_ranges_is_dropped(uplink: Uplink, version: int) -> None:
    entries = {
        it: entry(it, 1, Algorithm.RANDOM, flags=BALANCER | FrontendFlag.RANGES) for it in (4, 6)
    }
    ranges = [ip_network((CLIENTS[it], 30 if it == 4 else 126), strict=False) for it in (4, 6)]
    desired = state(uplink.pod, entries)
    uplink.datapath.apply(
        replace(desired, source_ranges=frozenset(SourceRange(9, it) for it in ranges))
    )
    dialled = (VIPS[version], PORT)
    assert uplink.arrive(segment((CLIENTS[version], 1), dialled))[0] == REDIRECT
    assert uplink.arrive(segment((CLIENTS[version] + 4, 1), dialled))[0] == SHOT
    assert uplink.drops() == ["SOURCE_RANGE"]
    assert uplink.arrive(segment((CLIENTS[version] + 4, 1), (NODES[version], NODE_PORT)))[0] == 7


@VERSIONS
def test_one_port_of_a_client_reaches_a_pod_by_one_address(uplink: Uplink, version: int) -> None:
    load(uplink)
    client = (CLIENTS[version], 4000)
    assert uplink.arrive(segment(client, (VIPS[version], PORT)))[0] == REDIRECT
    assert uplink.arrive(segment(client, (NODES[version], NODE_PORT)))[0] == SHOT
    assert uplink.drops() == ["NO_NAT_MAPPING"]
    uplink.arrive(segment(client, (VIPS[version], PORT), TCP, RST))
    assert uplink.arrive(segment(client, (NODES[version], NODE_PORT)))[0] == REDIRECT


def test_what_is_not_ours_goes_on(uplink: Uplink) -> None:
    load(uplink)
    client = (CLIENTS[4], 4000)
    others = [
        segment(client, (NODES[4], 22)),
        segment(client, (NODES[4], NODE_PORT + 1)),
        segment(client, (NODES[4], NODE_PORT), TCP, ACK),  # the host's own, perhaps
        segment(client, (CLIENTS[4] + 9, NODE_PORT)),  # routed through
        segment(client, (ip_address("127.0.0.1"), NODE_PORT)),
        icmp(CLIENTS[4], NODES[4], b"\x08\x00" + bytes(6), b"ping"),
        too_big(CLIENTS[4], NODES[4], segment((NODES[4], 22), client)),
    ]
    assert [uplink.arrive(it)[0] for it in others] == [NEXT] * len(others)
    mine = segment(client, (VIPS[4], PORT))
    elsewhere = uplink.frame(mine, to=CLIENT_MAC)  # seen, because the device is promiscuous
    assert uplink.run("from_uplink", elsewhere, uplink.index).verdict == NEXT


@PROTOCOLS
def test_a_connection_counts_from_its_second_packet_until_its_first_end(
    uplink: Uplink, protocol: int
) -> None:
    load(uplink)
    client, dialled, pod = (CLIENTS[4], 4000), (VIPS[4], PORT), (PODS[4], TARGET)
    before = uplink.active()
    uplink.arrive(segment(client, dialled, protocol))
    uplink.arrive(segment((CLIENTS[4], 4001), dialled, protocol))
    if protocol == TCP:
        uplink.arrive(segment(client, dialled, protocol))  # again: nobody has answered
    assert uplink.active() == before
    for _ in range(3):
        uplink.arrive(segment(client, dialled, protocol, ACK))
    assert uplink.active() == before + 1
    if protocol == TCP:
        uplink.answer(segment(pod, client, TCP, FIN | ACK))
        for flags in (ACK, FIN | ACK, ACK):
            uplink.arrive(segment(client, dialled, TCP, flags))
        uplink.answer(segment(pod, client, TCP, RST))
    else:
        uplink.datapath.maps["conntrack"].delete(
            [key for key, _ in uplink.datapath.maps["conntrack"].items()]
        )
    uplink.datapath.reap()
    assert uplink.active() == before
    assert dict(uplink.datapath.maps["arrived"].items()) == {}


@VERSIONS
def test_every_packet_of_a_client_and_of_its_pod_is_counted(uplink: Uplink, version: int) -> None:
    load(uplink)
    client, dialled, pod = (CLIENTS[version], 4000), (VIPS[version], PORT), (PODS[version], TARGET)
    sent = [segment(client, dialled)]
    sent += [segment(client, dialled, TCP, ACK, bytes(n)) for n in range(9)]
    answered = [segment(pod, client, TCP, ACK, bytes(100))] * 5
    for each in sent:
        uplink.arrive(each)
    for each in answered:
        uplink.answer(each)
    (found,) = uplink.datapath.conntrack()
    assert found.packets == (len(sent), len(answered))
    assert found.bytes == tuple(sum(len(it) + 14 for it in way) for way in (sent, answered))
    uplink.arrive(segment(client, dialled, TCP, FIN | ACK))
    (found,) = uplink.datapath.conntrack()
    assert found.packets == (len(sent) + 1, len(answered))
    assert found.tcp_flags & FIN


def line(uplink: Uplink, client: tuple[IPAddress, int]) -> tuple[tuple, bytes]:
    """What stands in the line of a client of the first service, and whose it is."""
    dialled = VIPS[client[0].version], PORT
    sides = map(layout.pack_address, (client[0], dialled[0]))
    ports = map(layout.pack_port, (client[1], dialled[1]))
    tuple_ = layout.TUPLE.pack(*sides, *ports, TCP, 0)
    held = uplink.datapath.maps["arrival_lines"].lookup(layout.line_of(tuple_)) or b""
    return layout.ARRIVAL_LINE.unpack(held), tuple_ if held.startswith(tuple_) else b""


def of_one_line(version: int) -> Iterator[list[tuple[IPAddress, int]]]:
    """Pairs of clients whose packets share a line."""
    found: dict[bytes, tuple[IPAddress, int]] = {}
    dialled = layout.pack_address(VIPS[version]), layout.pack_port(PORT)
    for n in range(1 << 16):
        client = CLIENTS[version] + n // 1000, 5000 + n % 1000
        sides = layout.pack_address(client[0]), dialled[0], layout.pack_port(client[1]), dialled[1]
        index = layout.line_of(layout.TUPLE.pack(*sides, TCP, 0))
        if other := found.pop(index, None):
            yield [other, client]
        else:
            found[index] = client


@VERSIONS
def test_packets_of_two_clients_of_one_line_go_each_to_its_own_backend_and_are_counted(
    uplink: Uplink, version: int
) -> None:
    load(uplink, pods=4, algorithm=Algorithm.ROUND_ROBIN)
    dialled = (VIPS[version], PORT)
    for clients in of_one_line(version):
        opened = [uplink.arrive(segment(client, dialled))[1] for client in clients]
        backends = [ends_of(found)[1] for found in opened]
        if backends[0] != backends[1]:
            break
    for n in range(12):
        for client, backend in zip(clients, backends, strict=True):
            verdict, found = uplink.arrive(segment(client, dialled, TCP, ACK, bytes(n)))
            assert (verdict, ends_of(found), is_whole(found)) == (REDIRECT, (client, backend), True)
    counted = {(one.source, one.source_port): one.packets[0] for one in uplink.datapath.conntrack()}
    assert [counted[client] for client in clients] == [13, 13]
    assert [*map(bool, (line(uplink, client)[1] for client in clients))].count(True) == 1


@VERSIONS
def test_a_new_connection_of_a_client_is_chosen_for_anew(uplink: Uplink, version: int) -> None:
    load(uplink, pods=2, algorithm=Algorithm.ROUND_ROBIN)  # of weights 1 and 2
    client, dialled = (CLIENTS[version], 4900), (VIPS[version], PORT)
    seen = set()
    for _ in range(3):
        backend = ends_of(uplink.arrive(segment(client, dialled))[1])[1]
        for flags in (ACK, ACK, ACK, FIN | ACK):
            found = uplink.arrive(segment(client, dialled, TCP, flags))[1]
            assert ends_of(found) == (client, backend)
        seen.add(backend)
    assert len(seen) == 2


@VERSIONS
def test_a_connection_that_the_agent_forgets_is_forgotten_at_once(
    uplink: Uplink, version: int
) -> None:
    load(uplink)
    client, dialled = (CLIENTS[version], 4000), (VIPS[version], PORT)
    for flags in (SYN, ACK, ACK, ACK):
        assert uplink.arrive(segment(client, dialled, TCP, flags))[0] == REDIRECT
    assert line(uplink, client)[1]
    forget(uplink.datapath.maps, list(uplink.datapath.conntrack()))
    assert not line(uplink, client)[1]
    verdict, found = uplink.arrive(segment(client, dialled, TCP, ACK))
    assert (verdict, found[33 if version == 4 else 53]) == (REDIRECT, RST)


@VERSIONS
def test_a_denied_client_is_dropped_from_its_next_packet_on(uplink: Uplink, version: int) -> None:
    entries = load(uplink)
    client, dialled = (CLIENTS[version], 4000), (VIPS[version], PORT)
    for flags in (SYN, ACK, ACK):
        assert uplink.arrive(segment(client, dialled, TCP, flags))[0] == REDIRECT
    desired = state(uplink.pod, entries)
    closed = {EndpointId(1): PolicyTable.of(frozenset(), 10, 11)}
    uplink.datapath.apply(replace(desired, policies=closed))
    assert uplink.arrive(segment(client, dialled, TCP, ACK))[0] == SHOT
    assert uplink.drops() == ["POLICY_DENIED"]
    uplink.datapath.apply(desired)
    assert uplink.arrive(segment(client, dialled, TCP, ACK))[0] == REDIRECT


@VERSIONS
def test_a_client_that_comes_by_another_device_is_answered_there(
    uplink: Uplink, version: int
) -> None:
    load(uplink)
    client, dialled = (CLIENTS[version], 4000), (VIPS[version], PORT)
    for flags in (SYN, ACK, ACK):
        uplink.arrive(segment(client, dialled, TCP, flags))
    frame = uplink.frame(segment(client, dialled, TCP, ACK), to=mac_of("sfc"))
    other = socket.if_nametoindex("sfc")
    assert uplink.run("from_uplink", frame, other).verdict == REDIRECT
    (found,) = uplink.datapath.conntrack()
    assert found.client_ifindex == other


def test_a_flood_of_first_packets_is_no_load(uplink: Uplink) -> None:
    load(uplink)
    before = uplink.active()
    for port in range(1024, 1524):
        uplink.arrive(segment((CLIENTS[4], port), (VIPS[4], PORT)))
    assert uplink.active() == before


@VERSIONS
def test_a_client_of_a_vanished_pod_is_reset(uplink: Uplink, version: int) -> None:
    entries = load(uplink)
    client, dialled = (CLIENTS[version], 4000), (VIPS[version], PORT)
    before = uplink.active()
    uplink.arrive(segment(client, dialled))
    uplink.arrive(segment(client, dialled, TCP, ACK))
    assert uplink.active() == before + 1
    desired = state(uplink.pod, entries)
    uplink.datapath.apply(replace(desired, endpoints={}, policies={}))
    verdict, found = uplink.arrive(segment(client, dialled, TCP, ACK))
    assert (verdict, ends_of(found)) == (REDIRECT, (dialled, client))
    assert found[(20 if version == 4 else 40) + 13] == RST
    assert is_whole(found)
    assert uplink.active() == before


def test_neighbours_are_told_the_uplinks_address(uplink: Uplink) -> None:
    load(uplink)
    asks = struct.pack("!HHBBH", 1, IPV4, 6, 4, 1) + CLIENT_MAC + CLIENTS[4].packed + bytes(6)
    frame = uplink.frame(asks + VIPS[4].packed, to=b"\xff" * 6, kind=ARP)
    done = uplink.run("from_uplink", frame, uplink.index)
    assert done.verdict == REDIRECT
    assert done.packet[:12] == CLIENT_MAC + uplink.mac
    assert done.packet[22:28] == uplink.mac
    assert done.packet[28:32] == VIPS[4].packed
    for stranger in (NODES[4], CLIENTS[4] + 1):
        frame = uplink.frame(asks + stranger.packed, to=b"\xff" * 6, kind=ARP)
        assert uplink.run("from_uplink", frame, uplink.index).verdict == NEXT


def test_neighbours_on_ipv6_are_told_too(uplink: Uplink) -> None:
    load(uplink)
    body = VIPS[6].packed + b"\x01\x01" + CLIENT_MAC
    group = ip_address("ff02::1:ff00:64")
    asked = icmp(CLIENTS[6], group, b"\x87\x00" + bytes(6), body)
    frame = uplink.frame(asked, to=bytes.fromhex("3333ff000064"))
    done = uplink.run("from_uplink", frame, uplink.index)
    assert done.verdict == REDIRECT
    found = done.packet[14:]
    assert ends_of(found)[0][0] == VIPS[6]
    assert (found[40], found[-6:]) == (136, uplink.mac)
    assert is_whole(found)
