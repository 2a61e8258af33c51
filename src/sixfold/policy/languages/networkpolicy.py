"""NetworkPolicy v1 to ``ir``. A rule in a direction that the policy does not isolate is inert."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sixfold.model.datapath import ALLOW, EGRESS, INGRESS
from sixfold.model.policy import NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort
from sixfold.model.rule import Direction, Rule
from sixfold.policy import ir

ISOLATES = {
    frozenset(): frozenset(),
    frozenset({"Ingress"}): frozenset({INGRESS}),
    frozenset({"Egress"}): frozenset({EGRESS}),
    frozenset({"Ingress", "Egress"}): frozenset({INGRESS, EGRESS}),
}
DIRECTIONS: tuple[tuple[int, Direction], ...] = ((INGRESS, "ingress"), (EGRESS, "egress"))


def lower_networkpolicy(key: str, policy: NetworkPolicy) -> ir.Policy:
    """The whole policy: it has one subject, its own namespace's pods."""
    namespace = policy.metadata.namespace
    spec = policy.spec
    isolates = ISOLATES[spec.isolates]
    subject = ir.Pods(namespace, ir.EVERYTHING, spec.pod_selector)
    lines = tuple(_lines(policy, namespace, isolates)) if spec.ingress or spec.egress else ()
    return ir.Policy(key, key, subject, lines, isolates)


def _lines(policy: NetworkPolicy, namespace: str, isolates: frozenset[int]) -> Iterator[ir.Line]:
    for direction, name in DIRECTIONS:
        if direction not in isolates or not (rules := _rules(policy, direction)):
            continue
        for at, (peers, ports) in enumerate(rules):
            rule = Rule("NetworkPolicy", namespace, policy.metadata.name, name, at)
            yield ir.Line(rule, direction, ALLOW, _peers(peers, namespace), _ports(ports))


def _rules(
    policy: NetworkPolicy, direction: int
) -> list[tuple[list[NetworkPolicyPeer] | None, list[NetworkPolicyPort] | None]]:
    if direction == INGRESS:
        return [(rule.from_, rule.ports) for rule in policy.spec.ingress or ()]
    return [(rule.to, rule.ports) for rule in policy.spec.egress or ()]


def _peers(peers: Sequence[NetworkPolicyPeer] | None, namespace: str) -> tuple[ir.Peer, ...] | None:
    """No peers, written or not, are any peer."""
    return tuple(_peer(one, namespace) for one in peers) if peers else None


def _peer(peer: NetworkPolicyPeer, namespace: str) -> ir.Peer:
    """A peer with only a podSelector means the policy's own namespace."""
    if peer.ip_block is not None:
        return ir.Addresses(peer.ip_block)
    pods = peer.pod_selector if peer.pod_selector is not None else ir.EVERYTHING
    if peer.namespace_selector is None:
        return ir.Pods(namespace, ir.EVERYTHING, pods, "namespaceSelector")
    return ir.Pods(None, peer.namespace_selector, pods)


def _ports(ports: Sequence[NetworkPolicyPort] | None) -> tuple[ir.Port, ...] | None:
    """No ports, written or not, are every port of every protocol."""
    return tuple(ir.Port(one.protocol, one.port, one.end_port) for one in ports) if ports else None
