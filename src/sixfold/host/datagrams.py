"""Datagrams of a UDP socket, many with one system call each way.

Source: recvmmsg(2), sendmmsg(2). Each datagram has a place, whose buffers are made once; its
answer goes to the sender whose address stands at that place.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Iterator, Sequence
from itertools import groupby
from struct import unpack_from
from typing import Any

BATCH = 64
SIZE_MAX = 4096  # what is longer is cut
SOCKADDR_SIZE = 28  # of IPv6; IPv4 needs 16
Sender = tuple[str, int] | tuple[str, int, int, int]  # as recvfrom() gives it

_libc = ctypes.CDLL(None, use_errno=True)
_receive, _send = _libc.recvmmsg, _libc.sendmmsg
_receive.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
_send.argtypes = _receive.argtypes[:-1]


class _Message(ctypes.Structure):
    """struct mmsghdr, and the one struct iovec that it points to."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint64),  # 32 bits and padding
        ("parts", ctypes.c_void_p),
        ("part_count", ctypes.c_uint64),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),  # likewise
        ("size", ctypes.c_uint64),  # likewise; written by the kernel
    )


class _Direction:
    """The buffers of one direction, which share the senders' addresses with the other."""

    def __init__(self, names: int, name_size: int) -> None:
        self.buffer: Any = (ctypes.c_char * (SIZE_MAX * BATCH))()
        self._parts = (ctypes.c_uint64 * (2 * BATCH))()  # address, size
        self._messages = (_Message * BATCH)()
        for at, message in enumerate(self._messages):
            self._parts[2 * at] = ctypes.addressof(self.buffer) + SIZE_MAX * at
            self._parts[2 * at + 1] = SIZE_MAX
            message.name, message.name_size = names + SOCKADDR_SIZE * at, name_size
            message.parts = ctypes.addressof(self._parts) + 16 * at
            message.part_count = 1
        self.received = memoryview(self._messages).cast("B").cast("Q")[7::8]
        self.sizes = memoryview(self._parts).cast("B").cast("Q")[1::2]

    def at(self, place: int) -> int:
        return ctypes.addressof(self._messages) + ctypes.sizeof(_Message) * place


class Datagrams:
    """What arrives at one socket, a batch after the other."""

    def __init__(self, sock: socket.socket) -> None:
        self._fd = sock.fileno()
        self._ipv6 = sock.family == socket.AF_INET6
        size, first, last = (28, 8, 24) if self._ipv6 else (16, 4, 8)  # of the address
        self._names: Any = (ctypes.c_char * (SOCKADDR_SIZE * BATCH))()
        names = ctypes.addressof(self._names)
        self._in, self._out = _Direction(names, size), _Direction(names, size)
        self._view = memoryview(self._out.buffer).cast("B")
        starts = range(0, SIZE_MAX * BATCH, SIZE_MAX)
        at = range(0, SOCKADDR_SIZE * BATCH, SOCKADDR_SIZE)
        self._places = [
            (start, it + first, it + last) for start, it in zip(starts, at, strict=True)
        ]

    def receive(self) -> list[tuple[bytes, bytes]]:
        """Some datagrams, each with its sender's packed address; none when nothing waits."""
        count = _receive(self._fd, self._in.at(0), BATCH, socket.MSG_DONTWAIT, None)
        if count <= 0:
            return []
        data, names, sizes = self._in.buffer, self._names, self._in.received[:count]
        return [
            (data[start : start + size], names[first:last])
            for size, (start, first, last) in zip(sizes, self._places, strict=False)
        ]

    def sender(self, place: int) -> Sender:
        """Who sent what stands at a place of the last batch."""
        at = SOCKADDR_SIZE * place
        if not self._ipv6:
            port, ipv4 = unpack_from("!H4s", self._names, at + 2)
            return socket.inet_ntop(socket.AF_INET, ipv4), port
        port, flow, address = unpack_from("!HI16s", self._names, at + 2)
        (scope,) = unpack_from("=I", self._names, at + 24)
        return socket.inet_ntop(socket.AF_INET6, address), port, flow, scope

    def send(self, answers: Sequence[bytes | None]) -> int:
        """Answer the last batch, by place; None is no answer. Returns how many did not get out."""
        view, sizes, unsent = self._view, self._out.sizes, 0
        for place, answer in enumerate(answers):
            if answer is not None:
                start, size = SIZE_MAX * place, len(answer)
                view[start : start + size] = answer
                sizes[place] = size
        for first, last in _runs(answers):
            while first < last:
                sent = _send(self._fd, self._out.at(first), last - first, socket.MSG_DONTWAIT)
                unsent += sent <= 0  # full buffer, or the client is gone: it will ask again
                first += max(sent, 1)
        return unsent


def _runs(answers: Sequence[bytes | None]) -> Iterator[tuple[int, int]]:
    """Places, from and to, at which there are answers one after the other."""
    if None not in answers:
        yield 0, len(answers)
        return
    for there, run in groupby(range(len(answers)), lambda place: answers[place] is not None):
        places = list(run)
        if there:
            yield places[0], places[-1] + 1
