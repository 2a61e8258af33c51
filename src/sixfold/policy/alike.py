"""Namespaces that are alike but for their names: one is compiled, the others are read off it.

Pure. A namespace is *closed* when its policies speak of its own pods only. What they come to then
depends on what they say and on the kinds of pods that there are, not on names and numbers: closed
namespaces of one shape have the same tables, each with its own identities and rules in them. So
tables are relocated, as a linker relocates code. That nobody else's policy selects inside is for
the compiler to see; it opens a namespace when somebody looks inside, or something there changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from typing import NamedTuple, TypeVar

import msgspec

from sixfold.model.datapath import PolicyTable, PortRule, PortRules, Section
from sixfold.model.enforcement import in_audit
from sixfold.model.identity import UNKNOWN, Identity
from sixfold.model.layers import flat
from sixfold.model.policy import NetworkPolicy, NetworkPolicySpec
from sixfold.model.rule import Rule
from sixfold.model.world import World
from sixfold.policy.population import Group
from sixfold.policy.table import NO_PROFILE, profile_of

T = TypeVar("T")
MANY = 4  # of a shape: fewer are sooner compiled one by one
Look = tuple[object, ...]  # of a group: what policies and profiles see of it, less its namespace

_spelled = msgspec.json.Encoder().encode


class Closed(NamedTuple):
    """A closed namespace.

    shape     the same for all that are alike
    pods      in which group each is, by key; more may come
    groups    in an order that is the same in all of its shape
    policies  by key
    """

    name: str
    shape: int
    pods: dict[str, Group]
    groups: tuple[Group, ...]
    policies: dict[str, NetworkPolicy]


class _Home:
    """A namespace: its pods, in groups that look differently, and what its policies say."""

    __slots__ = ("groups", "is_closed", "pods", "policies", "said")

    def __init__(self) -> None:
        self.is_closed = True
        self.pods: dict[str, Group] = {}
        self.groups: dict[object, tuple[int, Group]] = {}  # and how they look, as numbers
        self.policies: dict[str, NetworkPolicy] = {}
        self.said: list[int] = []


Homes = defaultdict[str, _Home]


def alike(world: World) -> list[list[Closed]]:
    """The closed namespaces of each shape that many have."""
    if len(world.namespaces) < MANY:
        return []
    homes: Homes = defaultdict(_Home)
    _house(world, homes)
    _read(world, homes)
    shapes: dict[object, int] = {}
    found: defaultdict[int, list[Closed]] = defaultdict(list)
    for name in flat(world.namespaces):
        home = homes[name]
        if home.is_closed:
            looks = sorted(home.groups.values(), key=itemgetter(0))
            seen = tuple([look for look, _ in looks]), tuple(sorted(home.said))
            groups = tuple([group for _, group in looks])
            shape = shapes.setdefault(seen, len(shapes))
            found[shape].append(Closed(name, shape, home.pods, groups, home.policies))
    return [some for some in found.values() if len(some) >= MANY]


def _house(world: World, homes: Homes) -> None:
    """Every pod is at home. Where nobody attested one, the namespace is not closed."""
    looks: dict[Look, int] = {}
    profiled = world.config.posture == "zero-trust"
    profile = NO_PROFILE
    for key, endpoint in flat(world.endpoints).items():
        home = homes[endpoint.namespace]
        kind: object = endpoint.identity
        if profiled:
            profile = profile_of(endpoint, world.config)
            kind = kind, profile
        if (known := home.groups.get(kind)) is None:
            subject = endpoint.subject
            look = subject.labels, subject.service_account, subject.named_ports, profile
            group = Group(endpoint.identity, profile)
            known = home.groups[kind] = looks.setdefault(look, len(looks)), group
            home.is_closed = home.is_closed and endpoint.identity != UNKNOWN
        home.pods[key] = known[1]


def _read(world: World, homes: Homes) -> None:
    """What policies say; where one does not look inward only, or is in audit, the namespace is not
    closed."""
    numbers: dict[tuple[str, bytes], int] = {}  # 0: it looks elsewhere
    for key, policy in flat(world.policies).items():
        meta = policy.metadata
        home = homes[meta.namespace]
        if not isinstance(policy, NetworkPolicy) or in_audit(meta):
            home.is_closed = False
            continue
        said = meta.name, _spelled(policy.spec)
        if (number := numbers.get(said)) is None:
            number = numbers[said] = len(numbers) + 1 if _looks_inward(policy.spec) else 0
        if number:
            home.said.append(number)
            home.policies[key] = policy
        else:
            home.is_closed = False
    for name in (*world.audited, *[one.namespace for one in world.relaxations]):
        homes[name].is_closed = False


def alone(world: World, one: Closed) -> World:
    """A world of nothing but this namespace."""
    return World(
        world.config,
        {one.name: world.namespaces[one.name]},
        {key: world.endpoints[key] for key in one.pods},
        policies=one.policies,
    )


def _looks_inward(spec: NetworkPolicySpec) -> bool:
    """Whether it speaks of pods of its own namespace only, or of anybody alike."""
    peers = [one for rule in spec.ingress or () for one in rule.from_ or ()]
    peers += [one for rule in spec.egress or () for one in rule.to or ()]
    # A port's name means what it means to each pod that may be the peer.
    names_anyone = any(
        not rule.to and any(isinstance(port.port, str) for port in rule.ports or ())
        for rule in spec.egress or ()
    )
    inside = all(one.ip_block is None and one.namespace_selector is None for one in peers)
    return inside and not names_anyone


class Relocation:
    """The tables of one closed namespace, to be had for others of its shape.

    What names none of its pods and none of its rules is shared by all. The rest is made in
    columns, of one value for each of the others.
    """

    def __init__(
        self, first: Closed, table_of: Mapping[Group, PolicyTable], rules: Mapping[int, Rule]
    ) -> None:
        """``rules``: by number, every one in the tables."""
        self._tables = tables = [table_of[group] for group in first.groups]
        self._identities = [group.identity for group in first.groups]
        prefix = f"{first.name}/"  # of titles; no name has a slash
        every = [one for table in tables for one in _with_audit(table)]
        numbers = {number for table in every for number in _numbers(table)}
        self._rules = [
            (number, rule, tuple(rule.because.split(prefix)))
            for number in sorted(numbers)
            if (rule := rules[number]).namespace == first.name or prefix in rule.because
        ]
        own = {number for number, *_ in self._rules}
        sections = {id(one): one for table in every for one in table.sections}
        said = {id(one): one for some in sections.values() for one in some.peers.values()}
        self._said = [one for one in said.values() if any(rule.rule in own for rule in one)]
        own_said = set(map(id, self._said))
        self._sections = [
            one
            for one in sections.values()
            if not one.peers.keys().isdisjoint(self._identities)
            or any(id(rules) in own_said for rules in one.peers.values())
        ]

    def tables(
        self, others: Sequence[Closed], number: Callable[[Rule], int]
    ) -> Iterator[tuple[Group, PolicyTable]]:
        """Of all their groups."""
        count = len(others)
        names = [one.name for one in others]
        whys = {
            why: [f"{name}/".join(why) for name in names]
            for why in {why for *_, why in self._rules}
        }
        numbers = {
            known: list(map(number, _renamed(rule, names, whys[why])))
            for known, rule, why in self._rules
        }
        identities = {
            identity: [one.groups[at].identity for one in others]
            for at, identity in enumerate(self._identities)
        }
        said = {id(rules): _renumbered(rules, numbers) for rules in self._said}
        sections = {
            id(section): _readdressed(section, identities, said, count)
            for section in self._sections
        }

        def column(moved: Mapping[int, list[T]], key: int, one: T) -> Iterable[T]:
            return moved[key] if key in moved else repeat(one, count)

        def relocated(table: PolicyTable) -> list[PolicyTable]:
            main, admin = (
                zip(*[column(sections, id(one), one) for one in tier], strict=True)
                for tier in (table.main, table.admin)
            )
            defaults = [
                column(numbers, one, one) for one in (table.ingress_default, table.egress_default)
            ]
            audit = repeat(None, count) if table.audit is None else relocated(table.audit)
            return list(map(PolicyTable, main, admin, *defaults, audit))

        done: dict[int, list[PolicyTable]] = {}  # who had one table has one
        for table in self._tables:
            if id(table) not in done:
                done[id(table)] = relocated(table)
        for at, table in enumerate(self._tables):
            yield from zip([one.groups[at] for one in others], done[id(table)], strict=True)


def _with_audit(table: PolicyTable) -> Iterator[PolicyTable]:
    yield table
    if table.audit is not None:
        yield table.audit


def _numbers(table: PolicyTable) -> Iterator[int]:
    """Every rule that it names."""
    yield table.ingress_default
    yield table.egress_default
    for section in table.sections:
        for rules in section.peers.values():
            for rule in rules:
                yield rule.rule


def _renamed(rule: Rule, names: Sequence[str], whys: Sequence[str]) -> list[Rule]:
    """For each of these namespaces, with these reasons."""
    kind, namespace, name, direction, index, _, section, tier, log = msgspec.structs.astuple(rule)
    return [
        Rule(kind, namespace and other, name, direction, index, why, section, tier, log)
        for other, why in zip(names, whys, strict=True)
    ]


def _renumbered(rules: PortRules, numbers: Mapping[int, Sequence[int]]) -> list[PortRules]:
    """A column. Some of the rules are renumbered, not all need be."""
    columns = [
        [PortRule(*rule[:4], number, rule.precedence) for number in numbers[rule.rule]]
        if rule.rule in numbers
        else repeat(rule)
        for rule in rules
    ]
    return list(zip(*columns, strict=False))


def _readdressed(
    section: Section,
    identities: Mapping[Identity, Sequence[Identity]],
    said: Mapping[int, Sequence[PortRules]],
    count: int,
) -> list[Section]:
    """A column: other peers, or other rules for them."""
    peers = [identities.get(peer) or repeat(peer, count) for peer in section.peers]
    rules = [said.get(id(one)) or repeat(one, count) for one in section.peers.values()]
    return [
        Section(dict(zip(*of, strict=True)))
        for of in zip(zip(*peers, strict=True), zip(*rules, strict=True), strict=True)
    ]
