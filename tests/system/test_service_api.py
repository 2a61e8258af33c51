"""Services whose backends are no pods of ours, on real traffic: slices that somebody wrote.

pod ─ host 192.0.2.1 ── 192.0.2.2 world, which is 198.51.100.0/24 and 2001:db8:2::/64 as a whole
"""

from __future__ import annotations

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

from sixfold.cli.client import Client
from sixfold.host import netns
from sixfold.host.paths import NETNS_ROOT

from .conftest import System
from .places import FAMILIES, WAIT_S, Place, manifest, places_of, pod, policy, service
from .test_fqdn import RESOLVER, cnp
from .upstream import HOST_LINKS, WORLD_LINKS, Upstream

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
    alias("pay", "pay.example.org"),
    cnp("surfer", "surfer", {"matchName": "pay.example.org"}),
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

    @property
    def api(self) -> Client:
        return Client(self.system.paths.api_socket)

    def apply(self, *objects: dict[str, Any]) -> None:
        """As ``sixfold apply`` does, without starting a program each time."""
        for one in objects:
            one["metadata"].setdefault("namespace", "default")
        self.api.post("/v1/apply", {"objects": objects})

    def delete_slices(self, *names: str) -> None:
        keys = [{"kind": "EndpointSlice", "namespace": "default", "name": name} for name in names]
        self.api.post("/v1/delete", {"keys": keys})

    def vip(self, name: str, version: int = 4) -> str:
        spec = self.api.objects("Service", "default", name)[0]["spec"]
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

    def frontends(self, name: str) -> list[dict[str, Any]]:
        asked = {"namespace": "default", "service": name}
        found: list[dict[str, Any]] = self.api.get("/v1/balancing", asked)["frontends"]
        return found

    def explain(self, source: str, destination: str, port: int = PORT) -> dict[str, str]:
        """The lines of an explanation by pattern."""
        question = {"from": source, "to": destination, "port": port}
        lines = self.api.post("/v1/explain", question)["lines"]
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
        options = ("--posture", "kubernetes", "--dns-upstream", "192.0.2.2")
        topology = "topology.kubernetes.io"
        labels = f"{topology}/region=eu,{topology}/zone=a"
        system.up(*options, "--node-labels", labels, manifest=MANIFEST)
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
    land.apply(endpoints("more", "db", ANOTHER))
    with land.serving(ANOTHER) as servers, land.pods["keeper"].dial(ANOTHER):
        accepted(servers)[1].close()
    land.delete_slices("more")
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
    land.apply(
        outside("many"),
        endpoints("many-1", "many", one, annotations=busy),
        endpoints("many-2", "many", two, port=8081),
        endpoints("many-3", "many", three, annotations=off),
        endpoints("many-4", "many", four, conditions=ending),
    )
    vip = land.vip("many")
    with land.serving(one) as first, land.serving(two, port=8081) as second:
        assert land.reached(vip, {**first, **second}, 8) == {one: 6, two: 2}
    rows = land.system.sixfold("lb", "list", "many").stdout
    assert "default/EndpointSlice/many-3" in rows
    assert "maintenance" in rows
    assert "terminating" in rows
    land.delete_slices("many-1", "many-2", "many-3")
    with land.serving(four) as servers:  # nobody else is left
        assert land.reached(vip, servers).keys() == {four}
    land.delete_slices("many-4")
    assert land.client.answer(vip, PORT) == "ECONNREFUSED"
    assert "no EndpointSlice names it" in land.explain("client", "many")["balancing"]


def test_endpoints_may_be_the_host_and_pods_and_policy_knows_them_as_such(land: Land):
    inside = land.pods["inside"]
    land.apply(
        outside("mixed"),
        endpoints("mixed-host", "mixed", land.host.ipv4),
        endpoints("mixed-pod", "mixed", inside.ipv4, targetRef={"name": "a lie"}),
    )
    vip = land.vip("mixed")
    with land.serving(land.host.ipv4, place=land.host) as servers, inside.listen():
        outcomes = Counter(land.client.attempt(vip, PORT) for _ in range(2))
        assert outcomes == {"open": 1, "timeout": 1}  # the pod lets nobody in
        accepted(servers)[1].close()
    said = land.explain("client", "mixed")
    assert "default/inside" in said["policy ingress"]
    land.delete_slices("mixed-pod")
    assert "host" in land.explain("client", "mixed")["balancing"]


def test_people_see_who_is_behind_a_service_and_why(land: Land):
    said = land.explain("keeper", "db")
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
    found = land.api.objects("Service", "default", "api")[0]["spec"]
    assert "clusterIP" not in found
    assert land.answer("shop.default.svc.cluster.local") == sorted(
        ["db.default.svc.cluster.local.", land.vip("db")]
    )
    row = land.system.sixfold("get", "svc", "api", "--no-headers").stdout.split()
    assert row[:5] == ["api", "ExternalName", "<none>", "api.example.org", "<none>"]
    land.upstream.records.clear()
    land.apply(alias("gone", "gone.example.org"))
    assert land.answer("gone.default.svc.cluster.local") == ["NXDOMAIN"]


