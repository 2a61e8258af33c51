"""Who owns which slot: runs of numbered places in an array that the kernel reads.

A frontend owns a run of slots; each slot names a backend by number, and equal backends share
theirs. Pure bookkeeping. What is released serves again only after ``settle``: until then a program
may still be looking at it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from sixfold.host import layout
from sixfold.host.changes import Changes, map_full
from sixfold.model.datapath import Backend, Frontend


class SlotPool:
    """Runs of consecutive slots, in sizes of powers of two."""

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
    """Slots and backend numbers of all frontends."""

    def __init__(self, slots: int, backends: int) -> None:
        self._capacities = slots, backends
        self._runs: dict[Frontend, tuple[int, tuple[Backend, ...]]] = {}
        self._numbers: dict[Backend, int] = {}
        self._users: Counter[Backend] = Counter()
        self._slots, self._free_numbers = SlotPool(slots), SlotPool(backends)

    def __getitem__(self, frontend: Frontend) -> tuple[int, int]:
        """(first slot, count)"""
        base, backends = self._runs[frontend]
        return base, len(backends)

    def settle(self) -> None:
        self._slots.settle()
        self._free_numbers.settle()

    def replace(self, frontend: Frontend, backends: tuple[Backend, ...], changes: Changes) -> None:
        """Give a fresh run; the old one stays whole for its readers."""
        base = self._slots.take(len(backends)) if backends else 0
        if base is None:
            raise map_full("slots", self._slots.capacity + 1, self._slots.capacity)
        for slot, backend in enumerate(backends, base):
            number = layout.U32.pack(self._number(backend, changes))
            changes.put("slots", layout.U32.pack(slot), number)
        self.release(frontend)
        self._runs[frontend] = base, backends

    def release(self, frontend: Frontend) -> None:
        """Fine when it has none."""
        base, backends = self._runs.pop(frontend, (0, ()))
        if backends:
            self._slots.release(base, len(backends))
        for backend in backends:
            self._users[backend] -= 1
            if not self._users[backend]:
                del self._users[backend]
                self._free_numbers.release(self._numbers.pop(backend), 1)

    def adopt(self, frontend: Frontend, base: int, backends: Iterable[tuple[Backend, int]]) -> None:
        """A run that the kernel holds already; ``adopted`` ends a series of these."""
        found = list(backends)
        for backend, number in found:
            self._numbers[backend] = number
            self._users[backend] += 1
        self._runs[frontend] = base, tuple(backend for backend, _ in found)

    def adopted(self) -> None:
        slots, backends = self._capacities
        runs = [(base, len(found)) for base, found in self._runs.values() if found]
        self._slots = SlotPool(slots, runs)
        self._free_numbers = SlotPool(backends, [(n, 1) for n in self._numbers.values()])

    def _number(self, backend: Backend, changes: Changes) -> int:
        self._users[backend] += 1
        number = self._numbers.get(backend)
        if number is None:
            number = self._free_numbers.take(1)
            if number is None:
                capacity = self._free_numbers.capacity
                raise map_full("backends", capacity + 1, capacity)
            self._numbers[backend] = number
            packed = layout.pack_backend(backend, number)
            changes.put("backends", layout.U32.pack(number), packed)
        return number


def run_size(length: int) -> int:
    """Slots that a run of ``length`` entries occupies."""
    return 1 << (length - 1).bit_length() if length else 0
