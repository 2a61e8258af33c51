"""What every workload may say and hear: policies in, one policy table per endpoint out.

Pure. Every language is lowered to ``ir`` first; all that follows knows nothing of languages.
``decide`` reads the tables as the kernel does.

Theory of operation. ``PolicyCompiler`` keeps what it compiled and follows the world by object
identity: an endpoint, policy or namespace that is the same object is not looked at again. What
did change makes policies stale (their rules name other peers now) or identities stale (other
policies select them); only their tables are built anew. Cost follows the change. A policy that
was lowered from more than its own object (services, slices, CIDR groups) is lowered again when that
changes. What domain names have resolved to touches no policy: see ``domains``. Of a first world,
namespaces that are alike are compiled once, and looked at again when there is a reason: ``alike``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from itertools import chain

from sixfold.model.config import Config
from sixfold.model.datapath import IPAddress, IPNetwork, PolicyTable
from sixfold.model.groups import Grouped
from sixfold.model.identity import FIRST_CIDR, FIRST_DOMAIN, HOST, UNKNOWN, Identity, Subject
from sixfold.model.layers import Layers, differing
from sixfold.model.policies import Policy
from sixfold.model.rule import Rule
from sixfold.model.world import World
from sixfold.policy import ir
from sixfold.policy.about import About
from sixfold.policy.alike import Closed, Relocation, alike, alone
from sixfold.policy.block import Blocks
from sixfold.policy.cidrs import CidrIndex, Placed
from sixfold.policy.domains import DomainIndex, Patterns
from sixfold.policy.granted import granted
from sixfold.policy.languages import Lowered, lower
from sixfold.policy.population import Group, Moves, Population
from sixfold.policy.resolved import Grant, Resolved, release, resolve
from sixfold.policy.selector import Selection, SelectorIndex
from sixfold.policy.table import Sections, build_table, closed_table
from sixfold.policy.ties import Ties
from sixfold.policy.told import Audited, told_of_all
from sixfold.policy.uncollected import uncollected

Numbering = Callable[[Rule], int]
CidrNumbering = Callable[[IPNetwork], Identity]
DomainNumbering = Callable[[Patterns], Identity]
NODE = Subject("", "", (), ())  # a host names no ports


@dataclass(frozen=True, slots=True)
class PolicyPlan:
    """The tables, and the CIDR identities that they speak of. Keys of endpoints: ``ns/pod``.

    endpoint_cidrs  CIDR identities of an endpoint's IPv4 and IPv6 address, 0 = none; who has
                    neither is left out: everybody, when ``ipblock_matches_pods`` is off
    rules           every rule number in the tables
    policies        what the policies say, language apart, by ``ir.Policy.key``
    domains         identities of the addresses that domain patterns mean now
    about_requests  those of them that are about requests to some port
    about_names     those that are about names that the resolver may be asked for
    about_outside   those that let some of what leaves pass by the proxy only
    host            the host's own table; None while no policy selects it: it is open then
    domain_sets     identity of each set of patterns that an address may be meant by; every
                    pattern that a policy names is a set of its own, too
    alike           closed namespaces: no table elsewhere names an identity of theirs, nor theirs
                    one of elsewhere, and tables of one shape differ in names only
    """

    tables: Grouped[str, PolicyTable] = field(default_factory=Grouped)
    cidrs: Mapping[IPNetwork, Identity] = field(default_factory=dict)
    endpoint_cidrs: Mapping[str, Placed] = field(default_factory=Layers)
    rules: Mapping[int, Rule] = field(default_factory=Layers)
    blocks: Blocks = field(default_factory=Blocks)
    policies: Mapping[str, ir.Policy] = field(default_factory=Layers)
    about_requests: Mapping[str, ir.Policy] = field(default_factory=Layers)
    about_names: Mapping[str, ir.Policy] = field(default_factory=Layers)
    about_outside: Mapping[str, ir.Policy] = field(default_factory=Layers)
    domains: Mapping[IPAddress, Identity] = field(default_factory=dict)
    domain_sets: Mapping[Patterns, Identity] = field(default_factory=dict)
    host: PolicyTable | None = None
    alike: Mapping[str, Closed] = field(default_factory=Layers)

    @property
    def patterns(self) -> Patterns:
        """Every domain pattern that a policy names."""
        return frozenset().union(*self.domain_sets)

    def covering_cidr(self, address: IPAddress) -> Identity:
        """Identity of the longest policy CIDR around an address that is no pod's; 0 = none."""
        network = self.blocks.covering(address)
        return UNKNOWN if network is None else self.cidrs[network]


