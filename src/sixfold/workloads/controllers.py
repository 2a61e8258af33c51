"""Controllers: which pods to create and delete, so that there are the ones that were asked for.

Pure and level-triggered: the answer depends on the pods that are there, not on what happened;
asking twice with the same pods gives the same counts. Callers pass the pods of this controller
only (``pod_state.by_owner``), terminating and finished ones included. Pods that merely match
the selector are never adopted. Source: the controllers of Kubernetes 1.31.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, assert_never

from sixfold.model.workload import (
    Controller,
    DaemonSet,
    Deployment,
    Job,
    ReplicaSet,
    StatefulSet,
)
from sixfold.workloads.changes import Changes
from sixfold.workloads.daemonset import reconcile_daemonset
from sixfold.workloads.job import reconcile_job
from sixfold.workloads.pod_state import PodState
from sixfold.workloads.replicas import reconcile_deployment, reconcile_replicaset
from sixfold.workloads.statefulset import reconcile_statefulset

__all__ = ["Changes", "reconcile", "unfinished"]


def reconcile(
    controller: Controller, pods: Sequence[PodState], now_s: float, chance: Random
) -> Changes:
    """What to create, delete and report for one controller; ``chance`` makes name suffixes."""
    match controller:
        case Deployment():
            return reconcile_deployment(controller, pods, now_s, chance)
        case ReplicaSet():
            return reconcile_replicaset(controller, pods, now_s, chance)
        case StatefulSet():
            return reconcile_statefulset(controller, pods, now_s)
        case DaemonSet():
            return reconcile_daemonset(controller, pods, now_s, chance)
        case Job():
            return reconcile_job(controller, pods, now_s, chance)
    assert_never(controller)


def unfinished(controller: Controller, status: Mapping[str, Any]) -> str:
    """What a roll-out still lacks, "" when it is done: ``kubectl rollout status`` as a line.

    A pod that is ready may be young (minReadySeconds), and an old one may be ready, too.
    """
    match controller:
        case Deployment() if not controller.spec.paused:
            wanted, updated = controller.spec.replicas, status.get("updatedReplicas", 0)
            if updated < wanted:
                return f"{updated} of {wanted} replicas are updated"
            if old := status.get("replicas", 0) - updated:
                return f"{old} old replicas are left"
        case ReplicaSet() | StatefulSet():
            wanted = controller.spec.replicas
        case _:
            return ""
    available = status.get("availableReplicas", 0)
    return f"{available} of {wanted} replicas are available" if available < wanted else ""
