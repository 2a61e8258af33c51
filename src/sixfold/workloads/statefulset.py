"""StatefulSet: numbered pods with stable names, made and replaced in order.

Departures from Kubernetes: there are no stored revisions, so a pod below ``partition`` that dies
comes back with the present template; and an outdated pod that is not ready is replaced at once
instead of blocking its own repair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sixfold.model.workload import Pod, StatefulSet, Strategy
from sixfold.workloads.changes import Changes, next_available_s
from sixfold.workloads.pod_state import REVISION_LABEL, PodState
from sixfold.workloads.template import pod_of, template_hash

POD_NAME_LABEL = "statefulset.kubernetes.io/pod-name"
INDEX_LABEL = "apps.kubernetes.io/pod-index"


def reconcile_statefulset(
    controller: StatefulSet, pods: Sequence[PodState], now_s: float
) -> Changes:
    """Pods ``name-0`` … ``name-(replicas-1)``; a name is reused only when its pod is gone."""
    spec = controller.spec
    revision = template_hash(spec.template)
    by_ordinal = {ordinal: pod for pod in pods if (ordinal := _ordinal(controller, pod)) >= 0}
    wanted = range(spec.replicas)
    surplus = sorted(set(by_ordinal) - set(wanted), reverse=True)
    over = [pod.key for pod in by_ordinal.values() if pod.finished and not pod.terminating]
    if spec.pod_management_policy == "Parallel":
        create = [ordinal for ordinal in wanted if ordinal not in by_ordinal]
        doomed = [by_ordinal[ordinal] for ordinal in surplus if by_ordinal[ordinal].active]
        calm = not create and not doomed
    else:
        create, doomed, calm = _next_step(controller, by_ordinal, surplus, now_s)
    outdated = _outdated(controller, by_ordinal, revision)
    if not doomed:
        doomed = _next_outdated(controller, by_ordinal, outdated, now_s, calm=calm)
    kept = [pod for pod in pods if pod.active]
    return Changes(
        create=tuple(_pod(controller, ordinal, revision) for ordinal in create),
        delete=tuple(dict.fromkeys([*over, *(pod.key for pod in doomed)])),
        status=_status(controller, kept, revision, now_s, updating=bool(outdated)),
        wake_s=next_available_s(kept, now_s, spec.min_ready_seconds),
    )


def _ordinal(controller: StatefulSet, pod: PodState) -> int:
    """The number in the pod's name; -1 when the name is not one of ours."""
    base, _, number = pod.name.rpartition("-")
    return int(number) if base == controller.metadata.name and number.isdigit() else -1


def _next_step(
    controller: StatefulSet,
    by_ordinal: dict[int, PodState],
    surplus: list[int],
    now_s: float,
) -> tuple[list[int], list[PodState], bool]:
    """OrderedReady: the one next pod to make or to remove, and whether all is calm."""
    min_ready_s = controller.spec.min_ready_seconds
    for ordinal in range(controller.spec.replicas):
        pod = by_ordinal.get(ordinal)
        if pod is None:
            return [ordinal], [], False
        if not pod.available(now_s, min_ready_s):
            return [], [], False
    if not surplus:
        return [], [], True
    highest = by_ordinal[surplus[0]]
    return [], [] if highest.terminating else [highest], False


def _outdated(
    controller: StatefulSet, by_ordinal: dict[int, PodState], revision: str
) -> list[PodState]:
    """Pods of another revision that the strategy wants replaced, highest ordinal first."""
    strategy = controller.spec.update_strategy or Strategy()
    if strategy.type == "OnDelete":
        return []
    partition = (strategy.rolling_update and strategy.rolling_update.partition) or 0
    return [
        pod
        for ordinal, pod in sorted(by_ordinal.items(), reverse=True)
        if partition <= ordinal < controller.spec.replicas and pod.template_hash != revision
    ]


def _next_outdated(
    controller: StatefulSet,
    by_ordinal: dict[int, PodState],
    outdated: list[PodState],
    now_s: float,
    *,
    calm: bool,
) -> list[PodState]:
    """One at a time, and only while all others are well; one that is broken anyway, at once."""
    if any(pod.terminating for pod in by_ordinal.values()):
        return []
    broken = [pod for pod in outdated if pod.active and not pod.ready]
    if broken:
        return broken[:1]
    min_ready_s = controller.spec.min_ready_seconds
    well = all(pod.available(now_s, min_ready_s) for pod in by_ordinal.values())
    return [pod for pod in outdated if pod.active][:1] if calm and well else []


def _pod(controller: StatefulSet, ordinal: int, revision: str) -> Pod:
    name = f"{controller.metadata.name}-{ordinal}"
    spec = msgspec.structs.replace(
        controller.spec.template.spec, hostname=name, subdomain=controller.spec.service_name
    )
    labels = {POD_NAME_LABEL: name, INDEX_LABEL: str(ordinal), REVISION_LABEL: revision}
    base = f"{controller.metadata.name}-"
    return pod_of(controller, name, labels, generate_name=base, spec=spec)


def _status(
    controller: StatefulSet,
    kept: list[PodState],
    revision: str,
    now_s: float,
    *,
    updating: bool,
) -> dict[str, Any]:
    name = controller.metadata.name
    updated = [pod for pod in kept if pod.template_hash == revision]
    current = f"{name}-{revision}"
    if updating:
        current = str(controller.status.get("currentRevision") or current)
    return {
        "observedGeneration": controller.metadata.generation,
        "replicas": len(kept),
        "readyReplicas": sum(pod.ready for pod in kept),
        "availableReplicas": sum(
            pod.available(now_s, controller.spec.min_ready_seconds) for pod in kept
        ),
        "currentReplicas": sum(f"{name}-{pod.template_hash}" == current for pod in kept),
        "updatedReplicas": len(updated),
        "currentRevision": current,
        "updateRevision": f"{name}-{revision}",
    }
