"""Requests through the mesh: routed, and judged where they arrive, by name of the rule."""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sixfold.cli.client import Client
from sixfold.model.mesh import DESTINATION, ORIGINAL_SOURCE_MARK, TUNNEL_PORT, TUNNEL_PROTOCOL
from sixfold.model.spiffe import SpiffeId
from sixfold.trust.authority import issue
from sixfold.trust.keyring_text import decode

from .conftest import System
from .places import Place, manifest, place_of, pod, policy, service

pytestmark = pytest.mark.root

SERVER = Path(__file__).parent / "mesh_web.py"
ID = "spiffe://cluster.local/ns/default/sa"
PORT = [{"port": "8080", "protocol": "TCP"}]
EDITS = 100
IP_TRANSPARENT = 19  # Linux; not in the socket module
# Where they are; the node is in eu/a.
PLACES = {"one": "eu/a", "near": "eu/a", "two": "eu/b", "flaky": "us/x"}
TOPOLOGY = "topology.kubernetes.io"


def web(name: str, *arguments: str) -> dict[str, Any]:
    region, _, zone = PLACES[name].partition("/")
    return pod(
        name,
        serviceAccountName=name,
        labels={
            **{"tier": "web", "of": "pair" if name in ("one", "two") else name},
            **{f"{TOPOLOGY}/region": region, f"{TOPOLOGY}/zone": zone},
        },
        container={
            "command": [sys.executable, str(SERVER), name, *arguments],
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        },
    )


def behind(name: str) -> dict[str, Any]:
    return service(name, ports=[{"port": 80, "targetPort": 8080}])


def pair(**annotations: str) -> dict[str, Any]:
    """The service of both."""
    found = service("pair", selector={"of": "pair"}, ports=behind("pair")["spec"]["ports"])
    found["metadata"]["annotations"] = {f"sixfold.dev/{k}": v for k, v in annotations.items()}
    return found


def everywhere(distribution: str = "", **annotations: str) -> dict[str, Any]:
    """The service of all four places."""
    found = service("everywhere", selector={"tier": "web"}, ports=behind("")["spec"]["ports"])
    found["metadata"]["annotations"] = {f"sixfold.dev/{k}": v for k, v in annotations.items()}
    if distribution:
        found["spec"]["trafficDistribution"] = distribution
    return found


def allowed(*requests: dict[str, Any]) -> dict[str, Any]:
    """What a client may ask of the web."""
    each = {"ports": PORT, **({"rules": {"http": list(requests)}} if requests else {})}
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "endpointSelector": {"matchLabels": {"tier": "web"}},
            "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "client"}}], "toPorts": [each]}],
        },
    }


def route(*rules: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "one"}],
            "rules": list(rules),
        },
    }


def carried(to_: str = "pair", **spec: Any) -> dict[str, Any]:
    """How requests to a service are carried."""
    return {
        "apiVersion": "sixfold.dev/v1",
        "kind": "TrafficPolicy",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"targetRefs": [{"kind": "Service", "name": to_}], **spec},
    }


def to(**weights: int) -> list[dict[str, Any]]:
    return [{"name": name, "port": 80, "weight": weight} for name, weight in weights.items()]


@dataclass
class Web:
    system: System
    client: Place
    stranger: Place
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def api(self) -> Client:
        return Client(self.system.paths.api_socket)

    def apply(self, *objects: dict[str, Any]) -> None:
        self.api.post("/v1/apply", {"objects": list(objects), "sources": []})

    def delete(self, *named: tuple[str, str]) -> None:
        keys = [{"kind": kind, "namespace": "default", "name": name} for kind, name in named]
        self.api.post("/v1/delete", {"keys": keys, "ignore_missing": True})

    def delete_route(self) -> None:
        self.delete(("HTTPRoute", "web"), ("TrafficPolicy", "web"))

    def connect(self, to_: str, port: int = 80, place: Place | None = None) -> Any:
        connection = http.client.HTTPConnection(self.addresses.get(to_, to_), port, timeout=10)
        (place or self.client).inside(connection.connect)
        return closing(connection)

    def ask(self, to_: str, path: str = "/", method: str = "GET", port: int = 80) -> Any:
        with self.connect(to_, port) as connection:
            return answered(connection, path, method)

    def flow(self, *arguments: str) -> dict[str, Any]:
        def last() -> list[dict[str, Any]]:
            return [
                one
                for one in self.system.flows("--from", "default/client", "--last", "500")
                if all(word in json.dumps(one) for word in arguments)
            ]

        found: dict[str, Any] = self.system.eventually(last, f"a flow with {arguments}")[-1]
        return found


