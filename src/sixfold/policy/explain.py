"""Which rule decides about a flow, and which rules nearly matched?

Pure. The verdict is ``decide``'s, by the very tables that are in the kernel; this module puts
names to it and, for a denial, looks for rules that miss by one thing only: the port, the
namespace, the pod's labels or the address.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sixfold.model.datapath import EGRESS, INGRESS, PROTOCOL_NUMBERS
from sixfold.model.endpoint import Endpoint
from sixfold.model.meta import LabelSelector, namespace_labels
from sixfold.model.policy import IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort
from sixfold.model.rule import Direction, Rule
from sixfold.model.world import World
from sixfold.policy.block import holds, parse_cidr
from sixfold.policy.decide import Decision, Party, decide
from sixfold.policy.entries import named_matches, port_matches
from sixfold.policy.plan import PolicyPlan

NEARLY_MAX = 5
NO_TABLE = Rule("posture", "", "default-deny", "ingress", because="no policy table")
NOT_A_POD = ("no namespace", "no pod")  # two misses: never a near one


@dataclass(frozen=True, slots=True)
class Side:
    """One side's verdict: its rule, and after a denial the rules that nearly matched."""

    endpoint: str
    allow: bool
    rule: Rule
    nearly: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyAnswer:
    """Both sides; None where that side has no policy (world, host)."""

    egress: Side | None
    ingress: Side | None

    @property
    def allow(self) -> bool:
        return all(side is None or side.allow for side in (self.egress, self.ingress))


def explain_policy(
    world: World, plan: PolicyPlan, source: Party, destination: Party, protocol: str, port: int
) -> PolicyAnswer:
    """Judge a new flow to ``port`` of the destination itself (not of a service before it)."""
    number = PROTOCOL_NUMBERS[protocol]
    verdict = decide(plan, source, destination, number, port)
    flow = _Flow(world, plan, protocol, port)
    return PolicyAnswer(
        egress=flow.side(verdict.egress, source, destination, EGRESS),
        ingress=flow.side(verdict.ingress, destination, source, INGRESS),
    )


@dataclass(frozen=True, slots=True)
class _Flow:
    """What is asked, so that each step need not be told again."""

    world: World
    plan: PolicyPlan
    protocol: str
    port: int

    def side(
        self, decision: Decision | None, subject: Party, peer: Party, direction: int
    ) -> Side | None:
        if decision is None:
            return None
        rule = self.plan.rules.get(decision.rule, NO_TABLE)
        if decision.allow:
            return Side(subject.key, True, rule)
        nearly = list(self._near_misses(subject, peer, direction))
        return Side(subject.key, False, rule, tuple(nearly[:NEARLY_MAX]))

    def _near_misses(self, subject: Party, peer: Party, direction: int) -> Iterator[str]:
        endpoint = self.world.endpoints[subject.key]
        name: Direction = "ingress" if direction == INGRESS else "egress"
        selecting = [
            policy
            for _, policy in sorted(self.world.policies.items())
            if policy.metadata.namespace == endpoint.namespace
            and name.capitalize() in policy.spec.isolates
            and policy.spec.pod_selector.matches(endpoint.labels)
        ]
        if not selecting:
            yield f"no {name} policy selects {subject.key}"
        target = endpoint if direction == INGRESS else self.world.endpoints.get(peer.key)
        for policy in selecting:
            for at, (peers, ports) in enumerate(_rules(policy, direction)):
                where = Rule("NetworkPolicy", *_name(policy), name, at)
                for reason in self._reasons(policy, peers, ports, peer, target):
                    yield f"{where}: {reason}"

    def _reasons(
        self,
        policy: NetworkPolicy,
        peers: list[NetworkPolicyPeer],
        ports: list[NetworkPolicyPort],
        other: Party,
        target: Endpoint | None,
    ) -> list[str]:
        """Why one rule misses, if by one thing only."""
        peer_misses = [self._peer_misses(policy, peer, other) for peer in peers] or [()]
        if self._port_matches(ports, target):
            return [misses[0] for misses in peer_misses if len(misses) == 1]
        if any(not misses for misses in peer_misses):
            allowed = ", ".join(map(_port_text, ports))
            return [f"allows {allowed}, not {self.protocol}/{self.port}"]
        return []

    def _port_matches(self, ports: list[NetworkPolicyPort], target: Endpoint | None) -> bool:
        matches, names = port_matches(ports)
        if target is not None:
            matches += tuple(named_matches(target.subject.named_ports, names))
        return any(
            protocol in (0, PROTOCOL_NUMBERS[self.protocol])
            and port >> (16 - bits) == self.port >> (16 - bits)
            for protocol, port, bits in matches
        )

    def _peer_misses(
        self, policy: NetworkPolicy, peer: NetworkPolicyPeer, other: Party
    ) -> tuple[str, ...]:
        """What about the other side is not as the peer wants it; nothing: it matches."""
        if peer.ip_block is not None:
            return self._block_misses(peer.ip_block, other)
        endpoint = self.world.endpoints.get(other.key)
        if endpoint is None:
            return NOT_A_POD
        misses: list[str] = []
        namespace = endpoint.namespace
        if peer.namespace_selector is not None:
            around = self.world.namespaces.get(namespace) or namespace_labels(namespace, {})
            missing = _missing(peer.namespace_selector, around)
            misses += [f"wants {missing} on namespace {namespace}"] if missing else []
        elif namespace != policy.metadata.namespace:
            own = policy.metadata.namespace
            misses.append(f"without namespaceSelector it means {own} only, not {namespace}")
        if peer.pod_selector is not None and (
            missing := _missing(peer.pod_selector, endpoint.labels)
        ):
            misses.append(f"wants {missing} on pod {endpoint.key}")
        return tuple(misses)

    def _block_misses(self, block: IPBlock, other: Party) -> tuple[str, ...]:
        if other.key and not self.world.config.ipblock_matches_pods:
            return (f"ipBlock {block.cidr} does not mean pods (ipblock_matches_pods is off)",)
        if other.address is None:
            return (f"ipBlock {block.cidr} cannot be judged without an address",)
        if holds(block, other.address):
            return ()
        if other.address in parse_cidr(block.cidr):
            return (f"{other.address} is excepted from {block.cidr}",)
        return (f"{other.address} is not in {block.cidr}",)


def _name(policy: NetworkPolicy) -> tuple[str, str]:
    return policy.metadata.namespace, policy.metadata.name


def _rules(
    policy: NetworkPolicy, direction: int
) -> list[tuple[list[NetworkPolicyPeer], list[NetworkPolicyPort]]]:
    if direction == INGRESS:
        return [(rule.from_ or [], rule.ports or []) for rule in policy.spec.ingress or ()]
    return [(rule.to or [], rule.ports or []) for rule in policy.spec.egress or ()]


def _missing(selector: LabelSelector, labels: Mapping[str, str]) -> str:
    """The lines of a selector that do not hold, with what is there instead."""
    wanted = [
        f"{key}={value} (has {labels.get(key, 'none')})"
        for key, value in selector.match_labels.items()
        if labels.get(key) != value
    ]
    for line in selector.match_expressions:
        if not line.matches(labels):
            values = f" ({', '.join(line.values)})" if line.values else ""
            wanted.append(
                f"{line.key} {line.operator}{values} (has {labels.get(line.key, 'none')})"
            )
    return " and ".join(wanted)


def _port_text(port: NetworkPolicyPort) -> str:
    if port.port is None:
        return f"every {port.protocol} port"
    end = f"-{port.end_port}" if port.end_port is not None else ""
    return f"{port.protocol}/{port.port}{end}"
