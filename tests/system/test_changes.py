"""A change of policy bites at once: open connections included, and nothing else.

Zero-trust posture. ``caller`` may reach ``server``; a change takes that away, and both ends learn
of it without sending anything. Nothing that is allowed before and after loses a packet.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sixfold.cli.client import Client

from .conftest import System
from .places import (
    FAMILIES,
    OPEN,
    WAIT_S,
    Place,
    labelled,
    manifest,
    place_of,
    pod,
    policy,
    received,
    service,
)

pytestmark = pytest.mark.root

CHANGES = 200
NAMES = ("caller", "server", "other")
LET = [
    policy("server", {"app": "server"}, ingress=[{"from": [labelled(app="caller")]}]),
    policy("others", {"app": "other"}, **OPEN),
    policy("caller", {"app": "caller"}, **OPEN),
]


@dataclass
class Lab:
    system: System
    places: dict[str, Place]

    @property
    def host(self) -> Place:
        return Place(self.system.host, "10.244.0.1", "fd00:5f:244::1")

    def let(self, *more: dict[str, Any]) -> None:
        """What was at first, but for these."""
        named = {one["metadata"]["name"]: one for one in (*LET, *more)}
        self.apply(*named.values())

    def apply(self, *objects: dict[str, Any]) -> None:
        """Returns when it is in force."""
        body = {"objects": list(objects), "sources": []}
        Client(self.system.paths.api_socket).post("/v1/apply", body)

    def deny(self) -> None:
        """Nobody reaches the server any more."""
        self.apply(policy("server", {"app": "server"}, policyTypes=["Ingress"], ingress=[]))

    def cut_flows(self) -> list[dict[str, Any]]:
        flows = self.system.flows("--verdict", "DROPPED", "--last", "100")
        return [flow for flow in flows if flow["sixfold"].get("connection") == "cut"]


@pytest.fixture(scope="module")
def lab(module_system: System) -> Lab:
    made = [pod(name) for name in NAMES]
    module_system.up(manifest=manifest(*made, *LET, service("server", ports=[{"port": 80}])))
    return Lab(module_system, {name: place_of(module_system, f"default/{name}") for name in NAMES})


@pytest.fixture(autouse=True)
def policies(lab: Lab) -> Iterator[None]:
    lab.let()
    yield
    lab.let()


def ends_of(server: Place, client: Place, version: int = 4) -> tuple[socket.socket, socket.socket]:
    with server.listen(version=version) as listener:
        caller = client.dial(server.address(version))
        accepted, _ = listener.accept()
    accepted.settimeout(WAIT_S)
    return caller, accepted


def assert_cut(*ends: socket.socket) -> None:
    """They hear of it, although nobody sends anything."""
    for end in ends:
        with pytest.raises(ConnectionError):
            end.recv(1)
        end.close()


@FAMILIES
def test_both_ends_of_a_connection_learn_at_once(lab: Lab, version: int):
    ends = ends_of(lab.places["server"], lab.places["caller"], version)
    before = len(lab.cut_flows())
    lab.deny()
    assert_cut(*ends)
    flow = lab.cut_flows()[before:][-1]
    assert flow["source"]["pod_name"] == "caller"
    assert flow["ingress_denied_by"][0]["labels"] == ["sixfold:because=default/server"]
    assert "default-deny" in flow["sixfold"]["rule"]


def test_the_clients_own_policy_cuts_too(lab: Lab):
    ends = ends_of(lab.places["server"], lab.places["caller"])
    lab.apply(policy("caller", {"app": "caller"}, policyTypes=["Egress"], egress=[]))
    assert_cut(*ends)
    assert lab.cut_flows()[-1]["egress_denied_by"][0]["name"] == "default-deny"


def test_a_connection_from_the_host_is_cut(lab: Lab):
    lab.let(policy("server", {"app": "server"}, ingress=[{}]))
    ends = ends_of(lab.places["server"], lab.host)
    lab.deny()
    assert_cut(*ends)


def test_a_connected_datagram_socket_learns_too_and_its_server_lives(lab: Lab):
    server = lab.places["server"].listen(9000, kind=socket.SOCK_DGRAM)
    client = lab.places["caller"].dial(lab.places["server"].ipv4, 9000, kind=socket.SOCK_DGRAM)
    client.send(b"one")
    assert server.recv(10) == b"one"
    lab.deny()
    assert_cut(client)
    assert received(server) is None
    lab.let()
    with lab.places["caller"].dial(
        lab.places["server"].ipv4, 9000, kind=socket.SOCK_DGRAM
    ) as again:
        again.send(b"two")
        assert received(server, WAIT_S) == b"two"
    server.close()


def test_listeners_and_other_connections_go_on(lab: Lab):
    with lab.places["server"].listen() as listener:
        lab.let(
            policy(
                "server",
                {"app": "server"},
                ingress=[{"from": [labelled(app="caller")]}, {"from": [labelled(app="other")]}],
            )
        )
        denied = lab.places["caller"].dial(lab.places["server"].ipv4)
        kept = lab.places["other"].dial(lab.places["server"].ipv4)
        accepted = [listener.accept()[0] for _ in range(2)]
        lab.let(policy("server", {"app": "server"}, ingress=[{"from": [labelled(app="other")]}]))
        assert_cut(denied, accepted[0])
        kept.sendall(b"still here")
        assert accepted[1].recv(20) == b"still here"
        lab.let()
        lab.places["caller"].dial(lab.places["server"].ipv4).close()
        kept.close()
        accepted[1].close()


def test_a_connection_that_died_with_its_pod_is_not_called_cut(lab: Lab):
    lab.system.apply(manifest(pod("brief")), "--wait")
    lab.let(policy("brief", {"app": "brief"}, **OPEN))
    ends = ends_of(lab.places["other"], place_of(lab.system, "default/brief"))
    before = len(lab.cut_flows())
    lab.system.sixfold("delete", "pod", "brief")
    lab.deny()
    lab.let()
    assert len(lab.cut_flows()) == before
    for end in ends:
        end.close()
    lab.system.sixfold("delete", "netpol", "brief")


def rewrite_policies(lab: Lab, played: list[int]) -> None:
    """Each change is met by a turn."""
    for number in range(CHANGES // 2):
        ports = [
            {"port": 8080},
            {"port": 80},
            {"port": 9000, "protocol": "UDP"},
            {"port": 1000 + number},
        ]
        peers = {"from": [labelled(app="caller")]}
        server = policy("server", {"app": "server"}, ingress=[{**peers, "ports": ports}])
        caller = policy("caller", {"app": "caller"}, **{**OPEN, "egress": [{"ports": ports}, {}]})
        for changed in (server, caller):
            before = len(played)
            lab.let(changed)
            lab.system.eventually(lambda before=before: len(played) > before, "a turn", 0.001)


def test_what_stays_allowed_loses_no_packet_in_two_hundred_changes(lab: Lab):
    """Change by change, policies of both ends are written anew.

    A stream as fast as it goes, a datagram there for each turn, and for each turn a request over
    a connection of its own, through the service.
    """
    client, server = ends_of(lab.places["server"], lab.places["caller"])
    datagrams = lab.places["server"].listen(9000, kind=socket.SOCK_DGRAM)
    sender = lab.places["caller"].dial(lab.places["server"].ipv4, 9000, kind=socket.SOCK_DGRAM)
    listener = lab.places["server"].listen(80)
    frontend = lab.system.json("get", "service", "server")["spec"]["clusterIP"]
    done = threading.Event()
    before = dropped(lab)
    played: list[int] = []  # a client's port for each turn
    streamed: list[int] = []

    def stream() -> None:
        count = 0
        while not done.is_set():
            client.sendall(bytes(16384))
            count += 1
        client.shutdown(socket.SHUT_WR)
        streamed.append(count * 16384)

    def drain() -> None:
        count = 0
        while part := server.recv(65536):
            count += len(part)
        streamed.append(count)

    def ask() -> None:
        while not done.is_set():
            sender.send(b"x")
            assert datagrams.recv(1) == b"x"  # a loss is a timeout
            with lab.places["caller"].dial(frontend, 80) as asking:
                answering, _ = listener.accept()
                with answering:
                    asking.sendall(b"?")
                    assert answering.recv(1) == b"?"
                    answering.sendall(b"!")
                    assert asking.recv(1) == b"!"
                    played.append(asking.getsockname()[1])

    players = [threading.Thread(target=play) for play in (stream, drain, ask)]
    for player in players:
        player.start()
    try:
        rewrite_policies(lab, played)
    finally:
        done.set()
        for player in players:
            player.join()
    assert len(set(streamed)) == 1, "every byte has come"
    assert dropped(lab) == before
    for sock in (client, server, datagrams, sender, listener):
        sock.close()


def dropped(lab: Lab) -> dict[str, int]:
    """How many packets so far, by reason; what a pod's kernel says to all its neighbours aside."""
    rows = lab.system.json("bpf", "metrics", "list")
    found = {row["counter"]: row["count"] for row in rows if row["counter"].startswith("drop_")}
    found.pop("drop_multicast", None)
    return found


