"""Discovery explained: what a name means to a pod of some namespace.

Walks the pod's search path as its libc does (ndots:5) and reads the world by the rules of
``plan.py``. Offline nobody has an address or was probed: a service is then found by name, and
its addresses are empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Literal

from sixfold.balancing.members import (
    Member,
    address_of,
    cluster_addresses,
    families,
    is_ready,
    selects,
)
from sixfold.balancing.written import Written, written_for
from sixfold.discovery.plan import alias_of
from sixfold.discovery.pod_files import NDOTS, search_path
from sixfold.discovery.zone import CHAIN_MAX, IPAddress, dashed
from sixfold.model.endpoint import Endpoint
from sixfold.model.service import Service
from sixfold.model.world import World

NameKind = Literal["service", "headless", "pod", "address", "external", "nxdomain"]


@dataclass(frozen=True, slots=True)
class NameAnswer:
    """``fqdn`` is the name that was found, or the last one tried; no final dot."""

    asked: str
    fqdn: str
    kind: NameKind
    addresses: tuple[IPAddress, ...]
    service: str | None  # "namespace/name"
    text: str
    endpoint: str | None = None  # "namespace/pod", when the name is one pod's


def explain_name(world: World, name: str, namespace: str) -> NameAnswer:
    """What a pod in ``namespace`` gets when it looks ``name`` up."""
    try:
        address = ip_address(name)
    except ValueError:
        pass
    else:
        return NameAnswer(name, name, "address", (address,), None, f"{name} is an address")
    tried = list(candidates(world, name.lower(), namespace))
    for fqdn in tried:
        if answer := _in_zone(world, name, fqdn):
            return answer
    bare = name.lower().rstrip(".")
    domain = world.config.cluster_domain
    if bare != domain and not bare.endswith(f".{domain}") and "." in bare:
        text = f"{name} is not a cluster name; asked upstream"
        return NameAnswer(name, bare, "external", (), None, text)
    text = f"{name}: no such name; tried {', '.join(tried)}"
    return NameAnswer(name, tried[-1], "nxdomain", (), None, text)


def candidates(world: World, name: str, namespace: str) -> Iterator[str]:
    """Absolute names in the order in which libc asks for them."""
    absolute = name.endswith(".")
    name = name.rstrip(".")
    searched = [f"{name}.{domain}" for domain in search_path(world.config, namespace)]
    if absolute:
        yield name
    elif name.count(".") >= NDOTS:
        yield from (name, *searched)
    else:
        yield from (*searched, name)


def _in_zone(world: World, asked: str, fqdn: str) -> NameAnswer | None:
    """The service or pod of an absolute name; None when it has no addresses to give."""
    suffix = f".svc.{world.config.cluster_domain}"
    if not fqdn.endswith(suffix):
        return None
    match fqdn.removesuffix(suffix).split("."):
        case [service_name, namespace]:
            host = ""
        case [host, service_name, namespace]:
            pass
        case _:
            return None
    service = world.services.get(f"{namespace}/{service_name}")
    if service is None:
        return None
    key = f"{namespace}/{service_name}"
    if service.spec.type == "ExternalName":
        return (
            None
            if host
            else _alias(world, service, NameAnswer(asked, fqdn, "external", (), key, ""))
        )
    if service.spec.headless:
        return _headless(world, service, host, NameAnswer(asked, fqdn, "headless", (), key, ""))
    if host:
        return None
    addresses = cluster_addresses(service)
    text = f"{asked} is service {key}: {_join(addresses) or 'address not yet allocated'}"
    return NameAnswer(asked, fqdn, "service", addresses, key, text)


def _alias(world: World, service: Service, answer: NameAnswer) -> NameAnswer:
    """What an alias leads to: another name of ours, or one that upstream knows."""
    said = f"{answer.asked} is service {answer.service}"
    for _ in range(CHAIN_MAX):
        target = alias_of(service)
        said += f", an alias of {target}"
        next_ = _service_of(world, target)
        if next_ is None or next_.spec.type != "ExternalName":
            break
        service = next_
    else:
        return replace(answer, kind="nxdomain", text=f"{said}: the chain does not end")
    if (found := _in_zone(world, target, target)) is not None:
        return replace(found, asked=answer.asked, text=f"{said}; {found.text}")
    domain = world.config.cluster_domain
    if target == domain or target.endswith(f".{domain}"):
        return replace(answer, kind="nxdomain", text=f"{said}, which does not exist")
    return replace(answer, fqdn=target, text=f"{said}; asked upstream")


def _service_of(world: World, fqdn: str) -> Service | None:
    name, _, rest = fqdn.removesuffix(f".svc.{world.config.cluster_domain}").partition(".")
    return world.services.get(f"{rest}/{name}")


def _headless(world: World, service: Service, host: str, answer: NameAnswer) -> NameAnswer | None:
    """Who is behind a headless service, or the one of them that ``host`` names."""
    pods: list[Member] = [
        endpoint
        for _, endpoint in sorted(world.endpoints.items())
        if selects(service, endpoint.namespace, endpoint.labels)
    ]
    members = [
        one
        for one in (*pods, *written_for(world.slices, answer.service or ""))
        if is_ready(service, one) or not _addressed(one)
    ]
    found: list[tuple[Member, IPAddress]] = []
    for family in families(service):
        for endpoint in members:
            address = address_of(endpoint, family)
            if address is not None and _is_named(service, endpoint, address, host):
                found.append((endpoint, address))
    addresses = tuple(dict.fromkeys(address for _, address in found))
    named = {endpoint.key for endpoint, _ in found if isinstance(endpoint, Endpoint)}
    offline = {
        endpoint.key
        for endpoint in members
        if not _addressed(endpoint) and _is_named(service, endpoint, None, host)
    }
    if not addresses and not offline:
        return None
    if host and (named or offline):
        pod = min(named or offline)
        text = f"{answer.asked} is pod {pod} of {answer.service}: {_join(addresses) or 'offline'}"
        return NameAnswer(
            answer.asked, answer.fqdn, "pod", addresses, answer.service, text, endpoint=pod
        )
    what = _join(addresses) or f"{len(offline)} pods, addresses unknown offline"
    text = f"{answer.asked} is headless service {answer.service}: {what}"
    return NameAnswer(answer.asked, answer.fqdn, "headless", addresses, answer.service, text)


def _addressed(endpoint: Member) -> bool:
    return endpoint.ipv4 is not None or endpoint.ipv6 is not None


def _is_named(service: Service, endpoint: Member, address: IPAddress | None, host: str) -> bool:
    """Whether ``host`` below the service is this endpoint; "" is every endpoint of it."""
    if not host:
        return True
    if isinstance(endpoint, Written):
        assert address is not None
        return host == (endpoint.hostname or dashed(address))
    if endpoint.subdomain == service.metadata.name:
        if endpoint.hostname:
            return endpoint.hostname == host
        # Offline one endpoint stands for all pods of a StatefulSet: db-0, db-1, …
        kind, _, workload = endpoint.workload.partition("/")
        stem, _, ordinal = host.rpartition("-")
        if address is None and kind == "StatefulSet":
            return stem == workload and ordinal.isdecimal()
    return address is not None and host == dashed(address)


def _join(addresses: tuple[IPAddress, ...]) -> str:
    return ", ".join(map(str, addresses))
