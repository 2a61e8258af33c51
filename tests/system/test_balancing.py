"""Algorithms, weights and counters of connections, on real sockets through real namespaces."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest

from sixfold.balancing.pick import spread
from sixfold.balancing.table import maglev
from sixfold.cli.client import Client
from sixfold.host import layout
from sixfold.host.datapath import KernelDatapath
from sixfold.model.algorithm import Algorithm
from sixfold.model.datapath import Backend

from .conftest import System
from .places import OPEN, WAIT_S, Place, manifest, places_of, pod, policy, service

pytestmark = pytest.mark.root

DGRAM = socket.SOCK_DGRAM
PODS = [f"web-{number}" for number in range(4)]
WEIGHTS = {"heavy-0": 5, "heavy-1": 3, "heavy-2": 1, "heavy-3": 0}
CLIENTS = [f"client-{number}" for number in range(3)]
PORTS = [
    {"name": "tcp", "port": 80, "targetPort": 8080},
    {"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"},
]
ALGORITHMS = [algorithm.title for algorithm in Algorithm]


def balanced(name: str, algorithm: str, app: str, **spec: object) -> dict:
    made = service(name, selector={"app": app}, ports=PORTS, **spec)
    made["metadata"]["annotations"] = {"sixfold.dev/lb-algorithm": algorithm}
    return made


def weighted(name: str, weight: int) -> dict:
    made = pod(name, labels={"app": "heavy"})
    made["metadata"]["annotations"] = {"sixfold.dev/lb-weight": str(weight)}
    return made


@dataclass
class Town:
    system: System
    clients: list[Place]
    places: dict[str, Place]
    vips: dict[str, str]

    @property
    def client(self) -> Place:
        return self.clients[0]

    @contextmanager
    def serving(self, prefix: str = "web", kind: int = socket.SOCK_STREAM) -> Iterator[dict]:
        """Servers in the pods of this prefix, by address."""
        with ExitStack() as stack:
            yield {
                place.ipv4: stack.enter_context(place.listen(kind=kind))
                for name, place in self.places.items()
                if name.startswith(prefix)
            }

    def dial(self, name: str, client: Place | None = None, **options: object) -> socket.socket:
        return (client or self.client).dial(self.vips[name], 80, **options)

    @property
    def api(self) -> Client:
        return Client(self.system.paths.api_socket)

    def frontend(self, name: str, protocol: str = "TCP") -> dict:
        asked = {"namespace": "default", "service": name}
        frontends = self.api.get("/v1/balancing", asked)["frontends"]
        return next(f for f in frontends if f["protocol"] == protocol and ":" not in f["address"])

    def live(self, name: str, protocol: str = "TCP") -> dict[str, int]:
        """Live connections by pod, as the kernel counts them."""
        backends = self.frontend(name, protocol)["backends"]
        return {one["endpoint"].removeprefix("default/"): one["connections"] for one in backends}

    def settle(self, name: str, wanted: int, protocol: str = "TCP") -> None:
        self.system.eventually(
            lambda: sum(self.live(name, protocol).values()) == wanted,
            f"{name}: {self.live(name, protocol)}, wanted {wanted}",
        )
        assert min(self.live(name, protocol).values()) >= 0


@pytest.fixture(scope="module")
def town(module_system: System) -> Town:
    names = [*CLIENTS, *PODS, *WEIGHTS]
    services = [balanced(name, name, "web") for name in ALGORITHMS]
    services += [balanced(f"heavy-{name}", name, "heavy") for name in ALGORITHMS]
    services.append(balanced("sticky", "round-robin", "web", sessionAffinity="ClientIP"))
    module_system.up(
        manifest=manifest(
            *map(pod, CLIENTS),
            *(pod(name, labels={"app": "web"}) for name in PODS),
            *(weighted(name, weight) for name, weight in WEIGHTS.items()),
            *services,
            policy("open", None, **OPEN),
        )
    )
    places = dict(zip(names, places_of(module_system, *names), strict=True))
    items = module_system.json("get", "svc")["items"]
    vips = {item["metadata"]["name"]: item["spec"]["clusterIP"] for item in items}
    return Town(module_system, [places.pop(name) for name in CLIENTS], places, vips)


def accept(servers: dict[str, socket.socket], count: int) -> list[tuple[str, socket.socket]]:
    """So many connections, by the address that was reached."""
    found: list[tuple[str, socket.socket]] = []
    for server in servers.values():
        server.setblocking(False)
    deadline = time.monotonic() + WAIT_S
    while len(found) < count and time.monotonic() < deadline:
        for address, server in servers.items():
            try:
                found.append((address, server.accept()[0]))
            except BlockingIOError:
                continue
    assert len(found) == count
    return found


def reached(town: Town, name: str, count: int, client: Place | None = None) -> Counter[str]:
    """Connections by pod, all of them open at once, then closed."""
    prefix = "heavy" if name.startswith("heavy") else "web"
    names = {place.ipv4: pod for pod, place in town.places.items()}
    with ExitStack() as stack, town.serving(prefix) as servers:
        for _ in range(count):
            stack.enter_context(town.dial(name, client))
        found: Counter[str] = Counter()
        for address, connection in accept(servers, count):
            stack.enter_context(connection)
            found[names[address]] += 1
    return found


def test_round_robin_takes_turns(town: Town):
    assert reached(town, "round-robin", 40) == dict.fromkeys(PODS, 10)


def test_least_connections_keeps_open_ones_even(town: Town):
    """Two draws for each: with four backends the spread stays within a few."""
    found = reached(town, "least-connections", 80)
    assert max(found.values()) - min(found.values()) <= 6


def test_random_reaches_everybody(town: Town):
    assert min(reached(town, "random", 80)[name] for name in PODS) >= 5  # of 20


@pytest.mark.parametrize("algorithm", ["maglev", "source-hash"])
def test_a_client_keeps_its_backend(town: Town, algorithm: str):
    for client in town.clients:
        assert len(reached(town, algorithm, 6, client)) == 1


def test_maglev_sends_a_client_where_its_table_says(town: Town):
    backends = [Backend.at(IPv4Address(town.places[name].ipv4), 8080) for name in PODS]
    table = maglev(backends, 16381)
    numbers = town.system.json("get", "endpoints")["items"]
    ids = {item["metadata"]["name"]: item["status"]["id"] for item in numbers}
    services = town.api.get("/v1/names")["services"]
    number = next(int(n) for n, key in services.items() if key == "default/maglev")
    for name, client in zip(CLIENTS, town.clients, strict=True):
        wanted = PODS[table[spread(ids[name], number) % 16381]]
        assert reached(town, "maglev", 2, client) == {wanted: 2}


@pytest.mark.parametrize("algorithm", ["round-robin", "random", "least-connections"])
def test_weights_are_shares_and_zero_is_maintenance(town: Town, algorithm: str):
    found = reached(town, f"heavy-{algorithm}", 90)
    assert found["heavy-3"] == 0
    if algorithm == "round-robin":
        assert found == {"heavy-0": 50, "heavy-1": 30, "heavy-2": 10}
    elif algorithm == "least-connections":
        assert abs(found["heavy-0"] - 50) <= 8
        assert abs(found["heavy-1"] - 30) <= 8
    else:
        assert found["heavy-0"] > found["heavy-2"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_unconnected_udp_stays_with_one_backend(town: Town, algorithm: str):
    with (
        town.serving("web", DGRAM) as servers,
        town.client.make_socket(socket.AF_INET, DGRAM) as client,
    ):
        for _ in range(4):
            client.sendto(b"?", (town.vips[algorithm], 80))
        assert sorted(arrived(servers, 4)) == [0, 0, 0, 4]


def test_unconnected_udp_takes_turns_by_socket(town: Town):
    with town.serving("web", DGRAM) as servers, ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(town.client.make_socket(socket.AF_INET, DGRAM))
            client.sendto(b"?", (town.vips["round-robin"], 80))
        assert arrived(servers, 8) == [2, 2, 2, 2]


def arrived(servers: dict[str, socket.socket], count: int) -> list[int]:
    """So many datagrams, by the server that they reached."""
    found = dict.fromkeys(servers.values(), 0)
    while sum(found.values()) < count:
        readable, _, _ = select.select([*found], [], [], WAIT_S)
        assert readable, f"{sum(found.values())} of {count}"
        for server in readable:
            server.recv(100)
            found[server] += 1
    return [*found.values()]


def test_a_client_of_a_service_with_affinity_keeps_its_backend(town: Town):
    """Others get theirs in turn; a drained backend keeps nobody; UDP has its own."""
    first, second = (reached(town, "sticky", 5, client) for client in town.clients[:2])
    assert len(first) == len(second) == 1
    assert first != second
    (kept,) = first
    town.system.sixfold("lb", "drain", kept)
    try:
        (moved,) = reached(town, "sticky", 5)
    finally:
        town.system.sixfold("lb", "drain", kept, "--undo")
    assert moved != kept
    assert set(reached(town, "sticky", 5)) == {moved}
    with (
        town.serving("web", DGRAM) as servers,
        town.client.make_socket(socket.AF_INET, DGRAM) as one,
        town.client.make_socket(socket.AF_INET, DGRAM) as two,
    ):
        for sock in (one, two, one):
            sock.sendto(b"?", (town.vips["sticky"], 80))
        assert sorted(arrived(servers, 3)) == [0, 0, 0, 3]
    explained = town.system.sixfold("explain", "client-0", "sticky:80").stdout
    assert "a client keeps its backend until 10800 s idle; 4 of 4" in explained


# --- counters: every way in which a connection ends ---------------------------------------


@contextmanager
def opened(
    town: Town, count: int = 20
) -> Iterator[tuple[list[socket.socket], list[socket.socket]]]:
    """Clients' and servers' ends of connections that are counted."""
    with town.serving() as servers, ExitStack() as stack:
        clients = [stack.enter_context(town.dial("least-connections")) for _ in range(count)]
        ends = [end for _, end in accept(servers, count)]
        for end in ends:
            stack.enter_context(end)
        town.settle("least-connections", count)
        yield clients, ends
        town.settle("least-connections", 0)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_connections_that_the_client_closes_are_counted_down(town: Town):
    with opened(town) as (clients, _):
        for client in clients:
            client.close()


def test_connections_that_the_server_closes_are_counted_down(town: Town):
    """The clients hold on to what is closed, as pools do: it is no load any more."""
    with opened(town) as (_, ends):
        for end in ends:
            end.close()


def test_connections_that_the_server_resets_are_counted_down(town: Town):
    with opened(town) as (_, ends):
        for end in ends:
            reset(end)


def test_connections_that_the_client_resets_are_counted_down(town: Town):
    with opened(town) as (clients, _):
        for client in clients:
            reset(client)


def test_a_half_closed_connection_is_still_one(town: Town):
    """The backend may have a long answer to give."""
    with opened(town, 1) as (clients, _):
        clients[0].shutdown(socket.SHUT_WR)
        town.settle("least-connections", 1)
        clients[0].close()


def test_refused_connections_are_counted_down(town: Town):
    """Nobody listens; the sockets stay open."""
    with ExitStack() as stack:
        for _ in range(10):
            client = stack.enter_context(town.client.make_socket(socket.AF_INET, 1))
            with pytest.raises(ConnectionRefusedError):
                client.connect((town.vips["least-connections"], 80))
        assert sum(town.live("least-connections").values()) == 0


def test_a_socket_that_connects_again_is_counted_once(town: Town):
    with town.client.make_socket(socket.AF_INET, 1) as client:
        client.settimeout(None)
        for _ in range(3):  # refused: the socket may dial again
            assert client.connect_ex((town.vips["round-robin"], 80)) == errno.ECONNREFUSED
        with town.serving() as servers:
            client.connect((town.vips["round-robin"], 80))
            assert sum(town.live("round-robin").values()) == 1
            accept(servers, 1)[0][1].close()
        town.settle("round-robin", 0)
    with town.client.make_socket(socket.AF_INET, DGRAM) as client:
        for _ in range(8):
            client.connect((town.vips["round-robin"], 80))
            assert sum(town.live("round-robin", "UDP").values()) == 1
        client.connect((town.places["web-0"].ipv4, 8080))  # itself, not as a service
        assert sum(town.live("round-robin", "UDP").values()) == 0


def test_connected_udp_is_counted_until_its_socket_is_closed(town: Town):
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(town.dial("round-robin", kind=DGRAM))
        assert town.live("round-robin", "UDP") == dict.fromkeys(PODS, 2)
    assert sum(town.live("round-robin", "UDP").values()) == 0


HOLD = """
import socket, sys, time
held = [socket.create_connection((sys.argv[1], 80)) for _ in range(int(sys.argv[2]))]
print("open", flush=True)
time.sleep(60)
"""


def test_hundreds_of_connections_of_a_killed_process_and_the_death_of_the_agent(town: Town):
    """The counters are the kernel's: they go on without the agent, and the next one agrees."""
    with town.serving() as servers:
        argv = [sys.executable, "-c", HOLD, town.vips["least-connections"], "300"]
        held = subprocess.Popen(
            ["nsenter", f"--net={town.client.path}", *argv], stdout=subprocess.PIPE, text=True
        )
        assert held.stdout
        ends = accept(servers, 300)
        assert held.stdout.readline() == "open\n"
        before = town.live("least-connections")
        assert sum(before.values()) == 300
        os.kill(town.system.agent_pid(), signal.SIGKILL)
        held.kill()
        held.wait()
        held.stdout.close()
        with ExitStack() as stack:
            extra = [stack.enter_context(town.dial("least-connections")) for _ in range(7)]
            ends += accept(servers, 7)
            town.system.up()
            town.settle("least-connections", 7)
            extra.pop().close()
            town.settle("least-connections", 6)
        for _, end in ends:
            end.close()
    town.settle("least-connections", 0)


