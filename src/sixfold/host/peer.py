"""Who is at the other end of a unix socket, as the kernel knows it.

A process is taken by a handle, not by its number: while the handle's process is alive, what
``/proc`` says under that number is about it (SO_PEERPIDFD, Linux 6.5; pidfd_open(2)).
"""

from __future__ import annotations

import os
import select
import socket
import struct
from asyncio import trsock
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sixfold.errors import UnavailableError
from sixfold.host.executables import traits_of
from sixfold.trust.attested import Traits

Socket = socket.socket | trsock.TransportSocket

SO_PEERPIDFD = 77
_CREDENTIALS = struct.Struct("iii")  # struct ucred: pid, uid, gid


@dataclass(frozen=True, slots=True)
class Peer:
    """A process that connected.

    cgroup   its path in cgroup v2, from the root
    network  number of its network namespace
    """

    pid: int
    uid: int
    gid: int
    cgroup: str
    network: int


def peer_of(sock: Socket) -> Peer:
    """UnavailableError when the process that connected is no more."""
    packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(packed)
    with _held(sock, pid):
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        network = Path(f"/proc/{pid}/ns/net").stat().st_ino
    cgroup = next((line[3:] for line in lines if line.startswith("0::")), "")
    return Peer(pid, uid, gid, cgroup, network)


def peer_traits(sock: Socket, pid: int) -> Traits:
    """What the process that connected is now; UnavailableError when it is no more."""
    with _held(sock, pid):
        return traits_of(pid)


@contextmanager
def _held(sock: Socket, pid: int) -> Iterator[None]:
    """Within, the number is the peer's; UnavailableError when it was not all the time."""
    try:
        handle = sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        raise UnavailableError(f"peer {pid}: {error.strerror}; it is gone") from None
    try:
        yield
        if select.select([handle], [], [], 0)[0]:
            raise UnavailableError(f"peer {pid}: it is gone")
    except OSError as error:
        raise UnavailableError(f"peer {pid}: {error.strerror}; it is gone") from None
    finally:
        os.close(handle)
