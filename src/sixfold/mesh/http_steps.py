"""The steps of a plan of requests: what each is made of, and what it makes of that.

Pure. ``http_plan`` makes a step anew when one of its parts is another, so a step reads nothing
that is not among them: of a world, what is said where it is called.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from itertools import chain
from typing import NamedTuple

from sixfold.balancing.members import cluster_addresses
from sixfold.mesh import conditions, copies, http, resilience
from sixfold.mesh import tokens as jwt
from sixfold.mesh.backend_tls import Tls
from sixfold.mesh.foreign import Foreign
from sixfold.mesh.kept import Kept
from sixfold.mesh.member import Member, authority
from sixfold.mesh.messages import Name, Resource
from sixfold.mesh.requests import request_rules, told_rules
from sixfold.mesh.routes import ServicePort, Way
from sixfold.mesh.stream_resources import listener, service
from sixfold.mesh.streams import RoutedStreams, ServiceStreams, of_clients
from sixfold.mesh.tokens import Keys
from sixfold.mesh.traffic import Traffic
from sixfold.model.algorithm import TABLE_SIZE, TABLE_SIZE_DEFAULT, Algorithm
from sixfold.model.authorizationpolicy import AuthorizationPolicy
from sixfold.model.datapath import PROTOCOL_NUMBERS, Frontend, FrontendEntry, IPAddress, RoutedPorts
from sixfold.model.health import panic_percent
from sixfold.model.locality import Failover, failover_of
from sixfold.model.mesh import RoutedBy
from sixfold.model.requestauthentication import RequestAuthentication
from sixfold.model.service import Service
from sixfold.model.trafficpolicy import TrafficPolicySpec
from sixfold.model.world import World
from sixfold.policy.plan import PolicyPlan
from sixfold.policy.requests import Requests

TCP = PROTOCOL_NUMBERS["TCP"]
NOBODY = FrontendEntry(0, ())
NO_KEYS: Keys = {}

Resources = Mapping[Name, Resource]
Ever = Mapping[str, tuple[ServicePort, ...]]  # by service


class Behind(NamedTuple):
    """Whom requests to a port of a service lead to, and how one is picked."""

    algorithm: Algorithm
    to: tuple[http.Backend, ...]
    overprovisioning: int


class Aimed(NamedTuple):
    """What services mean for the pods behind them, by pod.

    bound    services whose pods get so many connections at most
    tls      services whose pods speak TLS
    ports    of pods, behind services
    limited  places, and the service that bounds their connections
    secured  places that speak TLS
    """

    bound: Mapping[ServicePort, TrafficPolicySpec]
    tls: Mapping[ServicePort, Tls]
    ports: Mapping[str, set[int]]
    limited: Mapping[str, Mapping[str, ServicePort]]
    secured: Mapping[str, Mapping[str, tuple[ServicePort, Tls]]]


# --- what parts are ------------------------------------------------------------------------------


def if_(given: object, parts: tuple[object, ...]) -> tuple[object, ...]:
    """What is not read without these."""
    return parts if given else ()


def read(policy: PolicyPlan) -> tuple[object, ...]:
    """What is read of a policy plan, which itself is another in each round."""
    tables = policy.tables.group_of, policy.tables.value_of
    return *tables, policy.rules, policy.policies, policy.about_requests, policy.endpoint_cidrs


def narrows(world: World) -> bool:
    """Whether a policy asks which ports of services are HTTP."""
    narrowing = AuthorizationPolicy, RequestAuthentication
    return any(isinstance(one, narrowing) for one in world.policies.values())


# --- steps ---------------------------------------------------------------------------------------


def there(services: Mapping[str, Service], ports: frozenset[ServicePort]) -> frozenset[ServicePort]:
    """Those whose service is still there."""
    gone = {port for port in ports if port.service not in services}
    return ports - gone if gone else ports


def led(ways: Iterable[Way]) -> frozenset[ServicePort]:
    """Where ways lead to, copies included."""
    return frozenset(
        to
        for way in ways
        for to in (*(one.to for one in way.backends), *way.mirrors.values())
        if to is not None
    )


def behind(
    ports: Iterable[ServicePort],
    services: Mapping[str, Service],
    frontends: Mapping[Frontend, FrontendEntry],
    members: Mapping[str, Member],
    kept: Kept,
) -> Mapping[ServicePort, Behind]:
    """As the kernel has it; those in the mesh: nobody else has a tunnel."""
    at = {address: one for one in members.values() for address in one.addresses}
    found = {}
    for port in sorted(ports):
        entry = _entry(services, frontends, port)
        places = kept.of(port, (entry,), partial(_places, entry))
        to = (http.Backend(at[it[0]], *it) for it in places if it[0] in at)
        failover = failover_of(services[port.service].metadata.annotations) or Failover()
        found[port] = Behind(entry.algorithm, tuple(to), failover.overprovisioning)
    return found


def _places(entry: FrontendEntry) -> list[tuple[IPAddress, int, int, int]]:
    return [
        (one.address, one.port, one.weight, priority)
        for priority, place in enumerate((entry.backends, *entry.standby))
        for one in place
    ]


def _entry(
    services: Mapping[str, Service],
    frontends: Mapping[Frontend, FrontendEntry],
    port: ServicePort,
) -> FrontendEntry:
    """Of the service's first address."""
    for address in cluster_addresses(services[port.service]):
        return frontends.get(Frontend.at(address, port.port, TCP), NOBODY)
    return NOBODY


