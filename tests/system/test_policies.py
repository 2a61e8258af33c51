"""NetworkPolicy on real traffic: the semantics that implementations get wrong, then its changes.

Every case is a pod with a policy of its own. Nothing listens anywhere: who reaches a pod is
refused, who does not hears nothing. The posture is ``kubernetes``, so that what no policy selects
is open, as upstream says. Rules are cited from networking.k8s.io/v1.
"""

from __future__ import annotations

import errno
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from sixfold.cli.client import Client

from .conftest import System
from .places import (
    FAMILIES,
    WAIT_S,
    Place,
    block,
    labelled,
    manifest,
    places_of,
    pod,
    policy,
    received,
)

pytestmark = pytest.mark.root

SCTP = 132
LISTEN_S = 0.6  # of silence: who has not been refused by then is not heard
CLIENTS = ("friend", "stranger", "plain", "foreign")
PLACES = ("friend", "stranger", "plain", "twin", "caller")
PORTS = ("8080", "8081", "8082", "8080/udp")
EVERY = frozenset(PORTS)
NOBODY: dict[str, frozenset[str]] = {}
FRIEND = labelled(role="friend")
FOREIGN = {"namespaceSelector": {"matchLabels": {"team": "foreign"}}}


def every(*names: str, ports: frozenset[str] = EVERY) -> dict[str, frozenset[str]]:
    return dict.fromkeys(names, ports)


def these(*ports: str) -> frozenset[str]:
    return frozenset(ports)


@dataclass(frozen=True)
class Case:
    """A policy for one pod, and who then reaches which of its ports."""

    spec: dict[str, Any] | None
    reached: dict[str, frozenset[str]]
    out: bool = True  # whether the pod itself gets out


