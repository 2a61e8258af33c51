"""Who runs where: what is measured has one CPU of its own, at real-time priority.

So neighbours on a shared machine take nothing from it but cache and memory bandwidth, and a
figure is work per packet, not the scheduler's mood. Client and server share that CPU: a
transaction then costs what both ends and everything between them compute.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

PRIORITY = 1
YARDSTICK = 2_000_000


def measured_cpu() -> int:
    """The last CPU we may use."""
    return max(os.sched_getaffinity(0))


def alone(*argv: str) -> list[str]:
    """The command line that runs another on the measured CPU, before everything else."""
    return ["chrt", "-f", str(PRIORITY), "taskset", "-c", str(measured_cpu()), *argv]


@contextmanager
def urgent() -> Iterator[None]:
    """The body, on this thread, likewise; it must be short and must not wait."""
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {measured_cpu()})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, affinity)


def yardstick_ms() -> float:
    """What two million turns of a plain Python loop take here and now: how fast the machine is.

    Figures of pure Python are to be read beside it; bars do not move with it.
    """
    start, total = time.perf_counter(), 0
    for number in range(YARDSTICK):
        total += number & 3
    return (time.perf_counter() - start) * 1e3
