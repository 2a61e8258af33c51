"""What the proxy should hold for Gateways: of each its listeners, and where their routes lead.

Pure. A Gateway is served in the pod that was made for it; while there is none, it waits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sixfold.mesh import conditions, foreign_resources, gateway, kept_headers
from sixfold.mesh.certificates import Shown
from sixfold.mesh.hosts import hosts_of, misdirected
from sixfold.mesh.http_routes import Front
from sixfold.mesh.listeners import ListenerPlan, plan_listeners
from sixfold.mesh.member import Member
from sixfold.mesh.messages import SECRET, Resource
from sixfold.mesh.routes import ServicePort, Way
from sixfold.mesh.streams import StreamWay, streams_of
from sixfold.mesh.traffic import Traffic
from sixfold.model.world import World
from sixfold.policy.authorizations import Authorizations


class Known(NamedTuple):
    """What a Gateway's pod passes on for other trust domains: names, and where they lead."""

    gateway: str
    hosts: tuple[str, ...]
    way: StreamWay


class GatewayPlan(NamedTuple):
    """Of all Gateways: resources, ways of requests, and what is one's alone, by its pod."""

    resources: tuple[Resource, ...]
    ways: tuple[Way, ...]
    own: Mapping[str, tuple[tuple[str, str], ...]]  # names of resources
    services: tuple[ServicePort, ...]  # that connections lead to
    known: tuple[Known, ...]  # to other trust domains
    narrowed: Mapping[str, object]  # what AuthorizationPolicies say of clients, by pod


def plan_gateways(world: World, members: Mapping[str, Member], traffic: Traffic) -> GatewayPlan:
    found = _Found(Authorizations(world))
    own: dict[str, tuple[tuple[str, str], ...]] = {}
    for listeners in plan_listeners(world).values():
        member = members.get(listeners[0].gateway.made)
        if member is None:
            continue
        ports, before = _by_port(listeners), len(found.resources)
        for port, some in ports.items():
            chains = [
                chain
                for part in _parts(some)
                for chain in _chains(world, traffic, member, port, part, some, found)
            ]
            door = some[0].listener.protocol == "HBONE"
            found.resources.append(gateway.listener(member, port, chains, door=door))
        shown = {name for one in listeners if one.served for name in one.certs}
        own[member.pod] = (
            *((one.type_url, one.name) for one in found.resources[before:]),
            *((SECRET, gateway.secret_name(name)) for name in shown),
        )
    return GatewayPlan(
        *(tuple(found.all()), tuple(found.ways), own, tuple(found.services)),
        tuple(found.known),
        found.narrowed,
    )


@dataclass(slots=True)
class _Found:
    """On the way through all listeners."""

    authorizations: Authorizations
    resources: list[Resource] = field(default_factory=list)
    narrowed: dict[str, object] = field(default_factory=dict)
    ways: list[Way] = field(default_factory=list)
    certs: dict[str, Shown] = field(default_factory=dict)
    services: dict[ServicePort, None] = field(default_factory=dict)
    known: list[Known] = field(default_factory=list)

    def all(self) -> Iterator[Resource]:
        yield from self.resources
        yield from (gateway.certificate(name, shown) for name, shown in self.certs.items())


def _chains(
    world: World,
    traffic: Traffic,
    member: Member,
    port: int,
    part: Sequence[ListenerPlan],
    some: Sequence[ListenerPlan],
    found: _Found,
) -> Iterator[gateway.Chain]:
    """Of listeners that share connections, among all of a port."""
    one = part[0]
    protocol, secure = one.listener.protocol, one.listener.protocol == "HTTPS"
    table = gateway.table_name(member, port, "" if protocol == "HTTP" else one.section)
    found.certs |= one.certs
    if protocol == "HBONE":
        streams = [one for one in streams_of(world, one, some) if one.way.name]
        found.known += [Known(member.pod, one.hosts, one.way) for one in streams]
        yield from foreign_resources.passed_in(member, table, streams)
        return
    if protocol in ("TLS", "TCP"):
        streams = list(streams_of(world, one, some))
        to = (backend.to for stream in streams for backend in stream.way.backends)
        found.services |= dict.fromkeys(port for port in to if port is not None)
        yield from gateway.streams(member, table, one, streams)
        return
    hosts = {
        host: tuple(traffic.carried(way) for way in them)
        for host, them in hosts_of(world, part, some).items()
    }
    found.ways += [way for them in hosts.values() for way in them]
    front = Front("https" if secure else "http", port)
    elsewhere = misdirected(one, some) if secure else set()
    policies = found.authorizations.at_gateway(world.endpoints[member.pod])
    # Path and host as the client wrote them: a route may write others.
    headers = frozenset({":path", ":authority"}).union(*(one.headers for one in policies))
    narrowed = {
        **conditions.of_gateway(policies, world.config.trust_domain, port),
        **kept_headers.of_route(headers),
    }
    found.narrowed[member.pod] = policies
    found.resources.append(gateway.table(table, hosts, front, elsewhere, narrowed))
    yield gateway.https(member, table, one) if secure else gateway.http(member, table)


def _parts(listeners: Sequence[ListenerPlan]) -> list[Sequence[ListenerPlan]]:
    """Those that share a connection: of plaintext all, in TLS each alone."""
    if listeners[0].listener.protocol == "HTTP":
        return [listeners]
    return [[one] for one in listeners]


def _by_port(listeners: tuple[ListenerPlan, ...]) -> Mapping[int, list[ListenerPlan]]:
    found: defaultdict[int, list[ListenerPlan]] = defaultdict(list)
    for one in listeners:
        if one.served:
            found[one.listener.port].append(one)
    return found
