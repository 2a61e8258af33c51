"""Namespaces that are alike but for their names: one is compiled, the others are read off it.

Pure. A namespace is *closed* when its policies speak of its own pods only. What they come to then
depends on what they say and on the kinds of pods that there are, not on names and numbers: closed
namespaces of one shape have the same tables, each with its own identities and rules in them. So
tables are relocated, as a linker relocates code. That nobody else's policy selects inside is for
the compiler to see; it opens a namespace when somebody looks inside, or something there changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from sixfold.model.datapath import PolicyTable, PortRule, Section
from sixfold.model.endpoint import Endpoint
from sixfold.model.enforcement import in_audit
from sixfold.model.identity import UNKNOWN, Identity
from sixfold.model.layers import flat
from sixfold.model.policy import NetworkPolicy, NetworkPolicySpec
from sixfold.model.rule import Rule
from sixfold.model.world import World
from sixfold.policy.table import NO_PROFILE, Profile, profile_of

MANY = 4  # of a shape: fewer are sooner compiled one by one
Kind = tuple[Identity, Profile]  # pods with one table
Said = defaultdict[str, list[tuple[str, bytes]]]  # by namespace: its policies, spelled

_spelled = msgspec.json.Encoder().encode


class Closed(NamedTuple):
    """A closed namespace.

    pods      of which kind each is, by key; more may come
    kinds     in an order that is the same in all of its shape
    policies  keys of them
    """

    name: str
    pods: dict[str, Kind]
    kinds: tuple[Kind, ...]
    policies: list[str]


def alike(world: World) -> list[list[Closed]]:
    """The closed namespaces of each shape that many have."""
    if len(world.namespaces) < MANY:
        return []
    said, not_closed = _said(world)
    profiled = world.config.posture == "zero-trust"
    endpoints: defaultdict[str, dict[str, Endpoint]] = defaultdict(dict)
    for key, endpoint in flat(world.endpoints).items():
        endpoints[endpoint.namespace][key] = endpoint
        if endpoint.identity == UNKNOWN:
            not_closed.add(endpoint.namespace)
    found: defaultdict[object, list[Closed]] = defaultdict(list)
    for name in flat(world.namespaces):
        if name not in not_closed:
            here = endpoints[name]
            pods = {
                key: (one.identity, profile_of(one, world.config) if profiled else NO_PROFILE)
                for key, one in here.items()
            }
            subjects = {kind: here[key].subject for key, kind in pods.items()}
            kinds = sorted(
                [
                    (one.labels, one.service_account, one.named_ports, tuple(sorted(kind[1])), kind)
                    for kind, one in subjects.items()
                ]
            )
            policies = sorted(said[name])
            found[(*[one[:4] for one in kinds], *policies)].append(
                Closed(
                    name,
                    pods,
                    tuple([one[4] for one in kinds]),
                    [f"{name}/{policy}" for policy, _ in policies],
                )
            )
    return [some for some in found.values() if len(some) >= MANY]


def alone(world: World, one: Closed) -> World:
    """A world of nothing but this namespace."""
    return World(
        world.config,
        {one.name: world.namespaces[one.name]},
        {key: world.endpoints[key] for key in one.pods},
        policies={key: world.policies[key] for key in one.policies},
    )


def _said(world: World) -> tuple[Said, set[str]]:
    """What policies say, and the namespaces that are not closed."""
    said: Said = defaultdict(list)
    not_closed = {*world.audited, *(one.namespace for one in world.relaxations)}
    inward: dict[bytes, bool] = {}
    for policy in flat(world.policies).values():
        meta = policy.metadata
        if not isinstance(policy, NetworkPolicy) or in_audit(meta):
            not_closed.add(meta.namespace)
            continue
        spelled = _spelled(policy.spec)
        if (looks_inward := inward.get(spelled)) is None:
            looks_inward = inward[spelled] = _looks_inward(policy.spec)
        if looks_inward:
            said[meta.namespace].append((meta.name, spelled))
        else:
            not_closed.add(meta.namespace)
    return said, not_closed


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

    What names none of its pods and none of its rules is shared by all.
    """

    def __init__(
        self, first: Closed, tables: Sequence[PolicyTable], rules: Mapping[int, Rule]
    ) -> None:
        """``tables``: of each of its kinds; ``rules``: by number, every one in them."""
        self._tables = tables
        self._identities = [identity for identity, _ in first.kinds]
        prefix = f"{first.name}/"  # of titles; no name has a slash
        every = [one for table in tables for one in _with_audit(table)]
        numbers = {number for table in every for number in _numbers(table)}
        self._rules = [
            (number, rule, rule.because.split(prefix))
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

    def tables(self, one: Closed, number: Callable[[Rule], int]) -> list[PolicyTable]:
        """Of each of its kinds."""
        identity_of = dict(zip(self._identities, [kind[0] for kind in one.kinds], strict=True)).get
        number_of = {
            known: number(_renamed(rule, one.name, because)) for known, rule, because in self._rules
        }.get
        said = {
            id(rules): tuple([_renumbered(rule, number_of(rule.rule, rule.rule)) for rule in rules])
            for rules in self._said
        }.get
        sections = {
            id(section): Section(
                {
                    identity_of(peer, peer): said(id(rules), rules)
                    for peer, rules in section.peers.items()
                }
            )
            for section in self._sections
        }.get

        def relocated(table: PolicyTable) -> PolicyTable:
            (into, out), (admin_into, admin_out) = table.main, table.admin
            return PolicyTable(
                (sections(id(into), into), sections(id(out), out)),
                (sections(id(admin_into), admin_into), sections(id(admin_out), admin_out)),
                number_of(table.ingress_default, table.ingress_default),
                number_of(table.egress_default, table.egress_default),
                None if table.audit is None else relocated(table.audit),
            )

        done: dict[int, PolicyTable] = {}  # who had one table has one
        for table in self._tables:
            if id(table) not in done:
                done[id(table)] = relocated(table)
        return [done[id(table)] for table in self._tables]


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


def _renamed(rule: Rule, namespace: str, because: Sequence[str]) -> Rule:
    """``because``: what stands between the names of the namespace."""
    return Rule(
        rule.kind,
        rule.namespace and namespace,
        rule.name,
        rule.direction,
        rule.index,
        f"{namespace}/".join(because),
        rule.section,
        rule.tier,
        rule.log,
    )


def _renumbered(rule: PortRule, number: int) -> PortRule:
    protocol, port, port_bits, verdict, _, precedence = rule
    return PortRule(protocol, port, port_bits, verdict, number, precedence)
