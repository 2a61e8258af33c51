"""A place that was ill gets its connections back only when it has been well for a while.

Pure; the clock is an argument. What a level of a service is trusted with (percent, ``divide``)
falls with its health at once, and rises only after its health was better all the time for
``failback_s``: to the least that it was in that time. Who was never seen before is believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sixfold.model.seen import LevelKey

Healths = Mapping[str, Mapping[LevelKey, int]]  # by service; of services with failover
At = tuple[str, LevelKey]


@dataclass(slots=True)
class Rising:
    """A level that has been better than it is trusted with, for how long, and how much at least."""

    since_s: float
    least: int
    until_s: float


@dataclass(slots=True)
class Failback:
    """What every level is trusted with; of a service another object when it changed."""

    trusted: dict[str, Mapping[LevelKey, int]] = field(default_factory=dict)
    _rising: dict[At, Rising] = field(default_factory=dict)

    def follow(self, health: Healths, failback_s: Mapping[str, float], now_s: float) -> bool:
        """Take what was planned; whether a service is to be planned again with more trust."""
        for service in self.trusted.keys() - health.keys():
            del self.trusted[service]
        more = False
        kept: dict[At, Rising] = {}
        for service, levels in health.items():
            before = self.trusted.get(service, {})
            after = {
                key: self._trust((service, key), before.get(key, now), now, kept, failback_s, now_s)
                for key, now in levels.items()
            }
            if after != before:
                more = more or any(after[key] > before.get(key, after[key]) for key in after)
                self.trusted[service] = after
        self._rising = kept
        return more

    def _trust(
        self,
        at: At,
        before: int,
        now: int,
        kept: dict[At, Rising],
        failback_s: Mapping[str, float],
        now_s: float,
    ) -> int:
        if now <= before:
            return now
        rising = self._rising.get(at) or Rising(now_s, now, 0.0)
        rising.least = min(rising.least, now)
        rising.until_s = rising.since_s + failback_s[at[0]]
        if now_s >= rising.until_s:
            if rising.least < now:  # it was better only for a part of the time: that part waits
                kept[at] = Rising(now_s, now, now_s + failback_s[at[0]])
            return rising.least
        kept[at] = rising
        return before

    def next_deadline(self) -> float | None:
        """When ``follow`` has something to say even if nothing happens."""
        return min((one.until_s for one in self._rising.values()), default=None)
