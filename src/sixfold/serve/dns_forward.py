"""Names that are not ours: asked of the upstream resolvers, with a small cache.

Every exchange has a fresh socket and id, so that an off-path attacker must guess both. Time is
bounded: ``TRIES`` rounds over the upstreams, ``TIMEOUT_S`` each, never longer than ``DEADLINE_S``
in all; then the client gets SERVFAIL. Equal questions in flight are asked once.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from random import SystemRandom
from typing import NamedTuple

from sixfold.discovery.wire import RECORD
from sixfold.discovery.zone import Rcode
from sixfold.serve.dns_upstream import Upstream
from sixfold.serve.dns_wire import (
    AD,
    CD,
    DO,
    HEADER,
    OPT,
    QR,
    RCODE,
    RD,
    TC,
    UDP_MAX,
    Malformed,
    Query,
)

TIMEOUT_S = 1.5
TRIES = 2
DEADLINE_S = 5.0
SILENCE_S = 10.0  # for so long an upstream that did not answer is asked last
IN_FLIGHT_MAX = 400  # each holds a socket
CACHE_MAX = 4096
TTL_MAX_S = 300
NEGATIVE_TTL_MAX_S = 30
SOA = 6

CHANCE = SystemRandom()


class Cached(NamedTuple):
    """A reply and where its TTLs are."""

    reply: bytes
    stored_s: float
    expires_s: float
    ttl_offsets: tuple[int, ...]


Release = Callable[[str, bytes], Awaitable[None]]


async def _at_once(name: str, reply: bytes) -> None:
    """Nobody wants to know."""


class Forwarder:
    """Asks those that ``upstreams`` says for a name; it is called for every question.

    ``release`` is awaited with the name and the whole reply before any answer goes out.
    """

    def __init__(
        self, upstreams: Callable[[str], Sequence[Upstream]], release: Release = _at_once
    ) -> None:
        self._upstreams = upstreams
        self._release = release
        self.asked = 0
        self.cached = 0
        self._cache: dict[bytes, Cached] = {}
        self._silent_until_s: dict[Upstream, float] = {}
        self._in_flight: dict[bytes, asyncio.Task[bytes | None]] = {}

    def ask_instead(self, upstreams: Callable[[str], Sequence[Upstream]]) -> None:
        """Others are asked from now on; what the former said is forgotten."""
        self._upstreams = upstreams
        self._cache.clear()

    async def forward(self, query: Query, limit: int) -> bytes | None:
        """An answer for the client of at most ``limit`` bytes; None when nobody answered."""
        key = _cache_key(query)
        if (cached := self._fresh(key)) is not None:
            self.cached += 1
            await self._release(query.name, cached)
            return _for_client(query, cached, limit)
        task = self._in_flight.get(key)
        if task is None:
            if len(self._in_flight) >= IN_FLIGHT_MAX:
                return None
            task = asyncio.create_task(self._ask(query))
            self._in_flight[key] = task
            task.add_done_callback(lambda _: self._in_flight.pop(key, None))
        reply = await asyncio.shield(task)
        if reply is None:
            return None
        self._keep(key, reply)
        await self._release(query.name, reply)
        return _for_client(query, reply, limit)

    def replies(self) -> Iterator[bytes]:
        """All that is still good, as of now."""
        for key in list(self._cache):
            if (reply := self._fresh(key)) is not None:
                yield reply

    async def _ask(self, query: Query) -> bytes | None:
        """The first usable reply; a SERVFAIL or REFUSED only when nobody had better."""
        self.asked += 1
        worst: bytes | None = None
        try:
            async with asyncio.timeout(DEADLINE_S):
                for upstream in self._in_order(query.name) * TRIES:
                    reply = await _exchange(upstream, query)
                    if reply is None:
                        self._silent_until_s[upstream] = time.monotonic() + SILENCE_S
                        continue
                    if reply[3] & RCODE not in (Rcode.SERVFAIL, Rcode.REFUSED, Rcode.NOTIMP):
                        return reply
                    worst = reply
        except TimeoutError:
            pass
        return worst

    def _in_order(self, name: str) -> list[Upstream]:
        """Those that were silent a moment ago come last."""
        now_s = time.monotonic()
        silent = {one for one, until_s in self._silent_until_s.items() if now_s < until_s}
        return sorted(self._upstreams(name), key=lambda upstream: upstream in silent)

    def _fresh(self, key: bytes) -> bytes | None:
        cached = self._cache.get(key)
        if cached is None:
            return None
        now_s = time.monotonic()
        if now_s >= cached.expires_s:
            del self._cache[key]
            return None
        reply = bytearray(cached.reply)
        age_s = int(now_s - cached.stored_s)
        for offset in cached.ttl_offsets:
            (ttl_s,) = struct.unpack_from("!I", reply, offset)
            struct.pack_into("!I", reply, offset, max(0, ttl_s - age_s))
        return bytes(reply)

    def _keep(self, key: bytes, reply: bytes) -> None:
        try:
            ttl_s, offsets = ttls(reply)
        except (Malformed, struct.error, IndexError):
            return
        if ttl_s <= 0:
            return
        if len(self._cache) >= CACHE_MAX:
            del self._cache[next(iter(self._cache))]
        now_s = time.monotonic()
        self._cache[key] = Cached(reply, now_s, now_s + ttl_s, offsets)


def _cache_key(query: Query) -> bytes:
    dnssec = query.edns is not None and query.edns.dnssec_ok
    shape = bytes((query.edns is not None, dnssec, bool(query.flags & CD)))
    return shape + _folded(query.question)


def _folded(question: bytes) -> bytes:
    return question[:-4].lower() + question[-4:]


def _message(query: Query, id_: int) -> bytes:
    opt = b""
    if query.edns is not None:
        opt = b"\0" + RECORD.pack(OPT, UDP_MAX, DO if query.edns.dnssec_ok else 0, 0)
    flags = RD | query.flags & (CD | AD)
    return HEADER.pack(id_, flags, 1, 0, 0, bool(opt)) + query.question + opt


def _answers(reply: bytes, message: bytes, question: bytes) -> bool:
    """Whether a reply belongs to the message: id, direction and question."""
    end = HEADER.size + len(question)
    return (
        len(reply) >= end
        and reply[:2] == message[:2]
        and bool(reply[2] & QR >> 8)
        and _folded(reply[HEADER.size : end]) == _folded(question)
    )


async def _exchange(upstream: Upstream, query: Query) -> bytes | None:
    """One question to one upstream, over UDP, and over TCP when the answer is too long."""
    message = _message(query, CHANCE.randrange(1 << 16))
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reply = await _over_udp(upstream, message, query.question)
            if reply[2] & TC >> 8:
                reply = await _over_tcp(upstream, message)
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None
    return reply if _answers(reply, message, query.question) else None


async def _over_udp(upstream: Upstream, message: bytes, question: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    with socket.socket(upstream.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect(upstream)
        sock.send(message)
        while True:  # bounded by the caller's timeout
            reply = await loop.sock_recv(sock, 65_535)
            if _answers(reply, message, question):
                return reply


async def _over_tcp(upstream: Upstream, message: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
    try:
        writer.write(struct.pack("!H", len(message)) + message)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        return await reader.readexactly(length)
    finally:
        writer.close()


def _for_client(query: Query, reply: bytes, limit: int) -> bytes:
    """The reply under the client's id and spelling, cut when it is too long."""
    (flags,) = struct.unpack_from("!H", reply, 2)
    flags = flags & ~(RD | CD) | query.flags & (RD | CD)
    body = reply[HEADER.size + len(query.question) :]
    counts: tuple[int, ...] = struct.unpack_from("!HHHH", reply, 4)
    if len(reply) > limit:
        flags, body, counts = flags | TC, b"", (1, 0, 0, 0)
    return HEADER.pack(query.id, flags, *counts) + query.question + body


