"""Services whose backends are no pods of ours, on real traffic: slices that somebody wrote.

pod ─ host 192.0.2.1 ── 192.0.2.2 world, which is 198.51.100.0/24 and 2001:db8:2::/64 as a whole
"""

from __future__ import annotations

import json
import selectors
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import dns.message
import dns.rcode
import pytest

from sixfold.host import netns
from sixfold.host.paths import NETNS_ROOT

from .conftest import System
from .places import FAMILIES, WAIT_S, Place, manifest, places_of, pod, policy, service
from .test_fqdn import HOST_LINKS, RESOLVER, WORLD_LINKS, Upstream, cnp

pytestmark = pytest.mark.root

PODS = ("client", "keeper", "inside", "surfer")
EAST = {4: ("198.51.100.1", "198.51.100.2"), 6: ("2001:db8:2::1", "2001:db8:2::2")}
ANOTHER = "198.51.100.9"  # of the world, and of no service
PORT = 5432
DGRAM = socket.SOCK_DGRAM
IPV6_FREEBIND = 78


def outside(name: str, **spec: Any) -> dict[str, Any]:
    """A service without selector, whose backends are called in turn."""
    ports = [{"name": "sql", "port": PORT, "targetPort": 1}]  # the slices say where
    made = service(name, ports=ports, **{**spec, "selector": {}})
    made["metadata"]["annotations"] = {"sixfold.dev/lb-algorithm": "round-robin"}
    return made


def endpoints(
    name: str, of: str, *addresses: str, port: int = 8080, annotations: Any = None, **each: Any
) -> dict[str, Any]:
    """A slice with one port "sql"; ``each`` is said of every endpoint."""
    labels = {"kubernetes.io/service-name": of}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": labels, "annotations": annotations or {}},
        "addressType": "IPv6" if ":" in addresses[0] else "IPv4",
        "endpoints": [{"addresses": [address], **each} for address in addresses],
        "ports": [{"name": "sql", "port": port}],
    }


def to_services(name: str, app: str, *services: str) -> dict[str, Any]:
    peers = [{"k8sService": {"serviceName": one, "namespace": "default"}} for one in services]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": app}},
            "egress": [{"toServices": peers}],
        },
    }


def alias(name: str, target: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"type": "ExternalName", "externalName": target},
    }


MANIFEST = manifest(
    *map(pod, PODS),
    outside("db"),
    *(endpoints(f"db-{version}", "db", *EAST[version]) for version in EAST),
    outside("headless", clusterIP="None"),
    endpoints("h-1", "headless", EAST[4][0], hostname="one"),
    endpoints("h-2", "headless", EAST[4][1], conditions={"ready": False}),
    endpoints("h-6", "headless", EAST[6][0], hostname="one"),
    to_services("keeper", "keeper", "db"),
    alias("api", "api.example.org"),
    alias("shop", "db.default.svc.cluster.local"),
    cnp("surfer", "surfer", {"matchName": "api.example.org"}),
    policy("inside", {"app": "inside"}, policyTypes=["Ingress"]),
)


@dataclass(frozen=True)
class Land:
    """The instance, its pods, the world, and the addresses of services."""

    system: System
    world: Place
    host: Place
    pods: dict[str, Place]
    upstream: Upstream

    @property
    def client(self) -> Place:
        return self.pods["client"]

    def vip(self, name: str, version: int = 4) -> str:
        spec = self.system.json("get", "svc", name)["spec"]
        return next(it for it in spec["clusterIPs"] if (":" in it) == (version == 6))

    @contextmanager
    def serving(
        self, *addresses: str, place: Place | None = None, port: int = 8080
    ) -> Iterator[dict[str, socket.socket]]:
        """Servers at these addresses."""
        with ExitStack() as stack:
            found = {}
            for address in addresses:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                sock = (place or self.world).make_socket(family, socket.SOCK_STREAM)
                stack.enter_context(sock)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if ":" in address:
                    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
                sock.bind((address, port))
                sock.listen(64)
                found[address] = sock
            yield found

    def reached(
        self, vip: str, servers: dict[str, socket.socket], count: int = 1, who: str = "client"
    ) -> Counter[str]:
        """Which of the servers a pod's connections to a service arrive at."""
        found: Counter[str] = Counter()
        for _ in range(count):
            with self.pods[who].dial(vip, PORT) as sock:
                address, connection, _ = accepted(servers)
                connection.close()
                assert sock.getpeername()[:2] == (vip, PORT)
            found[address] += 1
        return found

    def answer(self, name: str, type_: str = "A", who: str = "client") -> list[str]:
        """What a pod is answered, sorted; the rcode's name when it is an error."""
        with closing(self.pods[who].make_socket(socket.AF_INET, DGRAM)) as sock:
            sock.sendto(dns.message.make_query(name, type_).to_wire(), (RESOLVER, 53))
            reply = dns.message.from_wire(sock.recv(4096))
        if reply.rcode() != dns.rcode.NOERROR:
            return [dns.rcode.to_text(reply.rcode())]
        return sorted(item.to_text() for rrset in reply.answer for item in rrset)

    def explain(self, *arguments: str) -> dict[str, str]:
        """The lines of an explanation by pattern."""
        done = self.system.sixfold("explain", *arguments, "-o", "json", check=False)
        lines = json.loads(done.stdout)["lines"]
        return {line["pattern"]: f"{line['outcome']} {line['detail']}" for line in lines}


