"""The end of everything: no process, namespace, link, map, rule, cgroup or run file is left.

Works by looking at the host, not at what an agent remembers: it cleans up after a crash too.
The state directory stays; its objects are forgotten unless they are to be kept for a next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import signal
import time
from pathlib import Path

from sixfold.agent.lock import holder
from sixfold.errors import HostError
from sixfold.host.containers import Containers
from sixfold.host.datapath import KernelDatapath
from sixfold.host.envoy import stop as stop_proxy
from sixfold.host.network import HostNetwork
from sixfold.host.paths import Paths
from sixfold.model.config import Config
from sixfold.serve.dns_client import ResolverClient
from sixfold.store import Database

AGENT_STOP_S = 10


async def teardown(paths: Paths, config: Config, *, grace_s: float, keep: bool) -> list[str]:
    """End the instance; returns what was ended, a line each. Fine when nothing is there."""
    done = stop_agent(paths) + await remove_all(paths, config, grace_s=grace_s)
    if not keep:
        done += _forget(paths)
    return done


async def remove_all(paths: Paths, config: Config, *, grace_s: float) -> list[str]:
    """Remove everything from the host but the agent itself; objects are kept."""
    done = []
    containers = Containers(paths)
    running = [container for container in containers.observe() if container.running]
    await asyncio.gather(*(containers.stop(container, grace_s) for container in running))
    await containers.teardown()
    if running:
        done.append(f"{len(running)} containers stopped")
    await stop_proxy(paths)
    await ResolverClient(paths, config).stop()
    network = HostNetwork(config, paths)
    attached = len(network.observe())
    network.teardown()
    network.close()
    if attached:
        done.append(f"{attached} pod networks removed")
    KernelDatapath.remove(paths.instance)
    shutil.rmtree(paths.run, ignore_errors=True)
    shutil.rmtree(paths.workload_socket.parent, ignore_errors=True)
    for group in (paths.cgroup / "pods", paths.cgroup / "shims", paths.cgroup):
        with contextlib.suppress(FileNotFoundError):
            group.rmdir()
    return done


def stop_agent(paths: Paths) -> list[str]:
    """Ask the agent to stop, and see that it did; it is killed after ``AGENT_STOP_S``."""
    pid = holder(paths)
    if pid is None:
        return []
    _end(pid)
    return [f"agent stopped (pid {pid})"]


def _end(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], AGENT_STOP_S)[0]:
                return
    except ProcessLookupError:
        return
    finally:
        os.close(handle)
    raise HostError(f"agent (pid {pid}): does not end; look at /proc/{pid}/stack")


def _forget(paths: Paths) -> list[str]:
    """Drop all objects, and what was kept of their pods; addresses are free after their grace,
    numbers stay as they were. A store that cannot be written goes whole."""
    for directory in ("pods", "logs"):
        shutil.rmtree(paths.state / directory, ignore_errors=True)
    path = paths.state / "state.db"
    if not path.exists():
        return []
    try:
        _forget_objects(path)
    except HostError as error:
        for name in ("state.db", "state.db-wal", "state.db-shm"):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                (paths.state / name).unlink()
        return [f"{error}: removed whole"]
    return []


def _forget_objects(path: Path) -> None:
    database = Database(path)
    try:
        with database.transaction() as connection:
            connection.execute("DELETE FROM objects")
            connection.execute("DELETE FROM registrations")
            connection.execute("DELETE FROM numbers WHERE space = 'endpoint'")
            connection.execute(
                "UPDATE addresses SET freed_at = ? WHERE freed_at IS NULL", (time.time(),)
            )
            database.set_meta("config", "")
    finally:
        database.close()
