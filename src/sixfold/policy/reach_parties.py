"""Who can be one end of a flow? Workloads, the node, its resolver, and every other address.

Pure. ``View`` is one world, compiled. ``parties`` puts everybody into groups that no policy can
tell apart, in one view or in several at once (as a comparison needs): pods with the same
identity, table and CIDRs; addresses outside with the same longest CIDR and domain names. Every
address there is belongs to exactly one group, so what holds for all groups holds for all
addresses, as they are now. What the domain names of rules may resolve to later is a group
more for each pattern, and those belong to no address yet.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import msgspec

from sixfold.model.config import RESOLVER_IPV4, RESOLVER_IPV6
from sixfold.model.datapath import (
    EGRESS,
    INGRESS,
    IPAddress,
    IPNetwork,
    PolicyTable,
)
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import ANY_POD, HOST, RESOLVER, UNKNOWN, WORLD, Identity
from sixfold.model.layers import flat
from sixfold.model.world import World
from sixfold.policy.block import BITS, single
from sixfold.policy.cidrs import Placed
from sixfold.policy.decide import Party, names_of, names_of_pod, party_at
from sixfold.policy.plan import PolicyPlan, compile_policies
from sixfold.policy.reach_ports import EVERY_PORT, PortSet
from sixfold.policy.table_ports import TablePorts

VERSIONS = (4, 6)
Range = tuple[int, int, int]  # IP version, first, last

NOBODY = (WORLD, UNKNOWN)  # names of an address outside that no rule mentions
A_POD, AN_ADDRESS, THE_HOST, THE_RESOLVER = range(4)  # roles
ROLE_NAMES = frozenset({UNKNOWN, ANY_POD, HOST, RESOLVER})
# All that the face of a pod in a view depends on: its group there, which has one table and one
# identity, its CIDRs, whether it speaks IPv4, IPv6.
Kind = tuple[Hashable, Placed | None, bool, bool]
Kinds = tuple[Any, ...]  # one for each view, None: not there; and what is to be told apart
GroupKind = Literal["workloads", "world", "host", "resolver", "name"]


class Face(NamedTuple):
    """How one view sees a party in one IP version.

    table  None: no policy on its side
    names  by which the tables of others may mean it, the most specific first
    """

    table: PolicyTable | None
    names: tuple[Identity, ...]


class Group(msgspec.Struct, frozen=True, eq=False):
    """Parties that no policy tells apart.

    members  endpoint keys, sorted; none for what is no workload
    ranges   addresses of a group of kind "world"
    faces    one for each view and IP version; None: not there, or no address of that version
    alone    one single pod: it has nobody of its own group to talk to
    pattern  of a group of kind "name": whatever such names resolve to
    like     the number of the group that this one is as, in the first namespace that is like its
             own: what either's pairs inside the namespace may do, and with anybody elsewhere, is
             the same
    """

    kind: GroupKind
    members: tuple[str, ...]
    ranges: tuple[Range, ...]
    faces: tuple[Face | None, ...]
    alone: bool = False
    pattern: str = ""
    like: int | None = None

    @property
    def outside(self) -> bool:
        """Whether it is no workload of ours."""
        return self.kind != "workloads"

    @property
    def unjudged(self) -> bool:
        """Whether policy has no say on its side: the world, a host that no policy selects."""
        return self.outside and all(face is None or face.table is None for face in self.faces)


class View:
    """One world, compiled, and what its tables say about all ports at once."""

    def __init__(self, world: World, plan: PolicyPlan | None = None) -> None:
        self.world = world
        self.plan = plan if plan is not None else compile_policies(world)
        self._tables = TablePorts()

    @cached_property
    def _workloads(self) -> Mapping[tuple[str, str], list[str]]:
        found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for key, endpoint in self.world.endpoints.items():
            found[endpoint.namespace, endpoint.workload].append(key)
        return found

    @cached_property
    def _named(self) -> Mapping[str, int]:
        return Counter(
            f"{namespace}/{workload.partition('/')[2]}" for namespace, workload in self._workloads
        )

    def siblings(self, endpoint: Endpoint) -> frozenset[str]:
        """All pods of an endpoint's workload."""
        return frozenset(self._workloads[endpoint.namespace, endpoint.workload])

    def is_unique(self, name: str) -> bool:
        """Whether ``ns/name`` means one workload only."""
        return self._named[name] == 1

    def mentioned(self, table: PolicyTable, direction: int) -> Set[Identity]:
        """The peers that a table says anything particular about."""
        main, admin = table.main[direction].peers, table.admin[direction].peers
        return (main.keys() | admin.keys() if admin else main.keys()) - ROLE_NAMES

    def ports(self, table: PolicyTable, direction: int, names: tuple[Identity, ...]) -> PortSet:
        """All ports on which a table lets a peer of these names pass."""
        return self._tables.ports(table, direction, names)


