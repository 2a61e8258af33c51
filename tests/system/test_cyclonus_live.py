"""The cyclonus suite on a running system: 256 changes, each followed by real probes.

Nine pods in three namespaces serve TCP and UDP on 80 and 81. Every step turns the system into
what the step says, by applying and deleting no more than what differs; then every pod probes
every other. The corpus lies beside the repository. SCTP is judged offline only
(``tests/policy/test_cyclonus.py``); the diagonal is left out: a pod always reaches itself.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sixfold.cli.client import Client

from .conftest import System
from .places import WAIT_S, Place, manifest, places_of, pod

pytestmark = pytest.mark.root

CASES = Path(__file__).parents[3] / "shared/corpora/cyclonus/cases.jsonl"
STEPS = 256
SERVED = [(protocol, port) for protocol in ("TCP", "UDP") for port in (80, 81)]
KINDS = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}
SETTLED_S = 0.05  # after the last answer that must come: one that must not would be here too
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: no TIME_WAIT piles up
BLOCKS = {  # the corpus's ranges around z's pods, in terms of our addresses
    "192.168.3.0/24": "10.244.0.8/29",
    "192.168.3.0/28": "10.244.0.8/30",
}
FIRST = [f"{namespace}/{name}" for namespace in "xyz" for name in "abc"]
CONTAINER_PORTS = [
    {"name": f"serve-{port}-{protocol.lower()}", "protocol": protocol, "containerPort": port}
    for port in (80, 81)
    for protocol in ("TCP", "UDP", "SCTP")
]

NETWORK_POLICY = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}

Key = tuple[str, str, str]  # kind, namespace, name
Flow = tuple[str, str, str, int]  # from, to, protocol, port


def objects_of(step: Mapping[str, Any]) -> dict[Key, dict[str, Any]]:
    """What a step says is there, as manifests."""
    found = []
    for name, labels in step["namespaces"].items():
        metadata = {"name": name, "labels": labels}
        found.append({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    for one in step["pods"]:
        namespace, name = one["pod"].split("/")
        made = pod(name, namespace=namespace, container={"ports": CONTAINER_PORTS})
        made["metadata"]["labels"] = one["labels"]
        found.append(made)
    for raw in step["policies"] or ():
        text = json.dumps({**NETWORK_POLICY, **raw})
        for theirs, ours in BLOCKS.items():
            text = text.replace(f'"{theirs}"', f'"{ours}"')
        found.append(json.loads(text))
    return {key_of(one): one for one in found}


def key_of(thing: Mapping[str, Any]) -> Key:
    metadata = thing["metadata"]
    return thing["kind"], metadata.get("namespace", ""), metadata["name"]


def expected_of(step: Mapping[str, Any]) -> dict[Flow, bool]:
    names = [one["pod"] for one in step["pods"]]
    return {
        (source, destination, protocol, port): mark == "1"
        for protocol, port in SERVED
        for source, row in zip(names, step["expected"][f"{protocol}/{port}"], strict=True)
        for destination, mark in zip(names, row, strict=True)
        if source != destination
    }


@dataclass
class Suite:
    """The running system, as the step before left it, and a server in each of its pods."""

    system: System
    present: dict[Key, dict[str, Any]] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    servers: dict[str, list[socket.socket]] = field(default_factory=dict)

    def become(self, step: Mapping[str, Any]) -> None:
        """Apply and delete what differs; returns when all of it is in force."""
        wanted = objects_of(step)
        changed = [one for key, one in wanted.items() if self.present.get(key) != one]
        gone = [key for key in self.present if key not in wanted]
        client = Client(self.system.paths.api_socket)
        if changed:
            body = {"objects": changed, "wait": True, "timeout_s": 20}
            client.post("/v1/apply", body)
        if gone:
            keys = [dict(zip(("kind", "namespace", "name"), key, strict=True)) for key in gone]
            client.post("/v1/delete", {"keys": keys, "wait": True, "ignore_missing": True})
        if any(key[0] == "Pod" for key in gone) or any(one["kind"] == "Pod" for one in changed):
            self._serve([one["pod"] for one in step["pods"]])
        self.present = wanted

    def _serve(self, pods: list[str]) -> None:
        """Servers in pods that are new; a pod that was replaced is new."""
        self.places, before = (
            dict(zip(pods, places_of(self.system, *pods), strict=True)),
            (self.places),
        )
        for name in [one for one in self.servers if self.places.get(one) != before.get(one)]:
            for server in self.servers.pop(name):
                server.close()
        for name in pods:
            if name not in self.servers:
                self.servers[name] = [
                    self.places[name].listen(port, kind=KINDS[protocol])
                    for protocol, port in SERVED
                ]

    def probe(self, expected: Mapping[Flow, bool]) -> dict[Flow, bool]:
        """Who reaches whom: all at once, until everybody who should has, and a little longer."""
        missing = {flow for flow, reaches in expected.items() if reaches}
        reached: set[Flow] = set()
        with self._dialled(expected) as events:
            deadline = time.monotonic() + WAIT_S
            while (left := deadline - time.monotonic()) > 0:
                for flow in answers(events, left):
                    reached.add(flow)
                    missing.discard(flow)
                if not missing:
                    deadline = min(deadline, time.monotonic() + SETTLED_S)
                    missing = {("nobody", "", "", 0)}  # the deadline is set once
        return {flow: flow in reached for flow in expected}

    @contextmanager
    def _dialled(self, flows: Mapping[Flow, bool]) -> Iterator[selectors.BaseSelector]:
        """A socket for each flow, under way, and the servers."""
        callers: list[socket.socket] = []
        with selectors.DefaultSelector() as events:
            for servers in self.servers.values():
                for server in servers:
                    server.setblocking(False)
                    events.register(server, selectors.EVENT_READ, None)
            try:
                for name, place in self.places.items():
                    own = [flow for flow in flows if flow[0] == name]
                    callers += place.inside(lambda own=own: self._dial(own, events))
                yield events
            finally:
                for caller in callers:
                    caller.close()

    def _dial(self, flows: list[Flow], events: selectors.BaseSelector) -> list[socket.socket]:
        callers = []
        for flow in flows:
            _, destination, protocol, port = flow
            caller = socket.socket(socket.AF_INET, KINDS[protocol])
            callers.append(caller)
            caller.setblocking(False)
            with suppress(BlockingIOError):
                caller.connect((self.places[destination].ipv4, port))
            if protocol == "UDP":
                caller.send(b"?")
                events.register(caller, selectors.EVENT_READ, flow)
            else:
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                events.register(caller, selectors.EVENT_WRITE, flow)
        return callers


def answers(events: selectors.BaseSelector, wait_s: float) -> Iterator[Flow]:
    """Serve whoever has arrived; the flows whose callers got their answer."""
    for key, _ in events.select(wait_s):
        sock = key.fileobj
        assert isinstance(sock, socket.socket)
        if key.data is not None:
            events.unregister(sock)
            if sock.type == socket.SOCK_STREAM:
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    yield key.data
            elif sock.recv(16) == b"!":
                yield key.data
        elif sock.type == socket.SOCK_STREAM:
            with suppress(BlockingIOError, ConnectionError):
                sock.accept()[0].close()
        else:
            with suppress(BlockingIOError, PermissionError):
                sock.sendto(b"!", sock.recvfrom(16)[1])


@pytest.fixture(scope="module")
def suite(module_system: System) -> Iterator[Suite]:
    """x's and y's pods first: then z's addresses fill one aligned block, as ``BLOCKS`` wants."""
    module_system.up("--posture", "kubernetes", manifest=manifest())
    made = Suite(module_system)
    yield made
    for servers in made.servers.values():
        for server in servers:
            server.close()


