"""One container of a pod through all its runs: waiting, starting, running, over.

Back-off is kubelet's: the first restart comes at once, then after 10 s, 20 s … 300 s; a run of
ten minutes forgives what was before.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from sixfold.model.workload import Container
from sixfold.workloads.events import Termination
from sixfold.workloads.probing import Chance, Probing

BACKOFF_S, BACKOFF_MAX_S, BACKOFF_FORGET_S = 10.0, 300.0, 600.0


class Role(Enum):
    INIT = "init"  # runs to its end before the next one begins
    SIDECAR = "sidecar"  # an init container with restartPolicy Always
    MAIN = "main"


class Phase(Enum):
    WAITING = "waiting"  # for its turn, or for the end of a back-off
    STARTING = "starting"
    RUNNING = "running"
    OVER = "over"  # ended, and not to be started again


class ContainerRun:
    """The state of one container. ``lifecycle`` decides; this keeps the books."""

    def __init__(self, container: Container, role: Role, chance: Chance) -> None:
        self.container = container
        self.role = role
        self.phase = Phase.WAITING
        self.attempt = -1  # of the present or last run; -1 before the first
        self.started_s = 0.0
        self.stop_by_s: float | None = None  # asked to stop: killed at the latest then
        self.must_restart = False  # a probe asked for the stop
        self.restart_reason = ""  # what that probe said
        self.end: Termination | None = None  # of the last run
        self.end_before: Termination | None = None  # of the run before the present one
        self.retry_s = 0.0
        self.backoff_s = 0.0  # wait before the next restart
        self.waiting_reason = ""
        self.waiting_message = ""
        self.probing: Probing | None = None
        self._chance = chance

    @property
    def name(self) -> str:
        return self.container.name

    @property
    def alive(self) -> bool:
        """A process of it may exist."""
        return self.phase in (Phase.STARTING, Phase.RUNNING)

    @property
    def started(self) -> bool:
        """Runs, and its startup probe has passed."""
        return self.probing is not None and self.probing.started

    @property
    def ready(self) -> bool:
        return self.serving and self.stop_by_s is None

    @property
    def serving(self) -> bool:
        """Whether it was ready when it was last asked; asked to stop, it may serve on."""
        return self.phase is Phase.RUNNING and self.probing is not None and self.probing.ready

    @property
    def succeeded(self) -> bool:
        return self.phase is Phase.OVER and self.end is not None and self.end.exit_code == 0

    def start(self) -> int:
        """Begin the next attempt; returns its number."""
        assert self.phase is Phase.WAITING, f"{self.name} is {self.phase}"
        self.phase = Phase.STARTING
        self.attempt += 1
        self.end_before, self.end = self.end, None
        self.stop_by_s, self.must_restart, self.restart_reason = None, False, ""
        self.waiting_reason = self.waiting_message = ""
        return self.attempt

    def running(self, started_s: float) -> None:
        self.phase = Phase.RUNNING
        self.started_s = started_s
        self.probing = Probing(self.container, started_s, self._chance)

    def start_failed(self, reason: str, message: str, now_s: float) -> None:
        """The attempt does not count: nothing ran."""
        self.attempt -= 1
        self.end, self.end_before = self.end_before, None
        self.phase = Phase.WAITING
        self.backoff_s = min(max(self.backoff_s * 2, BACKOFF_S), BACKOFF_MAX_S)
        self.retry_s = now_s + self.backoff_s
        self.waiting_reason, self.waiting_message = reason, message

    def exited(self, end: Termination) -> None:
        """The run is over; ``lifecycle`` says whether another follows."""
        self.phase = Phase.OVER
        # there are no events to look it up in: the end itself says who asked for it
        self.end = replace(end, message=end.message or self.restart_reason)
        self.probing = None

    def restart_later(self, pod: str, now_s: float) -> None:
        """Another run will follow, after the back-off counted from the end of the last.

        The end is the host's clock, ``now_s`` is one that never jumps: an end that lies ahead
        is now.
        """
        assert self.end is not None
        self.phase = Phase.WAITING
        if self.end.finished_s - self.end.started_s >= BACKOFF_FORGET_S:
            self.backoff_s = 0.0
        delay = self.backoff_s
        self.retry_s = min(self.end.finished_s, now_s) + delay
        self.backoff_s = min(max(delay * 2, BACKOFF_S), BACKOFF_MAX_S)
        if delay:
            self.waiting_reason = "CrashLoopBackOff"
            self.waiting_message = (
                f"back-off {delay:.0f}s restarting failed container={self.name} pod={pod}"
            )