def ttls(reply: bytes) -> tuple[int, tuple[int, ...]]:
    """Seconds that a reply may be kept (0: not at all), and the offsets of its TTLs."""
    (flags, questions, *counts) = struct.unpack_from("!HHHHH", reply, 2)
    if flags & TC or flags & RCODE not in (Rcode.NOERROR, Rcode.NXDOMAIN):
        return 0, ()
    offset = HEADER.size
    for _ in range(questions):
        offset = _skip_name(reply, offset) + 4
    offsets, answer_ttls, negative = [], [], 0
    for number in range(sum(counts)):
        offset = _skip_name(reply, offset)
        type_, _, ttl_s, length = RECORD.unpack_from(reply, offset)
        end = offset + RECORD.size + length
        if end > len(reply):
            raise Malformed("truncated")
        if type_ != OPT:
            offsets.append(offset + 4)
        if number < counts[0]:
            answer_ttls.append(ttl_s)
        elif type_ == SOA:
            (minimum,) = struct.unpack_from("!I", reply, end - 4)
            negative = min(ttl_s, minimum, NEGATIVE_TTL_MAX_S)
        offset = end
    keep_s = min(*answer_ttls, TTL_MAX_S) if answer_ttls else negative
    return keep_s, tuple(offsets)


def _skip_name(message: bytes, offset: int) -> int:
    while length := message[offset]:
        if length >= 0xC0:
            return offset + 2
        offset += 1 + length
    return offset + 1
