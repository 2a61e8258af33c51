"""Flow events out of the kernel's ring into the flow log, every 20 ms."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from sixfold.host.datapath import KernelDatapath
from sixfold.host.layout import EVENT_KIND, unpack_event
from sixfold.model.flow import Flow
from sixfold.observe import FlowLog, Names, PolicyHits, join, policy_hits
from sixfold.observe.counts import FlowCounts

PERIOD_S = 0.02


class FlowReader:
    """Moves events; they are joined with names only when somebody reads them."""

    def __init__(self, datapath: KernelDatapath, names: Names) -> None:
        self._datapath = datapath
        self._names = names
        # CLOCK_REALTIME may be stepped: taken anew at every drain, used for what is read after it
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self.log = FlowLog(self._decode)
        self.counts = FlowCounts(names)

    def _decode(self, raw: bytes | Flow) -> Flow:
        if isinstance(raw, Flow):
            return raw
        return join(unpack_event(raw), self._names, self._offset_ns)

    def drain(self) -> int:
        """Take what is there now; returns the number of events."""
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        events, lost = self._datapath.events.drain()
        self.counts.take(map(EVENT_KIND.unpack_from, events))
        return self.log.extend(events, lost)

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