ALL = every(*CLIENTS)
CASES = {
    "no policy selects it": Case(None, ALL),
    "a policy without types and rules denies all ingress": Case({}, NOBODY),
    "ingress [] denies all ingress": Case({"ingress": []}, NOBODY),
    "one empty rule allows everything": Case({"ingress": [{}]}, ALL),
    "from [] is anybody": Case(
        {"ingress": [{"from": [], "ports": [{"port": 8080}]}]},
        every(*CLIENTS, ports=these("8080")),
    ),
    "ports [] is every port and protocol": Case(
        {"ingress": [{"from": [FRIEND], "ports": []}]}, every("friend")
    ),
    "types Egress makes an ingress block inert": Case(
        {"policyTypes": ["Egress"], "ingress": [{"from": [FRIEND]}]}, ALL, out=False
    ),
    "egress [] without types isolates ingress only": Case({"egress": []}, NOBODY),
    "an egress rule without types isolates both ways": Case(
        {"egress": [{"to": [labelled(role="nobody")]}]}, NOBODY, out=False
    ),
    "types Egress alone denies all egress": Case({"policyTypes": ["Egress"]}, ALL, out=False),
    "NotIn matches a pod without the key": Case(
        {
            "ingress": [
                {
                    "from": [
                        {
                            "podSelector": {
                                "matchExpressions": [
                                    {"key": "role", "operator": "NotIn", "values": ["friend"]}
                                ]
                            }
                        }
                    ]
                }
            ]
        },
        every("stranger", "plain"),
    ),
    "a pod selector alone means the policy's namespace": Case(
        {"ingress": [{"from": [{"podSelector": {}}]}]}, every("friend", "stranger", "plain")
    ),
    "a namespace selector alone means all its pods": Case(
        {"ingress": [{"from": [FOREIGN]}]}, every("foreign")
    ),
    "two selectors in one peer must both match": Case(
        {"ingress": [{"from": [{**FOREIGN, **labelled(role="stranger")}]}]}, NOBODY
    ),
    "two peers are alternatives": Case(
        {"ingress": [{"from": [FOREIGN, labelled(role="stranger")]}]},
        every("foreign", "stranger"),
    ),
    "a namespace has its name as a label": Case(
        {
            "ingress": [
                {
                    "from": [
                        {
                            "namespaceSelector": {
                                "matchLabels": {"kubernetes.io/metadata.name": "other"}
                            }
                        }
                    ]
                }
            ]
        },
        every("foreign"),
    ),
    "endPort is inclusive": Case(
        {"ingress": [{"ports": [{"port": 8080, "endPort": 8081}]}]},
        every(*CLIENTS, ports=these("8080", "8081")),
    ),
    "a port without protocol is TCP": Case(
        {"ingress": [{"ports": [{"port": 8080}]}]}, every(*CLIENTS, ports=these("8080"))
    ),
    "a protocol without port is every port of it": Case(
        {"ingress": [{"ports": [{"protocol": "UDP"}]}]}, every(*CLIENTS, ports=these("8080/udp"))
    ),
    "a policy for SCTP isolates TCP and UDP": Case(
        {"ingress": [{"ports": [{"port": 8080, "protocol": "SCTP"}]}]}, NOBODY
    ),
    "a named port is this pod's": Case(
        {"ingress": [{"ports": [{"port": "web"}]}]}, every(*CLIENTS, ports=these("8081"))
    ),
    "a named port of another protocol is none": Case(
        {"ingress": [{"ports": [{"port": "web", "protocol": "UDP"}]}]}, NOBODY
    ),
    "a port name that the pod lacks is none": Case(
        {"ingress": [{"ports": [{"port": "metrics"}]}]}, NOBODY
    ),
    "rules add up": Case(
        {
            "ingress": [
                {"from": [FRIEND], "ports": [{"port": 8080}]},
                {"from": [labelled(role="stranger")], "ports": [{"port": 8081}]},
            ]
        },
        {"friend": these("8080"), "stranger": these("8081")},
    ),
    "an ipBlock takes pods in, but for its holes": Case(
        {
            "ingress": [
                {
                    "from": [
                        block("10.244.0.0/16", "10.244.0.0/24"),
                        block("fd00:5f:244::/64", "fd00:5f:244::/120"),
                    ]
                }
            ]
        },
        NOBODY,
    ),
    "an ipBlock without holes takes pods in": Case(
        {"ingress": [{"from": [block("10.244.0.0/24"), block("fd00:5f:244::/120")]}]}, ALL
    ),
    "another rule fills an ipBlock's hole": Case(
        {
            "ingress": [
                {"from": [block("10.244.0.0/16", "10.244.0.0/24")]},
                {"from": [block("fd00:5f:244::/64", "fd00:5f:244::/120")]},
                {"from": [FRIEND]},
            ]
        },
        every("friend"),
    ),
}
TARGETS = {case: f"case-{number}" for number, case in enumerate(CASES)}
Reached = dict[str, dict[str, frozenset[str]]]


@dataclass
class Lab:
    system: System
    places: dict[str, Place]

    def change(self, *objects: dict[str, Any]) -> None:
        """Apply; returns when it is in force."""
        body = {"objects": list(objects), "sources": []}
        Client(self.system.paths.api_socket).post("/v1/apply", body)

    def remove(self, name: str) -> None:
        key = {"kind": "NetworkPolicy", "namespace": "default", "name": name}
        Client(self.system.paths.api_socket).post("/v1/delete", {"keys": [key]})


@pytest.fixture(scope="module")
def lab(module_system: System) -> Lab:
    ports = {"ports": [{"name": "web", "containerPort": 8081}]}
    targets = [pod(name, container=ports) for name in TARGETS.values()]
    policies = [
        policy(TARGETS[name], {"app": TARGETS[name]}, **case.spec)
        for name, case in CASES.items()
        if case.spec is not None
    ]
    module_system.up(
        *("--posture", "kubernetes"),
        manifest=manifest(
            namespace("other", team="foreign"),
            pod("friend", labels={"role": "friend"}),
            pod("stranger", labels={"role": "stranger"}),
            pod("plain"),
            pod("foreign", namespace="other", labels={"role": "friend"}),
            pod("twin", container={"ports": [{"name": "web", "containerPort": 8082}]}),
            pod("caller"),
            policy(
                "caller",
                {"app": "caller"},
                policyTypes=["Egress"],
                egress=[{"ports": [{"port": "web"}]}],
            ),
            *targets,
            *policies,
        ),
    )
    names = (*PLACES, "other/foreign", *TARGETS.values())
    found = places_of(module_system, *names)
    places = {name.rpartition("/")[2]: it for name, it in zip(names, found, strict=True)}
    places["host"] = Place(module_system.host, "10.244.0.1", "fd00:5f:244::1")
    return Lab(module_system, places)


