"""Who is meant by FROM and TO? Names as users type them, looked up in the world.

Pure. FROM: ``ns/pod``, ``pod``, a workload's name, "host", "world" or an address. TO: the same,
and services by any name that the client may use.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from ipaddress import ip_address

from sixfold.balancing.ways import ways
from sixfold.discovery.entries import service_of_host
from sixfold.discovery.explain import NameAnswer, explain_name
from sixfold.errors import NotFoundError
from sixfold.model.datapath import IPAddress
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import HOST, RESERVED_NAMES, WORLD, Identity
from sixfold.model.service import Service
from sixfold.model.world import World
from sixfold.policy.decide import Party, party_at, party_named, party_of
from sixfold.policy.plan import PolicyPlan
from sixfold.routing.explain import endpoint_at, identity_at
from sixfold.routing.plan import RoutingPlan

LISTED_MAX = 4  # addresses of a name in one line


@dataclass(frozen=True, slots=True)
class Place:
    """One end of a flow: a pod, the node, the resolver, or somewhere outside."""

    name: str
    identity: Identity
    endpoint: Endpoint | None = None
    address: IPAddress | None = None
    domain: str = ""  # of the world, when it is not known what it resolves to

    def party(self, plan: PolicyPlan, version: int) -> Party:
        if self.endpoint is not None:
            return party_of(plan, self.endpoint, version)
        if self.domain:
            return party_named(plan, self.domain)
        return party_at(plan, self.identity, self.address)


@dataclass(frozen=True, slots=True)
class Destination:
    """What TO means: a service, or places without one in between.

    lookup   the DNS answer that a client gets for the name; None for what is no name
    address  of the service, when that was given instead of its name
    """

    lookup: NameAnswer | None
    service: Service | None
    places: tuple[Place, ...]
    address: IPAddress | None = None


def sources(world: World, routing: RoutingPlan, text: str, namespace: str) -> tuple[Place, ...]:
    """FROM as places: several when a workload's pods differ in identity."""
    if found := _special(world, routing, text) or _on_host(world, text, namespace):
        return (found,)
    pods = _pods(world, text, namespace)
    if not pods:
        raise NotFoundError(_unknown(world, "from", text, namespace))
    by_identity = {pod.identity: pod for pod in reversed(pods)}
    return tuple(_place(pod) for pod in pods if by_identity[pod.identity] is pod)


def destination(world: World, routing: RoutingPlan, text: str, namespace: str) -> Destination:
    """TO as the client in ``namespace`` means it; a service wins over a pod of its name."""
    if found := _special(world, routing, text) or _on_host(world, text, namespace):
        service = _service_at(world, found.address)
        return Destination(None, service, () if service else (found,), found.address)
    lookup = explain_name(world, _dns_name(world, text), namespace)
    if lookup.kind in ("service", "headless") and lookup.service is not None:
        return Destination(lookup, world.services[lookup.service], ())
    if lookup.kind == "pod" and lookup.endpoint is not None:
        return Destination(lookup, None, (_place(world.endpoints[lookup.endpoint]),))
    pods = _pods(world, text, namespace)
    if pods and lookup.service is None:
        return Destination(None, None, tuple(map(_place, pods)))
    if lookup.kind == "external":
        if (placed := service_of_host(world, lookup.fqdn)) is not None:
            entry, service = placed
            told = replace(lookup, text=f"{lookup.fqdn} is of ServiceEntry {entry}")
            return Destination(told, service, ())
        return _outside(world, text, lookup)
    raise NotFoundError(_unknown(world, "to", text, namespace))


def _outside(world: World, text: str, lookup: NameAnswer) -> Destination:
    """A name of the world: the addresses that it has resolved to, or any that it may."""
    known = sorted(world.domains.get(lookup.fqdn, ()), key=lambda one: (one.version, one))
    if not known:
        return Destination(lookup, None, (Place(text, WORLD, domain=lookup.fqdn),))
    listed = ", ".join(map(str, known[:LISTED_MAX])) + (", …" if len(known) > LISTED_MAX else "")
    told = replace(lookup, text=f"{lookup.text}; has resolved to {listed}")
    places = (Place(f"{text} ({one})", WORLD, address=one) for one in known)
    return Destination(told, None, tuple(places))


def _special(world: World, routing: RoutingPlan, text: str) -> Place | None:
    """The node, the outside, and addresses."""
    if text == "host":
        return Place("host", HOST, address=world.config.host_ipv4)
    if text == "world":
        return Place("world", WORLD)
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return place_at(world, routing, address)


def place_at(world: World, routing: RoutingPlan, address: IPAddress, name: str = "") -> Place:
    """Whoever has an address; ``name`` is what it is called when it is no pod's."""
    if (endpoint := endpoint_at(world, address)) is not None:
        return Place(endpoint.key, endpoint.identity, endpoint, address)
    identity = identity_at(routing.ipcache, address)
    who = RESERVED_NAMES[identity].removeprefix("reserved:")
    return Place(
        f"{name} ({who} {address})" if name else f"{who} {address}", identity, None, address
    )


def _on_host(world: World, text: str, namespace: str) -> Place | None:
    """A workload with ``hostNetwork``: to policy it is the node."""
    key = text if "/" in text else f"{namespace}/{text}"
    here = key in world.on_host
    return Place(f"{key} (host)", HOST, address=world.config.host_ipv4) if here else None


def _place(pod: Endpoint) -> Place:
    return Place(pod.key, pod.identity, pod)


def _pods(world: World, text: str, namespace: str) -> list[Endpoint]:
    """The pod of this name, or all pods of the workload of this name."""
    key = text if "/" in text else f"{namespace}/{text}"
    if key in world.endpoints:
        return [world.endpoints[key]]
    where, _, name = key.partition("/")
    return [
        pod
        for _, pod in sorted(world.endpoints.items())
        if pod.namespace == where and name in (pod.workload, pod.workload.partition("/")[2])
    ]


def _service_at(world: World, address: IPAddress | None) -> Service | None:
    return next(
        (
            service
            for service in world.services.values()
            if any(address == way.address for way in ways(service))
        ),
        None,
    )


def version_of(source: Place, backend: Place) -> int:
    """IP version of the flow: that of an address in the question, else IPv4 where both can."""
    for place in (backend, source):
        if place.address is not None and (place.endpoint is not None or place.identity == WORLD):
            return place.address.version
    pods = [place.endpoint for place in (source, backend) if place.endpoint is not None]
    six_only = any(pod.ipv4 is None and pod.ipv6 is not None for pod in pods)
    return 6 if six_only else 4


def _dns_name(world: World, text: str) -> str:
    """``ns/name`` as the name that a client would look up."""
    namespace, slash, name = text.partition("/")
    return f"{name}.{namespace}.svc.{world.config.cluster_domain}." if slash else text


def _unknown(world: World, side: str, text: str, namespace: str) -> str:
    known = [*world.endpoints, *world.services] if side == "to" else [*world.endpoints]
    key = text if "/" in text else f"{namespace}/{text}"
    close = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    where = f'no pod or workload named "{text}"'
    if side == "to":
        where = f'no service, pod, workload or name "{text}"'
    hint = f"did you mean {', '.join(dict.fromkeys(close))}?" if close else "see sixfold get pods"
    return f"{side} {text}: {where} seen from namespace {namespace}; {hint}"
