"""What is the smallest edit that would allow this flow?

Pure. Edits are tried, not guessed: each candidate is compiled, must allow the flow on its side, and
is judged by what else it would let pass; the least wins, and of equals the shortest edit.
Candidates are a port or a peer more in a rule, a rule more in a policy, or, for a pod, a new
NetworkPolicy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_network

import msgspec

from sixfold.model.datapath import PROTOCOL_NUMBERS
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
from sixfold.policy.decide import Party, decide
from sixfold.policy.fix_host import HostFixer
from sixfold.policy.fix_trial import CANDIDATES_MAX, Candidate, Fix, Fixer, Flow, short
from sixfold.policy.plan import PolicyPlan

__all__ = ["Fix", "fixes"]

NAME_MAX = 63


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
            fixer = _PodFixer if subject.key else HostFixer
            found.append(fixer(world, name, subject, peer, flow).fix(decision))
    return found


class _PodFixer(Fixer):
    """A pod: its policies are NetworkPolicies."""

    def __init__(
        self, world: World, direction: Direction, subject: Party, peer: Party, flow: Flow
    ) -> None:
        super().__init__(world, direction, subject, peer, flow)
        self.subject = world.endpoints[subject.key]

    def candidates(self) -> list[Candidate] | None:
        peer, ports = self._peer(), self._ports()
        if peer is None:
            return None
        edits = [*self._edits(peer, ports)][:CANDIDATES_MAX]
        return [*edits, self._new_policy(peer, ports)]

    def _edits(
        self, peer: NetworkPolicyPeer, ports: list[NetworkPolicyPort] | None
    ) -> Iterator[Candidate]:
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
                    yield Candidate(0, what, self._with(policy, rules, at, more))
                side = "to" if self.direction == "egress" else "from_"
                if peers := getattr(rule, side):
                    more = msgspec.structs.replace(rule, **{side: [*peers, peer]})
                    what = f"add {self.peer_text()} to the peers of {place}"
                    yield Candidate(1, what, self._with(policy, rules, at, more))
            what = f"add a rule to {key}: {self._rule_text(ports)}"
            added = self._rule(peer, ports)
            yield Candidate(2, what, self._with(policy, [*rules, added], len(rules), added))

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
    ) -> Candidate:
        rule = self._rule(peer, ports)
        spec = NetworkPolicySpec(
            pod_selector=self.selector(self.subject),
            policy_types=["Egress" if self.direction == "egress" else "Ingress"],
            **{self.direction: [rule]},  # type: ignore[arg-type]
        )
        meta = ObjectMeta(name=self._name(), namespace=self.subject.namespace)
        what = f"new policy {meta.namespace}/{meta.name}: {self._rule_text(ports)}"
        return Candidate(3, what, NetworkPolicy(metadata=meta, spec=spec))

    def _rule(
        self, peer: NetworkPolicyPeer, ports: list[NetworkPolicyPort] | None
    ) -> IngressRule | EgressRule:
        if self.direction == "egress":
            return EgressRule(to=[peer], ports=ports)
        return IngressRule(from_=[peer], ports=ports)

    def _name(self) -> str:
        """``web-to-db``: not taken, and a DNS label."""
        own, other = short(self.subject), self.peer_text().rpartition("/")[2]
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
            return NetworkPolicyPeer(self.selector(endpoint), around)
        if self.peer.address is None:
            return None
        return NetworkPolicyPeer(ip_block=IPBlock(str(ip_network(self.peer.address))))

    def _ports(self) -> list[NetworkPolicyPort] | None:
        """None where no NetworkPolicy can name the protocol: then every port it is."""
        protocol, port = self.flow[2:]
        if protocol in ("TCP", "UDP", "SCTP"):
            return [NetworkPolicyPort(protocol, port)]  # type: ignore[arg-type]
        return None

    def _rule_text(self, ports: list[NetworkPolicyPort] | None) -> str:
        word = "to" if self.direction == "egress" else "from"
        on = f" on {_port_text(ports)}" if ports else ""
        return f"{word} {self.peer_text()}{on}"


def _port_text(ports: list[NetworkPolicyPort]) -> str:
    return ", ".join(f"{one.protocol}/{one.port}" for one in ports)
