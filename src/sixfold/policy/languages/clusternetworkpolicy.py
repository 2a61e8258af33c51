"""ClusterNetworkPolicy v1alpha2, AdminNetworkPolicy and BaselineAdminNetworkPolicy v1alpha1.

To ``ir``. None of them isolates anybody: what no rule matches is left to the tiers after.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sixfold.model.clusternetworkpolicy import (
    PRIORITY_MAX,
    AdminEgressRule,
    AdminIngressRule,
    AdminNetworkPolicy,
    AdminPort,
    BaselineAdminNetworkPolicy,
    ClusterEgressPeer,
    ClusterEgressRule,
    ClusterIngressPeer,
    ClusterIngressRule,
    ClusterNetworkPolicy,
    ClusterProtocol,
    ClusterSubject,
)
from sixfold.model.datapath import ALLOW, DENY, EGRESS, INGRESS, PASS
from sixfold.model.domain import plain_name
from sixfold.model.policy import IPBlock
from sixfold.model.rule import Direction, Rule
from sixfold.policy import ir

Ordered = ClusterNetworkPolicy | AdminNetworkPolicy | BaselineAdminNetworkPolicy
OrderedRule = ClusterIngressRule | ClusterEgressRule | AdminIngressRule | AdminEgressRule

VERDICTS = {"Accept": ALLOW, "Allow": ALLOW, "Pass": PASS, "Deny": DENY}


def lower_ordered(key: str, policy: Ordered) -> ir.Policy:
    """The whole policy: it has one subject."""
    ingress, egress = policy.spec.ingress or (), policy.spec.egress or ()
    lines = [
        *_lines(policy, "ingress", INGRESS, ingress),
        *_lines(policy, "egress", EGRESS, egress),
    ]
    return ir.Policy(
        key=key,
        title=key,
        subject=pods(policy.spec.subject),
        lines=tuple(lines),
        tier=_tier(policy),
        priority=PRIORITY_MAX
        if isinstance(policy, BaselineAdminNetworkPolicy)
        else policy.spec.priority,
    )


def _tier(policy: Ordered) -> ir.Tier:
    match policy:
        case ClusterNetworkPolicy():
            return ir.Tier[policy.spec.tier.upper()]
        case AdminNetworkPolicy():
            return ir.Tier.ADMIN
        case _:
            return ir.Tier.BASELINE


def _lines(
    policy: Ordered,
    name: Direction,
    direction: int,
    rules: Iterable[OrderedRule],
) -> Iterator[ir.Line]:
    tier = policy.spec.tier.lower() if isinstance(policy, ClusterNetworkPolicy) else ""
    for at, rule in enumerate(rules):
        where = Rule(policy.kind, "", policy.metadata.name, name, at, tier=tier)
        written: Sequence[ClusterIngressPeer | ClusterEgressPeer] = (
            rule.from_ if isinstance(rule, ClusterIngressRule | AdminIngressRule) else rule.to
        )
        ports = (
            _protocols(rule.protocols)
            if isinstance(rule, ClusterIngressRule | ClusterEgressRule)
            else _ports(rule.ports)
        )
        peers = tuple(one for peer in written for one in _peers(peer))
        yield ir.Line(where, direction, VERDICTS[rule.action], peers, ports)


def pods(chosen: ClusterSubject | ClusterIngressPeer | ClusterEgressPeer) -> ir.Pods:
    """The pods that a subject or peer selects."""
    if chosen.namespaces is not None:
        return ir.Pods(None, chosen.namespaces)
    assert chosen.pods is not None, "manifest refuses neither"
    return ir.Pods(None, chosen.pods.namespace_selector, chosen.pods.pod_selector)


def _peers(peer: ClusterIngressPeer | ClusterEgressPeer) -> Iterator[ir.Peer]:
    if isinstance(peer, ClusterEgressPeer) and peer.networks is not None:
        yield from (ir.Addresses(IPBlock(cidr)) for cidr in peer.networks)
    elif isinstance(peer, ClusterEgressPeer) and peer.domain_names is not None:
        yield from (ir.DomainName(_pattern(name)) for name in peer.domain_names)
    else:
        yield pods(peer)


def _pattern(text: str) -> str:
    """Here ``*.`` is one label or more."""
    return plain_name(f"*{text}" if text.startswith("*.") else text)


def _protocols(protocols: Sequence[ClusterProtocol] | None) -> tuple[ir.Port, ...] | None:
    """v1alpha2: absent or empty is anything."""
    return tuple(map(_protocol, protocols)) if protocols else None


def _protocol(protocol: ClusterProtocol) -> ir.Port:
    if protocol.destination_named_port:
        return ir.Port("ANY", protocol.destination_named_port)
    for name, ports in (("TCP", protocol.tcp), ("UDP", protocol.udp), ("SCTP", protocol.sctp)):
        if ports is None:
            continue
        port = ports.destination_port
        if port is None:
            return ir.Port(name)
        if port.range is not None:
            return ir.Port(name, port.range.start, port.range.end)
        return ir.Port(name, port.number)
    raise AssertionError("manifest refuses a protocol without a field")


def _ports(ports: Sequence[AdminPort] | None) -> tuple[ir.Port, ...] | None:
    """v1alpha1: absent or empty is anything."""
    return tuple(map(_port, ports)) if ports else None


def _port(port: AdminPort) -> ir.Port:
    if port.port_number is not None:
        return ir.Port(port.port_number.protocol, port.port_number.port)
    if port.port_range is not None:
        span = port.port_range
        return ir.Port(span.protocol, span.start, span.end)
    assert port.named_port is not None, "manifest refuses a port without a field"
    return ir.Port("ANY", port.named_port)
