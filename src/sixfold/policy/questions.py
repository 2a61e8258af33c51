"""Which names may a pod ask the cluster resolver for? Lines about names, for the resolver.

Pure. That a pod may ask at all, its table says; what it asks for, only the resolver reads. A pod is
*limited* when some line of its policies is about names: then it may ask for what any line lets it
ask for, and a line that lets it to the resolver without a word about names lets it ask for all.
Who is not limited is not here, and pays nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from sixfold.model.config import Config
from sixfold.model.datapath import ALLOW, EGRESS, PROTOCOL_NUMBERS
from sixfold.model.domain import EVERY_NAME, DomainMatcher
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import RESOLVER, UNKNOWN, Subject
from sixfold.model.layers import same_objects
from sixfold.model.rule import Rule
from sixfold.model.world import World
from sixfold.policy import ir
from sixfold.policy.decide import Party, decide, party_of
from sixfold.policy.languages.cilium_resolver import PORT, is_at_resolver
from sixfold.policy.meant import means
from sixfold.policy.plan import PolicyPlan
from sixfold.policy.table import default_rule
from sixfold.policy.told import Audited

UDP = PROTOCOL_NUMBERS["UDP"]
ANYBODY = (UNKNOWN, RESOLVER)


class Limit(msgspec.Struct, frozen=True):
    """What a pod may ask for.

    denied  names what is not among the patterns
    audit   that is answered, and told
    """

    patterns: frozenset[str]
    denied: Rule
    audit: bool = False

    def refuses(self, name: str) -> bool:
        return not self.audit and not DomainMatcher(self.patterns).of(name)

    @property
    def why(self) -> str:
        allowed = ", ".join(sorted(self.patterns))
        return f"{self.denied}: it may ask for {allowed} only"


class QuestionPlanner:
    """Plans world after world: the same object as long as nothing that it was made of changes."""

    def __init__(self) -> None:
        self._made_of: tuple[object, ...] = ()
        self._plan: Mapping[str, Limit] = {}

    def plan(self, world: World, policy: PolicyPlan) -> Mapping[str, Limit]:
        """The limit of each pod that has one."""
        if not policy.about_names:
            made_of: tuple[object, ...] = ()
        else:
            tables = policy.tables.value_of, policy.tables.group_of
            made_of = (policy.policies, *tables, world.endpoints, world.namespaces)
            made_of = (*made_of, world.audited, world.relaxations)
        if not same_objects(made_of, self._made_of):
            found = dict(_limits(world, policy)) if made_of else {}
            self._made_of = made_of
            if found != self._plan:
                self._plan = found
        return self._plan


def limit_of(world: World, policy: PolicyPlan, endpoint: Endpoint) -> Limit | None:
    """Of one pod; None: it may ask for every name."""
    naming = [one for one in policy.about_names.values() if _selects(world, one, endpoint)]
    if not naming:
        return None
    decided = decide(policy, party_of(policy, endpoint), Party(RESOLVER), UDP, PORT).egress
    if decided is not None and decided.allow and policy.rules[decided.rule].tier:
        return None  # of a tier above, which knows no names
    patterns: set[str] = set()
    for one in policy.policies.values():
        if one.tier is ir.Tier.NETWORK_POLICY and _selects(world, one, endpoint):
            patterns.update(_patterns(one))
    limiting = [one for one in naming if not one.audit]
    if EVERY_NAME in patterns:
        return None
    audited = Audited(world.config)
    audited.follow(world)
    in_audit = bool(audited.of(endpoint.subject).everything) or not limiting
    titles = sorted({one.title for one in limiting or naming})
    return Limit(frozenset(patterns), default_rule("egress", titles, Config()), in_audit)


def _limits(world: World, policy: PolicyPlan) -> Iterator[tuple[str, Limit]]:
    """Pods that policy cannot tell apart have one limit."""
    known: dict[Subject, Limit | None] = {}
    for key, endpoint in world.endpoints.items():
        subject = endpoint.subject
        if subject not in known:
            known[subject] = limit_of(world, policy, endpoint)
        if (limit := known[subject]) is not None:
            yield key, limit


def _patterns(policy: ir.Policy) -> Iterator[str]:
    for line in policy.lines:
        if line.direction != EGRESS or line.verdict != ALLOW:
            continue
        if line.names is not None:
            yield from line.names
        elif _is_peer(line) and (line.ports is None or any(map(is_at_resolver, line.ports))):
            yield EVERY_NAME


def _is_peer(line: ir.Line) -> bool:
    return line.peers is None or any(
        isinstance(peer, ir.Reserved) and peer.identity in ANYBODY for peer in line.peers
    )


def _selects(world: World, policy: ir.Policy, endpoint: Endpoint) -> bool:
    return isinstance(policy.subject, ir.Pods) and means(world, policy.subject, endpoint)
