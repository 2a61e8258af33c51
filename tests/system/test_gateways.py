"""Gateways: clients outside, through the node's proxy, to pods.

pods ─ host 192.0.2.1 ──(up0)── 192.0.2.2 far, which asks who has the addresses from 192.0.2.64 on.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from sixfold.cli.client import Client
from sixfold.host import netns
from sixfold.host.paths import NETNS_ROOT

from .certificates import Authority
from .conftest import System
from .places import Place, labelled, manifest, place_of, pod, policy, service

pytestmark = pytest.mark.root

GROUP = "gateway.networking.k8s.io"
SERVER = Path(__file__).parent / "mesh_web.py"
ALL = SERVER.with_name("mesh_server.py")
GRPC = """
import sys, grpc
trusted = grpc.ssl_channel_credentials(open(sys.argv[2], "rb").read())
with grpc.secure_channel(f"{sys.argv[1]}:443", trusted, [
    ("grpc.ssl_target_name_override", sys.argv[3]), ("grpc.default_authority", sys.argv[3]),
]) as channel:
    print(channel.unary_unary("/Echo/Unary")(b"one", timeout=20).decode())
    print(*(x.decode() for x in channel.unary_stream("/Echo/Stream")(b"s", timeout=20)))
"""
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


def https(name: str, host: str, secret: str, **reference: str) -> dict[str, Any]:
    tls = {"certificateRefs": [{"name": secret, **reference}]}
    return {"name": name, "port": 443, "protocol": "HTTPS", "hostname": host, "tls": tls}


def secret(name: str, namespace: str, data: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": "kubernetes.io/tls",
        "stringData": data,
    }


def grant(namespace: str, from_: tuple[str, str, str], to_: tuple[str, str]) -> dict[str, Any]:
    """Who (group, kind, namespace) may refer to what (group, kind) of a namespace."""
    who = dict(zip(("group", "kind", "namespace"), from_, strict=True))
    return {
        "apiVersion": f"{GROUP}/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": from_[1].lower(), "namespace": namespace},
        "spec": {"from": [who], "to": [dict(zip(("group", "kind"), to_, strict=True))]},
    }


AUTHORITY = Authority()
SHOP = "shop.example.com"
HTTP = {"name": "http", "port": 80, "protocol": "HTTP"}
HTTPS = https("https", SHOP, "shop")


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


READY = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}


def web(name: str) -> dict[str, Any]:
    return pod(
        name,
        serviceAccountName=name,
        container={
            "command": [sys.executable, str(SERVER), name],
            "readinessProbe": READY,
        },
    )


FRONT = {"namespaceSelector": {}, **labelled(**{f"{GROUP}/gateway-name": "front"})}


def front_only(name: str, *others: dict[str, Any]) -> dict[str, Any]:
    peers = [FRONT, *others]
    return policy(name, {"app": name}, policyTypes=["Ingress"], ingress=[{"from": peers}])


@dataclass
class Edge:
    system: System
    far: Place
    addresses: list[str] = field(default_factory=list)

    def apply(self, *objects: dict[str, Any]) -> None:
        api = Client(self.system.paths.api_socket)
        api.post("/v1/apply", {"objects": list(objects), "sources": []})

    def explained(self, host: str) -> str:
        """What a request of a client outside comes to."""
        to_ = f"{self.addresses[0]}:80"
        asked = ("explain", self.far.ipv4, to_, "--host", host, "--path", "/x")
        return self.system.sixfold(*asked, check=False).stdout

    def told(self, option: str, value: str, *words: str) -> None:
        """Among the last flows is one with all of these words."""

        def there() -> bool:
            flows = self.system.flows(option, value, "--last", "50")
            return any(all(word in json.dumps(one) for word in words) for one in flows)

        self.system.eventually(there, f"a flow with {words}")

    def secure(
        self, name: str, address: str = "", *protocols: str, trusted: str = AUTHORITY.pem
    ) -> ssl.SSLSocket:
        """A connection in TLS that names a host."""
        context = ssl.create_default_context(cadata=trusted)
        context.set_alpn_protocols([*protocols] or ["http/1.1"])
        raw = self.far.dial(address or self.addresses[0], 443)
        return context.wrap_socket(raw, server_hostname=name)

    def ask_securely(self, name: str, host: str = "", path: str = "/") -> tuple[int, Any]:
        with closing(http.client.HTTPConnection(host or name)) as connection:
            connection.sock = self.secure(name)
            return answered(connection, host or name, path)

    @contextmanager
    def connected(self, address: str = "", port: int = 80) -> Iterator[Any]:
        connection = http.client.HTTPConnection(address or self.addresses[0], port, timeout=10)
        self.far.inside(connection.connect)
        with closing(connection):
            yield connection

    @staticmethod
    def upgrade(connection: Any) -> Any:
        """Make a WebSocket of it; what it is read by."""
        connection.sock.sendall(
            b"GET /ws HTTP/1.1\r\nHost: sockets.example.com\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGVzdA==\r\n\r\n"
        )
        reader = connection.sock.makefile("rb")
        assert b"101" in reader.readline()
        while reader.readline().strip():
            pass
        return reader

    def ask(
        self, host: str, path: str = "/", method: str = "GET", address: str = "", **headers: str
    ) -> tuple[int, Any]:
        with self.connected(address) as connection:
            return answered(connection, host, path, method, **headers)


def answered(
    connection: Any, host: str, path: str = "/", method: str = "GET", **headers: str
) -> tuple[int, Any]:
    connection.request(method, path, headers={"Host": host, **headers})
    answer = connection.getresponse()
    body = answer.read()
    if 300 <= answer.status < 400:
        return answer.status, answer.headers["location"]
    return answer.status, json.loads(body) if body.startswith(b"{") else body


@pytest.fixture(scope="module")
def edge(module_system: System, tmp_path_factory: pytest.TempPathFactory) -> Edge:
    system = module_system
    own = tmp_path_factory.mktemp("all") / "own.pem"  # the backend's
    own.write_text("".join(AUTHORITY.issue("safe.example.com").values()))
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
            gateway(HTTP, HTTPS, https("calls", "calls.example.com", "calls")),
            secret("shop", "edge", AUTHORITY.issue(SHOP)),
            secret("calls", "edge", AUTHORITY.issue("calls.example.com")),
            route("shop", to("one"), hostnames=[SHOP]),
            route("calls", to("calls"), kind="GRPCRoute", hostnames=["calls.example.com"]),
            route("sockets", to("sockets"), hostnames=["sockets.example.com"]),
            web("one"),
            pod(
                "all",
                container={
                    "command": [sys.executable, str(ALL), str(own)],
                    "readinessProbe": READY,
                },
            ),
            service("safe", selector={"app": "all"}, ports=[{"port": 80, "targetPort": 8443}]),
            service("echo", selector={"app": "all"}, ports=[{"port": 80, "targetPort": 4444}]),
            service("one", ports=[{"port": 80, "targetPort": 8080}]),
            service("calls", selector={"app": "all"}, ports=[{"port": 80, "targetPort": 7777}]),
            service("sockets", selector={"app": "all"}, ports=[{"port": 80, "targetPort": 8080}]),
            service("nobody", ports=[{"port": 80}]),
            policy("front", None, namespace="edge", policyTypes=["Egress"], egress=[{}]),
            policy("in", None, namespace="edge", policyTypes=["Ingress"], ingress=[{}]),
            front_only("one"),
            front_only("all"),
            pod("client", serviceAccountName="client"),
            policy("client", {"app": "client"}, policyTypes=["Egress"], egress=[{}]),
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
    edge.told("--from", "edge/front-sixfold", id_)
    edge.told("--to", "edge/front-sixfold", edge.far.ipv6, f"GET {SHOP}/b/c?x=1 200")
    explained = edge.explained(SHOP)
    assert "default/shop rules[0].matches[0] → default/one:80 (100 %)" in explained
    assert "default/one allowed by default/one ingress[0]" in explained
    assert "no route of nobody.example.com (404)" in edge.explained("nobody.example.com")


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
    assert found["listeners"][0]["attachedRoutes"] == 6
    assert {one["type"]: one["status"] for one in found["conditions"]} == {
        "Accepted": "True",
        "Programmed": "True",
    }


def test_tls_ends_at_the_gateway_by_the_name_that_a_client_asks_for(edge: Edge, tmp_path: Path):
    status, said = edge.ask_securely(SHOP, path="/x")
    assert (status, said["headers"]["x-forwarded-proto"]) == (200, "https")
    assert edge.ask_securely(SHOP, "calls.example.com")[0] == 421  # that is another listener's
    assert edge.ask_securely(SHOP, "nobody.example.com")[0] == 404
    with pytest.raises((ssl.SSLError, ConnectionError)):
        edge.secure("nobody.example.com")
    with edge.secure(SHOP, edge.addresses[1], "h2", "http/1.1") as sock:
        assert (sock.version(), sock.selected_alpn_protocol()) == ("TLSv1.3", "h2")
    (tmp_path / "ca").write_text(AUTHORITY.pem)
    argv = (edge.addresses[0], str(tmp_path / "ca"), "calls.example.com")
    done = edge.system.run_in(edge.far.path, sys.executable, "-c", GRPC, *argv)
    assert done.stdout.split() == ["one", "s0", "s1", "s2"], done.stderr
    with edge.connected() as connection:
        reader = edge.upgrade(connection)
        connection.sock.sendall(bytes((0x81, 0x85, 0, 0, 0, 0)) + b"hello")
        assert reader.read(7) == bytes((0x81, 5)) + b"hello"


def at_front(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    """One of Istio's policies, about the Gateway."""
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "edge"},
        "spec": {"targetRefs": [{"group": GROUP, "kind": "Gateway", "name": "front"}], **spec},
    }


