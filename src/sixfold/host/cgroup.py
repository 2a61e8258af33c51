"""Control groups: how containers carry the socket programs, and how their trees are killed.

cgroup v2 only, no controllers: works in hybrid mode. Killing is the kernel's ``cgroup.kill``,
which no fork outruns.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from pathlib import Path

from sixfold.errors import HostError, UnavailableError
from sixfold.host.paths import cgroup_root

KILL_TIMEOUT_S = 5.0


def require() -> None:
    """HostError when there is no cgroup v2 that may be written to; makes nothing."""
    if os.statvfs(root := cgroup_root()).f_flag & os.ST_RDONLY:
        why = os.strerror(errno.EROFS)
        raise HostError(f"cgroup {root}: {why}; sixfold needs root and a writable cgroup v2")


def create(path: Path) -> None:
    """Make a control group and its parents; fine when it is there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(
            f"cgroup {path}: {error.strerror}; sixfold needs root and a writable cgroup v2"
        ) from error


def processes(path: Path) -> list[int]:
    """Pids in this group, without those of its children groups."""
    try:
        return [int(pid) for pid in (path / "cgroup.procs").read_text().split()]
    except (FileNotFoundError, OSError):  # ENODEV: removed while we read
        return []


def populated(path: Path) -> bool:
    """Whether any process lives in the group or below; a zombie does not."""
    try:
        return "populated 1" in (path / "cgroup.events").read_text()
    except OSError:
        return False


async def kill(path: Path, *, timeout_s: float = KILL_TIMEOUT_S) -> None:
    """Kill everything in the group and below, and return when it is empty."""
    try:
        (path / "cgroup.kill").write_text("1")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENODEV):  # gone, or just going
            return
        raise
    await _empty(path, timeout_s)


async def remove(path: Path, *, timeout_s: float = KILL_TIMEOUT_S) -> None:
    """Kill what lives in the group and remove it with all below it."""
    for last in (False, False, True):
        await kill(path, timeout_s=timeout_s)
        try:
            for directory, _, _ in os.walk(path, topdown=False):
                _rmdir(directory)
            return
        except OSError as error:  # EBUSY: somebody moved in after the kill
            if last:
                raise UnavailableError(
                    f"cgroup {path}: {errno.errorcode.get(error.errno or 0, error)}: not "
                    "removed; processes keep entering it, tried again later"
                ) from error


def _rmdir(directory: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(directory)


async def _empty(path: Path, timeout_s: float) -> None:
    """Dying takes a moment: look again ever more slowly, within a bound."""
    pause_s, waited_s = 0.001, 0.0
    while populated(path):
        if waited_s >= timeout_s:
            pids = ", ".join(map(str, processes(path)))
            raise UnavailableError(
                f"cgroup {path}: processes {pids or 'below it'} did not die in {timeout_s:g} s; "
                "they hang in the kernel, tried again later"
            )
        await asyncio.sleep(pause_s)
        waited_s += pause_s
        pause_s = min(pause_s * 2, 0.05)
