"""Places in the network: pods, the host, the world; and sockets that live there.

A socket belongs to the namespace that it was made in, whoever uses it afterwards. So a test
holds both ends of a connection in its own process, and no program has to run in the pods.
"""

from __future__ import annotations

import errno
import json
import socket
import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sixfold.host import netns

from .conftest import System

T = TypeVar("T")
FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
WAIT_S = 5.0  # for what must come
SILENCE_S = 0.3  # for what must not come: what was sent here arrives in microseconds


@dataclass(frozen=True)
class Place:
    """A network namespace and its addresses there."""

    path: Path
    ipv4: str
    ipv6: str
    identity: int = 0

    def address(self, version: int) -> str:
        return self.ipv4 if version == 4 else self.ipv6

    def inside(self, work: Callable[[], T]) -> T:
        return netns.run_inside(self.path, work)

    def run(self, *argv: str) -> str:
        """Output of a program that must succeed."""
        done = subprocess.run(
            ["nsenter", f"--net={self.path}", *argv], capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def make_socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        sock = self.inside(lambda: socket.socket(family, kind, protocol))
        sock.settimeout(WAIT_S)
        return sock

    def listen(
        self, port: int = 8080, *, version: int = 4, kind: int = socket.SOCK_STREAM
    ) -> socket.socket:
        """A server on every address of a family."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        sock = self.make_socket(family, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("0.0.0.0" if version == 4 else "::", port))
        if kind == socket.SOCK_STREAM:
            sock.listen(64)
        return sock

    def dial(
        self,
        address: str,
        port: int = 8080,
        *,
        kind: int = socket.SOCK_STREAM,
        family: int | None = None,
        timeout_s: float = WAIT_S,
    ) -> socket.socket:
        sock = self.make_socket(family or family_of(address), kind)
        sock.settimeout(timeout_s)
        try:
            sock.connect((address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    def answer(self, address: str, port: int = 8080, **options: Any) -> str:
        """As ``attempt``, where one must come: however busy the machine is."""
        return self.attempt(address, port, timeout_s=WAIT_S, **options)

    def attempt(self, address: str, port: int = 8080, **options: Any) -> str:
        """ "open", "timeout" when nobody answers soon, or the name of the errno."""
        options.setdefault("timeout_s", SILENCE_S)
        try:
            self.dial(address, port, **options).close()
        except TimeoutError:
            return "timeout"
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error))
        return "open"


def family_of(address: str) -> int:
    return socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6


def places_of(system: System, *names: str) -> list[Place]:
    """Pods, by ``name`` (in default) or ``namespace/name``."""
    endpoints = system.endpoints()
    found = []
    for name in names:
        status = endpoints[name if "/" in name else f"default/{name}"]
        ipv4, ipv6 = status["ips"]
        found.append(Place(Path(status["netns"]), ipv4, ipv6, status["identity"]))
    return found


def place_of(system: System, name: str) -> Place:
    return places_of(system, name)[0]


def received(sock: socket.socket, timeout_s: float = SILENCE_S) -> bytes | None:
    """The next datagram, or None when none comes."""
    sock.settimeout(timeout_s)
    with suppress(TimeoutError):
        return sock.recv(65536)
    return None


def checksummed(packet: bytes, offset: int = 2) -> bytes:
    """The packet with the Internet checksum over all of it at the offset."""
    padded = packet + b"\0" * (len(packet) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    total = (total & 0xFFFF) + (total >> 16)
    total += total >> 16
    return packet[:offset] + struct.pack("!H", ~total & 0xFFFF) + packet[offset + 2 :]


def manifest(*objects: dict[str, Any]) -> str:
    return "\n---\n".join(map(json.dumps, objects))


def pod(name: str, *, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    """A pod that does nothing; labels: its name, as ``app``, and ``labels``."""
    labels = {"app": name, **spec.pop("labels", {})}
    container = {"name": "main", "command": ["sleep", "inf"], **spec.pop("container", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **spec},
    }


def service(name: str, *, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    """A dual-stack service for the pods labelled ``app: name``."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ipFamilyPolicy": "PreferDualStack", **spec},
    }


def policy(name: str, subject: dict[str, str] | None, /, **spec: Any) -> dict[str, Any]:
    """A NetworkPolicy for the pods with these labels; None is all."""
    namespace = spec.pop("namespace", "default")
    selector = {} if subject is None else {"matchLabels": subject}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": selector, **spec},
    }


def labelled(**labels: str) -> dict[str, Any]:
    """A peer of the policy's own namespace."""
    return {"podSelector": {"matchLabels": labels}}


def block(cidr: str, *holes: str) -> dict[str, Any]:
    return {"ipBlock": {"cidr": cidr, **({"except": list(holes)} if holes else {})}}


OPEN = {"policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]}