def test_policies_about_a_gateway_judge_clients_outside_and_what_they_have_open(edge: Edge):
    key = ec.generate_private_key(ec.SECP256R1())
    claims = {"iss": "https://issuer.example.com", "sub": "hiker", "team": "camp"}
    public = {**json.loads(ECAlgorithm.to_jwk(key.public_key())), "kid": "k", "alg": "ES256"}
    rule = {"issuer": claims["iss"], "jwks": json.dumps({"keys": [public]})}
    good, forged = (
        {"Authorization": f"Bearer {jwt.encode(claims, by, 'ES256', {'kid': 'k'})}"}
        for by in (key, ec.generate_private_key(ec.SECP256R1()))
    )
    only = {"key": "request.auth.claims[team]", "values": ["camp"]}
    deny = "AuthorizationPolicy edge/deny rules[0]"
    edge.apply(
        at_front("RequestAuthentication", "tokens", jwtRules=[rule]),
        at_front(
            "AuthorizationPolicy",
            "allow",
            rules=[{"when": [only]}, {"to": [{"operation": {"paths": ["/ws"]}}]}],
        ),
        at_front(
            "AuthorizationPolicy",
            "deny",
            action="DENY",
            rules=[{"to": [{"operation": {"paths": ["/secret"], "ports": ["80"]}}]}],
        ),
    )
    assert edge.ask(SHOP, "/x") == (403, b"RBAC: access denied")
    edge.told("--to", "edge/front-sixfold", "DROPPED", f"{SHOP}/x 403", "edge/allow)")
    assert edge.ask(SHOP, "/x", **forged)[0] == 401
    edge.told("--to", "edge/front-sixfold", "DROPPED", f"{SHOP}/x 401", "edge/tokens)")
    assert edge.ask(SHOP, "/x", **good)[0] == 200
    assert edge.ask(SHOP, "/secret", **good)[0] == 403
    edge.told("--to", "edge/front-sixfold", "DROPPED", f"{SHOP}/secret 403", deny)
    assert "denied by default-deny (AuthorizationPolicy edge/allow) (403)" in edge.explained(SHOP)
    with edge.connected() as connection:
        edge.upgrade(connection)
        others = [{"to": [{"operation": {"paths": ["/ws"]}}]}]
        edge.apply(at_front("AuthorizationPolicy", "deny", action="DENY", rules=others))
        with suppress(ConnectionResetError):
            assert connection.sock.recv(100) == b""
    edge.told("--to", "edge/front-sixfold", "DROPPED", "/ws 101", '"connection": "cut"', deny)
    for kind, name in (
        ("RequestAuthentication", "tokens"),
        ("AuthorizationPolicy", "allow"),
        ("AuthorizationPolicy", "deny"),
    ):
        named = {"kind": kind, "namespace": "edge", "name": name}
        Client(edge.system.paths.api_socket).post("/v1/delete", {"keys": [named]})
    assert edge.ask(SHOP, "/x")[0] == 200


