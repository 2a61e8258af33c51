"""gRPC health checks in 100 lines: one unary call over one HTTP/2 connection, no library.

A probe needs one request with fixed headers and one number of the answer, so the frames are
written by hand: it costs no more than an HTTP probe, and grpcio's 30 MB stay out of the agent.
Source: RFC 9113, RFC 7541 (literals only), grpc.health.v1. The response headers are not
decoded: an answer without a message is not healthy, whatever its status says.
"""

from __future__ import annotations

import asyncio
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
FRAME_BYTES_MAX = 16384  # what a peer may send unless we allow more
FRAMES_MAX = 100  # a peer that talks more is not answering a health check

SERVING_STATUS = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


class ProtocolError(Exception):
    """The peer does not speak gRPC, or refused the call; the text says which."""


def request(authority: str, service: str) -> bytes:
    """Everything the client sends for grpc.health.v1.Health/Check, in one piece."""
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    headers = (
        b"\x83\x86"  # :method POST, :scheme http: entries of the static table
        + _literal(b"\x04", b"/grpc.health.v1.Health/Check")  # :path
        + _literal(b"\x01", authority.encode())  # :authority
        + _literal(b"\x0f\x10", b"application/grpc")  # content-type
        + _literal(b"\x0f\x2b", b"sixfold-probe")  # user-agent
        + _literal(b"\x00\x02te", b"trailers")
    )
    body = b"\0" + struct.pack("!I", len(message)) + message
    return b"".join(
        (
            PREFACE,
            frame(SETTINGS, 0, 0, b""),
            frame(HEADERS, END_HEADERS, 1, headers),
            frame(DATA, END_STREAM, 1, body),
        )
    )


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


async def serving_status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """Read the answer to ``request``; raises ProtocolError."""
    message = b""
    for _ in range(FRAMES_MAX):
        header = await reader.readexactly(9)
        kind, flags, stream = struct.unpack("!BBI", header[3:])
        size = int.from_bytes(header[:3])
        if size > FRAME_BYTES_MAX:
            raise ProtocolError("not HTTP/2")
        payload = await reader.readexactly(size)
        if kind in (SETTINGS, PING) and not flags & ACK:
            writer.write(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind == GOAWAY or (kind == RST_STREAM and stream == 1):
            raise ProtocolError("the peer closed the call")
        elif kind == DATA and stream == 1:
            message += payload[1 : size - payload[0]] if flags & PADDED else payload
            if len(message) >= 5 and len(message) >= 5 + int.from_bytes(message[1:5]):
                return _status(message[5 : 5 + int.from_bytes(message[1:5])])
        if kind in (DATA, HEADERS) and stream == 1 and flags & END_STREAM:
            raise ProtocolError("no health status: grpc.health.v1 or the service is not known")
    raise ProtocolError("no end of frames")


def _status(message: bytes) -> str:
    """HealthCheckResponse: field 1, a varint; absent is 0."""
    if not message:
        return SERVING_STATUS[0]
    if len(message) != 2 or message[0] != 0x08:
        raise ProtocolError("not a HealthCheckResponse")
    return SERVING_STATUS.get(message[1], str(message[1]))


def _literal(name: bytes, value: bytes) -> bytes:
    assert len(value) < 127, f"{value!r}: longer than the shortest HPACK length"
    return name + bytes([len(value)]) + value


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])
