"""Is a client told of a service, and if not, why not? Seen is what one may reach.

Pure. The same question as ``policy/views.py`` answers for all at once, for one pair, with its
reason; ``tests/policy/test_views.py`` holds the two equal. Works offline, without addresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sixfold.balancing.explain import explain_balancing
from sixfold.balancing.members import families, selects
from sixfold.discovery.explain import NameAnswer
from sixfold.discovery.plan import alias_of, alias_owner
from sixfold.discovery.zone import CHAIN_MAX
from sixfold.model.datapath import EGRESS, INGRESS
from sixfold.model.domain import matches
from sixfold.model.identity import HOST, WORLD, Identity
from sixfold.model.service import Service, ServicePort
from sixfold.model.world import World
from sixfold.policy.decide import Party, names_of
from sixfold.policy.explain import explain_policy
from sixfold.policy.plan import PolicyPlan
from sixfold.policy.questions import limit_of
from sixfold.policy.reach_parties import VERSIONS, has_version
from sixfold.policy.reach_ports import EVERY_PORT, PortSet
from sixfold.policy.table_ports import TablePorts
from sixfold.policy.views import open_views
from sixfold.routing.plan import RoutingPlan
from sixfold.trust.question import Place, place_at

WHAT_NEXT = "a rule of each side, for any of its ports, lets the name be seen"


class _Way(NamedTuple):
    """Somewhere that the name may lead to; ``port`` is one of ``ports``, to ask about."""

    place: Place
    ports: PortSet
    protocol: str
    port: int


def told_of(
    world: World, plan: PolicyPlan, routing: RoutingPlan, client: Place, found: NameAnswer
) -> tuple[str, str]:
    """What a client is told: ``found``, ``hidden``, ``refused`` or ``upstream``, and the text."""
    limit = None if client.endpoint is None else limit_of(world, plan, client.endpoint)
    if limit is not None and found.kind != "nxdomain" and limit.refuses(found.fqdn):
        return "refused", f"{found.fqdn}: {limit.why}"
    if found.kind == "external":
        named = [one for one in sorted(plan.patterns) if matches(one, found.fqdn)]
        opened = f"; what it resolves to is opened for {', '.join(named)}" if named else ""
        return "upstream", found.text + opened
    service = world.services.get(found.service or "")
    if service is not None and (why := why_hidden(world, plan, routing, client, service)):
        return "hidden", f"{found.text}; answered NXDOMAIN: {why}"
    return "found", found.text


def why_hidden(
    world: World, plan: PolicyPlan, routing: RoutingPlan, client: Place, service: Service
) -> str:
    """Why the client is answered that there is no such name; "" when it is told."""
    if client.endpoint is None or open_views(world) or service.metadata.namespace in world.public:
        return ""
    for _ in range(CHAIN_MAX):
        if service.spec.type != "ExternalName":
            break
        if (target := alias_owner(service, world.config.cluster_domain)) is None:
            break
        if target not in world.services:
            return f"{alias_of(service)}, which it stands for, is no service's"
        service = world.services[target]
    if selects(service, client.endpoint.namespace, client.endpoint.labels):
        return ""
    tables = TablePorts()
    ways = list(_ways(world, plan, routing, service))
    if any(_is_open(plan, tables, client, way) for way in ways):
        return ""
    if not ways:
        return "nobody is behind it, so nobody may reach it"
    place, _, protocol, port = ways[0]
    version = next(iter(_versions(client, place)), 4)
    ends = client.party(plan, version), place.party(plan, version)
    answer = explain_policy(world, plan, *ends, protocol, port)
    sides = (("egress", answer.egress), ("ingress", answer.ingress))
    denials = [
        f"{direction} of {side.endpoint} denied by {side.rule}"
        for direction, side in sides
        if side is not None and not side.allow
    ]
    others = f" (and {len(ways) - 1} more alike)" if len(ways) > 1 else ""
    reasons = ", ".join(denials) or "no port of it is open on both sides"
    return f"policy lets {client.name} reach no port of it: {reasons}{others}; {WHAT_NEXT}"


def _ways(world: World, plan: PolicyPlan, routing: RoutingPlan, service: Service) -> Iterator[_Way]:
    if service.spec.type == "ExternalName":
        name = alias_of(service)
        yield _Way(Place(name, WORLD, domain=name), EVERY_PORT, "TCP", 443)
        for block in plan.cidrs:
            address = block.network_address
            yield _Way(Place(name, WORLD, address=address), EVERY_PORT, "TCP", 443)
        return
    for family in families(service):
        for port in service.spec.ports or ([ServicePort(1)] if service.spec.headless else []):
            protocol = port.protocol
            answer = explain_balancing(world, service, port.port, protocol, family)
            for one in answer.candidates:
                if one.written:
                    assert one.address is not None
                    place = place_at(world, routing, one.address, one.endpoint)
                else:
                    endpoint = world.endpoints[one.endpoint]
                    place = Place(one.endpoint, endpoint.identity, endpoint, one.address)
                ports = EVERY_PORT
                if not service.spec.headless:
                    ports = PortSet.of(protocol, one.port, one.port)
                yield _Way(place, ports, protocol, one.port)


def _is_open(plan: PolicyPlan, tables: TablePorts, client: Place, way: _Way) -> bool:
    mine, theirs = client.endpoint, way.place.endpoint
    assert mine is not None
    table = plan.tables[mine.key]
    if theirs is not None and theirs.identity == mine.identity and plan.tables[theirs.key] == table:
        return True  # it is part of it
    for version in _versions(client, way.place):
        source, destination = client.party(plan, version), way.place.party(plan, version)
        ports = way.ports & tables.ports(table, EGRESS, _names(destination))
        other = plan.tables[theirs.key] if theirs is not None else None
        if destination.identity == HOST:
            other = plan.host
        if other is not None:
            ports &= tables.ports(other, INGRESS, _names(source))
        if ports:
            return True
    return False


def _versions(client: Place, place: Place) -> Iterator[int]:
    """IP versions in which the two can meet."""
    for version in VERSIONS:
        ends = (client.endpoint, place.endpoint)
        if all(end is None or has_version(end, version) for end in ends) and (
            place.endpoint is not None or place.address is None or place.address.version == version
        ):
            yield version


def _names(party: Party) -> tuple[Identity, ...]:
    return tuple(names_of(party))