def test_connections_that_nobody_reads_go_by_name_or_port_and_policy_judges_them(edge: Edge):
    """TLS that ends at the pod, TLS that ends here, TCP; each backend picked by the kernel."""
    passed = {"name": "passed", "port": 443, "protocol": "TLS", "hostname": "*.example.com"}
    ended = {**https("ended", "echo.example.com", "echo"), "protocol": "TLS"}
    plain = {"name": "plain", "port": 4444, "protocol": "TCP"}
    safe = route("safe", to("safe"), kind="TLSRoute", hostnames=["safe.example.com"])
    edge.apply(
        gateway(HTTP, HTTPS, {**passed, "tls": {"mode": "Passthrough"}}, ended, plain),
        secret("echo", "edge", AUTHORITY.issue("echo.example.com")),
        safe,
        route("ended", to("echo"), kind="TLSRoute", hostnames=["echo.example.com"]),
        route("plain", to("echo"), kind="TCPRoute"),
    )
    assert edge.ask_securely("safe.example.com")[1] == b"request 1 of this connection"
    assert edge.ask_securely(SHOP)[0] == 200  # the more specific listener
    with pytest.raises((ssl.SSLError, ConnectionError)):
        edge.secure("nobody.example.com")
    for sock in (edge.secure("echo.example.com"), edge.far.dial(edge.addresses[0], 4444)):
        with sock:
            sock.sendall(b"hello")
            assert sock.recv(100) == b"hello"
    edge.told("--port", "4444", "sa/front-sixfold", "FORWARDED")
    assert edge.system.json("get", "tlsroute", "safe")["status"]["parents"][0]["conditions"]
    edge.apply(policy("all", {"app": "all"}, policyTypes=["Ingress"], ingress=[]))
    with edge.far.dial(edge.addresses[0], 4444, timeout_s=1) as sock:
        sock.sendall(b"hello")
        with pytest.raises(TimeoutError):
            sock.recv(100)
    edge.told("--from", "edge/front-sixfold", "DROPPED", '"pod_name": "all"')
    edge.apply(front_only("all"))


