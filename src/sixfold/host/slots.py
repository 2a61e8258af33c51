"""Who owns which slot: runs of numbered places in an array that the kernel reads.

A frontend owns a run of whole lines of slots; each slot names a backend by number. Equal places
share theirs, and so the load that is counted under it. Pure bookkeeping. What is released serves
again only after ``settle``: until then a program may still be looking at it. The number of a place
that nobody lists any more rests until its last connection has ended, and is its own again if it
comes back.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, filterfalse, islice
from operator import or_

from sixfold.balancing.table import unpack_table
from sixfold.errors import HostError
from sixfold.host import layout
from sixfold.host.changes import Changes, map_full
from sixfold.host.layout import (
    RUN,
    SLOT_NUMBER_BITS,
    SLOTS_PER_LINE,
    U32,
    Place,
    Run,
)
from sixfold.model.datapath import Backend, Frontend, FrontendEntry
from sixfold.model.place import unpack_address, unpack_port

RESTING_ASKED_MAX = 256  # at once: each is a system call
LAST_NUMBER = U32.pack(1)  # RUNTIME_BACKENDS
NO_LOAD = layout.LOAD.pack(0, 0)


class SlotPool:
    """Runs of consecutive places in an array, in sizes of powers of two."""

    def __init__(self, capacity: int, used: Iterable[tuple[int, int]] = ()) -> None:
        """``used`` are runs (first slot, length) that somebody owns already."""
        self.capacity = capacity
        self._free: dict[int, list[int]] = defaultdict(list)
        self._released: list[tuple[int, int]] = []
        self._end = 0
        for base, length in sorted(used):
            self._give(self._end, base - self._end)
            self._end = max(self._end, base + run_size(length))

    def take(self, length: int) -> int | None:
        """First slot of a run for ``length`` entries; None when there is no room."""
        size = run_size(length)
        if self._free[size]:
            return self._free[size].pop()
        if self._end + size <= self.capacity:
            self._end += size
            return self._end - size
        larger = [other for other, bases in self._free.items() if other > size and bases]
        if not larger:
            return None
        base = self._free[min(larger)].pop()
        self._give(base + size, min(larger) - size)
        return base

    def row(self, count: int) -> range:
        """That many runs of one, side by side, as far as there is room; nobody owns them yet."""
        end = min(self._end + count, self.capacity)
        return range(self._end, self._end if self._free[1] else end)

    def take_singles(self, count: int) -> Sequence[int] | None:
        """That many runs of one, in order; None when there is no room for all."""
        if len(row := self.row(count)) == count:
            self._end = row.stop
            return row
        free = self._free[1]
        at = max(0, len(free) - count)
        found = free[at:]
        del free[at:]
        end = min(self.capacity, self._end + count - len(found))
        found += range(self._end, end)
        self._end = end
        while len(found) < count:
            if (one := self.take(1)) is None:
                return None
            found.append(one)
        return sorted(found)

    def release(self, base: int, length: int) -> None:
        self._released.append((base, run_size(length)))

    def settle(self) -> None:
        """No reader is left from before this moment."""
        for base, size in self._released:
            self._free[size].append(base)
        self._released.clear()

    def _give(self, base: int, length: int) -> None:
        """Add a free stretch, cut into powers of two."""
        while length > 0:
            size = 1 << (length.bit_length() - 1)
            self._free[size].append(base)
            base, length = base + size, length - size


class BackendRuns:
    """Slots and backend numbers of all frontends.

    Work is done by columns: tens of thousands of backends come at once when an agent starts.

    active  connections that the kernel counts under a number
    """

    def __init__(self, lines: int, backends: int, active: Callable[[int], int]) -> None:
        self._capacities = lines, backends
        self._active = active
        # By protocol, the packed addresses and ports of backends (``model/place``).
        self._numbers: defaultdict[int, dict[bytes, int]] = defaultdict(dict)
        self._more: Counter[int] = Counter()  # how often a number is listed, beyond once
        self._resting: dict[int, tuple[int, bytes]] = {}  # numbered, and listed by nobody
        self._lines = SlotPool(lines)
        self._free_numbers = SlotPool(backends, [(0, 1)])  # 0 is no backend
        self._revision = self._last_number = 0

    @property
    def numbers(self) -> Mapping[Place, int]:
        """Every place that has a number, those that rest too."""
        return {
            Place(unpack_address(packed[:16]), unpack_port(packed[16:]), protocol): number
            for protocol, numbers in self._numbers.items()
            for packed, number in numbers.items()
        }

    def settle(self) -> None:
        """No reader is left from before this moment."""
        self._lines.settle()
        self._free_numbers.settle()
        for number in [*islice(self._resting, RESTING_ASKED_MAX)]:
            protocol, packed = self._resting.pop(number)
            if self._active(number):
                self._resting[number] = protocol, packed  # asked again when all others were
            else:
                del self._numbers[protocol][packed]
                self._free_numbers.release(number, 1)

    def give(self, entries: Mapping[Frontend, FrontendEntry], changes: Changes) -> array[int]:
        """Fresh runs, four words each as ``struct frontend`` has them, in this order.

        What these frontends had before stays whole for its readers, until it is released.
        """
        if not entries:
            return array("I")
        contents = self._contents(entries, changes)
        bases = self._write(contents, changes)
        first = self._revision + 1
        self._revision += len(contents)
        runs = array("I", bytes(RUN.size * len(contents)))
        runs[0::4] = array("I", [line * SLOTS_PER_LINE for line in bases])
        runs[1::4] = array("I", [len(it) // U32.size for it in contents])
        runs[3::4] = array("I", range(first, first + len(contents)))
        for at, entry in enumerate(entries.values()):
            if entry.table:
                runs[4 * at + 2] = len(entry.backends)
                runs[4 * at + 1] -= len(entry.backends)
        return runs

    def _contents(self, entries: Mapping[Frontend, FrontendEntry], changes: Changes) -> list[bytes]:
        """What each entry's run holds."""
        protocols = {frontend.packed[18] for frontend in entries}
        if len(protocols) > 1:
            found: dict[Frontend, bytes] = {}
            for protocol in protocols:
                some = {one: it for one, it in entries.items() if one.protocol == protocol}
                found |= zip(some, self._contents(some, changes), strict=True)
            return [found[one] for one in entries]
        backends = [it for entry in entries.values() for it in entry.backends]
        numbers = self._hold(protocols.pop(), [it.packed for it in backends], changes)
        slots = _weighted(numbers, backends)
        packed = slots.tobytes()
        ends = [*accumulate([U32.size * len(entry.backends) for entry in entries.values()])]
        return [
            _chosen(slots[start // U32.size :], entry.table) + packed[start:end]
            if entry.table
            else packed[start:end]
            for entry, start, end in zip(entries.values(), [0, *ends], ends, strict=False)
        ]

    def _write(self, contents: Sequence[bytes], changes: Changes) -> Sequence[int]:
        """Slots into fresh lines; returns the first line of each run."""
        size = layout.SLOT_LINE.size
        small = [content.ljust(size, b"\0") for content in contents if len(content) <= size]
        if (lines := self._lines.take_singles(len(small))) is None:
            raise self._no_room("slots", self._lines)
        changes.fill("slots", lines, layout.joined(small))
        if len(small) == len(contents):
            return lines
        singles = iter(lines)
        return [
            next(singles) if len(content) <= size else self._write_large(content, changes)
            for content in contents
        ]

    def _write_large(self, content: bytes, changes: Changes) -> int:
        """A run of several lines, and what it is rounded up by; returns its first line."""
        lines = run_size(line_count(len(content) // U32.size))
        if (first := self._lines.take(lines)) is None:
            raise self._no_room("slots", self._lines)
        changes.fills["slots"].append((first, content.ljust(lines * layout.SLOT_LINE.size, b"\0")))
        return first

    def _no_room(self, name: str, pool: SlotPool) -> HostError:
        return map_full(name, pool.capacity + 1, pool.capacity)

    def release(self, entries: Mapping[Frontend, FrontendEntry], runs: Iterable[Run]) -> None:
        """These are listed no more, nor the runs that they had."""
        for run in runs:
            if run.count:
                lines = line_count(run.count + run.members)
                self._lines.release(run.base // SLOTS_PER_LINE, lines)
        for frontend, entry in entries.items():
            numbers = self._numbers[frontend.protocol]
            for backend in entry.backends:
                number = numbers[backend.packed]
                if not self._more[number]:
                    self._resting[number] = frontend.protocol, backend.packed
                else:
                    self._more[number] -= 1

    def adopt(self, protocol: int, backends: Iterable[tuple[bytes, int]]) -> None:
        """Somebody lists these, under these numbers; ``adopted`` ends a series."""
        numbers = self._numbers[protocol]
        for packed, number in backends:
            self._more[number] += packed in numbers
            numbers[packed] = number

    def adopted(
        self, runs: Sequence[Run], resting: Iterable[tuple[int, bytes, int]], last_number: int
    ) -> None:
        """``runs`` are in use; ``resting`` are numbers in use by nobody but connections."""
        listed = {number for numbers in self._numbers.values() for number in numbers.values()}
        for protocol, packed, number in resting:
            if number not in listed and packed not in self._numbers[protocol]:
                self._numbers[protocol][packed] = number
                self._resting[number] = protocol, packed
        lines, backends = self._capacities
        used = [
            (run.base // SLOTS_PER_LINE, line_count(run.count + run.members))
            for run in runs
            if run.count
        ]
        self._lines = SlotPool(lines, used)
        numbers = {0, *listed, *self._resting}
        self._free_numbers = SlotPool(backends, [(number, 1) for number in numbers])
        self._revision = max((run.revision for run in runs), default=0)
        self._last_number = last_number

    def _hold(self, protocol: int, backends: Sequence[bytes], changes: Changes) -> Sequence[int]:
        """Count a user more of each; those that have no number are given one. Returns numbers."""
        known = self._numbers[protocol]
        row = () if known else self._free_numbers.row(len(backends))
        if len(row) == len(backends):  # at first mostly nobody is listed twice: one pass is enough
            fresh = dict(zip(backends, row, strict=True))
        else:
            fresh = dict.fromkeys(filterfalse(known.__contains__, backends), 0)
        found = self._free_numbers.take_singles(len(fresh))
        if found is None:
            raise self._no_room("backends", self._free_numbers)
        if not len(fresh) == len(row) == len(backends):
            fresh.update(zip(fresh, found, strict=True))
        if known:
            known.update(fresh)
        else:
            known = self._numbers[protocol] = fresh
        if found:
            self._write_numbers(protocol, [*fresh], found, changes)
        if len(fresh) == len(backends):
            return found
        once = set(found)
        numbers = [*map(known.__getitem__, backends)]
        for number, users in Counter(numbers).items():
            users -= number in once or self._resting.pop(number, None) is not None
            if users:
                self._more[number] += users
        return numbers

    def _write_numbers(
        self, protocol: int, backends: Sequence[bytes], numbers: Sequence[int], changes: Changes
    ) -> None:
        changes.fill("backends", numbers, layout.pack_backends(protocol, backends))
        # The kernel has counted nothing yet under numbers that nobody ever had.
        again = numbers[: bisect_right(numbers, self._last_number)]
        changes.puts["loads"].update(dict.fromkeys(map(U32.pack, again), NO_LOAD))
        if (highest := numbers[-1]) > self._last_number:
            self._last_number = highest
            changes.put("runtime", LAST_NUMBER, U32.pack(highest))


def _weighted(numbers: Sequence[int], backends: Sequence[Backend]) -> array[int]:
    """As slots hold them. Mostly all weigh the same."""
    weights = {it.weight for it in backends}
    if len(weights) == 1:
        weight = weights.pop() << SLOT_NUMBER_BITS
        if isinstance(numbers, range):
            return array("I", range(weight + numbers.start, weight + numbers.stop))
        return array("I", map(weight.__or__, numbers))
    return array("I", map(or_, numbers, [it.weight << SLOT_NUMBER_BITS for it in backends]))


def _chosen(backends: array[int], table: bytes) -> bytes:
    """The slots that a table says."""
    return array("I", [backends[index] for index in unpack_table(table)]).tobytes()


def line_count(slots: int) -> int:
    """Lines that so many slots fill."""
    return -(-slots // SLOTS_PER_LINE)


def run_size(length: int) -> int:
    """Slots that a run of ``length`` entries occupies."""
    return 1 << (length - 1).bit_length() if length else 0