def answered(connection: Any, path: str = "/", method: str = "GET", **headers: str) -> Any:
    connection.request(method, path, headers={n.replace("_", "-"): v for n, v in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    return answer.status, json.loads(body) if body.startswith(b"{") else body


@pytest.fixture(scope="module")
def mesh(module_system: System) -> Web:
    pods = [web("one"), web("two"), web("near"), web("flaky", "2")]
    pods += [pod(name, serviceAccountName=name) for name in ("client", "stranger")]
    out = [
        policy(f"{name}-out", {"app": name}, policyTypes=["Egress"], egress=[{}])
        for name in ("client", "stranger")
    ]
    services = [behind(name) for name in PLACES]
    services += [pair(), everywhere()]
    here = f"{TOPOLOGY}/region=eu,{TOPOLOGY}/zone=a"
    given = manifest(*pods, *out, *services, allowed())
    module_system.up("--mtls", "strict", "--node-labels", here, manifest=given)
    found = Web(
        module_system, *(place_of(module_system, f"default/{n}") for n in ("client", "stranger"))
    )
    for item in module_system.json("get", "svc")["items"]:
        found.addresses[item["metadata"]["name"]] = item["spec"]["clusterIP"]
    for name in PLACES:
        found.addresses[f"pod {name}"] = place_of(module_system, f"default/{name}").ipv4
    return found


@pytest.fixture(autouse=True)
def _as_it_was(mesh: Web) -> Iterator[None]:
    yield
    mesh.apply(allowed())
    mesh.delete_route()


def test_what_no_rule_is_about_is_not_looked_into(mesh: Web):
    assert mesh.ask("one", "/any", "POST")[0] == 200
    assert mesh.ask("pod one", "/any", port=8080)[1]["from"] == mesh.client.ipv4


def test_a_request_that_a_rule_allows_arrives_under_its_senders_address(mesh: Web):
    mesh.apply(allowed({"method": "GET", "path": "/items(/.*)?"}))
    status, said = mesh.ask("one", "/items/7?x=1")
    assert status == 200
    assert (said["path"], said["from"]) == ("/items/7?x=1", mesh.client.ipv4)
    assert f"URI={ID}/client" in said["headers"]["x-forwarded-client-cert"]
    assert not [name for name in said["headers"] if name.startswith("x-sixfold")]
    flow = mesh.flow("GET", "/items/7", "200")
    assert flow["verdict"] == "FORWARDED"
    assert flow["destination"]["pod_name"] == "one"
    assert flow["l4"]["TCP"]["destination_port"] == 8080
    assert flow["sixfold"]["source_id"] == f"{ID}/client"
    assert flow["sixfold"]["ingress_rule"]["text"].endswith("default/web ingress[0]")


def asked_of_the_proxy(mesh: Web, directory: Path, *protocols: str) -> bytes:
    """GET / in HTTP/2 by who has the client's SVID and address; the frames of the answer.

    Dialled within pod one, where packets are not judged, as the proxy dials processes.
    """
    keys = decode((mesh.system.paths.state / "authority.json").read_bytes()).authority
    me = SpiffeId("cluster.local", "/ns/default/sa/client")
    svid = issue(keys, me, datetime.now(UTC), timedelta(hours=1))
    path = directory / "svid.pem"
    path.write_bytes(svid.key_pem + svid.chain_pem)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(path)
    context.set_alpn_protocols(protocols)
    one = place_of(mesh.system, "default/one")
    # HPACK: GET, https, /, and two headers as they are.
    head = b"\x82\x87\x84" + b"".join(
        bytes([0, len(name), *name.encode(), len(value), *value.encode()])
        for name, value in ((":authority", "one"), (DESTINATION, f"{one.ipv4}:8080"))
    )
    settings = b"\0\0\0\4\0\0\0\0\0"
    asked = len(head).to_bytes(3, "big") + b"\1\5\0\0\0\1" + head

    def work() -> bytes:
        answer = b""
        raw = socket.socket()
        raw.settimeout(5)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, ORIGINAL_SOURCE_MARK)
        raw.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
        raw.bind((mesh.client.ipv4, 0))
        raw.connect((one.ipv4, TUNNEL_PORT))
        with context.wrap_socket(raw) as tls:
            tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + asked)
            while not any(end in answer for end in (b"denied", b'"held"')):
                answer += tls.recv(4096) or pytest.fail(f"closed after {answer!r}")
        return answer

    return one.inside(work)