def test_connections_of_pods_to_a_service_take_the_way_that_a_route_says(edge: Edge):
    """By shares, though the one that is open stays where it is; requests are another route's."""
    client = place_of(edge.system, "default/client")
    parent = {"parentRefs": [{"group": "", "kind": "Service", "name": "one"}]}
    address = edge.system.json("get", "svc", "one")["spec"]["clusterIP"]
    edge.apply(*(front_only(name, labelled(app="client")) for name in ("one", "all")))

    def echoes(sock: Any) -> bool:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return bool(sock.recv(100).startswith(b"GET /"))

    with client.dial(address, 80) as sock:
        assert not echoes(sock)
    edge.apply(route("east", to("echo"), kind="TCPRoute", **parent))
    with client.dial(address, 80) as sock:
        assert echoes(sock)
        done = edge.system.sixfold("explain", "client", "one:80")
        assert "route           ok" in done.stdout
        assert "default/east → default/echo:80 (100 %)" in done.stdout
        half = {"backendRefs": [{"name": name, "port": 80} for name in ("one", "echo")]}
        edge.apply(route("east", half, kind="TCPRoute", **parent))
        seen = set()
        for _ in range(40):
            with client.dial(address, 80) as other:
                seen.add(echoes(other))
        assert seen == {True, False}
        assert echoes(sock)
    edge.told("--port", "4444", "sa/client", "FORWARDED")
    key = {"kind": "TCPRoute", "namespace": "default", "name": "east"}
    Client(edge.system.paths.api_socket).post("/v1/delete", {"keys": [key]})
    with client.dial(address, 80) as sock:
        assert not echoes(sock)
    edge.apply(front_only("one"), front_only("all"))


