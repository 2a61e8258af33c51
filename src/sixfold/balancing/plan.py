"""Balancing: which backends stand behind each service address and port?

Pure: a world in, EndpointSlices and frontends out. What the kernel then does with a frontend
(``bpf/socket.bpf.c``): a connect to it goes to one of its backends, chosen as ``choice`` says; no
backend, or a port that the service does not have, and the connect is refused at once. So it is
with all of the service networks; an address of a service elsewhere has a frontend that says so.

Theory of operation of ``BalancingPlanner``. Each service has a fragment: its slices and
frontends, a pure function of the Service object, of the endpoints that it selects, of the slices
that were written for it and of what was seen of its backends. A new world is compared with the
last one by object identity; a changed endpoint dirties the services that select its old or new
labels (found through one label of their selector), and only dirty fragments are built again.
Cluster addresses are unique: whoever fills them into the Services sees to that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from sixfold.balancing.changes import changes
from sixfold.balancing.choice import Choice, choose
from sixfold.balancing.divide import Division, behind, divide, node_of, trusted_of
from sixfold.balancing.labels import LabelIndex, LabelKey
from sixfold.balancing.members import (
    Member,
    addresses_of,
    selects,
    takes_new,
    target_ports,
)
from sixfold.balancing.slices import slices_of
from sixfold.balancing.successors import successor_ways
from sixfold.balancing.table import table_of
from sixfold.balancing.ways import Way, local_only, source_ranges, ways
from sixfold.balancing.written import written_members
from sixfold.model.config import DEFAULTS
from sixfold.model.datapath import (
    ANY_PROTOCOL,
    PROTOCOL_NUMBERS,
    Backend,
    Frontend,
    FrontendEntry,
    IPAddress,
    IPNetwork,
    SourceRange,
)
from sixfold.model.endpoint import Endpoint
from sixfold.model.health_port import HealthPort
from sixfold.model.layers import Layers
from sixfold.model.locality import NO_NODE, Here
from sixfold.model.seen import NOTHING_SEEN, LevelKey, Seen
from sixfold.model.service import EndpointSlice, IPFamily, Service, ServicePort
from sixfold.model.world import World

ANY_PORT = 0  # with ANY_PROTOCOL: the address is a service's, whatever the port


@dataclass(frozen=True, slots=True)
class BalancingPlan:
    """Keys of ``slices`` are ``namespace/service``; ``changed`` since the planner's last plan.

    health  of services with failover: percent by level, as it is
    health_ports  what the node answers at each healthCheckNodePort
    """

    slices: Mapping[str, tuple[EndpointSlice, ...]]
    frontends: Mapping[Frontend, FrontendEntry]
    source_ranges: frozenset[SourceRange] = frozenset()
    changed: frozenset[str] = frozenset()
    health: Mapping[str, Mapping[LevelKey, int]] = field(default_factory=dict)
    health_ports: tuple[HealthPort, ...] = ()


class Fragment(msgspec.Struct, frozen=True):
    """What one service contributes."""

    slices: tuple[EndpointSlice, ...]
    frontends: Mapping[Frontend, FrontendEntry]
    source_ranges: frozenset[SourceRange] = frozenset()
    health: Mapping[LevelKey, int] = msgspec.field(default_factory=dict)
    health_port: HealthPort | None = None


def plan_balancing(world: World, number: Callable[[str], int]) -> BalancingPlan:
    """The whole plan from nothing; ``number`` gives a service (``namespace/name``) its number."""
    return BalancingPlanner(number).plan(world)


def plan_service(
    service: Service,
    endpoints: Sequence[Endpoint],
    number: Callable[[str], int],
    written: Sequence[EndpointSlice] = (),
    seen: Seen = NOTHING_SEEN,
    here: Here = NO_NODE,
    networks: Iterable[IPNetwork] = DEFAULTS.service_networks,
    *,
    successors: bool = False,
) -> Fragment:
    """One service's part of the plan; ``endpoints`` are those it selects, in order.

    written     slices that name the service, in order
    networks    whose addresses are services, whatever the port: what no frontend has is refused
    successors  a pod asks to be redirected from retired addresses
    """
    frontends: dict[Frontend, FrontendEntry] = {}
    health: dict[LevelKey, int] = {}
    ranges: frozenset[SourceRange] = frozenset()
    found = [*ways(service)]
    health_port: HealthPort | None = None
    successors = successors and service.spec.headless
    if found or successors:
        number_here = number(f"{service.metadata.namespace}/{service.metadata.name}")
        members: list[Member] = [*endpoints, *written_members(written)]
        if successors:
            found += successor_ways(service, members, number_here)
        ranges = frozenset(SourceRange(number_here, it) for it in source_ranges(service))
        health_port = _health_port(service, members, seen, here)
        for way in found:
            able = behind(service, members, here) if way.flags else members
            if way.alone and (way.flags or not any(way.address in each for each in networks)):
                wildcard = Frontend.at(way.address, ANY_PORT, ANY_PROTOCOL)
                frontends[wildcard] = FrontendEntry(number_here, (), flags=way.flags)
            for dialled, port in way.ports:
                frontend = Frontend.at(way.address, dialled, PROTOCOL_NUMBERS[port.protocol])
                choice = choose(service, port, seen)
                division = division_of(service, port, able, way.address, seen, here)
                frontends[frontend] = _entry(service, number_here, port, choice, division, way)
                for level in division.levels if not way.flags else ():
                    key_of = (port.port, port.protocol, family_of(way.address), level.name)
                    health[key_of] = level.health
    slices = (*slices_of(service, endpoints, here), *written)
    return Fragment(slices, frontends, ranges, health, health_port)


def _health_port(
    service: Service, members: Sequence[Member], seen: Seen, here: Here
) -> HealthPort | None:
    """Endpoints of this node that take new connections, where somebody outside asks for them."""
    port, meta = service.spec.health_check_node_port, service.metadata
    if not port or not local_only(service):
        return None
    able = (
        one for one in members if node_of(one, here) == here.node and takes_new(service, one, seen)
    )
    return HealthPort(port, meta.namespace, meta.name, sum(1 for _ in able))


def division_of(
    service: Service,
    port: ServicePort,
    members: Sequence[Member],
    frontend: IPAddress,
    seen: Seen,
    here: Here,
) -> Division:
    """Who gets how much of what is dialled at one frontend."""
    family = family_of(frontend)
    places = zip(members, addresses_of(members, family), target_ports(port, members), strict=True)
    able = [one for one, address, number in places if address is not None and number is not None]
    return divide(service, able, here, seen, trusted_of(seen, port, family))


def family_of(address: IPAddress) -> IPFamily:
    return "IPv4" if address.version == 4 else "IPv6"


def _entry(
    service: Service,
    number: int,
    port: ServicePort,
    choice: Choice,
    division: Division,
    way: Way,
) -> FrontendEntry:
    backends = _backends(port, division.shares, way.address)
    table = table_of(choice.algorithm, backends, choice.table_size)
    return FrontendEntry(
        *(number, backends, choice.algorithm, table, service.spec.affinity_s, way.flags),
        tuple(_backends(port, place, way.address) for place in division.standby),
    )


def _backends(
    port: ServicePort, shares: Sequence[tuple[Member, int]], frontend: IPAddress
) -> tuple[Backend, ...]:
    """Backends of the frontend's own family, in the order of the endpoints, each once."""
    members = [one for one, _ in shares]
    places = zip(
        addresses_of(members, family_of(frontend)),
        target_ports(port, members),
        (weight for _, weight in shares),
        strict=True,
    )
    backends = [
        Backend.at(address, number, weight)
        for address, number, weight in places
        if address is not None and number is not None
    ]
    return tuple({one.packed: one for one in backends}.values())