def test_who_says_that_it_is_a_tunnel_may_ask_nothing(mesh: Web, tmp_path: Path):
    mesh.apply(allowed({"method": "GET"}))
    assert mesh.ask("one")[0] == 200
    assert b'"name": "one"' in asked_of_the_proxy(mesh, tmp_path, "h2")
    assert b"RBAC: access denied" in asked_of_the_proxy(mesh, tmp_path, "h2", TUNNEL_PROTOCOL)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/items"),
        ("GET", "/admin"),
        ("GET", "/items/../admin"),
        ("GET", "//admin"),
        ("GET", "/items%2f..%2fadmin"),
    ],
)
def test_a_request_that_no_rule_allows_never_arrives(mesh: Web, method: str, path: str):
    mesh.apply(allowed({"method": "GET", "path": "/items(/.*)?"}))
    status, body = mesh.ask("one", path, method)
    assert status in (400, 403)
    assert b"default/" not in (body if isinstance(body, bytes) else b"default/")
    if status == 403:
        flow = mesh.flow("DROPPED", '403"')
        assert flow["sixfold"]["source_id"] == f"{ID}/client"
        assert flow["sixfold"]["destination_id"] == f"{ID}/one"


def test_a_pods_own_address_is_no_way_around(mesh: Web):
    mesh.apply(allowed({"path": "/items"}))
    assert mesh.ask("pod one", "/admin", port=8080)[0] == 403
    assert mesh.ask("pod one", "/items", port=8080)[0] == 200


def test_what_is_not_http_does_not_pass_a_port_that_is_looked_into(mesh: Web):
    mesh.apply(allowed({"path": "/items"}))
    with mesh.connect("one") as connection:
        connection.sock.sendall(b"SSH-2.0-test\r\n\r\n")
        assert b"400" in connection.sock.recv(100)


def test_a_rule_that_arrives_judges_connections_that_are_open(mesh: Web):
    mesh.apply(allowed({"path": "/items|/more"}))
    with mesh.connect("one") as connection:
        assert answered(connection, "/more")[0] == 200
        mesh.apply(allowed({"path": "/items"}))
        assert answered(connection, "/more")[0] == 403
        assert answered(connection, "/items")[0] == 200


def test_explain_agrees_with_what_happens(mesh: Web):
    mesh.apply(allowed({"method": "GET", "path": "/items"}), route({"backendRefs": to(two=1)}))
    for path, status in (("/items", 200), ("/admin", 403)):
        done = mesh.system.sixfold("explain", "client", "one:80", "--path", path, check=False)
        assert mesh.ask("one", path)[0] == status
        assert done.returncode == (0 if status == 200 else 1)
        assert "→ default/two:80 (100 %)" in done.stdout


def test_a_canary_gets_its_share(mesh: Web):
    mesh.apply(route({"backendRefs": to(one=80, two=20)}))
    with mesh.connect("one") as connection:
        found = Counter(answered(connection)[1]["name"] for _ in range(200))
    assert set(found) == {"one", "two"}
    assert 10 <= found["two"] <= 80


def test_a_header_picks_the_backend(mesh: Web):
    wanted = {"headers": [{"name": "x-version", "value": "two"}]}
    mesh.apply(route({"matches": [wanted], "backendRefs": to(two=1)}, {"backendRefs": to(one=1)}))
    with mesh.connect("one") as connection:
        connection.request("GET", "/", headers={"X-Version": "two"})
        answer = connection.getresponse()
        assert json.loads(answer.read())["name"] == "two"
        assert answered(connection)[1]["name"] == "one"


def test_a_request_that_no_match_takes_is_answered_404(mesh: Web):
    match = {"path": {"type": "Exact", "value": "/only"}}
    mesh.apply(route({"matches": [match], "backendRefs": to(one=1)}))
    assert mesh.ask("one", "/only")[0] == 200
    assert mesh.ask("one", "/other")[0] == 404