def test_connections_of_pods_to_a_service_go_by_the_name_in_their_handshake(edge: Edge):
    """A TLSRoute: the application's own TLS, unread; who names nothing of the route is closed."""
    client = place_of(edge.system, "default/client")
    parent = {"group": "", "kind": "Service", "name": "one", "port": 80}
    address = edge.system.json("get", "svc", "one")["spec"]["clusterIP"]
    edge.apply(*(front_only(name, labelled(app="client")) for name in ("one", "all")))

    def named(name: str, *to_: dict[str, Any], **spec: Any) -> dict[str, Any]:
        given = {"parentRefs": [parent], "hostnames": [f"{name}.example.com"], **spec}
        return route(name.replace("*", "any"), *to_, kind="TLSRoute", **given)

    def shown(name: str) -> Any:
        """Of who answers, the certificate; or what becomes of it."""
        context = ssl.create_default_context(cadata=AUTHORITY.pem)
        host = f"{name}.example.com"
        with (
            suppress(ConnectionError, ssl.SSLError),
            client.dial(address, 80) as raw,
            context.wrap_socket(raw, server_hostname=host) as sock,
        ):
            return sock.getpeercert()["subjectAltName"]
        return "closed"

    def explained(host: str) -> str:
        asked = "explain", "client", "one:80", "--host", f"{host}.example.com"
        return edge.system.sixfold(*asked, check=False).stdout

    edge.apply(named("safe", to("safe")), named("*", to("echo")))
    assert shown("safe") == (("DNS", "safe.example.com"),)
    assert "SNI safe.example.com: default/safe → default/safe:80 (100 %)" in explained("safe")
    assert "SNI a.b.example.com: default/any → default/echo:80 (100 %)" in explained("a.b")
    edge.told("--port", "8443", "sa/client", "FORWARDED")
    half = {"backendRefs": [*to("missing")["backendRefs"], *to("safe")["backendRefs"]]}
    edge.apply(named("safe", half))
    assert {str(shown("safe")) for _ in range(20)} >= {"closed", "(('DNS', 'safe.example.com'),)"}
    edge.told("--from", "client", "sni", "its route default/safe has a backend that is none")
    elsewhere = [{"group": "", "kind": "Service", "name": "nobody"}]
    edge.apply(named("safe", to("safe")), named("*", to("echo"), parentRefs=elsewhere))
    assert shown("safe") == (("DNS", "safe.example.com"),)
    assert shown("other") == "closed"
    with client.dial(address, 80) as raw:
        raw.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with suppress(ConnectionResetError):
            assert raw.recv(100) == b""
    for sni in ("other.example.com", "none"):
        edge.told("--from", "client", f'"sni": "{sni}"', "no TLSRoute of default/one:80 has this")
    assert "no TLSRoute of default/one:80 has this name" in explained("other")
    stream = {"kind": "TCPRoute", "parentRefs": [parent]}
    edge.apply(route("east", to("echo"), **stream))
    item = edge.system.json("get", "tcproute", "east")["status"]["parents"][0]
    assert item["conditions"][0]["reason"] == "Conflicted"
    named_by = [("TLSRoute", "safe"), ("TLSRoute", "any"), ("TCPRoute", "east")]
    keys = [{"kind": kind, "namespace": "default", "name": it} for kind, it in named_by]
    Client(edge.system.paths.api_socket).post("/v1/delete", {"keys": keys})
    with client.dial(address, 80) as raw:
        raw.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.")
    edge.apply(front_only("one"), front_only("all"))


def test_a_backend_that_speaks_tls_is_spoken_to_in_tls_and_looked_at(edge: Edge):
    def trusted(host: str) -> dict[str, Any]:
        return {
            "apiVersion": f"{GROUP}/v1",
            "kind": "BackendTLSPolicy",
            "metadata": {"name": "safe", "namespace": "default"},
            "spec": {
                "targetRefs": [{"kind": "Service", "name": "safe"}],
                "validation": {"hostname": host, "caCertificateRefs": [{"name": "trusted"}]},
            },
        }

    def accepted() -> str:
        (entry,) = edge.system.json("get", "backendtlspolicy", "safe")["status"]["ancestors"]
        return str(entry["conditions"][0]["reason"])

    edge.apply(route("tls", to("safe"), hostnames=["tls.example.com"]), trusted("safe.example.com"))
    assert (edge.ask("tls.example.com")[0], accepted()) == (502, "NoValidCACertificate")
    kept = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"ca.crt": AUTHORITY.pem}}
    edge.apply({**kept, "metadata": {"name": "trusted", "namespace": "default"}})
    assert accepted() == "Accepted"
    assert edge.ask("tls.example.com") == (200, b"request 1 of this connection")
    edge.apply(trusted("other.example.com"))
    assert edge.ask("tls.example.com")[0] == 503


def test_a_certificate_of_another_namespace_needs_a_grant_and_is_replaced_under_load(edge: Edge):
    listeners = HTTP, https("https", SHOP, "shop", namespace="safe")
    edge.apply(gateway(*listeners), secret("shop", "safe", AUTHORITY.issue(SHOP)))

    def said() -> str:
        item = edge.system.json("get", "gateway", "front", "-n", "edge")
        found = {one["type"]: one for one in item["status"]["listeners"][1]["conditions"]}
        return str(found["ResolvedRefs"]["reason"])

    assert said() == "RefNotPermitted"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        edge.ask_securely(SHOP)
    edge.apply(grant("safe", (GROUP, "Gateway", "edge"), ("", "Secret")))
    assert said() == "ResolvedRefs"
    stop, seen, serials = threading.Event(), Counter[int](), set[str]()

    def load() -> None:
        while not stop.is_set():
            with closing(http.client.HTTPConnection(SHOP)) as connection:
                connection.sock = edge.secure(SHOP)
                serials.add(connection.sock.getpeercert()["serialNumber"])
                for _ in range(5):
                    seen[answered(connection, SHOP)[0]] += 1

    def seen_more_than(turn: int) -> bool:
        return len(serials) > turn

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for turn in range(10):
            edge.apply(secret("shop", "safe", AUTHORITY.issue(SHOP)))
            edge.system.eventually(partial(seen_more_than, turn), "a handshake with the new one")
    finally:
        stop.set()
        thread.join()
    assert set(seen) == {200}
    assert len(serials) >= 10
    shown = edge.system.sixfold("describe", "secret", "shop", "-n", "safe").stdout
    assert "tls.key: 2" in shown
    assert "PRIVATE" not in shown
    mode = (edge.system.paths.state / "state.db").stat().st_mode
    assert mode & 0o777 == 0o600


