"""What is wrong with an EndpointSlice that somebody wrote, beyond its shape.

Source: discovery.k8s.io/v1 validation. What kube-proxy would skip over in silence is refused here:
ports without a number, addresses beyond the first, names instead of addresses.
"""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.manifest import names
from sixfold.manifest.metadata import refused_values, said
from sixfold.manifest.path import Finding, Path
from sixfold.model.service import (
    DERIVING,
    MANAGER_LABEL,
    REGISTRATIONS,
    SERVICE_LABEL,
    EndpointHints,
    EndpointSlice,
    SliceEndpoint,
    SlicePort,
)

ENDPOINTS_MAX, PORTS_MAX, HINTS_MAX = 1000, 100, 8


def endpoint_slice(obj: EndpointSlice, *, offline: bool) -> Iterator[Finding]:
    """Findings. Offline, what a cluster derived is there too, and is left to ``offline``; so are
    registrations, which say who is there as a slice of a user's would."""
    if offline and (obj.derived or obj.address_type == "FQDN"):
        return
    label: Path = ("metadata", "labels", MANAGER_LABEL)
    manager = obj.metadata.labels.get(MANAGER_LABEL)
    if not offline and manager in (*DERIVING, REGISTRATIONS):
        message = "makes its slices anew from Services and pods; remove the slice"
        yield Finding(label, f"{names.quoted(manager)} {message}, or this label")
    if not obj.service and not offline:
        message = "is required, the slice belongs to no service; give the service's name"
        yield Finding(("metadata", "labels", SERVICE_LABEL), message)
    if obj.address_type == "FQDN":
        message = "names are not dialled; give addresses, or a Service of type ExternalName"
        yield Finding(("addressType",), f"FQDN: {message}")
        return
    if len(obj.endpoints) > ENDPOINTS_MAX:
        message = f"{len(obj.endpoints)} endpoints; give at most {ENDPOINTS_MAX} in a slice"
        yield Finding(("endpoints",), message)
    for index, endpoint in enumerate(obj.endpoints):
        yield from _endpoint(("endpoints", index), endpoint, obj.address_type)
    yield from _ports(obj.ports)


def _endpoint(path: Path, endpoint: SliceEndpoint, family: str) -> Iterator[Finding]:
    if not endpoint.addresses:
        yield Finding((*path, "addresses"), "is empty; give an address")
    for index, text in enumerate(endpoint.addresses[:1]):
        yield from _address((*path, "addresses", index), text, family)
    if len(endpoint.addresses) > 1:
        message = "only the first would be dialled; make each an endpoint of its own"
        yield Finding((*path, "addresses", 1), message)
    yield from refused_values(path, endpoint, offline=False)
    if endpoint.hostname is not None:
        yield from said((*path, "hostname"), names.dns_label(endpoint.hostname))
    if endpoint.node_name is not None:
        yield from said((*path, "nodeName"), names.dns_subdomain(endpoint.node_name))
    if endpoint.zone is not None:
        yield from said((*path, "zone"), names.label_value(endpoint.zone))
    if endpoint.hints is not None:
        yield from _hints((*path, "hints"), endpoint.hints)


def _hints(path: Path, hints: EndpointHints) -> Iterator[Finding]:
    zones = [zone.name for zone in hints.for_zones]
    nodes = [node.name for node in hints.for_nodes]
    for field, named in (("forZones", zones), ("forNodes", nodes)):
        if len(named) > HINTS_MAX:
            yield Finding((*path, field), f"{len(named)} of them; give at most {HINTS_MAX}")
        for index, name in enumerate(named):
            wrong = names.label_value(name) if name else "is required; give a name"
            yield from said((*path, field, index, "name"), wrong)


def _address(path: Path, text: str, family: str) -> Iterator[Finding]:
    parsed = names.address(text)
    if isinstance(parsed, str):
        yield Finding(path, f"{parsed}; give one")
    elif f"IPv{parsed.version}" != family:
        message = f"{text} is no {family} address; make a slice for each family"
        yield Finding(path, message, also=(("addressType",),))
    elif names.is_special(parsed):
        yield Finding(path, f"{text} is nobody that a pod could dial; give a unicast address")


def _ports(ports: list[SlicePort]) -> Iterator[Finding]:
    if len(ports) > PORTS_MAX:
        yield Finding(("ports",), f"{len(ports)} ports; give at most {PORTS_MAX} in a slice")
    first_by_name: dict[str, int] = {}
    for index, port in enumerate(ports):
        here: Path = ("ports", index)
        if port.port is None:
            yield Finding((*here, "port"), "is required: nobody would be dialled; give the number")
        else:
            yield from said((*here, "port"), names.port_number(port.port))
        if port.name:
            yield from said((*here, "name"), names.dns_label(port.name))
        if (first := first_by_name.setdefault(port.name or "", index)) != index:
            message = f"{names.quoted(port.name or '')} is the name of ports[{first}] too"
            yield Finding((*here, "name"), f"{message}; give another")