def test_a_second_try_helps(mesh: Web):
    mesh.apply(route({"backendRefs": to(flaky=1)}))
    with mesh.connect("one") as connection:
        assert {answered(connection)[0] for _ in range(20)} == {200, 503}
    retry = {"codes": [503], "attempts": 2, "backoff": "1ms"}
    mesh.apply(route({"backendRefs": to(flaky=1), "retry": retry}))
    with mesh.connect("one") as connection:
        assert {answered(connection)[0] for _ in range(20)} == {200}
        assert {answered(connection, method="POST")[0] for _ in range(20)} == {200, 503}
        mesh.apply(carried("one", retry={"methods": ["POST"]}))  # it is not paid twice there
        assert {answered(connection, method="POST")[0] for _ in range(20)} == {200}


def test_a_route_has_its_status(mesh: Web):
    mesh.apply(route({"backendRefs": to(nobody=1)}))
    (item,) = mesh.system.json("get", "httproute")["items"]
    (parent,) = item["status"]["parents"]
    found = {one["type"]: (one["status"], one["reason"]) for one in parent["conditions"]}
    assert found == {
        "Accepted": ("True", "Accepted"),
        "ResolvedRefs": ("False", "BackendNotFound"),
    }
    assert mesh.ask("one")[0] == 500


def test_no_request_fails_while_routes_are_edited(mesh: Web):
    mesh.apply(route({"backendRefs": to(one=1)}))
    stop, seen = threading.Event(), Counter[int]()

    def load() -> None:
        while not stop.is_set():
            with mesh.connect("one") as connection:
                for _ in range(20):
                    seen[answered(connection)[0]] += 1

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for turn in range(EDITS):
            ways = ({"one": 3, "two": turn % 3}, {"two": 1}, {"pair": 1}, {"near": 1, "one": 2})
            mesh.apply(route({"backendRefs": to(**ways[turn % 4])}))
    finally:
        stop.set()
        thread.join()
    assert set(seen) == {200}
    assert seen[200] > 20


def test_a_service_that_is_no_longer_routed_serves_who_is_connected(mesh: Web):
    mesh.apply(route({"backendRefs": to(two=1)}))
    with mesh.connect("one") as connection:
        assert answered(connection)[1]["name"] == "two"
        mesh.delete_route()
        assert answered(connection)[1]["name"] == "one"
    assert mesh.ask("one")[1]["name"] == "one"


def test_a_stranger_gets_nowhere(mesh: Web):
    mesh.apply(allowed({}), route({"backendRefs": to(one=1)}))
    assert mesh.stranger.attempt(mesh.addresses["pod one"]) == "timeout"


def test_a_backend_that_fails_is_ejected_and_comes_back(mesh: Web):
    again = {"consecutiveErrors": 2, "interval": "100ms", "baseEjectionTime": "4s"}
    mesh.apply(carried(outlierDetection=again))
    mesh.ask("pod two", "/be/503", port=8080)
    with mesh.connect("pair") as connection:

        def answers() -> Counter[tuple[int, str]]:
            each = (answered(connection) for _ in range(20))
            return Counter((status, said["name"]) for status, said in each)

        mesh.system.eventually(lambda: set(answers()) == {(200, "one")}, "two ejected")
        mesh.ask("pod two", "/be/200", port=8080)
        everybody = {(200, "one"), (200, "two")}
        mesh.system.eventually(lambda: set(answers()) == everybody, "two back")


def test_requests_go_to_near_backends_and_elsewhere_as_far_as_those_are_ill(mesh: Web):
    """Each request by the proxy, over one connection, by a route and without one."""
    failover = everywhere(**{"lb-failover": "locality", "lb-failback-seconds": "0"})
    mesh.apply(failover, carried("everywhere"), route({"backendRefs": to(everywhere=1)}))
    with mesh.connect("everywhere") as straight, mesh.connect("one") as routed:

        def names() -> Counter[str]:
            turns = (straight, routed) * 25
            return Counter(answered(one)[1]["name"] for one in turns)

        def drain(name: str, *undo: str) -> None:
            mesh.system.sixfold("lb", "drain", name, *undo)

        assert set(names()) == {"one", "near"}
        drain("near")
        found = names()
        assert set(found) == {"one", "two"}
        assert found["two"] <= 35  # 30 of 100 spill over into the region
        drain("one")
        assert set(names()) == {"two"}
        drain("two")
        assert set(names()) == {"flaky"}
        for name in ("one", "near", "two"):
            drain(name, "--undo")
        assert set(names()) == {"one", "near"}
        # What only the proxy sees: answers. Requests go on to the region, and come back.
        again = {"consecutiveErrors": 2, "interval": "100ms", "baseEjectionTime": "2s"}
        mesh.apply(carried("everywhere", outlierDetection={**again, "maxEjectionPercent": 100}))
        for name in ("one", "near"):
            mesh.ask(f"pod {name}", "/be/503", port=8080)
        mesh.system.eventually(lambda: set(names()) == {"two"}, "both are ejected")
        for name in ("one", "near"):
            mesh.ask(f"pod {name}", "/be/200", port=8080)
        mesh.system.eventually(lambda: set(names()) == {"one", "near"}, "both are back")
        mesh.apply(everywhere("PreferSameZone"))
        assert set(names()) == {"one", "near"}
        mesh.apply(everywhere(), carried("everywhere"))
        assert set(names()) == PLACES.keys()