def parties(
    views: Sequence[View],
    cuts: Iterable[IPNetwork] = (),
    apart: Callable[[str], object] | None = None,
    *,
    names_anywhere: bool = False,
) -> list[Group]:
    """Everybody, in groups.

    cuts   networks that no group of addresses may straddle
    apart  of an endpoint's key: endpoints for which it differs are never in one group
    names_anywhere  names may resolve to addresses of any CIDR: a group for each pattern and group
                    of addresses, instead of one that is in no CIDR
    """
    outside = list(_outside(views, tuple(cuts)))
    named = _names(views, outside if names_anywhere else [_nowhere(views)])
    others = [*_node(views), *outside, *named]
    pods = _pods(views, apart)
    seen = {kind[1:] for kinds in pods for kind in kinds[: len(views)] if kind is not None}
    alike = all(map(_same_in_both_versions, others)) and all(
        not speaks_ipv6 or (speaks_ipv4 and (cidrs is None or cidrs[0] == cidrs[1]))
        for cidrs, speaks_ipv4, speaks_ipv6 in seen
    )
    if alike:  # then one says it all
        others = [_without_ipv6(group) for group in others]
    return [*_workloads(views, pods, len(VERSIONS) if alike else 1), *others]


def flow_ports(
    views: Sequence[View], source: Group, destination: Group
) -> tuple[PortSet | None, ...]:
    """What may flow from one group to another, one for each face; None: they cannot meet."""
    per_view = len(source.faces) // len(views)
    return tuple(
        None
        if out is None or into is None
        else side_ports(views[at // per_view], out, EGRESS, into.names)
        & side_ports(views[at // per_view], into, INGRESS, out.names)
        for at, (out, into) in enumerate(zip(source.faces, destination.faces, strict=True))
    )


def role_of(group: Group, face: Face) -> int:
    """What somebody is to tables that do not name him."""
    if group.kind == "host":
        return THE_HOST
    if group.kind == "resolver":
        return THE_RESOLVER
    return A_POD if ANY_POD in face.names else AN_ADDRESS


class Roles(NamedTuple):
    """What each role is called, and all names that are one's."""

    each: tuple[tuple[Identity, ...], ...]
    names: frozenset[Identity]


def roles(groups: Sequence[Group]) -> list[Roles]:
    """One for each face."""
    node = {group.kind: group.faces for group in groups if group.kind in ("host", "resolver")}
    found = []
    for faces in zip(node["host"], node["resolver"], strict=True):
        named = [face.names if face is not None else () for face in faces]
        each = ((ANY_POD, UNKNOWN), (UNKNOWN,), *named)
        found.append(Roles(each, frozenset().union(*each)))
    return found


def side_ports(view: View, subject: Face, direction: int, peer: tuple[Identity, ...]) -> PortSet:
    """What one side lets pass, to or from a peer of these names."""
    return EVERY_PORT if subject.table is None else view.ports(subject.table, direction, peer)


def _pods(views: Sequence[View], apart: Callable[[str], object] | None) -> dict[Kinds, list[str]]:
    """Pods that no policy tells apart, by what they are to the views; all is sorted by key."""
    found: defaultdict[Kinds, list[str]] = defaultdict(list)
    if len(views) == 1 and apart is None:
        for key, kind in _kinds(views[0]):
            found[kind,].append(key)
    else:
        kinds = [dict(_kinds(view)) for view in views]
        for key in {key for some in kinds for key in some}:
            found[*[some.get(key) for some in kinds], apart and apart(key)].append(key)
    for members in found.values():
        members.sort()
    return dict(sorted(found.items(), key=lambda item: item[1][0]))


def _kinds(view: View) -> Iterator[tuple[str, Kind]]:
    group_of, cidrs = flat(view.plan.tables.group_of), flat(view.plan.endpoint_cidrs)
    for key, one in view.world.endpoints.items():
        four, six = one.ipv4 is not None, one.ipv6 is not None
        yield key, (group_of[key], cidrs.get(key), four or not six, six or not four)


def _workloads(
    views: Sequence[View], pods: Mapping[Kinds, list[str]], step: int
) -> Iterator[Group]:
    """``step``: of the faces of a view, every so many is wanted."""
    seen = [(flat(view.plan.tables.value_of), flat(view.world.endpoints)) for view in views]
    alone = [_alone(views, members) for members in pods.values()]
    like = _like(views[0], [kind for kind, *_ in pods], alone) if len(views) == 1 else {}
    for number, (kinds, members) in enumerate(pods.items()):
        faces: list[Face | None] = []
        for (tables, endpoints), kind in zip(seen, kinds, strict=False):
            if kind is None:
                faces += (None, None)[::step]
            else:
                identity = endpoints[members[0]].identity
                faces += _faces(kind, tables[kind[0]], identity)[::step]
        yield Group(
            "workloads", tuple(members), (), tuple(faces), alone[number], like=like.get(number)
        )


def _like(view: View, kinds: Sequence[Kind], alone: Sequence[bool]) -> dict[int, int]:
    """Of groups in namespaces that are like an earlier one, the number of the group there."""
    closed = view.plan.alike
    if not closed:
        return {}
    known: dict[object, int] = {}
    looks: list[int] = []  # beside the table, and those of one group there in an order of their own
    numbers: defaultdict[Hashable, list[int]] = defaultdict(list)
    for number, (group, *others) in enumerate(kinds):
        looks.append(known.setdefault((*others, alone[number]), len(known)))
        numbers[group].append(number)
    like: dict[int, int] = {}
    first: dict[object, list[int]] = {}
    for one in closed.values():
        mine = [sorted(numbers[group], key=looks.__getitem__) for group in one.groups]
        shape = one.shape, *[tuple([looks[number] for number in some]) for some in mine]
        here = [number for some in mine for number in some]
        if (there := first.setdefault(shape, here)) is not here:
            like.update(zip(here, there, strict=True))
    return like


def _alone(views: Sequence[View], members: list[str]) -> bool:
    return len(members) == 1 and not any(
        endpoint.is_template
        for view in views
        if (endpoint := view.world.endpoints.get(members[0])) is not None
    )


def _faces(kind: Kind, table: PolicyTable, identity: Identity) -> tuple[Face | None, Face | None]:
    """One for each IP version; None when it has addresses of the other only."""
    _, cidrs, speaks_ipv4, speaks_ipv6 = kind
    cidr4, cidr6 = cidrs or (UNKNOWN, UNKNOWN)
    four = Face(table, names_of_pod(identity, cidr4)) if speaks_ipv4 else None
    if not speaks_ipv6:
        return four, None
    if four is not None and cidr4 == cidr6:
        return four, four
    return four, Face(table, names_of_pod(identity, cidr6))


def has_version(endpoint: Endpoint, version: int) -> bool:
    """Whether it may speak this IP version; one whose addresses are not known speaks both."""
    if endpoint.ipv4 is None and endpoint.ipv6 is None:
        return True
    return (endpoint.ipv4 if version == 4 else endpoint.ipv6) is not None


def _node(views: Sequence[View]) -> Iterator[Group]:
    kinds: tuple[tuple[GroupKind, Identity], ...] = (("host", HOST), ("resolver", RESOLVER))
    for kind, identity in kinds:
        seen = tuple(
            Face(
                view.plan.host if kind == "host" else None,
                tuple(names_of(party_at(view.plan, identity, address))),
            )
            for view in views
            for address in (
                (view.world.config.host_ipv4, view.world.config.host_ipv6)
                if kind == "host"
                else (RESOLVER_IPV4, RESOLVER_IPV6)
            )
        )
        yield Group(kind, (), (), seen, alone=True)


def _outside(views: Sequence[View], cuts: tuple[IPNetwork, ...]) -> Iterator[Group]:
    """Every address that is nobody's here, cut at the bounds of all CIDRs."""
    found: defaultdict[
        tuple[int, tuple[tuple[Identity, ...], ...], tuple[int, ...]], list[Range]
    ] = defaultdict(list)
    for version in VERSIONS:
        make = IPv4Address if version == 4 else IPv6Address
        networks = {network for view in views for network in view.plan.cidrs} | set(cuts)
        networks |= {single(address) for view in views for address in view.plan.domains}
        bounds = {0, 1 << BITS[version]}
        for network in networks:
            if network.version == version:
                first = int(network.network_address)
                bounds |= {first, first + network.num_addresses}
        ordered = sorted(bounds)
        taken: list[int] = []
        if len(ordered) > 2:  # else it is all addresses, and pods do not have them all
            taken = sorted({int(one) for one in _addresses(views) if one.version == version})
        for first, after in pairwise(ordered):
            if bisect_left(taken, after) - bisect_left(taken, first) == after - first:
                continue  # all of it belongs to pods
            address = make(first)
            within = tuple(
                version if cut.version == version and address in cut else 0 for cut in cuts
            )
            seen = tuple(tuple(names_of(party_at(view.plan, WORLD, address))) for view in views)
            # The rest is one, of both versions.
            where = version if any(within) or any(names != NOBODY for names in seen) else 0
            found[where, seen, within].append((version, first, after - 1))
    for (where, seen, _), ranges in found.items():
        faces = tuple(
            Face(None, names) if where in (0, version) else None
            for names in seen
            for version in VERSIONS
        )
        yield Group("world", (), tuple(ranges), faces)


def _nowhere(views: Sequence[View]) -> Group:
    """An address of the world that no CIDR holds."""
    face = Face(None, tuple(names_of(Party(WORLD))))
    return Group("world", (), (), (face,) * (len(views) * len(VERSIONS)))


def _names(views: Sequence[View], places: Sequence[Group]) -> Iterator[Group]:
    """What names may resolve to: addresses like those of a place, and meant by a pattern."""
    for pattern in sorted({pattern for view in views for pattern in view.plan.patterns}):
        for place in places:
            faces = tuple(
                face and Face(None, _also(face.names, views[at // len(VERSIONS)].plan, pattern))
                for at, face in enumerate(place.faces)
            )
            yield Group("name", (), place.ranges, faces, pattern=pattern)


def _also(names: tuple[Identity, ...], plan: PolicyPlan, pattern: str) -> tuple[Identity, ...]:
    domain = plan.domain_sets.get(frozenset({pattern}))
    return names if domain is None or domain in names else (*names[:-1], domain, names[-1])


def _addresses(views: Sequence[View]) -> Iterator[IPAddress]:
    for view in views:
        for endpoint in view.world.endpoints.values():
            yield from endpoint.addresses


def _same_in_both_versions(group: Group) -> bool:
    pairs = zip(group.faces[::2], group.faces[1::2], strict=True)
    return all(six is None or six is four or six == four for four, six in pairs)


def _without_ipv6(group: Group) -> Group:
    faces = group.faces[::2]
    return Group(group.kind, group.members, group.ranges, faces, group.alone, group.pattern)
