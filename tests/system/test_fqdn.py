"""Rules about domain names, on real traffic: a name server, servers and clients in namespaces.

pod ─ host 192.0.2.1 ── 192.0.2.2 world, which is 198.51.100.0/24 and 2001:db8:2::/64 as a whole

Each test asks for names of its own, so that one does not live on what another learned.
"""

from __future__ import annotations

import selectors
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from sixfold.host import netns
from sixfold.host.paths import NETNS_ROOT

from .conftest import System
from .places import FAMILIES, WAIT_S, Place, manifest, places_of, pod

pytestmark = pytest.mark.root

RESOLVER = "169.254.20.10"
MIN_TTL_S = 1
HOST_LINKS = """
link add up0 type veth peer name up1
link set up1 netns {world}
addr add 192.0.2.1/24 dev up0
addr add 2001:db8:1::1/64 dev up0 nodad
link set up0 up
route add 198.51.100.0/24 via 192.0.2.2
-6 route add 2001:db8:2::/64 via 2001:db8:1::2
"""
WORLD_LINKS = """
link set lo up
addr add 192.0.2.2/24 dev up1
addr add 2001:db8:1::2/64 dev up1 nodad
link set up1 up
route add local 198.51.100.0/24 dev lo
-6 route add local 2001:db8:2::/64 dev lo
"""
# Names that it asks for, and the address that it reached each time.
ASKER = """
import socket, sys
for number in range(int(sys.argv[2])):
    name = sys.argv[1].replace("N", str(number))
    answers = socket.getaddrinfo(name, 8080, type=socket.SOCK_STREAM)
    for family, kind, protocol, _, where in answers:
        with socket.socket(family, kind, protocol) as sock:
            sock.settimeout(2)
            try:
                sock.connect(where)
                print("open", where[0])
            except OSError as error:
                print("closed", where[0], error)
"""


def cnp(name: str, app: str, *names: dict[str, str], port: int = 8080, **more: Any) -> Any:
    """A CiliumNetworkPolicy that opens names to the pod ``app``, on one TCP port."""
    ports = [{"ports": [{"port": str(port), "protocol": "TCP"}]}]
    egress = [{"toFQDNs": list(names), "toPorts": ports}]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"endpointSelector": {"matchLabels": {"app": app}}, "egress": egress, **more},
    }


MANIFEST = manifest(
    pod("caller"),
    pod("other"),
    pod("hermit"),
    cnp(
        "caller",
        "caller",
        {"matchName": "API.example.org."},
        {"matchPattern": "*.fresh.example.org"},
        {"matchPattern": "**.deep.example.org"},
        {"matchPattern": "a*c.example.org"},
    ),
    cnp("other", "other", {"matchPattern": "*.elsewhere.example.org"}),
)


