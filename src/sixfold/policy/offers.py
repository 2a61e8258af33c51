"""Who offers what, and to whom: services and their workloads, as policy sees both.

Pure. Endpoints that no policy tells apart have one *face*. An *owner* of names is a service, or a
pod, by its address, where pods have names. Its *offer* is a set of ports for each face behind it.
Everything is kept in step with the world, and found again from any side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from ipaddress import ip_address
from weakref import WeakValueDictionary

from sixfold.discovery.plan import alias_of, alias_owner
from sixfold.discovery.zone import CHAIN_MAX
from sixfold.model.config import Config
from sixfold.model.datapath import EGRESS, INGRESS, IPAddress, PolicyTable
from sixfold.model.endpoint import Endpoint, EndpointId
from sixfold.model.groups import differing_groups
from sixfold.model.identity import ANY_POD, HOST, UNKNOWN, WORLD, Identity
from sixfold.model.layers import Layers, differing, kept
from sixfold.model.names import FIRST_POD_OWNER
from sixfold.model.service import EndpointSlice, Service
from sixfold.model.world import World
from sixfold.policy.decide import Party, names_of, party_at, party_named, party_of
from sixfold.policy.plan import PolicyPlan
from sixfold.policy.reach_parties import has_version
from sixfold.policy.reach_ports import EVERY_PORT, NO_PORT, PORTS, PROTOCOLS, PortSet
from sixfold.policy.table_ports import TablePorts

Slices = Mapping[str, tuple[EndpointSlice, ...]]
Names = tuple[Identity, ...]
GENERAL = (UNKNOWN, ANY_POD)  # peers that are nobody in particular
VERSIONS = (4, 6)


class Face:
    """How policy sees an endpoint: one object for all of which it sees the same.

    table  None where policy has no say: outside, and for a host that no policy selects
    names  for each IP version, the most specific first; none: it has no such address
    meets  what others that it was judged with let it use
    """

    __slots__ = ("__weakref__", "meets", "names", "table")

    def __init__(self, table: PolicyTable | None, names: tuple[Names, ...]) -> None:
        self.table = table
        self.names = names
        self.meets: dict[Face, PortSet] = {}


Offer = frozenset[tuple[Face, PortSet]]
NONE: Offer = frozenset()


class Offers:
    """The offers of one world after the other; ``number`` is that of a service by name."""

    def __init__(self, number: Callable[[str], int]) -> None:
        self.members: defaultdict[Face, set[EndpointId]] = defaultdict(set)
        self.of: dict[str, Offer] = {}  # by owner
        self.owners: defaultdict[Offer, set[str]] = defaultdict(set)
        self.numbers: Layers[str, int] = Layers()  # by owner
        self.endpoints: Mapping[str, Endpoint] = Layers()
        self._number = number
        self._policy = PolicyPlan()
        self._hosts: tuple[IPAddress, ...] = ()
        self._services: Mapping[str, Service] = {}
        self._slices: Slices = {}
        self._targets: dict[str, str] = {}  # of aliases of names of ours: whose
        self._faces: dict[str, Face] = {}  # by endpoint
        self._at: dict[str, str] = {}  # endpoint by address
        self._serves: defaultdict[str, set[str]] = defaultdict(set)  # owners by address
        self._offered: defaultdict[Face, set[Offer]] = defaultdict(set)
        self._named: defaultdict[Identity, set[Face]] = defaultdict(set)  # who has that name
        self._admitting: defaultdict[Identity, set[Face]] = defaultdict(set)  # tables that name it
        self._calling: defaultdict[Identity, set[Face]] = defaultdict(set)  # the same, for egress
        self._outside: set[Face] = set()  # without a table
        self._known: WeakValueDictionary[object, Face] = WeakValueDictionary()
        self._tables = TablePorts()

    def follow(
        self,
        world: World,
        policy: PolicyPlan,
        slices: Slices,
        changed_slices: Set[str] | None,
        hosts: tuple[IPAddress, ...],
    ) -> tuple[dict[str, int], set[str]]:
        """Take over a world: owners that offer something else now, with their numbers; and
        the endpoints that are others, or are seen in another way."""
        before = self.numbers
        touched, moved = self._follow_endpoints(world, policy)
        if changed_slices is None:
            changed_slices = differing(self._slices, slices)
        stale = self._follow_services(world, slices, changed_slices)
        stale |= {owner for address in moved for owner in self._serves.get(address, ())}
        if world.config.dns_pods == "verified":
            stale |= moved
        if (
            policy.blocks is not self._policy.blocks
            or policy.domains is not self._policy.domains
            or policy.domain_sets != self._policy.domain_sets
            or hosts != self._hosts
            or policy.host is not self._policy.host
        ):
            for face in self._outside | self._named.get(HOST, set()):
                stale.update(*(self.owners[offer] for offer in self._offered[face]))
        stale |= self._aliases_of(stale)
        self._policy, self._hosts = policy, hosts
        changed = [owner for owner in stale if self._reoffer(owner, world)]
        numbers = {one: self.numbers.get(one, 0) or before.get(one, 0) for one in changed}
        return numbers, touched

    def face(self, endpoint: str) -> Face:
        """Of an endpoint, by its key."""
        return self._faces[endpoint]

    def candidates(self, face: Face) -> set[Offer]:
        """What a face might see."""
        peers = set(_calls(face))
        if peers.isdisjoint(GENERAL):
            faces = {one for peer in peers for one in self._named.get(peer, ())}
        else:
            faces = {one for name in _all_names(face) for one in self._admitting.get(name, ())}
            faces |= self._outside
        faces.add(face)
        return {offer for one in faces for offer in self._offered.get(one, ())}

    def clients(self, offer: Offer) -> set[Face]:
        """Who might see that: whose table names somebody behind it whose table names it."""
        found = set()
        for backend, _ in offer:
            found.add(backend)
            calling = {face for name in _all_names(backend) for face in self._calling.get(name, ())}
            if backend.table is not None:
                admitted = set(_mentioned(backend.table, INGRESS))
                calling = {face for face in calling if not admitted.isdisjoint(_all_names(face))}
            found |= calling
        return found

    def sees(self, face: Face, offer: Offer) -> bool:
        """Whether policy lets it reach some of that, or it is part of it."""
        return any(
            backend is face or bool(ports & self._reachable(face, backend))
            for backend, ports in offer
        )

    def _reachable(self, face: Face, backend: Face) -> PortSet:
        if (known := face.meets.get(backend)) is None:
            known = NO_PORT
            for mine, theirs in dict.fromkeys(zip(face.names, backend.names, strict=True)):
                if mine and theirs and (out := self._side(face, EGRESS, theirs)):
                    known |= out & self._side(backend, INGRESS, mine)
            face.meets[backend] = known
        return known

    def _side(self, face: Face, direction: int, peer: Names) -> PortSet:
        return EVERY_PORT if face.table is None else self._tables.ports(face.table, direction, peer)

    def _face(self, table: PolicyTable | None, names: tuple[Names, ...]) -> Face:
        """The one face of this kind."""
        if (known := self._known.get((table, names))) is None:
            known = self._known[table, names] = Face(table, names)
        return known

    def _face_of(self, endpoint: Endpoint, policy: PolicyPlan) -> Face:
        names = (
            tuple(names_of(party_of(policy, endpoint, version)))
            if has_version(endpoint, version)
            else ()
            for version in VERSIONS
        )
        return self._face(policy.tables[endpoint.key], tuple(names))

    def _follow_endpoints(self, world: World, policy: PolicyPlan) -> tuple[set[str], set[str]]:
        """Take over endpoints and tables; returns those that have another face now, or are at
        another place, and their addresses."""
        before, now = self.endpoints, world.endpoints
        touched = differing(before, now)
        touched |= differing_groups(self._policy.tables, policy.tables)
        touched |= differing(self._policy.endpoint_cidrs, policy.endpoint_cidrs)
        named = world.config.dns_pods == "verified"
        others: set[str] = set()
        moved: set[str] = set()
        pods: dict[str, int] = {}
        for key in touched:
            old, new = before.get(key), now.get(key)
            face = None if new is None else self._face_of(new, policy)
            same = face is not None and self._faces.get(key) is face
            if same and old is not None and new is not None and _place(old) == _place(new):
                continue
            others.add(key)
            if old is not None:
                self._lose(self._faces.pop(key), old.id)
                for address in map(str, old.addresses):
                    if self._at.get(address) == key:
                        del self._at[address]
                    moved.add(address)
            if new is not None and face is not None:
                self._faces[key] = face
                self._gain(face, new.id)
                for address in map(str, new.addresses):
                    self._at[address] = key
                    moved.add(address)
                    if named:
                        pods[address] = FIRST_POD_OWNER + new.id
        gone = [one for one in moved if one not in self._at and one in self.numbers]
        self.numbers = self.numbers.changed(pods, gone)
        self.endpoints = kept(now)
        return others, moved

    def _gain(self, face: Face, id_: EndpointId) -> None:
        if face not in self.members:
            for name in _calls(face):
                self._calling[name].add(face)
        self.members[face].add(id_)

    def _lose(self, face: Face, id_: EndpointId) -> None:
        self.members[face].discard(id_)
        if not self.members[face]:
            del self.members[face]
            for name in _calls(face):
                self._calling[name].discard(face)

    def _follow_services(self, world: World, slices: Slices, changed_slices: Set[str]) -> set[str]:
        """Take over services and their slices; returns those that may offer something else."""
        services = differing(self._services, world.services)
        stale = services | changed_slices
        came = {key: self._number(key) for key in services & world.services.keys()}
        self.numbers = self.numbers.changed(came, services - came.keys())
        for key in services:
            self._targets.pop(key, None)
            service = world.services.get(key)
            if service is not None and service.spec.type == "ExternalName":
                target = alias_owner(service, world.config.cluster_domain)
                if target is not None:
                    self._targets[key] = target
        for key in stale & self._slices.keys():
            for address in _served(self._slices[key]):
                self._serves[address].discard(key)
        for key in stale & slices.keys():
            for address in _served(slices[key]):
                self._serves[address].add(key)
        self._services, self._slices = world.services, slices
        return stale

    def _aliases_of(self, owners: Set[str]) -> set[str]:
        """Aliases of these, and aliases of those."""
        found: set[str] = set()
        while fresh := {
            alias
            for alias, target in self._targets.items()
            if alias not in found and (target in owners or target in found)
        }:
            found |= fresh
        return found

    def _reoffer(self, owner: str, world: World) -> bool:
        """Work an owner's offer out again; whether it is another one."""
        offer, known = self._offer(owner, world), self.of.pop(owner, NONE)
        if offer:
            self.of[owner] = offer
        if offer == known:
            return False
        if offer:
            self.owners[offer].add(owner)
            for face, _ in offer:
                if face not in self._offered:
                    self._index(face, set.add)
                self._offered[face].add(offer)
        self.owners[known].discard(owner)
        if not self.owners[known]:
            del self.owners[known]
            for face, _ in known:
                self._withdraw(face, known)
        return True

    def _withdraw(self, face: Face, offer: Offer) -> None:
        self._offered[face].discard(offer)
        if not self._offered[face]:
            del self._offered[face]
            self._index(face, set.discard)
            for one in self.members:
                one.meets.pop(face, None)

    def _offer(self, owner: str, world: World) -> Offer:
        """An alias of a name of ours is whoever that name leads to."""
        for _ in range(CHAIN_MAX):
            if (target := self._targets.get(owner)) is None:
                return self._own_offer(owner, world)
            owner = target
        return NONE

    def _own_offer(self, owner: str, world: World) -> Offer:
        if "/" not in owner:
            key = self._at.get(owner)
            return NONE if key is None else frozenset({(self._faces[key], EVERY_PORT)})
        service = self._services.get(owner)
        if service is None:
            return NONE
        if service.spec.type == "ExternalName":
            return frozenset((face, EVERY_PORT) for face in self._beyond(alias_of(service)))
        offer: dict[Face, PortSet] = {}
        for one in self._slices.get(owner, ()):
            ports = EVERY_PORT if service.spec.headless else _ports(one)
            for address in _served((one,)):
                face = self._face_at(address, world.config)
                offer[face] = offer.get(face, NO_PORT) | ports
        return frozenset(offer.items())

    def _face_at(self, address: str, config: Config) -> Face:
        if (key := self._at.get(address)) is not None:
            return self._faces[key]
        there = ip_address(address)
        is_host = there in (config.host_ipv4, config.host_ipv6, *self._hosts)
        names = tuple(names_of(party_at(self._policy, HOST if is_host else WORLD, there)))
        table = self._policy.host if is_host else None
        return self._face(table, tuple(names if there.version == one else () for one in VERSIONS))

    def _beyond(self, name: str) -> Iterator[Face]:
        """Whatever a name of the world may resolve to: policy knows it by name, or by block."""
        policy = self._policy
        for party in (party_named(policy, name), *(Party(WORLD, c) for c in policy.cidrs.values())):
            names = tuple(names_of(party))
            yield self._face(None, (names, names))

    def _index(self, face: Face, change: Callable[[set[Face], Face], None]) -> None:
        for name in _all_names(face):
            change(self._named[name], face)
        if face.table is None:
            change(self._outside, face)
            return
        for name in _mentioned(face.table, INGRESS):
            change(self._admitting[name], face)


def _place(endpoint: Endpoint) -> tuple[object, ...]:
    return endpoint.id, endpoint.ipv4, endpoint.ipv6


def _served(slices: Iterable[EndpointSlice]) -> Iterator[str]:
    for one in slices:
        for endpoint in one.endpoints if one.address_type != "FQDN" else ():
            yield from endpoint.addresses


def _ports(one: EndpointSlice) -> PortSet:
    spans = []
    for port in one.ports:
        if port.port is not None and port.protocol in PROTOCOLS:
            place = PROTOCOLS.index(port.protocol) * PORTS + port.port
            spans.append((place, place))
    return PortSet.join(spans)


def _all_names(face: Face) -> set[Identity]:
    return {name for names in face.names for name in names}


def _calls(face: Face) -> Iterator[Identity]:
    """Whom a face's table says anything about as somebody to call."""
    assert face.table is not None, "who has a view has a table"
    return _mentioned(face.table, EGRESS)


def _mentioned(table: PolicyTable, direction: int) -> Iterator[Identity]:
    """Whom a table says anything about."""
    for section in (table.main[direction], table.admin[direction]):
        yield from section.peers
