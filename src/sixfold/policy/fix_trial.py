"""Edits of policies that are tried: what does each let pass on a side that denies, and what else?

Pure. Which edits there are say ``fix`` for pods, ``fix_host`` for the host.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sixfold.model.ciliumpolicy import CiliumClusterwideNetworkPolicy
from sixfold.model.datapath import PROTOCOL_NUMBERS
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import HOST
from sixfold.model.meta import LabelSelector
from sixfold.model.policies import policy_key
from sixfold.model.policy import NetworkPolicy
from sixfold.model.rule import Direction
from sixfold.model.world import World
from sixfold.policy.block import single
from sixfold.policy.decide import Decision, Party, decide, party_at
from sixfold.policy.plan import PolicyCompiler, PolicyPlan
from sixfold.policy.reach_parties import Group, View, parties
from sixfold.policy.reach_ports import PortSet
from sixfold.policy.reach_sides import side_changes
from sixfold.policy.suggest_selector import common, selector_for

CANDIDATES_MAX = 60  # a policy of a hundred rules is not improved by a hundred trials
Edited = NetworkPolicy | CiliumClusterwideNetworkPolicy
Flow = tuple[Party, Party, str, int]


@dataclass(frozen=True, slots=True)
class Fix:
    """An edit of one side. ``policy`` is the whole object after it; None: no allow can help.

    others  how many other pairs of parties it would let pass on this side
    """

    direction: Direction
    subject: str
    what: str
    policy: Edited | None = None
    others: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    rank: int  # of equals, the lower is the shorter edit
    what: str
    policy: Edited


class Fixer(ABC):
    """One denied side."""

    def __init__(
        self, world: World, direction: Direction, subject: Party, peer: Party, flow: Flow
    ) -> None:
        self.world = world
        self.direction = direction
        self.name = subject.key or "host"
        self.peer, self.flow = peer, flow
        self.compiler = PolicyCompiler()
        self.before = View(world, self.compiler.compile(world))

    @abstractmethod
    def candidates(self) -> Sequence[Candidate] | None:
        """The edits to be tried; None when there is no way to name the peer."""

    def fix(self, decision: Decision) -> Fix:
        """The one that lets least else pass."""
        best: tuple[tuple[int, int, int], Candidate] | None = None
        candidates = self.candidates()
        for candidate in candidates or ():
            cost = self._cost(candidate)
            if cost is not None and (best is None or (*cost, candidate.rank) < best[0]):
                best = (*cost, candidate.rank), candidate
        if best is None:
            rule = self.before.plan.rules.get(decision.rule)
            what = f"no allow rule can help: change what denies, {rule}"
            if candidates is None:
                what = "give an address, so that a rule can name it"
            return Fix(self.direction, self.name, what)
        (others, *_), candidate = best
        return Fix(self.direction, self.name, candidate.what, candidate.policy, others)

    def _cost(self, candidate: Candidate) -> tuple[int, int] | None:
        """Other pairs, and ports, that it lets pass besides; None when it does not help."""
        policies = {**self.world.policies, policy_key(candidate.policy): candidate.policy}
        world = replace(self.world, policies=policies)
        after = View(world, self.compiler.compile(world))
        source, destination, protocol, port = self.flow
        source, destination = (_again(after.plan, one) for one in (source, destination))
        verdict = decide(after.plan, source, destination, PROTOCOL_NUMBERS[protocol], port)
        side = verdict.egress if self.direction == "egress" else verdict.ingress
        if side is None or not side.allow:
            return None
        others = ports = 0
        alone = [] if self.peer.key or self.peer.address is None else [single(self.peer.address)]
        groups = parties([self.before, after], alone)
        for change in side_changes(self.before, after, groups):
            opened = change.after - change.before
            subject, peer = groups[change.subject], groups[change.peer]
            wanted = self._is_subject(subject) and self._is_peer(peer)
            others += 0 if wanted else max(1, len(subject.members)) * max(1, len(peer.members))
            ports += _count(opened)
        return others, ports

    def _is_subject(self, group: Group) -> bool:
        return group.kind == "host" if self.name == "host" else self.name in group.members

    def _is_peer(self, group: Group) -> bool:
        if self.peer.key:
            return self.peer.key in group.members
        if self.peer.identity == HOST:
            return group.kind == "host"
        address = self.peer.address
        return address is not None and any(
            version == address.version and first <= int(address) <= last
            for version, first, last in group.ranges
        )

    def selector(self, endpoint: Endpoint) -> LabelSelector:
        """The workload, and no other of its namespace if labels can say so."""
        same: list[dict[str, str]] = []
        others: list[dict[str, str]] = []
        for one in self.world.endpoints.values():
            if one.namespace == endpoint.namespace:
                (same if one.workload == endpoint.workload else others).append(one.labels)
        return selector_for(common(same), others)[0]

    def peer_text(self) -> str:
        endpoint = self.world.endpoints.get(self.peer.key)
        if endpoint is not None:
            return f"{endpoint.namespace}/{short(endpoint)}"
        return "host" if self.peer.identity == HOST else str(self.peer.address)


def _again(plan: PolicyPlan, party: Party) -> Party:
    """The same party by the CIDRs of another plan: a new ipBlock may tell it apart."""
    if party.key and party.address is not None:
        cidr4, cidr6 = plan.endpoint_cidrs.get(party.key, (party.cidr, party.cidr))
        return replace(party, cidr=cidr4 if party.address.version == 4 else cidr6)
    if party.address is not None:
        return party_at(plan, party.identity, party.address)
    return replace(party, domains=())  # nothing but its name is known: no edit can mean it


def short(endpoint: Endpoint) -> str:
    return endpoint.workload.partition("/")[2]


def _count(ports: PortSet) -> int:
    return sum(last - first + 1 for _, first, last in ports.ranges())
