"""The edge: where ``up --dns-edge`` says, the world is answered.

What it is told is ``dns_outside``'s; and only so many answers a second for one network, since a
question over UDP may come in somebody else's name.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from socket import SOCK_DGRAM, SOCK_STREAM

from sixfold.serve.dns_globals import source_prefix
from sixfold.serve.dns_outside import Outside

DRAIN_MAX = 64
PACKET_MAX = 4096
TCP_MAX = 65_535
TCP_CLIENTS_MAX = 128
TCP_IDLE_S = 5.0
ANSWERS_MAX = 500  # a second, for one network over UDP
PREFIXES_MAX = 16_384

log = logging.getLogger("sixfold.dns")
Listen = Callable[[str, int, socket.SocketKind], socket.socket]


class Edge:
    """Listeners by place (``ADDRESS:PORT``); ``problem`` says which of them there are not."""

    def __init__(self, outside: Outside, listen: Listen) -> None:
        self._outside = outside
        self._listen = listen
        self._udp: dict[str, socket.socket] = {}
        self._tcp: dict[str, asyncio.Server] = {}
        self._clients = 0
        self._second = 0
        self._answered: Counter[str] = Counter()
        self.statistics: Counter[str] = Counter()
        self.problem = ""

    async def serve(self, places: Sequence[str]) -> None:
        """Listen at these places, and nowhere else."""
        self.problem = ""
        for place in self._udp.keys() - set(places):
            self._close(place)
        for place in places:
            if place not in self._udp:
                try:
                    await self._open(place)
                except OSError as error:
                    self.problem = f"edge {place}: {error.strerror or error}"
                    log.error("%s", self.problem)

    def close(self) -> None:
        for place in list(self._udp):
            self._close(place)

    async def _open(self, place: str) -> None:
        host, _, port = place.rpartition(":")
        address = host.strip("[]")
        udp = self._listen(address, int(port), SOCK_DGRAM)
        try:
            tcp = self._listen(address, int(port), SOCK_STREAM)
        except OSError:
            udp.close()
            raise
        self._tcp[place] = await asyncio.start_server(self._serve_tcp, sock=tcp)
        self._udp[place] = udp
        asyncio.get_running_loop().add_reader(udp, self._read, udp)
        log.info("edge at %s", place)

    def _close(self, place: str) -> None:
        udp = self._udp.pop(place)
        asyncio.get_running_loop().remove_reader(udp)
        udp.close()
        self._tcp.pop(place).close()

    def _read(self, sock: socket.socket) -> None:
        for _ in range(DRAIN_MAX):
            try:
                packet, client = sock.recvfrom(PACKET_MAX)
                if not self._may(client[0]):
                    self.statistics["edge limited"] += 1
                    continue
                answer = self._outside.answer(packet, client[0])
                if answer is not None:
                    self.statistics["edge"] += 1
                    sock.sendto(answer, client)
            except OSError:  # nothing left, or nobody there any more
                return

    def _may(self, client: str) -> bool:
        second = int(time.monotonic())
        if second != self._second or len(self._answered) >= PREFIXES_MAX:
            self._second = second
            self._answered.clear()
        prefix = source_prefix(client)
        self._answered[prefix] += 1
        return self._answered[prefix] <= ANSWERS_MAX

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._clients >= TCP_CLIENTS_MAX:
            writer.close()
            return
        self._clients += 1
        client = writer.get_extra_info("peername")[0]
        try:
            while True:
                async with asyncio.timeout(TCP_IDLE_S):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    packet = await reader.readexactly(length)
                    answer = self._outside.answer(packet, client, limit=TCP_MAX)
                    if answer is None:
                        return
                    self.statistics["edge"] += 1
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return
        finally:
            self._clients -= 1
            writer.close()
