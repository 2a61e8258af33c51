"""Services as the world outside reaches them: node ports, load balancers, external addresses.

pods ─ host 192.0.2.1 ──(up0)── 192.0.2.2 router 198.51.100.1 ── .2 far

Load balancers get 192.0.2.64 and up, on the link between host and router: the router has to ask
who has them.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import dns.message
import pytest

from sixfold.cli.client import Client
from sixfold.host import layout, netns
from sixfold.host.announce import checksum
from sixfold.host.datapath import KernelDatapath
from sixfold.host.paths import NETNS_ROOT
from sixfold.model.config import RESOLVER_IPV4, RESOLVER_IPV6

from .conftest import System
from .places import (
    FAMILIES,
    OPEN,
    WAIT_S,
    Place,
    checksummed,
    manifest,
    places_of,
    pod,
    policy,
    service,
)

pytestmark = pytest.mark.root

DGRAM = socket.SOCK_DGRAM
SOL_PACKET, PACKET_AUXDATA, CHECKSUM_NOT_READY = 263, 8, 8  # linux/if_packet.h
KINDS = pytest.mark.parametrize("kind", [socket.SOCK_STREAM, DGRAM], ids=["tcp", "udp"])
NODE = {4: "192.0.2.1", 6: "2001:db8:1::1"}
EXTERNAL = {4: "203.0.113.7", 6: "2001:db8:7::7"}
HOST_LINKS = """
link add up0 mtu 1500 address 02:00:00:00:00:aa type veth peer name up1 mtu 1500
link set up1 netns {router}
addr add 192.0.2.1/24 dev up0
addr add 2001:db8:1::1/64 dev up0 nodad
link set up0 up
route add 198.51.100.0/24 via 192.0.2.2
route add 2001:db8:2::/64 via 2001:db8:1::2
"""
ROUTER_LINKS = """
addr add 192.0.2.2/24 dev up1
addr add 2001:db8:1::2/64 dev up1 nodad
link set up1 up
link add far0 mtu 1500 type veth peer name far1 mtu 1500
link set far1 netns {far}
addr add 198.51.100.1/24 dev far0
addr add 2001:db8:2::1/64 dev far0 nodad
link set far0 up
route add 203.0.113.0/24 via 192.0.2.1
route add 2001:db8:7::/64 via 2001:db8:1::1
"""
FAR_LINKS = """
addr add 198.51.100.2/24 dev far1
addr add 2001:db8:2::2/64 dev far1 nodad
link set far1 up
route add default via 198.51.100.1
route add default via 2001:db8:2::1
"""
POOL = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumLoadBalancerIPPool",
    "metadata": {"name": "link"},
    "spec": {
        "blocks": [
            {"start": "192.0.2.64", "stop": "192.0.2.79"},
            {"cidr": "2001:db8:1::100/120"},
        ],
        "serviceSelector": {
            "matchExpressions": [{"key": "pool", "operator": "NotIn", "values": ["none"]}]
        },
    },
}
PORTS = [
    {"name": "tcp", "port": 80, "targetPort": 8080},
    {"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"},
]
PODS = ["web-0", "web-1", "solo", "shy", "brief"]
SHY = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "shy", "namespace": "default"},
    "spec": {
        "endpointSelector": {"matchLabels": {"app": "shy"}},
        "ingressDeny": [{"fromCIDR": ["192.0.2.2/32"]}],
    },
}


def balancer(name: str, app: str, **spec: object) -> dict:
    return service(name, type="LoadBalancer", selector={"app": app}, **{"ports": PORTS, **spec})


SERVICES = [
    balancer("web", "web"),
    balancer("solo", "solo", externalIPs=[*EXTERNAL.values()]),
    balancer("ranged", "solo", loadBalancerSourceRanges=["198.51.100.0/24", "2001:db8:2::/64"]),
    balancer("empty", "nobody"),
    balancer("near", "solo", externalTrafficPolicy="Local"),
    balancer("sticky", "web", sessionAffinity="ClientIP"),
    balancer("shy", "shy"),
    balancer("brief", "brief"),
    {
        **balancer("even", "web"),
        "metadata": {
            "name": "even",
            "namespace": "default",
            "annotations": {"sixfold.dev/lb-algorithm": "least-connections"},
        },
    },
    service("numbered", type="NodePort", selector={"app": "solo"}, ports=[
        {"port": 80, "targetPort": 8080, "nodePort": 30080}
    ]),
]  # fmt: skip


@dataclass
class Coast:
    system: System
    host: Place
    router: Place
    far: Place
    client: Place  # a pod
    pods: dict[str, Place]
    services: dict[str, dict]

    def address(self, name: str, version: int = 4) -> str:
        """Of a load balancer."""
        ingress = self.services[name]["status"]["loadBalancer"]["ingress"]
        return next(it["ip"] for it in ingress if (":" in it["ip"]) == (version == 6))

    def node_port(self, name: str) -> int:
        return self.services[name]["spec"]["ports"][0]["nodePort"]

    def ways(self, version: int = 4) -> list[tuple[str, int]]:
        """Every way to the service ``solo``."""
        return [
            (self.address("solo", version), 80),
            (NODE[version], self.node_port("solo")),
            (EXTERNAL[version], 80),
        ]

    @contextmanager
    def serving(self, *names: str, version: int = 4, kind: int = socket.SOCK_STREAM) -> Iterator:
        with ExitStack() as stack:
            yield {
                name: stack.enter_context(self.pods[name].listen(version=version, kind=kind))
                for name in names
            }

    def live(self, name: str) -> dict[str, int]:
        frontends = Client(self.system.paths.api_socket).get(
            "/v1/balancing", {"namespace": "default", "service": name}
        )["frontends"]
        found = {}
        for frontend in frontends:
            if frontend["protocol"] == "TCP" and ":" not in frontend["address"]:
                for one in frontend["backends"]:
                    found[one["endpoint"].removeprefix("default/")] = one["connections"]
        return found


@pytest.fixture(scope="module")
def coast(module_system: System) -> Coast:
    system = module_system
    paths = [NETNS_ROOT / f"{system.paths.instance}-{name}" for name in ("router", "far")]
    for path in paths:
        netns.create(path, lambda: None)
        system.extra.append(path)
    host = Place(system.host, "10.244.0.1", "fd00:5f:244::1")
    router = Place(paths[0], "192.0.2.2", "2001:db8:1::2")
    far = Place(paths[1], "198.51.100.2", "2001:db8:2::2")
    names = {"router": router.path.name, "far": far.path.name}
    for place, links in ((host, HOST_LINKS), (router, ROUTER_LINKS), (far, FAR_LINKS)):
        for line in links.format(**names).strip().splitlines():
            place.run("ip", *(["-6"] if "route" in line and ":" in line else []), *line.split())
    router.run("sh", "-c", "cd /proc/sys/net; echo 1 | tee ipv[46]/conf/all/forwarding")
    system.up(
        manifest=manifest(
            POOL,
            pod("client"),
            pod("web-0", labels={"app": "web"}),
            pod("web-1", labels={"app": "web"}),
            pod("solo"),
            pod("shy"),
            pod("brief"),
            SHY,
            *SERVICES,
            policy("open", None, **OPEN),
        )
    )
    items = system.json("get", "svc")["items"]
    client, *pods = places_of(system, "client", *PODS)
    return Coast(
        system, host, router, far, client,
        dict(zip(PODS, pods, strict=True)),
        {item["metadata"]["name"]: item for item in items},
    )  # fmt: skip


def whole(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (some := sock.recv(size - len(found))):
        found += some
    return found


def exchange(client: Place, server: socket.socket, address: str, port: int) -> str:
    """A connection that asks and is answered; the address that the server saw."""
    with client.dial(address, port) as asking:
        connection, (source, *_) = server.accept()
        with connection:
            connection.settimeout(WAIT_S)
            asking.sendall(b"ping" * 2000)
            assert whole(connection, 8000) == b"ping" * 2000
            connection.sendall(b"pong" * 20000)
            assert whole(asking, 80000) == b"pong" * 20000
            assert asking.getpeername()[:2] == (address, port)
    return source


def echo(client: Place, address: str) -> None:
    """One ping; a reply must come."""
    ipv6 = ":" in address
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    protocol = socket.IPPROTO_ICMPV6 if ipv6 else socket.IPPROTO_ICMP
    request, reply = (128, 129) if ipv6 else (8, 0)
    with client.make_socket(family, socket.SOCK_RAW, protocol) as sock:
        sock.sendto(checksummed(bytes([request, 0, 0, 0, 0, 7, 0, 1]) + b"hello"), (address, 0))
        while True:
            answer, (source, *_) = sock.recvfrom(2048)
            body = answer if ipv6 else answer[20:]
            if body[0] == reply and source == address:
                assert body[8:] == b"hello"
                return


@FAMILIES
def test_every_way_in_reaches_the_pod_under_the_clients_own_address(coast: Coast, version: int):
    with coast.serving("solo", version=version) as servers:
        for address, port in coast.ways(version):
            for client in (coast.far, coast.router):
                seen = exchange(client, servers["solo"], address, port)
                assert seen == client.address(version), (address, port)


@FAMILIES
def test_datagrams_longer_than_the_link_arrive_both_ways(coast: Coast, version: int):
    with coast.serving("solo", version=version, kind=DGRAM) as servers:
        for address, port in (coast.ways(version)[0], coast.ways(version)[2]):
            with coast.far.dial(address, port, kind=DGRAM) as asking:
                asking.send(b"?" * 4000)
                message, sender = servers["solo"].recvfrom(65536)
                assert (message, sender[0]) == (b"?" * 4000, coast.far.address(version))
                servers["solo"].sendto(b"!" * 5000, sender)
                assert asking.recv(65536) == b"!" * 5000


@FAMILIES
@KINDS
def test_a_checksum_that_the_device_is_to_finish_can_be_finished(
    coast: Coast, version: int, kind: int
):
    """Seen where the packets end: nobody between has summed them up."""
    address, port = coast.address("solo", version), 80
    with (
        coast.serving("solo", version=version, kind=kind) as servers,
        capture(coast.pods["solo"], version) as inwards,
        capture(coast.router, version) as outwards,
        coast.router.dial(address, port, kind=kind) as asking,
    ):
        asking.send(b"question")
        if kind == DGRAM:
            _, sender = servers["solo"].recvfrom(16)
            servers["solo"].sendto(b"answer", sender)
        else:
            with servers["solo"].accept()[0] as accepted:
                accepted.recv(16)
                accepted.sendall(b"answer")
        assert asking.recv(16) == b"answer"
        protocol = 17 if kind == DGRAM else 6
        for seen, what in ((inwards, b"question"), (outwards, b"answer")):
            unfinished, body, pseudo = next_segment(seen, protocol, what)
            if unfinished:
                at = 6 if kind == DGRAM else 16
                assert body[at : at + 2] == struct.pack("!H", ~checksum(pseudo) & 0xFFFF)
            else:
                assert checksum(pseudo + body) == 0


@FAMILIES
def test_an_answer_of_the_kernel_to_a_question_about_a_name_has_its_checksum(
    coast: Coast, version: int
):
    name = dns.message.make_query("solo.default.svc.cluster.local", "A")
    resolver = RESOLVER_IPV4 if version == 4 else RESOLVER_IPV6
    with (
        capture(coast.client, version) as seen,
        coast.client.dial(str(resolver), 53, kind=DGRAM) as asking,
    ):
        asking.send(name.to_wire())
        reply = asking.recv(512)
        assert dns.message.from_wire(reply).answer
        unfinished, body, pseudo = next_segment(seen, 17, reply)
        assert unfinished, "it never left the machine"
        assert body[6:8] == struct.pack("!H", ~checksum(pseudo) & 0xFFFF)


@contextmanager
def capture(place: Place, version: int) -> Iterator[socket.socket]:
    """Packets as they come in, with what is known of their checksums."""
    kind = 0x0800 if version == 4 else 0x86DD
    with place.make_socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(kind)) as sock:
        sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        yield sock


def next_segment(sock: socket.socket, protocol: int, what: bytes) -> tuple[bool, bytes, bytes]:
    """Whether its checksum is not finished; transport header and payload; pseudo header."""
    while True:
        found, ((_, _, auxiliary),), _, _ = sock.recvmsg(65536, 64)
        (status,) = struct.unpack_from("I", auxiliary)
        start, at, ends = (20, 9, found[12:20]) if found[0] >> 4 == 4 else (40, 6, found[8:40])
        if found[at] == protocol and what in found[start:]:
            pseudo = ends + struct.pack("!II", len(found) - start, protocol)
            return bool(status & CHECKSUM_NOT_READY), found[start:], pseudo


@FAMILIES
def test_the_router_is_told_who_has_a_load_balancers_address(coast: Coast, version: int):
    address = coast.address("solo", version)
    coast.router.run("ip", "neigh", "flush", "all")
    echo(coast.router, address)
    shown = coast.router.run("ip", "neigh", "show", address)
    assert "02:00:00:00:00:aa" in shown
    other = {4: "192.0.2.79", 6: "2001:db8:1::1ff"}[version]
    assert coast.router.attempt(other, timeout_s=0.1) == "timeout"  # nobody answers for it


@FAMILIES
@KINDS
def test_pods_and_the_host_reach_every_way_at_the_socket(coast: Coast, version: int, kind: int):
    ways = [*coast.ways(version), (coast.address("ranged", version), 80)]
    if kind == DGRAM:
        ways = [way for way in ways if way[1] == 80]
    with coast.serving("solo", version=version, kind=kind) as servers:
        for address, port in ways:
            for client in (coast.client, coast.host):
                with client.dial(address, port, kind=kind) as dialled:
                    dialled.send(b"x")
                    if kind == DGRAM:
                        _, sender = servers["solo"].recvfrom(16)
                        servers["solo"].sendto(b"y", sender)
                        assert dialled.recv(16) == b"y"
                    else:
                        with servers["solo"].accept()[0] as accepted:
                            assert accepted.recv(1) == b"x"
                            assert dialled.getpeername()[:2] == (address, port)


def test_a_node_port_is_on_loopback_for_the_host_and_not_for_pods(coast: Coast):
    with coast.serving("solo"):
        assert coast.host.answer("127.0.0.1", 30080) == "open"
        assert coast.client.answer("127.0.0.1", 30080) == "ECONNREFUSED"
        assert coast.client.answer("10.244.0.1", 30080) == "open"


def ask(client: Place, address: str, port: int) -> bytes:
    with client.dial(address, port, kind=DGRAM) as sock:
        sock.send(b"anybody there?")
        return sock.recv(64)


@FAMILIES
def test_who_dials_nobody_is_refused_at_once(coast: Coast, version: int):
    with coast.serving("solo", version=version):
        for address, port in (
            (coast.address("empty", version), 80),
            (NODE[version], coast.node_port("empty")),
            (coast.address("solo", version), 81),
        ):
            for client in (coast.far, coast.router, coast.client, coast.host):
                answer = client.answer(address, port)
                assert answer == "ECONNREFUSED", (address, port)
                with pytest.raises(ConnectionRefusedError):
                    ask(client, address, port)


@FAMILIES
def test_only_source_ranges_come_in_from_outside(coast: Coast, version: int):
    with coast.serving("solo", version=version):
        address = coast.address("ranged", version)
        assert coast.far.answer(address, 80) == "open"
        assert coast.router.attempt(address, 80) == "timeout"
    flow = coast.system.flows("--verdict", "DROPPED", "--last", "1")[0]
    assert flow["drop_reason_desc"] == "DENIED_BY_LB_SRC_RANGE_CHECK"
    assert flow["destination_service"] == {"name": "ranged", "namespace": "default"}


def test_a_flow_from_outside_names_the_service(coast: Coast):
    with coast.serving("solo"):
        assert coast.far.answer(coast.address("solo"), 80) == "open"
    flow = coast.system.flows("--from", "198.51.100.2", "--last", "1")[0]
    assert flow["verdict"] == "FORWARDED"
    assert flow["destination_service"] == {"name": "solo", "namespace": "default"}
    assert flow["source"]["labels"] == ["reserved:world"]
    assert flow["destination"]["pod_name"] == "solo"


def test_policy_judges_a_client_outside_by_its_own_address(coast: Coast):
    with coast.serving("shy"):
        for address, port in (
            (coast.address("shy"), 80),
            (NODE[4], coast.node_port("shy")),
        ):
            assert coast.far.answer(address, port) == "open"
            assert coast.router.attempt(address, port) == "timeout"
    flow = coast.system.flows("--verdict", "DROPPED", "--last", "1")[0]
    assert flow["drop_reason_desc"] == "POLICY_DENY"
    assert flow["IP"]["source"] == "192.0.2.2"
    assert flow["destination_service"] == {"name": "shy", "namespace": "default"}
    assert flow["ingress_denied_by"][0]["name"] == "shy"


def test_what_explain_says_of_a_way_in_is_what_happens(coast: Coast):
    explained = coast.system.sixfold
    for client, way, code in (
        ("198.51.100.2", f"{coast.address('shy')}:80", 0),
        ("192.0.2.2", f"{coast.address('shy')}:80", 1),
        ("192.0.2.2", f"{NODE[4]}:{coast.node_port('shy')}", 1),
        ("198.51.100.2", f"{NODE[4]}:{coast.node_port('shy')}", 0),
        ("192.0.2.2", f"{coast.address('ranged')}:80", 1),
        ("198.51.100.2", f"{coast.address('ranged')}:80", 0),
    ):
        done = explained("explain", client, way, check=False)
        assert done.returncode == code, done.stdout + done.stderr
    refusal = explained("explain", "192.0.2.2", f"{coast.address('ranged')}:80", check=False).stdout
    assert "only 198.51.100.0/24, 2001:db8:2::/64 may dial it from outside" in refusal


def test_get_and_describe_say_how_a_service_is_reached(coast: Coast):
    line = next(
        line
        for line in coast.system.sixfold("get", "svc").stdout.splitlines()
        if line.startswith("solo ")
    )
    external = f"{coast.address('solo')},{coast.address('solo', 6)},{','.join(EXTERNAL.values())}"
    assert external in line
    assert f"80:{coast.node_port('solo')}/TCP" in line
    told = coast.system.sixfold("describe", "svc", "solo").stdout
    assert f"LoadBalancer Ingress: {coast.address('solo')} (VIP)" in told
    assert f"NodePort: tcp {coast.node_port('solo')}/TCP" in told
    listed = coast.system.sixfold("lb", "list", "solo").stdout
    for kind in ("ClusterIP", "NodePort", "LoadBalancer", "ExternalIP"):
        assert f" {kind} " in listed


def test_a_load_balancer_without_a_pool_waits_and_gets_its_address_later(coast: Coast):
    lonely = balancer("lonely", "web")
    lonely["metadata"]["labels"] = {"pool": "none"}
    coast.system.apply(manifest(lonely))
    shown = coast.system.sixfold("get", "svc", "lonely").stdout
    assert "<pending>" in shown
    told = coast.system.sixfold("describe", "svc", "lonely").stdout
    assert "no CiliumLoadBalancerIPPool selects this service" in told
    other = {**POOL, "metadata": {"name": "other"}}
    other["spec"] = {
        "blocks": [{"cidr": "192.0.2.96/32"}, {"cidr": "2001:db8:1::200/128"}],
        "serviceSelector": {"matchLabels": {"pool": "none"}},
    }
    coast.system.apply(manifest(other))
    with coast.serving("web-0", "web-1"):
        assert coast.router.answer("192.0.2.96", 80) == "open"
    coast.system.sixfold("delete", "svc", "lonely")
    assert coast.router.attempt("192.0.2.96", 80) != "open"


def test_a_client_keeps_its_backend(coast: Coast):
    with coast.serving("web-0", "web-1") as servers:
        found: Counter[str] = Counter()
        for _ in range(8):
            with coast.far.dial(coast.address("sticky"), 80):
                name, connection = accepted(servers)
                connection.close()
                found[name] += 1
        assert len(found) == 1


def accepted(servers: dict[str, socket.socket]) -> tuple[str, socket.socket]:
    readable, _, _ = select.select([*servers.values()], [], [], WAIT_S)
    name = next(name for name, server in servers.items() if server is readable[0])
    return name, servers[name].accept()[0]


def test_live_connections_from_outside_are_exact(coast: Coast):
    def settles(wanted: dict[str, int]) -> None:
        coast.system.eventually(lambda: coast.live("even") == wanted, f"{coast.live('even')}")

    settles({"web-0": 0, "web-1": 0})
    with coast.serving("web-0", "web-1") as servers:
        clients, served = [], []
        for count in range(1, 9):
            clients.append(coast.far.dial(coast.address("even"), 80))
            served.append(accepted(servers)[1])
            coast.system.eventually(lambda n=count: sum(coast.live("even").values()) == n)
        settles({"web-0": 4, "web-1": 4})
        clients[0].close()  # the client's FIN
        served[1].close()  # the server's
        clients[2].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        clients[2].close()  # a reset
        served[3].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        served[3].close()
        coast.system.eventually(lambda: sum(coast.live("even").values()) == 4)
        for each in (*clients, *served):
            each.close()
        settles({"web-0": 0, "web-1": 0})
    assert coast.far.answer(coast.address("even"), 80) == "ECONNREFUSED"  # nobody listens
    settles({"web-0": 0, "web-1": 0})


def test_who_refuses_a_client_outside_is_passed_over(coast: Coast):
    deaf = KernelDatapath.view(coast.system.paths.instance).maps["deaf"]
    address = coast.address("web")
    with coast.serving("web-1"):
        deaf.delete([key for key, _ in deaf.items()])  # closed listeners are among them
        tried = [coast.far.answer(address, 80)]
        while tried[-1] == "open" and len(tried) < 64:
            tried.append(coast.far.answer(address, 80))
        assert tried[-1] == "ECONNREFUSED"
        ((key, _),) = deaf.items()
        assert layout.DEAF_KEY.unpack(key)[2] == layout.pack_port(8080)
        again = [coast.far.answer(address, 80) for _ in range(6)]
        assert again == ["open"] * 6


def test_a_client_of_a_vanished_pod_is_told_though_it_says_nothing(coast: Coast):
    with coast.serving("brief") as servers, coast.far.dial(coast.address("brief"), 80) as client:
        connection, _ = servers["brief"].accept()
        client.sendall(b"x")
        assert connection.recv(1) == b"x"
        coast.system.sixfold("delete", "pod", "brief")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        connection.close()


@FAMILIES
def test_the_path_mtu_of_an_answer_is_found(coast: Coast, version: int):
    """The router's link to far takes less than the pod's: it says so to the service's address."""
    coast.router.run("ip", "link", "set", "far0", "mtu", "1300")
    try:
        with coast.serving("solo", version=version) as servers:
            address, port = coast.ways(version)[0]
            exchange(coast.far, servers["solo"], address, port)
    finally:
        coast.router.run("ip", "link", "set", "far0", "mtu", "1500")


