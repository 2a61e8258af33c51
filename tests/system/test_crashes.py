"""The agent is killed at random moments of random changes; what is in force must not show it.

``SIXFOLD_CRASH_SEED`` repeats a run, ``SIXFOLD_CRASH_APPLIES`` and ``SIXFOLD_CRASH_KILLS`` make
a longer one.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sixfold.cli.client import Client
from sixfold.errors import ManifestError, SixfoldError, UnavailableError

from .conftest import SIXFOLD, System, running
from .places import labelled, place_of, pod, policy, service
from .portrait import Portrait

pytestmark = [pytest.mark.root, pytest.mark.timeout(1800)]

SEED = int(os.environ.get("SIXFOLD_CRASH_SEED", random.randrange(2**32)))
APPLIES = int(os.environ.get("SIXFOLD_CRASH_APPLIES", "200"))
KILLS = int(os.environ.get("SIXFOLD_CRASH_KILLS", "12"))
NAMESPACES = ("red", "blue")
TIERS = ("web", "api", "db")


class Mortal:
    """The agent in the foreground, for killing."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._process: subprocess.Popen[bytes] | None = None
        self.client = Client(system.paths.api_socket)
        self.deaths = 0

    def start(self) -> None:
        log = (self._system.paths.state / "agent.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                ["nsenter", f"--net={self._system.host}", *SIXFOLD, "up", "--mtls", "strict"],
                env=self._system.environment,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """Fine when it is dead."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.deaths += 1

    def kill_after(self, delay_s: float) -> threading.Timer:
        timer = threading.Timer(delay_s, self.kill)
        timer.start()
        return timer

    def await_answers(self) -> None:
        """Until it answers; it must not end by itself."""

        def answers() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, f"the agent ended\n{self._system.agent_log()}"
            with suppress(SixfoldError):
                return bool(self.client.get("/v1/status"))
            return False

        self._system.eventually(answers, "the agent answers")


class Chance:
    """Random changes of a small world, by seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def change(self, client: Client) -> None:
        """One apply or delete; what is refused changes nothing."""
        choice = self._random
        action = choice.choices(
            (self.deployment, self.bare_pod, self.service, self.policy, self.namespace, None),
            (4, 2, 3, 4, 1, 4),
        )[0]
        try:
            if action is None:
                client.post("/v1/delete", self.deletion())
            else:
                client.post("/v1/apply", {"objects": [action()]})
        except ManifestError:
            pass  # a field that may not change, or an object on its way out

    def deletion(self) -> dict[str, Any]:
        kind = self._random.choice(("Deployment", "Pod", "Service", "NetworkPolicy"))
        key = {"kind": kind, "namespace": self._namespace(), "name": f"x{self._number()}"}
        return {"keys": [key], "ignore_missing": True, "grace_s": 0}

    def deployment(self) -> dict[str, Any]:
        name, tier = f"x{self._number()}", self._tier()
        labels = {"run": name, "tier": tier}
        template = pod(name, labels=labels)
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": self._namespace()},
            "spec": {
                "replicas": self._random.randrange(3),
                "selector": {"matchLabels": {"run": name}},
                "template": {"metadata": {"labels": labels}, "spec": template["spec"]},
            },
        }

    def bare_pod(self) -> dict[str, Any]:
        labels = {"tier": self._tier()}
        return pod(f"x{self._number()}", namespace=self._namespace(), labels=labels)

    def service(self) -> dict[str, Any]:
        ports = [
            {"name": f"p{port}", "port": port, "targetPort": 8080}
            for port in self._random.sample((80, 443, 8080), self._random.randrange(1, 3))
        ]
        name, more = f"x{self._number()}", {}
        if name == "x0":
            more = {"clusterIP": "None"}
        made = service(name, namespace=self._namespace(), ports=ports, **more)
        made["spec"]["selector"] = {"tier": self._tier()}
        return made

    def policy(self) -> dict[str, Any]:
        peers = [
            labelled(tier=self._tier()),
            {"namespaceSelector": {"matchLabels": {"colour": self._tier()}}},
            {"ipBlock": {"cidr": f"10.{self._random.randrange(4)}.0.0/16"}},
        ]
        rule = {
            self._random.choice(("from", "to")): self._random.sample(peers, 2),
            "ports": [{"port": 8080}, {"port": 9000, "endPort": 9000 + self._random.randrange(99)}],
        }
        given = {"ingress": [rule]} if "from" in rule else {"egress": [rule]}
        subject = {"tier": self._tier()} if self._random.random() < 0.8 else None
        name, namespace = f"x{self._number()}", self._namespace()
        types = [kind.title() for kind in given]
        return policy(name, subject, namespace=namespace, policyTypes=types, **given)

    def namespace(self) -> dict[str, Any]:
        metadata = {"name": self._namespace(), "labels": {"colour": self._tier()}}
        return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}

    def _namespace(self) -> str:
        return self._random.choice(NAMESPACES)

    def _tier(self) -> str:
        return self._random.choice(TIERS)

    def _number(self) -> int:
        return self._random.randrange(3)