def test_policy_about_the_name_behind_an_alias_opens_what_it_resolves_to(land: Land):
    land.upstream.set("pay.example.org", "198.51.100.31")
    with land.serving("198.51.100.31") as servers:
        assert land.pods["surfer"].attempt("198.51.100.31") == "timeout"
        land.answer("pay.default.svc.cluster.local", who="surfer")
        with land.pods["surfer"].dial("198.51.100.31"):
            accepted(servers)[1].close()
    said = land.explain("surfer", "pay", 8080)
    assert "pay is service default/pay, an alias of pay.example.org" in said["discovery"]
    assert said["policy egress"].startswith("FORWARDED")
    text = land.system.sixfold("resolve", "pay", "--as", "surfer").stdout
    assert "upstream is asked for pay.example.org" in text


def test_a_service_becomes_an_alias_and_a_service_again(land: Land):
    land.apply(outside("turn"), endpoints("turn", "turn", EAST[4][0]))
    before = land.vip("turn")
    land.apply(alias("turn", "api.example.org"))
    assert land.answer("turn.default.svc.cluster.local", "CNAME") == ["api.example.org."]
    assert land.client.attempt(before, PORT) != "open"
    land.apply(outside("turn"))
    with land.serving(EAST[4][0]) as servers:
        land.reached(land.vip("turn"), servers)


def place(name: str, of: str, region: str, zone: str, *addresses: str, **each: Any) -> Any:
    """A slice of endpoints in one zone of a region."""
    made = endpoints(name, of, *addresses, zone=zone, **each)
    made["metadata"]["labels"]["topology.kubernetes.io/region"] = region
    return made


def cities(*, failback_s: int) -> dict[str, Any]:
    """A service whose places stand in for each other."""
    made = outside("cities")
    made["metadata"]["annotations"] |= {
        "sixfold.dev/lb-failover": "locality",
        "sixfold.dev/lb-failback-seconds": str(failback_s),
    }
    return made


NEAR, FAR = ("198.51.100.41", "198.51.100.42"), ("198.51.100.51", "198.51.100.52")
DOWN = {"conditions": {"ready": False}}


def near(*addresses: str, **each: Any) -> Any:
    return place("near-" + addresses[0][-2:], "cities", "eu", "a", *addresses, **each)


def test_places_stand_in_for_each_other_and_come_back_when_they_are_well(land: Land):
    land.apply(
        cities(failback_s=3600),
        *(near(address) for address in NEAR),
        place("far", "cities", "us", "x", *FAR),
    )
    vip = land.vip("cities")
    with land.serving(*NEAR, *FAR) as servers, ExitStack() as stack:
        assert land.reached(vip, servers, 4) == dict.fromkeys(NEAR, 2)
        client = stack.enter_context(land.client.dial(vip, PORT))
        _, open_, _ = accepted(servers)
        stack.enter_context(open_)
        # half of the near ones: 1.4 times 50 percent stay near
        land.apply(near(NEAR[1], **DOWN))
        spilled = {NEAR[0]: 14, FAR[0]: 3, FAR[1]: 3}
        assert land.reached(vip, servers, 20) == spilled
        said = land.explain("client", "cities")["balancing"]
        assert "same zone 1 of 2 healthy gets 70 %, elsewhere 2 of 2 healthy gets 30 %" in said
        # none of them
        land.apply(near(NEAR[0], **DOWN))
        assert land.reached(vip, servers, 4) == dict.fromkeys(FAR, 2)
        client.sendall(b"still there?")
        assert open_.recv(100) == b"still there?"
        # well again, but not for long enough
        land.apply(*(near(address) for address in NEAR))
        assert land.reached(vip, servers, 4) == dict.fromkeys(FAR, 2)
        said = land.explain("client", "cities")["balancing"]
        assert "held back until well for 3600 s: same zone (0 of 100 %)" in said
        table = land.system.sixfold("lb", "list", "cities").stdout
        assert "LOCALITY" in table
        rows = [line.split() for line in table.splitlines() if NEAR[0] in line]
        assert rows[0][1:3] + rows[0][-3:-1] == ["standby", "1", "eu/a", "0"]
        land.apply(cities(failback_s=1))  # a second from when it was well
        land.system.eventually(
            lambda: land.frontends("cities")[0]["places"][0]["load"] == 100, "back in the same zone"
        )
        assert land.reached(vip, servers, 4) == dict.fromkeys(NEAR, 2)


def test_places_in_an_order_of_ones_own(land: Land):
    made = outside("order")
    made["metadata"]["annotations"]["sixfold.dev/lb-failover"] = "us/x, eu"
    land.apply(
        made,
        place("o-1", "order", "eu", "a", NEAR[0]),
        place("o-2", "order", "us", "x", FAR[0]),
    )
    with land.serving(NEAR[0], FAR[0]) as servers:
        assert land.reached(land.vip("order"), servers, 2) == {FAR[0]: 2}
        land.delete_slices("o-2")
        assert land.reached(land.vip("order"), servers, 2) == {NEAR[0]: 2}


