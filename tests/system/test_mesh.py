"""The mesh, end to end: the proxy in pods' namespaces."""

from __future__ import annotations

import os
import signal

import pytest

from sixfold.host import cgroup

from .conftest import System
from .places import manifest, pod

pytestmark = pytest.mark.root

LISTENING = (
    "print(sorted(int(line.split()[1].split(':')[1], 16) for line in open('/proc/net/tcp')"
    " if line.split()[3] == '0A'), flush=True); import time; time.sleep(1e9)"
)


@pytest.fixture(scope="module")
def mesh(module_system: System) -> System:
    early = pod("early", container={"command": ["python3", "-c", LISTENING]})
    module_system.up("--mtls", "strict", manifest=manifest(early))
    return module_system


def proxy(system: System) -> int:
    (pid,) = cgroup.processes(system.paths.cgroup / "proxy")
    return pid


def mesh_state(system: System) -> str:
    return next(one["state"] for one in system.status()["patterns"] if one["name"] == "mesh")


def test_listeners_are_there_before_a_pods_process_is(mesh: System) -> None:
    said = mesh.eventually(lambda: mesh.sixfold("logs", "early").stdout)
    assert {15001, 15008} <= set(eval(said))


def test_the_proxy_outlives_the_agent_and_is_adopted(mesh: System) -> None:
    pid = proxy(mesh)
    os.kill(mesh.agent_pid(), signal.SIGKILL)
    mesh.up("--mtls", "strict")
    assert proxy(mesh) == pid
    assert mesh.eventually(lambda: mesh_state(mesh) == "ok")


def test_a_proxy_that_is_killed_comes_back_with_its_listeners(mesh: System) -> None:
    pid = proxy(mesh)
    os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        listening = mesh.run_in_pod("default/early", "ss", "-Hltn").stdout
        return ":15001" in listening and ":15008" in listening and proxy(mesh) != pid

    assert mesh.eventually(back)
    assert mesh.eventually(lambda: mesh_state(mesh) == "ok")


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("listeners", "outbound|default/early"),
        ("clusters", "spiffe://cluster.local/ns/default/sa/default"),
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


def test_an_agent_without_a_mesh_ends_the_proxy_of_the_one_before(mesh: System) -> None:
    os.kill(mesh.agent_pid(), signal.SIGKILL)
    mesh.up("--mtls", "disabled")
    group = mesh.paths.cgroup / "proxy"
    assert mesh.eventually(lambda: not group.exists())
    assert mesh_state(mesh) == "absent"
