"""The steps of a plan of requests that are about other trust domains; as ``http_steps``.

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta

from sixfold.mesh import conditions, foreign_requests, foreign_resources
from sixfold.mesh.foreign import Export, Foreign
from sixfold.mesh.gateway_plan import Known
from sixfold.mesh.http_steps import Aimed, Behind, Resources, by_key, table_size
from sixfold.mesh.listeners import rank
from sixfold.mesh.member import Member
from sixfold.mesh.routes import Routed, ServicePort
from sixfold.mesh.traffic import Traffic, straight_to
from sixfold.model.service import Service
from sixfold.model.world import World
from sixfold.policy.authorizations import says_http
from sixfold.policy.plan import PolicyPlan
from sixfold.policy.requests import Requests

Said = Mapping[str, tuple[tuple[Export, dict[str, object]], ...]]  # by pod, with conditions


def read(
    services: Mapping[str, Service],
    foreign: Iterable[ServicePort],
    routed: Mapping[ServicePort, Routed],
) -> Mapping[ServicePort, Routed]:
    """All whose requests are read: of foreign ports those that are said to be HTTP, too, for
    nobody here knows what is asked of their clients over there."""
    spoken = {
        port: Routed((straight_to(port),))
        for port in foreign
        if port not in routed
        for one in services[port.service].spec.ports
        if one.port == port.port and says_http(one)
    }
    return {**routed, **spoken} if spoken else routed


def without_ours(
    behind: Mapping[ServicePort, Behind], foreign: Collection[ServicePort]
) -> Mapping[ServicePort, Behind]:
    """The Gateway's pod is no backend: nobody there takes requests."""
    empty = {port: behind[port]._replace(to=()) for port in foreign if port in behind}
    return {**behind, **empty} if empty else behind


def known(passed_in: Iterable[Known]) -> Mapping[str, frozenset[ServicePort]]:
    """Services whose names a Gateway's pod tells others."""
    found: defaultdict[str, set[ServicePort]] = defaultdict(set)
    for one in passed_in:
        found[one.gateway].update(to.to for to in one.way.backends if to.to is not None)
    return {pod: frozenset(ports) for pod, ports in found.items()}


def exports(
    passed_in: Iterable[Known],
    behind: Mapping[ServicePort, Behind],
    looked_into: Mapping[str, frozenset[int]],
) -> Mapping[str, tuple[Export, ...]]:
    """By pod; of several places of a pod under one name the first."""
    found: defaultdict[str, dict[str, Export]] = defaultdict(dict)
    for one in passed_in:
        for to in one.way.backends:
            for backend in behind[to.to].to if to.to is not None else ():
                pod = backend.member.pod
                seen = backend.port in looked_into.get(pod, ())
                for host in one.hosts:
                    fresh = Export(host, backend.address, backend.port, (one.gateway,), seen)
                    first = found[pod].setdefault(host, fresh)
                    if first[:3] == fresh[:3] and one.gateway not in first.gateways:
                        ways = (*first.gateways, one.gateway)
                        found[pod][host] = first._replace(gateways=ways)
    return {
        pod: tuple(sorted(those.values(), key=lambda one: rank(one.host)))
        for pod, those in found.items()
    }


def judged(
    world: World,
    policy: PolicyPlan,
    requests: Requests,
    members: Mapping[str, Member],
    exports: Mapping[str, tuple[Export, ...]],
    aimed: Aimed,
) -> Mapping[str, list[dict[str, object]]]:
    """Routes of what others ask of names of ours, by pod."""
    if not exports:
        return {}
    numbers = {rule: number for number, rule in policy.rules.items()}
    gateways = {
        name: (world.endpoints[name], members[name])
        for those in exports.values()
        for one in those
        for name in one.gateways
        if name in members
    }
    own = world.config.trust_domain
    return {
        pod: [
            route
            for one in those
            for route in foreign_requests.judged(
                one,
                foreign_requests.rules(
                    *(requests, world.endpoints[pod], one, gateways),
                    *(world.federated - {own}, numbers),
                ),
                conditions.of_foreign_requests(
                    requests.authorizations.of(world.endpoints[pod]), own, one.port
                ),
                aimed.limited.get(pod, {}),
                aimed.secured.get(pod, {}),
                requests.headers(world.endpoints[pod]),
            )
        ]
        for pod, those in exports.items()
    }


def said(world: World, requests: Requests, exports: Mapping[str, tuple[Export, ...]]) -> Said:
    """What AuthorizationPolicies say of tunnels to what others know."""
    domain = world.config.trust_domain
    return {
        pod: tuple((one, conditions.of_foreign(those, domain, one.port)) for one in found)
        for pod, found in exports.items()
        for those in [requests.authorizations.of(world.endpoints[pod])]
    }


def resources(
    world: World,
    foreign: Mapping[ServicePort, Foreign],
    members: Mapping[str, Member],
    known: Mapping[str, frozenset[ServicePort]],
    behind: Mapping[ServicePort, Behind],
    traffic: Traffic,
    exports: Mapping[str, tuple[Export, ...]],
) -> Resources:
    """Ways to services of other trust domains, and from there to ours."""
    lifetime = timedelta(seconds=world.config.svid_ttl_s / 2)
    ends = {(one.address, one.port) for those in exports.values() for one in those}
    led = {port: one for port, one in foreign.items() if one.gateway in members and not one.closed}
    return by_key(
        [
            *(foreign_resources.tunnel(one, lifetime) for one in led.values()),
            *(
                foreign_requests.backends(
                    *(one, members[one.gateway], behind[port].algorithm),
                    *(table_size(world, port), traffic.spec(port), lifetime),
                )
                for port, one in led.items()
                if port in behind
            ),
            *(
                foreign_resources.pods(
                    port, behind[port].algorithm, table_size(world, port), traffic.spec(port)
                )
                for port in sorted(frozenset().union(*known.values()))
            ),
            *(foreign_resources.end(*place) for place in ends),
        ]
    )
