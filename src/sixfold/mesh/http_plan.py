"""What is to be known of requests: routes by clients' namespace, backends by service, rules by pod.

Pure. Built anew when something that it was made of is another object; what came out as it was is
the same to the proxy, whose versions are hashes. A port is *looked at* when a route is attached to
it, or when a policy is about requests to it. A service that was routed once stays known: clients
have connections to it, and each request of theirs needs a way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from types import MappingProxyType

from sixfold.balancing.members import cluster_addresses
from sixfold.mesh import conditions, http, resilience, tokens
from sixfold.mesh.backend_tls import Tls, tls_of
from sixfold.mesh.gateway_plan import plan_gateways
from sixfold.mesh.kept import Kept
from sixfold.mesh.member import Member, authority
from sixfold.mesh.messages import Resource
from sixfold.mesh.requests import request_rules, told_rules
from sixfold.mesh.routes import Routed, ServicePort, Way
from sixfold.mesh.stream_resources import service
from sixfold.mesh.streams import RoutedStream, ServiceStream, of_clients, plan_streams
from sixfold.mesh.tokens import Keys
from sixfold.mesh.traffic import Traffic, plan_requests, straight_to
from sixfold.model.algorithm import TABLE_SIZE, TABLE_SIZE_DEFAULT, Algorithm
from sixfold.model.datapath import PROTOCOL_NUMBERS, Frontend, FrontendEntry, IPAddress
from sixfold.model.health import panic_percent
from sixfold.model.trafficpolicy import TrafficPolicySpec
from sixfold.model.world import World
from sixfold.policy.plan import PolicyPlan
from sixfold.policy.requests import Requests

TCP = PROTOCOL_NUMBERS["TCP"]
NO_KEYS_YET: Keys = MappingProxyType({})
NOBODY = FrontendEntry(0, ())


@dataclass(frozen=True, slots=True)
class HttpPlan:
    """Of one world.

    routed    service addresses and ports whose clients' requests are routed
    ports     of pods: those about whose requests some policy is
    judged    routes of requests that arrive, by pod
    gateways  names of what is a Gateway's alone, by its pod
    tunnels   what AuthorizationPolicies say of tunnels that arrive, by pod
    behind    pods behind each service that requests may be sent to
    dialled   services that connections are passed on to
    """

    resources: tuple[Resource, ...] = ()
    routed: frozenset[tuple[IPAddress, int]] = frozenset()
    ports: Mapping[str, frozenset[int]] = field(default_factory=dict)
    judged: Mapping[str, list[dict[str, object]]] = field(default_factory=dict)
    gateways: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    tunnels: Mapping[str, dict[str, object]] = field(default_factory=dict)
    behind: Mapping[ServicePort, frozenset[str]] = field(default_factory=dict)
    dialled: frozenset[ServicePort] = frozenset()


class HttpPlanner:
    """Plans world after world; remembers which services were ever routed."""

    def __init__(self, connections_max: int = 0) -> None:
        self._connections_max = connections_max
        self._ever: dict[ServicePort, None] = {}
        self._ever_passed: dict[ServicePort, None] = {}  # likewise, by TCPRoutes
        self._made_of: tuple[object, ...] = ()
        self._plan = HttpPlan()
        self._kept = Kept()

    def plan(
        self,
        world: World,
        policy: PolicyPlan,
        frontends: Mapping[Frontend, FrontendEntry],
        members: Mapping[str, Member],
        keys: Keys = NO_KEYS_YET,
    ) -> HttpPlan:
        made_of = (
            *(world.routes, world.traffic, world.grants, world.services, world.endpoints),
            *(world.policies, world.audited, world.relaxations, policy, frontends, keys),
            *(world.gateways, world.gateway_classes, world.namespaces, world.secrets),
            *(world.streams, world.backend_tls, world.config_maps),
        )
        if len(made_of) != len(self._made_of) or any(
            one is not before for one, before in zip(made_of, self._made_of, strict=True)
        ):
            self._plan = self._build(world, policy, frontends, members, keys)
            self._made_of = made_of
            self._kept.forget()
        return self._plan

    def _build(
        self,
        world: World,
        policy: PolicyPlan,
        frontends: Mapping[Frontend, FrontendEntry],
        members: Mapping[str, Member],
        keys: Keys,
    ) -> HttpPlan:
        traffic = Traffic(world)
        routed = plan_requests(world, traffic, self._kept)
        self._ever |= dict.fromkeys(routed)
        self._ever = {port: None for port in self._ever if port.service in world.services}
        passed = plan_streams(world)
        self._ever_passed |= dict.fromkeys(passed)
        self._ever_passed = {
            port: None
            for port in self._ever_passed
            if port.service in world.services and port not in routed
        }
        gateways = plan_gateways(world, members, traffic)
        at = {address: one for one in members.values() for address in one.addresses}
        ways = [*gateways.ways, *(way for one in routed.values() for way in one.ways)]
        used = {*self._ever, *(port for way in ways for port in _backends(way))}
        entries = {port: _entry(world, frontends, port) for port in sorted(used)}
        backends = {port: list(_members(entry, at)) for port, entry in entries.items()}
        namespaces = sorted({one.pod.partition("/")[0] for one in members.values()})
        requests = Requests(world, policy)
        ports = {key: found for key in members if (found := requests.ports(world.endpoints[key]))}
        specs = {port: traffic.spec(port) for port in backends}
        targets: defaultdict[str, set[int]] = defaultdict(set)
        limited: defaultdict[str, dict[str, ServicePort]] = defaultdict(dict)
        tls = {port: one for port, one in tls_of(world).items() if port in backends}
        secured: defaultdict[str, dict[str, tuple[ServicePort, Tls]]] = defaultdict(dict)
        bound = {
            port: specs[port] for port in backends if resilience.limits_connections(specs[port])
        }
        for port, to in backends.items():
            for one in to:
                targets[one.member.pod].add(one.port)
                if port in tls:
                    place = authority(one.address, one.port)
                    secured[one.member.pod].setdefault(place, (port, tls[port]))
                if port in bound:
                    limited[one.member.pod].setdefault(authority(one.address, one.port), port)
        dialled = frozenset({*gateways.services, *self._ever_passed, *_targets(passed)})
        return HttpPlan(
            (
                *(self._routes(world, routed, one) for one in namespaces),
                *(
                    self._service(world, port, entries[port].algorithm, to, specs[port])
                    for port, to in backends.items()
                ),
                *(
                    self._kept.of(("endpoints", port), (to,), partial(http.endpoints, port, to))
                    for port, to in backends.items()
                ),
                *http.applications(bound, tls),
                *gateways.resources,
                *self._tokens(world, requests, members, keys),
                *self._listeners(world, passed, members),
                *_dialled(world, dialled),
            ),
            frozenset(
                (address, port.port)
                for port in (*routed, *passed)
                for address in cluster_addresses(world.services[port.service])
            ),
            ports,
            self._judged(world, policy, requests, members, ports, targets, limited, secured),
            gateways.own,
            {
                key: conditions.of_tunnels(those, world.config.trust_domain)
                for key in members
                if (those := requests.authorizations.of(world.endpoints[key]))
            },
            {port: frozenset(one.member.pod for one in to) for port, to in backends.items()},
            dialled,
        )

    def _tokens(
        self, world: World, requests: Requests, members: Iterable[str], keys: Keys
    ) -> Iterator[Resource]:
        """Of every pod: its listener waits for what its filter is told."""
        for key in members:
            written = requests.authorizations.tokens(world.endpoints[key])
            audit = requests.authorizations.in_audit(world.endpoints[key])
            parts = written, keys if written else NO_KEYS_YET, audit
            make = partial(tokens.configured, key, *parts)
            yield self._kept.of(("tokens", key), parts, make)

    def _listeners(
        self,
        world: World,
        passed: Mapping[ServicePort, RoutedStream],
        members: Mapping[str, Member],
    ) -> Iterator[Resource]:
        """Of each pod, where its requests are captured."""
        by_namespace: dict[str, tuple[ServiceStream, ...]] = {}
        for key, member in members.items():
            namespace = key.partition("/")[0]
            if (streams := by_namespace.get(namespace)) is None:
                streams = tuple(of_clients(world, self._ever_passed, passed, namespace))
                by_namespace[namespace] = streams
            parts = member, self._connections_max, streams
            yield self._kept.of(("listener", key), parts, partial(http.outbound, *parts))

    def _service(
        self,
        world: World,
        port: ServicePort,
        algorithm: Algorithm,
        backends: Iterable[http.Backend],
        spec: TrafficPolicySpec,
    ) -> Resource:
        ids = frozenset(one.member.id for one in backends)
        lifetime = timedelta(seconds=world.config.svid_ttl_s / 2)
        annotated = _annotated(world.services[port.service].metadata.annotations)
        parts = algorithm, ids, spec, lifetime, *annotated
        return self._kept.of(("service", port), parts, partial(http.service, port, *parts))

    def _routes(
        self, world: World, routed: Mapping[ServicePort, Routed], namespace: str
    ) -> Resource:
        """What the clients of a namespace are told."""
        hosts = []
        for port in sorted(self._ever):
            ways = routed[port].for_clients_of(namespace) if port in routed else None
            if ways is None:
                ways = (straight_to(port),)
            parts = cluster_addresses(world.services[port.service]), ways
            name = "host", namespace, port
            hosts.append(self._kept.of(name, parts, partial(http.host, port, *parts)))
        return http.routes(namespace, hosts)

    def _judged(
        self,
        world: World,
        policy: PolicyPlan,
        requests: Requests,
        members: Mapping[str, Member],
        ports: Mapping[str, frozenset[int]],
        targets: Mapping[str, Iterable[int]],
        limited: Mapping[str, Mapping[str, ServicePort]],
        secured: Mapping[str, Mapping[str, tuple[ServicePort, Tls]]],
    ) -> dict[str, list[dict[str, object]]]:
        numbers = {rule: number for number, rule in policy.rules.items()}
        clients = {key: (world.endpoints[key], one) for key, one in members.items()}
        asked = {
            key: (
                *(requests, world.endpoints[key]),
                *({*ports.get(key, ()), *targets.get(key, ())}, clients, numbers),
            )
            for key in sorted({*ports, *targets})
        }
        return {
            key: http.judged(
                request_rules(*parts),
                told_rules(*parts),
                limited.get(key, {}),
                conditions.of_requests(
                    requests.authorizations.of(world.endpoints[key]), world.config.trust_domain
                ),
                secured.get(key, {}),
                [
                    authority(at, port)
                    for at in members[key].addresses
                    for port in ports.get(key, ())
                ],
                requests.headers(world.endpoints[key]),
            )
            for key, parts in asked.items()
        }


def _targets(passed: Mapping[ServicePort, RoutedStream]) -> Iterator[ServicePort]:
    for one in passed.values():
        for way in (one.producer, *one.consumers.values()):
            yield from (to.to for to in (way.backends if way else ()) if to.to is not None)


def _dialled(world: World, ports: Iterable[ServicePort]) -> Iterator[Resource]:
    """Services that connections are passed on to."""
    for port in sorted(ports):
        for address in [*cluster_addresses(world.services[port.service])][:1]:
            yield service(port, address)


def _annotated(annotations: Mapping[str, str]) -> tuple[int, int]:
    """Size of a Maglev table; panic threshold: 0 is never, 1 when nobody is left."""
    panic = panic_percent(annotations)
    size = int(annotations.get(TABLE_SIZE, TABLE_SIZE_DEFAULT))
    return size, 0 if panic is None else max(1, panic)


def backends_of(
    world: World,
    frontends: Mapping[Frontend, FrontendEntry],
    members: Mapping[str, Member],
    port: ServicePort,
) -> list[http.Backend]:
    """Who is behind a service's port now."""
    at = {address: one for one in members.values() for address in one.addresses}
    return list(_members(_entry(world, frontends, port), at))


def _backends(way: Way) -> Iterator[ServicePort]:
    """All that it leads to, copies included."""
    yield from (one.to for one in way.backends if one.to is not None)
    yield from (one for one in way.mirrors.values() if one is not None)


def _entry(
    world: World, frontends: Mapping[Frontend, FrontendEntry], port: ServicePort
) -> FrontendEntry:
    """As the kernel has it, of the service's first address."""
    for address in cluster_addresses(world.services[port.service]):
        return frontends.get(Frontend.at(address, port.port, TCP), NOBODY)
    return NOBODY


def _members(entry: FrontendEntry, at: Mapping[IPAddress, Member]) -> Iterator[http.Backend]:
    """Those in the mesh: nobody else has a tunnel."""
    for one in entry.backends:
        if (member := at.get(one.address)) is not None:
            yield http.Backend(member, one.address, one.port, one.weight)