def fixed() -> list[dict[str, Any]]:
    """What no change touches: a connection that must live, and one that must never be."""
    names = ("server", "friend", "stranger")
    return [
        *(pod(name, namespace="fixed") for name in names),
        policy(
            *("server", {"app": "server"}),
            namespace="fixed",
            ingress=[{"from": [labelled(app="friend")], "ports": [{"port": 8080}]}],
        ),
        policy(
            *("friends", {}),
            namespace="fixed",
            policyTypes=["Egress"],
            egress=[{"to": [labelled(app="server")]}],
        ),
    ]


class Witness:
    """Says whether the fixed connection still works, and whether the door was ever open."""

    def __init__(self, system: System) -> None:
        self._server = place_of(system, "fixed/server")
        self._stranger = place_of(system, "fixed/stranger")
        self._listener = self._server.listen()
        self._client = place_of(system, "fixed/friend").dial(self._server.ipv4)
        self._peer, _ = self._listener.accept()
        self._peer.settimeout(5)
        self.opened: list[str] = []
        self.attempts = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._knock)
        self._thread.start()

    def _knock(self) -> None:
        while not self._done.is_set():
            address = self._server.address(4 if self.attempts % 2 else 6)
            answer = self._stranger.attempt(address, timeout_s=0.1)
            self.attempts += 1
            if answer != "timeout":
                self.opened.append(answer)

    def assert_alive(self) -> None:
        self._client.sendall(b"x")
        assert self._peer.recv(1) == b"x"

    def close(self) -> None:
        self._done.set()
        self._thread.join()
        for sock in (self._client, self._peer, self._listener):
            sock.close()


def crash_through(system: System, chance: random.Random) -> None:
    """APPLIES changes, during which the agent dies KILLS times: some while it starts."""
    agent, changes = Mortal(system), Chance(chance.randrange(2**32))
    agent.start()
    agent.await_answers()
    agent.client.post("/v1/apply", {"objects": fixed(), "wait": True})
    witness = Witness(system)
    try:
        last = set(chance.sample(range(APPLIES), min(KILLS, APPLIES)))
        extra = KILLS - len(last)
        for number in range(APPLIES):
            timer = agent.kill_after(chance.random() * 0.1) if number in last else None
            with suppress(UnavailableError):
                changes.change(agent.client)
            if timer is None:
                continue
            timer.join()
            witness.assert_alive()
            agent.start()
            deaths = extra > 0 or chance.random() < 0.4
            while deaths and agent.deaths < KILLS:  # again, while it starts
                agent.kill_after(chance.random() * 2).join()
                agent.start()
                deaths = chance.random() < 0.3
            agent.await_answers()
        agent.kill()
        system.up("--mtls", "strict")
        witness.assert_alive()
    finally:
        witness.close()
        agent.kill()
    assert witness.opened == []
    assert witness.attempts > agent.deaths


def test_after_any_crashes_the_state_is_that_of_a_fresh_start(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    (tmp_path / "crashed").mkdir()
    with running(tmp_path / "crashed") as crashed:
        (crashed.paths.state).mkdir(exist_ok=True)
        crash_through(crashed, random.Random(SEED))
        portrait = Portrait(crashed)
        objects = as_applied(crashed)
        found = portrait.facts()
        crashed.eventually(lambda: not Portrait(crashed).leaks(), str(Portrait(crashed).leaks()))
    with running(tmp_path / "fresh") as fresh:
        fresh.up()
        client = Client(fresh.paths.api_socket)
        client.post("/v1/apply", {"objects": objects, "wait": True})
        expected = Portrait(fresh).facts()
    assert found == expected


def as_applied(system: System) -> list[dict[str, Any]]:
    """Everything a user applied, as stored; what controllers made is theirs to make again."""
    client = Client(system.paths.api_socket)
    kinds = ("Namespace", "Pod", "Deployment", "Service", "NetworkPolicy")
    return [
        {key: value for key, value in item.items() if key != "status"}
        for kind in kinds
        for item in client.objects(kind)
        if not item["metadata"].get("ownerReferences")
    ]
