"""The world outside, for tests of names and of what leaves: a namespace behind the host's uplink.

pod ─ host 192.0.2.1 ── 192.0.2.2 world, which is 198.51.100.0/24 and 2001:db8:2::/64 as a whole
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from sixfold.host import netns
from sixfold.host.paths import NETNS_ROOT

from .conftest import System
from .places import Place

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


@contextmanager
def outside(system: System) -> Iterator[tuple[Place, Upstream]]:
    """The world of one instance, and its name server, while it serves."""
    path = NETNS_ROOT / f"{system.paths.instance}-world"
    netns.create(path, lambda: None)
    system.extra.append(path)
    world = Place(path, "192.0.2.2", "2001:db8:1::2")
    host = Place(system.host, "192.0.2.1", "2001:db8:1::1")
    for place, links in ((host, HOST_LINKS), (world, WORLD_LINKS)):
        for line in links.format(world=path.name).strip().splitlines():
            place.run("ip", *line.split())
    world.run("ip", "route", "add", "default", "via", "192.0.2.1")
    world.run("ip", "-6", "route", "add", "default", "via", "2001:db8:1::1")
    upstream, stop = Upstream(world), threading.Event()
    udp = world.make_socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = world.make_socket(socket.AF_INET, socket.SOCK_STREAM)
    for sock in (udp, tcp):
        sock.bind(("192.0.2.2", 53))
    tcp.listen(16)
    serving = threading.Thread(target=upstream.serve, args=(udp, tcp, stop))
    serving.start()
    try:
        yield world, upstream
    finally:
        stop.set()
        serving.join()
        udp.close()
        tcp.close()
