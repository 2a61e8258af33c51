"""A pod's life cycle picked up where the last agent left it.

Two sources: what is on the host now, and the last record that the last agent wrote. The host
wins about what runs; the record knows what the host cannot tell: that a probe had passed, how
often a container was restarted, that a pod was over. So a running container goes on and a ready
pod stays ready; a container that ended meanwhile is treated as if it ended just now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sixfold.model.workload import Pod
from sixfold.workloads.container_run import BACKOFF_MAX_S, BACKOFF_S, ContainerRun, Phase, Role
from sixfold.workloads.events import Network, Termination
from sixfold.workloads.lifecycle import PodLifecycle, no_jitter
from sixfold.workloads.pod_state import Phase as PodPhase
from sixfold.workloads.probing import Chance


@dataclass(frozen=True, slots=True)
class FoundContainer:
    """The latest attempt of one container on the host; ``end`` is None while it runs."""

    name: str
    attempt: int
    started_s: float
    end: Termination | None = None


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """What an agent wrote down about one container."""

    name: str
    attempt: int = -1
    started: bool = False
    ready: bool = False
    end: Termination | None = None  # of the last run that ended
    over: bool = False


@dataclass(frozen=True, slots=True)
class PodRecord:
    """What an agent wrote down about one pod, at each change."""

    uid: str
    key: str
    final: PodPhase | None = None
    initialized: bool = False
    since_s: dict[str, tuple[bool, float]] | None = None
    containers: tuple[ContainerRecord, ...] = ()
    ips: tuple[str, ...] = ()


def record(life: PodLifecycle) -> PodRecord:
    """What a successor needs to know."""
    return PodRecord(
        uid=life.pod.metadata.uid,
        key=life.key,
        final=life.final,
        initialized=life.initialized,
        since_s=dict(life.since_s),
        containers=tuple(
            ContainerRecord(
                run.name,
                run.attempt - (run.phase is Phase.STARTING),  # it may never have run
                run.started,
                run.probing is not None and run.probing.ready,
                run.end or run.end_before,
                run.phase is Phase.OVER,
            )
            for run in life.runs
        ),
        ips=life.ips,
    )


def restore(
    pod: Pod,
    now_s: float,
    network: Network | None,
    found: Sequence[FoundContainer],
    last: PodRecord | None,
    chance: Chance = no_jitter,
) -> PodLifecycle:
    """The life cycle of a pod of an earlier agent; follow with ``handle(Tick(), now_s)``.

    ``network`` is None when its namespace is gone: then nothing of it can run, ``found`` must
    be empty, and the pod begins again (unless it was over), with attempts counted on.
    """
    assert network is not None or not found, f"{pod.metadata.name}: containers without a network"
    life = PodLifecycle(pod, now_s, chance)
    records = {each.name: each for each in last.containers} if last is not None else {}
    present = {each.name: each for each in found}
    life.network, life.in_force = network, network is not None
    life.ips = network.ips if network is not None else last.ips if last is not None else ()
    if last is not None:
        life.final = last.final
        life.since_s = dict(last.since_s or life.since_s)
    ended = [
        (run, end)
        for run in life.runs
        if (end := _restore_run(life, run, present.get(run.name), records.get(run.name), now_s))
    ]
    if network is not None:
        mains = [run for run in life.runs if run.role is Role.MAIN]
        life.initialized = any(run.attempt >= 0 for run in mains)
        if life.initialized:
            _skip_inits(life)
    life.settle(now_s)
    for run, end in ended:
        life.exited(run, end)
    life.settle(now_s)
    return life


def _restore_run(
    life: PodLifecycle,
    run: ContainerRun,
    found: FoundContainer | None,
    known: ContainerRecord | None,
    now_s: float,
) -> Termination | None:
    """Set up one container; returns its end, when the last agent did not see it."""
    if known is not None:
        run.attempt = known.attempt
        run.end = known.end
    run.backoff_s = _backoff_s(found.attempt if found else run.attempt)
    if life.network is None and life.final is None:
        return None  # begins again
    if known is not None and known.over:
        run.phase = Phase.OVER
        return None
    if found is None:
        return None if run.attempt < 0 else _lost(run, now_s)
    same = known if known is not None and known.attempt == found.attempt else None
    run.attempt = found.attempt
    run.end, run.end_before = None, None if run.end == found.end else run.end
    run.running(found.started_s)
    assert run.probing is not None
    run.probing.resume(
        now_s,
        started=same is not None and same.started,
        ready=same is not None and same.ready,
    )
    return found.end


def _backoff_s(attempt: int) -> float:
    """The wait that follows this attempt, as ``ContainerRun`` would have counted it."""
    return min(BACKOFF_S * float(1 << min(attempt - 1, 5)), BACKOFF_MAX_S) if attempt > 0 else 0.0


def _lost(run: ContainerRun, now_s: float) -> Termination:
    """It ran, and now there is no trace of it."""
    run.end, run.end_before = None, run.end
    run.running(now_s)
    message = "no trace of it was found"
    return Termination(137, now_s, now_s, 9, "ContainerStatusUnknown", message)


def _skip_inits(life: PodLifecycle) -> None:
    """Containers run, so init containers had done their work, whatever the record says."""
    for run in life.runs:
        if run.role is Role.INIT and run.phase is Phase.WAITING:
            run.phase = Phase.OVER
            run.attempt = max(run.attempt, 0)
            run.end = run.end or Termination(0, life.created_s, life.created_s)
