"""Endpoints that somebody wrote: of EndpointSlices, for what is no pod of ours.

They stand beside the pods that a service selects, and are asked the same questions. Source:
discovery.k8s.io/v1, as kube-proxy reads it: every slice that names the service counts, whoever
made it, and its ports are found by name and protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from sixfold.model.algorithm import weight_of
from sixfold.model.locality import NOWHERE, Locality, locality_of
from sixfold.model.service import EndpointSlice, SliceEndpoint

PortKey = tuple[str, str]  # name, protocol


@dataclass(frozen=True, slots=True)
class Written:
    """One endpoint of a written slice; ``key`` is what users call it, and need not be unique."""

    key: str
    ports: Mapping[PortKey, int]
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    weight: int = 1
    drained: bool = False
    hostname: str = ""
    node: str = ""
    locality: Locality = NOWHERE
    for_zones: frozenset[str] = frozenset()
    for_nodes: frozenset[str] = frozenset()


def by_service(slices: Mapping[str, EndpointSlice]) -> dict[str, list[EndpointSlice]]:
    """Slices by the service that they name, each list in order of their names."""
    found: dict[str, list[EndpointSlice]] = {}
    for _, one in sorted(slices.items()):
        found.setdefault(one.service, []).append(one)
    return found


def written_members(slices: Iterable[EndpointSlice]) -> list[Written]:
    """The endpoints of these slices, in order."""
    return [
        _member(one, endpoint)
        for one in slices
        if one.address_type != "FQDN"
        for endpoint in one.endpoints
    ]


def written_for(slices: Mapping[str, EndpointSlice], service: str) -> list[Written]:
    """Those of one service (``namespace/name``), when only one is asked for."""
    return written_members(one for _, one in sorted(slices.items()) if one.service == service)


def _member(one: EndpointSlice, endpoint: SliceEndpoint) -> Written:
    conditions, hints = endpoint.conditions, endpoint.hints
    place = locality_of(one.metadata.labels)
    address = ip_address(endpoint.addresses[0])
    return Written(
        key=name_of(one, endpoint),
        ports={(port.name or "", port.protocol): port.port for port in one.ports if port.port},
        ipv4=address if isinstance(address, IPv4Address) else None,
        ipv6=address if isinstance(address, IPv6Address) else None,
        ready=conditions.ready,
        serving=conditions.serves,
        terminating=conditions.terminating,
        weight=weight_of(one.metadata.annotations),
        hostname=endpoint.hostname or "",
        node=endpoint.node_name or "",
        locality=Locality(place.region, endpoint.zone) if endpoint.zone else place,
        for_zones=frozenset(zone.name for zone in hints.for_zones) if hints else frozenset(),
        for_nodes=frozenset(node.name for node in hints.for_nodes) if hints else frozenset(),
    )


def name_of(one: EndpointSlice, endpoint: SliceEndpoint) -> str:
    """What it refers to, else the slice: ``shop/Server/db-1``, ``shop/EndpointSlice/db``."""
    target, namespace = endpoint.target_ref, one.metadata.namespace
    if target is None or not target.name:
        return f"{namespace}/EndpointSlice/{one.metadata.name}"
    kind = "" if target.kind in ("", "Pod") else f"{target.kind}/"
    return f"{target.namespace or namespace}/{kind}{target.name}"
