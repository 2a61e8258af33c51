"""A real Envoy on loopback, with our routes and backends that say what reached them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
from envoy.config.route.v3 import route_components_pb2 as components
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from google.protobuf import json_format

from sixfold.mesh.http_filters import filters_of_host, http_filters
from sixfold.mesh.http_routes import cluster_of, routes_of
from sixfold.mesh.routes import ServicePort
from sixfold.mesh.traffic import Traffic, plan_requests
from sixfold.model.config import Config
from sixfold.model.httproute import GRPCRoute, HTTPRoute
from sixfold.model.referencegrant import ReferenceGrant
from sixfold.model.service import Service
from sixfold.model.trafficpolicy import TrafficPolicy
from sixfold.model.world import World

ENVOY = Path(sys.executable).with_name("envoy")


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def seen(self) -> dict[str, Any]:
        """What the backend says that it was asked."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def by(self) -> str:
        return str(self.seen["backend"])


@dataclass
class Backend:
    """Answers with what it was asked; ``script``: statuses of its next answers, 0 hangs up."""

    name: str
    script: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    pause_s: float = 0.0

    def serve(self) -> ThreadingHTTPServer:
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                backend.asked.append(f"{self.command} {self.path}")
                time.sleep(backend.pause_s)
                status = backend.script.pop(0) if backend.script else 200
                if not status:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = json.dumps(
                    {"backend": backend.name, "path": self.path, "headers": headers}
                ).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-Backend", backend.name)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = answer

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


def route(rules: Sequence[dict[str, Any]], name: str = "r", namespace: str = "shop", **spec: Any):
    """An HTTPRoute of service shop/web."""
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": namespace, **spec.pop("metadata", {})},
            "spec": {
                "parentRefs": [
                    {"group": "", "kind": "Service", "name": "web", "namespace": "shop"}
                ],
                "rules": list(rules),
                **spec,
            },
        },
        HTTPRoute,
    )


def service(name: str, namespace: str = "shop", **spec: Any) -> Service:
    ports = [{"port": 80}, {"port": 81, "name": "other"}]
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": "10.96.0.9", "ports": ports, **spec},
        },
        Service,
    )


def world(
    *routes: HTTPRoute | GRPCRoute,
    services: Sequence[Service] = (),
    grants: Sequence[ReferenceGrant] = (),
    traffic: Sequence[TrafficPolicy] = (),
) -> World:
    known = [service(name) for name in ("web", "a", "b", "c")]
    return World(
        config=Config(mtls="strict"),
        services={
            f"{one.metadata.namespace}/{one.metadata.name}": one for one in (*known, *services)
        },
        routes={f"{one.kind} {one.metadata.namespace}/{one.metadata.name}": one for one in routes},
        traffic={f"{one.metadata.namespace}/{one.metadata.name}": one for one in traffic},
        grants={f"{one.metadata.namespace}/{one.metadata.name}": one for one in grants},
    )


@dataclass
class Proxy:
    """One virtual host for each case; ``backends`` by service name."""

    port: int
    backends: dict[str, Backend]

    def ask(
        self,
        case: str,
        path: str = "/",
        method: str = "GET",
        headers: dict[str, str] | None = None,
        timeout_s: float = 10.0,
    ) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method, path, headers={"Host": case, **(headers or {})})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()


@contextmanager
def proxy(directory: Path, cases: dict[str, World], namespace: str = "shop") -> Iterator[Proxy]:
    """Envoy with the ways of shop/web's port 80 in each of these worlds."""
    backends = {name: Backend(name) for name in ("web", "a", "b", "c")}
    servers = {name: backend.serve() for name, backend in backends.items()}
    hosts = []
    for case, one in cases.items():
        routed = plan_requests(one, Traffic(one))
        ways = routed[ServicePort("shop/web", 80)].for_clients_of(namespace) or ()
        filters = filters_of_host(ways)
        host = {"name": case, "domains": [case], "routes": routes_of(ways)}
        hosts.append({**host, "typed_per_filter_config": filters})
    table = [
        json_format.MessageToDict(components.VirtualHost(**host), preserving_proto_field_name=True)
        for host in hosts
    ]
    clusters = [
        _cluster(cluster_of(ServicePort(f"shop/{name}", 80)), server.server_port)
        for name, server in servers.items()
    ]
    path = directory / "envoy.json"
    addresses = directory / "admin"
    path.write_text(json.dumps(_bootstrap(table, clusters)))
    log = directory / "envoy.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                *(ENVOY, "-c", path, "--admin-address-path", addresses),
                *("--concurrency", "1", "--disable-hot-restart"),
            ],
            stderr=output,
            stdout=output,
        )
    try:
        deadline = time.monotonic() + 20
        port = 0
        while not port:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.05)
            port = _listener(addresses)
        yield Proxy(port, backends)
    finally:
        process.kill()
        process.wait()
        for server in servers.values():
            server.shutdown()
            server.server_close()


def _listener(addresses: Path) -> int:
    """The port of the listener, once there is one."""
    try:
        host, _, port = addresses.read_text().partition(":")
        connection = HTTPConnection(host, int(port), timeout=5)
        connection.request("GET", "/listeners?format=json")
        found = json.loads(connection.getresponse().read())
        connection.close()
        return int(found["listener_statuses"][0]["local_address"]["socket_address"]["port_value"])
    except (OSError, ValueError, LookupError):
        return 0


def _cluster(name: str, port: int) -> dict[str, Any]:
    place = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": place}]}],
        },
    }


def _bootstrap(hosts: list[dict[str, Any]], clusters: list[dict[str, Any]]) -> dict[str, Any]:
    at = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{at}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "normalize_path": True,
        "merge_slashes": True,
        "route_config": {"name": "cases", "virtual_hosts": hosts, "validate_clusters": False},
        "http_filters": json_format.MessageToDict(
            hcm.HttpConnectionManager(http_filters=http_filters()), preserving_proto_field_name=True
        )["http_filters"],
    }
    listener = {
        "name": "http",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": manager,
                    }
                ]
            }
        ],
    }
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }
