"""What is wrong with a ClusterNetworkPolicy, or one of the v1alpha1 kinds before it.

Source: the validation that the CRDs of network-policy-api v0.2.0 and v0.1.7 carry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from sixfold.manifest import names
from sixfold.manifest.metadata import between, refused_values, said, selector
from sixfold.manifest.path import Finding, Path
from sixfold.model.clusternetworkpolicy import (
    PRIORITY_MAX,
    AdminEgressRule,
    AdminIngressRule,
    AdminPort,
    BaselineAdminNetworkPolicy,
    ClusterEgressPeer,
    ClusterIngressPeer,
    ClusterNetworkPolicy,
    ClusterProtocol,
    ClusterSubject,
    DestinationPort,
)
from sixfold.policy.languages.clusternetworkpolicy import Ordered, OrderedRule

_RULE_NAME_MAX = 100
_DOMAIN = re.compile(
    r"(\*\.)?([a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?\Z"
)


def ordered_policy(obj: Ordered, *, offline: bool) -> Iterator[Finding]:
    """Findings about the spec."""
    spec, path = obj.spec, ("spec",)
    if isinstance(obj, BaselineAdminNetworkPolicy):
        if obj.metadata.name != "default":
            yield Finding(("metadata", "name"), "there is one of this kind; call it default")
    else:
        yield from between((*path, "priority"), obj.spec.priority, 0, PRIORITY_MAX)
    yield from _chosen((*path, "subject"), spec.subject)
    most = 25 if isinstance(obj, ClusterNetworkPolicy) else 100
    sections: tuple[tuple[str, Sequence[OrderedRule]], ...] = (
        ("ingress", spec.ingress or ()),
        ("egress", spec.egress or ()),
    )
    for name, rules in sections:
        yield from _at_most((*path, name), rules, most)
        for index, rule in enumerate(rules):
            here = (*path, name, index)
            yield from _rule(here, rule, most, offline=offline)
            if isinstance(obj, BaselineAdminNetworkPolicy) and rule.action == "Pass":
                yield Finding((*here, "action"), "nothing comes after this tier; Allow or Deny")


def _rule(path: Path, rule: OrderedRule, most: int, *, offline: bool) -> Iterator[Finding]:
    if len(rule.name) > _RULE_NAME_MAX:
        message = f"{len(rule.name)} characters; give at most {_RULE_NAME_MAX}"
        yield Finding((*path, "name"), message)
    ports: Sequence[AdminPort | ClusterProtocol] | None
    if isinstance(rule, AdminIngressRule | AdminEgressRule):
        ports, member = rule.ports, "ports"
    else:
        ports, member = rule.protocols, "protocols"
    side = "from" if hasattr(rule, "from_") else "to"
    peers: Sequence[ClusterIngressPeer | ClusterEgressPeer] = getattr(
        rule, "from_" if side == "from" else "to"
    )
    if not peers:
        message = "an empty list; give a peer, namespaces: {} is every pod"
        yield Finding((*path, side), message)
    yield from _at_most((*path, side), peers, most)
    yield from _at_most((*path, member), ports or (), most)
    for index, peer in enumerate(peers):
        yield from _peer((*path, side, index), peer, rule.action, offline=offline)
    for index, port in enumerate(ports or ()):
        here = (*path, member, index)
        named: str | None = None
        if isinstance(port, AdminPort):
            yield from _port(here, port)
            named = port.named_port
        elif isinstance(port, ClusterProtocol):
            yield from _protocol(here, port)
            named = port.destination_named_port
        if named and any(_is_external(peer) for peer in peers):
            message = "only pods have named ports; give networks a rule of their own"
            yield Finding(here, message)


def _is_external(peer: ClusterIngressPeer | ClusterEgressPeer) -> bool:
    return isinstance(peer, ClusterEgressPeer) and (
        peer.networks is not None or peer.domain_names is not None or peer.nodes is not None
    )


def _peer(
    path: Path, peer: ClusterIngressPeer | ClusterEgressPeer, action: str, *, offline: bool
) -> Iterator[Finding]:
    yield from _chosen(path, peer)
    if not isinstance(peer, ClusterEgressPeer):
        return
    yield from refused_values(path, peer, offline=offline)
    for member, texts in (("networks", peer.networks), ("domainNames", peer.domain_names)):
        if texts is not None and not texts:
            yield Finding((*path, member), "an empty list; remove it or fill it in")
    for index, text in enumerate(peer.networks or ()):
        parsed = names.cidr(text, lenient=offline)
        yield from said((*path, "networks", index), parsed if isinstance(parsed, str) else None)
    if peer.domain_names and action not in ("Accept", "Allow"):
        yield Finding((*path, "domainNames"), f"names can be accepted only, not in a {action} rule")
    for index, text in enumerate(peer.domain_names or ()):
        if not _DOMAIN.match(text):
            message = f"{names.quoted(text)} is no domain name; give example.com or *.example.com"
            yield Finding((*path, "domainNames", index), message)


def _chosen(
    path: Path, chosen: ClusterSubject | ClusterIngressPeer | ClusterEgressPeer
) -> Iterator[Finding]:
    """Exactly one field, and selectors that are ones."""
    options: dict[str, object] = {"namespaces": chosen.namespaces, "pods": chosen.pods}
    if isinstance(chosen, ClusterEgressPeer):
        options |= {"nodes": chosen.nodes, "networks": chosen.networks}
        options |= {"domainNames": chosen.domain_names}
    yield from exactly_one(path, options)
    if chosen.namespaces is not None:
        yield from selector((*path, "namespaces"), chosen.namespaces)
    if chosen.pods is not None:
        here = (*path, "pods")
        yield from selector((*here, "namespaceSelector"), chosen.pods.namespace_selector)
        yield from selector((*here, "podSelector"), chosen.pods.pod_selector)


def exactly_one(path: Path, options: Mapping[str, object]) -> Iterator[Finding]:
    """A finding unless one of the options, and no more, is given."""
    given = [name for name, value in options.items() if value not in (None, "")]
    if len(given) != 1:
        found = " and ".join(given) if given else "nothing"
        yield Finding(path, f"has {found}; give exactly one of {', '.join(options)}")


def _at_most(path: Path, items: Sequence[object], most: int) -> Iterator[Finding]:
    if len(items) > most:
        yield Finding(path, f"{len(items)} items; give at most {most}")


def _protocol(path: Path, protocol: ClusterProtocol) -> Iterator[Finding]:
    transports = {"tcp": protocol.tcp, "udp": protocol.udp, "sctp": protocol.sctp}
    named = protocol.destination_named_port
    yield from exactly_one(path, {**transports, "destinationNamedPort": named})
    if named:
        yield from said((*path, "destinationNamedPort"), names.port_name(named))
    for name, ports in transports.items():
        if ports is not None and ports.destination_port is not None:
            yield from _destination((*path, name, "destinationPort"), ports.destination_port)


def _destination(path: Path, port: DestinationPort) -> Iterator[Finding]:
    yield from exactly_one(path, {"number": port.number, "range": port.range})
    if port.number is not None:
        yield from said((*path, "number"), names.port_number(port.number))
    if port.range is not None:
        yield from _span((*path, "range"), port.range.start, port.range.end)


def _port(path: Path, port: AdminPort) -> Iterator[Finding]:
    options = {
        "portNumber": port.port_number,
        "portRange": port.port_range,
        "namedPort": port.named_port,
    }
    yield from exactly_one(path, options)
    if port.port_number is not None:
        yield from said((*path, "portNumber", "port"), names.port_number(port.port_number.port))
    if port.port_range is not None:
        yield from _span((*path, "portRange"), port.port_range.start, port.port_range.end)
    if port.named_port:
        yield from said((*path, "namedPort"), names.port_name(port.named_port))


def _span(path: Path, start: int, end: int) -> Iterator[Finding]:
    for name, port in (("start", start), ("end", end)):
        yield from said((*path, name), names.port_number(port))
    if start >= end:
        also = ((*path, "start"),)
        yield Finding((*path, "end"), f"{end} is not above start {start}; or give a number", also)