@pytest.mark.skipif(not CASES.exists(), reason=f"no corpus at {CASES}")
def test_every_step_of_cyclonus_reaches_whom_the_truth_table_says(
    suite: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [json.loads(line) for line in CASES.read_text().splitlines()]
    steps = [(case["id"], at, one) for case in cases for at, one in enumerate(case["steps"])]
    prepare(suite, steps[0][2])
    wrong = []
    probes = 0
    for case, at, step in steps:
        suite.become(step)
        expected = expected_of(step)
        found = suite.probe(expected)
        probes += len(expected)
        wrong += [
            (case, at, flow, found[flow]) for flow in expected if found[flow] != expected[flow]
        ]
    with capsys.disabled():
        print(f"\ncyclonus live: {len(steps)} steps, {probes} probes, {len(wrong)} differ")
    assert len(steps) == STEPS
    assert not wrong, f"{len(wrong)} of {probes} probes differ: {wrong[:10]}"


def prepare(suite: Suite, step: Mapping[str, Any]) -> None:
    """The nine pods one after the other, so that z's have the addresses of ``BLOCKS``."""
    for count in range(1, len(FIRST) + 1):
        suite.become({**step, "pods": step["pods"][:count], "policies": []})
    last = [suite.places[name].ipv4 for name in FIRST[-3:]]
    assert last == ["10.244.0.8", "10.244.0.9", "10.244.0.10"]
