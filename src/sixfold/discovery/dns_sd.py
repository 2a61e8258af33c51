"""DNS-SD: services to browse for, under a domain of their own.

Pure. Source: RFC 6763, over unicast (§11). A type is the name of a port, as in Kubernetes' SRV
names: ``_http._tcp``. An instance is a Service, ``shop/web``, at its cluster address; of a headless
one each ready endpoint, ``shop/db/db-0``. A label has no room for more than 63 bytes: longer names
are not listed. Targets lie below the same domain, because browsers (avahi) ask nobody but mDNS for
``.local``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from sixfold.balancing.members import cluster_addresses
from sixfold.discovery.vouched import SpiffeIds
from sixfold.discovery.zone import RecordKey, Zone, dashed
from sixfold.model.service import EndpointSlice, Service, SliceEndpoint

PATH = "sixfold.dev/dns-sd-path"  # annotation of a Service: where its pages are, for browsers
LABEL_MAX = 63
STRING_MAX = 255  # of a TXT record
BROWSE = ("b", "lb", "db")  # to browse; to browse unasked; by default

Line = tuple[str, str, str]  # name, type, rdata


def domain_records(alias: str, domain: str) -> Zone:
    """What to browse: asked below the alias itself, or below the cluster's domain."""
    return {
        RecordKey(f"{kind}._dns-sd._udp.{parent}", "PTR"): (f"{alias}.",)
        for kind in BROWSE
        for parent in (alias, domain)
    } | {RecordKey(alias, "NS"): (f"ns.dns.{domain}.",)}


def service_records(
    service: Service, slices: Sequence[EndpointSlice], alias: str, ids: SpiffeIds
) -> Zone:
    """Instances of one service, with the names that they point to."""
    if service.spec.type == "ExternalName":
        return {}
    if service.spec.headless:
        found = _headless(service, slices, alias, ids)
    else:
        found = _balanced(service, alias, ids.of_all(service.metadata.namespace, slices))
    records: dict[RecordKey, dict[str, None]] = {}
    for name, type_, rdata in found:
        records.setdefault(RecordKey(name.lower(), type_), {})[rdata] = None
    return {key: tuple(rdata) for key, rdata in records.items()}


def _balanced(service: Service, alias: str, spiffe: str) -> Iterator[Line]:
    meta, addresses = service.metadata, cluster_addresses(service)
    target = f"{meta.name}.{meta.namespace}.svc.{alias}"
    for address in addresses:
        yield target, _address_type(str(address)), str(address)
    for port in service.spec.ports if addresses else ():
        if port.name:
            where = f"0 0 {port.port} {target}."
            label = f"{meta.namespace}/{meta.name}"
            type_ = _type(port.name, port.protocol, alias)
            yield from _instance(label, type_, where, service, spiffe)


def _headless(
    service: Service, slices: Sequence[EndpointSlice], alias: str, ids: SpiffeIds
) -> Iterator[Line]:
    meta, unready = service.metadata, service.spec.publish_not_ready_addresses
    for slice_ in slices:
        for endpoint in slice_.endpoints if slice_.address_type != "FQDN" else ():
            if not (endpoint.conditions.ready or unready):
                continue
            text = endpoint.addresses[0]
            host = endpoint.hostname or _called(endpoint) or dashed(ip_address(text))
            target = f"{host}.{meta.name}.{meta.namespace}.svc.{alias}"
            yield target, _address_type(text), text
            spiffe = ids.of(meta.namespace, endpoint)
            for port in slice_.ports:
                if port.name and port.port:
                    where = f"0 0 {port.port} {target}."
                    label = f"{meta.namespace}/{meta.name}/{host}"
                    type_ = _type(port.name, port.protocol, alias)
                    yield from _instance(label, type_, where, service, spiffe)


def _called(endpoint: SliceEndpoint) -> str:
    """The pod's name as one label, so that it is one instance with both its addresses."""
    target = endpoint.target_ref
    return target.name.replace(".", "-") if target and target.kind == "Pod" else ""


def _type(port: str, protocol: str, alias: str) -> str:
    """RFC 6763 §7: every other protocol than TCP goes by ``_udp``."""
    return f"_{port}._{'tcp' if protocol == 'TCP' else 'udp'}.{alias}".lower()


def _instance(label: str, type_: str, where: str, service: Service, spiffe: str) -> Iterator[Line]:
    if len(label) > LABEL_MAX:
        return
    name = f"{label}.{type_}".lower()
    path = service.metadata.annotations.get(PATH)
    _, _, alias = type_.split(".", 2)
    yield f"_services._dns-sd._udp.{alias}", "PTR", f"{type_}."
    yield type_, "PTR", f"{name}."
    yield name, "SRV", where.lower()
    port = type_.partition(".")[0].removeprefix("_")
    said = {"port": port, "path": path, "spiffe": spiffe}
    strings = (f"{key}={value}" for key, value in said.items() if value)
    yield name, "TXT", " ".join(f'"{one}"' for one in strings if len(one) <= STRING_MAX)


def _address_type(text: str) -> str:
    return "AAAA" if ":" in text else "A"