def backends_of(
    world: World,
    frontends: Mapping[Frontend, FrontendEntry],
    members: Mapping[str, Member],
    port: ServicePort,
) -> tuple[http.Backend, ...]:
    """Who is behind a service's port now, for who has no use for a standby."""
    found = behind([port], world.services, frontends, members, Kept())[port].to
    return tuple(one for one in found if not one.priority)


def pods(behind: Mapping[ServicePort, Behind]) -> Mapping[ServicePort, frozenset[str]]:
    return {port: frozenset(it.member.pod for it in one.to) for port, one in behind.items()}


def aimed(
    behind: Mapping[ServicePort, Behind], traffic: Traffic, tls: Mapping[ServicePort, Tls]
) -> Aimed:
    specs = {port: traffic.spec(port) for port in behind}
    bound = {port: it for port, it in specs.items() if resilience.limits_connections(it)}
    ports: defaultdict[str, set[int]] = defaultdict(set)
    limited: defaultdict[str, dict[str, ServicePort]] = defaultdict(dict)
    secured: defaultdict[str, dict[str, tuple[ServicePort, Tls]]] = defaultdict(dict)
    for port, there in behind.items():
        for one in there.to:
            ports[one.member.pod].add(one.port)
            if port in tls:
                place = authority(one.address, one.port)
                secured[one.member.pod].setdefault(place, (port, tls[port]))
            if port in bound:
                limited[one.member.pod].setdefault(authority(one.address, one.port), port)
    secured_by = {port: one for port, one in tls.items() if port in behind}
    return Aimed(bound, secured_by, ports, limited, secured)


def looked_into(
    world: World, requests: Requests, members: Iterable[str]
) -> Mapping[str, frozenset[int]]:
    """Ports about whose requests a policy is, by pod."""
    found = {key: requests.ports(world.endpoints[key]) for key in members}
    return {key: ports for key, ports in found.items() if ports}


def scopes(
    ever: Ever, services: Mapping[str, Service], members: Mapping[str, Member], kept: Kept
) -> Resources:
    """Which address picks which table; nobody asks where there is no pod."""
    tables: dict[IPAddress, str] = {
        address: http.routes_name(name)
        for name in ever
        for address in cluster_addresses(services[name])
    }
    tables.update((it, http.PODS) for one in members.values() for it in one.addresses)
    found = [
        kept.of(address, (table,), partial(http.scope, address, table))
        for address, table in tables.items()
    ]
    return by_key([*found, kept.of("pods", (), http.pods)]) if members else {}


def clusters(
    behind: Mapping[ServicePort, Behind],
    foreign: Collection[ServicePort],
    traffic: Traffic,
    world: World,
    kept: Kept,
) -> Resources:
    """Of services of ours."""
    lifetime = timedelta(seconds=world.config.svid_ttl_s / 2)
    found = []
    for port, there in behind.items():
        if port in foreign:
            continue
        ids = frozenset(one.member.id for one in there.to)
        annotated = _annotated(world.services[port.service].metadata.annotations)
        parts = there.algorithm, ids, traffic.spec(port), lifetime, *annotated
        found.append(kept.of(port, parts, partial(http.service, port, *parts)))
    return by_key(found)


def _annotated(annotations: Mapping[str, str]) -> tuple[int, int]:
    """Size of a Maglev table; panic threshold: 0 is never, 1 when nobody is left."""
    panic = panic_percent(annotations)
    size = int(annotations.get(TABLE_SIZE, TABLE_SIZE_DEFAULT))
    return size, 0 if panic is None else max(1, panic)


def table_size(world: World, port: ServicePort) -> int:
    return _annotated(world.services[port.service].metadata.annotations)[0]


def endpoints(
    behind: Mapping[ServicePort, Behind], foreign: Collection[ServicePort], kept: Kept
) -> Resources:
    return by_key(
        kept.of(
            port,
            (there.to, there.overprovisioning),
            partial(http.endpoints, port, there.to, there.overprovisioning),
        )
        for port, there in behind.items()
        if port not in foreign
    )


def tokens(
    world: World,
    requests: Requests,
    members: Iterable[str],
    keys: Keys,
    gateways: Collection[str],
    kept: Kept,
) -> Resources:
    """Of every pod: its listener waits for what its filter is told."""
    found = []
    for key in members:
        written = requests.authorizations.tokens(world.endpoints[key])
        audit = requests.authorizations.in_audit(world.endpoints[key])
        parts = written, keys if written else NO_KEYS, audit, key in gateways
        found.append(kept.of(key, parts, partial(jwt.configured, key, *parts)))
    return by_key(found)


