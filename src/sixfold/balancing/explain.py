"""Balancing explained: what a connect to this service and port would meet, and why.

The same questions (``members.py``) as the plan's, asked for one service and port. Works offline
too, where endpoints have no address and nobody probed them: candidates carry both facts, the
caller judges.
"""

from __future__ import annotations

from dataclasses import dataclass

from sixfold.balancing.choice import choose
from sixfold.balancing.members import (
    IPAddress,
    address_of,
    families,
    is_ready,
    receivers,
    selects,
)
from sixfold.balancing.members import target_port as target_port_of
from sixfold.model.endpoint import Endpoint
from sixfold.model.service import IPFamily, Service, ServicePort
from sixfold.model.world import World


@dataclass(frozen=True, slots=True)
class Candidate:
    """One endpoint that the service selects, and where a connection to it would arrive."""

    endpoint: str  # "namespace/pod"
    address: IPAddress | None
    port: int
    ready: bool  # and gets new connections
    weight: int = 1


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
) -> BalancingAnswer:
    """What answers at a service port; ``port`` is a number, a port name, or None for the first.

    family  of the address dialled; None: that of the service's first
    """
    key = f"{service.metadata.namespace}/{service.metadata.name}"
    members = [
        endpoint
        for _, endpoint in sorted(world.endpoints.items())
        if selects(service, endpoint.namespace, endpoint.labels)
    ]
    if service.spec.headless and isinstance(port, int):
        found: ServicePort | None = ServicePort(port=port)
    else:
        found = _find(service, port, protocol)
    if found is None:
        wanted = port if isinstance(port, int) else 0
        return BalancingAnswer(key, wanted, "none", _unknown_port(service, port, protocol), ())
    family = family or families(service)[0]
    taking = {endpoint.key for endpoint in _taking(service, members)}
    candidates = tuple(
        Candidate(
            endpoint.key,
            address_of(endpoint, family),
            number,
            endpoint.key in taking,
            endpoint.weight,
        )
        for endpoint in members
        if (number := target_port_of(found, endpoint)) is not None
    )
    algorithm = "client" if service.spec.headless else choose(service, found).algorithm.title
    return BalancingAnswer(
        key, found.port, algorithm, _why(service, found, members, candidates), candidates
    )


def _taking(service: Service, members: list[Endpoint]) -> list[Endpoint]:
    """Of a headless service the resolver names the ready ones: clients balance, not the kernel."""
    if service.spec.headless:
        return [endpoint for endpoint in members if is_ready(service, endpoint)]
    return receivers(service, members)


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
    members: list[Endpoint],
    candidates: tuple[Candidate, ...],
) -> str:
    ready = sum(candidate.ready for candidate in candidates)
    nothing = "no such name" if service.spec.headless else "refused at once"
    if not service.spec.selector:
        return f"{nothing}: the service has no selector, so no endpoints"
    if not members:
        selector = ",".join(f"{k}={v}" for k, v in sorted(service.spec.selector.items()))
        return f"{nothing}: no pod matches selector {selector}"
    if not candidates:
        return f'{nothing}: no pod names a {port.protocol} port "{port.target_port}"'
    maintained = sum(is_ready(service, endpoint) for endpoint in members)
    if not ready and maintained:
        return f"{nothing}: all {maintained} ready endpoints are drained, or have weight 0"
    if not ready:
        return f"{nothing}: none of {len(candidates)} endpoints is ready"
    of = f"{ready} of {len(candidates)} endpoints ready"
    if not maintained:
        of = f"no endpoint is ready: the {ready} terminating that still serve are used"
    if service.spec.headless:
        return f"headless: the client picks among the addresses; {of}"
    choice = choose(service, port)
    weights = [candidate.weight for candidate in candidates if candidate.ready]
    weighted = f", weights {':'.join(map(str, weights))}" if len(set(weights)) > 1 else ""
    affinity_s = service.spec.affinity_s
    kept = f"; a client keeps its backend until {affinity_s} s idle" if affinity_s else ""
    return f"{choice.why}{weighted}{kept}; {of}"
