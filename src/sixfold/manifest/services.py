"""What is wrong with a Service, beyond its shape. Source: core/v1 validation of Service."""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.manifest import names
from sixfold.manifest.health import health
from sixfold.manifest.metadata import between, labels, refused_values, said
from sixfold.manifest.outside import ways_in
from sixfold.manifest.path import Finding, Path
from sixfold.model.locality import FAILBACK, FAILOVER, OVERPROVISIONING
from sixfold.model.service import Service, ServicePort, ServiceSpec

_SPEC: Path = ("spec",)
_DAY_S = 86400


def service(obj: Service, *, offline: bool) -> Iterator[Finding]:
    """Findings about the spec. Offline, the ways in from outside are taken, and not looked at."""
    spec = obj.spec
    if not offline:
        yield from ways_in(obj)
    yield from refused_values(_SPEC, spec, offline=offline)
    yield from labels((*_SPEC, "selector"), spec.selector)
    yield from _alias(spec, offline=offline)
    yield from _ports(spec, offline=offline)
    yield from _addresses(spec)
    yield from _families(spec)
    yield from _affinity(spec)
    yield from health(obj)
    yield from _places(obj)


def _alias(spec: ServiceSpec, *, offline: bool) -> Iterator[Finding]:
    """An alias has a name, and nothing that would be balanced."""
    path = (*_SPEC, "externalName")
    if spec.type != "ExternalName":
        if spec.external_name and not offline:
            message = "means nothing without type ExternalName; remove it"
            yield Finding(path, message, also=((*_SPEC, "type"),))
        return
    name = spec.external_name.removesuffix(".").lower()
    if not name:
        yield Finding(path, "is required for type ExternalName; give a DNS name")
    elif not isinstance(names.address(name), str):
        message = f"{name} is an address, and would be looked up as a name; give an EndpointSlice"
        yield Finding(path, f"{message} for a Service without selector")
    else:
        yield from said(path, names.dns_subdomain(name))
    if offline:
        return
    balanced = {
        "selector": spec.selector,
        "clusterIP": spec.cluster_ip,
        "clusterIPs": spec.cluster_ips,
        "ipFamilies": spec.ip_families,
        "ipFamilyPolicy": spec.ip_family_policy,
        "sessionAffinity": spec.affinity_s,
        "internalTrafficPolicy": spec.internal_traffic_policy == "Local",
        "publishNotReadyAddresses": spec.publish_not_ready_addresses,
    }
    for field in (field for field, value in balanced.items() if value):
        message = "means nothing for type ExternalName, which is an alias; remove it"
        yield Finding((*_SPEC, field), message, also=((*_SPEC, "type"),))


def _ports(spec: ServiceSpec, *, offline: bool) -> Iterator[Finding]:
    path = (*_SPEC, "ports")
    if not spec.ports and not spec.headless and spec.type != "ExternalName":
        yield Finding(path, "is required; add a port", also=((*_SPEC, "clusterIP"),))
    first_by_name: dict[str, int] = {}
    first_by_number: dict[tuple[int, str], int] = {}
    for index, port in enumerate(spec.ports):
        here = (*path, index)
        yield from refused_values(here, port, offline=offline)
        yield from _port(here, port)
        if port.protocol == "SCTP" and not (spec.headless or offline):
            message = "SCTP: the kernel asks nobody where such sockets connect to"
            yield Finding((*here, "protocol"), f"{message}; make the service headless")
        if len(spec.ports) > 1 and not port.name:
            yield Finding((*here, "name"), "is required when there are several ports; add it")
        if port.name and (first := first_by_name.setdefault(port.name, index)) != index:
            message = f"{names.quoted(port.name)} is the name of ports[{first}] too; give another"
            yield Finding((*here, "name"), message)
        number = (port.port, port.protocol)
        if (first := first_by_number.setdefault(number, index)) != index:
            message = f"{port.port}/{port.protocol} is ports[{first}] too; give another"
            yield Finding((*here, "port"), message, also=((*here, "protocol"),))


