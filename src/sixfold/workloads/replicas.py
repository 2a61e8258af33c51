"""ReplicaSet and Deployment: so many pods of one template, old ones replaced bit by bit.

A Deployment has no ReplicaSet objects here: the label ``pod-template-hash`` of its pods is the
revision. Hence two departures from Kubernetes: no rollback history, and a paused Deployment that
lacks pods makes them from its present template.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from sixfold.model.workload import Deployment, Pod, ReplicaSet, RollingUpdate, Strategy
from sixfold.workloads.changes import (
    Changes,
    condition,
    find_condition,
    first_to_go,
    next_available_s,
    scaled,
)
from sixfold.workloads.pod_state import (
    TEMPLATE_HASH_LABEL,
    PodState,
    format_time,
    parse_time,
)
from sixfold.workloads.template import pod_of, random_name, template_hash

PROGRESS_DEADLINE_S = 600


def reconcile_replicaset(
    controller: ReplicaSet, pods: Sequence[PodState], now_s: float, chance: Random
) -> Changes:
    """Exactly ``replicas`` active pods; a changed template touches new pods only."""
    spec = controller.spec
    active = [pod for pod in pods if pod.active]
    missing = spec.replicas - len(active)
    taken = {pod.name for pod in pods}
    create = []
    for _ in range(missing):
        name = random_name(f"{controller.metadata.name}-", chance, taken)
        taken.add(name)
        create.append(pod_of(controller, name, {}, generate_name=f"{controller.metadata.name}-"))
    delete = [pod.key for pod in first_to_go(active)[: max(-missing, 0)]]
    delete += [pod.key for pod in pods if pod.finished and not pod.terminating]
    return Changes(
        create=tuple(create),
        delete=tuple(delete),
        status={
            "observedGeneration": controller.metadata.generation,
            "replicas": len(active),
            "fullyLabeledReplicas": len(active),
            "readyReplicas": sum(pod.ready for pod in active),
            "availableReplicas": sum(
                pod.available(now_s, spec.min_ready_seconds) for pod in active
            ),
        },
        wake_s=next_available_s(active, now_s, spec.min_ready_seconds),
    )


def reconcile_deployment(
    controller: Deployment, pods: Sequence[PodState], now_s: float, chance: Random
) -> Changes:
    """``replicas`` pods of the present template, reached within maxSurge and maxUnavailable."""
    spec = controller.spec
    revision = template_hash(spec.template)
    active = [pod for pod in pods if pod.active]
    new = [pod for pod in active if spec.paused or pod.template_hash == revision]
    old = [pod for pod in active if pod not in new]
    strategy = spec.strategy or Strategy()
    if strategy.type == "Recreate":
        leaving = any(pod.terminating and pod.template_hash != revision for pod in pods)
        missing = 0 if old or leaving else spec.replicas - len(new)
        doomed = old
    else:
        missing, doomed = _roll(spec.replicas, strategy, new, old, now_s, spec.min_ready_seconds)
    doomed = doomed + first_to_go(new)[: max(len(new) - spec.replicas, 0)]
    finished = [pod for pod in pods if pod.finished and not pod.terminating]
    wakes = [next_available_s(active, now_s, spec.min_ready_seconds)]
    status = _deployment_status(controller, new, active, now_s)
    if find_condition(status, "Progressing")["reason"] == "ReplicaSetUpdated":
        wakes.append(_progress_deadline(controller, status))
    return Changes(
        create=_new_pods(controller, revision, max(missing, 0), chance, pods),
        delete=tuple(pod.key for pod in [*doomed, *finished]),
        status=status,
        wake_s=min((wake for wake in wakes if wake is not None), default=None),
    )


def _roll(
    replicas: int,
    strategy: Strategy,
    new: list[PodState],
    old: list[PodState],
    now_s: float,
    min_ready_s: float,
) -> tuple[int, list[PodState]]:
    """How many new pods to make, and which old ones may go now."""
    bounds = strategy.rolling_update or RollingUpdate()
    surge = scaled(bounds.max_surge, "25%", replicas, up=True)
    unavailable = scaled(bounds.max_unavailable, "25%", replicas, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1  # else nothing could ever move
    missing = min(replicas - len(new), replicas + surge - len(new) - len(old))

    least = replicas - min(unavailable, replicas)
    fresh = sum(pod.available(now_s, min_ready_s) for pod in new)
    healthy = [pod for pod in old if pod.available(now_s, min_ready_s)]
    broken = [pod for pod in old if pod not in healthy]
    # what is broken serves nobody: it goes first, as long as the total stays at the bound
    spare = len(new) + len(old) - least - (len(new) - fresh)
    doomed = first_to_go(broken)[: max(spare, 0)]
    doomed += first_to_go(healthy)[: max(fresh + len(healthy) - least, 0)]
    return missing, doomed


def _new_pods(
    controller: Deployment,
    revision: str,
    count: int,
    chance: Random,
    pods: Sequence[PodState],
) -> tuple[Pod, ...]:
    base = f"{controller.metadata.name}-{revision}-"
    taken = {pod.name for pod in pods}
    created = []
    for _ in range(count):
        name = random_name(base, chance, taken)
        taken.add(name)
        labels = {TEMPLATE_HASH_LABEL: revision}
        created.append(pod_of(controller, name, labels, generate_name=base))
    return tuple(created)


def _deployment_status(
    controller: Deployment, new: list[PodState], active: list[PodState], now_s: float
) -> dict[str, Any]:
    spec = controller.spec
    available = sum(pod.available(now_s, spec.min_ready_seconds) for pod in active)
    fresh = sum(pod.available(now_s, spec.min_ready_seconds) for pod in new)
    bounds = (spec.strategy or Strategy()).rolling_update or RollingUpdate()
    slack = scaled(bounds.max_unavailable, "25%", spec.replicas, up=False)
    status: dict[str, Any] = {
        "observedGeneration": controller.metadata.generation,
        "replicas": len(active),
        "updatedReplicas": len(new),
        "readyReplicas": sum(pod.ready for pod in active),
        "availableReplicas": available,
        "unavailableReplicas": max(spec.replicas - available, 0),
    }
    enough = available >= spec.replicas - slack
    status["conditions"] = [
        condition(
            controller.status,
            "Available",
            enough,
            "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
            f"{available} of {spec.replicas} replicas are available",
            now_s,
        ),
        _progressing(controller, status, fresh, now_s),
    ]
    return status


def _progressing(
    controller: Deployment, status: dict[str, Any], fresh: int, now_s: float
) -> dict[str, Any]:
    """Complete, moving, or stuck for longer than progressDeadlineSeconds."""
    spec, before = controller.spec, controller.status
    counts = ("observedGeneration", "replicas", "updatedReplicas", "availableReplicas")
    moved = any(before.get(count) != status[count] for count in counts)
    previous = find_condition(before, "Progressing")
    updated = previous.get("lastUpdateTime")
    if moved or updated is None:
        updated = format_time(now_s)
    complete = fresh == spec.replicas == status["replicas"]
    stuck = now_s - (parse_time(updated) or now_s) > _deadline_s(controller)
    if complete:
        holds, reason = True, "NewReplicaSetAvailable"
    elif stuck or (previous.get("reason") == "ProgressDeadlineExceeded" and not moved):
        holds, reason = False, "ProgressDeadlineExceeded"
    else:
        holds, reason = True, "ReplicaSetUpdated"
    message = f"{fresh} of {spec.replicas} replicas are updated and available"
    line = condition(before, "Progressing", holds, reason, message, now_s)
    return {**line, "lastUpdateTime": updated}


def _deadline_s(controller: Deployment) -> int:
    deadline = controller.spec.progress_deadline_seconds
    return PROGRESS_DEADLINE_S if deadline is None else deadline


def _progress_deadline(controller: Deployment, status: dict[str, Any]) -> float | None:
    line = find_condition(status, "Progressing")
    if line.get("reason") == "NewReplicaSetAvailable":
        return None
    updated = parse_time(line.get("lastUpdateTime"))
    return None if updated is None else updated + _deadline_s(controller) + 1
