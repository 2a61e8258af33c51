"""Running a command inside a container that runs: ``sixfold exec`` and exec probes.

The shim's ``enter`` joins the container's cgroup and namespaces, takes its user and becomes
the command. In the foreground this very process becomes it, so the terminal, signals and exit
code are the command's own, with nothing in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from sixfold.errors import HostError, UnavailableError
from sixfold.host.container import Container, environment
from sixfold.host.containers import SHIM
from sixfold.host.process import Process, child_exited

OUTPUT_BYTES = 10 * 1024  # of a probe's output; kubelet keeps as much
KILL_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """Everything needed to enter a container; ``start`` 0 trusts the pid alone."""

    pid: int
    cgroup: str
    start: int = 0
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    no_new_privs: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"

    @classmethod
    def of(cls, container: Container) -> Target:
        spec = container.spec
        return cls(
            pid=container.process.pid,
            start=container.process.start,
            cgroup=str(container.cgroup),
            uid=spec.uid,
            gid=spec.gid,
            groups=spec.groups,
            no_new_privs=spec.no_new_privs,
            env=environment(spec),
            cwd=spec.workdir or "/",
        )


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command in a container ended; code 128 + signal when a signal ended it."""

    code: int
    output: str  # its streams as they came, cut at OUTPUT_BYTES


def enter(target: Target, argv: Sequence[str], *, tty: bool = False) -> NoReturn:
    """Become the command inside the container; never returns. With ``tty``, TERM goes along."""
    env = dict(target.env)
    if tty and "TERM" in os.environ:
        env.setdefault("TERM", os.environ["TERM"])
    _check(target)
    os.execve(SHIM, _command(target, argv), env)


async def run(target: Target, argv: Sequence[str], *, timeout_s: float) -> Finished:
    """Run a command inside the container; raises TimeoutError after killing it."""
    _check(target)
    return await _run(_command(target, argv), target.env, timeout_s)


async def run_on_host(argv: Sequence[str], env: Mapping[str, str], *, timeout_s: float) -> Finished:
    """Run a command where the agent is, with its environment and ``env``."""
    return await _run(argv, {**os.environ, **env}, timeout_s)


async def _run(argv: Sequence[str], env: Mapping[str, str], timeout_s: float) -> Finished:
    output = _Output()
    try:
        process = subprocess.Popen(  # noqa: ASYNC220 - returns when the program is executed
            list(argv),
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output.writer,
            stderr=output.writer,
            start_new_session=True,
        )
        output.open()
        try:
            async with asyncio.timeout(timeout_s):
                await child_exited(process.pid)
        finally:
            await _end(process)
    finally:
        output.close()
    code = process.returncode
    return Finished(128 - code if code < 0 else code, output.text)


async def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the command and reap it; one that hangs in the kernel is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(KILL_TIMEOUT_S):
            await child_exited(process.pid)
    process.poll()


class _Output:
    """The read end of a command's streams: takes all, keeps the first OUTPUT_BYTES."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self.writer, True)  # the command's end is an ordinary pipe
        self._kept = bytearray()
        self._loop = asyncio.get_running_loop()

    def open(self) -> None:
        self._loop.add_reader(self._reader, self._drain)

    def close(self) -> None:
        """Take what is there; children that the command left with the pipe are not awaited."""
        self._drain()
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        os.close(self.writer)

    @property
    def text(self) -> str:
        return self._kept.decode(errors="replace")

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._reader, 65536):
                self._kept += chunk[: OUTPUT_BYTES - len(self._kept)]


def _check(target: Target) -> None:
    if target.start and not Process(target.pid, target.start).alive:
        raise UnavailableError(
            f"process {target.pid}: it is gone: the container ended; try again when it runs"
        )
    if not SHIM.exists():
        raise HostError(f"{SHIM}: not built; run python hatch_build.py")


def _command(target: Target, argv: Sequence[str]) -> list[str]:
    command = [str(SHIM), "enter", f"--pid={target.pid}", f"--start={target.start}"]
    command += [f"--cgroup={target.cgroup}", f"--workdir={target.cwd}"]
    command += [f"--uid={target.uid}", f"--gid={target.gid}"]
    if target.groups:
        command.append(f"--groups={','.join(map(str, target.groups))}")
    if target.no_new_privs:
        command.append("--no-new-privs")
    return [*command, "--", *argv]
