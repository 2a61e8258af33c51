"""Processes named for ever: a pid with its start time, waited for by pidfd.

A pid alone is reused; together with the start time it names one process until reboot. Waiting
works for processes that are nobody's child here, as after a restart of the agent.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """One process of this boot; ``start`` in clock ticks since boot (proc(5), field 22)."""

    pid: int
    start: int

    @classmethod
    def read(cls, path: Path) -> Process | None:
        """A process from a file that holds "PID START"; None without the file."""
        try:
            pid, start = path.read_text().split()
        except FileNotFoundError:
            return None
        return cls(int(pid), int(start))

    @property
    def alive(self) -> bool:
        """Whether it runs: a zombie does not."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        state, *fields = stat.rpartition(")")[2].split()  # the name may hold spaces
        return state not in "ZX" and int(fields[18]) == self.start

    def open(self) -> int | None:
        """A pidfd, the caller's to close; None when the process is gone."""
        if self.pid <= 0:
            return None
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if self.alive:  # checked after opening: from here on the pidfd cannot mean another
            return pidfd
        os.close(pidfd)
        return None

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; False when the process is gone."""
        pidfd = self.open()
        if pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(pidfd)
        return True

    async def exited(self) -> None:
        """Return when the process has ended; at once when it is gone."""
        pidfd = self.open()
        if pidfd is None:
            return
        try:
            await readable(pidfd)
        finally:
            os.close(pidfd)


async def child_exited(pid: int) -> None:
    """Return when a child of ours has ended; reaping it stays the caller's."""
    pidfd = os.pidfd_open(pid)
    try:
        await readable(pidfd)
    finally:
        os.close(pidfd)


async def readable(fd: int) -> None:
    """Return when a descriptor is readable; a pidfd is from the end of its process on."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
