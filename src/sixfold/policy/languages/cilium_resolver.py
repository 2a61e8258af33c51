"""Is the cluster resolver among the peers of an egress rule, as authors name it?

It is no pod here. In a cluster it is kube-dns: pods of kube-system with a label that every chart
and every example knows, or the host, where a node-local cache answers. Source: Cilium's guide to
DNS policies.
"""

from __future__ import annotations

from ipaddress import ip_network

from sixfold.model.ciliumpolicy import CiliumEgressRule, CiliumIngressRule
from sixfold.model.config import RESOLVER_IPV4, RESOLVER_IPV6
from sixfold.model.meta import LabelSelector, namespace_labels
from sixfold.policy import ir
from sixfold.policy.languages.cilium_labels import asks_reserved, endpoints, is_reserved

NAMESPACE = "kube-system"
LABELS = {"k8s-app": "kube-dns"}
ENTITIES = ("all", "cluster", "host")
PORT = 53


def means_resolver(rule: CiliumEgressRule) -> bool:
    """No kind of peer written means any peer."""
    written = (rule.to_endpoints, rule.to_entities, rule.to_cidr, rule.to_cidr_set)
    if all(one is None for one in (*written, rule.to_services, rule.to_fqdns)):
        return True
    cidrs = [*(rule.to_cidr or ()), *(one.cidr for one in rule.to_cidr_set or ())]
    return (
        any(map(_selects, rule.to_endpoints or ()))
        or not set(ENTITIES).isdisjoint(rule.to_entities or ())
        or any(map(_holds, cidrs))
    )


def asks_all(rule: CiliumEgressRule | CiliumIngressRule) -> bool:
    """Whether a rule without a word about names lets kube-dns be asked for all, as in Cilium.

    A rule about any peer is seen by its peers. The host's other ports are no reason to ask.
    """
    return isinstance(rule, CiliumEgressRule) and (
        any(map(_selects, rule.to_endpoints or ())) or "cluster" in (rule.to_entities or ())
    )


def at_resolver(ports: tuple[ir.Port, ...] | None) -> tuple[ir.Port, ...]:
    """What is left of ports where the resolver is asked."""
    if ports is None:
        return (ir.Port("ANY", PORT),)
    return tuple(
        ir.Port("ANY" if one.protocol == "ALL" else one.protocol, PORT)
        for one in ports
        if is_at_resolver(one)
    )


def is_at_resolver(port: ir.Port) -> bool:
    return port.protocol in ("ALL", "ANY", "UDP", "TCP") and (
        port.first is None
        or (isinstance(port.first, int) and port.first <= PORT <= (port.last or port.first))
    )


def _selects(selector: LabelSelector) -> bool:
    if asks_reserved(selector):
        return is_reserved(selector, "host")
    # Of the namespace that is not there: a selector that says none means the policy's own.
    peer = endpoints(selector, "")
    return (
        peer.namespace in (None, NAMESPACE)
        and peer.namespaces.matches(namespace_labels(NAMESPACE, {}))
        and peer.pods.matches(LABELS)
    )


def _holds(cidr: str) -> bool:
    try:
        network = ip_network(cidr, strict=False)
    except ValueError:  # refused elsewhere
        return False
    return RESOLVER_IPV4 in network or RESOLVER_IPV6 in network
