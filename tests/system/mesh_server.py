"""What the mesh's tests talk to: one process, a port for each way in which programs use TCP.

2222  speaks first, as SSH and MySQL do
3333  reads to the end, then answers with what it got, as a hash
4444  echoes
5555  sends as many bytes as it is asked for, and their hash at the end
7777  gRPC: echo, a stream of three, and a chat that echoes
8080  HTTP/1.1 with connections that stay; /ws is a WebSocket that echoes one frame
8443  the same in TLS, with the certificate and key of a file that is given
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import ssl
import sys
from asyncio import StreamReader, StreamWriter

BLOCK = bytes(range(256)) * 256


async def speaks_first(reader: StreamReader, writer: StreamWriter) -> None:
    writer.write(b"SSH-2.0-test\r\n")
    writer.write(b"heard " + await reader.readline())


async def hashes(reader: StreamReader, writer: StreamWriter) -> None:
    told = hashlib.sha256()
    while block := await reader.read(1 << 16):
        told.update(block)
    writer.write(told.hexdigest().encode())


async def echoes(reader: StreamReader, writer: StreamWriter) -> None:
    while block := await reader.read(1 << 16):
        writer.write(block)
        await writer.drain()


async def sends(reader: StreamReader, writer: StreamWriter) -> None:
    for _ in range(int(await reader.readline()) // len(BLOCK)):
        writer.write(BLOCK)
        await writer.drain()


async def http(reader: StreamReader, writer: StreamWriter) -> None:
    for number in itertools.count(1):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if "/ws" in head.split("\r\n")[0]:
            await websocket(head, reader, writer)
            return
        body = f"request {number} of this connection".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()


async def websocket(head: str, reader: StreamReader, writer: StreamWriter) -> None:
    key = head.lower().partition("sec-websocket-key:")[2].split("\r\n")[0].strip()
    key = next(
        line.partition(":")[2].strip()
        for line in head.split("\r\n")
        if line.lower().startswith("sec-websocket-key")
    )
    accepted = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % base64.b64encode(accepted)
    )
    _, length = await reader.readexactly(2)
    mask = await reader.readexactly(4)
    masked = await reader.readexactly(length & 0x7F)
    text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(masked))
    writer.write(bytes((0x81, len(text))) + text)


async def serve_grpc() -> object:
    """The server, which ends when nobody holds it."""
    import grpc

    async def unary(request: bytes, _: object) -> bytes:
        return request

    async def stream(request: bytes, _: object):  # type: ignore[no-untyped-def]
        for number in range(3):
            yield request + str(number).encode()

    async def chat(requests, _: object):  # type: ignore[no-untyped-def]
        async for request in requests:
            yield request

    handlers = {
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Echo", handlers),))
    server.add_insecure_port("[::]:7777")
    await server.start()
    return server


def closing(handler):  # type: ignore[no-untyped-def]
    async def handled(reader: StreamReader, writer: StreamWriter) -> None:
        try:
            await handler(reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    return handled


async def main() -> None:
    held = await serve_grpc()
    ports = {2222: speaks_first, 3333: hashes, 5555: sends, 8080: http, 4444: echoes}
    for port, handler in ports.items():
        await asyncio.start_server(closing(handler), None, port, backlog=4096)
    if len(sys.argv) > 1:
        shown = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        shown.load_cert_chain(sys.argv[1])
        await asyncio.start_server(closing(http), None, 8443, ssl=shown)
    await asyncio.Event().wait()
    del held


asyncio.run(main())
