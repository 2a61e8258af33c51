"""The state directory is full or damaged: said clearly, nothing half-taken, and ``down`` works."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import System
from .places import manifest, place_of, pod, policy, service
from .test_faults_host import left_behind

pytestmark = pytest.mark.root

SHOP = manifest(pod("web"), pod("client"), service("web", ports=[{"port": 80}]))


@contextmanager
def small_disk(path: Path, size: str = "2m") -> Iterator[None]:
    """The state directory on a file system of its own."""
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def fill(path: Path) -> Path:
    """Take what is left of the disk; returns what to remove to give it back."""
    ballast = path / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1024))
        except OSError:
            return ballast


def big_policies(first: int) -> str:
    """Large enough that SQLite needs more room."""
    noise = {f"note-{n}": "x" * 4000 for n in range(8)}
    given = [policy(f"p{first + n}", {"app": "web"}) for n in range(8)]
    for item in given:
        item["metadata"]["annotations"] = noise
    return manifest(*given)


def kill_agent(system: System) -> None:
    pid = system.agent_pid()
    handle = os.pidfd_open(pid)
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    os.close(handle)
    system.eventually(lambda: system.sixfold("status", check=False).returncode == 1)


def test_a_full_disk_takes_nothing_by_half_and_what_it_took_outlives_the_agent(
    system: System,
) -> None:
    with small_disk(system.paths.state):
        system.up("--posture", "kubernetes", manifest=SHOP)
        ballast = fill(system.paths.state)
        refused = system.sixfold("apply", "-f", "-", stdin=big_policies(0), check=False)
        assert refused.returncode == 1
        assert "database or disk is full; free some space" in refused.stderr
        assert system.json("get", "netpol")["items"] == []
        agent = system.status()["agent"]
        assert (agent["generation"], agent["applied"]) == (1, 1)
        web, client = place_of(system, "default/web"), place_of(system, "default/client")
        with web.listen():
            assert client.answer(web.ipv4) == "open"

        ballast.unlink()
        system.apply(big_policies(100), "--wait")
        kill_agent(system)
        system.up()
        names = {item["metadata"]["name"] for item in system.json("get", "netpol")["items"]}
        assert names == {f"p{100 + n}" for n in range(8)}
        fill(system.paths.state)
        system.sixfold("down", "--timeout", "0")
        assert left_behind(system) == []


def test_on_a_full_disk_a_pod_that_dies_is_seen_and_restarted(system: System) -> None:
    with small_disk(system.paths.state):
        system.up(manifest=SHOP)
        fill(system.paths.state)
        group = system.paths.cgroup / "pods"
        for procs in group.glob("*/main*/cgroup.procs"):
            for pid in procs.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        restarts = lambda: [  # noqa: E731
            item["status"]["containerStatuses"][0]["restartCount"]
            for item in system.json("get", "pods")["items"]
        ]
        system.eventually(lambda: min(restarts()) >= 1, "both are restarted")
        system.eventually(lambda: system.status()["pods"]["ready"] == 2)


def close(store: Path) -> None:
    """All of it in one file."""
    connection = sqlite3.connect(store)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    for suffix in ("-wal", "-shm"):
        store.with_name(store.name + suffix).unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("offset", "said"),
    [
        pytest.param(0, "file is not a database", id="header"),
        pytest.param(4096, "damaged", id="pages"),
    ],
)
def test_a_damaged_store_is_named_and_down_works_without_it(
    system: System, offset: int, said: str
) -> None:
    system.up(manifest=SHOP)
    system.sixfold("apply", "-f", "-", stdin=big_policies(0))
    kill_agent(system)
    store = system.paths.state / "state.db"
    close(store)
    with store.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * (store.stat().st_size - offset))
    for how in (("up", "--detach"), ("up",)):
        done = system.sixfold(*how, check=False)
        assert done.returncode == 1
        assert said in done.stderr
        assert "move the file away to start with an empty store" in done.stderr
        assert "Traceback" not in done.stderr
    down = system.sixfold("down", "--timeout", "0")
    assert f"{store}: " in down.stderr
    assert "removed whole" in down.stdout
    assert left_behind(system) == []
    system.up()  # and on


def test_down_forgets_the_logs_of_its_pods_and_keep_keeps_them(system: System) -> None:
    system.up(manifest=SHOP)
    system.sixfold("down", "--timeout", "0", "--keep")
    assert list((system.paths.state / "logs").glob("*/*/*.log"))
    system.up()
    system.sixfold("down", "--timeout", "0")
    assert not (system.paths.state / "logs").exists()
    assert not (system.paths.state / "pods").exists()


def test_the_last_words_are_those_of_this_start(system: System) -> None:
    system.paths.state.mkdir(exist_ok=True)
    (system.paths.state / "agent.log").write_text("of long ago\n")
    argv = ["unshare", "--mount", "sh", "-c"]
    script = "mount -t tmpfs -o ro none /sys/fs/bpf && exec python3 -m sixfold.cli up --detach"
    done = system.on_host(*argv, script)
    assert done.returncode == 1
    assert "of long ago" not in done.stderr
