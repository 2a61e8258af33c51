"""Containers: process trees in a pod's namespaces, each under a shim that outlives the agent.

What is true about a container is on disk and in the kernel, never in this process: the shim
writes who it is, who its child is, and at the end the status (``shim/shim.c`` lists the files).
An agent that starts anew observes, waits by pidfd, and finds what happened meanwhile.

    <run>/pods/<uid>/<container>/<attempt>/     spec.json, shim, pid, started, status
    <state>/logs/<ns>_<pod>_<uid>/<container>/<attempt>.log
    <cgroup>/pods/<uid>/<container>             the container's tree
    <cgroup>/shims                              all shims

A container's cgroup holds one attempt at most: starting the next kills what is left.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal as signals
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from sixfold.errors import HostError
from sixfold.host import cgroup
from sixfold.host.paths import Paths
from sixfold.host.process import Process, child_exited

SHIM = Path(__file__).parent / "objects" / "shim"
ETC = "etc"  # lies over the container's /etc; holds what is mounted there
ATTEMPTS_BEFORE = 1  # kept beside the latest, for ``logs --previous``

EXIT_STATUS_UNKNOWN = 137  # kubelet's code for a container whose end nobody saw


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One attempt to run one container; all of it is fixed before it starts."""

    pod_key: str  # "namespace/name"
    pod_uid: str
    name: str
    attempt: int  # 0, 1, …: one more at each restart
    argv: tuple[str, ...]
    netns: Path
    resolv_conf: Path
    hosts: Path
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    no_new_privs: bool = False
    hostname: str = ""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a container ended; times in seconds since the epoch.

    code       exit code, 128 + signal when a signal ended it
    started_at None when the command never ran
    reason     "Completed", "Error", "StartError" or "ContainerStatusUnknown"
    """

    code: int
    signal: int
    started_at: float | None
    finished_at: float
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    """One attempt as it is on this host, alive or not."""

    spec: ContainerSpec
    state: Path
    log: Path
    cgroup: Path
    shim: Process
    process: Process  # the first process of the tree
    started_at: float | None

    @property
    def key(self) -> str:
        """``pod uid/container``: one at a time."""
        return f"{self.spec.pod_uid}/{self.spec.name}"

    @property
    def running(self) -> bool:
        return self.shim.alive and not (self.state / "status").exists()


class Containers:
    """All containers of one instance on this host."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._pods = paths.run / "pods"
        self._cgroups = paths.cgroup / "pods"
        self._shims = paths.cgroup / "shims"

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
        state = self._prepare(spec)
        await self._launch(spec, state, group)
        container = self._read(state)
        assert container is not None, f"{state}: the shim reported a start without its files"
        return container

    def observe(self) -> list[Container]:
        """The latest attempt of every container that this host knows, ended ones included."""
        found = []
        for directory in sorted(self._pods.glob("*/*")):
            if attempts := _attempts(directory):
                container = self._read(attempts[-1])
                if container is not None:
                    found.append(container)
        return found

    async def wait(self, container: Container) -> ExitStatus:
        """Return when the container has ended; works for those of an earlier agent."""
        await container.shim.exited()
        status = _read_status(container)
        if status is None:  # the shim was killed: its child died with it, its orphans now
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
        containers = [c for c in self.observe() if c.spec.pod_uid == pod_uid]
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
        for attempt in _attempts(self._pods / spec.pod_uid / spec.name):
            if (before := self._read(attempt)) is not None:
                await before.shim.exited()

    def _prepare(self, spec: ContainerSpec) -> Path:
        """Directories of one attempt, and what an agent after us must know of it."""
        directory = self._pods / spec.pod_uid / spec.name
        logs = self.log_directory(spec.pod_key, spec.pod_uid) / spec.name
        logs.mkdir(parents=True, exist_ok=True)
        state = directory / str(spec.attempt)
        before = [path for path in _attempts(directory) if path != state]
        for old in (state, *before[: len(before) - ATTEMPTS_BEFORE]):
            shutil.rmtree(old, ignore_errors=True)
            for log in logs.glob(f"{old.name}.log*"):
                log.unlink(missing_ok=True)
        (state / ETC).mkdir(parents=True)
        state.chmod(0o700)
        for name in ("resolv.conf", "hosts"):
            (state / ETC / name).touch(mode=0o644)
        aside = state / ".spec.json"
        aside.write_bytes(msgspec.json.encode(spec, enc_hook=str))
        aside.rename(state / "spec.json")
        return state

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
        if spec.hostname:
            arguments.append(f"--hostname={spec.hostname}")
        return arguments + user_arguments(spec)

    def _log(self, spec: ContainerSpec) -> Path:
        return self.log_directory(spec.pod_key, spec.pod_uid) / spec.name / f"{spec.attempt}.log"

    def _read(self, state: Path) -> Container | None:
        """What is on disk about one attempt; None when it was not fully written down."""
        try:
            encoded = (state / "spec.json").read_bytes()
        except FileNotFoundError:
            return None
        spec = msgspec.json.decode(encoded, type=ContainerSpec, dec_hook=_decode_path)
        nobody = Process(0, 0)
        # The agent may have died before the shim spoke: then it must never speak.
        _claim(state / "shim")
        return Container(
            spec=spec,
            state=state,
            log=self._log(spec),
            cgroup=self._cgroups / spec.pod_uid / spec.name,
            shim=Process.read(state / "shim") or nobody,
            process=Process.read(state / "pid") or nobody,
            started_at=_read_started(state),
        )


def user_arguments(spec: ContainerSpec) -> list[str]:
    """The shim's options for who runs the command, and where."""
    arguments = [f"--workdir={spec.workdir or '/'}", f"--uid={spec.uid}", f"--gid={spec.gid}"]
    if spec.groups:
        arguments.append(f"--groups={','.join(map(str, spec.groups))}")
    if spec.no_new_privs:
        arguments.append("--no-new-privs")
    return arguments


def environment(spec: ContainerSpec) -> dict[str, str]:
    """The spec's environment; HOME from the password file, as container runtimes do."""
    if "HOME" in spec.env:
        return dict(spec.env)
    try:
        home = pwd.getpwuid(spec.uid).pw_dir
    except KeyError:
        home = "/"
    return {**spec.env, "HOME": home}


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


def _decode_path(kind: type, value: Any) -> Any:
    assert kind is Path, f"{kind}: unexpected type in spec.json"
    return Path(value)


def _read_started(state: Path) -> float | None:
    try:
        return float((state / "started").read_text())
    except FileNotFoundError:
        return None


def _read_status(container: Container) -> ExitStatus | None:
    """The shim's last word: "CODE SIGNAL ERRNO SECONDS MESSAGE"."""
    try:
        line = (container.state / "status").read_text(errors="replace").strip("\n")
    except FileNotFoundError:
        return None
    code, signal, error, finished, message = line.split(" ", 4)
    started = _read_started(container.state)
    reason = "Completed" if code == "0" and signal == "0" else "Error"
    if message:
        reason, message = "StartError", f"{message}: {os.strerror(int(error))}"
    return ExitStatus(
        code=128 + int(signal) if int(signal) else int(code),
        signal=int(signal),
        started_at=started,
        finished_at=float(finished),
        reason=reason,
        message=message,
    )
