"""Active health checks: whom to ask when, and what the answers add up to.

Pure; time and chance are arguments. Thresholds and periods are those of a core/v1 Probe. A
backend that was never asked is asked at once, and is not healthy until it has answered; its first
answer counts whatever the thresholds are. What is known outlives the agent: ``known`` is where
the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sixfold.model.datapath import IPAddress
from sixfold.model.workload import Probe

JITTER = 0.1  # share of the period: checks of a thousand backends do not fall into step
NEVER_ASKED = "not checked yet"

Chance = Callable[[], float]  # uniform in [0, 1)
Known = Mapping[tuple[str, IPAddress], str]  # why it is unhealthy; "" = healthy


class Target(NamedTuple):
    """One backend of one service; ``port`` is the backend's."""

    service: str
    address: IPAddress
    port: int


@dataclass(slots=True)
class Track:
    """One backend under check."""

    port: int
    probe: Probe
    next_s: float | None  # None while a check is under way
    trouble: str  # "" = healthy
    asked: bool
    streak: int = 0  # answers in a row that contradict what is believed


class Checks:
    """All backends under check; ``trouble`` of a service is in force until it changes."""

    def __init__(self, known: Known) -> None:
        self._known = dict(known)
        self._tracks: dict[tuple[str, IPAddress], Track] = {}

    def follow(self, wanted: Mapping[Target, Probe], now_s: float, chance: Chance) -> None:
        """Check these and no others; what is known of the others is forgotten."""
        tracks: dict[tuple[str, IPAddress], Track] = {}
        for target, probe in wanted.items():
            key = (target.service, target.address)
            old = self._tracks.get(key)
            if old is not None and (old.port, old.probe) == (target.port, probe):
                tracks[key] = old
                continue
            before = old.trouble if old and old.asked else self._known.get(key)
            spread = 0.0 if before is None else chance() * probe.period_seconds
            trouble = NEVER_ASKED if before is None else before
            tracks[key] = Track(
                target.port, probe, now_s + spread, trouble, asked=before is not None
            )
        self._tracks = tracks
        self._known = {key: track.trouble for key, track in tracks.items() if track.asked}

    def due(self, now_s: float) -> list[tuple[Target, Probe]]:
        """Whom to ask now; each is under way until ``take``."""
        found = []
        for (service, address), track in self._tracks.items():
            if track.next_s is not None and track.next_s <= now_s:
                track.next_s = None
                found.append((Target(service, address, track.port), track.probe))
        return found

    def next_deadline(self) -> float | None:
        times = (track.next_s for track in self._tracks.values())
        return min((time for time in times if time is not None), default=None)

    def take(self, target: Target, ok: bool, message: str, now_s: float, chance: Chance) -> bool:
        """Take one answer; True when the backend is believed to be otherwise now."""
        key = (target.service, target.address)
        track = self._tracks.get(key)
        if track is None or track.next_s is not None or track.port != target.port:
            return False  # nobody asked, or something else
        jitter = 1 + JITTER * (chance() - 0.5)
        track.next_s = now_s + track.probe.period_seconds * jitter
        if track.asked and ok == (not track.trouble):
            track.streak = 0
            return False
        track.streak += 1
        probe = track.probe
        threshold = probe.success_threshold if ok else probe.failure_threshold
        if track.asked and track.streak < threshold:
            return False
        track.asked, track.streak = True, 0
        track.trouble = "" if ok else message or "unhealthy"
        self._known[key] = track.trouble
        return True

    @property
    def known(self) -> Known:
        """What was found out, for the next agent."""
        return self._known

    @property
    def trouble(self) -> dict[str, dict[IPAddress, str]]:
        """The unhealthy ones of each service, and why."""
        found: dict[str, dict[IPAddress, str]] = {}
        for (service, address), track in self._tracks.items():
            if track.trouble:
                found.setdefault(service, {})[address] = track.trouble
        return found
