"""What ``sixfold lb list`` shows: frontends, who is behind each, and how busy everybody is.

Pure: the world, the plan, and what the kernel counted. Endpoints that get nothing are listed
too, with the reason: they may still have connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from sixfold.balancing.choice import choose
from sixfold.balancing.divide import Division, behind, level_of, locality_of_member, say_places
from sixfold.balancing.health import NEVER_ASKED
from sixfold.balancing.labels import LabelIndex
from sixfold.balancing.members import (
    IPAddress,
    Member,
    address_of,
    is_ready,
    members_of,
    panics,
    place_of,
    takes_new,
    target_port,
    weight_now,
)
from sixfold.balancing.plan import division_of
from sixfold.balancing.ways import ways
from sixfold.balancing.written import by_service, written_members
from sixfold.model.datapath import PROTOCOL_NUMBERS
from sixfold.model.locality import Here, failover_of
from sixfold.model.seen import NOTHING_SEEN, PortKey, Seen
from sixfold.model.service import Service, ServicePort
from sixfold.model.world import World

# Connections open now and ever, by address, port and protocol; (0, 0) for what is not known.
Loads = Callable[[IPAddress, int, int], tuple[int, int]]


class Shown(NamedTuple):
    """One backend of one frontend."""

    endpoint: str
    address: IPAddress
    port: int
    state: str
    detail: str  # why it is not healthy
    weight: int
    connections: int
    total: int
    locality: str
    priority: int | None  # 0 is the first; None: there are none


def list_frontends(
    world: World,
    loads: Loads,
    namespace: str = "",
    name: str = "",
    lifetime_s: Callable[[PortKey], float] = lambda _: 0.0,
) -> Iterator[Mapping[str, Any]]:
    """One mapping per service address and port, in order of services; "" is all of them."""
    here = world.config.here
    index, written = LabelIndex.of(world.endpoints), by_service(world.slices)
    for key, service in sorted(world.services.items()):
        meta = service.metadata
        if namespace not in ("", meta.namespace) or name not in ("", meta.name):
            continue
        pods = index.selected_by(service)
        members: list[Member] = [*pods, *written_members(written.get(key, ()))]
        seen = world.seen.get(key, NOTHING_SEEN)
        for way in ways(service):
            for dialled, port in way.ports:
                choice = choose(service, port, seen)
                there = behind(service, members, here) if way.flags else members
                division = division_of(service, port, there, way.address, seen, here)
                backends = [
                    *_backends(service, port, there, division, way.address, loads, here, seen)
                ]
                yield {
                    "service": key,
                    "type": way.kind,
                    "address": str(way.address),
                    "port": dialled,
                    "name": port.name,
                    "protocol": port.protocol,
                    "algorithm": choice.algorithm.title,
                    "why": choice.why,
                    "table_size": choice.table_size,
                    "lifetime_s": round(lifetime_s((key, port.port, port.protocol)), 1),
                    "places": [asdict(level) for level in division.levels],
                    "near": say_places(service, division),
                    "affinity_s": service.spec.affinity_s,
                    "panic": panics(service, members, seen),
                    "connections": sum(one.connections for one in backends),
                    "backends": [
                        {**one._asdict(), "address": str(one.address)} for one in backends
                    ],
                }


def state_of(service: Service, endpoint: Member, seen: Seen = NOTHING_SEEN) -> str:
    """active, or why it gets no new connections: a terminating one only when all of them are.

    Whoever is active may yet stand by: others are nearer.
    """
    place = place_of(endpoint)
    if not is_ready(service, endpoint):
        return "terminating" if endpoint.terminating else "not ready"
    if endpoint.drained:
        return "draining"
    if not endpoint.weight:
        return "maintenance"
    if place in seen.unhealthy:
        return "unhealthy"
    return "slow start" if place in seen.ramps else "active"


def panicking(world: World, services: Iterable[str]) -> Iterator[str]:
    """Which of these use everybody because too few are healthy."""
    for key in services:
        service, seen = world.services[key], world.seen.get(key, NOTHING_SEEN)
        members = members_of(world, service, key)
        if NEVER_ASKED in seen.unhealthy.values():
            continue  # in a moment it is known
        if members and panics(service, members, seen):
            healthy = sum(takes_new(service, one, seen) for one in members)
            yield f"{key}: {healthy} of {len(members)} healthy, all are used"


def _backends(
    service: Service,
    port: ServicePort,
    members: Sequence[Member],
    division: Division,
    frontend: IPAddress,
    loads: Loads,
    here: Here,
    seen: Seen,
) -> Iterator[Shown]:
    protocol = PROTOCOL_NUMBERS[port.protocol]
    failover = failover_of(service.metadata.annotations)
    chosen = {id(member) for member, _ in division.shares}
    for endpoint in members:
        address = address_of(endpoint, "IPv4" if frontend.version == 4 else "IPv6")
        number = target_port(port, endpoint)
        if address is not None and number is not None:
            connections, total = loads(address, number, protocol)
            state = state_of(service, endpoint, seen)
            if state == "active" and id(endpoint) not in chosen:
                state = "standby"
            yield Shown(
                endpoint.key,
                address,
                number,
                state,
                seen.unhealthy.get(place_of(endpoint) or address, ""),
                weight_now(endpoint, seen),
                connections,
                total,
                str(locality_of_member(endpoint, here)),
                level_of(endpoint, here, failover)[0] if failover else None,
            )