def compile_policies(
    world: World,
    number: Numbering | None = None,
    cidr_identity: CidrNumbering | None = None,
    domain_identity: DomainNumbering | None = None,
) -> PolicyPlan:
    """Compile everything once; numbers count up from 1 unless the caller keeps them."""
    return PolicyCompiler(number, cidr_identity, domain_identity).compile(world)


class PolicyCompiler:
    """Compiles world after world; see the theory of operation above.

    All three numberings must answer the same for the same argument, always.
    """

    def __init__(
        self,
        number: Numbering | None = None,
        cidr_identity: CidrNumbering | None = None,
        domain_identity: DomainNumbering | None = None,
    ) -> None:
        self._numbers: dict[Rule, int] = {}
        cidrs: dict[IPNetwork, Identity] = {}
        domains: dict[Patterns, Identity] = {}
        self._allocate = number or (lambda _: len(self._numbers) + 1)
        self._cidr_identity = cidr_identity or (
            lambda cidr: cidrs.setdefault(cidr, Identity(FIRST_CIDR + len(cidrs)))
        )
        self._domain_identity = domain_identity or (
            lambda them: domains.setdefault(them, Identity(FIRST_DOMAIN + len(domains)))
        )
        self._start(Config())

    def _start(self, config: Config) -> None:
        self._config = config
        self._numbers.clear()
        self._new_rules: dict[int, Rule] = {}
        self._index = SelectorIndex(config.labels, self._open)
        self._closed: dict[str, Closed] = {}  # compiled, and not in the index nor in _resolved
        self._alike: Layers[str, Closed] = Layers()  # the same, as of the last plan
        self._opened: list[str] = []  # since then
        self._host: PolicyTable | None = None
        self._host_probes: frozenset[int] = frozenset()
        self._population = Population(config, self._index)
        self._namespaces: Mapping[str, Mapping[str, str]] = Layers()
        self._audited = Audited(config)
        self._policies: Mapping[str, Policy] = Layers()
        self._world = World(config)
        self._lowered: dict[str, tuple[ir.Policy, ...]] = {}  # by key of the object
        self._watching: dict[str, frozenset[str]] = {}  # objects lowered from more than themselves
        self._ties = Ties()
        self._resolved: dict[str, Resolved] = {}
        self._cidrs = CidrIndex(config, self._cidr_identity)
        self._domains = DomainIndex(self._domain_identity)
        self._tables: Layers[Hashable, PolicyTable] = Layers()  # by group
        self._rules: Layers[int, Rule] = Layers()
        self._compiled = Lowered()
        self._about_requests = About(lambda one: one.about_requests)
        self._about_names = About(lambda one: one.about_names)
        self._about_outside = About(lambda one: one.about_outside)

    def compile(self, world: World) -> PolicyPlan:
        """The plan for this world, from what is known of the one before."""
        if world.config is not self._config and world.config != self._config:
            self._start(world.config)
        with uncollected():
            return self._compile(world)

    def _compile(self, world: World) -> PolicyPlan:
        stale: set[Identity] = set()
        if self._policies or self._population.endpoints:
            self._open_changed(world)
        else:
            self._close(world)
        selections = self._follow_namespaces(world.namespaces, stale)
        for name in self._audited.changed(world):
            stale.update(self._index.inside(name))
        self._audited.follow(world)
        moves = self._population.follow(world.endpoints)
        stale |= moves.renamed
        stale_policies = {key for one in selections | moves.selections for key in one.peer_of}
        outdated = self._follow_policies(world, stale_policies)
        for policy in outdated:
            stale |= policy.subject.members
        if renamed := self._domains.follow(world.domains, world.domain_sets):
            stale_policies |= {
                key for key, one in self._resolved.items() if not renamed.isdisjoint(one.patterns)
            }
        endpoints = self._population.endpoints
        changed = self._cidrs.follow(
            self._resolved, outdated, stale_policies, endpoints, readdressed=moves.readdressed
        )
        subjects: set[Selection] = set()
        for key in stale_policies:
            if (resolved := self._resolved.get(key)) is not None:
                if not resolved.follows:
                    resolved.grants.clear()
                subjects.add(resolved.subject)
        for subject in subjects:
            stale |= subject.members
        self._cidrs.place(endpoints, moves.keys, changed)
        self._tables = self._tables.changed(self._build(stale, moves), moves.gone)
        self._build_host(stale)
        self._rules, self._new_rules = self._rules.changed(self._new_rules), {}
        self._alike, self._opened = self._alike.changed({}, self._opened), []
        return PolicyPlan(
            Grouped(self._population.group_of, self._tables),
            self._cidrs.identities,
            self._cidrs.placed,
            self._rules,
            self._cidrs.blocks,
            self._compiled,
            self._about_requests.policies,
            self._about_names.policies,
            self._about_outside.policies,
            self._domains.addresses,
            self._domains.sets,
            self._host,
            self._alike,
        )

    def _close(self, world: World) -> None:
        """Compile what is alike, and hold it back from the index."""
        tables: dict[Hashable, PolicyTable] = {}
        for first, *others in alike(world):
            plan = PolicyCompiler(self._number).compile(alone(world, first))
            table_of = {group: plan.tables[key] for key, group in first.pods.items()}
            relocation = Relocation(first, table_of, plan.rules)
            tables.update(chain(table_of.items(), relocation.tables(others, self._number)))
            self._closed.update({one.name: one for one in (first, *others)})
        closed = self._closed.values()
        self._population.hold_back({key: its for one in closed for key, its in one.pods.items()})
        policies = {key: said for one in closed for key, said in one.policies.items()}
        self._alike = Layers(self._closed)
        self._tables, self._compiled = Layers(tables), Lowered(Layers(policies))

    def _open_changed(self, world: World) -> None:
        """Open the namespaces in which anything is not what it was; but one pod more of a kind
        that is there, or another object for one, changes no table."""
        if not self._closed:
            return
        names = {key.partition("/")[0] for key in differing(self._policies, world.policies)}
        names |= differing(self._namespaces, world.namespaces) | self._audited.changed(world)
        same: dict[str, tuple[Closed, str]] = {}
        for key in differing(self._population.endpoints, world.endpoints):
            if (closed := self._closed.get(key.partition("/")[0])) is not None:
                like = self._population.like(key, world.endpoints.get(key), closed.pods)
                if like is None:
                    names.add(closed.name)
                else:
                    same[key] = closed, like
        for name in names & self._closed.keys():
            self._open(name)
        more: dict[str, Group] = {}
        for key, (closed, like) in same.items():
            if closed.name in self._closed and key not in closed.pods:
                more[key] = closed.pods[key] = closed.pods[like]
        self._population.hold_back(more)

    def _open(self, name: str) -> None:
        """Know a closed namespace as any other, with all that is in it. It has its tables."""
        if (closed := self._closed.pop(name, None)) is None:
            return
        self._population.take_in(closed.pods)
        for key in closed.policies:
            one = self._compiled[key]
            self._lowered[key] = (one,)
            self._resolved[key] = resolve(one, 0, self._index, self._number)
        self._opened.append(name)

    def learn(
        self, names: Mapping[str, frozenset[IPAddress]], fresh: Iterable[tuple[str, IPAddress]]
    ) -> dict[IPAddress, Identity] | None:
        """Names have resolved to more since the last world; see ``DomainIndex.learn``.

        The ``domains`` of the last plan grow with it.
        """
        opened = self._domains.learn(names, fresh)
        if opened is not None:
            self._world = replace(self._world, domains=names)
        return opened

    def _number(self, rule: Rule) -> int:
        if (known := self._numbers.get(rule)) is not None:
            return known
        number = self._numbers[rule] = self._allocate(rule)
        self._new_rules[number] = rule
        return number

    def _follow_namespaces(
        self, now: Mapping[str, Mapping[str, str]], stale: set[Identity]
    ) -> set[Selection]:
        """Take over new labels of namespaces; whoever lives there may be selected differently."""
        known = self._namespaces
        changed = [name for name in differing(known, now) if known.get(name) != now.get(name)]
        touched: set[Selection] = set()
        for name in changed:
            touched |= self._index.label_namespace(name, now.get(name))
            stale.update(self._index.inside(name))
        self._namespaces = now if isinstance(now, Layers) else Layers(now)
        return touched

    def _follow_policies(self, world: World, stale_policies: set[str]) -> list[Resolved]:
        """Take over policies that came, went or changed; returns what they were before."""
        now = world.policies
        changed: Collection[str]
        if self._policies:
            changed = differing(self._policies, now) | self._affected(world)
        else:
            changed = [key for key in now if key not in self._compiled]  # in order
        before = [one for key in changed for one in self._lowered.pop(key, ())]
        after: dict[str, ir.Policy] = {}
        for key in changed:
            self._watching.pop(key, None)
            if (policy := now.get(key)) is not None:
                lowered = self._lowered[key] = lower(key, policy, world)
                for one in lowered:
                    after[one.key] = one
                    if one.watches:
                        watched = self._watching.get(key, frozenset())
                        self._watching[key] = watched | one.watches
        for key in self._ties.follow(before, after.values()) - after.keys():
            after[key] = self._resolved[key].policy
        touched = {one.key for one in before} | after.keys()
        outdated = [self._resolved.pop(key) for key in touched & self._resolved.keys()]
        for key, one in after.items():  # before the release: selections in use stay
            resolved = resolve(one, self._ties.of(one), self._index, self._number)
            self._resolved[key] = resolved
            if resolved.clauses and (patterns := resolved.patterns):
                self._domains.count((), patterns)
        for resolved in outdated:
            self._domains.count(resolved.patterns, ())
            release(resolved, self._resolved.get(resolved.key), self._index)
        stale_policies |= touched
        self._compiled = self._compiled.changed(after, touched - after.keys())
        for about in (self._about_requests, self._about_names, self._about_outside):
            about.follow(after, touched)
        self._policies = now if isinstance(now, Layers) else Layers(now)
        self._world = world
        return outdated

    def _affected(self, world: World) -> set[str]:
        """Policies that look at a part of the world that is not what it was."""
        names = {name for watched in self._watching.values() for name in watched}
        changed = {name for name in names if getattr(world, name) != getattr(self._world, name)}
        return {key for key, watched in self._watching.items() if watched & changed}

    def _build(self, stale: Set[Identity], moves: Moves) -> dict[Hashable, PolicyTable]:
        """The tables of groups that are new, or whose identity is stale."""
        tables: dict[Hashable, PolicyTable] = {}
        sections = Sections(self._config, self._number)
        built: dict[tuple[object, ...], PolicyTable] = {}
        for group in moves.came:
            if group.identity == UNKNOWN:
                tables[group] = closed_table(self._number)
            else:
                tables[group] = self._table(group, sections, built)
        for identity in stale:
            for group in self._population.groups(identity):
                if group not in tables:
                    tables[group] = self._table(group, sections, built)
        return tables

    def _table(
        self, group: Group, sections: Sections, built: dict[tuple[object, ...], PolicyTable]
    ) -> PolicyTable:
        """One for each set of policies: who is selected by the same ones has the same."""
        identity, profile = group.identity, group.profile
        subject = self._index.subjects[identity]
        told = self._audited.of(subject)
        selecting = [one for one in self._index.selecting(identity) if one.subject_of]
        said = (told.everything, *told.ports.items())
        same = (profile, said, subject.named_ports, *sorted(map(id, selecting)))
        if (known := built.get(same)) is not None:
            return known
        policies = granted(selecting, self._resolved, lambda key: self._grant(key, subject))
        table = built[same] = build_table(policies, profile, sections, told)
        return table

    def _build_host(self, stale: Set[Identity]) -> None:
        """The table of the host, when that is stale; its probes may need other ports, too."""
        probes = self._population.probed
        if HOST not in stale and (self._host is None or probes == self._host_probes):
            return
        self._host_probes = probes
        selecting = self._index.selecting(HOST)
        policies = granted(selecting, self._resolved, lambda key: self._grant(key, NODE))
        sections = Sections(self._config, self._number, of_host=True)
        self._host = (
            build_table(policies, probes, sections, told_of_all(self._config)) if policies else None
        )

    def _grant(self, key: str, subject: Subject) -> Grant:
        one = self._resolved[key]
        ports = subject.named_ports if one.names_own_ports else ()
        if (known := one.grants.get(ports)) is not None:
            return known
        return one.grant(
            subject,
            self._index.subjects,
            self._cidrs.blocks,
            self._cidrs.identities,
            lambda: self._cidrs.addressed(self._population.endpoints),
            self._domains,
        )
