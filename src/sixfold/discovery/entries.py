"""What hosts of ServiceEntries with endpoints are to pods: names of ours, though of no zone.

Pure. See ``model.entries``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from sixfold.discovery.globalnames import PlannedName, PlannedRegion, Side
from sixfold.model.domain import plain_name
from sixfold.model.entries import name_of, placed
from sixfold.model.service import Service
from sixfold.model.serviceentry import ServiceEntry
from sixfold.model.world import World

TTL_S = 30


def entry_names(entries: Mapping[str, ServiceEntry]) -> Iterator[PlannedName]:
    """What pods are told of their hosts; the world is told nothing."""
    for _, entry in placed(entries):
        told = entry.spec.addresses or [one.address for one in entry.spec.endpoints]
        inside = Side(tuple(str(ip_address(one)) for one in told), True)
        region = PlannedRegion(entry.metadata.name, 1, (), inside, Side())
        for host in entry.spec.hosts:
            yield PlannedName(plain_name(host), "Weighted", TTL_S, (region,))


def service_of_host(world: World, host: str) -> tuple[str, Service] | None:
    """The entry, and what it is as a Service."""
    for key, entry in placed(world.service_entries):
        if host in map(plain_name, entry.spec.hosts):
            service = world.services.get(f"{entry.metadata.namespace}/{name_of(entry)}")
            return (key, service) if service is not None else None
    return None
