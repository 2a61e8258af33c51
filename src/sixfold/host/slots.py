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
from sixfold.host import layout
from sixfold.host.changes import Changes, map_full
from sixfold.host.layout import SLOTS_PER_LINE, Place, Run
from sixfold.model.datapath import Frontend, FrontendEntry

RESTING_ASKED_MAX = 256  # at once: each is a system call
LAST_NUMBER = layout.U32.pack(1)  # RUNTIME_BACKENDS


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
        self._places: dict[Frontend, tuple[Place, ...]] = {}
        self._numbers: dict[Place, int] = {}
        self._users: Counter[Place] = Counter()
        self._resting: dict[Place, None] = {}  # numbered, and listed by nobody
        self._lines = SlotPool(lines)
        self._free_numbers = SlotPool(backends, [(0, 1)])  # 0 is no backend
        self._revision = self._last_number = 0

    def __getitem__(self, frontend: Frontend) -> Run:
        return self._runs[frontend]

    @property
    def numbers(self) -> Mapping[Place, int]:
        """Every place that has a number, those that rest too."""
        return self._numbers

    def settle(self) -> None:
        """No reader is left from before this moment."""
        self._lines.settle()
        self._free_numbers.settle()
        for place in [*islice(self._resting, RESTING_ASKED_MAX)]:
            del self._resting[place]
            if self._active(self._numbers[place]):
                self._resting[place] = None  # asked again when all others were
            else:
                self._free_numbers.release(self._numbers.pop(place), 1)

    def replace(self, frontend: Frontend, entry: FrontendEntry, changes: Changes) -> None:
        """Give a fresh run; the old one stays whole for its readers."""
        places = tuple(
            Place(backend.address, backend.port, frontend.protocol) for backend in entry.backends
        )
        listed = [
            layout.pack_slot(self._number(place, changes), backend.weight)
            for place, backend in zip(places, entry.backends, strict=True)
        ]
        slots = [listed[index] for index in unpack_table(entry.table)] or listed
        base = self._write([*slots, *listed] if entry.table else slots, changes)
        self.release(frontend)
        self._revision += 1
        members = len(listed) if entry.table else 0
        self._runs[frontend] = Run(base, len(slots), members, self._revision)
        self._places[frontend] = places

    def _write(self, slots: Sequence[int], changes: Changes) -> int:
        """Slots into fresh lines; returns the first slot's number."""
        lines = line_count(len(slots))
        first = self._lines.take(lines) if lines else 0
        if first is None:
            raise map_full("slots", self._lines.capacity + 1, self._lines.capacity)
        packed = array("I", slots).tobytes()
        size = layout.SLOT_LINE.size
        for line in range(lines):
            content = packed[line * size : (line + 1) * size].ljust(size, b"\0")
            changes.put("slots", layout.U32.pack(first + line), content)
        return first * SLOTS_PER_LINE

    def release(self, frontend: Frontend) -> None:
        """Fine when it has none."""
        run = self._runs.pop(frontend, Run())
        if run.count:
            lines = line_count(run.count + run.members)
            self._lines.release(run.base // SLOTS_PER_LINE, lines)
        for place in self._places.pop(frontend, ()):
            self._users[place] -= 1
            if not self._users[place]:
                del self._users[place]
                self._resting[place] = None

    def adopt(self, frontend: Frontend, run: Run, places: Iterable[tuple[Place, int]]) -> None:
        """A run that the kernel holds already; ``adopted`` ends a series of these."""
        found = list(places)
        for place, number in found:
            self._numbers[place] = number
            self._users[place] += 1
        self._runs[frontend] = run
        self._places[frontend] = tuple(place for place, _ in found)

    def adopted(self, resting: Iterable[tuple[Place, int]], last_number: int) -> None:
        """``resting`` are numbers in use by nobody but connections."""
        used = set(self._numbers.values())
        for place, number in resting:
            if number not in used and place not in self._numbers:
                self._numbers[place] = number
                self._resting[place] = None
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

    def _number(self, place: Place, changes: Changes) -> int:
        self._users[place] += 1
        self._resting.pop(place, None)
        number = self._numbers.get(place)
        if number is None:
            number = self._free_numbers.take(1)
            if number is None:
                capacity = self._free_numbers.capacity
                raise map_full("backends", capacity + 1, capacity)
            self._numbers[place] = number
            key = layout.U32.pack(number)
            changes.put("backends", key, layout.pack_place(place, number))
            changes.put("loads", key, layout.LOAD.pack(0, 0))
            if number > self._last_number:
                self._last_number = number
                changes.put("runtime", LAST_NUMBER, key)
        return number


def line_count(slots: int) -> int:
    """Lines that so many slots fill."""
    return -(-slots // SLOTS_PER_LINE)


def run_size(length: int) -> int:
    """Slots that a run of ``length`` entries occupies."""
    return 1 << (length - 1).bit_length() if length else 0
