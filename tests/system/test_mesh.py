"""The mesh, end to end: proxies in pods' namespaces, the node's and those of one pod each."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from sixfold.host.proxy_home import home_of_node, homes_of_pods

from .conftest import System
from .mesh_load import MARK, Load, Wire
from .places import Place, labelled, manifest, places_of, pod, policy

pytestmark = pytest.mark.root

PODS = ("early", "client", "server", "other")  # the first sits at the node's proxy
ID = "spiffe://cluster.local/ns/default/sa/{}".format

LISTENING = (
    "print(sorted(int(line.split()[1].split(':')[1], 16) for line in open('/proc/net/tcp')"
    " if line.split()[3] == '0A'), flush=True); import time; time.sleep(1e9)"
)


@pytest.fixture(scope="module")
def mesh(module_system: System) -> System:
    """The client may dial server and early, the other one early only; nobody else anybody."""
    pods = [
        pod(name, serviceAccountName=name, container={"command": ["python3", "-c", LISTENING]})
        for name in PODS
    ]
    pods[0]["metadata"]["annotations"] = {"sixfold.dev/placement": "node"}
    both = [labelled(app="client"), labelled(app="other")]
    module_system.up(
        *("--mtls", "strict", "--placement", "workload"),
        manifest=manifest(
            *pods,
            policy("egress", None, policyTypes=["Egress"], egress=[{}]),
            policy("early", {"app": "early"}, ingress=[{"from": both}]),
            policy("server", {"app": "server"}, ingress=[{"from": both[:1]}]),
        ),
    )
    return module_system


@pytest.fixture(scope="module")
def places(mesh: System) -> Iterator[dict[str, Place]]:
    """Server and early echo."""
    found = dict(zip(PODS, places_of(mesh, *PODS), strict=True))
    with ExitStack() as stack:
        for name in ("server", "early"):
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


def is_echoed(sock: socket.socket) -> bool:
    sock.sendall(MARK)
    return sock.recv(100) == MARK


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
    """Of the proxies that serve, by their pods; "": the node's."""
    own = {home.pod: home.pid() for _, home in homes_of_pods(system.paths)}
    return {"": home_of_node(system.paths).pid(), **own}


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}/exe").exists()


def mesh_state(system: System) -> str:
    return next(one["state"] for one in system.status()["patterns"] if one["name"] == "mesh")


def test_each_workload_has_a_proxy_of_its_own_but_for_who_says_otherwise(mesh: System) -> None:
    found = mesh.json("proxy", "list")
    assert [one["proxy"] for one in found] == ["node", *sorted(f"default/{it}" for it in PODS[1:])]
    assert all(one["state"] == "live" and one["agent"] and one["pods"] == 1 for one in found)


@pytest.mark.parametrize("name", PODS[:2])
def test_listeners_are_there_before_a_pods_process_is(mesh: System, name: str) -> None:
    said = mesh.eventually(lambda: mesh.sixfold("logs", name).stdout)
    assert {15001, 15008} <= set(eval(said))


@pytest.mark.parametrize(
    ("name", "reached"),
    [
        pytest.param("client", {"server", "early"}, id="its-own"),
        pytest.param("other", {"early"}, id="another"),
        pytest.param("early", set(PODS), id="the-nodes"),
    ],
)
def test_a_proxy_holds_keys_of_its_pods_and_ways_to_whom_they_may_dial(
    mesh: System, places: dict[str, Place], name: str, reached: set[str]
) -> None:
    if name != "early":  # its key as client is asked for on demand
        with places[name].dial(places["early"].ipv4) as sock:
            assert is_echoed(sock)
    text = mesh.sixfold("proxy", "config", "all", "--pod", name).stdout
    held: dict[str, Any] = {one["@type"].rpartition(".")[2]: one for one in json.loads(text)}
    secrets = [one["name"] for one in held["SecretsConfigDump"]["dynamic_active_secrets"]]
    clusters = held["ClustersConfigDump"]["dynamic_active_clusters"]
    ways = [one["cluster"]["name"] for one in clusters]
    assert {it for it in PODS if any(one.endswith(ID(it)) for one in secrets)} == {name}
    assert {it for it in PODS if f"pod|{places[it].ipv4}" in ways} == reached


