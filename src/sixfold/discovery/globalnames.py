"""Global names: which region is a client sent to?

Pure: health and chance are arguments. A region is chosen as the name's policy says, among those
that are well; when none is, among all: better an answer that may work than none (as Route 53
has it). Weight 0 is off, unless all that are left have it.

    Weighted   by chance, by weight
    Failover   the first that is well, in the order in which they are written
    Geography  the region whose subnet holds the client, the longest first; else as Weighted
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

import msgspec

from sixfold.balancing.members import cluster_addresses
from sixfold.model.globalname import Choice, GlobalName, Region
from sixfold.model.service import EndpointSlice
from sixfold.model.world import World

IPNetwork = IPv4Network | IPv6Network
Slices = Mapping[str, tuple[EndpointSlice, ...]]


class Side(msgspec.Struct, frozen=True):
    """Addresses for pods, or for the world: those that are well, or all when none is."""

    addresses: tuple[str, ...] = ()
    well: bool = False


class PlannedRegion(msgspec.Struct, frozen=True):
    name: str
    weight: int
    subnets: tuple[str, ...]
    inside: Side
    outside: Side


class PlannedName(msgspec.Struct, frozen=True):
    """One name, as the resolver's process needs it."""

    hostname: str
    policy: Choice
    ttl_s: int
    regions: tuple[PlannedRegion, ...]


class Chosen(NamedTuple):
    """``scope``: for how long a prefix of the client's subnet the same answer holds."""

    region: str
    addresses: tuple[str, ...]
    scope: int = 0


Unwell = Collection[tuple[str, str]]  # name of the object, address


def plan_global_names(
    world: World, names: Mapping[str, GlobalName], slices: Slices, unwell: Unwell
) -> tuple[PlannedName, ...]:
    """All names with the health of now, in order of their objects."""
    planned = []
    for key, name in sorted(names.items()):
        spec = name.spec
        hostname = spec.hostname.lower().rstrip(".")
        regions = tuple(_region(world, key, region, slices, unwell) for region in spec.regions)
        planned.append(PlannedName(hostname, spec.policy, spec.ttl_seconds, regions))
    return tuple(planned)


def _region(
    world: World, key: str, region: Region, slices: Slices, unwell: Unwell
) -> PlannedRegion:
    written = tuple(str(ip_address(text)) for text in region.addresses)
    well = tuple(one for one in written if (key, one) not in unwell)
    outside = Side(well or written, bool(well))
    inside = outside
    if (reference := region.service) is not None:
        where = f"{reference.namespace}/{reference.name}"
        service = world.services.get(where)
        ready = any(
            endpoint.conditions.ready
            for slice_ in slices.get(where, ())
            for endpoint in slice_.endpoints
        )
        addresses = map(str, cluster_addresses(service)) if service is not None else ()
        inside = Side(tuple(addresses), ready)
    return PlannedRegion(region.name, region.weight, tuple(region.client_subnets), inside, outside)


def ill_names(names: Sequence[PlannedName]) -> dict[str, str]:
    """Names of which no region is well, each with what is wrong."""
    found = {}
    for name in names:
        sides = [side for one in name.regions for side in (one.inside, one.outside)]
        if not any(side.well for side in sides):
            found[name.hostname] = (
                f"none of {len(name.regions)} regions is well; answered as if all were"
            )
    return found


def choose(
    name: PlannedName, client: IPNetwork, version: int, chance: float, *, inside: bool
) -> Chosen:
    """The region for a client and its addresses of one family; ``chance`` is below 1."""
    sides = [(one, one.inside if inside else one.outside) for one in name.regions]
    there = [(one, side) for one, side in sides if side.addresses]
    usable = [pair for pair in there if pair[1].well] or there
    if not usable:
        return Chosen("", ())
    scope = 0
    if name.policy == "Failover":
        region, side = usable[0]
    else:
        region, side = _by_weight(usable, chance)
        if name.policy == "Geography":
            scope = client.prefixlen
            near = [(best, pair) for pair in usable if (best := _nearness(pair[0], client)) >= 0]
            if near:
                region, side = max(near, key=lambda one: one[0])[1]
    addresses = tuple(one for one in side.addresses if ip_address(one).version == version)
    return Chosen(region.name, addresses, scope)


def _by_weight(
    usable: Sequence[tuple[PlannedRegion, Side]], chance: float
) -> tuple[PlannedRegion, Side]:
    total = sum(one.weight for one, _ in usable)
    if not total:
        return usable[int(chance * len(usable))]
    left = chance * total
    for pair in usable:
        left -= pair[0].weight
        if left < 0:
            return pair
    return usable[-1]


def _nearness(region: PlannedRegion, client: IPNetwork) -> int:
    """Length of the longest subnet that holds the client; -1: none does."""
    return max(
        (
            subnet.prefixlen
            for subnet in map(_network, region.subnets)
            if subnet.version == client.version
            and subnet.prefixlen <= client.prefixlen
            and client.network_address in subnet
        ),
        default=-1,
    )


_network = lru_cache(maxsize=65_536)(ip_network)  # of clients' subnets: the same ones again