def sent(connection: Any, path: str, **headers: str) -> Any:
    connection.request("GET", path, headers=headers)
    return connection.sock


def held(mesh: Web, name: str) -> int:
    """How many a pod has at its /wait."""
    return int(mesh.ask(f"pod {name}", "/held", port=8080)[1]["held"])


def ready(sockets: list[Any], timeout_s: float = 0.0) -> set[Any]:
    """Those that have an answer."""
    return set(select.select(sockets, [], [], timeout_s)[0])


def test_more_requests_at_once_than_a_circuit_breaker_lets_are_answered_503(mesh: Web):
    mesh.apply(carried("one", circuitBreaker={"maxRequests": 2}))
    with ExitStack() as stack:
        connections = [stack.enter_context(mesh.connect("one")) for _ in range(5)]
        sockets = [sent(one, "/wait") for one in connections]
        mesh.system.eventually(lambda: len(ready(sockets)) == 3, "three are refused")

        def all_answered() -> bool:
            mesh.ask("pod one", "/go", port=8080)
            return len(ready(sockets)) == 5

        mesh.system.eventually(all_answered, "two go on")
        answers = [one.getresponse() for one in connections]
        assert Counter(one.status for one in answers) == {200: 2, 503: 3}
        assert all(one.read() for one in answers)
    flow = mesh.flow("/wait 503")
    assert flow["verdict"] == "ERROR"
    assert flow["sixfold"]["mesh"] == "circuit breaker: too many at once"
    assert flow["source"]["pod_name"] == "client"
    assert flow["destination_service"] == {"name": "one", "namespace": "default"}
    (item,) = mesh.system.json("get", "trafficpolicy")["items"]
    (ancestor,) = item["status"]["ancestors"]
    assert [one["reason"] for one in ancestor["conditions"]] == ["Accepted"]


def test_who_finds_no_connection_to_the_process_waits_and_too_many_are_answered_503(mesh: Web):
    mesh.apply(carried("one", circuitBreaker={"maxConnections": 1, "maxPendingRequests": 1}))
    with ExitStack() as stack:
        connections = [stack.enter_context(mesh.connect("one")) for _ in range(12)]
        sockets = [sent(connections[0], "/wait")]
        mesh.system.eventually(lambda: held(mesh, "one") == 1, "one is there")
        sockets += [sent(one, "/wait") for one in connections[1:]]
        # Each thread of the proxy has a connection in any case; one more request may wait.
        threads = len(os.sched_getaffinity(0))
        least, most = 12 - threads - 1, 12 - 2
        mesh.system.eventually(lambda: len(ready(sockets)) >= least, "too many are refused")

        def all_answered() -> bool:
            mesh.ask("pod one", "/go", port=8080)
            return len(ready(sockets)) == len(sockets)

        mesh.system.eventually(all_answered, "the others go on")
        answers = [one.getresponse() for one in connections]
        assert all(one.read() for one in answers)
    found = Counter(one.status for one in answers)
    assert least <= found[503] <= most
    assert found[200] == 12 - found[503]
    assert "overflow" in mesh.flow("/wait 503", "not answered by the workload")["sixfold"]["mesh"]


