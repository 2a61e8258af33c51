"""The life of one pod: events in, actions out; no I/O, no clock.

    Attach ─▶ init containers, one after the other ─▶ containers, all at once ─▶ …
      … ─▶ all ended for good ─▶ Detach (phase Succeeded or Failed)
      … ─▶ StopRequested ─▶ all stopped, sidecars last ─▶ Remove

Every event is followed by ``_advance``, which looks at the whole state and does what is due, so
the order of events cannot leave a pod stuck. Three things hold after any sequence of events:
a container never has two runs at once; nothing starts before the network is in force; a pod is
ready only while all its containers run. Source: kubelet 1.31, pod life cycle in the docs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from sixfold.model.workload import Pod
from sixfold.workloads import events
from sixfold.workloads.container_run import ContainerRun, Phase, Role
from sixfold.workloads.events import Action, Event, Network
from sixfold.workloads.pod_state import Phase as PodPhase
from sixfold.workloads.pod_state import parse_time
from sixfold.workloads.probing import Chance

ATTACH_RETRY_S, ATTACH_RETRY_MAX_S = 1.0, 60.0


def no_jitter() -> float:
    return 0.5


class PodLifecycle:
    """One pod. ``handle`` takes an event and returns what to do; then ask ``next_deadline``."""

    def __init__(self, pod: Pod, now_s: float, chance: Chance = no_jitter) -> None:
        self.pod = pod
        self.key = f"{pod.metadata.namespace}/{pod.metadata.name}"
        self.created_s = parse_time(pod.metadata.creation_timestamp) or now_s
        self.runs = tuple(_runs(pod, chance))
        self.network: Network | None = None
        self.ips: tuple[str, ...] = ()  # remembered when the network is gone
        self.in_force = False  # containers may run
        self.attach_failure: events.AttachFailed | None = None
        self.initialized = False
        self.final: PodPhase | None = None  # Succeeded or Failed, for good
        self.stop_by_s: float | None = None  # the pod is being deleted
        self.gone = False
        self.ready_since_s: float | None = None
        self.since_s: dict[str, tuple[bool, float]] = {}  # condition → holds, since when
        self._attaching = False
        self._attach_at_s = now_s
        self._attach_backoff_s = ATTACH_RETRY_S
        self._ending = False  # Detach or Remove is under way
        self._now_s = now_s
        self.settle(now_s)

    @property
    def phase(self) -> PodPhase:
        if self.final is not None:
            return self.final
        return (
            "Running" if self.initialized and any(_was_started(r) for r in self.runs) else "Pending"
        )

    @property
    def terminating(self) -> bool:
        return self.stop_by_s is not None

    @property
    def containers_ready(self) -> bool:
        if self.final is not None or not self.initialized:
            return False
        return all(run.ready for run in self.runs if run.role is not Role.INIT)

    @property
    def serving(self) -> bool:
        """Whether it would be ready, were it not on its way out."""
        if self.final is not None or not self.initialized:
            return False
        return all(run.serving for run in self.runs if run.role is not Role.INIT)

    @property
    def ready(self) -> bool:
        """A pod that is being deleted is not ready: no new connection is sent to it."""
        return self.containers_ready and not self.terminating

    @property
    def finished_s(self) -> float | None:
        if self.final is None:
            return None
        return max((run.end.finished_s for run in self.runs if run.end), default=self._now_s)

    def handle(self, event: Event, now_s: float) -> list[Action]:
        """Take one event; returns what to do now, in this order."""
        self._now_s = now_s
        actions = [*self._take(event, now_s), *self._advance(now_s)]
        self.settle(now_s)
        return actions

    def next_deadline(self) -> float | None:
        """When to call ``handle(Tick(), …)``; None when only an event can change anything."""
        if self.gone or self.terminating or self.final is not None:
            return None
        times: list[float] = []
        if not self.in_force and not self._attaching:
            times.append(self._attach_at_s)
        for run in self.runs:
            # one whose time has come waits for another container, not for the clock
            if run.phase is Phase.WAITING and run.retry_s > self._now_s:
                times.append(run.retry_s)
            if run.probing is not None and run.stop_by_s is None:
                due_s = run.probing.next_deadline()
                times += [] if due_s is None else [due_s]
        return min(times, default=None)

    def settle(self, now_s: float) -> None:
        """Note when conditions turned."""
        for name, holds in (
            ("PodReadyToStartContainers", self.in_force),
            ("Initialized", self.initialized),
            ("ContainersReady", self.containers_ready),
            ("Ready", self.ready),
        ):
            if self.since_s.get(name, (not holds, 0))[0] != holds:
                self.since_s[name] = (holds, now_s)
        self.ready_since_s = self.since_s["Ready"][1] if self.ready else None

    def _take(self, event: Event, now_s: float) -> list[Action]:
        match event:
            case events.Attached():
                self.network = event.network
                self.ips = event.network.ips
            case events.Activated():
                self._attaching = False
                self.in_force = True
                self.attach_failure = None
            case events.AttachFailed():
                self._attach_failed(event, now_s)
            case events.Started():
                if (run := self._run(event, Phase.STARTING)) is not None:
                    run.running(min(event.started_s, now_s))  # the clock may have been set
            case events.StartFailed():
                if (run := self._run(event, Phase.STARTING)) is not None:
                    run.start_failed(event.reason, event.message, now_s)
            case events.Exited():
                if (run := self._run(event, Phase.RUNNING)) is not None:
                    self.exited(run, event.end)
            case events.Probed():
                return self._probed(event, now_s)
            case events.StopRequested():
                return self._stop_requested(event.grace_s, now_s)
            case events.Detached():
                self.network, self.in_force, self._ending = None, False, False
            case events.Removed():
                self.network, self.in_force, self.gone = None, False, True
            case events.Tick():
                pass
            case _:
                assert_never(event)
        return []

    def _run(
        self,
        event: events.Started | events.StartFailed | events.Exited | events.Probed,
        phase: Phase,
    ) -> ContainerRun | None:
        """The container that an event is about, unless the event is late."""
        for run in self.runs:
            if run.name == event.container:
                return run if (run.attempt, run.phase) == (event.attempt, phase) else None
        return None

    def _attach_failed(self, event: events.AttachFailed, now_s: float) -> None:
        self.network, self.in_force, self._attaching = None, False, False
        self.attach_failure = event
        delay = self._attach_backoff_s if event.retry_s is None else event.retry_s
        self._attach_at_s = now_s + delay
        self._attach_backoff_s = min(self._attach_backoff_s * 2, ATTACH_RETRY_MAX_S)

    def _probed(self, event: events.Probed, now_s: float) -> list[Action]:
        run = self._run(event, Phase.RUNNING)
        if run is None or run.probing is None:
            return []
        restart = run.probing.take(event.kind, event.ok, event.message, now_s)
        if not restart or run.stop_by_s is not None or self.terminating or self.final:
            return []
        run.must_restart = True
        run.restart_reason = f"{event.kind} probe: {event.message}"
        return [_stop(run, now_s + self._probe_grace_s(run, event.kind), now_s)]

    def _probe_grace_s(self, run: ContainerRun, kind: events.ProbeKind) -> float:
        container = run.container
        probe = container.startup_probe if kind == "startup" else container.liveness_probe
        if probe is not None and probe.termination_grace_period_seconds is not None:
            return probe.termination_grace_period_seconds
        return self.pod.spec.termination_grace_period_seconds

    def _stop_requested(self, grace_s: float, now_s: float) -> list[Action]:
        stop_by_s = now_s + grace_s
        if self.stop_by_s is not None and self.stop_by_s <= stop_by_s:
            return []
        self.stop_by_s = stop_by_s
        # those that were stopping already get the shorter end too; the rest: _wind_down
        return [
            _stop(run, stop_by_s, now_s)
            for run in self.runs
            if run.phase is Phase.RUNNING
            and run.stop_by_s is not None
            and run.stop_by_s > stop_by_s
        ]

    def exited(self, run: ContainerRun, end: events.Termination) -> None:
        """Book the end of a run, and decide whether another follows or the pod is over."""
        run.exited(end)
        if self.terminating or self.final is not None:
            return
        policy = self.pod.spec.restart_policy
        failed = end.exit_code != 0
        match run.role:
            case Role.SIDECAR:
                again = True
            case Role.INIT:
                again = failed and policy != "Never"
            case Role.MAIN:
                asked = run.must_restart and policy != "Never"
                again = policy == "Always" or asked or (policy == "OnFailure" and failed)
            case _:
                assert_never(run.role)
        if again:
            run.restart_later(self.key, self._now_s)
        else:
            self._conclude(run)

    def _conclude(self, run: ContainerRun) -> None:
        """A container is over for good: perhaps the pod is, too."""
        if run.role is Role.INIT:
            if not run.succeeded:
                self.final = "Failed"
            return
        mains = [each for each in self.runs if each.role is Role.MAIN]
        if all(each.phase is Phase.OVER for each in mains):
            self.final = "Succeeded" if all(each.succeeded for each in mains) else "Failed"

    def _advance(self, now_s: float) -> list[Action]:
        if self.gone:
            return []
        if self.terminating or self.final is not None:
            return self._wind_down(now_s)
        if not self.in_force:
            if self._attaching or now_s < self._attach_at_s:
                return []
            self._attaching = True
            return [events.Attach()]
        actions: list[Action] = []
        for run in self.runs:
            if run.phase is Phase.WAITING and run.retry_s <= now_s and self._turn(run):
                actions.append(events.StartContainer(run.name, run.start()))
            if run.probing is not None and run.stop_by_s is None:
                actions += [
                    events.RunProbe(run.name, run.attempt, kind, probe)
                    for kind, probe in run.probing.due(now_s)
                ]
        return actions

    def _turn(self, run: ContainerRun) -> bool:
        """Whether all that must come before this container has come."""
        if self.initialized:
            return True
        for before in self.runs:
            if before is run or before.role is Role.MAIN:
                break
            done = before.succeeded if before.role is Role.INIT else before.started
            if not done:
                return False
        self.initialized = run.role is Role.MAIN
        return True

    def _wind_down(self, now_s: float) -> list[Action]:
        """Stop what lives, sidecars last and in reverse; when nothing lives, give all back."""
        stop_by_s = self.stop_by_s
        if stop_by_s is None:
            stop_by_s = now_s + self.pod.spec.termination_grace_period_seconds
        alive = [run for run in self.runs if run.alive]
        turn = [run for run in alive if run.role is not Role.SIDECAR] or alive[-1:]
        if turn:
            return [
                _stop(run, stop_by_s, now_s)
                for run in turn
                if run.phase is Phase.RUNNING and run.stop_by_s is None
            ]
        if self._attaching or self._ending:
            return []
        if self.terminating:
            self._ending = True
            return [events.Remove()]
        if self.network is not None:
            self._ending = True
            return [events.Detach()]
        return []


def _runs(pod: Pod, chance: Chance) -> Sequence[ContainerRun]:
    inits = [
        ContainerRun(each, Role.SIDECAR if each.restart_policy else Role.INIT, chance)
        for each in pod.spec.init_containers
    ]
    return [*inits, *(ContainerRun(each, Role.MAIN, chance) for each in pod.spec.containers)]


def _was_started(run: ContainerRun) -> bool:
    if run.role is not Role.MAIN:
        return False
    return run.phase is Phase.RUNNING or run.end is not None or run.attempt > 0


def _stop(run: ContainerRun, stop_by_s: float, now_s: float) -> events.StopContainer:
    run.stop_by_s = stop_by_s
    return events.StopContainer(run.name, run.attempt, max(stop_by_s - now_s, 0.0))
