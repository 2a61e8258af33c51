"""Who owns which slot: runs of numbered places in an array that the kernel reads.

A frontend owns a run of whole lines of slots; each slot names a backend by number. Equal places
share theirs, and so the load that is counted under it. Pure bookkeeping. What is released serves
again only after ``settle``: until then a program may still be looking at it. The number of a place
that nobody lists any more rests until its last connection has ended, and is its own again if it
comes back.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from sixfold.balancing.table import unpack_table
from sixfold.errors import HostError
from sixfold.host import layout
from sixfold.host.changes import Changes, map_full
from sixfold.host.layout import (
    SLOT_NUMBER_BITS,
    SLOTS_PER_LINE,
    Place,
    Run,
    place_key,
)
from sixfold.host.places import pack_places, place_keys, place_of
from sixfold.model.datapath import Frontend, FrontendEntry

RESTING_ASKED_MAX = 256  # at once: each is a system call
LAST_NUMBER = layout.U32.pack(1)  # RUNTIME_BACKENDS
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

    def take_singles(self, count: int) -> list[int] | None:
        """That many runs of one; None when there is no room for all."""
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
        return found

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

    active  connections that the kernel counts under a number
    """

    def __init__(self, lines: int, backends: int, active: Callable[[int], int]) -> None:
        self._capacities = lines, backends
        self._active = active
        self._runs: dict[Frontend, Run] = {}
        # Places are integers here (``layout.place_key``): there are a hundred thousand of them.
        self._places: dict[Frontend, Sequence[int]] = {}
        self._numbers: dict[int, int] = {}
        self._users: Counter[int] = Counter()
        self._resting: dict[int, None] = {}  # numbered, and listed by nobody
        self._lines = SlotPool(lines)
        self._free_numbers = SlotPool(backends, [(0, 1)])  # 0 is no backend
        self._revision = self._last_number = 0

    def __getitem__(self, frontend: Frontend) -> Run:
        return self._runs[frontend]

    @property
    def numbers(self) -> Mapping[Place, int]:
        """Every place that has a number, those that rest too."""
        return {place_of(key): number for key, number in self._numbers.items()}

    def settle(self) -> None:
        """No reader is left from before this moment."""
        self._lines.settle()
        self._free_numbers.settle()
        for key in [*islice(self._resting, RESTING_ASKED_MAX)]:
            del self._resting[key]
            if self._active(self._numbers[key]):
                self._resting[key] = None  # asked again when all others were
            else:
                self._free_numbers.release(self._numbers.pop(key), 1)

    def replace(self, entries: Mapping[Frontend, FrontendEntry], changes: Changes) -> None:
        """Give fresh runs; the old ones stay whole for their readers."""
        keys = place_keys(entries)
        self._hold(keys, changes)
        weights = [backend.weight for entry in entries.values() for backend in entry.backends]
        numbers = self._numbers
        slots = [
            numbers[key] | weight << SLOT_NUMBER_BITS
            for key, weight in zip(keys, weights, strict=True)
        ]
        at = 0
        runs: list[tuple[Frontend, list[int], int]] = []  # slots, and how many list the members
        held: dict[Frontend, Sequence[int]] = {}
        for frontend, entry in entries.items():
            start, at = at, at + len(entry.backends)
            listed = slots[start:at]
            held[frontend] = keys[start:at]
            if entry.table:
                chosen = [listed[index] for index in unpack_table(entry.table)]
                runs.append((frontend, chosen + listed, len(listed)))
            else:
                runs.append((frontend, listed, 0))
        bases = self._write([run for _, run, _ in runs], changes)
        for (frontend, run, members), base in zip(runs, bases, strict=True):
            if frontend in self._runs:
                self.release(frontend)
            self._revision += 1
            self._runs[frontend] = Run(base, len(run) - members, members, self._revision)
        self._places.update(held)

    def _write(self, runs: Sequence[Sequence[int]], changes: Changes) -> list[int]:
        """Slots into fresh lines; returns the number of the first slot of each run."""
        singles = iter(self._take_lines(sum(0 < len(run) <= SLOTS_PER_LINE for run in runs)))
        puts, size, pack = changes.puts["slots"], layout.SLOT_LINE.size, layout.U32.pack
        bases = []
        for run in runs:
            packed = array("I", run).tobytes()
            if len(packed) <= size:
                first = next(singles) if packed else 0
                if packed:
                    puts[pack(first)] = packed.ljust(size, b"\0")
            else:
                lines = line_count(len(run))
                if (taken := self._lines.take(lines)) is None:
                    raise self._no_room("slots", self._lines)
                first = taken
                for line in range(lines):
                    content = packed[line * size : (line + 1) * size]
                    puts[pack(first + line)] = content.ljust(size, b"\0")
            bases.append(first * SLOTS_PER_LINE)
        return bases

    def _take_lines(self, count: int) -> list[int]:
        if (found := self._lines.take_singles(count)) is None:
            raise self._no_room("slots", self._lines)
        return found

    def _no_room(self, name: str, pool: SlotPool) -> HostError:
        return map_full(name, pool.capacity + 1, pool.capacity)

    def release(self, frontend: Frontend) -> None:
        """Fine when it has none."""
        run = self._runs.pop(frontend, Run())
        if run.count:
            lines = line_count(run.count + run.members)
            self._lines.release(run.base // SLOTS_PER_LINE, lines)
        for key in self._places.pop(frontend, ()):
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key]
                self._resting[key] = None

    def adopt(self, frontend: Frontend, run: Run, places: Iterable[tuple[Place, int]]) -> None:
        """A run that the kernel holds already; ``adopted`` ends a series of these."""
        found = [(place_key(*place), number) for place, number in places]
        for key, number in found:
            self._numbers[key] = number
            self._users[key] += 1
        self._runs[frontend] = run
        self._places[frontend] = [key for key, _ in found]

    def adopted(self, resting: Iterable[tuple[Place, int]], last_number: int) -> None:
        """``resting`` are numbers in use by nobody but connections."""
        used = set(self._numbers.values())
        for place, number in resting:
            key = place_key(*place)
            if number not in used and key not in self._numbers:
                self._numbers[key] = number
                self._resting[key] = None
        lines, backends = self._capacities
        runs = [
            (run.base // SLOTS_PER_LINE, line_count(run.count + run.members))
            for run in self._runs.values()
            if run.count
        ]
        self._lines = SlotPool(lines, runs)
        numbers = [(number, 1) for number in self._numbers.values()]
        self._free_numbers = SlotPool(backends, [(0, 1), *numbers])
        self._revision = max((run.revision for run in self._runs.values()), default=0)
        self._last_number = last_number

    def _hold(self, keys: Sequence[int], changes: Changes) -> None:
        """Count a user more of each place; those that have no number are given one."""
        self._users.update(keys)
        if self._resting:
            for key in keys:
                self._resting.pop(key, None)
        fresh = [key for key in dict.fromkeys(keys) if key not in self._numbers]
        if not fresh:
            return
        if (numbers := self._free_numbers.take_singles(len(fresh))) is None:
            raise self._no_room("backends", self._free_numbers)
        self._numbers.update(zip(fresh, numbers, strict=True))
        packed = [*map(layout.U32.pack, numbers)]
        changes.puts["backends"].update(zip(packed, pack_places(fresh, numbers), strict=True))
        # The kernel has counted nothing yet under numbers that nobody ever had.
        again = [number for number in numbers if number <= self._last_number]
        changes.puts["loads"].update(dict.fromkeys(map(layout.U32.pack, again), NO_LOAD))
        if (highest := max(numbers)) > self._last_number:
            self._last_number = highest
            changes.put("runtime", LAST_NUMBER, layout.U32.pack(highest))


def line_count(slots: int) -> int:
    """Lines that so many slots fill."""
    return -(-slots // SLOTS_PER_LINE)


def run_size(length: int) -> int:
    """Slots that a run of ``length`` entries occupies."""
    return 1 << (length - 1).bit_length() if length else 0
