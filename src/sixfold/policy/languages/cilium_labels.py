"""Cilium's selectors to ``ir``: labels of pods, of their namespace, and two that Cilium makes up.

Source: ``getEndpointSelector`` of Cilium 1.19. Where a label comes from (``k8s:``, ``any:``) makes
no difference here: all labels come from Kubernetes. Reserved labels (``reserved:host``) are no
pod's; whom they mean are entities.
"""

from __future__ import annotations

from typing import Literal

from sixfold.model.meta import NAME_LABEL, LabelSelector, LabelSelectorRequirement
from sixfold.policy import ir

PREFIXES = ("k8s:", "any:")
NAMESPACE = "io.kubernetes.pod.namespace"
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels."
SERVICE_ACCOUNT = "io.cilium.k8s.policy.serviceaccount"
CLUSTER = "io.cilium.k8s.policy.cluster"
CLUSTER_NAME = "default"  # Cilium's, for a cluster that was given none

RESERVED_SOURCE = "reserved:"
RESERVED = (
    *("host", "world", "world-ipv4", "world-ipv6", "remote-node", "kube-apiserver"),
    *("ingress", "init", "health", "unmanaged"),
)
POSITIVE = ("In", "Exists")

Owner = Literal["pod", "namespace", "cluster", "reserved"]
NEVER = LabelSelectorRequirement(CLUSTER, "In", [])


def plain_key(key: str) -> str:
    """The key without its source."""
    for prefix in PREFIXES:
        if key.startswith(prefix):
            return key.removeprefix(prefix)
    return key


def asks_reserved(selector: LabelSelector) -> bool:
    """Whether a reserved label must be there, so that no pod is meant."""
    keys = [*selector.match_labels]
    keys += [line.key for line in selector.match_expressions if line.operator in POSITIVE]
    return any(plain_key(key).startswith(RESERVED_SOURCE) for key in keys)


def is_reserved(selector: LabelSelector, name: str) -> bool:
    """Whether the entity with this reserved label, and no other label, is meant."""
    return plain_selector(selector).matches({f"{RESERVED_SOURCE}{name}": ""})


def plain_selector(selector: LabelSelector) -> LabelSelector:
    """The selector, its keys without their sources."""
    labels = {plain_key(key): value for key, value in selector.match_labels.items()}
    lines = [
        LabelSelectorRequirement(plain_key(line.key), line.operator, line.values)
        for line in selector.match_expressions
    ]
    return LabelSelector(labels, lines)


def endpoints(selector: LabelSelector, namespace: str | None) -> ir.Pods:
    """Peers. Nothing said of namespaces means the policy's own; all, when it has none."""
    own, around = _split(selector)
    if around == ir.EVERYTHING:
        return ir.Pods(namespace, pods=own, unsaid=NAMESPACE)
    if not around.match_expressions and around.match_labels.keys() == {NAME_LABEL}:
        return ir.Pods(around.match_labels[NAME_LABEL], pods=own)
    return ir.Pods(None, around, own)


def subject(selector: LabelSelector, namespace: str | None) -> ir.Pods:
    """Whom a spec applies to: never beyond the namespace of the policy."""
    if namespace is None:
        return endpoints(selector, None)
    own, around = _split(selector)
    labels = {key: value for key, value in around.match_labels.items() if key != NAME_LABEL}
    return ir.Pods(namespace, LabelSelector(labels, around.match_expressions), own)


def _split(selector: LabelSelector) -> tuple[LabelSelector, LabelSelector]:
    """What is asked of the pod, and of its namespace."""
    owners: tuple[Owner, ...] = ("pod", "namespace", "cluster", "reserved")
    labels: dict[Owner, dict[str, str]] = {owner: {} for owner in owners}
    lines: dict[Owner, list[LabelSelectorRequirement]] = {owner: [] for owner in owners}
    for written, value in selector.match_labels.items():
        owner, key = _owner(written)
        # One key twice, from two sources, with two values: then nobody has both.
        lines[owner] += [NEVER] if labels[owner].get(key, value) != value else []
        labels[owner][key] = value
    for line in selector.match_expressions:
        owner, key = _owner(line.key)
        lines[owner].append(LabelSelectorRequirement(key, line.operator, line.values))
    cluster = LabelSelector(labels["cluster"], lines["cluster"])
    reserved = LabelSelector(labels["reserved"], lines["reserved"])
    if not cluster.matches({CLUSTER: CLUSTER_NAME}) or not reserved.matches({}):
        lines["pod"].append(NEVER)
    pods = LabelSelector(labels["pod"], lines["pod"])
    return pods, LabelSelector(labels["namespace"], lines["namespace"])


def _owner(written: str) -> tuple[Owner, str]:
    """Whose label a key means, and its name there."""
    key = plain_key(written)
    if key.startswith(RESERVED_SOURCE):
        return "reserved", key
    if key == NAMESPACE:
        return "namespace", NAME_LABEL
    if key.startswith(NAMESPACE_LABELS):
        return "namespace", key.removeprefix(NAMESPACE_LABELS)
    if key == CLUSTER:
        return "cluster", CLUSTER
    return "pod", ir.SERVICE_ACCOUNT_LABEL if key == SERVICE_ACCOUNT else key
