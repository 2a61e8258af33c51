"""Slow start: a backend that (re)appears gets its weight in ten steps over a window.

Pure; time is an argument. Envoy's formula with aggression 1: weight × age ÷ window, a tenth at
least. Nobody is new where nobody was before: of a service whose backends all appear at once, and
after a start of the agent, all have their whole weight.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sixfold.model.datapath import IPAddress

STEPS = 10
WHOLE = 100  # percent


def percent_at(age_s: float, window_s: float) -> int:
    """Of its weight, in steps of a tenth."""
    if age_s >= window_s:
        return WHOLE
    return max(1, math.floor(STEPS * age_s / window_s)) * WHOLE // STEPS


@dataclass(slots=True)
class SlowStart:
    """Remembers since when each backend of each service is there."""

    _since: dict[str, dict[IPAddress, float]] = field(default_factory=dict)
    next_deadline_s: float | None = None

    def follow(
        self, present: Mapping[str, tuple[float, Collection[IPAddress]]], now_s: float
    ) -> dict[str, dict[IPAddress, int]]:
        """Percent of their weight, of those that have not the whole of it.

        present  by service with a window: the window, and who gets new connections
        """
        ramps: dict[str, dict[IPAddress, int]] = {}
        deadlines: list[float] = []
        since: dict[str, dict[IPAddress, float]] = {}
        for service, (window_s, backends) in present.items():
            known = self._since.get(service)
            fresh = now_s if known else -math.inf
            since[service] = {one: (known or {}).get(one, fresh) for one in backends}
            for one, from_s in since[service].items():
                percent = percent_at(now_s - from_s, window_s)
                if percent < WHOLE:
                    ramps.setdefault(service, {})[one] = percent
                    step = percent * STEPS // WHOLE + 1
                    deadlines.append(from_s + window_s * step / STEPS)
        self._since = since
        self.next_deadline_s = min(deadlines, default=None)
        return ramps
