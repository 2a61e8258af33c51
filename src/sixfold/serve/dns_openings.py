"""Answers wait here until the kernel lets their addresses through.

Theory of operation. The agent says which names policies mention (``watch``). An answer for such a
name is told to the agent, which opens its addresses and says so; only then the answer is
released, so the first connection after it always works. What the agent has confirmed is
remembered until the TTL that it was confirmed for is over: the same answer out of the cache goes
out at once.

Without an agent answers go out at once, too: addresses that are open stay open, others stay
closed until an agent is back and has been told what the cache still holds. An agent that does
not answer holds them up for ``HOLD_S`` at most; what follows is a denied connection, never an
open one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address

from sixfold.model.domain import DomainMatcher
from sixfold.serve import dns_control as control
from sixfold.serve.dns_addresses import addresses_of
from sixfold.serve.dns_wire import HEADER, read_name

HOLD_S = 3.0
ROUNDED_S = 1.0  # a TTL out of the cache is rounded up; ``discovery/learned.py`` has the slack
CONFIRMED_MAX = 16_384  # names

log = logging.getLogger("sixfold.dns")

Addresses = Mapping[IPv4Address | IPv6Address, int]


class Openings:
    """What was told to the agent, what it confirmed, and who waits for that."""

    def __init__(self) -> None:
        self.statistics: Counter[str] = Counter()
        self._matcher = DomainMatcher()
        self._writer: asyncio.StreamWriter | None = None
        self._number = 0
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._confirmed: dict[str, dict[IPv4Address | IPv6Address, float]] = {}

    async def open(self, name: str, reply: bytes) -> None:
        """Return when the answer may go out."""
        if self._writer is None or not self._matcher.of(name):
            return
        addresses = addresses_of(reply, name)
        now_s = time.monotonic()
        known = self._confirmed.get(name, {})
        if all(now_s + ttl_s <= known.get(one, 0) + ROUNDED_S for one, ttl_s in addresses.items()):
            return
        self._number = number = self._number + 1
        self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._tell(self._writer, number, name, addresses)
            async with asyncio.timeout(HOLD_S):
                complete = await self._waiting[number]
        except TimeoutError:
            log.error("%s: not opened in %g s; its addresses stay as they are", name, HOLD_S)
            complete = False
        finally:
            del self._waiting[number]
        self.statistics["opened" if complete else "unopened"] += 1
        if complete:
            self._confirm(name, addresses, now_s)

    def opened(self, message: control.Opened) -> None:
        """The agent has done it, or says that it could not."""
        future = self._waiting.get(message.number)
        if future is not None and not future.done():
            future.set_result(message.complete)

    def watch(
        self, patterns: Iterable[str], writer: asyncio.StreamWriter, replies: Iterable[bytes]
    ) -> None:
        """Begin anew, with these names: whoever asks from now on waits for this agent."""
        if writer is not self._writer:
            self.left(self._writer)
        self._confirmed.clear()
        self._writer = writer
        self._matcher = DomainMatcher(patterns)
        for reply in replies:  # asked for before anybody cared
            name, _ = read_name(reply, HEADER.size)
            if self._matcher.of(name) and (addresses := addresses_of(reply, name)):
                self._tell(writer, 0, name, addresses)

    def left(self, writer: asyncio.StreamWriter | None) -> None:
        """An agent is gone: nobody waits for it."""
        if writer is None or writer is not self._writer:
            return
        self._writer = None
        self._confirmed.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_result(False)

    def _tell(
        self, writer: asyncio.StreamWriter, number: int, name: str, addresses: Addresses
    ) -> None:
        told = {str(address): ttl_s for address, ttl_s in addresses.items()}
        frame = control.encode(control.Resolved(number, name, told))
        control.write_frame(writer, frame)

    def _confirm(self, name: str, addresses: Addresses, now_s: float) -> None:
        if len(self._confirmed) >= CONFIRMED_MAX:
            self._confirmed.clear()
        known = self._confirmed.get(name, {})
        alive = {one: until_s for one, until_s in known.items() if until_s > now_s}
        self._confirmed[name] = alive | {
            one: max(alive.get(one, 0.0), now_s + ttl_s) for one, ttl_s in addresses.items()
        }
