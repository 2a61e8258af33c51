"""The agent's side of the cluster resolver: start it, find it again, tell it every change.

Theory of operation. The resolver is a detached process that outlives the agent. ``push`` compares
the new zone with the last one sent and sends the difference; whenever a connection is new, the
whole zone is sent. The end of the connection is how the death of the resolver is noticed: it is
restarted at once and serves from its file before the agent has sent anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from sixfold import __version__
from sixfold.discovery.plan import zone_settings
from sixfold.discovery.zone import Zone, difference
from sixfold.errors import UnavailableError
from sixfold.host.paths import Paths
from sixfold.model.config import Config
from sixfold.model.names import ViewPlan
from sixfold.serve import dns_control as control

log = logging.getLogger(__name__)

PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid
START_S = 10.0  # a cold Python on a busy machine
ANSWER_S = 10.0
EXIT_S = 5.0
POLL_S = 0.02
RESTART_PAUSE_S = 1.0  # between restarts of a resolver that dies again and again


class ResolverClient:
    """One per agent. ``arguments`` are added to the resolver's command line."""

    def __init__(self, paths: Paths, config: Config, arguments: Sequence[str] = ()) -> None:
        self._paths = paths
        self._config = config
        self._arguments = tuple(arguments)
        self._child = 0  # pid of the one we started, until reaped
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._answers: asyncio.Queue[control.State | None] = asyncio.Queue()
        self._watching: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()
        self._zone: Zone | None = None  # wanted
        self._views = ViewPlan()
        self._serial = 0
        self._sent: tuple[Zone, ViewPlan] | None = None  # on this connection
        self.globals = control.Globals()  # told with the next push
        self.edge_problem = ""
        self._sent_globals: control.Globals | None = None
        self.health_ports = control.HealthPorts()  # told with the next push
        self.health_ports_problem = ""
        self._sent_health_ports: control.HealthPorts | None = None
        self.limits = control.Limits()  # told with the next push
        self._sent_limits: control.Limits | None = None
        self._generation = 0
        self._wanted = False  # revive it when it dies
        self._started_s = 0.0
        self.pid = 0

    @property
    def socket(self) -> Path:
        """Where the resolver listens for its agent."""
        return self._paths.run / "dns.sock"

    @property
    def state(self) -> str:
        """``ok``, or ``down`` while there is no resolver."""
        return "ok" if self._writer is not None else "down"

    async def start_or_adopt(self) -> None:
        """Make sure that a resolver runs and is ours; UnavailableError when none comes up."""
        async with self._lock:
            self._wanted = True
            await self._ensure()

    async def push(self, zone: Zone, views: ViewPlan | None = None, serial: int = 0) -> None:
        """Make the resolver answer by this zone; returns when it does.

        views   who is told what of it; None: everybody everything
        serial  of its SOA; 0: the resolver's own count
        """
        async with self._lock:
            self._wanted = True
            self._zone, self._serial = zone, serial
            self._views = ViewPlan() if views is None else views
            try:
                await self._ensure()
                await self._send()
            except UnavailableError:  # it died under our hands; a second time is an error
                await self._ensure()
                await self._send()

    async def stats(self) -> control.State:
        """What the resolver says of itself: counts by rcode, forwards, cache hits."""
        async with self._lock:
            await self._ensure()
            return await self._call(control.Ask())

    async def stop(self) -> None:
        """End the resolver, and with it the cluster's names; no error when there is none."""
        async with self._lock:
            self._wanted = False
            try:
                if self._writer is None:
                    await self._connect()
                await self._call(control.Shutdown())
            except (OSError, UnavailableError):
                await self._end_stray()
            await self._exited()
            self._disconnect()

    async def close(self) -> None:
        """Leave the resolver running; only the connection to it ends."""
        async with self._lock:
            self._wanted = False
            self._disconnect()

    # --- connection -------------------------------------------------------------------------

    async def _ensure(self) -> None:
        if self._writer is not None:
            return
        try:
            state = await self._connect()
        except OSError:
            await self._end_stray()
            state = await self._start()
        except UnavailableError as error:
            log.warning("%s; it hangs or speaks another version's language: replacing it", error)
            await self._killed()
            state = await self._start()
        if state.version != __version__:
            log.info("resolver pid %d is version %s; replacing it", state.pid, state.version)
            await self._call(control.Shutdown())
            await self._exited()
            self._disconnect()
            await self._start()
        if self._zone is not None:
            await self._send()

    async def _start(self) -> control.State:
        log_file = self._paths.state / "dns.log"
        self._child = self._spawn(log_file)
        self._started_s = time.monotonic()
        while time.monotonic() < self._started_s + START_S:
            try:
                return await self._connect()
            except OSError:
                pass
            if self._reaped():
                said = _last_line(log_file)
                raise UnavailableError(f"resolver: ended at once: {said}; see {log_file}")
            await asyncio.sleep(POLL_S)
        raise UnavailableError(f"resolver: no answer in {START_S:.0f} s; see {log_file}")

    @property
    def _command(self) -> list[str]:
        return [sys.executable, "-m", "sixfold.serve.dns", "--instance", self._paths.instance]

    def _spawn(self, log_file: Path) -> int:
        """A process of its own session, in the network namespace that we are in.

        Not ``subprocess``: its objects expect their process to end before them.
        """
        self._reaped()
        self._paths.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return os.posix_spawn(
            sys.executable,
            [*self._command, *self._arguments],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log_file), append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )

    def _reaped(self) -> bool:
        """Whether the child that we started has ended; there is no zombie then."""
        if self._child:
            try:
                pid, _ = os.waitpid(self._child, os.WNOHANG)
            except ChildProcessError:  # somebody else reaped it
                pid = self._child
            if not pid:
                return False
            self._child = 0
        return True

    async def _connect(self) -> control.State:
        """Open the control connection; OSError when nobody listens."""
        reader, writer = await asyncio.open_unix_connection(self.socket)
        self._reader, self._writer, self._sent = reader, writer, None
        self._sent_globals = self._sent_health_ports = self._sent_limits = None
        self._answers = asyncio.Queue()
        peer = writer.get_extra_info("socket")
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
        self.pid, _, _ = PEER.unpack(credentials)
        task = asyncio.create_task(self._watch(reader, self._answers))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)
        return await self._call(control.Ask())

    def _disconnect(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = self._sent = None

    async def _watch(
        self, reader: asyncio.StreamReader, answers: asyncio.Queue[control.State | None]
    ) -> None:
        """Take answers off the connection; when it ends, have a resolver again."""
        try:
            while True:
                answers.put_nowait(control.decode_state(await control.read_frame(reader)))
        except (OSError, asyncio.IncompleteReadError, msgspec.MsgspecError):
            answers.put_nowait(None)
        if self._reader is reader:
            self._disconnect()
        while self._wanted:
            pause_s = self._started_s + RESTART_PAUSE_S - time.monotonic()
            await asyncio.sleep(max(0.0, pause_s))
            async with self._lock:
                try:
                    if self._wanted:
                        await self._ensure()
                    return
                except UnavailableError as error:
                    log.error("%s", error)

    async def _send(self) -> None:
        if self._sent_limits is not self.limits:  # first: nobody is answered what he may not ask
            wanted = self.limits
            await self._call(wanted)
            self._sent_limits = wanted
        await self._send_zone()
        await self._send_globals()
        await self._send_health_ports()

    async def _send_zone(self) -> None:
        assert self._zone is not None
        if self._sent is not None:
            zone, views = self._sent
            if zone is self._zone and views is self._views:
                return
        self._generation += 1
        message: control.Load | control.Change
        if self._sent is None:
            settings = zone_settings(self._config)
            message = control.load_message(
                self._config, settings, self._zone, self._generation, self._views
            )
        else:
            delta = difference(zone, self._zone)
            views_changed = control.views_message(views, self._views)
            message = control.change_message(delta, self._generation, views_changed)
        message.serial = self._serial
        await self._call(message)
        self._sent = self._zone, self._views

    async def _send_globals(self) -> None:
        if self._sent_globals is not self.globals:
            wanted = self.globals
            self.edge_problem = (await self._call(wanted)).problem
            self._sent_globals = wanted

    async def _send_health_ports(self) -> None:
        """What is not served for a reason is tried again: the port may be free by now."""
        wanted = self.health_ports
        if self._sent_health_ports != wanted or self.health_ports_problem:
            self.health_ports_problem = (await self._call(wanted)).problem
            self._sent_health_ports = wanted

    async def _call(self, message: control.Message) -> control.State:
        """One message, one answer; UnavailableError and no connection when it fails."""
        assert self._writer is not None
        try:
            control.write_frame(self._writer, control.encode(message))
            await self._writer.drain()
            state = await asyncio.wait_for(self._answers.get(), ANSWER_S)
        except (OSError, TimeoutError) as error:
            self._disconnect()
            raise UnavailableError(f"resolver pid {self.pid}: {error or 'no answer'}") from error
        except asyncio.CancelledError:
            self._disconnect()  # the answer under way would be taken for the next one's
            raise
        if state is None:
            self._disconnect()
            raise UnavailableError(f"resolver pid {self.pid}: died")
        return state

    async def _exited(self) -> None:
        """Wait until the process is gone and its port is free; kill it when it lingers."""
        if not self.pid:
            return
        for _ in range(int(EXIT_S / POLL_S)):
            if not self._alive():
                break
            await asyncio.sleep(POLL_S)
        else:
            await self._killed()
        self.pid = 0

    async def _end_stray(self) -> None:
        """End a resolver whose run directory was swept away: it holds the port, unreachable."""
        stray = next(_running(self._command[1:]), 0)
        if stray:
            log.warning("resolver pid %d: lost its socket; ended", stray)
            self.pid = stray
            await self._killed()
            self.pid = 0

    async def _killed(self) -> None:
        """End a process that does not listen to us; its pid is the kernel's word (ucred)."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        for _ in range(int(EXIT_S / POLL_S)):
            if not self._alive():
                return
            await asyncio.sleep(POLL_S)

    def _alive(self) -> bool:
        if self._child == self.pid:
            return not self._reaped()
        try:
            status = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return False
        # A zombie, of an agent that has not looked yet, holds no port.
        return status.rpartition(")")[2].split()[0] not in "ZX"


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()
    return lines[-1] if lines else ""


def _running(command: Sequence[str]) -> Iterator[int]:
    """Processes whose arguments begin so, whichever interpreter they run in."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_text(errors="replace").split("\0")
            if words[1 : 1 + len(command)] == list(command):
                yield int(path.parent.name)