def test_least_requests_spares_who_is_busy_and_a_rotation_does_not(mesh: Web):
    got = {}
    for algorithm in ("round-robin", "least-connections"):
        mesh.apply(pair(**{"lb-algorithm": algorithm}), carried())
        with ExitStack() as stack:
            connections: list[Any] = []
            while held(mesh, "two") < 3:
                connections.append(stack.enter_context(mesh.connect("pair")))
                sent(connections[-1], "/wait/two")
                ready([connections[-1].sock], 0.1)
            with mesh.connect("pair") as another:
                got[algorithm] = Counter(answered(another)[1]["name"] for _ in range(100))["two"]
            mesh.ask("pod two", "/go", port=8080)
            assert {one.getresponse().read()[:1] for one in connections} == {b"{"}
    assert 45 <= got["round-robin"] <= 55
    assert got["least-connections"] <= 40  # it is looked at with the other in 3 of 4 draws


def test_what_is_hashed_or_of_one_session_stays_together_while_others_spread(mesh: Web):
    mesh.apply(pair(), carried(consistentHash={"header": "x-user"}))
    users = [f"user{number}" for number in range(20)]
    with mesh.connect("pair") as connection:
        chosen = [
            {user: answered(connection, x_user=user)[1]["name"] for user in users} for _ in range(3)
        ]
    assert chosen[0] == chosen[1] == chosen[2]
    assert set(chosen[0].values()) == {"one", "two"}
    for asked in (("lb", "list", "pair"), ("describe", "service", "pair")):
        assert "ring-hash on header x-user" in mesh.system.sixfold(*asked).stdout
    with mesh.connect("pair") as connection:
        mesh.system.sixfold("lb", "drain", "two")
        assert {answered(connection, x_user=user)[1]["name"] for user in users} == {"one"}
        mesh.system.sixfold("lb", "drain", "two", "--undo")
        again = {user: answered(connection, x_user=user)[1]["name"] for user in users}
    assert again == chosen[0]
    mesh.delete_route()
    mesh.apply(route({"backendRefs": to(pair=1), "sessionPersistence": {"sessionName": "basket"}}))
    with mesh.connect("one") as connection:
        connection.request("GET", "/")
        answer = connection.getresponse()
        first = json.loads(answer.read())["name"]
        cookie = answer.headers["set-cookie"].partition(";")[0]
        assert {answered(connection, cookie=cookie)[1]["name"] for _ in range(20)} == {first}
        assert {answered(connection)[1]["name"] for _ in range(40)} == {"one", "two"}


def test_each_identity_has_its_limit_and_a_fault_is_told(mesh: Web):
    everybody = allowed()
    everybody["spec"]["ingress"][0]["fromEndpoints"] = [{}]
    mesh.apply(everybody, carried(rateLimits=[{"requests": 3, "per": "1h"}]))
    for place in (mesh.client, mesh.stranger):
        with mesh.connect("pair", place=place) as connection:
            assert [answered(connection, "/much")[0] for _ in range(5)] == [200] * 3 + [429] * 2
    done = mesh.system.sixfold("explain", "client", "pair:80", "--path", "/much")
    assert "3 in 1h of each identity" in done.stdout
    assert "by TrafficPolicy default/web" in done.stdout
    flow = mesh.flow("/much 429")
    assert flow["sixfold"]["mesh"] == "rate limit: too many in this time"
    mesh.apply(carried(faultInjection={"abort": {"status": 418}}))
    assert mesh.ask("pair", "/fault")[0] == 418
    flow = mesh.flow("/fault 418")
    assert flow["sixfold"]["mesh"] == "fault: injected, as a policy says"
    assert flow["source"]["pod_name"] == "client"


def at(path: str, filters: dict[str, Any] | None = None, **rule: Any) -> dict[str, Any]:
    """A rule for what is below a path; to pod one, unless it says otherwise."""
    found: dict[str, Any] = {"matches": [{"path": {"type": "PathPrefix", "value": path}}], **rule}
    if filters is not None:
        found["filters"] = [filters]
    if filters is None or "requestRedirect" not in filters:
        found.setdefault("backendRefs", to(one=1))
    return found