def reached(questions: dict[Any, tuple[Place, str, str]]) -> set[Any]:
    """Which of these (from, to address, port) are refused by the destination: all at once."""
    found = set()
    sockets = {}
    with selectors.DefaultSelector() as selector:
        for key, (place, address, port) in questions.items():
            number, _, protocol = port.partition("/")
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            kind = socket.SOCK_DGRAM if protocol else socket.SOCK_STREAM
            sockets[key] = sock = place.make_socket(family, kind)
            sock.setblocking(False)
            code = sock.connect_ex((address, int(number)))
            assert code in (0, errno.EINPROGRESS), errno.errorcode[code]
            if protocol:
                sock.send(b"?")
            selector.register(sock, selectors.EVENT_READ, key)
        while heard := selector.select(LISTEN_S):
            for selected, _ in heard:
                sock = sockets[selected.data]
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                assert code == errno.ECONNREFUSED, errno.errorcode[code]
                found.add(selected.data)
                selector.unregister(sock)
    for sock in sockets.values():
        sock.close()
    return found


@pytest.fixture(scope="module", params=[4, 6], ids=["ipv4", "ipv6"])
def ingress(request: pytest.FixtureRequest, lab: Lab) -> set[tuple[str, str, str]]:
    """(case, client, port) of everything that is reached."""
    return reached(
        {
            (case, client, port): (
                lab.places[client],
                lab.places[target].address(request.param),
                port,
            )
            for case, target in TARGETS.items()
            for client in (*CLIENTS, "host")
            for port in PORTS
        }
    )


@pytest.mark.parametrize("name", CASES)
def test_ingress(ingress: set[tuple[str, str, str]], name: str):
    """``host``: traffic from a pod's own node is always allowed."""
    seen = {
        client: frozenset(port for case, who, port in ingress if (case, who) == (name, client))
        for client in CLIENTS
    }
    assert {client: ports for client, ports in seen.items() if ports} == CASES[name].reached


def test_the_node_reaches_every_pod(ingress: set[tuple[str, str, str]]):
    """NetworkPolicy: traffic to and from the node where a Pod is running is always allowed."""
    assert {(case, port) for case, who, port in ingress if who == "host"} == {
        (case, port) for case in CASES for port in PORTS
    }


@FAMILIES
def test_egress(lab: Lab, version: int):
    address = lab.places["plain"].address(version)
    found = reached({case: (lab.places[TARGETS[case]], address, "8080") for case in CASES})
    assert found == {case for case in CASES if CASES[case].out}


@FAMILIES
def test_a_pod_always_reaches_itself(lab: Lab, version: int):
    questions = {
        case: (lab.places[target], lab.places[target].address(version), "8080")
        for case, target in TARGETS.items()
    }
    assert reached(questions) == set(CASES)


def test_sctp_is_judged_by_its_own_rules(lab: Lab):
    """By hand, since not every kernel has it: common header, INIT chunk."""
    target = lab.places[TARGETS["a policy for SCTP isolates TCP and UDP"]]
    with (
        target.make_socket(socket.AF_INET, socket.SOCK_RAW, SCTP) as server,
        lab.places["friend"].make_socket(socket.AF_INET, socket.SOCK_RAW, SCTP) as client,
    ):
        for port in (8081, 8080):
            packet = struct.pack("!HHII", 1000, port, 0, 0) + bytes([1, 0, 0, 20]) + bytes(16)
            client.sendto(packet, (target.ipv4, 0))
        server.settimeout(WAIT_S)
        assert server.recv(100)[22:24] == struct.pack("!H", 8080)
        assert received(server) is None


