"""Who owns which slot: runs of numbered places in an array that the kernel reads.

Pure bookkeeping. What is released serves again only after ``settle``: until then a program
may still be looking at it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable


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


def run_size(length: int) -> int:
    """Slots that a run of ``length`` entries occupies."""
    return 1 << (length - 1).bit_length() if length else 0