def test_traffic_distribution_prefers_who_is_near(land: Land):
    one, other = place("d-1", "dist", "eu", "a", NEAR[0]), place("d-2", "dist", "eu", "b", FAR[0])
    land.apply(outside("dist", trafficDistribution="PreferSameZone"), one, other)
    vip = land.vip("dist")
    with land.serving(NEAR[0], FAR[0]) as servers:
        assert land.reached(vip, servers, 2) == {NEAR[0]: 2}
        assert "PreferSameZone: of zone a" in land.explain("client", "dist")["balancing"]
        land.apply(place("d-1", "dist", "eu", "a", NEAR[0], **DOWN))
        assert land.reached(vip, servers, 2) == {FAR[0]: 2}
        node = land.api.get("/v1/status")["agent"]["node"]
        land.apply(
            outside("dist", trafficDistribution="PreferSameNode"),
            one,
            place("d-2", "dist", "eu", "a", FAR[0], nodeName=node),
        )
        # one of them says no node, so the zone decides
        assert land.reached(vip, servers, 2) == {NEAR[0]: 1, FAR[0]: 1}
        land.apply(place("d-1", "dist", "eu", "a", NEAR[0], nodeName="other"))
        assert land.reached(vip, servers, 2) == {FAR[0]: 2}
        hint = {"hints": {"forZones": [{"name": "a"}]}}
        away = {"hints": {"forZones": [{"name": "b"}]}}
        land.apply(
            outside("dist"),
            place("d-1", "dist", "eu", "b", NEAR[0], **hint),
            place("d-2", "dist", "eu", "a", FAR[0], **away),
        )
        assert land.reached(vip, servers, 2) == {NEAR[0]: 2}


def test_internal_traffic_policy_local_is_this_node_or_nobody(land: Land):
    land.apply(outside("local", internalTrafficPolicy="Local"), endpoints("l", "local", NEAR[0]))
    vip = land.vip("local")
    assert land.client.answer(vip, PORT) == "ECONNREFUSED"
    said = land.explain("client", "local")["balancing"]
    assert "internalTrafficPolicy Local: of node" in said
    node = land.api.get("/v1/status")["agent"]["node"]
    land.apply(endpoints("l", "local", NEAR[0], nodeName=node))
    with land.serving(NEAR[0]) as servers:
        assert land.reached(vip, servers) == {NEAR[0]: 1}


def test_slices_of_pods_say_where_they_are(land: Land):
    ports = [{"port": 80}]
    made = service("inside", ports=ports, trafficDistribution="PreferSameNode")
    land.apply(made)
    found = next(
        item
        for item in land.api.objects("EndpointSlice", "default")
        if item["metadata"]["name"] == "inside-ipv4"
    )
    node = land.api.get("/v1/status")["agent"]["node"]
    hints = {"forZones": [{"name": "a"}], "forNodes": [{"name": node}]}
    assert found["endpoints"][0]["zone"] == "a"
    assert found["endpoints"][0]["hints"] == hints


def test_addresses_that_are_not_ready_are_published_on_demand(land: Land):
    """publishNotReadyAddresses holds for balancing and for names, and for what was written."""
    quiet = {"readinessProbe": {"exec": {"command": ["false"]}}}
    land.apply(
        pod("unready", container=quiet),
        service(
            "early", selector={"app": "unready"}, publishNotReadyAddresses=True, clusterIP="None"
        ),
        service("late", selector={"app": "unready"}, clusterIP="None"),
        outside("soon", publishNotReadyAddresses=True),
        endpoints("soon", "soon", NEAR[0], **DOWN),
    )
    with land.serving(NEAR[0]) as servers:
        assert land.reached(land.vip("soon"), servers) == {NEAR[0]: 1}
    place = land.system.eventually(
        lambda: land.system.endpoints().get("default/unready"), "the pod has an address"
    )
    name = "default.svc.cluster.local"
    land.system.eventually(lambda: land.answer(f"early.{name}") == [place["ips"][0]])
    assert land.answer(f"late.{name}") == ["NXDOMAIN"]


def test_families_of_a_service_are_dialled_as_they_are_said(land: Land):
    slices = [endpoints(f"two-{version}", "two", EAST[version][0]) for version in EAST]
    land.apply(outside("two", ipFamilyPolicy="SingleStack", ipFamilies=["IPv6"]), *slices)
    with land.serving(EAST[6][0]) as servers:
        assert land.reached(land.vip("two", 6), servers) == {EAST[6][0]: 1}
    assert land.answer("two.default.svc.cluster.local") == []
    land.apply(outside("two", ipFamilyPolicy="RequireDualStack"))
    with land.serving(EAST[4][0]) as servers:
        assert land.reached(land.vip("two", 4), servers) == {EAST[4][0]: 1}
    second = land.vip("two", 4)
    land.apply(outside("two", ipFamilyPolicy="SingleStack"))
    assert land.client.attempt(second, PORT) != "open"
