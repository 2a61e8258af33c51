"""What is wrong with a GlobalName, beyond its shape."""

from __future__ import annotations

from collections.abc import Iterator

from sixfold.manifest import names
from sixfold.manifest.metadata import between, said
from sixfold.manifest.path import Finding, Path
from sixfold.model.globalname import GlobalName, Region, RegionCheck

_SPEC: Path = ("spec",)
REGIONS_MAX, ADDRESSES_MAX, SUBNETS_MAX = 64, 16, 4096


def global_name(obj: GlobalName) -> Iterator[Finding]:
    """Findings about the spec."""
    spec = obj.spec
    here = (*_SPEC, "hostname")
    yield from said(here, names.dns_subdomain(spec.hostname))
    if "." not in spec.hostname:
        yield Finding(here, f"{names.quoted(spec.hostname)} is one label; give a name with a dot")
    elif f".{spec.hostname}".endswith(".local"):
        yield Finding(here, "is below .local, which is the cluster's and mDNS'; give another")
    yield from between((*_SPEC, "ttlSeconds"), spec.ttl_seconds, 1, 3600)
    if spec.health_check is not None:
        yield from _check((*_SPEC, "healthCheck"), spec.health_check)
    if not 1 <= len(spec.regions) <= REGIONS_MAX:
        yield Finding((*_SPEC, "regions"), f"give 1 to {REGIONS_MAX} regions")
    seen: set[str] = set()
    for index, region in enumerate(spec.regions):
        path = (*_SPEC, "regions", index)
        if region.name in seen:
            message = f"{names.quoted(region.name)} is there already; give another"
            yield Finding((*path, "name"), message)
        seen.add(region.name)
        yield from _region(path, region, spec.policy)


def _region(path: Path, region: Region, policy: str) -> Iterator[Finding]:
    yield from said((*path, "name"), names.dns_label(region.name))
    yield from between((*path, "weight"), region.weight, 0, 1000)
    if not region.addresses and region.service is None:
        yield Finding((*path, "addresses"), "is empty, and there is no service; give one of them")
    if len(region.addresses) > ADDRESSES_MAX:
        yield Finding((*path, "addresses"), f"give at most {ADDRESSES_MAX}")
    for index, text in enumerate(region.addresses):
        here = (*path, "addresses", index)
        address = names.address(text)
        if isinstance(address, str):
            yield Finding(here, f"{address}; give an IP address")
        elif address.is_unspecified or address.is_multicast:
            yield Finding(here, f"{text} is nobody's address; give that of a server")
    if region.service is not None:
        yield from said((*path, "service", "name"), names.dns_label(region.service.name))
        yield from said((*path, "service", "namespace"), names.dns_label(region.service.namespace))
    if region.client_subnets and policy != "Geography":
        message = f"means nothing with policy {policy}; remove it, or give policy: Geography"
        yield Finding((*path, "clientSubnets"), message)
    if len(region.client_subnets) > SUBNETS_MAX:
        yield Finding((*path, "clientSubnets"), f"give at most {SUBNETS_MAX}")
    for index, text in enumerate(region.client_subnets):
        network = names.cidr(text)
        if isinstance(network, str):
            yield Finding((*path, "clientSubnets", index), network)


def _check(path: Path, check: RegionCheck) -> Iterator[Finding]:
    actions = {"httpGet": check.http_get, "tcpSocket": check.tcp_socket, "grpc": check.grpc}
    given = [name for name, action in actions.items() if action is not None]
    if len(given) != 1:
        yield Finding(path, f"give exactly one of {', '.join(actions)}")
        return
    action = actions[given[0]]
    here = (*path, given[0])
    port = getattr(action, "port", 0)
    if not isinstance(port, int):
        yield Finding((*here, "port"), f"{names.quoted(port)} is a name; give a number")
    else:
        yield from said((*here, "port"), names.port_number(port))
    if getattr(action, "host", ""):
        yield Finding((*here, "host"), "each address is asked itself; remove it")
    yield from between((*path, "periodSeconds"), check.period_seconds, 1, 3600)
    yield from between((*path, "timeoutSeconds"), check.timeout_seconds, 1, 60)
    yield from between((*path, "successThreshold"), check.success_threshold, 1, 100)
    yield from between((*path, "failureThreshold"), check.failure_threshold, 1, 100)