def listeners(
    world: World,
    passed: Mapping[ServicePort, RoutedStreams],
    ever_passed: Iterable[ServicePort],
    foreign: Mapping[ServicePort, Foreign],
    routed: Collection[ServicePort],
    members: Mapping[str, Member],
    connections_max: int,
    kept: Kept,
) -> Resources:
    """Of each pod, where its requests are captured; ``routed``: what is read there."""
    tunnels = [one for port, one in foreign.items() if port not in routed]
    away = tuple((members.get(one.gateway), one) for one in tunnels)
    told = _by_namespace(world, passed, [it for it in ever_passed if it not in foreign], members)
    found = []
    for key, member in members.items():
        parts = member, connections_max, told[key.partition("/")[0]], away
        found.append(kept.of(key, parts, partial(http.outbound, *parts)))
    return by_key(found)


def named(
    world: World,
    passed: Mapping[ServicePort, RoutedStreams],
    ever_named: Iterable[ServicePort],
    foreign: Collection[ServicePort],
    members: Mapping[str, Member],
    connections_max: int,
    kept: Kept,
) -> Resources:
    """Of each pod, where connections to services with a TLSRoute are captured."""
    ports = [it for it in ever_named if it not in foreign]
    told = _by_namespace(world, passed, ports, members) if ports else {}
    found = []
    for key, member in members.items() if told else ():
        parts = member, told[key.partition("/")[0]], connections_max
        found.append(kept.of(key, parts, partial(listener, *parts)))
    return by_key(found)


def _by_namespace(
    world: World,
    passed: Mapping[ServicePort, RoutedStreams],
    ports: Iterable[ServicePort],
    members: Iterable[str],
) -> dict[str, tuple[ServiceStreams, ...]]:
    """What clients are told of ports whose connections are, or were, routed."""
    namespaces = {key.partition("/")[0] for key in members}
    return {it: tuple(of_clients(world, ports, passed, it)) for it in namespaces}


def copying(ways: Iterable[Way]) -> bool:
    """Whether some of these make copies of requests."""
    return any(way.mirrors for way in ways)


def copied(wanted: bool, members: Mapping[str, Member], kept: Kept) -> Resources:
    """Of every pod, which may be a client, where its copies are sent from."""
    found: list[Resource] = []
    for key, member in members.items() if wanted else ():
        found += kept.of(key, (member,), partial(copies.resources_of, member))
    return by_key(found)


def dialled(services: Mapping[str, Service], ports: Iterable[ServicePort]) -> Resources:
    """Services that connections are passed on to."""
    return by_key(
        service(port, address)
        for port in sorted(ports)
        for address in cluster_addresses(services[port.service])[:1]
    )


def targets(passed: Mapping[ServicePort, RoutedStreams]) -> Iterator[ServicePort]:
    for one in passed.values():
        for stream in chain(one.producer or (), *one.consumers.values()):
            yield from (to.to for to in stream.way.backends if to.to is not None)


def dialled_at(
    services: Mapping[str, Service],
    by_request: Iterable[ServicePort],
    by_name: Iterable[ServicePort],
) -> RoutedPorts:
    """Where clients dial ports that are looked at, and what is read there."""
    return {
        (address, port.port): what
        for ports, what in ((by_request, RoutedBy.REQUEST), (by_name, RoutedBy.NAME))
        for port in ports
        for address in cluster_addresses(services[port.service])
    }


def judged(
    world: World,
    policy: PolicyPlan,
    requests: Requests,
    members: Mapping[str, Member],
    ports: Mapping[str, frozenset[int]],
    aimed: Aimed,
) -> dict[str, list[dict[str, object]]]:
    """Routes of requests that arrive at a pod: of those that come through services, or that a
    policy is about."""
    looked_at = sorted({*ports, *aimed.ports})
    if not looked_at:
        return {}
    numbers = {rule: number for number, rule in policy.rules.items()}
    clients = {key: (world.endpoints[key], one) for key, one in members.items()}
    asked = {
        key: (
            *(requests, world.endpoints[key]),
            *({*ports.get(key, ()), *aimed.ports.get(key, ())}, clients, numbers),
        )
        for key in looked_at
    }
    return {
        key: http.judged(
            request_rules(*parts),
            told_rules(*parts),
            aimed.limited.get(key, {}),
            conditions.of_requests(
                requests.authorizations.of(world.endpoints[key]), world.config.trust_domain
            ),
            aimed.secured.get(key, {}),
            [authority(at, port) for at in members[key].addresses for port in ports.get(key, ())],
            requests.headers(world.endpoints[key]),
        )
        for key, parts in asked.items()
    }


def tunnels(
    world: World, requests: Requests, members: Iterable[str]
) -> Mapping[str, dict[str, object]]:
    """What AuthorizationPolicies say of tunnels that arrive, by pod."""
    found = {key: requests.authorizations.of(world.endpoints[key]) for key in members}
    domain = world.config.trust_domain
    return {key: conditions.of_tunnels(those, domain) for key, those in found.items() if those}


def by_key(resources: Iterable[Resource]) -> Resources:
    return {one.key: one for one in resources}
