"""The agent's other connection to the resolver: what names resolve to, before anybody is told; and
who asked for what policy does not let him ask for.

Theory of operation. ``watch`` says which names matter and returns when the resolver holds their
answers; a connection that is lost is made again by the next call, and by ``run`` when the
resolver is back. ``run`` takes what was resolved, in batches of all that is there, because one
change of the kernel may open them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from sixfold.errors import UnavailableError
from sixfold.serve import dns_control as control

log = logging.getLogger(__name__)

ANSWER_S = 10.0
RETRY_S = 0.2
BATCH_MAX = 512

Take = Callable[[Sequence[control.Resolved]], Sequence[bool]]
Hear = Callable[[control.Refused], None]


class NameWatch:
    """One per agent. ``take`` opens what was resolved and says of each whether it is open."""

    def __init__(self, socket: Path, take: Take, hear: Hear) -> None:
        self._socket = socket
        self._take = take
        self._hear = hear
        self._patterns: tuple[str, ...] = ()
        self._wanted = False
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._resolved: asyncio.Queue[control.Resolved] = asyncio.Queue()
        self._answers: asyncio.Queue[bool] = asyncio.Queue()
        self._lock = asyncio.Lock()

    async def watch(self, patterns: frozenset[str], *, refusals: bool = False) -> None:
        """Have answers for these names told; UnavailableError when the resolver is away.

        refusals  there are limits: what they refuse is told, too
        """
        async with self._lock:
            names, wanted = tuple(sorted(patterns)), refusals or bool(patterns)
            same = (names, wanted) == (self._patterns, self._wanted)
            if same and (self._writer is not None or not wanted):
                return
            self._patterns, self._wanted = names, wanted
            await self._say()

    async def run(self) -> None:
        """Take what was resolved, until cancelled."""
        while True:
            batch = [await self._resolved.get()]
            while len(batch) < BATCH_MAX and not self._resolved.empty():
                batch.append(self._resolved.get_nowait())
            began_s = time.monotonic()
            for message, complete in zip(batch, self._take(batch), strict=True):
                self._confirm(message, complete)
            # However fast names are asked for, half of the time is for everything else.
            await asyncio.sleep(time.monotonic() - began_s)

    async def close(self) -> None:
        """Leave; the resolver then holds nothing up."""
        self._wanted = False
        self._disconnect()

    def _confirm(self, message: control.Resolved, complete: bool) -> None:
        if self._writer is not None and message.number:
            frame = control.encode(control.Opened(message.number, complete))
            control.write_frame(self._writer, frame)

    async def _say(self) -> None:
        try:
            if self._writer is None:
                await self._connect()
            assert self._writer is not None
            control.write_frame(self._writer, control.encode(control.Watch(self._patterns)))
            await self._writer.drain()
            if not await asyncio.wait_for(self._answers.get(), ANSWER_S):
                raise UnavailableError("resolver: left while it was told which names to watch")
        except (OSError, TimeoutError) as error:
            self._disconnect()
            raise UnavailableError(f"resolver: names not watched: {error or 'no answer'}") from None

    async def _connect(self) -> None:
        reader, self._writer = await asyncio.open_unix_connection(self._socket)
        self._answers = asyncio.Queue()
        self._reading = asyncio.create_task(self._read(reader, self._writer, self._answers))

    async def _read(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.Queue[bool],
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, msgspec.MsgspecError):
            while True:
                match control.decode_report(await control.read_frame(reader)):
                    case control.Resolved() as message:
                        self._resolved.put_nowait(message)
                    case control.Refused() as message:
                        self._hear(message)
                    case control.State():
                        answers.put_nowait(True)
        answers.put_nowait(False)
        if self._writer is writer:
            self._disconnect()
            await self._return()

    async def _return(self) -> None:
        """The resolver is gone: be there again when the next one is."""
        while self._wanted and self._writer is None:
            await asyncio.sleep(RETRY_S)
            async with self._lock:
                if self._wanted and self._writer is None:
                    with contextlib.suppress(UnavailableError):
                        await self._say()

    def _disconnect(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None
        while not self._resolved.empty():  # numbers of a resolver that is gone
            self._resolved.get_nowait()