class BalancingPlanner:
    """Plans world after world; the cost follows the change (see the module's head)."""

    def __init__(self, number: Callable[[str], int]) -> None:
        self._number = number
        self._endpoints: Mapping[str, Endpoint] = {}
        self._services: Mapping[str, Service] = {}
        self._seen: Mapping[str, Seen] = {}
        self._written: Mapping[str, EndpointSlice] = {}
        self._written_for: dict[str, dict[str, EndpointSlice]] = {}  # by service
        self._index = LabelIndex()
        self._services_of: dict[LabelKey, set[str]] = {}
        self._fragments: dict[str, Fragment] = {}
        self._slices: dict[str, tuple[EndpointSlice, ...]] = {}
        self._frontends: Layers[Frontend, FrontendEntry] = Layers()
        self._health: dict[str, Mapping[LevelKey, int]] = {}
        self._here, self._networks = NO_NODE, DEFAULTS.service_networks
        self._redirected: set[str] = set()  # endpoints that ask for it
        self._health_ports: dict[str, HealthPort] = {}
        self._ranges: dict[str, frozenset[SourceRange]] = {}  # of services that have some
        self._all_ranges: frozenset[SourceRange] = frozenset()

    def plan(self, world: World) -> BalancingPlan:
        """The plan of this world; equal to ``plan_balancing(world, number)``."""
        self._here = world.config.here  # fixed for the life of an instance
        self._networks = world.config.service_networks
        redirected = bool(self._redirected)
        dirty = self._take_endpoints(world.endpoints).union(
            self._take_services(world.services),
            self._take_written(world.slices),
            self._take_seen(world.seen),
        )
        if redirected != bool(self._redirected):
            dirty |= {key for key, one in self._services.items() if one.spec.headless}
        changed = set()
        # An address may pass from one service to another: what is put outdoes what is withdrawn.
        fresh: dict[str, Fragment] = {}
        withdrawn: list[Frontend] = []
        for key in sorted(dirty):  # numbers are given in this order
            fragment = self._build(key)
            if fragment == self._fragments.get(key):
                continue
            changed.add(key)
            withdrawn += self._owned(key)
            if fragment is not None:
                fresh[key] = fragment
            else:
                del self._fragments[key], self._slices[key]
                self._health.pop(key, None)
                self._health_ports.pop(key, None)
        for key in sorted(fresh):  # in place: the order of keys stays, and so does its cost
            self._fragments[key] = fresh[key]
            self._slices[key] = fresh[key].slices
            self._health.pop(key, None)
            if fresh[key].health:
                self._health[key] = fresh[key].health
            self._health_ports.pop(key, None)
            if (health_port := fresh[key].health_port) is not None:
                self._health_ports[key] = health_port
        put = {f: entry for key in sorted(fresh) for f, entry in fresh[key].frontends.items()}
        gone = [frontend for frontend in withdrawn if frontend not in put]
        self._frontends = self._frontends.changed(put, gone)
        self._take_ranges(changed)
        return BalancingPlan(
            self._slices.copy(),
            self._frontends,
            self._all_ranges,
            frozenset(changed),
            self._health.copy(),
            tuple(one for _, one in sorted(self._health_ports.items())),
        )

    def _take_ranges(self, changed: Iterable[str]) -> None:
        """Source ranges are few: all of them are gathered when those of one service differ."""
        before = dict(self._ranges)
        for key in changed:
            fragment = self._fragments.get(key)
            self._ranges.pop(key, None)
            if fragment is not None and fragment.source_ranges:
                self._ranges[key] = fragment.source_ranges
        if before != self._ranges:
            self._all_ranges = frozenset().union(*self._ranges.values())

    def _build(self, key: str) -> Fragment | None:
        service = self._services.get(key)
        if service is None:
            return None
        written = [one for _, one in sorted(self._written_for.get(key, {}).items())]
        members = self._index.selected_by(service)
        seen = self._seen.get(key, NOTHING_SEEN)
        return plan_service(
            *(service, members, self._number, written, seen, self._here, self._networks),
            successors=bool(self._redirected),
        )

    def _owned(self, key: str) -> list[Frontend]:
        """The frontends of a service's last fragment, unless another has them now."""
        old = self._fragments.get(key)
        return [
            frontend
            for frontend, entry in (old.frontends.items() if old else ())
            if self._frontends.get(frontend) is entry
        ]

    def _take_endpoints(self, endpoints: Mapping[str, Endpoint]) -> set[str]:
        """Update the index; return the services whose members changed."""
        dirty: set[str] = set()
        before, self._endpoints = self._endpoints, endpoints
        gone, changed = changes(before, endpoints)
        for key in (*gone, *changed):
            if (old := before.get(key)) is not None:
                self._index.remove(key, old)
                dirty |= self._selecting(old)
            self._redirected.discard(key)
        for key in changed:
            endpoint = endpoints[key]
            self._index.add(key, endpoint)
            if endpoint.redirected:
                self._redirected.add(key)
            dirty |= self._selecting(endpoint)
        return dirty

    def _take_written(self, slices: Mapping[str, EndpointSlice]) -> set[str]:
        """Update the index of written slices; return the services that they name."""
        before, self._written = self._written, slices
        gone, changed = changes(before, slices)
        dirty: set[str] = set()
        for key in (*gone, *changed):
            if (old := before.get(key)) is not None:
                dirty.add(old.service)
                left = self._written_for[old.service]
                del left[key]
                if not left:
                    del self._written_for[old.service]
        for key in changed:
            dirty.add(slices[key].service)
            self._written_for.setdefault(slices[key].service, {})[key] = slices[key]
        return dirty

    def _take_seen(self, seen: Mapping[str, Seen]) -> list[str]:
        """The services of whose backends something else was seen."""
        before, self._seen = self._seen, seen
        gone, changed = changes(before, seen)
        return [*gone, *changed]

    def _selecting(self, endpoint: Endpoint) -> set[str]:
        if not self._services_of:
            return set()
        labels = endpoint.labels
        return {
            key
            for pair in labels.items()
            for key in self._services_of.get((endpoint.namespace, *pair), ())
            if selects(self._services[key], endpoint.namespace, labels)
        }

    def _take_services(self, services: Mapping[str, Service]) -> list[str]:
        """Update the index; return the services that changed."""
        before, self._services = self._services, services
        gone, changed = changes(before, services)
        for key in (*gone, *changed):
            if key in before and (anchor := _anchor(before[key])):
                self._services_of[anchor].discard(key)
        for key in changed:
            if anchor := _anchor(services[key]):
                self._services_of.setdefault(anchor, set()).add(key)
        return [*gone, *changed]


def _anchor(service: Service) -> LabelKey | None:
    """The one label under which a service is found from the endpoints that carry it."""
    if not service.spec.selector:
        return None
    label, value = min(service.spec.selector.items())
    return (service.metadata.namespace, label, value)
