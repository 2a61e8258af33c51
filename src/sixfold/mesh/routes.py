"""Which request goes where? HTTPRoutes and GRPCRoutes, compiled to one ordered list per port.

Pure. A route is attached to a port of a Service. One in the Service's own namespace (a
producer's) holds for all clients, one in another namespace (a consumer's) for the clients of that
namespace, and instead of the producer's. Source: Gateway API 1.4, GEP-1324 (GAMMA).

Order of matches, the first difference decides: exact path, regular expression, longest prefix;
then a method, then the most headers, then the most query parameters; then the oldest route, its
name, the rule's place, the match's place. A request that nothing matches is answered 404.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from sixfold.mesh.condition import Condition
from sixfold.model.duration import seconds
from sixfold.model.gateway import GROUP
from sixfold.model.httproute import (
    BackendReference,
    Filter,
    GRPCMatch,
    GRPCRoute,
    GRPCRule,
    HTTPBackend,
    HTTPMatch,
    HTTPRoute,
    HTTPRule,
    ParentReference,
    PathMatch,
    Retry,
    Route,
    SessionPersistence,
    ValueMatch,
)
from sixfold.model.service import Service
from sixfold.model.streamroute import StreamRoute, StreamRule, TCPRoute, TLSRoute
from sixfold.model.trafficpolicy import ConsistentHash, FaultInjection, RateLimit
from sixfold.model.world import World

SERVICE = ("", "Service")
GRPC = ValueMatch("content-type", "application/grpc.*", "RegularExpression")
REPEATABLE = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")  # RFC 9110, §9.2.2
PATH_ORDER = {"Exact": 0, "RegularExpression": 1, "PathPrefix": 2}


class ServicePort(NamedTuple):
    service: str  # "namespace/name"
    port: int

    def __str__(self) -> str:
        return f"{self.service}:{self.port}"


class Backend(NamedTuple):
    """``to`` is None: there is no such backend, or the route may not use it; answered 500."""

    to: ServicePort | None
    weight: int
    filters: tuple[Filter, ...] = ()


class RuleName(NamedTuple):
    """Which rule of which route; ``name`` "": it has none."""

    kind: str
    namespace: str
    route: str
    name: str
    place: int


class Limit(NamedTuple):
    """Ways with the same ``owner`` are counted together: what a policy is attached to."""

    owner: str
    rate: RateLimit


@dataclass(frozen=True, slots=True)
class Way:
    """What happens to the requests of one match.

    name       where it is written: "default/canary rules[0].matches[1]"
    backends   none: answered 500, unless a filter answers
    timeout_s  of the whole request; 0: none
    try_s      of each try; 0: none
    rule       where it is written; None: nowhere, it leads to the service itself
    hashes     what picks the backend, in order, where the algorithm hashes
    repeatable methods that the route's codes are tried again for
    limits     every one of them holds
    """

    name: str
    match: HTTPMatch
    filters: tuple[Filter, ...]
    backends: tuple[Backend, ...]
    mirrors: Mapping[int, ServicePort | None] = field(default_factory=dict)  # by place in filters
    timeout_s: float = 0.0
    try_s: float = 0.0
    retry: Retry | None = None
    rule: RuleName | None = None
    session: SessionPersistence | None = None
    hashes: tuple[ConsistentHash, ...] = ()
    repeatable: tuple[str, ...] = REPEATABLE
    limits: tuple[Limit, ...] = ()
    fault: FaultInjection | None = None


@dataclass(frozen=True, slots=True)
class Routed:
    """One port of a Service: ``producer`` for everybody, unless a namespace has its own."""

    producer: tuple[Way, ...] | None = None
    consumers: Mapping[str, tuple[Way, ...]] = field(default_factory=dict)

    def for_clients_of(self, namespace: str) -> tuple[Way, ...] | None:
        """None: requests are not routed, connections are balanced as without any route."""
        return self.consumers.get(namespace, self.producer)

    @property
    def ways(self) -> Iterator[Way]:
        for table in (self.producer or (), *self.consumers.values()):
            yield from table


class Attached(NamedTuple):
    """A route's place at one of its parents."""

    parent: ParentReference
    ports: tuple[ServicePort, ...]
    accepted: Condition


def ordered(ways: list[tuple[object, Way]]) -> tuple[Way, ...]:
    """By their places."""
    return tuple(way for _, way in sorted(ways, key=lambda one: one[0]))  # type: ignore[arg-type, return-value]


