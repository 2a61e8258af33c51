"""Load through the mesh, and what is seen of it on the wire."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from .places import Place

MARK = b"this must not be seen on any wire"


class Wire:
    """Everything that passes a pod's device; ``seen`` says whether some bytes did."""

    def __init__(self, place: Place) -> None:
        self.socket = place.inside(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300))
        self.socket.bind(("eth0", 0))
        self.socket.settimeout(0.2)
        self.frames: list[bytes] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                self.frames.append(self.socket.recv(1 << 16))
            except TimeoutError:
                continue

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.socket.setblocking(False)
        with suppress(BlockingIOError):  # what has come and was not looked at yet
            while True:
                self.frames.append(self.socket.recv(1 << 16))
        self.socket.close()

    def seen(self, what: bytes) -> bool:
        return any(what in frame for frame in self.frames)


class Load:
    """Connections that stay, and connections one after the other; ``failed`` says when, and how."""

    def __init__(self, dialled: Callable[[], socket.socket]) -> None:
        self._dialled = dialled
        self._stop = threading.Event()
        self._served = [0, 0, 0]
        self.failed: list[tuple[float, str]] = []
        self._threads = [
            threading.Thread(target=self._run, args=(number, stays))
            for number, stays in enumerate((True, True, False))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def served(self) -> int:
        """Exchanges of the one that has had the fewest: where it grows, all are served."""
        return min(self._served)

    def _run(self, number: int, stays: bool) -> None:
        while not self._stop.is_set():
            try:
                with self._dialled() as sock:
                    self._exchange(sock, number)
                    while stays and not self._stop.is_set():
                        self._exchange(sock, number)
            except OSError as error:
                self.failed.append((time.monotonic(), str(error) or type(error).__name__))
                time.sleep(0.01)

    def _exchange(self, sock: socket.socket, number: int) -> None:
        sock.settimeout(10)
        sock.sendall(MARK)
        found = b""
        while len(found) < len(MARK):
            if not (part := sock.recv(100)):
                raise ConnectionResetError("closed")
            found += part
        self._served[number] += 1
        time.sleep(0.002)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
