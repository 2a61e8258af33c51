"""Netlink, as a writer of batches: many requests in one send, all answers read back.

Attaching a pod takes a dozen requests; one system call each through a general library costs
34 ms, batched on an open socket 1–2 ms (facts-datapath.md §7). So this module knows framing
and errors only; ``netlink_route`` and ``nat`` know the messages.

A socket belongs to the namespace it was opened in, whichever thread uses it later.
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import Self

from sixfold.errors import HostError

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 10, 11, 12

REQUEST, MULTI, ACK, DUMP = 0x1, 0x2, 0x4, 0x300
REPLACE, EXCLUSIVE, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
NLMSG_ERROR, NLMSG_DONE = 2, 3
ACK_TLVS, DUMP_INTERRUPTED = 0x200, 0x10
NESTED = 0x8000

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
ATTRIBUTE = struct.Struct("=HH")  # length, type
U32 = struct.Struct("=I")

TIMEOUT_S = 5.0
CHUNK = 200  # requests in one send: their answers fit any receive buffer
DUMP_TRIES = 5


class NetlinkError(HostError):
    """The kernel refused a request; ``code`` is the errno."""

    def __init__(self, what: str, code: int, message: str = "") -> None:
        self.code = code
        name = errno.errorcode.get(code, str(code))
        super().__init__(f"{what}: {name}" + (f": {message}" if message else ""))


@dataclass(frozen=True, slots=True)
class Request:
    """One message to the kernel.

    what      for errors, in the words of ``ip``: "route add 10.244.0.2 dev sf12"
    tolerate  errnos that mean it is already so
    """

    kind: int
    flags: int
    body: bytes
    what: str
    tolerate: tuple[int, ...] = ()


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    length = 4 + len(value)
    return ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def attribute_u32(kind: int, value: int) -> bytes:
    return ATTRIBUTE.pack(8, kind) + U32.pack(value)


def attribute_text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def attribute_address(kind: int, value: IPv4Address | IPv6Address) -> bytes:
    return attribute(kind, value.packed)


def nested(kind: int, *children: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(children))


def attributes(body: bytes, offset: int = 0) -> dict[int, bytes]:
    """Attributes by type, the flag bits dropped; of repeated ones the last."""
    found: dict[int, bytes] = {}
    end = len(body) - 4
    while offset <= end:
        length, kind = ATTRIBUTE.unpack_from(body, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = body[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


class Netlink:
    """One open socket; safe to share between threads."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
            )
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "")
            raise HostError(
                f"netlink family {protocol}: {name}: this kernel lacks it; see sixfold doctor"
            ) from error
        self._socket.settimeout(TIMEOUT_S)
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))
        self._sequence = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def batch(self, requests: Sequence[Request]) -> None:
        """Send all, in order; raise the first refusal after the kernel has seen all of them."""
        with self._lock:
            for start in range(0, len(requests), CHUNK):
                self._send_and_check(requests[start : start + CHUNK])

    def transaction(self, requests: Sequence[Request]) -> None:
        """Send all in one piece: for netfilter, where a batch is taken whole or not at all."""
        with self._lock:
            self._send_and_check(requests)

    def dump(self, request: Request) -> list[tuple[int, bytes]]:
        """All answers to one request as (type, body)."""
        with self._lock:
            for _ in range(DUMP_TRIES):
                first = self._send([request])
                answers, consistent = self._collect(first, request)
                if consistent:
                    return answers
        raise HostError(f"{request.what}: table keeps changing; try again")

    def _send(self, requests: Iterable[Request]) -> int:
        first = self._sequence + 1
        buffer = bytearray()
        for request in requests:
            self._sequence = self._sequence % 0x7FFFFFFF + 1
            body = request.body
            length = 16 + len(body)
            buffer += HEADER.pack(length, request.kind, request.flags | REQUEST, self._sequence, 0)
            buffer += body
            buffer += bytes(-length % 4)
        self._socket.send(buffer)
        return first if first <= self._sequence else 1

    def _send_and_check(self, requests: Sequence[Request]) -> None:
        first = self._send(requests)
        waiting = {first + i for i, request in enumerate(requests) if request.flags & ACK}
        failure: NetlinkError | None = None
        while waiting:
            for kind, flags, sequence, body in self._receive(requests[0].what):
                index = sequence - first
                if kind != NLMSG_ERROR or not 0 <= index < len(requests):
                    continue  # late answer to a request that timed out, or an echo
                request = requests[index]
                code = -struct.unpack_from("=i", body)[0]
                if code and code not in request.tolerate:
                    failure = failure or NetlinkError(request.what, code, _extended(body, flags))
                if sequence not in waiting and failure:
                    raise failure  # the whole netfilter batch was refused: no more answers
                waiting.discard(sequence)
        if failure:
            raise failure

    def _collect(self, sequence: int, request: Request) -> tuple[list[tuple[int, bytes]], bool]:
        answers: list[tuple[int, bytes]] = []
        consistent = True
        while True:
            for kind, flags, seen, body in self._receive(request.what):
                if seen != sequence:
                    continue
                consistent = consistent and not flags & DUMP_INTERRUPTED
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                    if code and code not in request.tolerate:
                        raise NetlinkError(request.what, code, _extended(body, flags))
                    return answers, consistent
                answers.append((kind, body))
                if not flags & MULTI and not request.flags & ACK:
                    return answers, consistent

    def _receive(self, what: str) -> Iterator[tuple[int, int, int, bytes]]:
        try:
            packet = self._socket.recv(1 << 18)
        except TimeoutError as error:
            raise HostError(f"{what}: no answer from the kernel in {TIMEOUT_S:g} s") from error
        offset = 0
        while offset + 16 <= len(packet):
            length, kind, flags, sequence, _ = HEADER.unpack_from(packet, offset)
            yield kind, flags, sequence, packet[offset + 16 : offset + length]
            offset += (length + 3) & ~3


def _extended(body: bytes, flags: int) -> str:
    """The kernel's own words, where it gave any (NLMSGERR_ATTR_MSG)."""
    if not flags & ACK_TLVS or len(body) < 20:
        return ""
    # NETLINK_CAP_ACK: only the header of the refused request follows the errno.
    return attributes(body, 20).get(1, b"").rstrip(b"\0").decode(errors="replace")


class Changes:
    """Whether somebody changed something: a socket that hears what the kernel announces."""

    def __init__(self, groups: int) -> None:
        """``groups``: RTMGRP_* bits."""
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        self._socket.bind((0, groups))

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def any(self) -> bool:
        """Whether anything was announced since the last call; our own changes count, too."""
        heard = False
        while True:
            try:
                heard = bool(self._socket.recv(1 << 16)) or heard
            except BlockingIOError:
                return heard
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more than fits: so yes
                    raise
                heard = True