def attachments(world: World, route: Route | StreamRoute) -> Iterator[Attached]:
    """A route's services, and the ports that it is attached to at each."""
    for parent in route.spec.parent_refs:
        if (parent.group, parent.kind) != SERVICE:
            continue  # a Gateway: ``listeners``
        ports = _meant(world, route, parent)
        if not world.has_mesh:
            message = "there is no mesh to route requests: sixfold up --mtls strict"
            yield Attached(parent, (), Condition("Accepted", False, "NoMesh", message))
        elif not ports:
            message = _nobody(world, route, parent)
            yield Attached(parent, (), Condition("Accepted", False, "NoMatchingParent", message))
        elif isinstance(route, StreamRoute) and (message := _taken(world, route, ports)):
            yield Attached(parent, (), Condition("Accepted", False, "Conflicted", message))
        else:
            yield Attached(parent, ports, Condition("Accepted", True, "Accepted", "in force"))


def _meant(
    world: World, route: Route | StreamRoute, parent: ParentReference
) -> tuple[ServicePort, ...]:
    """The ports of a service that a parentRef means."""
    name = _service_of(route, parent)
    service = world.services.get(name)
    return tuple(
        ServicePort(name, port.port)
        for port in (service.spec.ports if service is not None else ())
        if port.protocol == "TCP" and parent.port in (None, port.port)
    )


def _nobody(world: World, route: Route | StreamRoute, parent: ParentReference) -> str:
    """Why it means none."""
    name = _service_of(route, parent)
    if name not in world.services:
        return f"there is no service {name}"
    return f"service {name} has no TCP port {parent.port or ''}".rstrip()


def _service_of(route: Route | StreamRoute, parent: ParentReference) -> str:
    return f"{parent.namespace or route.metadata.namespace}/{parent.name}"


def _taken(world: World, route: StreamRoute, ports: Sequence[ServicePort]) -> str:
    """Why a route of a kind that reads more of what is said has one of these; "": none has."""
    kinds: list[tuple[Iterable[Route | StreamRoute], str]]
    kinds = [(world.routes.values(), "requests to {} are routed, by an HTTPRoute or GRPCRoute")]
    if isinstance(route, TCPRoute):
        named = (one for one in world.streams.values() if isinstance(one, TLSRoute))
        kinds.append((named, "connections to {} are routed by name, by a TLSRoute"))
    for others, why in kinds:
        taken = {
            port
            for one in others
            for parent in one.spec.parent_refs
            if (parent.group, parent.kind) == SERVICE
            for port in _meant(world, one, parent)
        }
        if port := next((it for it in ports if it in taken), None):
            return why.format(port)
    return ""


def resolved(world: World, route: Route | StreamRoute) -> Condition:
    """Whether all backends are there, and may be used."""
    rules: Sequence[HTTPRule | GRPCRule | StreamRule] = route.spec.rules
    for rule in rules:
        for backend in rule.backend_refs:
            why = _unresolved(world, route, backend)
            if why is not None:
                return why
        for step in () if isinstance(rule, StreamRule) else rule.filters:
            if step.request_mirror is not None:
                why = _unresolved(world, route, step.request_mirror.backend_ref)
                if why is not None:
                    return why
    return Condition("ResolvedRefs", True, "ResolvedRefs", "all backends are there")


def ways_of(world: World, route: Route) -> Iterator[tuple[object, Way]]:
    """One for each match of each rule, with its place in the order of matches."""
    meta = route.metadata
    age = (meta.creation_timestamp or "9", meta.namespace, meta.name)
    rules: Sequence[HTTPRule | GRPCRule] = route.spec.rules
    for at, rule in enumerate(rules):
        matches = [_as_http(one) if isinstance(one, GRPCMatch) else one for one in rule.matches]
        if not matches:
            matches = [_as_http(GRPCMatch()) if isinstance(route, GRPCRoute) else HTTPMatch()]
        way = Way(
            "",
            matches[0],
            tuple(rule.filters),
            tuple(_backend(world, route, one) for one in rule.backend_refs),
            {
                place: target(world, route, step.request_mirror.backend_ref)
                for place, step in enumerate(rule.filters)
                if step.request_mirror is not None
            },
            rule=RuleName(route.kind, meta.namespace, meta.name, rule.name, at),
            session=rule.session_persistence,
        )
        if isinstance(route, HTTPRoute):
            limits = route.spec.rules[at].timeouts
            way = replace(
                way,
                timeout_s=seconds(limits.request) if limits.request else 0.0,
                try_s=seconds(limits.backend_request) if limits.backend_request else 0.0,
                retry=route.spec.rules[at].retry,
            )
        for number, match in enumerate(matches):
            name = f"{meta.namespace}/{meta.name} rules[{at}].matches[{number}]"
            yield (*_specificity(match), *age, at, number), replace(way, name=name, match=match)


