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

from sixfold.model.flow import Flow
from sixfold.observe.filter import FlowFilter
from sixfold.observe.joined import Joined

Record = bytes | Flow | Joined  # of the kernel, of the agent, of both ends of the proxy
Decode = Callable[[Record], Flow]
CAPACITY = 32768  # about 6 MB of events


@dataclass(slots=True)
class FlowLog:
    """``decode`` turns the bytes of an event into a flow: unpack, then ``join``; a flow stays."""

    decode: Decode
    capacity: int = CAPACITY
    seen: int = 0  # events since the start; the sequence number of the next one
    lost: int = 0  # events that the kernel could not hand over: its ring was full
    _ring: deque[Record] = field(init=False)

    def __post_init__(self) -> None:
        self._ring = deque(maxlen=self.capacity)

    def extend(self, events: Iterable[Record], lost: int = 0) -> int:
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
        search = self.search(wanted, count)
        for _ in search.steps():
            pass
        return search.found

    def search(self, wanted: FlowFilter, count: int | None = None) -> Search:
        """``last`` in steps, for a caller with other things to do: a whole ring takes a while."""
        return Search(tuple(self._ring), self.decode, wanted, count)

    def read(self, cursor: int, limit: int = 1000) -> Batch:
        """At most ``limit`` events from the cursor on; start with ``log.seen`` to follow."""
        oldest = self.seen - len(self._ring)
        start = min(max(cursor, oldest), self.seen)
        end = min(start + limit, self.seen)
        # A deque indexes from both ends: followers are near the newest.
        raw = [self._ring[position - self.seen] for position in range(start, end)]
        return Batch(tuple(map(self.decode, raw)), end, start - min(cursor, start))


# Events are not in order: the proxy tells of a request, or a connection, when it has ended. So many
# in a row from before are the end of what is looked for.
OLD_IN_A_ROW = 2048


@dataclass(frozen=True, slots=True)
class Batch:
    """What a reader gets: flows, where to go on, how many the ring had overwritten."""

    flows: tuple[Flow, ...]
    cursor: int
    missed: int


class Search:
    """One pass over the events that were there when it began, newest first."""

    def __init__(
        self, ring: tuple[Record, ...], decode: Decode, wanted: FlowFilter, count: int | None
    ) -> None:
        self._ring = ring
        self._decode = decode
        self._wanted = wanted
        self._count = len(ring) if count is None else count
        self._newest_first: list[Flow] = []

    @property
    def found(self) -> list[Flow]:
        """What matched so far, oldest first."""
        return self._newest_first[::-1]

    def steps(self, events: int = 256) -> Iterator[None]:
        """Work; pauses after every so many events (a few milliseconds)."""
        old = 0
        for number, raw in enumerate(reversed(self._ring), 1):
            if len(self._newest_first) >= self._count:
                return
            flow = self._decode(raw)
            old = old + 1 if self._is_too_old(flow) else 0
            if old > OLD_IN_A_ROW:
                return
            if self._wanted.matches(flow):
                self._newest_first.append(flow)
            if number % events == 0:
                yield

    def _is_too_old(self, flow: Flow) -> bool:
        since_ns = self._wanted.since_ns
        return since_ns is not None and flow.time_ns < since_ns
