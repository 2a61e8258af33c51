"""Balancing explained: what a connect to this service and port would meet, and why.

The same questions (``members.py``) as the plan's, asked for one service and port. Works offline
too, where endpoints have no address and nobody probed them: candidates carry both facts, the
caller judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sixfold.balancing.choice import choose
from sixfold.balancing.divide import Division, behind, divide, say_places, trusted_of
from sixfold.balancing.members import (
    IPAddress,
    Member,
    address_of,
    families,
    is_ready,
    members_of,
    panics,
    takes_new,
    weight_now,
)
from sixfold.balancing.members import target_port as target_port_of
from sixfold.balancing.written import Written
from sixfold.model.locality import Here
from sixfold.model.seen import NOTHING_SEEN, Seen
from sixfold.model.service import IPFamily, Service, ServicePort
from sixfold.model.world import World


@dataclass(frozen=True, slots=True)
class Candidate:
    """One that serves the service, and where a connection to it would arrive."""

    endpoint: str  # "namespace/pod", or what a written one is called
    address: IPAddress | None
    port: int
    ready: bool  # and gets new connections
    weight: int = 1
    written: bool = False  # by a slice: no pod that the service selects


@dataclass(frozen=True, slots=True)
class BalancingAnswer:
    """``port`` is the service's; without a ready candidate the connect is refused."""

    service: str  # "namespace/name"
    port: int
    algorithm: str
    why: str
    candidates: tuple[Candidate, ...]


def explain_balancing(
    world: World,
    service: Service,
    port: int | str | None,
    protocol: str = "TCP",
    family: IPFamily | None = None,
    *,
    outside: bool = False,
) -> BalancingAnswer:
    """What answers at a service port; ``port`` is a number, a port name, or None for the first.

    family  of the address dialled; None: that of the service's first
    outside  who dials is
    """
    key = f"{service.metadata.namespace}/{service.metadata.name}"
    members: Sequence[Member] = members_of(world, service, key)
    everybody = members
    if outside:
        members = behind(service, members, world.config.here)
    if service.spec.headless and isinstance(port, int):
        found: ServicePort | None = ServicePort(port=port)
    else:
        found = _find(service, port, protocol)
    if found is None:
        wanted = port if isinstance(port, int) else 0
        return BalancingAnswer(key, wanted, "none", _unknown_port(service, port, protocol), ())
    if everybody and not members:
        why = "refused at once: externalTrafficPolicy Local, and no endpoint is of this node"
        return BalancingAnswer(key, found.port, "none", why, ())
    family = family or families(service)[0]
    seen = world.seen.get(key, NOTHING_SEEN)
    able = [one for one in members if target_port_of(found, one) is not None]
    if any(address_of(one, family) for one in able):  # offline nobody has one
        able = [one for one in able if address_of(one, family) is not None]
    division = _division(service, found, able, family, seen, world.config.here)
    taking = {id(member): weight for member, weight in division.shares}
    candidates = tuple(
        Candidate(
            endpoint.key,
            address_of(endpoint, family),
            number,
            id(endpoint) in taking,
            taking.get(id(endpoint), weight_now(endpoint, seen)),
            isinstance(endpoint, Written),
        )
        for endpoint in members
        if (number := target_port_of(found, endpoint)) is not None
        if not (isinstance(endpoint, Written) and address_of(endpoint, family) is None)
    )
    algorithm = "client" if service.spec.headless else choose(service, found, seen).algorithm.title
    return BalancingAnswer(
        key,
        found.port,
        algorithm,
        _why(service, found, seen, members, candidates, division),
        candidates,
    )


def _division(
    service: Service,
    port: ServicePort,
    members: Sequence[Member],
    family: IPFamily,
    seen: Seen,
    here: Here,
) -> Division:
    """Of a headless service the resolver names the ready ones: clients balance, not the kernel."""
    if service.spec.headless:
        return Division(tuple((one, 1) for one in members if is_ready(service, one)))
    return divide(service, members, here, seen, trusted_of(seen, port, family))


def _first_trouble(seen: Seen) -> str:
    address, why = min(seen.unhealthy.items(), key=lambda item: str(item[0]))
    rest = len(seen.unhealthy) - 1
    return f"{address} ({why})" + (f" and {rest} more" if rest else "")


def _portless(port: ServicePort, members: Sequence[Member]) -> str:
    if any(isinstance(member, Written) for member in members):
        named = f'of the name "{port.name}"' if port.name else "without a name"
        return f"no EndpointSlice of this family has a {port.protocol} port {named}"
    return f'no pod names a {port.protocol} port "{port.target_port}"'


def _find(service: Service, port: int | str | None, protocol: str) -> ServicePort | None:
    for candidate in service.spec.ports:
        if port is None or (
            candidate.protocol == protocol and port in (candidate.port, candidate.name)
        ):
            return candidate
    return None


def _unknown_port(service: Service, port: int | str | None, protocol: str) -> str:
    has = ", ".join(f"{p.port}/{p.protocol}" for p in service.spec.ports) or "no ports"
    wanted = "any port" if port is None else f"{port}/{protocol}"
    return f"refused at once: the service has {has}, not {wanted}"


def _why(
    service: Service,
    port: ServicePort,
    seen: Seen,
    members: Sequence[Member],
    candidates: tuple[Candidate, ...],
    division: Division,
) -> str:
    ready = sum(candidate.ready for candidate in candidates)
    nothing = "no such name" if service.spec.headless else "refused at once"
    if not members and not service.spec.selector:
        return f"{nothing}: the service has no selector, and no EndpointSlice names it"
    if not members:
        selector = ",".join(f"{k}={v}" for k, v in sorted(service.spec.selector.items()))
        return f"{nothing}: no pod matches selector {selector}"
    if not candidates:
        return f"{nothing}: {_portless(port, members)}"
    maintained = sum(is_ready(service, one) for one in members) if not seen.unhealthy else 0
    if not ready and division.why:
        return f"{nothing}: {division.why}, and nobody of these {len(candidates)} is ready there"
    if not ready and maintained:
        return f"{nothing}: all {maintained} ready endpoints are drained, or have weight 0"
    if not ready and seen.unhealthy:
        return f"{nothing}: none of {len(candidates)} is healthy, {_first_trouble(seen)}"
    if not ready:
        return f"{nothing}: none of {len(candidates)} endpoints is ready"
    able = sum(takes_new(service, endpoint, seen) for endpoint in members)
    of = f"{max(ready, min(able, len(candidates)))} of {len(candidates)} endpoints ready"
    if ready and not any(is_ready(service, one) for one in members):
        of = f"no endpoint is ready: the {ready} terminating that still serve are used"
    if panics(service, members, seen):
        healthy = sum(takes_new(service, endpoint, seen) for endpoint in members)
        of = f"panic: {healthy} of {len(candidates)} healthy, so all are used"
        of += f"; {_first_trouble(seen)}" if seen.unhealthy else ""
    if service.spec.headless:
        return f"headless: the client picks among the addresses; {of}"
    choice = choose(service, port, seen)
    weights = [candidate.weight for candidate in candidates if candidate.ready]
    weighted = f", weights {':'.join(map(str, weights))}" if len(set(weights)) > 1 else ""
    affinity_s = service.spec.affinity_s
    kept = f"; a client keeps its backend until {affinity_s} s idle" if affinity_s else ""
    near = say_places(service, division)
    return f"{choice.why}{weighted}{kept}; {of}{near and f'; {near}'}"
