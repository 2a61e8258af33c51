"""Job: pods until so many have succeeded, or too many have failed.

Departure from Kubernetes: successes are counted on the pods that exist, so deleting a
succeeded pod of an unfinished job runs it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import msgspec

from sixfold.model.workload import Job, Pod
from sixfold.workloads.changes import Changes, condition, find_condition, first_to_go
from sixfold.workloads.pod_state import PodState, format_time, parse_time
from sixfold.workloads.template import pod_of, random_name

BACKOFF_S, BACKOFF_MAX_S = 10.0, 360.0


def reconcile_job(
    controller: Job, pods: Sequence[PodState], now_s: float, chance: Random
) -> Changes:
    """At most ``parallelism`` pods at once; a finished job makes none and ends what runs."""
    ended = _ending(controller.status)
    if ended is not None:
        ended_s = parse_time(ended.get("lastTransitionTime")) or now_s
        return _after(controller, pods, ended_s, now_s)
    spec = controller.spec
    succeeded = sum(pod.phase == "Succeeded" for pod in pods)
    failed = [pod for pod in pods if pod.phase == "Failed"]
    active = [pod for pod in pods if pod.active]
    created_s = parse_time(controller.metadata.creation_timestamp)
    started_s = parse_time(controller.status.get("startTime")) or created_s or now_s
    verdict = _verdict(controller, succeeded, failed, active, started_s, now_s)
    if verdict is not None:
        ended_s = _ended_s(controller, pods, verdict[0], started_s, now_s)
        status = _status(controller, [], succeeded, len(failed), started_s)
        status["conditions"] = [condition({}, *verdict, ended_s)]
        if verdict[0] == "Complete":
            status["completionTime"] = format_time(ended_s)
        return _after(msgspec.structs.replace(controller, status=status), pods, ended_s, now_s)
    wanted = min(spec.parallelism, spec.completions - succeeded)
    missing = wanted - len(active)
    retry_s = _retry_s(failed)
    wakes = [retry_s] if missing > 0 and retry_s > now_s else []
    if spec.active_deadline_seconds is not None:
        wakes.append(started_s + spec.active_deadline_seconds)
    create = _create(controller, missing if retry_s <= now_s else 0, chance, pods)
    return Changes(
        create=create,
        delete=tuple(pod.key for pod in first_to_go(active)[: max(-missing, 0)]),
        status=_status(controller, active, succeeded, len(failed), started_s),
        wake_s=min(wakes, default=None),
    )


def _ending(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The condition that ended the job: Complete or Failed."""
    for kind in ("Complete", "Failed"):
        line = find_condition(status, kind)
        if line.get("status") == "True":
            return line
    return None


def _after(controller: Job, pods: Sequence[PodState], ended_s: float, now_s: float) -> Changes:
    ttl_s = controller.spec.ttl_seconds_after_finished
    expiry_s = None if ttl_s is None else ended_s + ttl_s
    return Changes(
        delete=tuple(pod.key for pod in pods if pod.active),
        status=controller.status,
        wake_s=expiry_s,
        expired=expiry_s is not None and now_s >= expiry_s,
    )


def _ended_s(
    controller: Job, pods: Sequence[PodState], kind: str, started_s: float, now_s: float
) -> float:
    """When the job ended: told by its pods, so that it is the same at every call."""
    phase = "Succeeded" if kind == "Complete" else "Failed"
    ends = [pod.finished_s for pod in pods if pod.phase == phase and pod.finished_s is not None]
    deadline_s = controller.spec.active_deadline_seconds
    if kind == "Failed" and deadline_s is not None:
        ends.append(started_s + deadline_s)
    return min(max(ends, default=now_s), now_s)


def _verdict(
    controller: Job,
    succeeded: int,
    failed: list[PodState],
    active: list[PodState],
    started_s: float,
    now_s: float,
) -> tuple[str, bool, str, str] | None:
    """The condition that ends the job now, if one does."""
    spec = controller.spec
    if succeeded >= spec.completions:
        reached = f"{succeeded} of {spec.completions} completions reached"
        return "Complete", True, "CompletionsReached", reached
    if spec.active_deadline_seconds is not None:
        deadline = spec.active_deadline_seconds
        if now_s - started_s >= deadline:
            return "Failed", True, "DeadlineExceeded", f"job was active for {deadline} s"
    # with restartPolicy OnFailure it is the container that starts again, not the pod
    failures = len(failed) + sum(pod.restarts for pod in active)
    if failures > spec.backoff_limit:
        limit = f"{failures} failures are above the limit of {spec.backoff_limit}"
        return "Failed", True, "BackoffLimitExceeded", limit
    return None


def _retry_s(failed: list[PodState]) -> float:
    """When the next pod may be made: 10 s after the last failure, doubling, at most 6 min."""
    last = max((pod.finished_s for pod in failed if pod.finished_s is not None), default=None)
    if last is None:
        return 0.0
    return last + min(BACKOFF_S * float(1 << min(len(failed) - 1, 10)), BACKOFF_MAX_S)


def _create(
    controller: Job, count: int, chance: Random, pods: Sequence[PodState]
) -> tuple[Pod, ...]:
    meta = controller.metadata
    base = f"{meta.name}-"
    labels = {
        "batch.kubernetes.io/job-name": meta.name,
        "batch.kubernetes.io/controller-uid": meta.uid,
        "job-name": meta.name,
        "controller-uid": meta.uid,
    }
    taken = {pod.name for pod in pods}
    created = []
    for _ in range(count):
        name = random_name(base, chance, taken)
        taken.add(name)
        created.append(pod_of(controller, name, labels, generate_name=base))
    return tuple(created)


def _status(
    controller: Job, active: list[PodState], succeeded: int, failed: int, started_s: float
) -> dict[str, Any]:
    return {
        "startTime": format_time(started_s),
        "active": len(active),
        "ready": sum(pod.ready for pod in active),
        "succeeded": succeeded,
        "failed": failed,
    }
