"""Services from outside, over links of other kinds than a veth.

pods ─ host 192.0.2.1 ──(tun0)── 192.0.2.2 far
       host 198.51.100.1 ──(up0)── 198.51.100.2 near

What is between the two ends of the tunnel is a thread that copies packets: so their checksums are
those that ended up in them.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sixfold.host import netns
from sixfold.host.paths import NETNS_ROOT

from .conftest import System
from .places import FAMILIES, OPEN, Place, manifest, places_of, pod, policy, service
from .test_outside import KINDS, echo, exchange

pytestmark = pytest.mark.root

DGRAM = socket.SOCK_DGRAM
POOL = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumLoadBalancerIPPool",
    "metadata": {"name": "far"},
    "spec": {
        "blocks": [{"cidr": "203.0.113.8/29"}, {"cidr": "2001:db8:7::8/125"}],
        "serviceSelector": {"matchExpressions": [{"key": "moved", "operator": "DoesNotExist"}]},
    },
}
MOVED = {4: "203.0.113.99", 6: "2001:db8:7::99"}  # addresses that another machine had
POOL_MOVED = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumLoadBalancerIPPool",
    "metadata": {"name": "moved"},
    "spec": {
        "blocks": [{"cidr": f"{MOVED[4]}/32"}, {"cidr": f"{MOVED[6]}/128"}],
        "serviceSelector": {"matchLabels": {"moved": "here"}},
    },
}
MAC, MAC_BEFORE = "02:00:00:00:00:aa", "02:00:00:00:00:bb"
NEAR_LINKS = """
link add up0 address {mac} type veth peer name near0 netns {near}
addr add 198.51.100.1/24 dev up0
addr add 2001:db8:2::1/64 dev up0 nodad
link set up0 up
"""
PORTS = [
    {"name": "tcp", "port": 80, "targetPort": 8080, "nodePort": 30080},
    {"name": "udp", "port": 80, "targetPort": 8080, "nodePort": 30080, "protocol": "UDP"},
]
NODE = {4: "192.0.2.1", 6: "2001:db8:1::1"}


@contextmanager
def tunnel(*places: Place) -> Iterator[None]:
    """A TUN device in each of two places, and somebody who carries packets between them."""
    ends = [place.inside(make_tun) for place in places]
    for number, place in enumerate(places, 1):
        place.run("ip", "addr", "add", f"192.0.2.{number}/24", "dev", "tun0")
        place.run("ip", "addr", "add", f"2001:db8:1::{number}/64", "dev", "tun0", "nodad")
        place.run("ip", "link", "set", "tun0", "up", "mtu", "1400")
    hear, stop = os.pipe()
    carrier = threading.Thread(target=carry, args=(ends, hear))
    carrier.start()
    try:
        yield
    finally:
        os.close(stop)
        carrier.join()
        for fd in (*ends, hear):
            os.close(fd)


def make_tun() -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    # TUNSETIFF: IFF_TUN, IFF_NO_PI
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))
    return fd


def carry(ends: list[int], done: int) -> None:
    other = dict(zip(ends, reversed(ends), strict=True))
    while done not in (ready := select.select([*ends, done], [], [])[0]):
        for fd in ready:
            os.write(other[fd], os.read(fd, 65536))


@dataclass
class Shore:
    system: System
    host: Place
    far: Place  # behind the tunnel
    near: Place  # on a link
    client: Place
    solo: Place
    address: dict[int, str]  # of the load balancer, by family


@pytest.fixture(scope="module")
def shore(module_system: System) -> Iterator[Shore]:
    if not Path("/dev/net/tun").exists():
        pytest.skip("no /dev/net/tun")
    system = module_system
    paths = [NETNS_ROOT / f"{system.paths.instance}-{name}" for name in ("far", "near")]
    for path in paths:
        netns.create(path, lambda: None)
        system.extra.append(path)
    host = Place(system.host, "10.244.0.1", "fd00:5f:244::1")
    far = Place(paths[0], "192.0.2.2", "2001:db8:1::2")
    near = Place(paths[1], "198.51.100.2", "2001:db8:2::2")
    for line in NEAR_LINKS.format(mac=MAC, near=paths[1].name).strip().splitlines():
        host.run("ip", *line.split())
    near.run("ip", "addr", "add", "198.51.100.2/24", "dev", "near0")
    near.run("ip", "addr", "add", "2001:db8:2::2/64", "dev", "near0", "nodad")
    near.run("ip", "link", "set", "near0", "up")
    near.run("ip", "route", "add", "203.0.113.0/24", "dev", "near0")
    near.run("ip", "-6", "route", "add", "2001:db8:7::/64", "dev", "near0")
    with tunnel(host, far):
        far.run("ip", "route", "add", "203.0.113.0/24", "dev", "tun0")
        far.run("ip", "-6", "route", "add", "2001:db8:7::/64", "dev", "tun0")
        system.up(
            manifest=manifest(
                POOL,
                pod("client"),
                pod("solo"),
                service("solo", type="LoadBalancer", selector={"app": "solo"}, ports=PORTS),
                policy("open", None, **OPEN),
            )
        )
        client, solo = places_of(system, "client", "solo")
        status = system.json("get", "svc", "solo")["status"]
        given = [it["ip"] for it in status["loadBalancer"]["ingress"]]
        yield Shore(
            system, host, far, near, client, solo, {6 if ":" in it else 4: it for it in given}
        )


@FAMILIES
@pytest.mark.parametrize("way", ["balancer", "node"])
def test_a_tunnel_leads_to_services(shore: Shore, version: int, way: str):
    address, port = (shore.address[version], 80) if way == "balancer" else (NODE[version], 30080)
    with shore.solo.listen(version=version) as server:
        assert exchange(shore.far, server, address, port) == shore.far.address(version)
    with (
        shore.solo.listen(version=version, kind=DGRAM) as server,
        shore.far.dial(address, port, kind=DGRAM) as asking,
    ):
        asking.send(b"?" * 3000)  # longer than the tunnel takes
        message, sender = server.recvfrom(65536)
        assert (message, sender[0]) == (b"?" * 3000, shore.far.address(version))
        server.sendto(b"!" * 3000, sender)
        assert asking.recv(65536) == b"!" * 3000


@FAMILIES
def test_who_dials_nobody_through_a_tunnel_is_refused_at_once(shore: Shore, version: int):
    for address, port in ((shore.address[version], 81), (NODE[version], 30080)):
        answer = shore.far.answer(address, port)
        assert answer == "ECONNREFUSED", (address, port)


@FAMILIES
def test_a_ping_through_a_tunnel_is_answered(shore: Shore, version: int):
    echo(shore.far, shore.address[version])


@FAMILIES
@KINDS
def test_an_error_through_a_tunnel_reaches_its_end(shore: Shore, version: int, kind: int):
    """A closed port: the client is told by the pod; a closed client, the pod by the client."""
    address = shore.address[version]
    if kind == DGRAM:
        with shore.far.dial(address, 80, kind=DGRAM) as asking:
            asking.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                asking.recv(1)
        with shore.solo.listen(version=version, kind=DGRAM) as server:
            with shore.far.dial(address, 80, kind=DGRAM) as asking:
                asking.send(b"x")
                _, sender = server.recvfrom(1)
            server.connect(sender)
            server.send(b"y")
            with pytest.raises(ConnectionRefusedError):
                server.recv(1)
    else:
        assert shore.far.answer(address, 80) == "ECONNREFUSED"


def test_a_neighbour_learns_unasked_that_an_address_has_moved_here(shore: Shore):
    """It sends to the machine that had the address before, until it hears of this one."""
    for address in MOVED.values():
        known = ("neigh", "replace", address, "lladdr", MAC_BEFORE, "dev", "near0", "nud", "stale")
        shore.near.run("ip", *known)

    def believes(mac: str) -> bool:
        shown = [shore.near.run("ip", "neigh", "show", it) for it in MOVED.values()]
        return all(mac in it for it in shown)

    assert believes(MAC_BEFORE)
    moved = service("moved", type="LoadBalancer", selector={"app": "solo"}, ports=PORTS[:1])
    moved["metadata"]["labels"] = {"moved": "here"}
    del moved["spec"]["ports"][0]["nodePort"]
    shore.system.apply(manifest(POOL_MOVED, moved))
    shore.system.eventually(lambda: believes(MAC), "the neighbour heard nothing")
    for version, address in MOVED.items():
        with shore.solo.listen(version=version) as server:
            assert exchange(shore.near, server, address, 80) == shore.near.address(version)
