"""Runs of slots as the kernel holds them, read back; whoever wrote them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

from sixfold.host import layout
from sixfold.host.bpf import Map
from sixfold.host.layout import Run


def members_of(slots: Sequence[int], run: Run, numbers: int) -> list[tuple[int, int]] | None:
    """Numbers and weights of a run's backends, in order; None if they make no sense."""
    if run.end > len(slots):
        return None
    listed = slots[run.end - (run.members or run.count) : run.end]
    known = set(listed)
    if any(slot not in known for slot in slots[run.base : run.base + run.count]):
        return None
    found = [layout.unpack_slot(slot) for slot in listed]
    return found if all(0 < number < numbers for number, _ in found) else None


def table_of(slots: Sequence[int], run: Run) -> bytes:
    """The slots as indices of the backends that are listed behind them; empty if none are."""
    if not run.members:
        return b""
    start = run.base + run.count
    index_of = {slot: index for index, slot in enumerate(slots[start : start + run.members])}
    return array("H", [index_of[slot] for slot in slots[run.base : start]]).tobytes()


def resting(loads: Map, backends: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, int]]:
    """Backends whose connections go on, whoever lists them, with their numbers."""
    for number, ((_, load), (protocol, packed)) in enumerate(
        zip(loads.items(), backends, strict=False)
    ):
        if number and layout.unpack_load(load).active:
            yield protocol, packed, number
