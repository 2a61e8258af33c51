"""Which names may a client ask for? The agent's limits, as the process holds clients to them.

A name of ours that is not there is denied as that, whoever asks: libc's search path is made of
such names, and gives up at the first that is refused. They never leave this host.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import NamedTuple

from sixfold.model.config import RESOLVER_IPV4, RESOLVER_IPV6
from sixfold.model.domain import DomainMatcher
from sixfold.serve import dns_control as control

TOLD_PER_S = 256  # of one client, as of the kernel's answers: a flood is counted, not told


class Asking(NamedTuple):
    """Who asks, and how."""

    address: str
    port: int = 0
    protocol: str = "UDP"


class Limit(NamedTuple):
    names: DomainMatcher
    audit: bool


class Limits:
    """What the agent said last."""

    def __init__(self, message: control.Limits | None = None) -> None:
        known = message or control.Limits()
        sets = [Limit(DomainMatcher(one.patterns), one.audit) for one in known.sets]
        self._of = {client: sets[number] for client, number in known.clients.items()}

    def of(self, address: str) -> Limit | None:
        """None: the client may ask for everything."""
        return self._of.get(address)


class Telling:
    """Refusals, for the agent; without one they are counted only."""

    def __init__(self, statistics: Counter[str]) -> None:
        self.writer: asyncio.StreamWriter | None = None
        self._statistics = statistics
        self._second = 0
        self._told: Counter[str] = Counter()

    def tell(self, who: Asking, name: str, type_: str, now_s: float, *, audit: bool) -> None:
        self._statistics["audited" if audit else "limited"] += 1
        if int(now_s) != self._second:
            self._second = int(now_s)
            self._told.clear()
        self._told[who.address] += 1
        if self.writer is None or self._told[who.address] > TOLD_PER_S:
            return
        resolver = str(RESOLVER_IPV6 if ":" in who.address else RESOLVER_IPV4)
        said = control.Refused(*who[:2], resolver, who.protocol, name, type_, audit)
        control.write_frame(self.writer, control.encode(said))