def health(coast: Coast, port: int, version: int = 4) -> str:
    """HTTP status of the node's health for a service, as a load balancer outside asks for it."""
    with coast.far.dial(NODE[version], port) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n")
        return client.recv(65536).split(b" ", 2)[1].decode()


@FAMILIES
def test_a_load_balancer_outside_learns_whether_this_node_has_endpoints(coast: Coast, version: int):
    system, port = coast.system, coast.services["near"]["spec"]["healthCheckNodePort"]
    assert health(coast, port, version) == "200"
    system.sixfold("lb", "drain", "solo")
    system.eventually(lambda: health(coast, port, version) == "503")
    system.sixfold("lb", "drain", "solo", "--undo")
    system.eventually(lambda: health(coast, port, version) == "200")


def test_the_health_of_a_node_is_told_without_an_agent_and_under_the_hosts_policy(coast: Coast):
    system, port = coast.system, coast.services["near"]["spec"]["healthCheckNodePort"]
    os.kill(system.agent_pid(), signal.SIGKILL)
    assert health(coast, port) == "200"
    system.up()
    closed = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "closed"},
        "spec": {
            "nodeSelector": {},
            "ingressDeny": [{"toPorts": [{"ports": [{"port": str(port), "protocol": "TCP"}]}]}],
        },
    }
    system.apply(manifest(closed))
    assert coast.far.attempt(NODE[4], port) == "timeout"
    system.sixfold("delete", "ciliumclusterwidenetworkpolicy", "closed")
    assert health(coast, port) == "200"


def test_outside_goes_on_without_the_agent_and_with_the_next(coast: Coast):
    system = coast.system
    with coast.serving("solo") as servers:
        address = coast.address("solo")
        with coast.far.dial(address, 80) as client:
            connection, _ = servers["solo"].accept()
            client.sendall(b"a")
            assert connection.recv(1) == b"a"
            os.kill(system.agent_pid(), signal.SIGKILL)
            client.sendall(b"b")
            assert connection.recv(1) == b"b"
            coast.router.run("ip", "neigh", "flush", "all")
            for way in coast.ways():
                exchange(coast.router, servers["solo"], *way)
            system.up()
            client.sendall(b"c")
            assert connection.recv(1) == b"c"
            assert coast.live("solo")["solo"] == 1
            connection.close()
        for way in coast.ways():
            exchange(coast.far, servers["solo"], *way)
    assert system.json("get", "svc", "solo")["status"] == coast.services["solo"]["status"]