def test_cuts_are_counted(lab: Lab):
    ends = ends_of(lab.places["server"], lab.places["caller"])
    before = lab.system.status()["drops"].get("connections_cut", 0)
    lab.deny()
    assert_cut(*ends)
    assert lab.system.status()["drops"]["connections_cut"] > before


def test_policies_show_how_often_each_rule_decided(lab: Lab):
    def shown() -> dict[str, int]:
        found = lab.system.json("get", "netpol", "server")
        return {each["rule"]: each["hits"] for each in found["status"]["rules"]}

    before = shown()
    with lab.places["server"].listen():
        assert lab.places["caller"].answer(lab.places["server"].ipv4) == "open"
        assert lab.places["other"].attempt(lab.places["server"].ipv4) == "timeout"
    after = shown()
    assert after["ingress[0]"] == before.get("ingress[0]", 0) + 1
    assert after["ingress default-deny"] > before.get("ingress default-deny", 0)
    header, row = lab.system.sixfold("get", "netpol", "server", "-o", "wide").stdout.splitlines()
    assert dict(zip(header.split(), row.split(), strict=True))["HITS"] == str(sum(after.values()))
    listed = lab.system.json("bpf", "policy", "list", "--pod", "default/server")
    assert after["ingress[0]"] in [each["hits"] for each in listed if each["action"] == "allow"]
