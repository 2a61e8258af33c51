"""Placement: whether a pod's TCP is carried by the node's proxy, or by one of its own.

``up --placement`` says it for all, an annotation for a Namespace, or for a pod, whose own word
counts. It is decided when a pod starts, as a sidecar would be, and holds as long as the pod does.
"""

from __future__ import annotations

from typing import Literal

from sixfold.model.meta import ObjectMeta

Placement = Literal["node", "workload"]

PLACEMENT = "sixfold.dev/placement"
NODE: Placement = "node"
WORKLOAD: Placement = "workload"


def placed_as(meta: ObjectMeta, default: Placement) -> Placement:
    """As an object's annotation says; ``default`` is what a wider scope says."""
    match meta.annotations.get(PLACEMENT):
        case "node":
            return NODE
        case "workload":
            return WORKLOAD
        case _:
            return default
