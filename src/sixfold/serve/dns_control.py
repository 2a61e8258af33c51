"""What the agent and the resolver say to each other over ``<run>/dns.sock``.

Frames: four bytes of length, then MessagePack. Every message is answered by one ``State``, but
``Opened``. On a connection that sent ``Watch`` the resolver also speaks: ``Resolved``, each
answered by ``Opened`` when the kernel is ready, and ``Refused``. The file that a restarted resolver
starts from is a ``Load``, as it would have been sent.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable, Mapping

import msgspec

from sixfold.discovery.globalnames import PlannedName
from sixfold.discovery.outside import OutsideZone
from sixfold.discovery.zone import RecordKey, Zone, ZoneDelta, ZoneSettings
from sixfold.model.config import Config
from sixfold.model.health_port import HealthPort
from sixfold.model.layers import differing
from sixfold.model.names import LINE_BITS, ViewPlan

FRAME_MAX = 256 << 20
GONE = -1
LENGTH = struct.Struct("!I")

Record = tuple[str, str, tuple[str, ...]]  # name, type, rdata


class Views(msgspec.Struct):
    """Who is told which names; or what of it is other than it was.

    clients  view of each client, by address; -1: none any more
    seen     lines of each view, as the kernel has them; none: no such view any more
    owners   number of each owner; -1: none any more
    """

    clients: dict[str, int] = {}
    seen: dict[int, dict[int, bytes]] = {}
    owners: dict[str, int] = {}


class Load(msgspec.Struct, tag="load"):
    """Replace everything."""

    origins: tuple[str, ...]
    ttl_s: int
    pods_insecure: bool
    upstreams: tuple[str, ...]
    records: list[Record]
    generation: int = 0
    clients: tuple[str, ...] = ()  # networks that may ask, beside this host; none: everybody
    views: Views | None = None  # none: everybody is told everything
    serial: int = 0  # of the zones, as the kernel says it
    stub_domains: tuple[str, ...] = ()


class Change(msgspec.Struct, tag="change"):
    """Change some records."""

    set: list[Record]
    delete: list[tuple[str, str]]
    generation: int = 0
    views: Views | None = None
    serial: int = 0


class Globals(msgspec.Struct, tag="globals"):
    """All global names, and what is answered to the world, and where; replaces earlier ones."""

    names: tuple[PlannedName, ...] = ()
    edge: tuple[str, ...] = ()
    zones: tuple[OutsideZone, ...] = ()


class HealthPorts(msgspec.Struct, tag="health-ports"):
    """All ports at which external load balancers ask for this node; replaces earlier ones."""

    ports: tuple[HealthPort, ...] = ()


class Limit(msgspec.Struct):
    """What may be asked for; ``audit``: all is answered, what may not be asked is told."""

    patterns: tuple[str, ...]
    audit: bool = False


class Limits(msgspec.Struct, tag="limits"):
    """Which clients may ask for some names only: number in ``sets``, by address; replaces earlier
    ones."""

    clients: dict[str, int] = {}
    sets: tuple[Limit, ...] = ()


class Ask(msgspec.Struct, tag="ask"):
    """How is it going?"""


class Watch(msgspec.Struct, tag="watch"):
    """Hold answers for names like these until they are ``Opened``, and tell what is ``Refused``;
    replaces an earlier one."""

    patterns: tuple[str, ...]


class Resolved(msgspec.Struct, tag="resolved"):
    """A name has these addresses for so many seconds. 0: nobody waits for this one."""

    number: int
    name: str
    addresses: dict[str, int]


class Refused(msgspec.Struct, tag="refused"):
    """A client asked for what policy does not let it ask for."""

    client: str
    port: int
    resolver: str
    protocol: str
    name: str
    asked: str  # its type
    audit: bool = False  # and was answered


class Opened(msgspec.Struct, tag="opened"):
    """The answer may go out; ``complete``: the kernel lets all its addresses through."""

    number: int
    complete: bool


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
    problem: str = ""  # of what the message was about: the edge, health ports


Message = Load | Change | Globals | HealthPorts | Limits | Ask | Shutdown | Watch | Opened

encode = msgspec.msgpack.Encoder().encode
decode_message = msgspec.msgpack.Decoder(Message).decode
decode_state = msgspec.msgpack.Decoder(State).decode
decode_report = msgspec.msgpack.Decoder(State | Resolved | Refused).decode
decode_limits = msgspec.msgpack.Decoder(Limits).decode
decode_globals = msgspec.msgpack.Decoder(Globals).decode
decode_health_ports = msgspec.msgpack.Decoder(HealthPorts).decode
decode_load = msgspec.msgpack.Decoder(Load).decode


def load_message(
    config: Config,
    settings: ZoneSettings,
    zone: Zone,
    generation: int,
    views: ViewPlan | None = None,
) -> Load:
    """The whole zone and everything else that a resolver must know."""
    return Load(
        origins=settings.origins,
        ttl_s=settings.ttl_s,
        pods_insecure=settings.pods_insecure,
        upstreams=config.dns_upstreams,
        records=records_of(zone),
        generation=generation,
        clients=(str(config.pod_ipv4), str(config.pod_ipv6)),
        views=None if views is None else views_message(ViewPlan(clients={}), views),
        stub_domains=config.dns_stub_domains,
    )


def records_of(zone: Zone) -> list[Record]:
    return [(*key, rdata) for key, rdata in zone.items()]


def settings_of(message: Load) -> ZoneSettings:
    return ZoneSettings(message.origins, message.ttl_s, message.pods_insecure)


def change_message(delta: ZoneDelta, generation: int, views: Views | None = None) -> Change:
    gone = [(key.name, key.type) for key in delta.delete]
    return Change(records_of(delta.set), gone, generation, views)


def views_message(before: ViewPlan, now: ViewPlan) -> Views | None:
    """What leads from one plan to the next; None when there is nothing to hide."""
    if now.clients is None or before.clients is None:
        return None
    return Views(
        _changes(before.clients, now.clients),
        {
            view: {line: bits.to_bytes(LINE_BITS // 8, "little") for line, bits in lines.items()}
            for view in before.seen.keys() | now.seen.keys()
            if (lines := now.seen.get(view, {})) is not before.seen.get(view)
        },
        _changes(before.owners, now.owners),
    )


def _changes(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    return {key: now.get(key, GONE) for key in differing(before, now)}


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