def replaced(path: str) -> dict[str, Any]:
    return {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": path}}


MIRRORED = {"backendRef": {"name": "two", "port": 80}}
ORIGIN = {"origin": "https://a.example"}
ASKING = {**ORIGIN, "access_control_request_method": "PUT"}
TWO = {"numerator": 2, "denominator": 4}


def test_what_a_route_says_of_requests_is_what_happens_to_them(mesh: Web):
    cors = {"allowOrigins": ["https://a.example"], "allowMethods": ["PUT"], "maxAge": 7}
    mesh.apply(
        route(
            at("/old", {"type": "URLRewrite", "urlRewrite": replaced("/new")}),
            at("/old/exact", {"type": "RequestRedirect", "requestRedirect": replaced("/found")}),
            at("/cors", {"type": "CORS", "cors": cors}),
            at("/all", {"type": "RequestMirror", "requestMirror": MIRRORED}),
            at("/half", {"type": "RequestMirror", "requestMirror": {**MIRRORED, "percent": 50}}),
            at("/part", {"type": "RequestMirror", "requestMirror": {**MIRRORED, "fraction": TWO}}),
            at("/wait", timeouts={"request": "200ms"}),
            at(
                "/kept",
                backendRefs=to(pair=1),
                sessionPersistence={"type": "Header", "sessionName": "x-basket"},
            ),
        )
    )
    with mesh.connect("one") as connection:

        def asked(path: str, method: str = "GET", **headers: str) -> Any:
            given = {name.replace("_", "-"): text for name, text in headers.items()}
            connection.request(method, path, headers=given)
            answer = connection.getresponse()
            body = answer.read()
            said = json.loads(body) if body.startswith(b"{") else {}
            return answer.status, said, {name.lower(): it for name, it in answer.headers.items()}

        assert asked("/old/x?y=1")[1]["path"] == "/new/x?y=1"
        status, _, headers = asked("/old/exact/x")  # the longer prefix
        assert (status, headers["location"].partition("/found")[1:]) == (302, ("/found", "/x"))
        assert asked("/cors", **ORIGIN)[2]["access-control-allow-origin"] == ORIGIN["origin"]
        status, said, headers = asked("/cors", "OPTIONS", **ASKING)
        assert (status, said, headers["access-control-max-age"]) == (200, {}, "7")
        assert "access-control-allow-origin" not in asked("/cors", origin="https://b.example")[2]
        assert asked("/wait")[0] == 504
        mesh.ask("pod one", "/go", port=8080)
        first, said, headers = asked("/kept")
        basket = headers["x-basket"]
        assert first == 200
        assert {asked("/kept", x_basket=basket)[1]["name"] for _ in range(20)} == {said["name"]}
        assert {asked("/kept")[1]["name"] for _ in range(40)} == {"one", "two"}
        for path in ("/all", "/half", "/part"):
            assert {asked(path)[1]["name"] for _ in range(60)} == {"one"}

    def copies() -> dict[str, int]:
        found: dict[str, int] = mesh.ask("pod two", "/asked", port=8080)[1]["asked"]
        return found

    mesh.system.eventually(lambda: copies().get("/all") == 60, "all copies are there")
    assert 10 <= copies()["/half"] <= 50
    assert 10 <= copies()["/part"] <= 50


def test_too_many_second_tries_at_once_are_not_made(mesh: Web):
    """The budget, of those that are under way; whoever is beyond it gets what there is."""
    retry = {"codes": [503], "attempts": 2, "backoff": "1ms"}
    mesh.apply(
        route({"backendRefs": to(flaky=1), "retry": retry}),
        carried("flaky", circuitBreaker={"maxRetries": 0}),
    )
    with mesh.connect("one") as connection:
        assert {answered(connection)[0] for _ in range(20)} == {200, 503}
    mesh.apply(carried("flaky", retry={"budget": {"percent": 0, "minConcurrent": 0}}))
    with mesh.connect("one") as connection:
        assert {answered(connection)[0] for _ in range(20)} == {200, 503}
    mesh.apply(carried("flaky", retry={"budget": {"percent": 0, "minConcurrent": 1}}))
    with mesh.connect("one") as connection:
        assert {answered(connection)[0] for _ in range(20)} == {200}


def test_with_too_few_left_the_ejected_are_used_too(mesh: Web):
    again = {"consecutiveErrors": 2, "interval": "100ms", "baseEjectionTime": "60s"}
    mesh.apply(pair(**{"lb-panic-threshold": "60"}), carried(outlierDetection=again))
    mesh.ask("pod two", "/be/503", port=8080)
    with mesh.connect("pair") as connection:
        found = Counter(answered(connection)[0] for _ in range(60))
        assert found[503] >= 15
        mesh.apply(pair(**{"lb-panic-threshold": "50"}))
        mesh.system.eventually(
            lambda: {answered(connection)[0] for _ in range(20)} == {200}, "two is ejected"
        )
    mesh.ask("pod two", "/be/200", port=8080)
    mesh.apply(pair())
