"""The world behind the host: who gets out, who gets in, and under which address.

pod ─ host 192.0.2.1 ──(mtu 1400)── 192.0.2.2 router 198.51.100.1 ──(mtu 1300)── .2 far

``far`` sends what its link takes, but asks for more: it is for others to find out the path's MTU.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from sixfold.host import netns
from sixfold.host.paths import NETNS_ROOT

from .conftest import System
from .places import (
    FAMILIES,
    SILENCE_S,
    WAIT_S,
    Place,
    block,
    checksummed,
    manifest,
    places_of,
    pod,
    policy,
    received,
)

pytestmark = pytest.mark.root

LINKS = """
link add up0 mtu 1400 address 02:00:00:00:00:aa type veth peer name up1 mtu 1400
link set up1 netns {router}
addr add 192.0.2.1/24 dev up0
addr add 2001:db8:1::1/64 dev up0 nodad
link set up0 up
route add 198.51.100.0/24 via 192.0.2.2
route add 2001:db8:2::/64 via 2001:db8:1::2
"""
ROUTER_LINKS = """
addr add 192.0.2.2/24 dev up1
addr add 2001:db8:1::2/64 dev up1 nodad
link set up1 up
link add far0 mtu 1300 type veth peer name far1 mtu 1500
link set far1 netns {far}
addr add 198.51.100.1/24 dev far0
addr add 2001:db8:2::1/64 dev far0 nodad
link set far0 up
route add 10.244.0.0/16 via 192.0.2.1
route add fd00:5f:244::/64 via 2001:db8:1::1
"""
FAR_LINKS = """
addr add 198.51.100.2/24 dev far1
addr add 2001:db8:2::2/64 dev far1 nodad
link set far1 up
route add default via 198.51.100.1 mtu 1300 advmss 1460
route add default via 2001:db8:2::1 mtu 1300 advmss 1440
"""
UPLINK_MAC = bytes.fromhex("0200000000aa")
SERVER = (
    "import http.server, socket, threading\n"
    "class Server(http.server.ThreadingHTTPServer): address_family = socket.AF_INET6\n"
    "servers = [Server(('::', port), http.server.SimpleHTTPRequestHandler)"
    " for port in (8080, 8081)]\n"
    "threading.Thread(target=servers[0].serve_forever).start()\n"
    "servers[1].serve_forever()\n"
)
FAR = (block("198.51.100.0/24"), block("2001:db8:2::/64"))
HOST = (block("10.244.0.1/32"), block("fd00:5f:244::1/128"))
MANIFEST = manifest(
    pod("tourist"),
    pod("hermit"),
    pod(
        "probed",
        container={
            "command": [sys.executable, "-c", SERVER],
            "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        },
    ),
    policy(
        "tourist",
        {"app": "tourist"},
        policyTypes=["Ingress", "Egress"],
        ingress=[{"from": [*FAR, *HOST]}],
        egress=[{"to": [*FAR, *HOST]}],
    ),
)


@dataclass(frozen=True)
class Map:
    """Everybody on the picture."""

    system: System
    host: Place
    router: Place
    far: Place
    tourist: Place  # may talk with far and with the host
    hermit: Place  # no policy names it
    probed: Place

    def last_drop(self, *arguments: str) -> dict:
        return self.system.flows("--verdict", "DROPPED", "--last", "1", *arguments)[0]


@pytest.fixture(scope="module")
def world(module_system: System) -> Map:
    system = module_system
    paths = [NETNS_ROOT / f"{system.paths.instance}-{name}" for name in ("router", "far")]
    for path in paths:
        netns.create(path, lambda: None)
        system.extra.append(path)
    router = Place(paths[0], "192.0.2.2", "2001:db8:1::2")
    far = Place(paths[1], "198.51.100.2", "2001:db8:2::2")
    host = Place(system.host, "10.244.0.1", "fd00:5f:244::1")
    names = {"router": router.path.name, "far": far.path.name}
    for place, links in ((host, LINKS), (router, ROUTER_LINKS), (far, FAR_LINKS)):
        for line in links.format(**names).strip().splitlines():
            place.run("ip", *(["-6"] if "route" in line and ":" in line else []), *line.split())
    router.run("sh", "-c", "cd /proc/sys/net; echo 1 | tee ipv[46]/conf/all/forwarding")
    system.up(manifest=MANIFEST)
    return Map(
        system, host, router, far,
        *places_of(system, "tourist", "hermit", "probed"),
    )  # fmt: skip


@FAMILIES
def test_an_allowed_pod_reaches_the_world_under_the_hosts_address(world: Map, version: int):
    assert (
        caller(world.far, world.tourist, version) == {4: "192.0.2.1", 6: "2001:db8:1::1"}[version]
    )


@FAMILIES
def test_no_pod_reaches_the_world_without_a_rule(world: Map, version: int):
    with world.far.listen(version=version):
        assert world.hermit.attempt(world.far.address(version)) == "timeout"
    flow = world.last_drop("--from", "default/hermit")
    assert flow["drop_reason_desc"] == "POLICY_DENIED"
    assert flow["destination"]["labels"] == ["reserved:world"]
    assert flow["egress_denied_by"][0]["name"] == "default-deny"


@FAMILIES
def test_a_block_is_as_wide_as_written(world: Map, version: int):
    with world.router.listen(version=version):
        assert world.tourist.attempt(world.router.address(version)) == "timeout"


@FAMILIES
def test_the_world_reaches_a_pod_by_block_under_its_own_address(world: Map, version: int):
    assert caller(world.tourist, world.far, version) == world.far.address(version)


@FAMILIES
def test_the_world_reaches_no_other_pod(world: Map, version: int):
    for place in (world.hermit, world.probed):
        assert world.far.attempt(place.address(version)) == "timeout"
    flow = world.last_drop("--to", "default/probed")
    assert flow["drop_reason_desc"] == "POLICY_DENIED"
    assert flow["ingress_denied_by"][0]["name"] == "default-deny"


@FAMILIES
def test_the_world_cannot_send_as_a_pod(world: Map, version: int):
    sender = world.hermit.address(version)
    spoof(world.router, sender, world.tourist.address(version), version)
    flow = world.system.eventually(
        lambda: world.system.flows(
            *("--verdict", "DROPPED", "--drop-reason", "INVALID_SOURCE_IP", "--last", "1")
        ),
        "a drop of the spoofed packet",
    )[0]
    assert flow["IP"]["source"] == sender


@FAMILIES
def test_the_world_cannot_send_as_the_host_or_the_resolver(world: Map, version: int):
    resolver = {4: "169.254.20.10", 6: "fd00:5f::10"}[version]
    with world.tourist.listen(9053, version=version, kind=socket.SOCK_DGRAM) as server:
        for sender in (world.host.address(version), resolver):
            spoof(world.router, sender, world.tourist.address(version), version)
        assert received(server) is None


@FAMILIES
def test_the_host_reaches_probed_ports_only(world: Map, version: int):
    address = world.probed.address(version)
    assert world.host.answer(address, 8080) == "open"
    assert world.host.attempt(address, 8081) == "timeout"


@FAMILIES
def test_a_block_of_the_hosts_address_lets_the_host_in_and_pods_to_the_host(
    world: Map, version: int
):
    assert caller(world.tourist, world.host, version) == world.host.address(version)
    assert caller(world.host, world.tourist, version) == world.tourist.address(version)
    with world.host.listen(version=version):
        assert world.hermit.attempt(world.host.address(version)) == "timeout"


@FAMILIES
@pytest.mark.parametrize("who", ["far", "host"])
def test_a_closed_udp_port_is_refused(world: Map, version: int, who: str):
    address = getattr(world, who).address(version)
    with world.tourist.dial(address, 9, kind=socket.SOCK_DGRAM) as sock:
        sock.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(1)


@FAMILIES
def test_a_stream_crosses_links_with_smaller_mtus(world: Map, version: int):
    """The host tells the pod of 1400, the router through masquerade of 1300."""
    address = world.far.address(version)
    payload = bytes(200_000)
    with world.far.listen(version=version) as server, world.tourist.dial(address) as client:
        connection, _ = server.accept()
        connection.settimeout(WAIT_S)
        with connection:
            got = pump(client, connection, payload)
    assert got == len(payload)
    assert "mtu 1300" in world.tourist.run("ip", "route", "get", address)


def pump(client: socket.socket, server: socket.socket, payload: bytes) -> int:
    sender = threading.Thread(target=client.sendall, args=(payload,))
    sender.start()
    got = 0
    while got < len(payload):
        chunk = server.recv(1 << 20)
        if not chunk:
            break
        got += len(chunk)
    sender.join()
    return got


@FAMILIES
def test_a_datagram_in_fragments_goes_out_and_back(world: Map, version: int):
    """Cut anew for each link: the host and the router put fragments together in between."""
    udp = socket.SOCK_DGRAM
    with (
        world.far.listen(version=version, kind=udp) as server,
        world.tourist.dial(world.far.address(version), kind=udp) as client,
    ):
        sender = deliver(client, server)
        server.connect(sender)
        deliver(server, client)


def deliver(source: socket.socket, destination: socket.socket) -> tuple[Any, ...]:
    """Send 4000 bytes until they arrive: over IPv6 the first may only teach the path's MTU."""
    destination.settimeout(SILENCE_S)
    for _ in range(3):
        source.send(bytes(4000))
        with suppress(TimeoutError):
            message, sender = destination.recvfrom(9000)
            assert message == bytes(4000)
            return sender
    raise AssertionError("no datagram arrives")


