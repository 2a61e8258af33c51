"""Which rule decides about a flow, and which rules nearly matched?

Pure. The verdict is ``decide``'s, by the very tables that are in the kernel; this module puts
names to it and, for a denial, looks for rules that miss by one thing only: the port, the
namespace, the pod's labels or the address.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from sixfold.model.datapath import ALLOW, EGRESS, INGRESS, PROTOCOL_NUMBERS
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import HOST, WORLD
from sixfold.model.meta import LabelSelector, namespace_labels
from sixfold.model.rule import Rule
from sixfold.model.world import World
from sixfold.policy import ir
from sixfold.policy.block import holds, parse_cidr
from sixfold.policy.decide import Decision, Party, decide, names_of
from sixfold.policy.entries import named_matches, port_matches
from sixfold.policy.plan import PolicyPlan

NEARLY_MAX = 5
NO_TABLE = Rule("posture", "", "default-deny", "ingress", because="no policy table")
NOT_A_POD = ("no namespace", "no pod")  # two misses: never a near one


@dataclass(frozen=True, slots=True)
class Side:
    """One side's verdict: its rule, and after a denial the rules that nearly matched.

    audit  the rule denies, but is in audit: the flow is allowed, and told
    """

    endpoint: str
    allow: bool
    rule: Rule
    nearly: tuple[str, ...] = ()
    audit: bool = False


@dataclass(frozen=True, slots=True)
class PolicyAnswer:
    """Both sides; None where that side has no policy: the world, a host that none selects."""

    egress: Side | None
    ingress: Side | None

    @property
    def allow(self) -> bool:
        return all(side is None or side.allow for side in (self.egress, self.ingress))

    @property
    def audit(self) -> bool:
        """Allowed only because a rule that denies is in audit."""
        return self.allow and any(side and side.audit for side in (self.egress, self.ingress))


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
        if decision.allow and not decision.audit:
            return Side(_name(subject), True, rule)
        nearly = list(self._near_misses(subject, peer, direction))
        return Side(
            _name(subject), decision.allow, rule, tuple(nearly[:NEARLY_MAX]), audit=decision.audit
        )

    def _near_misses(self, subject: Party, peer: Party, direction: int) -> Iterator[str]:
        name = "ingress" if direction == INGRESS else "egress"
        selecting = [
            policy
            for policy in sorted(self.plan.policies.values(), key=_order)
            if (direction in policy.isolates or any(_of(policy, direction)))
            and self._selects(policy.subject, subject)
        ]
        if not selecting:
            yield f"no {name} policy selects {_name(subject)}"
        target = self.world.endpoints.get(subject.key if direction == INGRESS else peer.key)
        for policy in selecting:
            for line in _of(policy, direction):
                if line.verdict == ALLOW:
                    for reason in self._reasons(line, peer, target):
                        yield f"{line.rule}: {reason}"

    def _selects(self, wanted: ir.Pods | ir.Nodes, subject: Party) -> bool:
        if isinstance(wanted, ir.Nodes):
            return subject.identity == HOST and wanted.labels.matches(self.world.config.labels)
        endpoint = self.world.endpoints.get(subject.key)
        return endpoint is not None and not self._pods_misses(wanted, endpoint)

    def _reasons(self, line: ir.Line, other: Party, target: Endpoint | None) -> list[str]:
        """Why one rule misses, if by one thing only."""
        peers = [()] if line.peers is None else [self._misses(one, other) for one in line.peers]
        if self._port_matches(line.ports, target):
            if any(not misses for misses in peers):
                return ["would allow it, but the denial comes first"]
            return [misses[0] for misses in peers if len(misses) == 1]
        if any(not misses for misses in peers):
            allowed = ", ".join(map(str, line.ports or ()))
            return [f"allows {allowed}, not {self.protocol}/{self.port}"]
        return []

    def _port_matches(self, ports: Sequence[ir.Port] | None, target: Endpoint | None) -> bool:
        matches, names = port_matches(ports)
        if target is not None:
            matches += tuple(named_matches(target.subject.named_ports, names))
        return any(
            protocol in (0, PROTOCOL_NUMBERS[self.protocol])
            and port >> (16 - bits) == self.port >> (16 - bits)
            for protocol, port, bits in matches
        )

    def _misses(self, peer: ir.Peer, other: Party) -> tuple[str, ...]:
        """What about the other side is not as the peer wants it; nothing: it matches."""
        match peer:
            case ir.Pods():
                endpoint = self.world.endpoints.get(other.key)
                return NOT_A_POD if endpoint is None else self._pods_misses(peer, endpoint)
            case ir.Addresses():
                return self._block_misses(peer, other)
            case ir.Reserved():
                if peer.identity in names_of(other):
                    return ()
                return (f"wants entity {peer.name}",)
            case ir.DomainName():
                return self._domain_misses(peer.pattern, other)
            case _:
                assert_never(peer)

    def _domain_misses(self, pattern: str, other: Party) -> tuple[str, ...]:
        meant = (one for one, number in self.plan.domain_sets.items() if number in other.domains)
        if other.identity == WORLD and any(pattern in one for one in meant):
            return ()
        if other.address is None:
            return (f"{pattern} is another name",)
        if other.identity != WORLD:
            return (f"{pattern} means addresses of the world only",)
        return (f"{pattern} has not resolved to {other.address}",)

    def _pods_misses(self, wanted: ir.Pods, endpoint: Endpoint) -> tuple[str, ...]:
        misses: list[str] = []
        namespace = endpoint.namespace
        around = self.world.namespaces.get(namespace) or namespace_labels(namespace, {})
        if wanted.namespace is not None and namespace != wanted.namespace:
            own = wanted.namespace
            unsaid = f"without {wanted.unsaid} it " if wanted.unsaid else ""
            misses.append(f"{unsaid}means {own} only, not {namespace}")
        elif missing := _missing(wanted.namespaces, around):
            misses.append(f"wants {missing} on namespace {namespace}")
        account = {ir.SERVICE_ACCOUNT_LABEL: endpoint.subject.service_account}
        if missing := _missing(wanted.pods, {**endpoint.labels, **account}):
            misses.append(f"wants {missing} on pod {endpoint.key}")
        return tuple(misses)

    def _block_misses(self, wanted: ir.Addresses, other: Party) -> tuple[str, ...]:
        block = wanted.block
        if wanted.outside and other.identity != WORLD:
            return (f"{block.cidr} means no pods and no host here: name them by label or entity",)
        if other.key and not self.world.config.ipblock_matches_pods:
            return (f"{block.cidr} does not mean pods (ipblock_matches_pods is off)",)
        if other.address is None:
            return (f"{block.cidr} cannot be judged without an address",)
        if holds(block, other.address):
            return ()
        if other.address in parse_cidr(block.cidr):
            return (f"{other.address} is excepted from {block.cidr}",)
        return (f"{other.address} is not in {block.cidr}",)


def _name(subject: Party) -> str:
    return subject.key or "host"


def _order(policy: ir.Policy) -> tuple[int, int, str]:
    return policy.tier, policy.priority, policy.key


def _of(policy: ir.Policy, direction: int) -> list[ir.Line]:
    return [line for line in policy.lines if line.direction == direction]


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