def _port(path: Path, port: ServicePort) -> Iterator[Finding]:
    yield from said((*path, "port"), names.port_number(port.port))
    if port.name:
        yield from said((*path, "name"), names.dns_label(port.name))
    if port.target_port is not None:
        yield from said((*path, "targetPort"), names.port(port.target_port))


def _addresses(spec: ServiceSpec) -> Iterator[Finding]:
    path = (*_SPEC, "clusterIPs")
    if spec.cluster_ip and spec.cluster_ip != "None":
        yield from _address((*_SPEC, "clusterIP"), spec.cluster_ip)
    if spec.cluster_ip and spec.cluster_ips and spec.cluster_ip != spec.cluster_ips[0]:
        message = f"is not clusterIP, which is {names.quoted(spec.cluster_ip)}; make them equal"
        yield Finding((*path, 0), message, also=((*_SPEC, "clusterIP"),))
    if len(spec.cluster_ips) > 2:
        yield Finding(path, "more than two addresses; give one per family")
    if "None" in spec.cluster_ips:
        if len(spec.cluster_ips) > 1:
            yield Finding(path, '"None" stands alone; remove the others')
        return
    versions = []
    for index, text in enumerate(spec.cluster_ips):
        yield from _address((*path, index), text)
        versions.append(_version(text))
    if len(versions) == 2 and versions[0] == versions[1] != 0:
        yield Finding((*path, 1), "is of the same family as the first; give one per family")


def _families(spec: ServiceSpec) -> Iterator[Finding]:
    path = (*_SPEC, "ipFamilies")
    families = spec.ip_families
    if len(set(families)) != len(families):
        yield Finding(path, "the same family twice; keep one")
    if len(families) > 1 and spec.ip_family_policy in (None, "SingleStack"):
        message = "two families need ipFamilyPolicy PreferDualStack or RequireDualStack; set it"
        yield Finding(path, message, also=((*_SPEC, "ipFamilyPolicy"),))
    given = spec.cluster_ips or [spec.cluster_ip]
    two = len(given) == 2 and {*map(_version, given)} == {4, 6}
    if two and spec.ip_family_policy in (None, "SingleStack"):
        message = "two addresses need PreferDualStack or RequireDualStack; set it, or give one"
        yield Finding((*_SPEC, "ipFamilyPolicy"), message)
    for index, (text, family) in enumerate(zip(given, families, strict=False)):
        version = _version(text)
        if version and f"IPv{version}" != family:
            message = f"{family}, but the address there is {text}; make them agree"
            yield Finding((*path, index), message)


def _affinity(spec: ServiceSpec) -> Iterator[Finding]:
    path = (*_SPEC, "sessionAffinityConfig")
    config = spec.session_affinity_config
    if config is None:
        return
    if spec.session_affinity == "None":
        message = "means nothing without sessionAffinity ClientIP; remove it"
        yield Finding(path, message, also=((*_SPEC, "sessionAffinity"),))
    here = (*path, "clientIP", "timeoutSeconds")
    yield from between(here, config.client_ip.timeout_seconds, 1, _DAY_S)


def _places(obj: Service) -> Iterator[Finding]:
    """Priorities of places, or whoever is near: not both; and nothing about them alone."""
    annotations = obj.metadata.annotations
    if FAILOVER not in annotations:
        for key in (OVERPROVISIONING, FAILBACK):
            if key in annotations:
                message = f"means nothing without {FAILOVER}; remove it"
                yield Finding(("metadata", "annotations", key), message)
        return
    rules = {
        "trafficDistribution": obj.spec.traffic_distribution,
        "internalTrafficPolicy": obj.spec.internal_traffic_policy == "Local",
    }
    for field in (field for field, value in rules.items() if value):
        message = f"is another rule than the annotation {FAILOVER}; keep one of them"
        yield Finding((*_SPEC, field), message)


def _address(path: Path, text: str) -> Iterator[Finding]:
    parsed = names.address(text)
    if isinstance(parsed, str):
        yield Finding(path, f'{parsed}; give one, or "None" for a headless service')
    elif names.is_special(parsed):
        yield Finding(path, f"{text} cannot be a service address; give one of the service range")


def _version(text: str) -> int:
    parsed = names.address(text) if text else ""
    return 0 if isinstance(parsed, str) else parsed.version
