"""Health of global names: every address of every region is asked, and the resolver told.

Theory of operation. An address is well until its check has failed as often as its threshold says,
and ill until it has passed as often: what flaps moves nobody. The very first answer decides at
once. What is ill is kept in the state directory, so that a new agent does not send clients back
to it before it has looked. Without an agent the last word stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from random import Random

import msgspec

from sixfold.agent.agent import Agent
from sixfold.discovery.globalnames import PlannedName, ill_names, plan_global_names
from sixfold.host import enter
from sixfold.host.probes import Probed, ProbeResult
from sixfold.model.globalname import GlobalName, RegionCheck
from sixfold.model.meta import Key
from sixfold.model.workload import Probe
from sixfold.serve import dns_control as control

log = logging.getLogger(__name__)

KIND = "GlobalName"
LOOK_S = 1.0
JITTER = 0.1
AT_ONCE_MAX = 64  # addresses asked at the same time
META = "global_names_ill"

Ask = Callable[[Probe, Probed], Awaitable[ProbeResult]]
Target = tuple[str, str]  # name of the object, address


@dataclass(slots=True)
class Track:
    """One address under its check."""

    check: RegionCheck
    due_s: float
    well: bool
    known: bool  # it was asked before
    streak: int = 0  # of results that ``well`` does not follow yet
    message: str = ""

    def take(self, ok: bool) -> bool:
        """Count a result; returns whether the health is another now."""
        self.streak = 0 if ok == self.well else self.streak + 1
        wanted = self.check.success_threshold if ok else self.check.failure_threshold
        if not self.known or self.streak >= wanted:
            changed = ok != self.well
            self.well, self.known, self.streak = ok, True, 0
            return changed
        return False


class GlobalNameHealth:
    """``follow`` is called after every round; ``run`` asks."""

    def __init__(self, agent: Agent, ask: Ask) -> None:
        self._agent = agent
        self._ask = ask
        self._chance = Random()
        self._tracks: dict[Target, Track] = {}
        self._running: dict[Target, asyncio.Task[None]] = {}
        self._seats = asyncio.Semaphore(AT_ONCE_MAX)
        stored = agent.database.meta(META, "[]")
        self._ill: set[Target] = set(msgspec.json.decode(stored, type=list[Target]))
        self._said: dict[str, str] = {}

    def follow(self) -> None:
        """Take over the names of now, and have the resolver told."""
        agent, plans = self._agent, self._agent.plans
        if plans is None:
            return
        names: Mapping[str, GlobalName] = {
            key.name: stored.object
            for key, stored in agent.objects.of(KIND).items()
            if not stored.deleting
        }
        self._retrack(names)
        planned = plan_global_names(plans.world, names, plans.balancing.slices, self._ill)
        wanted = control.Globals(planned, agent.config.dns_edge)
        if agent.resolver.globals != wanted:
            agent.resolver.globals = wanted
        self._say(planned)
        self._show(names, planned)

    def _retrack(self, names: Mapping[str, GlobalName]) -> None:
        wanted = {
            (key, address): name.spec.health_check
            for key, name in names.items()
            if name.spec.health_check is not None
            for region in name.spec.regions
            for address in region.addresses
        }
        now_s = time.monotonic()
        for target in self._tracks.keys() - wanted.keys():
            del self._tracks[target]
        for target, check in wanted.items():
            assert check is not None
            known = self._tracks.get(target)
            if known is None or known.check != check:
                ill = target in self._ill
                self._tracks[target] = Track(check, now_s, well=not ill, known=ill)
        self._keep({target for target in self._ill if target in self._tracks})

    def _say(self, planned: tuple[PlannedName, ...]) -> None:
        """All ill is answered as if all were well: that is said where one looks, and in the log."""
        ill = ill_names(planned)
        for hostname in ill.keys() - self._said.keys():
            log.error("global name %s: %s", hostname, ill[hostname])
        for hostname in self._said.keys() - ill.keys():
            log.warning("global name %s: a region is well again", hostname)
        self._said = ill
        problems = [f"{hostname}: {problem}" for hostname, problem in sorted(ill.items())]
        if problem := self._agent.resolver.edge_problem:
            problems.append(problem)
        self._agent.global_problem = "; ".join(problems)

    def _show(self, names: Mapping[str, GlobalName], planned: tuple[PlannedName, ...]) -> None:
        by_hostname = {one.hostname: one for one in planned}
        for key, name in names.items():
            plan = by_hostname[name.spec.hostname.lower().rstrip(".")]
            addresses = [
                {
                    "address": address,
                    "region": region.name,
                    "well": (key, address) not in self._ill,
                    "message": track.message if (track := self._tracks.get((key, address))) else "",
                }
                for region in name.spec.regions
                for address in region.addresses
            ]
            regions = [
                {"name": one.name, "inside": one.inside.well, "outside": one.outside.well}
                for one in plan.regions
            ]
            self._agent.statuses[Key(KIND, "", key)] = {
                "regions": regions,
                "addresses": addresses,
                "problem": self._said.get(plan.hostname, ""),
            }

    # --- asking ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Ask what is due, until cancelled."""
        try:
            while True:
                now_s = time.monotonic()
                for target, track in self._tracks.items():
                    if track.due_s <= now_s and target not in self._running:
                        task = asyncio.create_task(self._probe(target, track))
                        self._running[target] = task
                await asyncio.sleep(min(LOOK_S, self._pause_s(now_s)))
        finally:
            for task in self._running.values():
                task.cancel()

    def _pause_s(self, now_s: float) -> float:
        due = [track.due_s for key, track in self._tracks.items() if key not in self._running]
        return max(0.05, min(due, default=now_s + LOOK_S) - now_s)

    async def _probe(self, target: Target, track: Track) -> None:
        try:
            async with self._seats:
                result = await self._ask(_probe_of(track.check), _probed(target[1]))
            if self._tracks.get(target) is not track:
                return
            track.message = result.message
            if track.take(result.ok):
                how = "well" if result.ok else "ill"
                log.warning("global name %s: %s is %s: %s", *target, how, result.message)
                ill = self._ill - {target} if result.ok else self._ill | {target}
                with contextlib.suppress(Exception):  # a full disk: it is asked again
                    self._keep(ill)
                self._agent.changed()
        except Exception:
            log.exception("global name %s: %s", *target)
        finally:
            period_s = track.check.period_seconds
            spread = 1 + JITTER * (self._chance.random() - 0.5)
            track.due_s = time.monotonic() + period_s * spread
            self._running.pop(target, None)

    def _keep(self, ill: set[Target]) -> None:
        if ill != self._ill:
            self._ill = ill
            self._agent.database.set_meta(META, msgspec.json.encode(sorted(ill)).decode())


def _probe_of(check: RegionCheck) -> Probe:
    return Probe(
        http_get=check.http_get,
        tcp_socket=check.tcp_socket,
        grpc=check.grpc,
        timeout_seconds=check.timeout_seconds,
    )


def _probed(address: str) -> Probed:
    return Probed(ip_address(address), {}, enter.Target(0, ""))
