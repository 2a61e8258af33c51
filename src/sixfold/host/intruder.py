"""A stranger tries: packets and dials from within pods' namespaces, and whether anybody answers.

What an audit does with ``--probe``. A packet is a SYN of a raw socket, which no connect hook sees;
a dial is an ordinary socket of this process, which is in no pod's control group. All are sent,
then all are waited for together.
"""

from __future__ import annotations

import contextlib
import errno
import random
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Literal, NamedTuple

from sixfold.errors import HostError
from sixfold.host import netns
from sixfold.model.datapath import IPAddress

AT_ONCE = 128  # attempts: each has a socket or two
WAIT_S = 0.3  # an answer takes microseconds
Tried = Literal["plaintext", "tunnel", "door"]
IPV6_CHECKSUM = 7


class Attempt(NamedTuple):
    """``source`` is an address of the namespace; None: it has none of that version."""

    tried: Tried
    netns: Path
    source: IPAddress | None
    destination: IPAddress
    port: int


def attempt(attempts: Sequence[Attempt]) -> list[bool]:
    """Whether each was answered, in order; who is gone meanwhile answers nothing."""
    found: dict[int, bool] = {}
    ordered = sorted(range(len(attempts)), key=lambda at: str(attempts[at].netns))
    for start in range(0, len(ordered), AT_ONCE):
        some = ordered[start : start + AT_ONCE]
        answers = _together([attempts[at] for at in some])
        found.update(zip(some, answers, strict=True))
    return [found[at] for at in range(len(attempts))]


def _together(attempts: Sequence[Attempt]) -> list[bool]:
    waiting: list[_Waiting | None] = []
    for path, some in groupby(attempts, key=lambda one: one.netns):
        theirs = list(some)
        try:
            waiting += netns.run_inside(path, partial(_begin_all, theirs))
        except HostError:  # the pod is gone
            waiting += [None] * len(theirs)
    try:
        return list(_answers(waiting))
    finally:
        for one in waiting:
            if one is not None:
                one.socket.close()


class _Waiting(NamedTuple):
    socket: socket.socket
    attempt: Attempt
    port: int  # of a packet's source; 0: a dial


def _begin_all(attempts: Sequence[Attempt]) -> list[_Waiting | None]:
    return [_begin(one) for one in attempts]


def _begin(one: Attempt) -> _Waiting | None:
    """Inside the namespace. None: it could not even be sent."""
    if one.source is None:
        return None
    family = socket.AF_INET if one.destination.version == 4 else socket.AF_INET6
    if one.tried != "plaintext":
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        error = sock.connect_ex((str(one.destination), one.port))
        if error not in (0, errno.EINPROGRESS):
            sock.close()
            return None
        return _Waiting(sock, one, 0)
    sock = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
    sock.setblocking(False)
    port = random.randrange(20000, 30000)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_CHECKSUM, 16)
    try:
        sock.sendto(syn(one.source, one.destination, port, one.port), (str(one.destination), 0))
    except OSError:
        sock.close()
        return None
    return _Waiting(sock, one, port)


def _answers(waiting: Sequence[_Waiting | None]) -> Iterator[bool]:
    """A dial that is open, or refused, was answered; so was a packet, whatever the answer."""
    answered: set[int] = set()
    poll = select.poll()
    by_number = {one.socket.fileno(): one for one in waiting if one is not None}
    for number, one in by_number.items():
        poll.register(number, select.POLLIN if one.port else select.POLLOUT)
    deadline = time.monotonic() + WAIT_S
    while by_number and (left_s := deadline - time.monotonic()) > 0:
        for number, _ in poll.poll(left_s * 1000):
            if not by_number[number].port or _is_answer(by_number[number]):
                answered.add(number)
                poll.unregister(number)
    for sent in waiting:
        yield sent is not None and sent.socket.fileno() in answered and not _refused_here(sent)


def _is_answer(one: _Waiting) -> bool:
    """A raw socket hears all TCP of its namespace."""
    with contextlib.suppress(BlockingIOError):
        packet, sender = one.socket.recvfrom(256)
        segment = packet[(packet[0] & 15) * 4 :] if one.attempt.source.version == 4 else packet  # type: ignore[union-attr]
        ports = struct.unpack_from("!HH", segment)
        return sender[0] == str(one.attempt.destination) and ports == (one.attempt.port, one.port)
    return False


def _refused_here(one: _Waiting) -> bool:
    """Of a dial: refused, or unreachable. Nobody let it in."""
    return not one.port and one.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


def syn(source: IPAddress, destination: IPAddress, from_port: int, to_port: int) -> bytes:
    """A TCP segment that opens a connection, with its checksum (RFC 9293, 3.1)."""
    segment = struct.pack("!HHIIBBHHH", from_port, to_port, 1, 0, 0x50, 2, 64240, 0, 0)
    pseudo = source.packed + destination.packed + struct.pack("!HH", 6, len(segment))
    total = sum(struct.unpack(f"!{(len(pseudo) + len(segment)) // 2}H", pseudo + segment))
    total = (total & 0xFFFF) + (total >> 16)
    check = ~(total + (total >> 16)) & 0xFFFF
    return segment[:16] + struct.pack("!H", check) + segment[18:]
