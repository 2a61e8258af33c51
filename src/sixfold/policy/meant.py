"""Is this pod meant by a selector? Of one pod at a time; ``selector`` asks for all of a world."""

from __future__ import annotations

from collections.abc import Mapping

from sixfold.model.endpoint import Endpoint
from sixfold.model.meta import namespace_labels
from sixfold.model.world import World
from sixfold.policy import ir


def means(world: World, pods: ir.Pods, endpoint: Endpoint) -> bool:
    """By namespace, by labels of the namespace, and by labels and service account of the pod."""
    if pods.namespace not in (None, endpoint.namespace):
        return False
    account = {ir.SERVICE_ACCOUNT_LABEL: endpoint.subject.service_account}
    return pods.namespaces.matches(labels_around(world, endpoint.namespace)) and pods.pods.matches(
        {**endpoint.labels, **account}
    )


def labels_around(world: World, namespace: str) -> Mapping[str, str]:
    """Labels of a namespace; one that nobody wrote has its name."""
    known = world.namespaces.get(namespace)
    return known if known is not None else namespace_labels(namespace, {})