@FAMILIES
def test_a_datagram_that_is_too_long_is_an_error_to_its_sender(world: Map, version: int):
    """Path MTU discovery for UDP: the second send knows."""
    level, option = {
        4: (socket.IPPROTO_IP, 10),  # IP_MTU_DISCOVER
        6: (socket.IPPROTO_IPV6, 23),  # IPV6_MTU_DISCOVER
    }[version]
    address = world.far.address(version)
    with world.tourist.dial(address, 9001, kind=socket.SOCK_DGRAM) as sock:
        sock.setsockopt(level, option, 2)  # IP_PMTUDISC_DO

        def too_long() -> bool:
            try:
                sock.send(bytes(1350))
            except OSError as error:
                return error.errno == 90  # EMSGSIZE
            return False

        world.system.eventually(too_long, "EMSGSIZE")


@FAMILIES
def test_ping_needs_a_rule_as_anything_else(world: Map, version: int):
    address = world.far.address(version)
    assert ping(world.tourist, address, version, WAIT_S)
    assert not ping(world.hermit, address, version)
    assert ping(world.far, world.tourist.address(version), version, WAIT_S)
    assert not ping(world.far, world.hermit.address(version), version)


@FAMILIES
def test_a_packet_that_dies_on_its_way_is_reported_to_its_sender(world: Map, version: int):
    """Time exceeded, from the host and from the router behind it: traceroute works."""
    sources = {4: ["10.244.0.1", "192.0.2.2"], 6: ["fd00:5f:244::1", "2001:db8:1::2"]}[version]
    hops = [hop(world.tourist, world.far.address(version), limit, version) for limit in (1, 2)]
    assert hops == sources