@dataclass
class Upstream:
    """A name server over UDP and TCP; ``records`` may change at any time."""

    place: Place
    records: dict[tuple[str, str], tuple[int, list[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    long: set[str] = field(default_factory=set)  # names with answers for TCP only
    fresh: Iterator[int] = field(default_factory=lambda: count(1))

    def set(self, name: str, *addresses: str, ttl_s: int = 60) -> None:
        """What a name resolves to from now on."""
        for type_ in ("A", "AAAA"):
            found = [one for one in addresses if (":" in one) == (type_ == "AAAA")]
            self.records[name, type_] = (ttl_s, found)

    def alias(self, name: str, target: str, ttl_s: int = 60) -> None:
        self.records[name, "CNAME"] = (ttl_s, [f"{target}."])

    def new(self, name: str, **more: Any) -> tuple[str, str]:
        """Give a name addresses that nobody had before."""
        number = next(self.fresh)
        addresses = f"198.51.100.{number}", f"2001:db8:2::{number:x}"
        self.set(name, *addresses, **more)
        return addresses

    def answer(self, packet: bytes, *, tcp: bool) -> bytes:
        query = dns.message.from_wire(packet)
        reply = dns.message.make_response(query)
        name = query.question[0].name.to_text().lower().rstrip(".")
        type_ = dns.rdatatype.to_text(query.question[0].rdtype)
        self.asked.append(name)
        if name in self.long and not tcp:
            reply.flags |= dns.flags.TC
            return reply.to_wire()
        if name.endswith(".fresh.example.org") and (name, type_) not in self.records:
            self.new(name)
        while (name, "CNAME") in self.records:
            ttl_s, targets = self.records[name, "CNAME"]
            reply.answer.append(dns.rrset.from_text(f"{name}.", ttl_s, "IN", "CNAME", *targets))
            name = targets[0].rstrip(".")
        if (name, type_) not in self.records:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif (found := self.records[name, type_])[1]:
            reply.answer.append(dns.rrset.from_text(f"{name}.", found[0], "IN", type_, *found[1]))
        return reply.to_wire(max_size=65535)

    def serve(self, udp: socket.socket, tcp: socket.socket, stop: threading.Event) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in (udp, tcp):
                selector.register(sock, selectors.EVENT_READ)
            while not stop.is_set():
                for key, _ in selector.select(0.05):
                    if key.fileobj is udp:
                        packet, sender = udp.recvfrom(4096)
                        udp.sendto(self.answer(packet, tcp=False), sender)
                    else:
                        connection, _ = tcp.accept()
                        with connection:
                            answer = self.answer(connection.recv(4096)[2:], tcp=True)
                            connection.sendall(len(answer).to_bytes(2, "big") + answer)


@dataclass(frozen=True)
class Scene:
    system: System
    upstream: Upstream
    caller: Place
    other: Place
    hermit: Place

    def ask(self, place: Place, name: str, type_: str = "A", *, tcp: bool = False) -> list[str]:
        """The addresses that the resolver gives to a pod."""
        query = dns.message.make_query(name, type_)
        kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        with place.make_socket(socket.AF_INET, kind) as sock:
            if tcp:
                sock.connect((RESOLVER, 53))
                sock.setblocking(False)
                reply = dns.query.tcp(query, RESOLVER, timeout=WAIT_S, sock=sock)
            else:
                sock.setblocking(False)
                reply = dns.query.udp(query, RESOLVER, timeout=WAIT_S, sock=sock)
        found = [one for rrset in reply.answer for one in rrset if rrset.rdtype in (1, 28)]
        return [one.address for one in found]

    def cache(self) -> dict[str, list[dict[str, Any]]]:
        entries = self.system.json("fqdn", "cache", "list")["entries"]
        found: dict[str, list[dict[str, Any]]] = {}
        for entry in entries:
            found.setdefault(entry["name"], []).append(entry)
        return found

    def closes(self, place: Place, address: str) -> None:
        """Wait until an address is closed to a pod."""
        self.system.eventually(
            lambda: place.attempt(address) == "timeout", f"{address} is still open"
        )


@pytest.fixture(scope="module")
def scene(module_system: System) -> Iterator[Scene]:
    system = module_system
    path = NETNS_ROOT / f"{system.paths.instance}-world"
    netns.create(path, lambda: None)
    system.extra.append(path)
    world = Place(path, "192.0.2.2", "2001:db8:1::2")
    host = Place(system.host, "192.0.2.1", "2001:db8:1::1")
    for place, links in ((host, HOST_LINKS), (world, WORLD_LINKS)):
        for line in links.format(world=path.name).strip().splitlines():
            place.run("ip", *line.split())
    for route in (["192.0.2.0/24"], ["-6", "2001:db8:1::/64"]):
        assert route
    world.run("ip", "route", "add", "default", "via", "192.0.2.1")
    world.run("ip", "-6", "route", "add", "default", "via", "2001:db8:1::1")
    upstream, stop = Upstream(world), threading.Event()
    udp = world.make_socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = world.make_socket(socket.AF_INET, socket.SOCK_STREAM)
    for sock in (udp, tcp):
        sock.bind(("192.0.2.2", 53))
    tcp.listen(16)
    servers = [world.listen(version=version) for version in (4, 6)]
    threads = [threading.Thread(target=upstream.serve, args=(udp, tcp, stop))]
    threads += [threading.Thread(target=take, args=(server, stop)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        system.up(
            *("--dns-upstream", "192.0.2.2", "--fqdn-min-ttl", str(MIN_TTL_S)), manifest=MANIFEST
        )
        yield Scene(system, upstream, *places_of(system, "caller", "other", "hermit"))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for sock in (udp, tcp, *servers):
            sock.close()


def take(server: socket.socket, stop: threading.Event) -> None:
    """Accept, echo what comes, until told to stop."""
    server.settimeout(0.05)
    held: list[socket.socket] = []
    while not stop.is_set():
        with suppress(TimeoutError):
            held.append(server.accept()[0])
        for one in list(held):
            one.setblocking(False)
            with suppress(BlockingIOError):
                try:
                    data = one.recv(4096)
                except OSError as error:
                    if isinstance(error, BlockingIOError):
                        raise
                    data = b""
                if data:
                    one.sendall(data)
                else:
                    held.remove(one)
                    one.close()
    for one in held:
        one.close()


def test_the_first_connection_after_an_answer_works_two_hundred_times(scene: Scene):
    names = ("exec", "caller", "--", sys.executable, "-c", ASKER, "nN.fresh.example.org", "100")
    lines = scene.system.sixfold(*names).stdout.splitlines()
    assert len(lines) == 200  # a hundred names, both families
    assert [line for line in lines if not line.startswith("open")] == []


@FAMILIES
def test_a_name_opens_its_addresses_to_whom_policy_names_it_only(scene: Scene, version: int):
    address = scene.upstream.new("api.example.org")[version == 6]
    assert scene.caller.attempt(address) == "timeout"
    scene.upstream.records.pop(("api.example.org", "CNAME"), None)
    type_ = "A" if version == 4 else "AAAA"
    assert address in scene.ask(scene.caller, "Api.Example.ORG", type_)
    assert scene.caller.attempt(address) == "open"
    assert scene.caller.attempt(address, 8081) == "timeout"
    for stranger in (scene.other, scene.hermit):
        assert stranger.attempt(address) == "timeout"