def test_a_limit_of_a_route_counts_clients_outside_by_their_addresses(edge: Edge):
    limit = {
        "apiVersion": "sixfold.dev/v1",
        "kind": "TrafficPolicy",
        "metadata": {"name": "limited", "namespace": "default"},
        "spec": {
            "targetRefs": [{"group": GROUP, "kind": "HTTPRoute", "name": "limited"}],
            "rateLimits": [{"requests": 2, "per": "1h"}],
        },
    }
    edge.apply(route("limited", to("one"), hostnames=["limited.example.com"]), limit)
    for address in edge.addresses:
        found = [edge.ask("limited.example.com", address=address)[0] for _ in range(4)]
        assert found == [200, 200, 429, 429]
    assert edge.ask(SHOP)[0] == 200
    assert "2 in 1h of each identity" in edge.explained("limited.example.com")


def test_what_policy_denies_the_gateway_its_clients_are_denied(edge: Edge):
    nobody = policy("one", {"app": "one"}, policyTypes=["Ingress"], ingress=[])
    edge.apply(nobody)
    assert edge.ask("shop.example.com")[0] == 403
    assert "ingress of default/one denied by default-deny (default/one)" in edge.explained(SHOP)
    edge.told("--from", "edge/front-sixfold", "DROPPED", '"pod_name": "one"', "sa/front-sixfold")
    edge.apply(front_only("one"))
    assert edge.ask("shop.example.com")[0] == 200


def test_a_set_of_listeners_is_served_where_its_gateway_lets_it_in(edge: Edge):
    """At ports of its own, too, and with certificates of its own namespace."""
    host = "team.example.com"
    parent = {"name": "front", "namespace": "edge"}
    own = {"name": "web", "port": 80, "protocol": "HTTP", "hostname": host}
    listeners = [
        own,
        {**own, "name": "more", "port": 8081},
        https("safe", host, "team"),
        {"name": "taken", "port": 80, "protocol": "HTTP"},
    ]
    one = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ListenerSet",
        "metadata": {"name": "team", "namespace": "default"},
        "spec": {"parentRef": parent, "listeners": listeners},
    }
    attached = {"parentRefs": [{"group": GROUP, "kind": "ListenerSet", "name": "team"}]}
    edge.apply(
        one,
        secret("team", "default", AUTHORITY.issue(host)),
        route("team", to("one"), **attached),
    )

    def said(kind: str = "listenerset", name: str = "team", namespace: str = "default") -> Any:
        return edge.system.json("get", kind, name, "-n", namespace)["status"]

    assert said()["conditions"][0]["reason"] == "NotAllowed"
    assert edge.ask(host)[0] == 404
    lets_in = gateway(HTTP, HTTPS)
    lets_in["spec"]["allowedListeners"] = {"namespaces": {"from": "All"}}
    edge.apply(lets_in)
    assert edge.ask(host)[0] == 200
    assert edge.ask_securely(host)[0] == 200
    with edge.connected(port=8081) as connection:
        assert answered(connection, host)[0] == 200
    status = said()
    found = {it["name"]: {at["type"]: at for at in it["conditions"]} for it in status["listeners"]}
    assert found["taken"]["Conflicted"]["reason"] == "HostnameConflict"
    assert found["web"]["Programmed"]["status"] == "True"
    assert [it["attachedRoutes"] for it in status["listeners"]] == [1, 1, 1, 0]
    assert said("gateway", "front", "edge")["attachedListenerSets"] == 1
    assert "default/team rules[0].matches[0] → default/one:80" in edge.explained(host)
    edge.apply(gateway(HTTP, HTTPS))
    assert edge.ask(host)[0] == 404
    assert edge.far.attempt(edge.addresses[0], 8081) != "open"


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