def test_hundreds_of_connections_of_a_killed_server_are_counted_down(town: Town):
    """Its clients hold on to what is over."""
    with town.serving() as servers, ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(town.dial("least-connections"))
        ends = accept(servers, 200)
        server = os.fork()
        if not server:
            time.sleep(60)
            os._exit(0)
        for _, end in ends:
            end.close()
        town.settle("least-connections", 200)
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        town.settle("least-connections", 0)


def test_connections_that_are_given_up_before_they_stand_are_counted_down(town: Town):
    """Nobody accepts: beyond the first few, the SYNs go unanswered."""
    with town.serving() as servers, ExitStack() as stack:
        for server in servers.values():
            server.listen(0)
        for _ in range(40):
            client = stack.enter_context(town.client.make_socket(socket.AF_INET, 1))
            client.setblocking(False)
            dialled = client.connect_ex((town.vips["least-connections"], 80))
            assert dialled in (0, errno.EINPROGRESS)
        assert sum(town.live("least-connections").values()) == 40
    town.settle("least-connections", 0)


def test_a_drained_pod_keeps_its_connections_and_gets_nothing_new(town: Town):
    with opened(town) as (clients, _):
        had = town.live("least-connections")["web-0"]
        assert had
        said = town.system.sixfold("lb", "drain", "web-0").stdout
        assert f"draining, {had} connections" in said
        states = {one["endpoint"]: one for one in town.frontend("least-connections")["backends"]}
        assert states["default/web-0"]["state"] == "draining"
        assert states["default/web-0"]["connections"] == had
        for client in clients:
            client.close()
        town.system.sixfold("lb", "drain", "web-0", "--wait", "--timeout", "10")
    assert set(reached(town, "round-robin", 30)) == set(PODS) - {"web-0"}
    said = town.system.sixfold("explain", "client-0", "round-robin:80").stdout
    assert "3 of 4 endpoints ready" in said
    town.system.sixfold("lb", "drain", "web-0", "--undo")
    assert set(reached(town, "round-robin", 40)) == set(PODS)


