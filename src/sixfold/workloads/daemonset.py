"""DaemonSet: one pod, since there is one node; replaced when the template changes."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from sixfold.model.workload import DaemonSet, Pod, RollingUpdate, Strategy
from sixfold.workloads.changes import Changes, first_to_go, next_available_s, scaled
from sixfold.workloads.pod_state import REVISION_LABEL, PodState
from sixfold.workloads.template import pod_of, random_name, template_hash


def reconcile_daemonset(
    controller: DaemonSet, pods: Sequence[PodState], now_s: float, chance: Random
) -> Changes:
    """maxSurge above 0 makes the new pod before the old one goes; else the old one goes first."""
    spec = controller.spec
    revision = template_hash(spec.template)
    min_ready_s = spec.min_ready_seconds
    active = [pod for pod in pods if pod.active]
    new = [pod for pod in active if pod.template_hash == revision]
    old = [pod for pod in active if pod.template_hash != revision]
    strategy = spec.update_strategy or Strategy()
    bounds = strategy.rolling_update or RollingUpdate()
    surge = scaled(bounds.max_surge, "0", 1, up=True) > 0

    doomed = first_to_go(new)[:-1] + first_to_go(old)[:-1]
    leaving = any(pod.terminating for pod in pods)
    if strategy.type == "OnDelete":
        make = not active and not leaving
    elif surge:
        make = not new
        broken = not any(pod.available(now_s, min_ready_s) for pod in old)
        if broken or any(pod.available(now_s, min_ready_s) for pod in new):
            doomed += [pod for pod in old if pod not in doomed]
    else:
        make = not active and not leaving
        doomed += [pod for pod in old if pod not in doomed]
    finished = [pod for pod in pods if pod.finished and not pod.terminating]
    available = int(any(pod.available(now_s, min_ready_s) for pod in active))
    return Changes(
        create=_create(controller, revision, chance, pods) if make else (),
        delete=tuple(pod.key for pod in [*doomed, *finished]),
        status={
            "observedGeneration": controller.metadata.generation,
            "desiredNumberScheduled": 1,
            "currentNumberScheduled": min(len(active), 1),
            "updatedNumberScheduled": min(len(new), 1),
            "numberReady": int(any(pod.ready for pod in active)),
            "numberAvailable": available,
            "numberUnavailable": 1 - available,
            "numberMisscheduled": 0,
        },
        wake_s=next_available_s(active, now_s, min_ready_s),
    )


def _create(
    controller: DaemonSet, revision: str, chance: Random, pods: Sequence[PodState]
) -> tuple[Pod, ...]:
    base = f"{controller.metadata.name}-"
    name = random_name(base, chance, {pod.name for pod in pods})
    return (pod_of(controller, name, {REVISION_LABEL: revision}, generate_name=base),)
