"""Health, lifetimes and endings of backends: real sockets through one stack."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from sixfold.cli.client import Client

from .conftest import System
from .places import OPEN, WAIT_S, Place, manifest, places_of, pod, policy, received, service

pytestmark = pytest.mark.root

EXT = ("Service", "EndpointSlice")
BEYOND = ("198.51.100.1", "198.51.100.2", "198.51.100.3")
LOST = ["ECONNABORTED", "open"]
PODS = ("web-0", "web-1")
PORTS = [{"name": "tcp", "port": 80, "targetPort": 8080}]
LASTING = [{**PORTS[0], "targetPort": 8081}]


@dataclass
class Town:
    system: System
    client: Place
    places: dict[str, Place]
    vips: dict[str, str]
    flag: Path
    lasting: list[socket.socket]  # held open, through service ``lasting``

    @contextmanager
    def serving(self, *names: str) -> Iterator[list[socket.socket]]:
        with ExitStack() as stack:
            yield [stack.enter_context(self.places[name].listen()) for name in names or PODS]

    @property
    def api(self) -> Client:
        return Client(self.system.paths.api_socket)

    def frontend(self, name: str) -> dict:
        asked = {"namespace": "default", "service": name}
        return self.api.get("/v1/balancing", asked)["frontends"][0]

    def apply(self, *objects: dict) -> None:
        """As the command does, without starting Python for it."""
        self.api.post("/v1/apply", {"objects": list(objects)})

    def why(self, name: str) -> str:
        """What ``explain`` says of balancing."""
        asked = {"from": "client", "to": name, "port": 80, "namespace": "default"}
        lines = self.api.post("/v1/explain", asked)["lines"]
        return next(line["detail"] for line in lines if line["pattern"] == "balancing")


def annotated(made: dict, **annotations: str) -> dict:
    """With annotations of ours: ``lb_algorithm`` is ``sixfold.dev/lb-algorithm``."""
    written = {f"sixfold.dev/{key.replace('_', '-')}": one for key, one in annotations.items()}
    made["metadata"]["annotations"] = written
    return made


@pytest.fixture(scope="module")
def town(module_system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    module_system.up(
        manifest=manifest(
            pod("client"),
            *(pod(name, labels={"app": "web"}) for name in PODS),
            service("web", ports=PORTS),
            annotated(
                service("rotating", selector={"app": "web"}, ports=LASTING), lb_algorithm="random"
            ),
            service("lasting", selector={"app": "web"}, ports=LASTING),
            policy("open", None, **OPEN),
        )
    )
    names = ("client", *PODS)
    places = dict(zip(names, places_of(module_system, *names), strict=True))
    items = module_system.json("get", "svc")["items"]
    vips = {item["metadata"]["name"]: item["spec"]["clusterIP"] for item in items}
    client = places.pop("client")
    with ExitStack() as stack:
        # What lives long is found out while the other tests run.
        for name in PODS:
            stack.enter_context(places[name].listen(8081))
        lasting = [stack.enter_context(client.dial(vips["lasting"], 80)) for _ in range(12)]
        flag = tmp_path_factory.mktemp("flags") / "well"
        yield Town(module_system, client, places, vips, flag, lasting)


def test_what_was_recorded_is_compared(town: Town):
    """Arrivals from the flow log, ends from conntrack; some are open still."""
    with town.serving(), ExitStack() as stack:
        for _ in range(25):
            town.client.dial(town.vips["web"], 80).close()
        for _ in range(5):
            stack.enter_context(town.client.dial(town.vips["web"], 80))
        said = town.system.sixfold("lb", "compare", "web").stdout
    assert "30 recorded" in said
    assert "5 of them still open" in said
    assert "backends     2" in said


# --- backends that are no pods: addresses of the host, asked by the agent ---------------------


def outside(name: str, check: str, **annotations: str) -> list[dict]:
    """A service of the addresses beyond, over TCP and UDP, each its slice's."""
    ports = [{"name": "tcp", "port": 80}, {"name": "udp", "port": 80, "protocol": "UDP"}]
    made = service(name, ports=ports, selector={}, ipFamilyPolicy="SingleStack")
    made = annotated(made, lb_algorithm="round-robin", lb_health_check=check, **annotations)
    return [made, slice_of(name, *BEYOND)]


def slice_of(name: str, *addresses: str) -> dict:
    numbers = [{"name": "tcp", "port": 9000}, {"name": "udp", "port": 9000, "protocol": "UDP"}]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]} for address in addresses],
        "ports": numbers,
    }


