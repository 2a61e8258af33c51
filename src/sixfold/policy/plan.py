"""What every workload may say and hear: NetworkPolicies in, one policy table per endpoint out.

Pure. Source: NetworkPolicy v1, and the posture of ``Config``. The kernel looks up the peer's
identity, its CIDR identity and 0 (any), the longest match on protocol and port in each; the
tables hold allows only, so any match allows and no match is the default deny. ``decide`` reads
the tables the same way.

Theory of operation. ``PolicyCompiler`` keeps what it compiled and follows the world by object
identity: an endpoint, policy or namespace that is the same object is not looked at again. What
did change makes policies stale (their rules name other peers now) or identities stale (other
policies select them); only their tables are built anew. Cost follows the change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from sixfold.model.config import Config
from sixfold.model.datapath import IPAddress, IPNetwork, PolicyTable
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import FIRST_CIDR, UNKNOWN, Identity
from sixfold.model.policy import NetworkPolicy
from sixfold.model.rule import Rule
from sixfold.model.world import World
from sixfold.policy.block import Blocks, Span, includes, span
from sixfold.policy.population import Population
from sixfold.policy.resolved import Resolved, release, resolve
from sixfold.policy.selector import Selection, SelectorIndex
from sixfold.policy.table import build_table, closed_table

Numbering = Callable[[Rule], int]
CidrNumbering = Callable[[IPNetwork], Identity]


@dataclass(frozen=True, slots=True)
class PolicyPlan:
    """The tables, and the CIDR identities that they speak of. Keys of endpoints: ``ns/pod``.

    endpoint_cidrs  CIDR identities of each endpoint's IPv4 and IPv6 address; 0 = none, and
                    always when ``ipblock_matches_pods`` is off
    rules           every rule number in the tables
    """

    tables: Mapping[str, PolicyTable] = field(default_factory=dict)
    cidrs: Mapping[IPNetwork, Identity] = field(default_factory=dict)
    endpoint_cidrs: Mapping[str, tuple[Identity, Identity]] = field(default_factory=dict)
    rules: Mapping[int, Rule] = field(default_factory=dict)
    blocks: Blocks = field(default_factory=Blocks)

    def covering_cidr(self, address: IPAddress) -> Identity:
        """Identity of the longest policy CIDR around an address that is no pod's; 0 = none."""
        network = self.blocks.covering(address)
        return UNKNOWN if network is None else self.cidrs[network]


def compile_policies(
    world: World, number: Numbering | None = None, cidr_identity: CidrNumbering | None = None
) -> PolicyPlan:
    """Compile everything once; numbers count up from 1 unless the caller keeps them."""
    return PolicyCompiler(number, cidr_identity).compile(world)


