"""Where are external services that say it themselves: ServiceEntries with endpoints.

Pure. Such an entry is a Service of nobody's pods, named as its first host: its addresses are the
Service's, its endpoints are those of written slices. So the kernel balances it, policy is asked
about the endpoint, and flows name it, as of any Service. Without addresses the name itself leads
to the endpoints (headless). Each host is a name that only the cluster resolver answers, and never
asks upstream for; to policy it has resolved to the endpoints, whether anybody asked or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from sixfold.model.algorithm import WEIGHT
from sixfold.model.datapath import IPAddress
from sixfold.model.domain import plain_name
from sixfold.model.meta import ObjectMeta
from sixfold.model.service import (
    SERVICE_LABEL,
    EndpointSlice,
    ObjectReference,
    Service,
    ServicePort,
    ServiceSpec,
    SliceEndpoint,
    SlicePort,
)
from sixfold.model.serviceentry import SERVICE_ENTRY, EntryPort, ServiceEntry, WorkloadEntry

Entries = Mapping[str, ServiceEntry]


def entry_services(entries: Entries) -> dict[str, Service]:
    """By ``namespace/host``, which is the name of no Service that somebody wrote; of several
    entries the first by name."""
    found: dict[str, Service] = {}
    for _, entry in placed(entries):
        meta, addresses = entry.metadata, entry.spec.addresses or ["None"]
        name = name_of(entry)
        spec = ServiceSpec(
            ports=[
                ServicePort(port=one.number, name=one.name, target_port=one.target_port)
                for one in entry.spec.ports
            ],
            cluster_ip=addresses[0],
            cluster_ips=addresses,
        )
        own = ObjectMeta(name=name, namespace=meta.namespace, annotations=meta.annotations)
        found.setdefault(f"{meta.namespace}/{name}", Service(metadata=own, spec=spec))
    return found


def entry_slices(entries: Entries) -> dict[str, EndpointSlice]:
    """One for each endpoint: each has ports and a weight of its own."""
    return {
        f"{entry.metadata.namespace}/{entry.metadata.name}:{at}": _slice(entry, at, one)
        for _, entry in placed(entries)
        for at, one in enumerate(entry.spec.endpoints)
    }


def entry_domains(entries: Entries) -> dict[str, frozenset[IPAddress]]:
    """Where hosts are, as if they had resolved to it."""
    found: dict[str, frozenset[IPAddress]] = {}
    for _, entry in placed(entries):
        there = frozenset(ip_address(one.address) for one in entry.spec.endpoints)
        for host in map(plain_name, entry.spec.hosts):
            found[host] = found.get(host, frozenset()) | there
    return found


def merged(
    resolved: Mapping[str, frozenset[IPAddress]], said: Mapping[str, frozenset[IPAddress]]
) -> dict[str, frozenset[IPAddress]]:
    """What names have resolved to, and what entries say of them."""
    return {**resolved, **{name: resolved.get(name, frozenset()) | it for name, it in said.items()}}


def placed(entries: Entries) -> Iterator[tuple[str, ServiceEntry]]:
    for key, entry in sorted(entries.items()):
        if entry.spec.resolution == "STATIC":
            yield key, entry


def name_of(entry: ServiceEntry) -> str:
    return plain_name(entry.spec.hosts[0])


def _slice(entry: ServiceEntry, at: int, one: WorkloadEntry) -> EndpointSlice:
    name, address = name_of(entry), ip_address(one.address)
    weight = {} if one.weight is None else {WEIGHT: str(one.weight)}
    refers = ObjectReference(kind=SERVICE_ENTRY, name=entry.metadata.name)
    return EndpointSlice(
        metadata=ObjectMeta(
            name=f"{entry.metadata.name}:{at}",
            namespace=entry.metadata.namespace,
            labels={SERVICE_LABEL: name},
            annotations=weight,
        ),
        address_type="IPv4" if address.version == 4 else "IPv6",
        endpoints=[SliceEndpoint([str(address)], target_ref=refers)],
        ports=[SlicePort(port.name, _port(port, one)) for port in entry.spec.ports],
    )


def _port(port: EntryPort, one: WorkloadEntry) -> int:
    """Of the endpoint; of HTTP the proxy goes on to ``targetPort`` itself, where it has a part."""
    if port.protocol == "HTTP":
        return port.number
    return one.ports.get(port.name, port.target_port or port.number)
