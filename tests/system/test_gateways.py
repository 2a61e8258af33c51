"""Gateways: clients outside, through the node's proxy, to pods.

pods ─ host 192.0.2.1 ──(up0)── 192.0.2.2 far, which asks who has the addresses from 192.0.2.64 on.
"""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sixfold.cli.client import Client
from sixfold.host import netns
from sixfold.host.paths import NETNS_ROOT

from .conftest import System
from .places import Place, labelled, manifest, pod, policy, service

pytestmark = pytest.mark.root

GROUP = "gateway.networking.k8s.io"
SERVER = Path(__file__).parent / "mesh_web.py"
LINKS = """
link add up0 type veth peer name up1
link set up1 netns {far}
addr add 192.0.2.1/24 dev up0
addr add 2001:db8:1::1/64 dev up0 nodad
link set up0 up
"""
FAR_LINKS = """
addr add 192.0.2.2/24 dev up1
addr add 2001:db8:1::2/64 dev up1 nodad
link set up1 up
"""
POOL = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumLoadBalancerIPPool",
    "metadata": {"name": "link"},
    "spec": {
        "blocks": [{"start": "192.0.2.64", "stop": "192.0.2.79"}, {"cidr": "2001:db8:1::100/120"}]
    },
}
CLASS = {
    "apiVersion": f"{GROUP}/v1",
    "kind": "GatewayClass",
    "metadata": {"name": "sixfold"},
    "spec": {"controllerName": "sixfold.dev/gateway"},
}


def gateway(*listeners: dict[str, Any]) -> dict[str, Any]:
    everybody = {"allowedRoutes": {"namespaces": {"from": "All"}}}
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Gateway",
        "metadata": {"name": "front", "namespace": "edge"},
        "spec": {
            "gatewayClassName": "sixfold",
            "listeners": [{**everybody, **one} for one in listeners],
        },
    }


HTTP = {"name": "http", "port": 80, "protocol": "HTTP"}


def route(
    name: str, *rules: dict[str, Any], kind: str = "HTTPRoute", **spec: Any
) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "parentRefs": [{"name": "front", "namespace": "edge"}],
            "rules": list(rules),
            **spec,
        },
    }


def to(*names: str) -> dict[str, Any]:
    return {"backendRefs": [{"name": name, "port": 80} for name in names]}


def web(name: str) -> dict[str, Any]:
    return pod(
        name,
        serviceAccountName=name,
        container={
            "command": [sys.executable, str(SERVER), name],
            "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        },
    )


FRONT_ONLY = policy(
    "one",
    {"app": "one"},
    policyTypes=["Ingress"],
    ingress=[
        {"from": [{"namespaceSelector": {}, **labelled(**{f"{GROUP}/gateway-name": "front"})}]}
    ],
)


@dataclass
class Edge:
    system: System
    far: Place
    addresses: list[str] = field(default_factory=list)

    def apply(self, *objects: dict[str, Any]) -> None:
        api = Client(self.system.paths.api_socket)
        api.post("/v1/apply", {"objects": list(objects), "sources": []})

    @contextmanager
    def connected(self, address: str = "", port: int = 80) -> Iterator[Any]:
        connection = http.client.HTTPConnection(address or self.addresses[0], port, timeout=10)
        self.far.inside(connection.connect)
        with closing(connection):
            yield connection

    def ask(
        self, host: str, path: str = "/", method: str = "GET", address: str = "", **headers: str
    ) -> tuple[int, Any]:
        with self.connected(address) as connection:
            connection.request(method, path, headers={"Host": host, **headers})
            answer = connection.getresponse()
            body = answer.read()
            if 300 <= answer.status < 400:
                return answer.status, answer.headers["location"]
            return answer.status, json.loads(body) if body.startswith(b"{") else body


@pytest.fixture(scope="module")
def edge(module_system: System) -> Edge:
    system = module_system
    path = NETNS_ROOT / f"{system.paths.instance}-far"
    netns.create(path, lambda: None)
    system.extra.append(path)
    host, far = Place(system.host, "", ""), Place(path, "192.0.2.2", "2001:db8:1::2")
    for place, links in ((host, LINKS), (far, FAR_LINKS)):
        for line in links.format(far=path.name).strip().splitlines():
            place.run("ip", *line.split())
    system.up(
        *("--mtls", "strict"),
        manifest=manifest(
            POOL,
            CLASS,
            gateway(HTTP),
            route("shop", to("one"), hostnames=["shop.example.com"]),
            web("one"),
            service("one", ports=[{"port": 80, "targetPort": 8080}]),
            service("nobody", ports=[{"port": 80}]),
            policy("front", None, namespace="edge", policyTypes=["Egress"], egress=[{}]),
            policy("in", None, namespace="edge", policyTypes=["Ingress"], ingress=[{}]),
            FRONT_ONLY,
        ),
    )
    found = Edge(system, far)
    status = system.eventually(
        lambda: system.json("get", "gateway", "front", "-n", "edge")["status"], "a status"
    )
    found.addresses = [one["value"] for one in status["addresses"]]
    return found


def test_a_client_outside_reaches_a_pod_under_the_gateways_identity(edge: Edge):
    """Whatever it says of itself and of its way."""
    forged = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "Forwarded": "for=6.6.6.6",
        "X-Envoy-Original-Path": "/admin",
        "X-Sixfold-Destination": "10.0.0.1:1",
        "X-Forwarded-Client-Cert": "URI=spiffe://cluster.local/ns/a/sa/b",
    }
    for address in edge.addresses:
        status, said = edge.ask("shop.example.com", "/a/../b//c?x=1", address=address, **forged)
        assert (status, said["path"]) == (200, "/b/c?x=1")
        headers = said["headers"]
        seen = edge.far.ipv6 if ":" in address else edge.far.ipv4
        assert headers["x-forwarded-for"] == seen
        assert headers["x-forwarded-proto"] == "http"
        id_ = "spiffe://cluster.local/ns/edge/sa/front-sixfold"
        assert headers["x-forwarded-client-cert"].endswith(f"URI={id_}")
        assert not {"forwarded"} & headers.keys()
        assert not [one for one in headers if one.startswith(("x-envoy", "x-sixfold"))]
    flows = edge.system.flows("--from", "edge/front-sixfold", "--last", "5")
    assert [one["sixfold"]["source_id"] for one in flows][-1:] == [id_]


