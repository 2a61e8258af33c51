"""Who gets how much of a service's new connections: all alike, the near ones, or place by place.

Pure. Three rules, at most one of which a service has:

- ``internalTrafficPolicy: Local``: this node's endpoints or nobody.
- Hints (discovery.k8s.io/v1, as kube-proxy reads them): if every endpoint that is ready hints
  nodes and one hints this one, those that do; else the same by zone; else all. A service with
  ``trafficDistribution`` has hints as Kubernetes' controller gives them; endpoints that were
  written have those that were written, else the same.
- ``sixfold.dev/lb-failover``: priorities, as Envoy's. A place's health is the share of its
  endpoints that take connections, times the overprovisioning factor, 100 at most. The first
  place gets as much as it is healthy, the next as much of the rest, and so on.

Hysteresis is somebody else's (``failback``): here a place may be ``trusted`` with less than its
health. That never starves a service: when the others cannot carry all, trust does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

import msgspec

from sixfold.balancing.members import Member, receivers, takes_new, weight_now
from sixfold.balancing.written import Written
from sixfold.model.locality import NOWHERE, Failover, Here, Locality, failover_of
from sixfold.model.seen import NOTHING_SEEN, Seen
from sixfold.model.service import IPFamily, Service, ServicePort

SCALE = 1000  # slots, where places share: at least so fine
KERNEL_WEIGHT_MAX = (1 << 14) - 1
SAME_ZONE, SAME_REGION, ELSEWHERE = "same zone", "same region", "elsewhere"
ALL = 100
NOBODY: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class Level:
    """A priority. Numbers are percent, but for the counts.

    health   with overprovisioning
    trusted  not above health: less while it has yet to prove itself
    load     of new connections
    """

    name: str
    total: int
    healthy: int
    health: int
    trusted: int
    load: int


class Division(msgspec.Struct, frozen=True):
    """``shares``: who gets new connections, and its weight; ``why`` some do not, though ready.

    standby  places that get nothing as long as those are well: for who sees more of them
    """

    shares: tuple[tuple[Member, int], ...]
    levels: tuple[Level, ...] = ()
    why: str = ""
    standby: tuple[tuple[tuple[Member, int], ...], ...] = ()


def divide(
    service: Service,
    members: Sequence[Member],
    here: Here,
    seen: Seen = NOTHING_SEEN,
    trusted: Mapping[str, int] = NOBODY,
) -> Division:
    """Divide among ``members``, those with an address and port for the frontend in question.

    trusted  by name of level; of one that is missing its health is believed
    """
    if service.spec.internal_traffic_policy == "Local":
        local = [one for one in members if node_of(one, here) == here.node]
        why = f"internalTrafficPolicy Local: of node {here.node} only"
        return Division(_plain(receivers(service, local, seen), seen), (), why)
    failover = failover_of(service.metadata.annotations)
    if failover is not None:
        return _by_priority(service, members, here, failover, seen, trusted)
    near, why = _hinted(service, receivers(service, members, seen), here)
    return Division(_plain(near, seen), (), why)


def trusted_of(seen: Seen, port: ServicePort, family: IPFamily) -> Mapping[str, int]:
    """What was seen of the levels of one frontend."""
    return {
        level: percent
        for (number, protocol, of, level), percent in seen.trusted.items()
        if (number, protocol, of) == (port.port, port.protocol, family)
    }


def _plain(members: Sequence[Member], seen: Seen) -> tuple[tuple[Member, int], ...]:
    if not seen.ramps:
        return tuple([(one, one.weight) for one in members])
    return tuple([(one, weight_now(one, seen)) for one in members])


def behind(service: Service, members: Sequence[Member], here: Here) -> Sequence[Member]:
    """Who may serve clients outside: with externalTrafficPolicy Local, this node's endpoints."""
    if service.spec.external_traffic_policy != "Local":
        return members
    return [one for one in members if node_of(one, here) == here.node]


def node_of(member: Member, here: Here) -> str:
    """The node of an endpoint; a pod without one is of a world without nodes: it is near."""
    return member.node or ("" if isinstance(member, Written) else here.node)


def locality_of_member(member: Member, here: Here) -> Locality:
    """A pod that says nothing is where its node is."""
    said = member.locality
    if (said is NOWHERE or said == NOWHERE) and not isinstance(member, Written):
        return here.locality
    return said


def hints_of(service: Service, member: Member, here: Here) -> tuple[frozenset[str], frozenset[str]]:
    """Nodes and zones that an endpoint is meant for; none: for everybody."""
    if isinstance(member, Written) and (member.for_nodes or member.for_zones):
        return member.for_nodes, member.for_zones
    distribution = service.spec.traffic_distribution
    zone = locality_of_member(member, here).zone
    zones = frozenset({zone} if distribution and zone else ())
    node = node_of(member, here)
    by_node = distribution == "PreferSameNode" and node
    return frozenset({node} if by_node else ()), zones


