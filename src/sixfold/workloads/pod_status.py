"""core/v1 PodStatus and PodState out of a pod's life cycle: what ``get`` and planners see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sixfold.workloads.container_run import ContainerRun, Phase, Role
from sixfold.workloads.events import Termination
from sixfold.workloads.lifecycle import PodLifecycle
from sixfold.workloads.pod_state import (
    PodState,
    controller_of,
    format_time,
    template_hash_of,
)

Json = dict[str, Any]


def pod_state(life: PodLifecycle) -> PodState:
    """The pod as controllers and planners see it."""
    meta, network = life.pod.metadata, life.network
    return PodState(
        key=life.key,
        uid=meta.uid,
        owner=controller_of(meta),
        labels=meta.labels,
        template_hash=template_hash_of(meta.labels),
        phase=life.phase,
        ready=life.ready,
        serving=life.serving,
        ready_since_s=life.ready_since_s,
        terminating=life.terminating,
        created_s=life.created_s,
        finished_s=life.finished_s,
        restarts=sum(max(run.attempt, 0) for run in life.runs),
        ipv4=network.ipv4 if network else None,
        ipv6=network.ipv6 if network else None,
        ifindex=network.ifindex if network else 0,
        device=network.device if network else "",
        netns=network.netns if network else "",
        cookie=network.cookie if network else 0,
        reason=pod_reason(life),
        message=_pod_message(life),
    )


def pod_reason(life: PodLifecycle) -> str:
    """The one word for why a pod is not ready, as in kubectl's STATUS column; "" when it is."""
    if life.terminating:
        return "Terminating"
    if life.attach_failure is not None:
        return life.attach_failure.reason
    if life.ready or life.final == "Succeeded":
        return ""
    for run in life.runs:
        prefix = "" if run.role is Role.MAIN else "Init:"
        if run.phase is Phase.WAITING and run.waiting_reason:
            return prefix + run.waiting_reason
        if run.phase is Phase.OVER and run.end is not None and run.end.exit_code != 0:
            return prefix + termination_reason(run.end)
    return "" if life.initialized else ("PodInitializing" if life.in_force else "ContainerCreating")


def _pod_message(life: PodLifecycle) -> str:
    if life.attach_failure is not None:
        return life.attach_failure.message
    if life.ready or life.final is not None:
        return ""
    messages = (run.waiting_message or _complaint(run) for run in life.runs)
    return next(filter(None, messages), "")


def _complaint(run: ContainerRun) -> str:
    return run.probing.complaint() if run.probing and not run.ready else ""


def pod_status(life: PodLifecycle, node_ips: Sequence[str] = ()) -> Json:
    """core/v1 PodStatus; everything is known, so nothing is "Unknown"."""
    mains = [run for run in life.runs if run.role is Role.MAIN]
    inits = [run for run in life.runs if run.role is not Role.MAIN]
    status: Json = {
        "phase": life.phase,
        "conditions": _conditions(life),
        "startTime": format_time(life.created_s),
        "qosClass": "BestEffort",
        "containerStatuses": [_container(life, run) for run in mains],
    }
    if node_ips:
        status["hostIP"] = node_ips[0]
        status["hostIPs"] = [{"ip": ip} for ip in node_ips]
    if life.ips:
        status["podIP"] = life.ips[0]
        status["podIPs"] = [{"ip": ip} for ip in life.ips]
    if inits:
        status["initContainerStatuses"] = [_container(life, run) for run in inits]
    if life.attach_failure is not None:
        status["reason"] = life.attach_failure.reason
        status["message"] = life.attach_failure.message
    return status


def _conditions(life: PodLifecycle) -> list[Json]:
    reasons = {
        "PodReadyToStartContainers": _because_network(life),
        "Initialized": ("ContainersNotInitialized", _names(life, Role.INIT, Role.SIDECAR)),
        "ContainersReady": _because_containers(life),
        "Ready": ("PodTerminating", "") if life.terminating else _because_containers(life),
    }
    conditions = []
    for kind, (holds, since_s) in life.since_s.items():
        line: Json = {"type": kind, "status": "True" if holds else "False"}
        line["lastTransitionTime"] = format_time(since_s)
        if not holds:
            reason, message = reasons[kind]
            line |= {"reason": reason} | ({"message": message} if message else {})
        conditions.append(line)
    scheduled = {"type": "PodScheduled", "status": "True"}
    return [*conditions, {**scheduled, "lastTransitionTime": format_time(life.created_s)}]


def _because_network(life: PodLifecycle) -> tuple[str, str]:
    failure = life.attach_failure
    if failure is not None:
        return failure.reason, failure.message
    return ("PodCompleted", "") if life.final is not None else ("NetworkNotReady", "")


def _because_containers(life: PodLifecycle) -> tuple[str, str]:
    if life.final is not None:
        return ("PodCompleted" if life.final == "Succeeded" else "PodFailed"), ""
    return "ContainersNotReady", _names(life, Role.MAIN, Role.SIDECAR)


def _names(life: PodLifecycle, *roles: Role) -> str:
    """The containers that keep a condition from holding, with what their probes complain of."""
    lines = []
    for run in life.runs:
        if run.role in roles and not run.ready and not run.succeeded:
            complaint = _complaint(run) or run.waiting_message
            lines.append(f"{run.name}: {complaint}" if complaint else run.name)
    return f"containers with unready status: [{', '.join(lines)}]"


def _container(life: PodLifecycle, run: ContainerRun) -> Json:
    attempts = f"sixfold://{life.pod.metadata.uid}/{run.name}/{run.attempt}"
    last = run.end_before
    if run.phase is Phase.WAITING:
        last = run.end or run.end_before
    return {
        "name": run.name,
        "image": run.container.image or "host",
        "imageID": "",
        "containerID": attempts if run.attempt >= 0 else "",
        "ready": run.ready or (run.role is Role.INIT and run.succeeded),
        "started": run.started,
        "restartCount": max(run.attempt, 0),
        "state": _running_state(life, run),
        "lastState": {} if last is None else {"terminated": _terminated(last)},
    }


def _running_state(life: PodLifecycle, run: ContainerRun) -> Json:
    match run.phase:
        case Phase.RUNNING:
            return {"running": {"startedAt": format_time(run.started_s)}}
        case Phase.OVER if run.end is not None:
            return {"terminated": _terminated(run.end)}
        case _:
            default = "ContainerCreating"
            if life.in_force and run.role is Role.MAIN and not life.initialized:
                default = "PodInitializing"
            waiting = {"reason": run.waiting_reason or default}
            if run.waiting_message:
                waiting["message"] = run.waiting_message
            return {"waiting": waiting}


def _terminated(end: Termination) -> Json:
    state: Json = {
        "exitCode": end.exit_code,
        "reason": termination_reason(end),
        "startedAt": format_time(end.started_s),
        "finishedAt": format_time(end.finished_s),
    }
    if end.signal:
        state["signal"] = end.signal
    if end.message:
        state["message"] = end.message
    return state


def termination_reason(end: Termination) -> str:
    return end.reason or ("Error" if end.exit_code else "Completed")