@FAMILIES
def test_a_named_port_of_an_egress_rule_is_the_destinations(lab: Lab, version: int):
    target = TARGETS["no policy selects it"]  # "web" is 8081 there, and 8082 at twin
    found = reached(
        {
            (name, port): (lab.places["caller"], lab.places[name].address(version), port)
            for name in (target, "twin")
            for port in ("8081", "8082")
        }
    )
    assert found == {(target, "8081"), ("twin", "8082")}


def test_a_policy_follows_labels_of_pods_and_namespaces(lab: Lab):
    """Without a restart of any of them."""

    def callers() -> set[str]:
        names = ("plain", "foreign")
        return reached({it: (lab.places[it], lab.places["twin"].ipv4, "8082") for it in names})

    peers = [labelled(role="guest"), {"namespaceSelector": {"matchLabels": {"team": "guests"}}}]
    lab.change(policy("twin", {"app": "twin"}, ingress=[{"from": peers}]))
    assert callers() == set()
    lab.change(pod("plain", labels={"role": "guest"}))
    assert callers() == {"plain"}
    lab.change(namespace("other", team="guests"), pod("plain"))
    assert callers() == {"foreign"}
    lab.change(namespace("other", team="foreign"))
    assert callers() == set()
    lab.remove("twin")
    assert callers() == {"plain", "foreign"}


@FAMILIES
def test_an_open_connection_is_cut_when_a_policy_denies_it(lab: Lab, version: int):
    with connection(lab, version) as (client, server):
        client.sendall(b"one")
        assert server.recv(10) == b"one"
        lab.change(policy("twin", {"app": "twin"}, policyTypes=["Ingress"]))
        for end in (client, server):
            with pytest.raises(ConnectionError):
                end.recv(10)
        flow = lab.system.flows("--verdict", "DROPPED", "--last", "1")[0]
        assert flow["ingress_denied_by"][0]["name"] == "default-deny"
        lab.remove("twin")


def test_an_allowed_flow_loses_nothing_while_policies_change(lab: Lab):
    """Datagrams, which nobody sends again; policies that select its ends among them."""
    allow = {"ingress": [{"from": [FRIEND]}]}
    lab.change(policy("twin", {"app": "twin"}, **allow))
    echo = PingPong(lab.places["friend"], lab.places["twin"])

    def meets(change: Callable[[], None]) -> None:
        """Ten datagrams there and back after each."""
        change()
        goal = echo.count + 10
        lab.system.eventually(lambda: echo.lost or echo.count > goal, "datagrams go on", 0.001)

    with echo:
        for number in range(25):
            ports = [{"port": 1000 + number}]
            more = [
                policy("twin-more", {"app": "twin"}, ingress=[{"ports": ports}]),
                policy("stranger", {"app": "stranger"}, ingress=[{"ports": ports}]),
            ]
            twin = policy("twin", {"app": "twin"}, **allow, policyTypes=["Ingress"])
            meets(partial(lab.change, *more))
            meets(partial(lab.change, twin))
            meets(partial(lab.remove, "twin-more"))
    for name in ("twin", "stranger"):
        lab.remove(name)
    assert echo.lost == 0


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


@contextmanager
def connection(lab: Lab, version: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection from friend to twin."""
    with (
        lab.places["twin"].listen(version=version) as listener,
        lab.places["friend"].dial(lab.places["twin"].address(version)) as client,
    ):
        server, _ = listener.accept()
        with server:
            yield client, server


class PingPong:
    """One datagram at a time, there and back, as fast as it goes, until the block ends."""

    def __init__(self, client: Place, server: Place) -> None:
        self.count = self.lost = 0
        self._server = server.listen(9000, kind=socket.SOCK_DGRAM)
        self._client = client.dial(server.ipv4, 9000, kind=socket.SOCK_DGRAM)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._server.close()
        self._client.close()

    def _play(self) -> None:
        while not self._stop.is_set():
            try:
                self._client.send(b"ping")
                _, sender = self._server.recvfrom(10)
                self._server.sendto(b"pong", sender)
                self._client.recv(10)
                self.count += 1
            except TimeoutError:
                self.lost += 1
