"""Two hosts of different trust domains whose workloads know each other by their Gateways.

shop 192.0.2.1 ──(wire)── 192.0.2.2 partner; each has a pod ``web`` that dials the other's ``db``,
and asks the other's ``api``, which is a web server in that pod.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sixfold.cli.client import Client

from .conftest import CommandError, System
from .places import OPEN, Place, block, labelled, place_of, pod, policy, service

GROUP = "gateway.networking.k8s.io"
DOOR, PORT, HTTP = 15443, 5432, 8080
SERVER = Path(__file__).parent / "mesh_web.py"
GATEWAY = {f"{GROUP}/gateway-name": "abroad"}
WEB_SERVER = {"command": [sys.executable, str(SERVER), "api"]}


def gateway_at(address: str) -> list[dict[str, Any]]:
    """A Gateway for other trust domains, at one address of the uplink's network."""
    return [
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumLoadBalancerIPPool",
            "metadata": {"name": "wire"},
            "spec": {"blocks": [{"start": address, "stop": address}]},
        },
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "sixfold"},
            "spec": {"controllerName": "sixfold.dev/gateway"},
        },
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "Gateway",
            "metadata": {"name": "abroad", "namespace": "edge"},
            "spec": {
                "gatewayClassName": "sixfold",
                "listeners": [
                    {
                        "name": "tunnels",
                        "port": DOOR,
                        "protocol": "HBONE",
                        "allowedRoutes": {"namespaces": {"from": "All"}},
                    }
                ],
            },
        },
    ]


def told_abroad(name: str, host: str, port: int) -> dict[str, Any]:
    """A service of ours, by the name that others know it by."""
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "TLSRoute",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "parentRefs": [{"name": "abroad", "namespace": "edge"}],
            "hostnames": [host],
            "rules": [{"backendRefs": [{"name": name, "port": port}]}],
        },
    }


def from_abroad(name: str, host: str, at: str, *ids: str, **port: Any) -> list[dict[str, Any]]:
    """A service of theirs, as ours dial it."""
    return [
        service(name, namespace="edge", selector=GATEWAY, ports=[port or {"port": PORT}]),
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "BackendTLSPolicy",
            "metadata": {"name": name, "namespace": "edge"},
            "spec": {
                "targetRefs": [{"group": "", "kind": "Service", "name": name}],
                "validation": {
                    "hostname": host,
                    "wellKnownCACertificates": "sixfold.dev/federated",
                    "subjectAltNames": [{"type": "URI", "uri": one} for one in ids],
                },
                "options": {"sixfold.dev/endpoints": at},
            },
        },
    ]


def allowed(*principals: str) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "db"}},
            "rules": [
                {
                    "from": [{"source": {"principals": list(principals)}}],
                    "to": [{"operation": {"ports": [str(PORT)]}}],
                }
            ],
        },
    }


def may_ask(*principals: str, **operation: Any) -> dict[str, Any]:
    """What these may ask of ``api``."""
    rule = {
        "from": [{"source": {"principals": list(principals)}}],
        "to": [{"operation": {"ports": [str(HTTP)], **operation}}],
    }
    found = allowed()
    found["metadata"]["name"] = "api"
    found["spec"]["rules"] = [rule]
    return found


def by_gateway(*ports: int) -> dict[str, Any]:
    peers = [{"namespaceSelector": {}, **labelled(**GATEWAY)}]
    return {"from": peers, "ports": [{"port": port} for port in ports]}


def half(domain: str, at: str, other: str, there: str, host: str) -> list[dict[str, Any]]:
    """All that one of the two hosts is told.

    at, there  of the Gateways, here and at the other host
    host       of the other, as the uplink sees it
    """
    return [
        *gateway_at(at),
        pod("web", serviceAccountName="web"),
        pod("db", serviceAccountName="db", container=WEB_SERVER),
        service("db", ports=[{"port": PORT}]),
        service("api", selector={"app": "db"}, ports=[{"port": 80, "targetPort": HTTP}]),
        told_abroad("db", f"db.{domain}", PORT),
        told_abroad("api", f"api.{domain}", 80),
        *from_abroad(
            *("api-there", f"api.{other}", f"{there}:{DOOR}"),
            f"spiffe://{other}/ns/default/sa/db",
            port=80,
            appProtocol="http",
        ),
        *from_abroad(
            "db-there", f"db.{other}", f"{there}:{DOOR}", f"spiffe://{other}/ns/default/sa/db"
        ),
        policy("web", {"app": "web"}, **OPEN),
        policy("db", {"app": "db"}, policyTypes=["Ingress"], ingress=[by_gateway(PORT, HTTP)]),
        policy(
            "abroad",
            GATEWAY,
            namespace="edge",
            policyTypes=["Ingress", "Egress"],
            ingress=[
                {"from": [block(f"{host}/32")], "ports": [{"port": DOOR}]},
                {"from": [{"namespaceSelector": {}, **labelled(app="web")}]},
            ],
            egress=[
                {"to": [block(f"{there}/32")], "ports": [{"port": DOOR}]},
                {"to": [{"namespaceSelector": {}, **labelled(app="db")}]},
            ],
        ),
    ]