@dataclass
class Beyond:
    """Servers on the host's addresses, to be opened and closed one by one."""

    town: Town
    open: dict[str, socket.socket]

    def start(self, *addresses: str) -> None:
        for address in addresses:
            host = Place(self.town.system.host, address, "")
            self.open[address] = sock = host.make_socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, 9000))
            sock.listen(256)

    def stop(self, *addresses: str) -> None:
        for address in addresses:
            self.open.pop(address).close()

    def states(self, name: str) -> dict[str, str]:
        return {one["address"]: one["state"] for one in self.town.frontend(name)["backends"]}

    def settle(self, name: str, *healthy: str) -> None:
        wanted = {a: "active" if a in healthy else "unhealthy" for a in BEYOND}
        self.town.system.eventually(
            lambda: self.states(name) == wanted, f"{self.states(name)}, wanted {wanted}"
        )

    def reached(self, vip: str, count: int = 12) -> dict[str, int]:
        """Where connections arrive, by what the server's end says of itself."""
        found: Counter[str] = Counter()
        for _ in range(count):
            with self.town.client.dial(vip, 80) as sock:
                found[self._arrival(sock.getsockname())] += 1
        return dict(found)

    def _arrival(self, client: tuple[str, int]) -> str:
        """Where it arrives; checks are among the connections."""
        while True:
            readable, _, _ = select.select([*self.open.values()], [], [], WAIT_S)
            assert readable, "nowhere"
            for address, server in self.open.items():
                if server in readable:
                    end, peer = server.accept()
                    end.close()
                    if peer == client:
                        return address


@pytest.fixture
def beyond(town: Town) -> Iterator[Beyond]:
    for address in BEYOND:
        town.system.on_host("ip", "addr", "replace", f"{address}/32", "dev", "lo")
    made = Beyond(town, {})
    yield made
    made.stop(*list(made.open))
    keys = [{"kind": kind, "namespace": "default", "name": "ext"} for kind in EXT]
    town.api.post("/v1/delete", {"keys": keys})


TCP_CHECK = "{tcpSocket: {}, periodSeconds: 1, failureThreshold: 1}"


def test_backends_that_fail_their_check_get_nothing_until_they_pass_it(town: Town, beyond: Beyond):
    one, two, three = BEYOND
    beyond.start(one, two)
    town.apply(*outside("ext", TCP_CHECK))
    beyond.settle("ext", one, two)
    vip = town.frontend("ext")["address"]
    assert beyond.reached(vip) == {one: 6, two: 6}
    listed = town.system.sixfold("lb", "list", "ext", "-o", "wide").stdout
    assert f"{three}:9000   unhealthy" in listed
    assert "ECONNREFUSED" in listed
    assert "unhealthy: tcp" in town.system.sixfold("describe", "svc", "ext").stdout
    assert f"health: default/ext: {three} port 9000 is unhealthy" in town.system.agent_log()
    # Without an agent what was found out last stays in force, and the next one knows it.
    os.kill(town.system.agent_pid(), signal.SIGKILL)
    assert beyond.reached(vip) == {one: 6, two: 6}
    town.system.up()
    assert beyond.reached(vip) == {one: 6, two: 6}
    beyond.start(three)
    beyond.settle("ext", *BEYOND)
    assert beyond.reached(vip) == dict.fromkeys(BEYOND, 4)


def test_when_none_is_healthy_all_are_used_unless_told_to_refuse(town: Town, beyond: Beyond):
    beyond.start(*BEYOND)
    check = "{exec: {command: [sh, -c, 'test -e $0-$BACKEND_ADDRESS', " + str(town.flag)
    check += "]}, periodSeconds: 1, failureThreshold: 1}"
    town.apply(*outside("ext", check))
    town.system.eventually(
        lambda: town.api.get("/v1/status")["patterns"][1]["state"] == "panic", "panic in status"
    )
    vip = town.frontend("ext")["address"]
    assert beyond.reached(vip) == dict.fromkeys(BEYOND, 4)
    assert "panic" in town.system.sixfold("lb", "list", "ext").stdout
    assert "panic: 0 of 3 healthy, so all are used" in town.why("ext")
    assert "balancing: panic: default/ext: 0 of 3 healthy" in town.system.agent_log()
    town.apply(*outside("ext", check, lb_panic_threshold="fail"))
    assert town.client.answer(vip, 80) == "ECONNREFUSED"
    assert "refused at once: none of 3 is healthy" in town.why("ext")
    town.flag.with_name(f"{town.flag.name}-{BEYOND[1]}").touch()
    beyond.settle("ext", BEYOND[1])
    assert beyond.reached(vip) == {BEYOND[1]: 12}
    # One of three is fewer than half: the threshold has all of them used again.
    town.apply(*outside("ext", check, lb_panic_threshold="50"))
    assert beyond.reached(vip) == dict.fromkeys(BEYOND, 4)


