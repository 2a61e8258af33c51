"""What is the smallest edit that would allow this flow?

Pure. Edits are tried, not guessed: each candidate is compiled, must allow the flow on its side, and
is judged by what else it would let pass; the least wins, and of equals the shortest edit.
Candidates are a port or a peer more in a rule, a rule more in a policy, or a new NetworkPolicy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network

import msgspec

from sixfold.model.datapath import EGRESS, INGRESS, PROTOCOL_NUMBERS
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import HOST
from sixfold.model.meta import NAME_LABEL, LabelSelector, ObjectMeta
from sixfold.model.policy import (
    EgressRule,
    IngressRule,
    IPBlock,
    NetworkPolicy,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    NetworkPolicySpec,
    PolicyType,
)
from sixfold.model.rule import Direction
from sixfold.model.world import World
from sixfold.policy import ir
from sixfold.policy.decide import Decision, Party, decide, party_at
from sixfold.policy.plan import PolicyCompiler, PolicyPlan
from sixfold.policy.reach_parties import Group, View, parties
from sixfold.policy.reach_ports import PortSet
from sixfold.policy.reach_sides import side_changes
from sixfold.policy.suggest_selector import common, selector_for

CANDIDATES_MAX = 60  # a policy of a hundred rules is not improved by a hundred trials
NAME_MAX = 63


@dataclass(frozen=True, slots=True)
class Fix:
    """An edit of one side. ``policy`` is the whole object after it; None: no allow can help.

    others  how many other pairs of parties it would let pass on this side
    """

    direction: Direction
    subject: str
    what: str
    policy: NetworkPolicy | None = None
    others: int = 0


@dataclass(frozen=True, slots=True)
class _Candidate:
    rank: int  # of equals, the lower is the shorter edit
    what: str
    policy: NetworkPolicy


def fixes(
    world: World, plan: PolicyPlan, source: Party, destination: Party, protocol: str, port: int
) -> list[Fix]:
    """One edit for each side that denies."""
    verdict = decide(plan, source, destination, PROTOCOL_NUMBERS[protocol], port)
    found = []
    for direction, decision, subject, peer in (
        ("egress", verdict.egress, source, destination),
        ("ingress", verdict.ingress, destination, source),
    ):
        if decision is not None and not decision.allow:
            name: Direction = "egress" if direction == "egress" else "ingress"
            flow = (source, destination, protocol, port)
            if not subject.key:
                found.append(_for_host(plan, name, protocol, port))
                continue
            found.append(_Fixer(world, name, subject, peer, flow).fix(decision))
    return found


def _for_host(plan: PolicyPlan, direction: Direction, protocol: str, port: int) -> Fix:
    """Policies for the host are edited by hand: named, not tried."""
    number = INGRESS if direction == "ingress" else EGRESS
    titles = [
        one.title
        for one in plan.policies.values()
        if isinstance(one.subject, ir.Nodes) and number in one.isolates
    ]
    where = f"in {' or '.join(titles)}" if titles else "in a policy with nodeSelector"
    peer = "fromEntities or fromCIDR" if direction == "ingress" else "toEntities or toCIDR"
    return Fix(direction, "host", f"allow {protocol}/{port} {where}: {direction}, with {peer}")


class _Fixer:
    """One denied side."""

    def __init__(
        self,
        world: World,
        direction: Direction,
        subject: Party,
        peer: Party,
        flow: tuple[Party, Party, str, int],
    ) -> None:
        self.world = world
        self.direction = direction
        self.subject = world.endpoints[subject.key]
        self.peer, self.flow = peer, flow
        self.compiler = PolicyCompiler()
        self.before = View(world, self.compiler.compile(world))

    def fix(self, decision: Decision) -> Fix:
        best: tuple[tuple[int, int, int], _Candidate] | None = None
        peer, ports = self._peer(), self._ports()
        candidates = [] if peer is None else [*self._edits(peer, ports)][:CANDIDATES_MAX]
        if peer is not None:
            candidates.append(self._new_policy(peer, ports))
        for candidate in candidates:
            cost = self._cost(candidate)
            if cost is not None and (best is None or (*cost, candidate.rank) < best[0]):
                best = (*cost, candidate.rank), candidate
        if best is None:
            rule = self.before.plan.rules.get(decision.rule)
            what = f"no allow rule can help: change what denies, {rule}"
            if peer is None:
                what = "give an address, so that a rule can name it"
            return Fix(self.direction, self.subject.key, what)
        (others, *_), candidate = best
        return Fix(self.direction, self.subject.key, candidate.what, candidate.policy, others)

    def _cost(self, candidate: _Candidate) -> tuple[int, int] | None:
        """Other pairs, and ports, that it lets pass besides; None when it does not help."""
        meta = candidate.policy.metadata
        policies = {**self.world.policies, f"{meta.namespace}/{meta.name}": candidate.policy}
        world = replace(self.world, policies=policies)
        after = View(world, self.compiler.compile(world))
        source, destination, protocol, port = self.flow
        source, destination = (_again(after.plan, one) for one in (source, destination))
        verdict = decide(after.plan, source, destination, PROTOCOL_NUMBERS[protocol], port)
        side = verdict.egress if self.direction == "egress" else verdict.ingress
        if side is None or not side.allow:
            return None
        others = ports = 0
        groups = parties([self.before, after])
        for change in side_changes(self.before, after, groups):
            opened = change.after - change.before
            subject, peer = groups[change.subject], groups[change.peer]
            wanted = self._is_subject(subject) and self._is_peer(peer)
            others += 0 if wanted else max(1, len(subject.members)) * max(1, len(peer.members))
            ports += _count(opened)
        return others, ports

    def _is_subject(self, group: Group) -> bool:
        return self.subject.key in group.members

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

    def _edits(
        self, peer: NetworkPolicyPeer, ports: list[NetworkPolicyPort] | None
    ) -> Iterator[_Candidate]:
        """Edits of the NetworkPolicies that isolate the subject already."""
        for key, policy in sorted(self.world.policies.items()):
            if not isinstance(policy, NetworkPolicy) or not self._isolates(policy):
                continue
            rules = list(getattr(policy.spec, self.direction) or [])
            for at, rule in enumerate(rules):
                place = f"{key} {self.direction}[{at}]"
                if rule.ports and ports:
                    more = msgspec.structs.replace(rule, ports=[*rule.ports, *ports])
                    what = f"add {_port_text(ports)} to the ports of {place}"
                    yield _Candidate(0, what, self._with(policy, rules, at, more))
                side = "to" if self.direction == "egress" else "from_"
                if peers := getattr(rule, side):
                    more = msgspec.structs.replace(rule, **{side: [*peers, peer]})
                    what = f"add {self._peer_text()} to the peers of {place}"
                    yield _Candidate(1, what, self._with(policy, rules, at, more))
            what = f"add a rule to {key}: {self._rule_text(ports)}"
            added = self._rule(peer, ports)
            yield _Candidate(2, what, self._with(policy, [*rules, added], len(rules), added))

    def _isolates(self, policy: NetworkPolicy) -> bool:
        return (
            policy.metadata.namespace == self.subject.namespace
            and self.direction.capitalize() in policy.spec.isolates
            and policy.spec.pod_selector.matches(self.subject.labels)
        )

    def _with(
        self,
        policy: NetworkPolicy,
        rules: list[IngressRule | EgressRule],
        at: int,
        rule: IngressRule | EgressRule,
    ) -> NetworkPolicy:
        changed = [*rules[:at], rule, *rules[at + 1 :]]
        both: list[PolicyType] = ["Ingress", "Egress"]
        types = policy.spec.policy_types or [one for one in both if one in policy.spec.isolates]
        spec = msgspec.structs.replace(policy.spec, policy_types=types, **{self.direction: changed})
        return msgspec.structs.replace(policy, spec=spec)

    def _new_policy(
        self, peer: NetworkPolicyPeer, ports: list[NetworkPolicyPort] | None
    ) -> _Candidate:
        rule = self._rule(peer, ports)
        spec = NetworkPolicySpec(
            pod_selector=self._selector(self.subject),
            policy_types=["Egress" if self.direction == "egress" else "Ingress"],
            **{self.direction: [rule]},  # type: ignore[arg-type]
        )
        meta = ObjectMeta(name=self._name(), namespace=self.subject.namespace)
        what = f"new policy {meta.namespace}/{meta.name}: {self._rule_text(ports)}"
        return _Candidate(3, what, NetworkPolicy(metadata=meta, spec=spec))

    def _rule(
        self, peer: NetworkPolicyPeer, ports: list[NetworkPolicyPort] | None
    ) -> IngressRule | EgressRule:
        if self.direction == "egress":
            return EgressRule(to=[peer], ports=ports)
        return IngressRule(from_=[peer], ports=ports)

    def _name(self) -> str:
        """``web-to-db``: not taken, and a DNS label."""
        own, other = _short(self.subject), self._peer_text().rpartition("/")[2]
        word = "to" if self.direction == "egress" else "from"
        text = re.sub(r"[^a-z0-9-]+", "-", f"{own}-{word}-{other}".lower()).strip("-")
        name, number = text[: NAME_MAX - 3].strip("-"), 2
        while f"{self.subject.namespace}/{name}" in self.world.policies:
            name, number = f"{text[: NAME_MAX - 3].strip('-')}-{number}", number + 1
        return name

    def _peer(self) -> NetworkPolicyPeer | None:
        """The other side as a peer; None when there is no way to name it."""
        endpoint = self.world.endpoints.get(self.peer.key)
        if endpoint is not None:
            away = endpoint.namespace != self.subject.namespace
            around = LabelSelector({NAME_LABEL: endpoint.namespace}) if away else None
            return NetworkPolicyPeer(self._selector(endpoint), around)
        if self.peer.address is None:
            return None
        return NetworkPolicyPeer(ip_block=IPBlock(str(ip_network(self.peer.address))))

    def _ports(self) -> list[NetworkPolicyPort] | None:
        """None where no NetworkPolicy can name the protocol: then every port it is."""
        protocol, port = self.flow[2:]
        if protocol in ("TCP", "UDP", "SCTP"):
            return [NetworkPolicyPort(protocol, port)]  # type: ignore[arg-type]
        return None

    def _selector(self, endpoint: Endpoint) -> LabelSelector:
        """The workload, and no other of its namespace if labels can say so."""
        same: list[dict[str, str]] = []
        others: list[dict[str, str]] = []
        for one in self.world.endpoints.values():
            if one.namespace == endpoint.namespace:
                (same if one.workload == endpoint.workload else others).append(one.labels)
        return selector_for(common(same), others)[0]

    def _peer_text(self) -> str:
        endpoint = self.world.endpoints.get(self.peer.key)
        if endpoint is not None:
            return f"{endpoint.namespace}/{_short(endpoint)}"
        return "host" if self.peer.identity == HOST else str(self.peer.address)

    def _rule_text(self, ports: list[NetworkPolicyPort] | None) -> str:
        word = "to" if self.direction == "egress" else "from"
        on = f" on {_port_text(ports)}" if ports else ""
        return f"{word} {self._peer_text()}{on}"


def _again(plan: PolicyPlan, party: Party) -> Party:
    """The same party by the CIDRs of another plan: a new ipBlock may tell it apart."""
    if party.key and party.address is not None:
        cidr4, cidr6 = plan.endpoint_cidrs.get(party.key, (party.cidr, party.cidr))
        return replace(party, cidr=cidr4 if party.address.version == 4 else cidr6)
    if party.address is not None:
        return party_at(plan, party.identity, party.address)
    return replace(party, domains=())  # nothing but its name is known: no edit can mean it


def _short(endpoint: Endpoint) -> str:
    return endpoint.workload.partition("/")[2]


def _port_text(ports: list[NetworkPolicyPort]) -> str:
    return ", ".join(f"{one.protocol}/{one.port}" for one in ports)


def _count(ports: PortSet) -> int:
    return sum(last - first + 1 for _, first, last in ports.ranges())
