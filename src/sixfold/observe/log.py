"""The last flows, in memory: a bounded ring of raw events, decoded when somebody asks.

Pure. Theory of operation: the kernel may report tens of thousands of connections a second,
people read a few dozen; so an event is kept as the bytes it came as, and decoded and joined
only for readers. Every event has a sequence number; a reader keeps a cursor, and what the ring
overwrote before it was read is counted as missed, never skipped in silence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from sixfold.model.flow import Flow
from sixfold.observe.filter import FlowFilter

Decode = Callable[[bytes], Flow]
CAPACITY = 32768  # about 6 MB of events


@dataclass(slots=True)
class FlowLog:
    """``decode`` turns the bytes of an event into a flow: unpack, then ``join``."""

    decode: Decode
    capacity: int = CAPACITY
    seen: int = 0  # events since the start; the sequence number of the next one
    lost: int = 0  # events that the kernel could not hand over: its ring was full
    _ring: deque[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._ring = deque(maxlen=self.capacity)

    def extend(self, events: Iterable[bytes], lost: int = 0) -> int:
        """Take events in the order they happened; returns how many."""
        before = self.seen
        for event in events:
            self._ring.append(event)
            self.seen += 1
        self.lost += lost
        return self.seen - before

    def __len__(self) -> int:
        return len(self._ring)

    def last(self, wanted: FlowFilter, count: int | None = None) -> list[Flow]:
        """The newest ``count`` flows that match (None: all), oldest first."""
        return list(islice(self._newest(wanted), count))[::-1]

    def read(self, cursor: int, limit: int = 1000) -> Batch:
        """At most ``limit`` events from the cursor on; start with ``log.seen`` to follow."""
        oldest = self.seen - len(self._ring)
        start = min(max(cursor, oldest), self.seen)
        end = min(start + limit, self.seen)
        # A deque indexes from both ends: followers are near the newest.
        raw = [self._ring[position - self.seen] for position in range(start, end)]
        return Batch(tuple(map(self.decode, raw)), end, start - min(cursor, start))

    def _newest(self, wanted: FlowFilter) -> Iterator[Flow]:
        """Matching flows, newest first; stops where time is before ``since``."""
        for raw in tuple(self._ring)[::-1]:
            flow = self.decode(raw)
            if wanted.since_ns is not None and flow.time_ns < wanted.since_ns - REORDER_NS:
                return
            if wanted.matches(flow):
                yield flow


# Events of several CPUs reach the ring slightly out of order.
REORDER_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Batch:
    """What a reader gets: flows, where to go on, how many the ring had overwritten."""

    flows: tuple[Flow, ...]
    cursor: int
    missed: int
