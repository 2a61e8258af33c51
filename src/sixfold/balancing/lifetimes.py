"""How long do the connections through a service port live? Decided from counters, by Little's law.

Pure. The kernel counts, for every place, connections open now and opened ever. Over a time,
connection-seconds (open ones, summed over it) per connection opened is how long one lives; ones
that never end show in it as well, which durations of ended ones would not. Both sums are forgotten
by half every minute, so that the answer is about the last few.

Theory of operation. A port becomes long-lived at ``LONG_S``, and is so until it falls below
``SHORT_S``; in between all stays, and after a change all stays for ``REST_S``: the answer decides
about an algorithm, which must not flap. Little evidence counts as if more had been opened: nobody
is judged by one connection.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from sixfold.model.seen import PortKey

LONG_S, SHORT_S = 10.0, 3.0
REST_S = 60.0
HALF_LIFE_S = 60.0
OPENED_MIN_LONG, OPENED_MIN_SHORT = 5.0, 20.0  # evidence

Place = TypeVar("Place", bound=Hashable)


@dataclass(slots=True)
class Sums:
    """Of one port, fading."""

    open_s: float = 0.0
    opened: float = 0.0
    rests_until_s: float = 0.0

    def fade(self, passed_s: float) -> None:
        left = 0.5 ** (passed_s / HALF_LIFE_S)
        self.open_s *= left
        self.opened *= left

    @property
    def lifetime_s(self) -> float:
        """At least: as if some more had been opened."""
        return self.open_s / max(self.opened, OPENED_MIN_LONG)

    @property
    def is_long(self) -> bool:
        return self.lifetime_s >= LONG_S

    @property
    def is_short(self) -> bool:
        return self.opened >= OPENED_MIN_SHORT and self.lifetime_s < SHORT_S


@dataclass(slots=True)
class Lifetimes:
    """Takes samples; ``long_lived`` is what it has decided, with the mean of that moment."""

    long_lived: Mapping[PortKey, float] = field(default_factory=dict)
    _sums: dict[PortKey, Sums] = field(default_factory=dict)
    _totals: dict[Hashable, int] = field(default_factory=dict)
    _last_s: float | None = None

    def take(
        self,
        loads: Mapping[Place, tuple[int, int]],
        ports: Mapping[Place, Iterable[PortKey]],
        now_s: float,
    ) -> list[PortKey]:
        """One sample; returns the ports whose answer changed.

        loads  connections open now and opened ever, of places that ever had one
        ports  whose backends these places are
        """
        passed_s = 0.0 if self._last_s is None else max(0.0, now_s - self._last_s)
        for sums in self._sums.values():
            sums.fade(passed_s)
        for place, (active, total) in loads.items():
            before = self._totals.get(place)
            if before is None:  # seen for the first time: what was before is not known
                before = total if self._last_s is None else 0
            opened = total - before if total >= before else total  # the place is another one's now
            self._totals[place] = total
            if not active and not opened:
                continue
            for port in ports.get(place, ()):
                sums = self._sums.setdefault(port, Sums())
                sums.open_s += active * passed_s
                sums.opened += opened
        self._last_s = now_s
        self._forget(loads.keys())
        return self._decide(now_s)

    def lifetime_s(self, port: PortKey) -> float:
        """What is known now; 0 where nothing is."""
        return self._sums[port].lifetime_s if port in self._sums else 0.0

    def _decide(self, now_s: float) -> list[PortKey]:
        changed = []
        for port, sums in self._sums.items():
            is_long = port in self.long_lived
            if now_s < sums.rests_until_s or not (sums.is_short if is_long else sums.is_long):
                continue
            sums.rests_until_s = now_s + REST_S
            changed.append(port)
        if changed:
            known = dict(self.long_lived)
            for port in changed:
                if known.pop(port, None) is None:
                    known[port] = self._sums[port].lifetime_s
            self.long_lived = known
        return changed

    def keep_only(self, ports: Iterable[PortKey]) -> bool:
        """Forget ports that are gone; whether anything decided was among them."""
        wanted = set(ports)
        for port in self._sums.keys() - wanted:
            del self._sums[port]
        gone = self.long_lived.keys() - wanted
        if gone:
            self.long_lived = {p: one for p, one in self.long_lived.items() if p not in gone}
        return bool(gone)

    def _forget(self, places: Iterable[Hashable]) -> None:
        kept = set(places)
        for place in self._totals.keys() - kept:
            del self._totals[place]
        for port in [p for p, sums in self._sums.items() if sums.open_s + sums.opened < 1e-3]:
            del self._sums[port]