def test_connected_udp_to_a_backend_that_is_lost_is_cut_and_dials_another(
    town: Town, beyond: Beyond
):
    """TCP keeps what it has while the backend is listed; off the slice, it is cut as well."""
    one, two, _ = BEYOND
    beyond.start(one, two)
    town.apply(*outside("ext", TCP_CHECK))
    beyond.settle("ext", one, two)
    vip = town.frontend("ext")["address"]
    host = Place(town.system.host, "", "")
    with ExitStack() as stack:
        servers = {}
        for address in (one, two):
            servers[address] = host.make_socket(socket.AF_INET, socket.SOCK_DGRAM)
            stack.enter_context(servers[address]).bind((address, 9000))
        free = [town.client.make_socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(4)]
        for sock in free:
            stack.enter_context(sock).sendto(b"before", (vip, 80))
        for address in (one, two):
            assert [received(servers[address]) for _ in range(2)] == [b"before"] * 2
        places = [town.client, host]
        kinds = [socket.SOCK_STREAM, socket.SOCK_DGRAM]
        pairs = [(place, kind) for place in places for kind in kinds for _ in range(2)]
        ends = [stack.enter_context(place.dial(vip, 80, kind=kind)) for place, kind in pairs]
        for end in ends:
            end.send(b"?")
        for server in beyond.open.values():
            server.setblocking(False)
            with suppress(BlockingIOError):
                while True:  # checks are among them
                    stack.enter_context(server.accept()[0])
        beyond.stop(two)
        beyond.settle("ext", one)
        town.system.eventually(lambda: heard(ends) == 2, "one of each pair over UDP is cut")
        pairs_of_outcomes = [sorted(map(outcome, ends[at : at + 2])) for at in range(0, 8, 2)]
        assert pairs_of_outcomes == [["open", "open"], LOST, ["open", "open"], LOST]
        # What is not connected finds another by itself.
        for sock in free:
            sock.sendto(b"after", (vip, 80))
        said = [received(servers[one]) for _ in range(8)]
        assert said.count(b"after") == 4
        assert b"after" not in [received(servers[two]) for _ in range(5)]
        town.apply(slice_of("ext", one))
        town.system.eventually(lambda: heard([*ends[:2], *ends[4:6]]) == 2, "so is TCP")
        assert [sorted(map(outcome, ends[at : at + 2])) for at in (0, 4)] == [LOST, LOST]


def heard(sockets: list[socket.socket]) -> int:
    """How many have something to say: here their end."""
    return len(select.select(sockets, [], [], 0)[0])


def outcome(client: socket.socket) -> str:
    """ "open" when nothing comes, or the error that does."""
    client.settimeout(0.2)
    try:
        return "closed" if not client.recv(1) else "answered"
    except TimeoutError:
        return "open"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def test_a_pod_that_comes_back_gets_its_share_slowly(town: Town):
    slow = service("web", ports=PORTS)
    town.apply(annotated(slow, lb_algorithm="round-robin", lb_slow_start="10m"))
    assert {one["weight"] for one in town.frontend("web")["backends"]} == {1}
    town.system.sixfold("lb", "drain", "web-0")
    town.apply(pod("web-0", labels={"app": "web"}))  # that ends no drain
    states = {one["endpoint"]: one["state"] for one in town.frontend("web")["backends"]}
    assert states == {"default/web-0": "draining", "default/web-1": "active"}
    town.system.sixfold("lb", "drain", "web-0", "--undo")
    states = {one["endpoint"]: one for one in town.frontend("web")["backends"]}
    assert states["default/web-0"]["state"] == "slow start"
    assert [states[f"default/{name}"]["weight"] for name in PODS] == [1, 10]
    with town.serving() as servers:
        for _ in range(22):
            town.client.dial(town.vips["web"], 80).close()
        counts = [0, 0]

        def all_there() -> bool:
            counts[:] = [n + accepted(it) for n, it in zip(counts, servers, strict=True)]
            return sum(counts) == 22

        town.system.eventually(all_there, f"{counts}")
    assert counts == [2, 20]
    town.apply(service("web", ports=PORTS))
    assert {one["weight"] for one in town.frontend("web")["backends"]} == {1}


def accepted(server: socket.socket) -> int:
    server.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            count += 1
    return count


def test_connections_that_are_seen_to_live_long_get_least_connections(town: Town):
    """Last: it takes ten seconds of them. They go on, and the next agent knows it, too."""
    found = town.system.eventually(
        lambda: (one := town.frontend("lasting"))["algorithm"] != "random" and one,
        "least-connections, as they last",
    )
    assert found["algorithm"] == "least-connections"
    assert "seen: its connections live long" in found["why"]
    assert town.frontend("web")["algorithm"] == "random"
    for sock in town.lasting:
        sock.settimeout(0.01)
        with pytest.raises(TimeoutError):
            sock.recv(1)
    # Who rotates over the same backends all the same is told so, and that one alone.
    audit = json.loads(town.system.sixfold("audit", "--rule", "Z23", "-o", "json").stdout)
    assert [one["about"] for one in audit] == ["default/Service/rotating"]
    assert "on average" in audit[0]["evidence"]
    os.kill(town.system.agent_pid(), signal.SIGKILL)
    town.system.up()
    assert "seen: its connections live long" in town.why("lasting")
    described = town.system.sixfold("describe", "svc", "lasting").stdout
    assert "80/TCP least-connections (seen: its connections live long" in described
    assert "last" in town.system.agent_log()
