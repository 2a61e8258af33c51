"""The steps of a plan of requests that are about other trust domains; as ``http_steps``.

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import timedelta

from sixfold.mesh import conditions, foreign_resources
from sixfold.mesh.foreign import Export, Foreign
from sixfold.mesh.gateway_plan import Known
from sixfold.mesh.http_steps import Behind, Resources, by_key, table_size
from sixfold.mesh.member import Member
from sixfold.mesh.routes import ServicePort
from sixfold.mesh.traffic import Traffic
from sixfold.model.world import World
from sixfold.policy.requests import Requests

Said = Mapping[str, tuple[tuple[Export, dict[str, object]], ...]]  # by pod, with conditions


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
    """By pod; of several places of a pod under one name the first. A port whose requests are
    looked into takes no tunnel, of nobody."""
    found: defaultdict[str, dict[str, Export]] = defaultdict(dict)
    for one in passed_in:
        for to in one.way.backends:
            for backend in behind[to.to].to if to.to is not None else ():
                pod = backend.member.pod
                if backend.port in looked_into.get(pod, ()):
                    continue
                for host in one.hosts:
                    fresh = Export(host, backend.address, backend.port, (one.gateway,))
                    first = found[pod].setdefault(host, fresh)
                    if first[:3] == fresh[:3] and one.gateway not in first.gateways:
                        ways = (*first.gateways, one.gateway)
                        found[pod][host] = first._replace(gateways=ways)
    return {pod: tuple(those.values()) for pod, those in found.items()}


def said(world: World, requests: Requests, exports: Mapping[str, tuple[Export, ...]]) -> Said:
    """What AuthorizationPolicies say of what others know."""
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
    return by_key(
        [
            *(
                foreign_resources.tunnel(one, lifetime)
                for one in foreign.values()
                if one.gateway in members and not one.closed
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