class Side:
    """One of the two hosts, and what its flow log has from now on."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.host = Place(system.host, "", "")
        self._api = Client(system.paths.api_socket)
        self.from_now_on()

    def from_now_on(self) -> None:
        """What was told before is not looked at."""
        self._since = datetime.now(UTC)

    @cached_property
    def db(self) -> Place:
        return place_of(self.system, "default/db")

    @cached_property
    def web(self) -> Place:
        return place_of(self.system, "default/web")

    def apply(self, *objects: dict[str, Any]) -> None:
        self._api.post("/v1/apply", {"objects": list(objects), "sources": []})

    def delete(self, one: dict[str, Any]) -> None:
        meta = one["metadata"]
        key = {"kind": one["kind"], "name": meta["name"], "namespace": meta.get("namespace", "")}
        self._api.post("/v1/delete", {"keys": [key]})

    def dial(self, name: str) -> socket.socket:
        """``web`` dials a service of the other trust domain."""
        (found,) = self._api.objects("Service", "edge", name)
        return self.web.dial(found["spec"]["clusterIP"], PORT)

    def ask(self, url: str, *options: str) -> tuple[str, dict[str, Any]]:
        """What curl in ``web`` is told: status, and what the server says that it was asked."""
        host = urlsplit(url).hostname or ""
        (found,) = self._api.objects("Service", "edge", host.partition(".")[0])
        there = ("--resolve", f"{host}:80:{found['spec']['clusterIP']}")
        curl = ("curl", "-s", "--max-time", "20", "-w", "\n%{http_code}", *there, *options, url)
        body, _, code = self.system.run_in(self.web.path, *curl).stdout.rpartition("\n")
        return code, json.loads(body) if body.startswith("{") else {}

    def explained(self, source: str, to: str, port: int = PORT, **asked: Any) -> tuple[bool, str]:
        question = {"from": source, "to": to, "port": port, "namespace": "default", **asked}
        answer = self._api.post("/v1/explain", question)
        return answer["allowed"], "\n".join(line["detail"] for line in answer["lines"])

    def told(self, *words: str) -> None:
        """A flow has all of these words; it may be a moment late."""
        since = {"since": self._since.isoformat().replace("+00:00", "Z")}

        seen: list[str] = []

        def there() -> bool:
            with self._api.stream("/v1/flows", since) as (_, lines):
                seen[:] = [line.decode() for line in lines]
            return any(all(word in line for word in words) for line in seen)

        try:
            self.system.eventually(there)
        except CommandError:
            raise AssertionError(f"no flow with {words} among\n{''.join(seen)}") from None


def cut(connection: socket.socket) -> bool:
    """Whether it ends; a test that waits in vain fails."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def knock(place: Place, address: str, shown: Path | None, host: str, authority: str) -> str:
    """Asks for a tunnel: ``200``, ``refused``, or ``closed`` before any answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if shown is not None:
        context.load_cert_chain(shown)
    block_ = _literal(b":method", b"CONNECT") + _literal(b":authority", authority.encode())
    headers = len(block_).to_bytes(3, "big") + b"\1\4" + (1).to_bytes(4, "big") + block_
    got = b""
    try:
        with context.wrap_socket(place.dial(address, DOOR), server_hostname=host) as tunnel:
            tunnel.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + headers)
            while b"\1\4\0\0\0\1" not in got and b"\1\5\0\0\0\1" not in got:
                if not (chunk := tunnel.recv(4096)):
                    return "closed"
                got += chunk
    except (ssl.SSLError, ConnectionError):
        return "closed"
    return "200" if b"\x88" in got else "refused"


def arrived(wire: socket.socket) -> Iterator[bytes]:
    """Frames that a device has seen."""
    wire.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            yield wire.recv(1 << 16)