def test_a_backend_that_comes_back_is_still_known_by_its_connections(town: Town):
    """Otherwise least connections would storm it."""
    with opened(town, 40) as (clients, _):
        before = town.live("least-connections")
        for _ in range(3):
            town.system.sixfold("lb", "drain", "web-0")
            town.system.sixfold("lb", "drain", "web-0", "--undo")
        assert town.live("least-connections") == before
        for client in clients:
            client.close()


def test_the_kernel_notices_who_ceases_to_listen_and_who_listens_again(town: Town):
    def deaf() -> set[int]:
        """Endpoints that are passed over at port 8080."""
        view = KernelDatapath.view(town.system.paths.instance)
        keys = [layout.DEAF_KEY.unpack(key) for key, _ in view.maps["deaf"].items()]
        return {endpoint for _, endpoint, port in keys if layout.unpack_port(port) == 8080}

    place = town.places["web-1"]
    before = deaf()
    with place.listen() as server:
        there = deaf()
        with town.client.dial(place.ipv4) as client, server.accept()[0]:
            assert deaf() == there, "a connection is none"
            client.close()
    (gone,) = deaf() - there
    assert gone not in there
    assert before <= there | {gone}
    with place.listen():
        assert gone not in deaf()


def test_who_refuses_is_passed_over(town: Town):
    deaf = KernelDatapath.view(town.system.paths.instance).maps["deaf"]
    deaf.delete([key for key, _ in deaf.items()])
    with ExitStack() as stack:
        for name, place in town.places.items():
            if name.startswith("web") and name != "web-2":
                stack.enter_context(place.listen())
        tried = [town.client.answer(town.vips["round-robin"], 80)]
        while tried[-1] == "open":
            tried.append(town.client.answer(town.vips["round-robin"], 80))
        assert len(tried) <= len(PODS)
        assert tried[-1] == "ECONNREFUSED"
        ((key, _),) = deaf.items()
        assert layout.DEAF_KEY.unpack(key)[2] == layout.pack_port(8080)
        assert town.client.answer(town.vips["round-robin"], 80) == "open"


