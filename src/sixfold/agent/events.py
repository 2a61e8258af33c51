"""Flow events out of the kernel's ring into the flow log, every 20 ms."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from sixfold.host.datapath import KernelDatapath
from sixfold.host.layout import EVENT_KIND, client_key, pack_side, unpack_event
from sixfold.model.flow import Flow
from sixfold.observe import FlowLog, Names, PolicyHits, join, policy_hits
from sixfold.observe.access import Place
from sixfold.observe.counts import FlowCounts
from sixfold.observe.joined import Joined, Pairs
from sixfold.observe.log import Record
from sixfold.observe.refused import kind_of

PERIOD_S = 0.02


class FlowReader:
    """Moves events; they are joined with names only when somebody reads them."""

    def __init__(
        self, datapath: KernelDatapath, names: Names, refusals: Callable[[int], list[Flow]]
    ) -> None:
        """``refusals``: of system calls, since last time; is told what is between the clocks."""
        self._datapath = datapath
        self._refusals = refusals
        self._names = names
        # CLOCK_REALTIME may be stepped: taken anew at every drain, used for what is read after it
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self.log = FlowLog(self._decode)
        self.counts = FlowCounts(names)
        self.pairs: Pairs | None = None  # of a mesh: its connections are told by two

    def _decode(self, raw: Record) -> Flow:
        if isinstance(raw, Flow):
            return raw
        if isinstance(raw, Joined):
            return raw.told(self._decode)
        return join(unpack_event(raw), self._names, self._offset_ns)

    def expect_pairs(self) -> None:
        """There is a proxy, which tells of connections, too."""
        self.pairs = Pairs(client_key)

    def join(self, client: Place, flow: Flow, *, lasts: bool) -> None:
        """What the proxy tells of a connection, under its client's own address and port."""
        assert self.pairs is not None, "who has a proxy expects pairs"
        self.drain()  # of the two the kernel is first
        self.log.extend([self.pairs.join(pack_side(*client), flow, lasts=lasts)])

    def ended(self, client: Place, sent: int, received: int) -> None:
        if self.pairs is not None:
            self.pairs.ended(pack_side(*client), sent, received)

    def drain(self) -> int:
        """Take what is there now; returns the number of events."""
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        refused = self._refusals(self._offset_ns)
        self.counts.take(kind_of(flow) for flow in refused)
        self.log.extend(refused)
        events, lost = self._datapath.events.drain()
        self.counts.take(map(EVENT_KIND.unpack_from, events))
        if self.pairs is None:
            return self.log.extend(events, lost)
        now_s = time.monotonic()
        return self.log.extend([*self.pairs.due(now_s), *self.pairs.hold(events, now_s)], lost)

    async def run(self) -> None:
        """Drain until cancelled."""
        while True:
            self.drain()
            await asyncio.sleep(PERIOD_S)

    def policy_hits(self) -> Mapping[str, PolicyHits]:
        """How often each policy decided, by rule."""
        return policy_hits(self._names.rules, self.rule_hits())

    def rule_hits(self) -> Mapping[int, int]:
        return self._datapath.rule_hits()

    def statistics(self) -> dict[str, int]:
        """Packets dropped since the datapath was loaded, by reason; events lost."""
        return self._datapath.statistics()
