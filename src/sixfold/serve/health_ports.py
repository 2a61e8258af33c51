"""healthCheckNodePort: should an external load balancer send this node the traffic of a service?

Answers over HTTP as kube-proxy does, whatever the method and path: 200 while the node has endpoints
that take new connections, 503 while it has none. Part of the resolver's process, so that a node
whose agent is away, and whose kernel goes on balancing, is not taken out: the numbers stand still
as long as readiness does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Sequence
from http import HTTPStatus
from socket import SOCK_STREAM

from sixfold.model.health_port import HealthPort

log = logging.getLogger("sixfold.health")

ANYWHERE = ("0.0.0.0", "::")
CLIENTS_MAX = 256
HEAD_MAX = 8192
IDLE_S = 5.0
Listen = Callable[[str, int, socket.SocketKind], socket.socket]


class HealthPorts:
    """Listeners by port; ``problem`` says which of them there are not."""

    def __init__(self, listen: Listen) -> None:
        self._listen = listen
        self._wanted: dict[int, HealthPort] = {}
        self._servers: dict[int, list[asyncio.Server]] = {}
        self._clients = 0
        self.problem = ""

    async def serve(self, ports: Sequence[HealthPort]) -> None:
        """Answer for these ports, and for no others."""
        self._wanted = {one.port: one for one in ports}
        problems = []
        for port in self._servers.keys() - self._wanted.keys():
            self._close(port)
        for port, one in self._wanted.items():
            if port not in self._servers:
                try:
                    await self._open(port)
                except OSError as error:
                    service = f"{one.namespace}/{one.name}"
                    problems.append(
                        f"healthCheckNodePort {port} of {service}: {error.strerror or error}"
                    )
        if problems and "; ".join(problems) != self.problem:
            log.error("%s", "; ".join(problems))
        self.problem = "; ".join(problems)

    def close(self) -> None:
        for port in list(self._servers):
            self._close(port)

    async def _open(self, port: int) -> None:
        opened: list[asyncio.Server] = []
        try:
            for address in ANYWHERE:
                sock = self._listen(address, port, SOCK_STREAM)
                opened.append(await asyncio.start_server(self._answer, sock=sock, limit=HEAD_MAX))
        except OSError:
            for server in opened:
                server.close()
            raise
        self._servers[port] = opened

    def _close(self, port: int) -> None:
        for server in self._servers.pop(port):
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._clients >= CLIENTS_MAX:
            writer.close()
            return
        self._clients += 1
        try:
            async with asyncio.timeout(IDLE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                asked = self._wanted.get(writer.get_extra_info("sockname")[1])
                if asked is not None:
                    writer.write(answer(asked, body=not head.startswith(b"HEAD ")))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            self._clients -= 1
            writer.close()


def answer(one: HealthPort, *, body: bool = True) -> bytes:
    """The whole HTTP response."""
    status = HTTPStatus.OK if one.endpoints else HTTPStatus.SERVICE_UNAVAILABLE
    content = json.dumps(
        {
            "service": {"namespace": one.namespace, "name": one.name},
            "localEndpoints": one.endpoints,
            "serviceProxyHealthy": True,
        }
    ).encode()
    head = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        "X-Content-Type-Options: nosniff",
        f"X-Load-Balancing-Endpoint-Weight: {one.endpoints}",
        f"Content-Length: {len(content)}",
        "Connection: close",
    ]
    return "\r\n".join((*head, "", "")).encode() + (content if body else b"")
