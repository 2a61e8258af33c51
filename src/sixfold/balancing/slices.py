"""EndpointSlices of one service: who serves it. Those of pods are derived; written ones stay as
they are, behind them.

One slice per address family, and where a named targetPort means different numbers in different
pods, one per set of numbers. Kubernetes also splits at 100 endpoints, to spare watchers; nobody
watches over a network here, so a slice holds all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sixfold.balancing.divide import hints_of, locality_of_member
from sixfold.balancing.members import addresses_of, families, is_ready, target_port, target_ports
from sixfold.model.endpoint import Endpoint
from sixfold.model.locality import NO_NODE, Here
from sixfold.model.meta import ObjectMeta
from sixfold.model.place import address_text
from sixfold.model.service import (
    MANAGER,
    MANAGER_LABEL,
    SERVICE_LABEL,
    EndpointConditions,
    EndpointHints,
    EndpointSlice,
    ForNode,
    ForZone,
    IPFamily,
    ObjectReference,
    Service,
    SliceEndpoint,
    SlicePort,
)

HEADLESS_LABEL = "service.kubernetes.io/headless"

PortNumbers = tuple[int | None, ...]  # in the order of the service's ports; None: pod lacks it


def slices_of(
    service: Service, endpoints: Sequence[Endpoint], here: Here = NO_NODE
) -> tuple[EndpointSlice, ...]:
    """All slices of a service; ``endpoints`` are those it selects, in order."""
    if not service.spec.selector or service.spec.type == "ExternalName":
        return ()
    by_ports = _by_ports(service, endpoints)
    return tuple(
        [
            _slice(service, family, numbers, members, here)
            for family in families(service)
            for numbers, members in sorted(by_ports.items(), key=_port_order)
            if any(addresses_of(members, family))
        ]
    )


def _by_ports(
    service: Service, endpoints: Sequence[Endpoint]
) -> Mapping[PortNumbers, Sequence[Endpoint]]:
    """Endpoints by the numbers that the service's ports have there."""
    if not endpoints:
        return {}
    if not any(isinstance(port.target_port, str) for port in service.spec.ports):
        return {tuple([target_port(port, endpoints[0]) for port in service.spec.ports]): endpoints}
    found: dict[PortNumbers, list[Endpoint]] = {}
    columns = [target_ports(port, endpoints) for port in service.spec.ports]
    for endpoint, numbers in zip(endpoints, zip(*columns, strict=True), strict=True):
        found.setdefault(numbers, []).append(endpoint)
    return found


def _port_order(item: tuple[PortNumbers, Sequence[Endpoint]]) -> tuple[int, ...]:
    return tuple(number or 0 for number in item[0])


def _slice(
    service: Service,
    family: IPFamily,
    numbers: PortNumbers,
    members: Sequence[Endpoint],
    here: Here,
) -> EndpointSlice:
    labels = {SERVICE_LABEL: service.metadata.name, MANAGER_LABEL: MANAGER}
    if service.spec.headless:
        labels[HEADLESS_LABEL] = ""
    owner = {"apiVersion": "v1", "kind": "Service", "name": service.metadata.name}
    return EndpointSlice(
        metadata=ObjectMeta(
            name=_slice_name(service, family, numbers),
            namespace=service.metadata.namespace,
            labels=labels,
            creation_timestamp=service.metadata.creation_timestamp,
            owner_references=[{**owner, "uid": service.metadata.uid, "controller": True}],
        ),
        address_type=family,
        endpoints=[
            _slice_endpoint(service, member, address_text(address), here)
            for member, address in zip(members, addresses_of(members, family), strict=True)
            if address
        ],
        ports=[
            SlicePort(
                name=port.name, port=number, protocol=port.protocol, app_protocol=port.app_protocol
            )
            for port, number in zip(service.spec.ports, numbers, strict=True)
            if number is not None
        ],
    )


def _slice_name(service: Service, family: IPFamily, numbers: PortNumbers) -> str:
    """Stable while the service stands: numbers are in it as soon as they may differ by pod."""
    name = f"{service.metadata.name}-{family.lower()}"
    if any(isinstance(port.target_port, str) for port in service.spec.ports):
        name += "".join(f"-{number or 0}" for number in numbers)
    return name


def _slice_endpoint(
    service: Service, endpoint: Endpoint, address: str, here: Here
) -> SliceEndpoint:
    # Kubernetes publishes a pod's hostname only under the service that its subdomain names.
    named = endpoint.hostname and endpoint.subdomain == service.metadata.name
    return SliceEndpoint(
        addresses=[address],
        conditions=EndpointConditions(
            is_ready(service, endpoint), endpoint.ready or endpoint.serving, endpoint.terminating
        ),
        hostname=endpoint.hostname if named else None,
        node_name=endpoint.node or None,
        zone=locality_of_member(endpoint, here).zone or None,
        hints=_hints(service, endpoint, here) if service.spec.traffic_distribution else None,
        target_ref=ObjectReference("Pod", endpoint.namespace, endpoint.pod),
    )


def _hints(service: Service, endpoint: Endpoint, here: Here) -> EndpointHints | None:
    nodes, zones = hints_of(service, endpoint, here)
    if not nodes and not zones:
        return None
    return EndpointHints([ForZone(one) for one in zones], [ForNode(one) for one in nodes])