def _specificity(match: HTTPMatch) -> tuple[int, int, int, int, int]:
    """Smaller is asked first."""
    path = match.path
    length = -len(path.value) if path.type == "PathPrefix" else 0
    method, headers = match.method is None, len(first_of_each(match.headers))
    return PATH_ORDER[path.type], length, method, -headers, -len(match.query_params)


def first_of_each(
    wanted: Iterable[ValueMatch], spell: Callable[[str], str] = str.lower
) -> dict[str, ValueMatch]:
    """Of equal names the first counts; headers are, whatever their case."""
    found: dict[str, ValueMatch] = {}
    for one in wanted:
        found.setdefault(spell(one.name), one)
    return found


def _as_http(match: GRPCMatch) -> HTTPMatch:
    """A call is POST /service/method with a content type of its own."""
    method = match.method
    if method is None or not (method.service or method.method):
        path = PathMatch("PathPrefix", "/")
    elif method.type == "Exact" and method.service and method.method:
        path = PathMatch("Exact", f"/{method.service}/{method.method}")
    elif method.type == "Exact" and method.service:
        path = PathMatch("PathPrefix", f"/{method.service}")
    else:
        quote = re.escape if method.type == "Exact" else str
        service = quote(method.service) if method.service else "[^/]+"
        called = quote(method.method) if method.method else "[^/]+"
        path = PathMatch("RegularExpression", f"/{service}/{called}")
    return HTTPMatch(path, [*match.headers, GRPC])


def _backend(world: World, route: Route, reference: HTTPBackend) -> Backend:
    to = target(world, route, reference)
    return Backend(to, reference.weight, tuple(reference.filters))


def target(
    world: World, route: Route | StreamRoute, reference: BackendReference
) -> ServicePort | None:
    """None: it is none, or the route may not use it."""
    if _unresolved(world, route, reference) is not None or reference.port is None:
        return None
    return ServicePort(_named(route, reference), reference.port)


def _named(route: Route | StreamRoute, reference: BackendReference) -> str:
    return f"{reference.namespace or route.metadata.namespace}/{reference.name}"


def _unresolved(
    world: World, route: Route | StreamRoute, reference: BackendReference
) -> Condition | None:
    """Why a backend is none; None when it is one."""
    name = _named(route, reference)
    if (reference.group, reference.kind) != SERVICE:
        message = f"{reference.kind} {name}: only services are backends"
        return Condition("ResolvedRefs", False, "InvalidKind", message)
    if not granted(world, route, reference):
        message = f"{name}: no ReferenceGrant in its namespace lets {route.kind}s refer to it"
        return Condition("ResolvedRefs", False, "RefNotPermitted", message)
    service: Service | None = world.services.get(name)
    ports = [] if service is None else service.spec.ports
    if not any(port.port == reference.port and port.protocol == "TCP" for port in ports):
        message = f"there is no service {name} with a TCP port {reference.port}"
        return Condition("ResolvedRefs", False, "BackendNotFound", message)
    if isinstance(route, StreamRoute) and service is not None and service.spec.headless:
        message = f"service {name} is headless: connections go to a service's own address"
        return Condition("ResolvedRefs", False, "UnsupportedValue", message)
    return None


def granted(world: World, route: Route | StreamRoute, reference: BackendReference) -> bool:
    """Whether the owner of another namespace lets this route refer to its service."""
    own = route.metadata.namespace
    to = (*SERVICE, reference.namespace or own, reference.name)
    return let(world, (GROUP, route.kind, own), to)


def let(world: World, who: tuple[str, str, str], to: tuple[str, str, str, str]) -> bool:
    """Whether a ReferenceGrant lets objects of a group, kind and namespace refer to one by name."""
    group, kind, there, name = to
    return there == who[2] or any(
        grant.metadata.namespace == there
        and any((one.group, one.kind, one.namespace) == who for one in grant.spec.from_)
        and any(
            (one.group, one.kind) == (group, kind) and one.name in ("", name)
            for one in grant.spec.to
        )
        for grant in world.grants.values()
    )
