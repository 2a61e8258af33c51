"""Logs of a container: the CRI files that shims write, read and followed.

One file an attempt, ``<attempt>.log``, and ``<attempt>.log.1`` for what was rotated out. A record
is "TIME STREAM TAG TEXT"; the parts of a long line (tag P) are joined again, per stream. Nothing
is kept in memory but one chunk and unfinished lines; following looks again every 100 ms.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from sixfold.errors import UnavailableError

CHUNK_BYTES = 64 * 1024
LINE_BYTES_MAX = 1024 * 1024  # a longer line is shown in pieces
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What kubectl logs takes; None means no limit."""

    tail: int | None = None  # the last lines, of what ``since_s`` leaves
    since_s: float | None = None  # not older than this
    timestamps: bool = False
    previous: bool = False  # the attempt before the latest
    follow: bool = False  # go on, over rotations and restarts, until the pod is gone


@dataclass(frozen=True, slots=True)
class Line:
    """One line as the container printed it, without its newline."""

    time: str  # RFC 3339, UTC, nanoseconds: sorts as text
    stream: str
    text: str


def stream(
    directory: Path, options: LogOptions, *, ended: Callable[[], bool] = lambda: True
) -> AsyncIterator[str]:
    """Lines of one container's log directory, ready to print, newline included.

    Following ends when ``ended()`` holds and all is read. Raises UnavailableError at once when
    there is no such attempt and none is waited for.
    """
    attempts = _attempts(directory)
    if options.previous:
        if len(attempts) < 2:
            raise UnavailableError(
                f"logs of {directory.name}: it has not restarted: no previous attempt is kept; "
                "leave out --previous"
            )
        return _print(_read(directory, attempts[-2], options), options)
    if not attempts and not options.follow:
        raise UnavailableError(
            f"logs of {directory.name}: it has not started yet; see sixfold describe pod"
        )
    if options.follow:
        return _print(_follow(directory, options, ended), options)
    return _print(_read(directory, attempts[-1], options), options)


class Joiner:
    """Records in, lines out; holds the parts of unfinished lines."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._rest = b""  # of a record cut by a chunk's end
        self._parts: dict[str, Line] = {}  # by stream

    def feed(self, chunk: bytes) -> list[Line]:
        """Lines that this chunk completes."""
        *records, self._rest = (self._rest + chunk).split(b"\n")
        return [line for record in records if (line := self._record(record)) is not None]

    def _record(self, record: bytes) -> Line | None:
        fields = record.decode(errors="replace").split(" ", 3)
        if len(fields) != 4:  # torn by a crash of the machine
            return None
        time, stream, tag, text = fields
        if before := self._parts.pop(stream, None):
            time, text = before.time, before.text + text
        line = Line(time, stream, text)
        if tag == "P" and len(text) < LINE_BYTES_MAX:
            self._parts[stream] = line
            return None
        return line


async def _print(lines: AsyncIterator[Line], options: LogOptions) -> AsyncIterator[str]:
    async for line in lines:
        yield f"{line.time} {line.text}\n" if options.timestamps else f"{line.text}\n"


async def _read(directory: Path, attempt: int, options: LogOptions) -> AsyncIterator[Line]:
    """What one attempt has logged so far."""
    files = _files(directory, attempt)
    try:
        async for line in _present(files, options, Joiner()):
            yield line
    finally:
        for file in files:
            file.close()


async def _follow(
    directory: Path, options: LogOptions, ended: Callable[[], bool]
) -> AsyncIterator[Line]:
    """The latest attempt and those after it, as they grow."""
    while not (attempts := _attempts(directory)):
        if ended():
            return
        await asyncio.sleep(POLL_S)
    attempt, joiner = attempts[-1], Joiner()
    files = _files(directory, attempt)
    try:
        async for line in _present(files, options, joiner):
            yield line
        while files:
            # Looked at before reading: what has a successor by now gets no more records.
            over, successor = ended(), _successor(directory, attempt, files[-1])
            async for line in _rest(files[-1], joiner):
                yield line
            if successor is not None:
                if successor[0] != attempt:
                    joiner = Joiner()
                attempt, file = successor
                files.append(file)
                files.pop(0).close()
            elif over:
                return
            else:
                await asyncio.sleep(POLL_S)
    finally:
        for file in files:
            file.close()


async def _present(
    files: list[BinaryIO], options: LogOptions, joiner: Joiner
) -> AsyncIterator[Line]:
    """Lines that are there now, after ``since_s`` and ``tail``; files end up at their ends."""
    since = _since(options.since_s)
    if options.tail is not None:
        for line in _tail(files, options.tail, joiner):
            if line.time >= since:
                yield line
        return
    for file in files:
        async for line in _rest(file, joiner):
            if line.time >= since:
                yield line


async def _rest(file: BinaryIO, joiner: Joiner) -> AsyncIterator[Line]:
    """From where the file stands to its end."""
    while chunk := file.read(CHUNK_BYTES):
        for line in joiner.feed(chunk):
            yield line
        await asyncio.sleep(0)  # a chatty container must not hold the agent's loop


def _tail(files: list[BinaryIO], count: int, joiner: Joiner) -> Sequence[Line]:
    """The last lines, read from ever further back until there are enough."""
    sizes = [os.fstat(file.fileno()).st_size for file in files]
    window = max(CHUNK_BYTES, count * 256)
    while True:
        joiner.reset()
        skip = max(0, sum(sizes) - window)
        last: deque[Line] = deque(maxlen=count + 1)  # one more: the first may be cut
        for file, size in zip(files, sizes, strict=True):
            file.seek(min(skip, size))
            skip -= min(skip, size)
            while chunk := file.read(CHUNK_BYTES):
                last.extend(joiner.feed(chunk))
        if len(last) > count or window >= sum(sizes):
            return list(last)[max(0, len(last) - count) :]
        window *= 4


def _successor(directory: Path, attempt: int, file: BinaryIO) -> tuple[int, BinaryIO] | None:
    """What is written after this file: its successor in rotation, or the next attempt."""
    try:
        written = os.stat(directory / f"{attempt}.log").st_ino
    except FileNotFoundError:
        written = 0
    if written not in (0, os.fstat(file.fileno()).st_ino):
        following = [attempt]
    else:
        following = [number for number in _attempts(directory) if number > attempt]
    for number in following[:1]:
        opened = _open(directory / f"{number}.log")
        if opened is not None:
            return number, opened
    return None


def _since(since_s: float | None) -> str:
    if since_s is None:
        return ""
    return (datetime.now(UTC) - timedelta(seconds=since_s)).isoformat(timespec="microseconds")


def _attempts(directory: Path) -> list[int]:
    """Attempts with a log, oldest first."""
    names = (path.name.removesuffix(".log") for path in directory.glob("*.log"))
    return sorted(int(name) for name in names if name.isdecimal())


def _files(directory: Path, attempt: int) -> list[BinaryIO]:
    """The files of one attempt, oldest first; the newest opened first, so that none is missed."""
    newest = _open(directory / f"{attempt}.log")
    older = _open(directory / f"{attempt}.log.1")
    if newest and older and os.path.sameopenfile(newest.fileno(), older.fileno()):
        older.close()  # rotated in between: we hold the older one already
        older = None
    return [file for file in (older, newest) if file is not None]


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None