class PolicyCompiler:
    """Compiles world after world; see the theory of operation above.

    ``number`` and ``cidr_identity`` must answer the same for the same argument, always.
    """

    def __init__(
        self, number: Numbering | None = None, cidr_identity: CidrNumbering | None = None
    ) -> None:
        rules: dict[Rule, int] = {}
        cidrs: dict[IPNetwork, Identity] = {}
        self._allocate = number or (lambda rule: rules.setdefault(rule, len(rules) + 1))
        self._cidr_identity = cidr_identity or (
            lambda cidr: cidrs.setdefault(cidr, Identity(FIRST_CIDR + len(cidrs)))
        )
        self._start(Config())

    def _start(self, config: Config) -> None:
        self._config = config
        self._numbers: dict[Rule, int] = {}
        self._rules: dict[int, Rule] = {}
        self._index = SelectorIndex()
        self._population = Population(config, self._index)
        self._namespaces: Mapping[str, Mapping[str, str]] = {}
        self._policies: Mapping[str, NetworkPolicy] = {}
        self._resolved: dict[str, Resolved] = {}
        self._cidr_uses: Counter[IPNetwork] = Counter()
        self._cidrs: dict[IPNetwork, Identity] = {}
        self._blocks = Blocks()
        self._tables: dict[str, PolicyTable] = {}
        self._endpoint_cidrs: dict[str, tuple[Identity, Identity]] = {}

    def compile(self, world: World) -> PolicyPlan:
        """The plan for this world, from what is known of the one before."""
        if world.config is not self._config and world.config != self._config:
            self._start(world.config)
        stale: set[Identity] = set()
        selections = self._follow_namespaces(world.namespaces, stale)
        moves = self._population.follow(world.endpoints)
        stale |= moves.joined
        stale_policies = {key for one in selections | moves.selections for key in one.peer_of}
        outdated = self._follow_policies(world.policies, stale_policies)
        for policy in outdated:
            stale |= policy.subject.members
        changed = self._follow_cidrs(outdated, moves.readdressed, stale_policies)
        self._place(moves.keys, changed)
        for key in stale_policies & self._resolved.keys():
            self._resolved[key].grants.clear()
            stale |= self._resolved[key].subject.members
        for identity in stale:
            self._build(identity)
        return PolicyPlan(
            tables=dict(self._tables),
            cidrs=dict(self._cidrs),
            endpoint_cidrs=dict(self._endpoint_cidrs),
            rules=dict(self._rules),
            blocks=self._blocks,
        )

    def _number(self, rule: Rule) -> int:
        if (known := self._numbers.get(rule)) is not None:
            return known
        number = self._numbers[rule] = self._allocate(rule)
        self._rules[number] = rule
        return number

    def _follow_namespaces(
        self, now: Mapping[str, Mapping[str, str]], stale: set[Identity]
    ) -> set[Selection]:
        """Take over new labels of namespaces; whoever lives there may be selected differently."""
        known = self._namespaces
        changed = known.keys() - now.keys() | {
            name
            for name, labels in now.items()
            if (before := known.get(name)) is not labels and before != labels
        }
        touched: set[Selection] = set()
        for name in changed:
            touched |= self._index.label_namespace(name, now.get(name))
            stale |= self._index.inside(name)
        self._namespaces = dict(now)
        return touched

    def _follow_policies(
        self, now: Mapping[str, NetworkPolicy], stale_policies: set[str]
    ) -> list[Resolved]:
        """Take over policies that came, went or changed; returns what they were before."""
        known = self._policies
        changed = {key for key, policy in now.items() if known.get(key) is not policy}
        changed |= known.keys() - now.keys()
        outdated = [self._resolved.pop(key) for key in changed & self._resolved.keys()]
        for key in changed & now.keys():  # before the release: selections in use stay
            self._resolved[key] = resolve(key, now[key], self._index, self._number)
        for resolved in outdated:
            release(resolved, self._resolved.get(resolved.key), self._index)
        stale_policies |= changed
        self._policies = dict(now)
        return outdated

    def _follow_cidrs(
        self, outdated: list[Resolved], readdressed: bool, stale_policies: set[str]
    ) -> list[Span]:
        """Count the CIDRs that policies name; returns those that came or went."""
        if readdressed:
            stale_policies |= {key for key, one in self._resolved.items() if one.by_address}
        before = Counter(cidr for resolved in outdated for cidr in resolved.cidrs)
        after: Counter[IPNetwork] = Counter()
        for key in stale_policies & self._resolved.keys():
            resolved = self._resolved[key]
            before.update(resolved.cidrs)
            resolved.cidrs = resolved.named_cidrs(self._addressed)
            after.update(resolved.cidrs)
        if before == after:
            return []
        self._cidr_uses = self._cidr_uses - before + after
        used = set(self._cidr_uses)
        changed = [span(cidr) for cidr in used ^ self._cidrs.keys()]
        if changed:
            self._cidrs = {cidr: self._cidr_identity(cidr) for cidr in sorted(used, key=span)}
            self._blocks = Blocks(used)
            stale_policies |= self._around(changed, stale_policies)
        return changed

    def _around(self, changed: list[Span], stale_policies: set[str]) -> set[str]:
        """Policies, not stale yet, with a block that one of the changed CIDRs is part of."""
        return {
            key
            for key in self._resolved.keys() - stale_policies
            for clause in self._resolved[key].clauses
            for block in clause.blocks
            if any(includes(block, inner) for inner in changed)
        }

    @property
    def _addressed(self) -> Collection[Endpoint]:
        """Endpoints whose addresses an ipBlock may mean."""
        return self._population.endpoints.values() if self._config.ipblock_matches_pods else ()

    def _place(self, moved: set[str], changed: list[Span]) -> None:
        """Find the CIDR identities of addresses that moved, or whose CIDRs changed."""
        endpoints = self._population.endpoints
        for key in moved - endpoints.keys():
            self._endpoint_cidrs.pop(key, None)
            self._tables.pop(key, None)
        for key, endpoint in endpoints.items():
            if key in moved or any(
                one.covers(address)
                for address in (endpoint.ipv4, endpoint.ipv6)
                if address is not None
                for one in changed
            ):
                if endpoint.identity == UNKNOWN:
                    self._tables[key] = closed_table(self._number)
                self._endpoint_cidrs[key] = (
                    self._cidr_of(endpoint.ipv4),
                    self._cidr_of(endpoint.ipv6),
                )

    def _cidr_of(self, address: IPAddress | None) -> Identity:
        if address is None or not self._config.ipblock_matches_pods:
            return UNKNOWN
        network = self._blocks.covering(address)
        return UNKNOWN if network is None else self._cidrs[network]

    def _build(self, identity: Identity) -> None:
        """Make the tables of an identity, one per profile."""
        groups = self._population.groups(identity)
        if not groups:
            return
        index, endpoints = self._index, self._addressed
        subject = index.subjects[identity]
        keys = sorted({key for one in index.selecting(identity) for key in one.subject_of})
        policies = []
        for key in keys:
            resolved = self._resolved[key]
            granted = resolved.entries(
                subject, index.subjects, self._blocks, self._cidrs, endpoints
            )
            policies.append((resolved, granted))
        for profile, members in groups.items():
            table = build_table(policies, profile, self._config, self._number)
            for member in members:
                self._tables[member] = table
