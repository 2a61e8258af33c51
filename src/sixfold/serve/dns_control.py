"""What the agent and the resolver say to each other over ``<run>/dns.sock``.

Frames: four bytes of length, then MessagePack. Every message is answered by one ``State``. The
file that a restarted resolver starts from is a ``Load``, as it would have been sent.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable

import msgspec

from sixfold.discovery.zone import RecordKey, Zone, ZoneDelta, ZoneSettings

FRAME_MAX = 256 << 20
LENGTH = struct.Struct("!I")

Record = tuple[str, str, tuple[str, ...]]  # name, type, rdata


class Load(msgspec.Struct, tag="load"):
    """Replace everything."""

    origins: tuple[str, ...]
    ttl_s: int
    pods_insecure: bool
    upstreams: tuple[str, ...]
    records: list[Record]
    generation: int = 0


class Change(msgspec.Struct, tag="change"):
    """Change some records."""

    set: list[Record]
    delete: list[tuple[str, str]]
    generation: int = 0


class Ask(msgspec.Struct, tag="ask"):
    """How is it going?"""


class Shutdown(msgspec.Struct, tag="shutdown"):
    """Answer, then exit."""


class State(msgspec.Struct, tag="state"):
    """The answer to every message."""

    pid: int
    version: str
    synced: bool  # has a zone: loaded from the file, or received
    generation: int
    records: int
    statistics: dict[str, int]


Message = Load | Change | Ask | Shutdown

encode = msgspec.msgpack.Encoder().encode
decode_message = msgspec.msgpack.Decoder(Message).decode
decode_state = msgspec.msgpack.Decoder(State).decode
decode_load = msgspec.msgpack.Decoder(Load).decode


def load_message(
    settings: ZoneSettings, upstreams: Iterable[str], zone: Zone, generation: int
) -> Load:
    records = [(*key, rdata) for key, rdata in zone.items()]
    return Load(
        settings.origins,
        settings.ttl_s,
        settings.pods_insecure,
        tuple(upstreams),
        records,
        generation,
    )


def settings_of(message: Load) -> ZoneSettings:
    return ZoneSettings(message.origins, message.ttl_s, message.pods_insecure)


def change_message(delta: ZoneDelta, generation: int) -> Change:
    records = [(*key, rdata) for key, rdata in delta.set.items()]
    return Change(records, [(key.name, key.type) for key in delta.delete], generation)


def zone_of(records: Iterable[Record]) -> Zone:
    return {RecordKey(name, type_): rdata for name, type_, rdata in records}


def delta_of(message: Change) -> ZoneDelta:
    delete = frozenset(RecordKey(name, type_) for name, type_ in message.delete)
    return ZoneDelta(zone_of(message.set), delete)


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """One frame; IncompleteReadError when the peer left."""
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    if length > FRAME_MAX:
        raise asyncio.IncompleteReadError(b"", length)
    return await reader.readexactly(length)


def write_frame(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(LENGTH.pack(len(frame)) + frame)
