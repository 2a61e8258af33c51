"""When to probe a container, and what the results add up to.

Thresholds and periods are kubelet's. Until a container is ready for the first time it is asked
more often, after 0.1 s, 0.2 s and so on up to the period (Kubernetes allows that: "to make the
Pod ready faster"); failures still count at most once per period, so the budget of a startup
probe is what the manifest says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from sixfold.model.workload import Container, Probe
from sixfold.workloads.events import ProbeKind

FIRST_RETRY_S = 0.1
JITTER = 0.1  # share of the period; keeps a thousand probes from falling into step

Chance = Callable[[], float]  # uniform in [0, 1)


class ProbeTrack:
    """One probe of one run of a container."""

    def __init__(self, kind: ProbeKind, probe: Probe, first_s: float) -> None:
        self.kind: ProbeKind = kind
        self.probe = probe
        self.next_s: float | None = first_s  # None while a probe is under way
        self.message = ""
        self._count_from_s = first_s
        self._retry_s = FIRST_RETRY_S
        self._successes = 0
        self._failures = 0

    def take(self, ok: bool, message: str, now_s: float) -> Literal["passed", "failed"] | None:
        """Count one result; the answer is a threshold that was reached."""
        self.message = "" if ok else message
        if ok:
            self._failures = 0
            self._successes += 1
            return "passed" if self._successes >= self.probe.success_threshold else None
        self._successes = 0
        if now_s < self._count_from_s:
            return None
        self._count_from_s = now_s + self.probe.period_seconds * (1 - JITTER)
        self._failures += 1
        return "failed" if self._failures >= self.probe.failure_threshold else None

    def schedule(self, now_s: float, chance: Chance, *, eager: bool) -> None:
        """Set the next time; eager while the container has never been well."""
        period = self.probe.period_seconds
        delay = period * (1 + JITTER * (chance() - 0.5))
        if eager:
            delay = min(delay, self._retry_s)
            self._retry_s *= 2
        self.next_s = now_s + delay


class Probing:
    """All probes of one run of a container: the startup probe gates the other two."""

    def __init__(self, container: Container, started_s: float, chance: Chance) -> None:
        self._container = container
        self._started_s = started_s
        self._chance = chance
        self._tracks: dict[ProbeKind, ProbeTrack] = {}
        self._was_ready = False
        self.started = container.startup_probe is None
        self.ready = False
        if container.startup_probe is not None:
            self._arm("startup", container.startup_probe, 0.0)
        else:
            self._begin(started_s)

    def resume(self, now_s: float, *, started: bool, ready: bool) -> None:
        """Go on after a restart of the agent with what was known; probes start spread out."""
        if started and not self.started:
            self._tracks.clear()
            self.started = True
            self._begin(now_s)
        if ready and self.started:
            self.ready = self._was_ready = True
        for track in self._tracks.values():
            eager = not self.ready and track.kind != "liveness"
            spread = 0.0 if eager else self._chance() * track.probe.period_seconds
            track.next_s = max(track.next_s or 0.0, now_s + spread)

    def due(self, now_s: float) -> list[tuple[ProbeKind, Probe]]:
        """Probes to run now; each is under way until ``take``."""
        out: list[tuple[ProbeKind, Probe]] = []
        for track in self._tracks.values():
            if track.next_s is not None and track.next_s <= now_s:
                track.next_s = None
                out.append((track.kind, track.probe))
        return out

    def next_deadline(self) -> float | None:
        times = (track.next_s for track in self._tracks.values())
        return min((time for time in times if time is not None), default=None)

    def take(self, kind: ProbeKind, ok: bool, message: str, now_s: float) -> bool:
        """Take one result; True when the container has to be restarted."""
        track = self._tracks.get(kind)
        if track is None or track.next_s is not None:
            return False  # nobody asked
        reached = track.take(ok, message, now_s)
        if kind == "startup" and reached == "passed":
            del self._tracks["startup"]
            self.started = True
            self._begin(now_s)
            return False
        if kind == "readiness" and reached is not None:
            self.ready = reached == "passed"
            self._was_ready |= self.ready
        eager = kind == "startup" or (kind == "readiness" and not self._was_ready)
        track.schedule(now_s, self._chance, eager=eager and not ok)
        return reached == "failed" and kind != "readiness"

    def complaint(self) -> str:
        """What the last failed probe said."""
        failed = (f"{t.kind} probe: {t.message}" for t in self._tracks.values() if t.message)
        return "; ".join(failed)

    def _begin(self, now_s: float) -> None:
        """The startup probe has passed, or there is none."""
        container = self._container
        self.ready = container.readiness_probe is None
        if container.readiness_probe is not None:
            self._arm("readiness", container.readiness_probe, now_s)
        if container.liveness_probe is not None:
            self._arm("liveness", container.liveness_probe, now_s)

    def _arm(self, kind: ProbeKind, probe: Probe, now_s: float) -> None:
        first_s = max(self._started_s + probe.initial_delay_seconds, now_s)
        self._tracks[kind] = ProbeTrack(kind, probe, first_s)