def accepted(servers: dict[str, socket.socket]) -> tuple[str, socket.socket, str]:
    """Who was called: its address, the connection, the caller's address."""
    with selectors.DefaultSelector() as selector:
        for address, server in servers.items():
            selector.register(server, selectors.EVENT_READ, address)
        found = selector.select(WAIT_S)
    assert found, "nobody is called"
    connection, (source, *_) = found[0][0].fileobj.accept()  # type: ignore[union-attr]
    return found[0][0].data, connection, source


@pytest.fixture(scope="module")
def land(module_system: System) -> Iterator[Land]:
    system = module_system
    path = NETNS_ROOT / f"{system.paths.instance}-world"
    netns.create(path, lambda: None)
    system.extra.append(path)
    world = Place(path, "192.0.2.2", "2001:db8:1::2")
    host = Place(system.host, "10.244.0.1", "fd00:5f:244::1")
    for place, links in ((host, HOST_LINKS), (world, WORLD_LINKS)):
        for line in links.format(world=path.name).strip().splitlines():
            place.run("ip", *line.split())
    upstream, stop = Upstream(world), threading.Event()
    sockets = [world.make_socket(socket.AF_INET, kind) for kind in (DGRAM, socket.SOCK_STREAM)]
    for sock in sockets:
        sock.bind(("192.0.2.2", 53))
    sockets[1].listen(16)
    serving = threading.Thread(target=upstream.serve, args=(*sockets, stop))
    serving.start()
    try:
        system.up("--posture", "kubernetes", "--dns-upstream", "192.0.2.2", manifest=MANIFEST)
        pods = dict(zip(PODS, places_of(system, *PODS), strict=True))
        yield Land(system, world, host, pods, upstream)
    finally:
        stop.set()
        serving.join()
        for sock in sockets:
            sock.close()


@FAMILIES
def test_a_service_without_selector_reaches_the_endpoints_that_were_written(
    land: Land, version: int
):
    vip = land.vip("db", version)
    with land.serving(*EAST[version]) as servers:
        assert land.reached(vip, servers, 2).keys() == set(EAST[version])
        with land.client.dial(vip, PORT):
            _, connection, source = accepted(servers)
            connection.close()
    assert source == {4: "192.0.2.1", 6: "2001:db8:1::1"}[version]  # masqueraded
    flow = land.system.flows("--from", "default/client", "--port", "8080", "--last", "1")[0]
    assert flow["destination_service"]["name"] == "db"
    assert flow["IP"]["destination"] in EAST[version]


@FAMILIES
def test_policy_judges_the_backends_address_and_knows_the_service_by_to_services(
    land: Land, version: int
):
    with land.serving(*EAST[version]) as servers:
        land.reached(land.vip("db", version), servers, who="keeper")
    assert land.pods["keeper"].attempt(ANOTHER) == "timeout"
    flow = land.system.flows("--from", "default/keeper", "--verdict", "DROPPED", "--last", "1")[0]
    assert flow["IP"]["destination"] == ANOTHER
    land.system.apply(manifest(endpoints("more", "db", ANOTHER)))
    with land.serving(ANOTHER) as servers, land.pods["keeper"].dial(ANOTHER):
        accepted(servers)[1].close()
    land.system.sixfold("delete", "endpointslice", "more")
    assert land.pods["keeper"].attempt(ANOTHER) == "timeout"


def test_a_headless_service_names_what_was_written_for_it_and_is_ready(land: Land):
    name = "headless.default.svc.cluster.local"
    assert land.answer(name) == [EAST[4][0]]
    assert land.answer(name, "AAAA") == [EAST[6][0]]
    assert land.answer(f"one.{name}") == [EAST[4][0]]
    assert land.answer(f"_sql._tcp.{name}", "SRV") == [f"0 100 8080 one.{name}."]
    assert land.answer(f"two.{name}") == ["NXDOMAIN"]


def test_conditions_weights_and_ports_of_slices_count(land: Land):
    one, two, three, four = (f"198.51.100.{number}" for number in range(11, 15))
    busy = {"sixfold.dev/lb-weight": "3"}
    off = {"sixfold.dev/lb-weight": "0"}
    ending = {"ready": False, "serving": True, "terminating": True}
    land.system.apply(
        manifest(
            outside("many"),
            endpoints("many-1", "many", one, annotations=busy),
            endpoints("many-2", "many", two, port=8081),
            endpoints("many-3", "many", three, annotations=off),
            endpoints("many-4", "many", four, conditions=ending),
        )
    )
    vip = land.vip("many")
    with land.serving(one) as first, land.serving(two, port=8081) as second:
        assert land.reached(vip, {**first, **second}, 8) == {one: 6, two: 2}
    rows = land.system.sixfold("lb", "list", "many").stdout
    assert "default/EndpointSlice/many-3" in rows
    assert "maintenance" in rows
    assert "terminating" in rows
    land.system.sixfold("delete", "eps", "many-1", "many-2", "many-3")
    with land.serving(four) as servers:  # nobody else is left
        assert land.reached(vip, servers).keys() == {four}
    land.system.sixfold("delete", "eps", "many-4")
    assert land.client.attempt(vip, PORT) == "ECONNREFUSED"
    assert "no EndpointSlice names it" in land.explain("client", f"many:{PORT}")["balancing"]