def test_clients_of_a_vanished_backend_are_told_and_dial_again(town: Town):
    """Its servers are sockets of this test, which say nothing when the pod goes; UDP never does."""
    names = ("gone-0", "gone-1")
    pods = [pod(name, labels={"app": "gone"}) for name in names]
    town.system.apply(manifest(*pods, balanced("gone", "round-robin", "gone")), "--wait")
    vip = town.system.json("get", "svc", "gone")["spec"]["clusterIP"]
    kinds = [socket.SOCK_STREAM, socket.SOCK_STREAM, DGRAM, DGRAM]
    with ExitStack() as stack:
        for place in places_of(town.system, *names):
            stack.enter_context(place.listen())
            stack.enter_context(place.listen(kind=DGRAM))
        clients = [stack.enter_context(town.client.dial(vip, 80, kind=kind)) for kind in kinds]
        for client in clients:
            client.send(b"?")
        town.system.sixfold("delete", "pod", "gone-0")
        errors = [_outcome(client) for client in clients]
        assert sorted(errors[:2]) == sorted(errors[2:]) == ["ECONNABORTED", "open"]
        for kind in kinds:
            with town.client.dial(vip, 80, kind=kind) as client:
                client.send(b"?")
                assert _outcome(client) == "open"
    town.system.sixfold("delete", "svc/gone", "pod/gone-1")