def test_a_way_is_there_as_soon_as_policy_opens_it(mesh: System, places: dict[str, Place]) -> None:
    assert places["other"].attempt(places["server"].ipv4) == "timeout"
    both = [labelled(app="client"), labelled(app="other")]
    opened = policy("server", {"app": "server"}, ingress=[{"from": both}])
    mesh.apply(manifest(opened), "--wait")
    with places["other"].dial(places["server"].ipv4) as sock:
        assert is_echoed(sock)


def test_a_killed_proxy_is_an_outage_of_its_workload_and_of_no_other(
    mesh: System, places: dict[str, Place]
) -> None:
    with (
        closing(Wire(places["client"])) as wire,
        load(places, "client", "server") as hurt,
        load(places, "client", "early") as one,
        load(places, "other", "early") as two,
    ):
        served_again(mesh, hurt, one, two)
        before = pids(mesh)
        os.kill(before["default/server"], signal.SIGKILL)
        mesh.eventually(lambda: hurt.failed)
        served_again(mesh, hurt, one, two)
        healed = len(hurt.failed)
        served_again(mesh, hurt)
    after = pids(mesh)
    assert {name for name in after if after[name] != before[name]} == {"default/server"}
    assert one.failed == two.failed == []
    assert len(hurt.failed) == healed
    assert not wire.seen(MARK)


def test_proxies_outlive_the_agent_and_one_that_was_replaced_ends_when_its_time_is_over(
    mesh: System, places: dict[str, Place]
) -> None:
    """What is open stays with it, till the next agent says how long it may."""
    with load(places, "client", "server") as one:
        served_again(mesh, one)
        old = pids(mesh)["default/server"]
        said = mesh.sixfold("proxy", "restart", "--pod", "server").stdout
        assert f"proxy {old} keeps what is open" in said
        served_again(mesh, one)
        assert one.failed == []
        before = pids(mesh)
        os.kill(mesh.agent_pid(), signal.SIGKILL)
        mesh.up("--proxy-drain", "0.5")
        mesh.eventually(lambda: is_gone(old))
        served_again(mesh, one)
    assert len(one.failed) == 2, "the connections that had stayed"
    assert pids(mesh) == before
    assert mesh.eventually(lambda: mesh_state(mesh) == "ok")


def test_the_nodes_proxy_that_is_killed_comes_back_with_its_listeners(mesh: System) -> None:
    pid = pids(mesh)[""]
    os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        listening = mesh.run_in_pod("default/early", "ss", "-Hltn").stdout
        return ":15001" in listening and ":15008" in listening and pids(mesh)[""] != pid

    assert mesh.eventually(back)
    assert mesh.eventually(lambda: mesh_state(mesh) == "ok")


def test_a_workloads_proxy_ends_with_it(mesh: System) -> None:
    pid = pids(mesh)["default/other"]
    mesh.sixfold("delete", "pod", "other", "--now")
    mesh.eventually(lambda: is_gone(pid) and "default/other" not in pids(mesh))


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("listeners", "outbound|default/early"),
        ("clusters", ID("client")),
        ("secrets", "bundle"),
    ],
)
def test_what_the_proxy_holds_is_shown(mesh: System, kind: str, wanted: str) -> None:
    assert wanted in mesh.sixfold("proxy", "config", kind).stdout


def test_no_private_key_is_shown(mesh: System) -> None:
    assert "PRIVATE KEY" not in mesh.sixfold("proxy", "config", "all", "-o", "json").stdout


def test_the_admin_socket_and_xds_are_for_root_only(mesh: System) -> None:
    for name in ("proxy.sock", "xds.sock"):
        assert (mesh.paths.run / name).stat().st_mode & 0o777 == 0o600


def test_statistics_and_clusters_of_the_proxy_are_told(mesh: System) -> None:
    assert "server.live" in mesh.json("proxy", "stats", "server")
    assert "application" in [one["name"] for one in mesh.json("proxy", "clusters")]


def test_an_agent_without_a_mesh_ends_the_proxies_of_the_one_before(mesh: System) -> None:
    os.kill(mesh.agent_pid(), signal.SIGKILL)
    mesh.up("--mtls", "disabled")
    group = mesh.paths.cgroup / "proxy"
    assert mesh.eventually(lambda: not group.exists())
    assert mesh_state(mesh) == "absent"
