"""Which ways have the requests to each port? Of world after world: cost follows what changed.

Pure. A route is compiled again when it is another, when a service that it names is, or when what
all of them depend on is; a port is ordered again when one of its routes was compiled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from sixfold.mesh.routes import Routed, ServicePort, Way, attachments, ordered, ways_of
from sixfold.model.httproute import BackendReference, ParentReference, Route
from sixfold.model.layers import Layers, differing
from sixfold.model.service import Service
from sixfold.model.world import World


class _Compiled(NamedTuple):
    """One route: what it is attached to, its ways with their places, the services it names."""

    namespace: str
    ports: tuple[ServicePort, ...]
    ways: list[tuple[object, Way]]
    services: frozenset[str]


class RouteTables:
    """Follows worlds; equal to what a new one says of the last of them."""

    def __init__(self) -> None:
        self._routes: Mapping[str, Route] = {}
        self._services: Mapping[str, Service] = {}
        self._of_all: tuple[object, ...] = ()  # what every route depends on
        self._compiled: dict[str, _Compiled] = {}  # by key of the route, as below
        self._naming: defaultdict[str, set[str]] = defaultdict(set)  # by service
        self._at: defaultdict[ServicePort, set[str]] = defaultdict(set)
        self._found: Layers[ServicePort, Routed] = Layers()

    def follow(self, world: World) -> Mapping[ServicePort, Routed]:
        """Every port that some route is attached to."""
        of_all = world.grants, world.has_mesh
        stale = differing(self._routes, world.routes)
        if of_all != self._of_all:
            stale |= self._routes.keys() | world.routes.keys()
        for name in differing(self._services, world.services):
            stale |= self._naming.get(name, set())
        touched = {port for key in stale for port in self._compile(world, key)}
        self._routes, self._services, self._of_all = world.routes, world.services, of_all
        puts = {port: self._routed(port) for port in touched if self._at[port]}
        gone = touched - puts.keys()
        for port in gone:
            del self._at[port]
        self._found = self._found.changed(puts, gone & self._found.keys())
        return self._found

    def _compile(self, world: World, key: str) -> set[ServicePort]:
        """One route anew; ports that it was or is attached to."""
        touched: set[ServicePort] = set()
        if (before := self._compiled.pop(key, None)) is not None:
            touched.update(before.ports)
            for port in before.ports:
                self._at[port].discard(key)
            for name in before.services:
                self._naming[name].discard(key)
        if (route := world.routes.get(key)) is None:
            return touched
        ports = tuple(port for one in attachments(world, route) for port in one.ports)
        ways = list(ways_of(world, route)) if ports else []
        services = frozenset(_named(route))
        one = _Compiled(route.metadata.namespace, ports, ways, services)
        self._compiled[key] = one
        for port in ports:
            self._at[port].add(key)
        for name in services:
            self._naming[name].add(key)
        return touched.union(ports)

    def _routed(self, port: ServicePort) -> Routed:
        home = port.service.partition("/")[0]
        owners: defaultdict[str, list[tuple[object, Way]]] = defaultdict(list)
        for key in sorted(self._at[port]):
            one = self._compiled[key]
            owners[one.namespace] += one.ways
        return Routed(
            ordered(owners[home]) if home in owners else None,
            {owner: ordered(ways) for owner, ways in sorted(owners.items()) if owner != home},
        )


def plan_routes(world: World) -> Mapping[ServicePort, Routed]:
    """Every port that some route is attached to, of one world."""
    return RouteTables().follow(world)


def _named(route: Route) -> Iterator[str]:
    """Services that a route names, and whatever else it names in their place."""
    mirrors = (
        step.request_mirror.backend_ref
        for rule in route.spec.rules
        for step in rule.filters
        if step.request_mirror is not None
    )
    backends = (one for rule in route.spec.rules for one in rule.backend_refs)
    named: Iterable[ParentReference | BackendReference]
    named = *route.spec.parent_refs, *backends, *mirrors
    for one in named:
        yield f"{one.namespace or route.metadata.namespace}/{one.name}"