def _outcome(client: socket.socket) -> str:
    """ "open" when nothing comes, or the error that does."""
    client.settimeout(0.3)
    try:
        client.recv(1)
    except TimeoutError:
        return "open"
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "closed"


LINGER = """
import signal, socket, time
signal.signal(signal.SIGTERM, lambda *_: None)
server = socket.create_server(("", 8080))
while True: server.accept()[0].close()
"""


def test_when_all_endpoints_terminate_they_are_still_used(town: Town):
    container = {
        "command": ["python3", "-c", LINGER],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    last = pod("last", container=container, terminationGracePeriodSeconds=20)
    town.system.apply(manifest(last, service("last", ports=PORTS)), "--wait")
    vip = town.system.json("get", "svc", "last")["spec"]["clusterIP"]
    town.system.sixfold("delete", "pod", "last", "--no-wait")
    town.system.eventually(lambda: town.frontend("last")["backends"][0]["state"] == "terminating")
    assert town.client.answer(vip, 80) == "open"
    explained = town.system.sixfold("explain", "client-0", "last:80").stdout
    assert "no endpoint is ready: the 1 terminating that still serve are used" in explained
    town.system.sixfold("delete", "pod", "last", "--grace-period", "0")
    assert town.client.answer(vip, 80) == "ECONNREFUSED"


def test_explain_and_describe_say_which_algorithm_and_why(town: Town):
    explained = town.system.sixfold("explain", "client-0", "heavy-round-robin:80").stdout
    line = next(line for line in explained.splitlines() if line.startswith("balancing"))
    assert "annotation sixfold.dev/lb-algorithm, weights 5:3:1; 3 of 4 endpoints ready" in line
    assert line.split()[1] == "round-robin"
    described = town.system.sixfold("describe", "svc", "maglev").stdout
    assert "80/TCP maglev (annotation sixfold.dev/lb-algorithm)" in described


def test_a_change_of_algorithm_holds_at_once(town: Town):
    town.system.apply(manifest(balanced("random", "round-robin", "web")))
    try:
        assert reached(town, "random", 20) == dict.fromkeys(PODS, 5)
    finally:
        town.system.apply(manifest(balanced("random", "random", "web")))