def test_endpoints_may_be_the_host_and_pods_and_policy_knows_them_as_such(land: Land):
    inside = land.pods["inside"]
    land.system.apply(
        manifest(
            outside("mixed"),
            endpoints("mixed-host", "mixed", land.host.ipv4),
            endpoints("mixed-pod", "mixed", inside.ipv4, targetRef={"name": "a lie"}),
        )
    )
    vip = land.vip("mixed")
    with land.serving(land.host.ipv4, place=land.host) as servers, inside.listen():
        outcomes = Counter(land.client.attempt(vip, PORT) for _ in range(2))
        assert outcomes == {"open": 1, "timeout": 1}  # the pod lets nobody in
        accepted(servers)[1].close()
    said = land.explain("client", f"mixed:{PORT}")
    assert "default/inside" in said["policy ingress"]
    land.system.sixfold("delete", "eps", "mixed-pod")
    assert "host" in land.explain("client", f"mixed:{PORT}")["balancing"]
    land.system.sixfold("delete", "svc", "mixed")


def test_people_see_who_is_behind_a_service_and_why(land: Land):
    said = land.explain("keeper", f"db:{PORT}")
    assert "default/EndpointSlice/db-4 (198.51.100.1):8080" in said["balancing"]
    assert said["policy egress"].startswith("FORWARDED")
    assert "masqueraded" in said["routing"]
    text = land.system.sixfold("describe", "svc", "db").stdout
    assert "198.51.100.1 port 8080" in text
    listed = land.system.sixfold("get", "endpointslices").stdout
    assert "198.51.100.1,198.51.100.2" in listed


def test_a_slice_that_dials_a_service_is_refused(land: Land):
    done = land.system.sixfold(
        *("apply", "-f", "-"),
        stdin=manifest(endpoints("loop", "db", land.vip("db"))),
        check=False,
    )
    assert done.returncode != 0
    assert "endpoints[0].addresses[0]" in done.stderr
    assert "in the range of services" in done.stderr


def test_an_alias_is_answered_with_what_it_leads_to(land: Land):
    name = "api.default.svc.cluster.local"
    land.upstream.set("api.example.org", "198.51.100.30", "2001:db8:2::30")
    assert land.answer(name) == ["198.51.100.30", "api.example.org."]
    assert land.answer(name, "AAAA") == ["2001:db8:2::30", "api.example.org."]
    assert land.answer(name, "CNAME") == ["api.example.org."]
    found = land.system.json("get", "svc", "api")["spec"]
    assert "clusterIP" not in found
    assert land.answer("shop.default.svc.cluster.local") == sorted(
        ["db.default.svc.cluster.local.", land.vip("db")]
    )
    row = land.system.sixfold("get", "svc", "api", "--no-headers").stdout.split()
    assert row[:5] == ["api", "ExternalName", "<none>", "api.example.org", "<none>"]
    land.upstream.records.clear()
    land.system.apply(manifest(alias("gone", "gone.example.org")))
    assert land.answer("gone.default.svc.cluster.local") == ["NXDOMAIN"]


def test_policy_about_the_name_behind_an_alias_opens_what_it_resolves_to(land: Land):
    land.upstream.set("api.example.org", "198.51.100.31")
    with land.serving("198.51.100.31") as servers:
        assert land.pods["surfer"].attempt("198.51.100.31") == "timeout"
        land.answer("api.default.svc.cluster.local", who="surfer")
        with land.pods["surfer"].dial("198.51.100.31"):
            accepted(servers)[1].close()
    said = land.explain("surfer", "api:8080")
    assert "api is service default/api, an alias of api.example.org" in said["discovery"]
    assert said["policy egress"].startswith("FORWARDED")
    text = land.system.sixfold("resolve", "api", "--as", "surfer").stdout
    assert "upstream is asked for api.example.org" in text


def test_a_service_becomes_an_alias_and_a_service_again(land: Land):
    land.system.apply(manifest(outside("turn"), endpoints("turn", "turn", EAST[4][0])))
    before = land.vip("turn")
    land.system.apply(manifest(alias("turn", "api.example.org")))
    assert land.answer("turn.default.svc.cluster.local", "CNAME") == ["api.example.org."]
    assert land.client.attempt(before, PORT) != "open"
    land.system.apply(manifest(outside("turn")))
    with land.serving(EAST[4][0]) as servers:
        land.reached(land.vip("turn"), servers)
