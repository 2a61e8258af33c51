"""Rings of events: raw records out of the kernel's memory, without a system call.

The producer writes, we advance the consumer position; both live in pages of the map. Source:
kernel/bpf/ringbuf.c. The data area is mapped twice in a row, so that no record is ever split.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from struct import Struct

BUSY, DISCARD = 1 << 31, 1 << 30
HEADER = 8
DRAIN_MAX = 65536  # records of one drain: the agent has other things to do

_POSITION = Struct("<Q")
_LENGTH = Struct("<I")


class EventReader:
    """The only consumer of one ring; its position survives the process."""

    def __init__(self, fd: int, size: int, record: int, lost: Callable[[], int]) -> None:
        """``record``: bytes of each; ``lost`` reads how many found the ring full since the datapath
        was loaded."""
        page = mmap.PAGESIZE
        self._size = size
        self._consumer = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._ring = mmap.mmap(fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._record = record
        self._lost = lost
        self._lost_before = lost()

    def drain(self) -> tuple[list[bytes], int]:
        """The records that are there, oldest first, and how many were lost since last time."""
        ring, size, first = self._ring, self._size, mmap.PAGESIZE
        (position,) = _POSITION.unpack_from(self._consumer, 0)
        (end,) = _POSITION.unpack_from(ring, 0)
        records: list[bytes] = []
        while position < end and len(records) < DRAIN_MAX:
            at = first + position % size
            (header,) = _LENGTH.unpack_from(ring, at)
            if header & BUSY:
                break  # still being written: next time
            length = header & ~(BUSY | DISCARD)
            if not header & DISCARD and length == self._record:
                records.append(ring[at + HEADER : at + HEADER + length])
            position += HEADER + length + 7 & ~7
        _POSITION.pack_into(self._consumer, 0, position)
        lost = self._lost()
        lost, self._lost_before = lost - self._lost_before, lost
        return records, lost

    def close(self) -> None:
        self._consumer.close()
        self._ring.close()
