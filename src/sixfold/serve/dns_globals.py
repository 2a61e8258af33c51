"""Answers for global names: to pods, and at the edge to the world.

Questions in, packets out. A client is where its resolver says it is (EDNS client subnet, RFC 7871),
else where the question came from; to pods only the latter counts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from random import random
from typing import NamedTuple

from sixfold.discovery.globalnames import PlannedName, choose
from sixfold.discovery.wire import TYPE_NUMBERS, encode_all
from sixfold.discovery.zone import SOA_EXPIRE_S, SOA_REFRESH_S, SOA_RETRY_S, Rcode, RRset
from sixfold.serve.dns_wire import AA, Malformed, Query, compose

CLIENT_SUBNET = 8
FAMILIES = {1: 4, 2: 6}  # of RFC 7871, as versions
FAMILY_OF = {4: 1, 6: 2}
IPNetwork = IPv4Network | IPv6Network


class Subnet(NamedTuple):
    """What a resolver says of its client; ``raw`` are the address bytes as sent."""

    network: IPNetwork
    raw: bytes

    def encode(self, scope: int) -> bytes:
        """The option of an answer, which repeats that of the question."""
        family, length = FAMILY_OF[self.network.version], self.network.prefixlen
        body = struct.pack("!HBB", family, length, scope) + self.raw
        return struct.pack("!HH", CLIENT_SUBNET, len(body)) + body


def client_subnet(options: bytes) -> Subnet | None:
    """The client subnet among EDNS options; None: not said. Malformed: nonsense."""
    at = 0
    while at < len(options):
        try:
            code, length = struct.unpack_from("!HH", options, at)
        except struct.error:
            raise Malformed("truncated option") from None
        body = options[at + 4 : at + 4 + length]
        if len(body) < length:
            raise Malformed("truncated option")
        if code == CLIENT_SUBNET:
            return _subnet(body)
        at += 4 + length
    return None


def _subnet(body: bytes) -> Subnet | None:
    if len(body) < 4:
        raise Malformed("client subnet")
    family, source, scope = struct.unpack_from("!HBB", body)
    raw = body[4:]
    version = FAMILIES.get(family)
    size = 4 if version == 4 else 16
    if version is None or scope or source > size * 8 or len(raw) != -(-source // 8):
        raise Malformed("client subnet")
    try:
        network = ip_network((raw.ljust(size, b"\0"), source))  # bits beyond it must be 0
    except ValueError:
        raise Malformed("client subnet") from None
    return Subnet(network, raw)


class GlobalNames:
    """Names as planned; ``chance`` is asked once per answer."""

    def __init__(self, chance: Callable[[], float] = random) -> None:
        self._names: dict[str, PlannedName] = {}
        self._chance = chance

    def load(self, names: tuple[PlannedName, ...]) -> None:
        self._names = {one.hostname: one for one in names}

    def inside(self, query: Query, client: str, limit: int) -> bytes | None:
        """The answer for a pod or this host; None when it is no global name."""
        name = self._names.get(query.name)
        if name is None:
            return None
        where = ip_network(client.partition("%")[0])
        return self._answer(query, name, where, limit, inside=True)

    def outside(self, query: Query, client: str, subnet: Subnet | None, limit: int) -> bytes | None:
        """The answer at the edge; None when it is no global name."""
        name = self._names.get(query.name)
        if name is None or not any(one.outside.addresses for one in name.regions):
            return None
        where = ip_network(client.partition("%")[0]) if subnet is None else subnet.network
        return self._answer(query, name, where, limit, inside=False, subnet=subnet)

    def _answer(
        self,
        query: Query,
        name: PlannedName,
        where: IPNetwork,
        limit: int,
        *,
        inside: bool,
        subnet: Subnet | None = None,
    ) -> bytes:
        version = {TYPE_NUMBERS["A"]: 4, TYPE_NUMBERS["AAAA"]: 6}.get(query.type, 0)
        chosen = choose(name, where, version, self._chance(), inside=inside)
        found: list[bytes] = []
        authority: list[bytes] = []
        if chosen.addresses:
            type_ = "A" if version == 4 else "AAAA"
            records = RRset(name.hostname, type_, name.ttl_s, chosen.addresses)
            found = encode_all([records], query.name)
        elif query.type == TYPE_NUMBERS["SOA"]:
            found = encode_all([_soa(name)], query.name)
        else:
            authority = encode_all([_soa(name)], query.name)
        options = b"" if subnet is None else subnet.encode(chosen.scope)
        return compose(
            query,
            Rcode.NOERROR,
            (found, authority, []),
            limit=limit,
            flags=AA,
            recursive=inside,
            options=options,
        )


def _soa(name: PlannedName) -> RRset:
    timers = f"1 {SOA_REFRESH_S} {SOA_RETRY_S} {SOA_EXPIRE_S} {name.ttl_s}"
    rdata = f"{name.hostname}. hostmaster.{name.hostname}. {timers}"
    return RRset(name.hostname, "SOA", name.ttl_s, (rdata,))


def source_prefix(client: str) -> str:
    """Who counts as one at the edge: a /24, or a /56."""
    address = ip_address(client.partition("%")[0])
    length = 24 if address.version == 4 else 56
    return str(ip_network((address, length), strict=False))
