"""Containers: process trees in a pod's namespaces, each under a shim that outlives the agent.

What is true about a container is on disk and in the kernel, never in this process: the shim
writes who it is, who its child is, and at the end the status (``shim/shim.c`` lists the files).
An agent that starts anew observes, waits by pidfd, and finds what happened meanwhile.

    <run>/pods/<uid>/containers/<container>/<attempt>/    spec.json, shim, pid, started, status
    <state>/logs/<ns>_<pod>_<uid>/<container>/<attempt>.log
    <cgroup>/pods/<uid>/<container>             the container's tree
    <cgroup>/shims                              all shims

A container's cgroup holds one attempt at most: starting the next kills what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal as signals
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from sixfold.errors import HostError, UnavailableError
from sixfold.host import cgroup, decoys
from sixfold.host.container import (
    Container,
    ContainerSpec,
    ExitStatus,
    environment,
    read_spec,
    read_started,
    read_status,
    user_arguments,
    write_spec,
)
from sixfold.host.paths import Paths
from sixfold.host.process import Process, child_exited

__all__ = ["SHIM", "Container", "ContainerSpec", "Containers", "ExitStatus"]

SHIM = Path(__file__).parent / "objects" / "shim"
SETTLE_S = 2.0
ETC = "etc"  # lies over the container's /etc; holds what is mounted there
ATTEMPTS_BEFORE = 1  # kept beside the latest, for ``logs --previous``

EXIT_STATUS_UNKNOWN = 137  # kubelet's code for a container whose end nobody saw


class Containers:
    """All containers of one instance on this host."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._pods = paths.run / "pods"
        self._cgroups = paths.cgroup / "pods"
        self._shims = paths.cgroup / "shims"
        self._starting: set[Path] = set()  # our own, under way: not yet to be judged

    def log_directory(self, pod_key: str, pod_uid: str) -> Path:
        """Where the logs of a pod are, one directory a container."""
        namespace, _, name = pod_key.partition("/")
        return self._paths.state / "logs" / f"{namespace}_{name}_{pod_uid}"

    async def start(self, spec: ContainerSpec) -> Container:
        """Start one attempt and return when its command runs, or has failed to.

        A command that cannot run is no exception: ``wait`` tells, as "StartError". Raises
        HostError when the host cannot run containers at all.
        """
        group = self._cgroups / spec.pod_uid / spec.name
        await self._end_attempts(spec, group)
        cgroup.create(group)
        cgroup.create(self._shims)
        state = self._directory(spec) / str(spec.attempt)
        self._starting.add(state)
        try:
            self._prepare(spec, state)
            await self._launch(spec, state, group)
        finally:
            self._starting.discard(state)
        container = self._read(state)
        assert container is not None, f"{state}: the shim reported a start without its files"
        return container

    def observe(self) -> list[Container]:
        """The latest attempt of every container that this host knows, ended ones included.

        Starts that an agent before us left under way are waited for, or given up.
        """
        return self._latest(sorted(self._pods.glob("*/containers/*")))

    async def wait(self, container: Container) -> ExitStatus:
        """Return when the container has ended; works for those of an earlier agent."""
        await container.shim.exited()
        status = read_status(container)
        if status is None:  # the shim was killed: its child died with it, its orphans now
            with contextlib.suppress(UnavailableError):  # the end is certain; ``kill`` insists
                await self._kill_tree(container)
            status = ExitStatus(
                code=EXIT_STATUS_UNKNOWN,
                signal=signals.SIGKILL,
                started_at=container.started_at,
                finished_at=time.time(),
                reason="ContainerStatusUnknown",
                message="the shim was killed, and the container with it",
            )
        return status

    def signal(self, container: Container, number: signals.Signals) -> bool:
        """Signal the first process; False when it is gone."""
        return container.process.send(number)

    async def kill(self, container: Container) -> ExitStatus:
        """Kill the whole tree, now."""
        await self._kill_tree(container)
        return await self.wait(container)

    async def stop(self, container: Container, grace_s: float) -> ExitStatus:
        """SIGTERM to the first process; after ``grace_s`` seconds the whole tree is killed."""
        if grace_s > 0 and self.signal(container, signals.SIGTERM):
            try:
                async with asyncio.timeout(grace_s):
                    return await self.wait(container)
            except TimeoutError:
                pass
        return await self.kill(container)

    async def remove(self, pod_uid: str, *, keep_logs: bool = False) -> None:
        """Kill all containers of a pod and remove what they left; fine when nothing is there."""
        containers = self._latest((self._pods / pod_uid).glob("containers/*"))
        await cgroup.remove(self._cgroups / pod_uid)
        for container in containers:
            await container.shim.exited()
            if not keep_logs:
                directory = self.log_directory(container.spec.pod_key, pod_uid)
                shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(self._pods / pod_uid, ignore_errors=True)

    async def teardown(self) -> None:
        """End all containers and leave no process, cgroup or run directory; logs stay."""
        shims = [container.shim for container in self.observe()]
        await cgroup.remove(self._cgroups)
        for shim in shims:
            await shim.exited()
        await cgroup.remove(self._shims)
        shutil.rmtree(self._pods, ignore_errors=True)

    async def _kill_tree(self, container: Container) -> None:
        """The cgroup is the next attempt's when there is one: then the tree is dead already."""
        if _attempts(container.state.parent)[-1:] in ([container.state], []):
            await cgroup.kill(container.cgroup)

    async def _end_attempts(self, spec: ContainerSpec, group: Path) -> None:
        """Before the next attempt: the last shim's own cgroup.kill must not hit it."""
        await cgroup.remove(group)
        for attempt in _attempts(self._directory(spec)):
            if (before := self._read(attempt)) is not None:
                await before.shim.exited()

    def _directory(self, spec: ContainerSpec) -> Path:
        """Where the attempts of a container are."""
        return self._pods / spec.pod_uid / "containers" / spec.name

    def _prepare(self, spec: ContainerSpec, state: Path) -> None:
        """Directories of one attempt, and what an agent after us must know of it."""
        logs = self._log(spec).parent
        logs.mkdir(parents=True, exist_ok=True)
        before = [path for path in _attempts(state.parent) if path != state]
        for old in (state, *before[: len(before) - ATTEMPTS_BEFORE]):
            shutil.rmtree(old, ignore_errors=True)
            for log in logs.glob(f"{old.name}.log*"):
                log.unlink(missing_ok=True)
        (state / ETC).mkdir(parents=True)
        state.chmod(0o700)
        for name in ("resolv.conf", "hosts"):
            (state / ETC / name).touch(mode=0o644)
        write_spec(state, spec)

    async def _launch(self, spec: ContainerSpec, state: Path, group: Path) -> None:
        """Run the shim; its starter leaves when the command runs or has failed to."""
        arguments = [str(SHIM), *self._arguments(spec, state, group), "--", *spec.argv]
        try:
            starter = subprocess.Popen(  # noqa: ASYNC220 - returns when the shim is executed
                arguments,
                env=environment(spec),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise HostError(
                f"{SHIM}: {error.strerror}; build it with python hatch_build.py"
            ) from error
        with starter:
            await child_exited(starter.pid)
            assert starter.stderr is not None
            why = starter.stderr.read().decode(errors="replace").strip()
        if starter.returncode != 0:
            raise HostError(
                f"container {spec.pod_key}/{spec.name}: the shim did not start it: {why}; "
                "see sixfold doctor"
            )

    def _arguments(self, spec: ContainerSpec, state: Path, group: Path) -> list[str]:
        arguments = ["run", f"--state={state}", f"--log={self._log(spec)}"]
        arguments += [f"--cgroup={group}", f"--shims={self._shims}", f"--netns={spec.netns}"]
        arguments += [f"--etc={ETC}", f"--bind={spec.resolv_conf}:/etc/resolv.conf"]
        arguments += [f"--bind={spec.hosts}:/etc/hosts"]
        arguments += [f"--hide={path}" for path in decoys.hidden(self._paths)]
        arguments += [f"--decoy={path}" for path in decoys.decoys(self._paths)]
        arguments.append(f"--keep={self._paths.workload_socket.parent}")
        if spec.hostname:
            arguments.append(f"--hostname={spec.hostname}")
        return arguments + user_arguments(spec)

    def _log(self, spec: ContainerSpec) -> Path:
        return self.log_directory(spec.pod_key, spec.pod_uid) / spec.name / f"{spec.attempt}.log"

    def _latest(self, directories: Iterable[Path]) -> list[Container]:
        """The latest attempts below these container directories."""
        latest = (attempts[-1] for each in directories if (attempts := _attempts(each)))
        found = (self._read(state) for state in latest if state not in self._starting)
        return [container for container in found if container is not None]

    def _read(self, state: Path) -> Container | None:
        """What is on disk about one attempt; None when it was not fully written down."""
        spec = read_spec(state)
        if spec is None:
            return None
        nobody = Process(0, 0)
        # The agent may have died before the shim spoke: then it must never speak.
        _claim(state / "shim")
        shim = Process.read(state / "shim") or nobody
        _settle(state, shim)
        return Container(
            spec=spec,
            state=state,
            log=self._log(spec),
            cgroup=self._cgroups / spec.pod_uid / spec.name,
            shim=shim,
            process=Process.read(state / "pid") or nobody,
            started_at=read_started(state),
        )


def _attempts(directory: Path) -> list[Path]:
    """Attempt directories, oldest first."""
    return sorted(
        (path for path in directory.glob("*") if path.name.isdecimal()),
        key=lambda path: int(path.name),
    )


def _claim(shim: Path) -> None:
    """Take the place of a shim that has not yet said who it is; it then gives up."""
    try:
        with shim.open("x") as file:
            file.write("0 0\n")
    except FileExistsError:
        pass


def _settle(state: Path, shim: Process) -> None:
    """Wait out the milliseconds in which a shim has spoken and its command does not yet run."""
    deadline = time.monotonic() + SETTLE_S
    while not any((state / name).exists() for name in ("started", "status")):
        if not shim.alive or time.monotonic() >= deadline:
            return
        time.sleep(0.001)
