"""How long a server of gRPC runs."""

from __future__ import annotations

import asyncio
import socket

from grpclib.server import Server


async def serve_until(stop: asyncio.Event, server: Server, listener: socket.socket) -> None:
    """Serve until told to stop; streams that are open are cut off."""
    await server.start(sock=listener)
    await stop.wait()
    server.close()
    await server.wait_closed()
