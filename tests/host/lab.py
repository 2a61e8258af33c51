"""A laboratory for the datapath: two pods and a host in namespaces of their own."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import NamedTuple

from sixfold.host import netlink_route as rt
from sixfold.host import netns
from sixfold.host.attachment import DEFAULT_V4, DEFAULT_V6, POD_SYSCTLS
from sixfold.host.datapath import KernelDatapath
from sixfold.host.layout import RawEvent, unpack_event
from sixfold.host.netlink import Netlink
from sixfold.model.config import HOST_MAC, POD_MAC
from sixfold.model.datapath import (
    EGRESS,
    INGRESS,
    Datapath,
    EndpointEntry,
    Frontend,
    FrontendEntry,
    IpcacheEntry,
    PolicyEntry,
    PolicyTable,
)
from sixfold.model.endpoint import EndpointId
from sixfold.model.identity import HOST, Identity
from sixfold.model.mesh import ORIGINAL_SOURCE_MARK, Mode, PortMode
from sixfold.model.reason import DropReason

WAIT_S = 5.0  # for what must come
SILENCE_S = 0.3  # for what must not: long enough for a packet
TCP, UDP, ICMP, ANY = 6, 17, 1, 0
# Else the sixth refusal within a second is the last: one test's silence would be another's.
TELLS_ALL = {"net/ipv4/icmp_ratelimit": "0", "net/ipv6/icmp/ratelimit": "0"}
# Maps that the kernel writes, of what has been.
REMEMBERED = (
    *("conntrack", "plaintexts", "deaf", "fragments"),
    *("senders", "replies", "dialled_services"),
)
VERDICT, DROP = 1, 2


class Pod(NamedTuple):
    name: str
    id: EndpointId
    identity: Identity
    ipv4: IPv4Address
    ipv6: IPv6Address


A = Pod("a", EndpointId(1), Identity(1001), IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"))
B = Pod("b", EndpointId(2), Identity(1002), IPv4Address("192.0.2.2"), IPv6Address("2001:db8::2"))
HOST4, HOST6 = IPv4Address("192.0.2.254"), IPv6Address("2001:db8::fe")
SERVICE4, SERVICE6 = IPv4Address("198.51.100.10"), IPv6Address("2001:db8:5::10")
SERVICE_NETWORKS = frozenset(map(ip_network, ("198.51.100.64/27", "2001:db8:6::/112")))
CLOSED = PolicyTable.of(frozenset(), 10, 11)


def allow(
    direction: int, peer: Identity, protocol: int = ANY, port: int = 0, rule: int = 1
) -> PolicyEntry:
    return PolicyEntry(direction, peer, protocol, port, 16 if port else 0, True, rule)


def table(*entries: PolicyEntry) -> PolicyTable:
    return PolicyTable.of(frozenset(entries), 10, 11)


A_TO_B = {
    A.id: table(allow(EGRESS, B.identity, rule=21)),
    B.id: table(allow(INGRESS, A.identity, rule=22)),
}


def ip_batch(*lines: str) -> None:
    done = subprocess.run(
        ["ip", "-batch", "-"],
        input="\n".join(lines),
        text=True,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == 0, done.stderr


class Lab:
    """A host with pods a and b; the calling thread is in the host's namespace."""

    def __init__(self) -> None:
        self.instance = f"dpt{uuid.uuid4().hex[:8]}"
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._spaces: dict[str, int] = {}
        self.sockets: list[socket.socket] = []

    def start(self) -> None:
        for name in ("host", "a", "b"):
            subprocess.run(["ip", "netns", "add", self._space(name)], check=True)
            self._spaces[name] = os.open(f"/run/netns/{self._space(name)}", os.O_RDONLY)
        self.enter("host")
        ip_batch("link set lo up", f"addr add {HOST4}/32 dev lo", f"addr add {HOST6}/128 dev lo")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
        self.datapath = KernelDatapath.open(self.instance)
        self.host_cookie = netns.cookie()
        self.endpoints = {}
        for pod in (A, B):
            with self.inside(pod.name):  # before its link is there
                for key, value in (POD_SYSCTLS | TELLS_ALL).items():
                    Path("/proc/sys", key).write_text(value)
            entry = self._add(pod)
            self.endpoints[entry.ifindex] = entry

    def stop(self) -> None:
        for each in self.sockets:
            each.close()
        with suppress(OSError, AttributeError):
            self.datapath.close()
        KernelDatapath.remove(self.instance)
        _setns(self._home)
        for name, fd in self._spaces.items():
            os.close(fd)
            subprocess.run(["ip", "netns", "del", self._space(name)], check=False)
        os.close(self._home)

    def _space(self, name: str) -> str:
        return f"{self.instance}-{name}"

    def enter(self, name: str) -> None:
        _setns(self._spaces[name])

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        self.enter(name)
        try:
            yield
        finally:
            self.enter("host")

    def _add(self, pod: Pod) -> EndpointEntry:
        device = f"lx{pod.name}"
        ip_batch(
            f"link add {device} address {HOST_MAC} type veth peer name eth0 "
            f"address {POD_MAC} netns {self._space(pod.name)}"
        )
        ifindex = socket.if_nametoindex(device)
        self.datapath.attach(ifindex)
        ip_batch(
            f"link set {device} up",
            f"route add {pod.ipv4}/32 dev {device}",
            f"route add {pod.ipv6}/128 dev {device}",
            f"neigh replace {pod.ipv4} lladdr {POD_MAC} dev {device} nud permanent",
            f"neigh replace {pod.ipv6} lladdr {POD_MAC} dev {device} nud permanent",
        )
        with self.inside(pod.name):
            ip_batch(
                "link set lo up",
                "link set eth0 up",
                f"addr add {pod.ipv4}/32 dev eth0",
                f"addr add {pod.ipv6}/128 dev eth0 nodad",
                "route add 169.254.1.1 dev eth0 scope link",
                f"route add default via 169.254.1.1 dev eth0 src {pod.ipv4}",
                "route add fe80::1 dev eth0",
                f"route add ::/0 via fe80::1 dev eth0 src {pod.ipv6}",
            )
            with Netlink() as netlink:
                loopback = socket.if_nametoindex("lo")
                for everything in (DEFAULT_V4, DEFAULT_V6):
                    netlink.batch([rt.local_route(everything, loopback)])
                    netlink.batch([rt.mark_rule(everything, ORIGINAL_SOURCE_MARK)])
            cookie = netns.cookie()
        return EndpointEntry(ifindex, pod.id, pod.identity, pod.ipv4, pod.ipv6, netns_cookie=cookie)

    def desired(
        self,
        policies: dict[EndpointId, PolicyTable] | None = None,
        frontends: dict[Frontend, FrontendEntry] | None = None,
        modes: frozenset[PortMode] = frozenset(),
    ) -> Datapath:
        return Datapath(
            endpoints=self.endpoints,
            ipcache={
                ip_network(HOST4): IpcacheEntry(HOST),
                ip_network(HOST6): IpcacheEntry(HOST),
            },
            policies=A_TO_B if policies is None else policies,
            frontends=frontends or {},
            service_networks=SERVICE_NETWORKS,
            modes=modes,
            host_netns_cookie=self.host_cookie,
        )

    def modes(self, mode: Mode, **ports: Mode) -> frozenset[PortMode]:
        """Both pods are in the mesh; of b this is the mode, and of some of its ports another."""
        a, b = ({it.id: it.ifindex for it in self.endpoints.values()}[pod.id] for pod in (A, B))
        lines = [PortMode(A.id, 0, Mode.STRICT, a), PortMode(B.id, 0, mode, b)]
        lines += [PortMode(B.id, int(port[1:]), each, b) for port, each in ports.items()]
        return frozenset(lines)

    def socket(self, pod: str, family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        with self.inside(pod):
            made = socket.socket(family, kind)
        made.settimeout(WAIT_S)
        self.sockets.append(made)
        return made

    def listen(self, pod: str, address: object, port: int = 80) -> socket.socket:
        server = self.socket(pod, family_of(address))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((str(address), port))
        server.listen(64)
        return server

    def connect(
        self, pod: str, address: object, port: int = 80, wait_s: float = WAIT_S
    ) -> socket.socket:
        """Gives up for good when nobody answers: nothing is sent later on, in another test."""
        client = self.socket(pod, family_of(address))
        client.settimeout(wait_s)
        try:
            client.connect((str(address), port))
        except OSError:
            client.close()
            raise
        client.settimeout(WAIT_S)
        return client

    def hears_nothing(self, pod: str, address: object, port: int = 80) -> bool:
        """Whether who dials there is not answered."""
        try:
            self.connect(pod, address, port, SILENCE_S).close()
        except TimeoutError:
            return True
        return False

    def hang_up(self) -> None:
        """Every socket, at once: nothing is sent of it any more."""
        for each in self.sockets:
            if each.fileno() >= 0:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.close()
        self.sockets.clear()

    def forget(self) -> None:
        """As it was at first: what an earlier test left is no part of the next one."""
        self.hang_up()
        self.datapath.apply(self.desired())
        self.datapath.forget(self.datapath.sweep())
        for name in REMEMBERED:
            self.datapath.maps[name].delete([key for key, _ in self.datapath.maps[name].items()])
        self.events()

    def datagram(self, pod: str, address: object = None, port: int = 0) -> socket.socket:
        made = self.socket(pod, family_of(address), socket.SOCK_DGRAM)
        made.bind((str(address), port))
        return made

    def namespaces(self) -> dict[int, Path]:
        """Of the pods, by interface."""
        names = {A.id: "a", B.id: "b"}
        return {
            it.ifindex: Path("/run/netns", self._space(names[it.id]))
            for it in self.endpoints.values()
        }

    def eventually(self, holds: Callable[[], bool], wait_s: float = 5) -> None:
        deadline = time.monotonic() + wait_s
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def events(self) -> list[RawEvent]:
        """What has been told since, with what a busy machine still has under way.

        Without what a new interface says unasked, before it is anybody's.
        """
        time.sleep(0.01)
        records, lost = self.datapath.events.drain()
        assert lost == 0
        unasked = (DROP, 58, DropReason.NO_ENDPOINT)
        return [
            event
            for event in map(unpack_event, records)
            if (event.type, event.protocol, event.reason) != unasked
        ]

    def tcp_events(self) -> list[RawEvent]:
        """Without neighbours that are asked for again, whenever the kernel thinks it is time."""
        return [event for event in self.events() if event.protocol == socket.IPPROTO_TCP]

    def drops(self) -> list[tuple[DropReason, int]]:
        """At least one: waited for."""
        found: list[tuple[DropReason, int]] = []

        def told() -> bool:
            found.extend(
                (DropReason(event.reason), event.rule[event.direction])
                for event in self.events()
                if event.type == DROP
            )
            return bool(found)

        self.eventually(told)
        return found


def _setns(fd: int) -> None:
    assert ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000) == 0


def family_of(address: object) -> int:
    return socket.AF_INET if ip_address(str(address)).version == 4 else socket.AF_INET6