ECHO = {4: (socket.AF_INET, socket.IPPROTO_ICMP, 8), 6: (socket.AF_INET6, 58, 128)}


def caller(server: Place, client: Place, version: int) -> str:
    """Connect, and return the client's address as the server sees it."""
    with server.listen(version=version) as listener, client.dial(server.address(version)):
        connection, (source, *_) = listener.accept()
        connection.close()
    return source


def ping(place: Place, address: str, version: int, timeout_s: float = 0.5) -> bool:
    """One echo request; whether the reply came."""
    family, protocol, type_ = ECHO[version]
    with place.make_socket(family, socket.SOCK_RAW, protocol) as sock:
        sock.connect((address, 0))
        message = struct.pack("!BBHHH", type_, 0, 0, 0x5F5F, 1) + b"ping"
        sock.send(checksummed(message) if version == 4 else message)
        sock.settimeout(timeout_s)
        try:
            while True:
                reply = sock.recv(2048)[20 if version == 4 else 0 :]
                if reply[0] == (0 if version == 4 else 129):
                    return True
        except TimeoutError:
            return False


def hop(place: Place, address: str, limit: int, version: int) -> str:
    """Who reports that a packet with this hop limit has died."""
    family, protocol, _ = ECHO[version]
    with (
        place.make_socket(family, socket.SOCK_RAW, protocol) as ears,
        place.dial(address, 33434, kind=socket.SOCK_DGRAM) as sock,
    ):
        if version == 4:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, limit)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, limit)
        sock.send(b"?")
        while True:
            message, (source, *_) = ears.recvfrom(2048)
            type_ = message[20] if version == 4 else message[0]
            if type_ == (11 if version == 4 else 3):
                return source


def spoof(place: Place, source: str, destination: str, version: int) -> None:
    """Send a UDP datagram to port 9053 under a foreign address."""
    datagram = struct.pack("!HHHH", 9, 9053, 12, 0) + b"boo!"
    source_bytes, destination_bytes = (
        socket.inet_pton(ECHO[version][0], address) for address in (source, destination)
    )
    if version == 4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 32, 1, 0, 64, 17, 0)
        packet = checksummed(header + source_bytes + destination_bytes, 10) + datagram
    else:
        pseudo = source_bytes + destination_bytes + struct.pack("!II", 12, 17)
        datagram = checksummed(pseudo + datagram, len(pseudo) + 6)[len(pseudo) :]
        packet = struct.pack("!IHBB", 6 << 28, 12, 17, 64) + source_bytes + destination_bytes
        packet += datagram
    kind = 0x0800 if version == 4 else 0x86DD
    with place.make_socket(socket.AF_PACKET, socket.SOCK_DGRAM) as sock:
        sock.sendto(packet, ("up1", kind, 0, 0, UPLINK_MAC))
