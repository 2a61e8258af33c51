"""Zones for the world: what is told to resolvers outside, when a zone is delegated to the edge.

Pure. Source: CoreDNS's ``k8s_external`` (``service.namespace.zone``, and SRV of named ports), and
ExternalDNS's annotation for names of one's own choice. Told are Services that have an address
outside, of a load balancer or an external one: who gave it that has opened it to the world.
Nothing else of the cluster is there. In the cluster domain a name is what it is inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address

import msgspec

from sixfold.balancing.ways import balancer_addresses, external_addresses
from sixfold.discovery.zone import IPAddress, RecordKey, ZoneSettings, ZoneTree
from sixfold.model.config import Config
from sixfold.model.service import Service

HOSTNAME = "external-dns.alpha.kubernetes.io/hostname"  # one, or several with commas
Record = tuple[str, str, tuple[str, ...]]  # name, type, rdata


class OutsideZone(msgspec.Struct, frozen=True):
    """One zone, as the resolver's process needs it."""

    origin: str
    ttl_s: int
    records: tuple[Record, ...]
    serial: int = 1

    def tree(self) -> ZoneTree:
        """To look names up in."""
        records = {RecordKey(name, type_): rdata for name, type_, rdata in self.records}
        tree = ZoneTree(ZoneSettings((self.origin,), self.ttl_s), records)
        tree.serial = self.serial
        return tree


def plan_outside(config: Config, services: Mapping[str, Service]) -> tuple[OutsideZone, ...]:
    """The zones that ``up --dns-edge-zone`` names, with their records in order."""
    here = [ip_address(place.rpartition(":")[0].strip("[]")) for place in config.dns_edge]
    told = [
        (service, addresses)
        for _, service in sorted(services.items())
        if (addresses := addresses_outside(service))
    ]
    return tuple(
        OutsideZone(
            origin,
            config.dns_ttl_s,
            tuple(
                (*key, tuple(dict.fromkeys(rdata)))
                for key, rdata in sorted(_records(origin, config, told, here).items())
            ),
        )
        for origin in config.dns_edge_zones
    )


def addresses_outside(service: Service) -> tuple[IPAddress, ...]:
    return tuple(dict.fromkeys((*balancer_addresses(service), *external_addresses(service))))


def _records(
    origin: str,
    config: Config,
    told: Iterable[tuple[Service, Sequence[IPAddress]]],
    here: Iterable[IPAddress],
) -> dict[RecordKey, list[str]]:
    """The zone's own server first: where the edge listens."""
    records: dict[RecordKey, list[str]] = {RecordKey(origin, "NS"): [f"ns.dns.{origin}."]}
    _add(records, f"ns.dns.{origin}", here)
    parent = f"svc.{origin}" if origin == config.cluster_domain.lower() else origin
    for service, addresses in told:
        meta = service.metadata
        name = f"{meta.name}.{meta.namespace}.{parent}"
        _add(records, name, addresses)
        for port in service.spec.ports:
            if port.name:
                key = RecordKey(f"_{port.name}._{port.protocol}.{name}".lower(), "SRV")
                records.setdefault(key, []).append(f"0 100 {port.port} {name}.")
        for text in meta.annotations.get(HOSTNAME, "").split(","):
            chosen = text.strip().lower().rstrip(".")
            if chosen == origin or chosen.endswith(f".{origin}"):
                _add(records, chosen, addresses)
    return records


def _add(records: dict[RecordKey, list[str]], name: str, addresses: Iterable[IPAddress]) -> None:
    for address in addresses:
        key = RecordKey(name, "A" if address.version == 4 else "AAAA")
        records.setdefault(key, []).append(str(address))
