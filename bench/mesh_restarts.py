"""How soon the proxy serves again when it was killed: from the signal to the first answer.

Over a new connection, dialled again and again; what was open is gone.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterable

from bench.lab import LabError
from bench.peers import Peer
from sixfold.host import netns

KILLS, PAUSE_S, GIVE_UP_S, TRY_S = 3, 0.005, 20.0, 0.5
REQUEST, ANSWER = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n", b"HTTP/1.1 200"


def measure(peer: Peer, proxies: Callable[[], Iterable[int]]) -> list[float]:
    """Seconds of each death."""
    return [_death_s(peer, proxies) for _ in range(KILLS)]


def _death_s(peer: Peer, proxies: Callable[[], Iterable[int]]) -> float:
    start_s = time.monotonic()
    for pid in proxies():
        os.kill(pid, signal.SIGKILL)
    while not _answers(peer):
        if time.monotonic() - start_s > GIVE_UP_S:
            raise LabError(f"mesh: no answer {GIVE_UP_S:g} s after the proxy was killed")
        time.sleep(PAUSE_S)
    return time.monotonic() - start_s


def _answers(peer: Peer) -> bool:
    """Whether a request is answered."""
    place = peer.address, peer.port
    try:
        dialled = netns.run_inside(peer.client, lambda: socket.create_connection(place, TRY_S))
        with dialled as connection:
            connection.settimeout(GIVE_UP_S)  # who was let in is waited for
            connection.sendall(REQUEST)
            return connection.recv(len(ANSWER)) == ANSWER
    except OSError:
        return False
