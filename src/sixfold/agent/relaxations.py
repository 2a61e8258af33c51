"""Relaxations of the posture as time goes by: each ends by itself, and it is said.

Called after every round, so what is said to have ended is out of force already. While no agent
runs nothing ends: the kernel holds what it was told, and the next agent's first round ends it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any

from sixfold.agent.agent import Agent
from sixfold.model.posture import POSTURE, Posture, Relaxation, over
from sixfold.workloads.pod_state import format_time

log = logging.getLogger(__name__)

EVENTS_KEPT = 50
SOON_S = 0.001  # after its time: a timer may be early by less
LATEST_S = 86_400.0  # a timer that is longer than a day is set again


class Relaxations:
    """Follows the one Posture object; ``changed`` of the agent makes the round that ends one."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._known: dict[str, Relaxation] = {}  # what was in force after the last round, by name
        self._timer: asyncio.TimerHandle | None = None
        self._events: deque[dict[str, str]] = deque(maxlen=EVENTS_KEPT)
        self._first = True

    def follow(self) -> None:
        """After a round."""
        agent = self._agent
        assert agent.plans is not None
        now = {one.name: one for one in agent.plans.world.relaxations}
        posture = self._posture()
        ended = over(posture, time.time()) if posture is not None else []
        for one in self._known.values():
            if one.name not in now:
                is_over = any(it.name == one.name for it in ended)
                how = "has ended" if is_over else "was taken back"
                self._say(f"{one}: {how}; {one.scope} is as all the rest")
        for name, one in now.items():
            if self._known.get(name) != one:
                relaxed = ", ".join(f"{key}: {value}" for key, value in one.said.items())
                self._say(f"{one}: in force: {relaxed}, for {one.scope}: {one.reason}")
        if self._first:
            for one in ended:
                self._say(f"{one}: ended before this agent began; it relaxes nothing")
        self._known, self._first = now, False
        self._set_timer(min((one.until_s for one in now.values()), default=None))

    def status(self) -> dict[str, Any]:
        """Of the object, for who looks at it."""
        now_s = time.time()
        config = self._agent.effective
        return {
            "base": config.posture,
            "relaxations": [
                {
                    "name": one.name,
                    "state": "InForce" if one.name in self._known else "Ended",
                    "scope": one.scope,
                    "secondsLeft": max(0, round(one.until_s - now_s)),
                }
                for one in _written(self._posture())
            ],
            "events": list(self._events),
        }

    def _posture(self) -> Posture | None:
        stored = next(iter(self._agent.objects.of(POSTURE).values()), None)
        return None if stored is None else stored.object

    def _say(self, message: str) -> None:
        log.warning("posture: %s", message)
        self._events.append({"time": format_time(time.time()), "message": message})

    def _set_timer(self, until_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if until_s is not None:
            left_s = min(LATEST_S, max(0.0, until_s - time.time()) + SOON_S)
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(left_s, self._agent.changed)


def _written(posture: Posture | None) -> list[Relaxation]:
    return list(posture.spec.relaxations) if posture is not None else []
