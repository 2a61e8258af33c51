"""What a controller asks for, and the small arithmetic that all controllers share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor
from typing import Any

from sixfold.model.workload import Pod
from sixfold.workloads.pod_state import PodState, format_time


@dataclass(frozen=True, slots=True)
class Changes:
    """The answer of ``reconcile``."""

    create: tuple[Pod, ...] = ()
    delete: tuple[str, ...] = ()  # pod keys
    status: dict[str, Any] = field(default_factory=dict)
    wake_s: float | None = None  # ask again at this time even if nothing happens
    expired: bool = False  # the controller itself is to be deleted (Job TTL)


def scaled(value: int | str | None, default: str, total: int, *, up: bool) -> int:
    """An IntOrString of ``total``: "25%" or 3; percentages round up or down."""
    value = default if value is None else value
    if isinstance(value, int):
        return value
    if not value.endswith("%"):
        return int(value)
    share = total * int(value.removesuffix("%")) / 100
    return ceil(share) if up else floor(share)


def first_to_go(pods: Iterable[PodState]) -> list[PodState]:
    """Pods in the order in which a scale-down takes them.

    Pending before running, not ready before ready, most restarts, newest: Kubernetes'
    ActivePods order; the name last, so that the choice is the same at every call.
    """

    def rank(pod: PodState) -> tuple[Any, ...]:
        ready_since = pod.ready_since_s or 0.0
        newest = (-pod.restarts, -pod.created_s, pod.key)
        return (pod.phase == "Running", pod.ready, -ready_since, *newest)

    return sorted(pods, key=rank)


def next_available_s(pods: Iterable[PodState], now_s: float, min_ready_s: float) -> float | None:
    """When the next ready pod will have been ready for long enough."""
    times = [
        pod.ready_since_s + min_ready_s
        for pod in pods
        if pod.active and pod.ready and pod.ready_since_s is not None
    ]
    return min((time for time in times if time > now_s), default=None)


def condition(
    previous: Mapping[str, Any],
    kind: str,
    holds: bool,
    reason: str,
    message: str,
    now_s: float,
) -> dict[str, Any]:
    """A status condition; its transition time moves only when its truth does."""
    status = "True" if holds else "False"
    before = find_condition(previous, kind)
    since = before.get("lastTransitionTime") if before.get("status") == status else None
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since or format_time(now_s),
    }


def find_condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The condition of this type; empty when there is none."""
    conditions: Sequence[Mapping[str, Any]] = status.get("conditions") or ()
    return next((each for each in conditions if each.get("type") == kind), {})