def test_requests_are_answered_as_the_specification_says(edge: Edge):
    away = {"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}
    edge.apply(
        route("lost", to("missing"), hostnames=["lost.example.com"]),
        route("idle", to("nobody"), hostnames=["idle.example.com"]),
        route("away", {"filters": [away]}, hostnames=["away.example.com"]),
    )
    assert edge.ask("other.example.com")[0] == 404
    assert edge.ask("lost.example.com")[0] == 500
    assert edge.ask("idle.example.com")[0] == 503
    assert edge.ask("away.example.com", "/x") == (301, "https://away.example.com/x")
    assert edge.ask("shop.example.com", "/items%2f..%2fadmin")[0] == 400
    found = edge.system.json("get", "gateway", "front", "-n", "edge")["status"]
    assert found["listeners"][0]["attachedRoutes"] == 4
    assert {one["type"]: one["status"] for one in found["conditions"]} == {
        "Accepted": "True",
        "Programmed": "True",
    }


def test_what_policy_denies_the_gateway_its_clients_are_denied(edge: Edge):
    nobody = policy("one", {"app": "one"}, policyTypes=["Ingress"], ingress=[])
    edge.apply(nobody)
    assert edge.ask("shop.example.com")[0] == 403
    (flow,) = edge.system.flows("--from", "edge/front-sixfold", "--verdict", "DROPPED")[-1:]
    assert flow["source"]["pod_name"] == "front-sixfold"
    assert flow["destination"]["pod_name"] == "one"
    edge.apply(FRONT_ONLY)
    assert edge.ask("shop.example.com")[0] == 200


def test_listeners_come_and_go_while_others_serve(edge: Edge):
    with edge.connected() as connection:
        connection.request("GET", "/", headers={"Host": "shop.example.com"})
        assert connection.getresponse().read()
        edge.apply(gateway(HTTP, {**HTTP, "name": "more", "port": 8080}))
        with edge.connected(port=8080) as other:
            other.request("GET", "/", headers={"Host": "shop.example.com:8080"})
            assert other.getresponse().status == 200
        connection.request("GET", "/", headers={"Host": "shop.example.com"})
        assert connection.getresponse().status == 200
    edge.apply(gateway(HTTP))
    assert edge.far.attempt(edge.addresses[0], 8080) != "open"
    keys = [{"kind": "Gateway", "namespace": "edge", "name": "front"}]
    Client(edge.system.paths.api_socket).post("/v1/delete", {"keys": keys, "wait": True})

    def gone() -> bool:
        return not any(
            edge.system.json("get", kind, "-n", "edge")["items"] for kind in ("svc", "po")
        )

    edge.system.eventually(gone, "what was made for the gateway is gone")
