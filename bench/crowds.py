"""Worlds as large as those that peers publish figures for, made from nothing.

The shapes are those of Antrea's controller tests: 25,000 namespaces of
4 pods and 3 policies each; one namespace whose 10,000 policies select all of its 10,000 pods;
and one whose 10,000 policies select one pod each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address

from sixfold.model.config import Config
from sixfold.model.endpoint import Endpoint, EndpointId
from sixfold.model.identity import FIRST_ALLOCATED, Identity, Subject
from sixfold.model.layers import Layers
from sixfold.model.meta import LabelSelector, ObjectMeta, namespace_labels
from sixfold.model.policy import (
    IngressRule,
    NetworkPolicy,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    NetworkPolicySpec,
)
from sixfold.model.world import World

Labels = Mapping[str, str]
FIRST_ADDRESS = int(IPv4Address("10.0.0.1"))


def small_namespaces(namespaces: int = 25_000) -> World:
    """In each namespace everything is shut, but for two pairs of pods."""

    def pods() -> Iterator[tuple[str, str, Labels]]:
        for number in range(namespaces):
            for pod in range(1, 5):
                app = 1 + (pod > 2)
                yield f"ns-{number}", f"pod{pod}", {f"app-{app}": f"scale-{app}"}

    def policies() -> Iterator[NetworkPolicy]:
        for number in range(namespaces):
            yield policy(f"ns-{number}", "default-deny-all", {}, None)
            for app in (1, 2):
                labels = {f"app-{app}": f"scale-{app}"}
                yield policy(f"ns-{number}", f"np-{app}", labels, labels)

    return _world((f"ns-{number}" for number in range(namespaces)), pods(), policies())


def one_namespace(size: int = 10_000) -> World:
    """Every policy selects every pod, as subject and as peer."""
    labels = {"app-1": "scale-1"}
    return _world(
        ["big"],
        (("big", f"pod-{number}", labels) for number in range(size)),
        (policy("big", f"np-{number}", labels, labels) for number in range(size)),
    )


def policy_per_pod(size: int = 10_000) -> World:
    """Every policy selects one pod, and lets one other in."""

    def labels(number: int) -> dict[str, str]:
        return {"app": f"scale-{number % size}"}

    return _world(
        ["big"],
        (("big", f"pod-{number}", labels(number)) for number in range(size)),
        (
            policy("big", f"np-{number}", labels(number), labels(number + 1))
            for number in range(size)
        ),
    )


SHAPES: Mapping[str, Callable[[], World]] = {
    "25,000 namespaces, 100,000 pods, 75,000 policies": small_namespaces,
    "1 namespace, 10,000 pods, 10,000 policies for all": one_namespace,
    "1 namespace, 10,000 pods, 10,000 policies, one each": policy_per_pod,
}


def policy(
    namespace: str, name: str, subject: Labels, peer: Labels | None, port: int | None = None
) -> NetworkPolicy:
    """Both directions are shut; ``peer`` is let in."""
    sources = [NetworkPolicyPeer(pod_selector=LabelSelector(dict(peer or {})))]
    ports = None if port is None else [NetworkPolicyPort(port=port)]
    return NetworkPolicy(
        ObjectMeta(name=name, namespace=namespace),
        NetworkPolicySpec(
            pod_selector=LabelSelector(dict(subject)),
            policy_types=["Ingress", "Egress"],
            ingress=None if peer is None else [IngressRule(sources, ports)],
        ),
    )


def _world(
    namespaces: Iterator[str] | list[str],
    pods: Iterator[tuple[str, str, Labels]],
    policies: Iterator[NetworkPolicy],
) -> World:
    endpoints: dict[str, Endpoint] = {}
    identities: dict[Subject, Identity] = {}
    for number, (namespace, pod, labels) in enumerate(pods, 1):
        subject = Subject(namespace, "default", tuple(sorted(labels.items())), ())
        identity = identities.setdefault(subject, Identity(FIRST_ALLOCATED + len(identities)))
        endpoints[f"{namespace}/{pod}"] = Endpoint(
            namespace=namespace,
            pod=pod,
            workload=f"Pod/{pod}",
            subject=subject,
            id=EndpointId(number),
            identity=identity,
            ipv4=IPv4Address(FIRST_ADDRESS + number),
            ifindex=number,
            ready=True,
        )
    return World(
        config=Config(posture="kubernetes"),
        namespaces=Layers({name: namespace_labels(name, {"app": name}) for name in namespaces}),
        endpoints=Layers(endpoints),
        policies=Layers({f"{one.metadata.namespace}/{one.metadata.name}": one for one in policies}),
    )
