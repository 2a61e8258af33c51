"""A proxy for each workload, beside the node's: its own keys, its own failures."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import pytest

from .conftest import System
from .mesh_load import MARK, Load, Wire
from .places import Place, labelled, manifest, places_of, pod, policy

pytestmark = pytest.mark.root

PODS = ("client", "server", "other", "common")  # the last one sits at the node's proxy
ID = "spiffe://cluster.local/ns/default/sa/{}".format
ANNOTATION = "sixfold.dev/placement"


def placed(name: str, placement: str | None = None) -> dict[str, Any]:
    made = pod(name, serviceAccountName=name)
    if placement is not None:
        made["metadata"]["annotations"] = {ANNOTATION: placement}
    return made


@pytest.fixture(scope="module")
def mesh(module_system: System) -> System:
    """The client may dial server and common, and so may other; nobody else dials anybody."""
    module_system.up(
        *("--mtls", "strict", "--placement", "workload"),
        manifest=manifest(
            *(placed(name, "node" if name == "common" else None) for name in PODS),
            policy("egress", None, policyTypes=["Egress"], egress=[{}]),
            policy("server", {"app": "server"}, ingress=[{"from": [labelled(app="client")]}]),
            policy(
                "common",
                {"app": "common"},
                ingress=[{"from": [labelled(app="client"), labelled(app="other")]}],
            ),
        ),
    )
    return module_system


@pytest.fixture(scope="module")
def places(mesh: System) -> Iterator[dict[str, Place]]:
    """Server and common echo."""
    found = dict(zip(PODS, places_of(mesh, *PODS), strict=True))
    with ExitStack() as stack:
        for name in ("server", "common"):
            listening = stack.enter_context(found[name].listen())
            threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield found


def serve(listening: socket.socket) -> None:
    def echo(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            sock.settimeout(None)
            while block := sock.recv(1 << 16):
                sock.sendall(block)

    listening.settimeout(None)
    with suppress(OSError):  # closed: the test is over
        while True:
            threading.Thread(target=echo, args=(listening.accept()[0],), daemon=True).start()


@contextmanager
def load(places: dict[str, Place], client: str, server: str) -> Iterator[Load]:
    running = Load(lambda: places[client].dial(places[server].ipv4))
    try:
        yield running
    finally:
        running.stop()


def served_again(system: System, *loads: Load) -> None:
    before = [one.served for one in loads]
    system.eventually(
        lambda: all(one.served > was + 20 for one, was in zip(loads, before, strict=True))
    )


def pids(system: System) -> dict[str, int]:
    """Of those that serve, by whose they are."""
    return {it["proxy"]: it["pid"] for it in system.json("proxy", "list") if it["state"] == "live"}


def held(system: System, kind: str, pod: str) -> str:
    return system.sixfold("proxy", "config", kind, "--pod", pod).stdout


def test_each_workload_has_a_proxy_of_its_own_but_for_who_says_otherwise(mesh: System) -> None:
    assert pids(mesh).keys() == {"node", *(f"default/{name}" for name in PODS[:-1])}


def test_a_proxy_holds_keys_and_ways_of_its_own_workload_only(
    mesh: System, places: dict[str, Place]
) -> None:
    with places["client"].dial(places["server"].ipv4) as sock:  # for what is asked for on demand
        sock.sendall(MARK)
        assert sock.recv(100) == MARK
    for name, reached in {"client": ("server", "common"), "server": (), "common": PODS}.items():
        secrets, ways = held(mesh, "secrets", name), held(mesh, "clusters", name)
        assert [one for one in PODS if ID(one) in secrets] == [name]
        assert {one for one in PODS if f"pod|{places[one].ipv4} " in ways} == set(reached)


def test_a_way_is_there_as_soon_as_policy_opens_it(mesh: System, places: dict[str, Place]) -> None:
    assert places["other"].attempt(places["server"].ipv4) == "timeout"
    rule = {"from": [labelled(app="client"), labelled(app="other")]}
    mesh.apply(manifest(policy("server", {"app": "server"}, ingress=[rule])), "--wait")
    with places["other"].dial(places["server"].ipv4) as sock:
        sock.sendall(MARK)
        assert sock.recv(100) == MARK


def test_a_killed_proxy_is_an_outage_of_its_workload_and_of_no_other(
    mesh: System, places: dict[str, Place]
) -> None:
    with (
        closing(Wire(places["client"])) as wire,
        load(places, "client", "server") as hurt,
        load(places, "client", "common") as one,
        load(places, "other", "common") as two,
    ):
        served_again(mesh, hurt, one, two)
        before = pids(mesh)
        os.kill(before["default/server"], signal.SIGKILL)
        mesh.eventually(lambda: hurt.failed)
        served_again(mesh, hurt, one, two)
        healed = len(hurt.failed)
        served_again(mesh, hurt)
    assert len(hurt.failed) == healed
    assert one.failed == two.failed == []
    assert not wire.seen(MARK)
    after = pids(mesh)
    assert {name for name in after if after[name] != before[name]} == {"default/server"}


def test_a_workloads_proxy_is_replaced_without_a_failure_and_ends_when_its_time_is_over(
    mesh: System, places: dict[str, Place]
) -> None:
    """What stays open stays with the one before, till the next agent says how long it may."""
    with load(places, "client", "server") as one:
        served_again(mesh, one)
        before = pids(mesh)
        said = mesh.sixfold("proxy", "restart", "--pod", "server").stdout
        assert f"proxy {before['default/server']} keeps what is open" in said
        served_again(mesh, one)
        assert one.failed == []
        os.kill(mesh.agent_pid(), signal.SIGKILL)
        mesh.up("--proxy-drain", "0.5")
        mesh.eventually(lambda: not os.path.exists(f"/proc/{before['default/server']}/exe"))
        served_again(mesh, one)
    after = pids(mesh)
    assert {name for name in after if after[name] != before[name]} == {"default/server"}
    assert len(one.failed) == 2, "the connections that had stayed"


def test_a_workloads_proxy_ends_with_it(mesh: System) -> None:
    pid = pids(mesh)["default/other"]
    mesh.sixfold("delete", "pod", "other", "--now")
    mesh.eventually(lambda: not os.path.exists(f"/proc/{pid}/exe"))
    assert "default/other" not in {one["proxy"] for one in mesh.json("proxy", "list")}