def _hinted(service: Service, chosen: Sequence[Member], here: Here) -> tuple[Sequence[Member], str]:
    hinting = service.spec.traffic_distribution is not None or any(
        isinstance(one, Written) and (one.for_nodes or one.for_zones) for one in chosen
    )
    if not hinting or not chosen:
        return chosen, ""
    hints = [hints_of(service, one, here) for one in chosen]
    what = service.spec.traffic_distribution or "hints"
    for place, own in ((0, here.node), (1, here.locality.zone)):
        if all(hint[place] for hint in hints) and own:
            near = [one for one, hint in zip(chosen, hints, strict=True) if own in hint[place]]
            if near:
                return near, f"{what}: of {('node', 'zone')[place]} {own}"
    return chosen, f"{what}: nobody near, so all"


def level_of(member: Member, here: Here, failover: Failover) -> tuple[int, str]:
    """The priority of an endpoint, and its name."""
    where = locality_of_member(member, here)
    if failover.places:
        for rank, place in enumerate(failover.places):
            if where.is_in(place):
                return rank, place
        return len(failover.places), ELSEWHERE
    if where.same_zone(here.locality):
        return 0, SAME_ZONE
    if where.same_region(here.locality):
        return 1, SAME_REGION
    return 2, ELSEWHERE


def _by_priority(
    service: Service,
    members: Sequence[Member],
    here: Here,
    failover: Failover,
    seen: Seen,
    trusted: Mapping[str, int],
) -> Division:
    grouped: dict[tuple[int, str], list[Member]] = {}
    for one in members:
        grouped.setdefault(level_of(one, here, failover), []).append(one)
    places = sorted(grouped.items())
    takers = [[one for one in group if takes_new(service, one, seen)] for _, group in places]
    # Who is on his way out is missed by nobody; who is in maintenance is.
    totals = [
        max(len(taking), sum(not one.terminating for one in group))
        for (_, group), taking in zip(places, takers, strict=True)
    ]
    health = [
        min(ALL, failover.overprovisioning * len(taking) // total) if total else 0
        for taking, total in zip(takers, totals, strict=True)
    ]
    trust = [
        min(one, trusted.get(name, ALL)) for ((_, name), _), one in zip(places, health, strict=True)
    ]
    loads = priority_loads(trust if sum(trust) >= ALL else health)
    levels = tuple(
        Level(name, total, len(taking), *numbers)
        for ((_, name), _), total, taking, *numbers in zip(
            places, totals, takers, health, trust, loads, strict=True
        )
    )
    if not any(loads):  # perhaps somebody still serves on his way out
        return Division(_plain(receivers(service, members, seen), seen), levels)
    idle = (group for group, load in zip(takers, loads, strict=True) if group and not load)
    standby = tuple(_plain(group, seen) for group in idle)
    return Division(shared(list(zip(takers, loads, strict=True)), seen), levels, standby=standby)


def priority_loads(health: Sequence[int]) -> list[int]:
    """Percent of new connections by priority, of the percent that each is healthy.

    Envoy's: what is healthy altogether counts as all; what rounding leaves goes to the first.
    """
    whole = min(ALL, sum(health))
    if not whole:
        return [0] * len(health)
    loads, left = [], ALL
    for one in health:
        loads.append(min(left, one * ALL // whole))
        left -= loads[-1]
    first = next(at for at, one in enumerate(health) if one)
    loads[first] += left
    return loads


def shared(
    groups: Sequence[tuple[Sequence[Member], int]], seen: Seen = NOTHING_SEEN
) -> tuple[tuple[Member, int], ...]:
    """Weights such that each group has its percent, and within it each member its own weight."""
    groups = [(group, load) for group, load in groups if group and load]
    if len(groups) == 1:
        return _plain(groups[0][0], seen)
    parts: list[tuple[Member, Fraction]] = []
    loads = sum(load for _, load in groups)
    for group, load in groups:
        weights = [weight_now(one, seen) for one in group]
        whole = loads * sum(weights)
        parts += [
            (one, Fraction(load * weight, whole))
            for one, weight in zip(group, weights, strict=True)
        ]
    unit = lcm(*(part.denominator for _, part in parts))
    exact = [int(part * unit) for _, part in parts]
    common = gcd(*exact)
    if sum(exact) // common > SCALE:
        scale = max(SCALE, 4 * len(parts))
        rounded = [round(part * scale) for _, part in parts]
        exact, common = [min(KERNEL_WEIGHT_MAX, max(1, one)) for one in rounded], 1
    return tuple((one, weight // common) for (one, _), weight in zip(parts, exact, strict=True))


def say_places(service: Service, division: Division) -> str:
    """Which places get how much, and why; "" when all are alike."""
    said = [f"{division.why}: {len(division.shares)} of them"] if division.why else []
    failover = failover_of(service.metadata.annotations)
    if failover is not None and division.levels:
        said.append(", ".join(map(_level, division.levels)))
        held = [one for one in division.levels if one.trusted < one.health]
        if held:
            names = ", ".join(f"{one.name} ({one.trusted} of {one.health} %)" for one in held)
            said.append(f"held back until well for {failover.failback_s} s: {names}")
    return "; ".join(said)


def _level(one: Level) -> str:
    return f"{one.name} {one.healthy} of {one.total} healthy gets {one.load} %"
