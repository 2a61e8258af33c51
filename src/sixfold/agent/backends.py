"""What the agent sees of backends while they serve: ``World.seen``, which planners look at.

The rules are in ``balancing``: ``lifetimes.py``, ``slow_start.py``, ``failback.py``,
``members.py``; here are the clock, the kernel's counters and the database, so that the next agent
begins with what this one knew (but for places that have yet to prove themselves: it believes them).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from operator import is_, is_not
from pathlib import Path
from typing import Any, get_args

import msgspec

from sixfold.agent.health import HealthWatch
from sixfold.agent.planning import Plans
from sixfold.balancing.changes import changes
from sixfold.balancing.failback import Failback
from sixfold.balancing.lifetimes import Lifetimes
from sixfold.balancing.members import members_of, place_of, takes_new
from sixfold.balancing.show import panicking
from sixfold.balancing.slow_start import SlowStart
from sixfold.balancing.vanished import Place as Lost
from sixfold.balancing.vanished import by_address, places_in_use
from sixfold.host.arrivals import forget
from sixfold.host.datapath import KernelDatapath
from sixfold.host.layout import Place
from sixfold.host.nudge import nudge
from sixfold.host.sockets import close_sockets, close_towards
from sixfold.model.datapath import PROTOCOL_NUMBERS, Frontend, FrontendEntry, IPAddress
from sixfold.model.endpoint import Endpoint
from sixfold.model.health import SLOW_START, panic_percent, slow_start_s
from sixfold.model.locality import failover_of
from sixfold.model.seen import PortKey, Seen
from sixfold.model.workload import Protocol
from sixfold.model.world import World
from sixfold.observe import ServiceName
from sixfold.store import Database

log = logging.getLogger(__name__)

SAMPLE_S = 2.0
SHARE = 0.02  # of the time, at most: with many places it is looked less often
META = "long_lived"
PROTOCOL_NAMES: Mapping[int, Protocol] = {
    PROTOCOL_NUMBERS[name]: name for name in get_args(Protocol)
}


class BackendWatch:
    """``seen`` by service; ``changed`` is called when it is another one."""

    def __init__(
        self,
        database: Database,
        datapath: KernelDatapath,
        services: Mapping[int, ServiceName],
        changed: Callable[[], None],
    ) -> None:
        """``services`` by number, as the ledger has them."""
        self._services = services
        self._database = database
        self._datapath = datapath
        self._changed = changed
        stored = msgspec.json.decode(database.meta(META, "[]"), type=list[tuple[PortKey, float]])
        self._lifetimes = Lifetimes(dict(stored))
        self._indexed: Mapping[Frontend, FrontendEntry] | None = None
        self._ports: Mapping[Place, set[PortKey]] = {}
        self._known: set[PortKey] = set()
        self._slow_start = SlowStart()
        self._present = Present()
        self._timer: asyncio.TimerHandle | None = None
        self.health = HealthWatch(database, changed)
        self.panics: tuple[str, ...] = ()
        self._basis: tuple[Any, ...] = (None,) * 3
        self._in_use: frozenset[Lost] = frozenset()
        self.lost: frozenset[Lost] = frozenset()
        self._failback = Failback()
        self._alarm: asyncio.TimerHandle | None = None
        self.seen: Mapping[str, Seen] = {}

    def lifetime_s(self, port: PortKey) -> float:
        """How long connections to a service port last on average, as far as seen; 0 = not."""
        return self._lifetimes.lifetime_s(port)

    def look(self, world: World) -> World:
        """The world with what is seen of it; asked before each plan."""
        self.health.follow(world)
        now_s = time.monotonic()
        ramps = self._slow_start.follow(self._present.of(world, self.health.trouble), now_s)
        self._set_timer(now_s)
        self._see(ramps)
        world = replace(world, seen=self.seen)
        self._say_panics(world)
        self._look_for_lost(world)
        return world

    def _look_for_lost(self, world: World) -> None:
        basis = (world.services, world.slices, self.health.trouble)
        if all(map(is_, basis, self._basis)):
            return
        in_use = places_in_use(world)
        self.lost = (self.lost | self._in_use) - in_use
        self._in_use, self._basis = in_use, basis

    async def cut(self, namespaces: Mapping[int, Path]) -> None:
        """End connections to backends that are lost, now that nobody is sent there any more."""
        lost, places = self.lost, by_address(self.lost)
        connections = [
            one
            for one in await asyncio.to_thread(self._datapath.connections_to, places.keys())
            if (one.destination_port, one.protocol) in places[one.destination]
        ]
        closed = await asyncio.to_thread(close_sockets, connections, namespaces)
        closed += await asyncio.to_thread(close_towards, lost)
        outside = [one for one in connections if one.client_ifindex]
        if outside:
            forget(self._datapath.maps, outside)
            self._datapath.reap()
            nudge(outside)
        self.lost -= lost
        closed += len(outside)
        if closed:
            log.info("balancing: %d connections to lost backends are cut", closed)

    def _set_timer(self, now_s: float) -> None:
        """Plan again when a backend that starts slowly is to get more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (deadline_s := self._slow_start.next_deadline_s) is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, deadline_s - now_s), self._changed)

    def _say_panics(self, world: World) -> None:
        panics = tuple(panicking(world, self._present.may_panic))
        for line in panics:
            if line not in self.panics:
                log.warning("balancing: panic: %s", line)
        for line in self.panics:
            if line not in panics:
                log.info("balancing: no panic any more: %s", line.partition(":")[0])
        self.panics = panics

    def follow(self, plans: Plans) -> None:
        """Places that were planned: who is well again gets its connections back in time."""
        health = plans.balancing.health
        if not health and not self._failback.trusted:
            return
        failback_s = {
            key: failover.failback_s
            for key in health
            if (failover := failover_of(plans.world.services[key].metadata.annotations))
        }
        more = self._failback.follow(health, failback_s, time.monotonic())
        if more:
            self._changed()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if (deadline_s := self._failback.next_deadline()) is not None:
            loop, wait_s = asyncio.get_running_loop(), deadline_s - time.monotonic()
            self._alarm = loop.call_later(max(0.0, wait_s), self.follow, plans)

    async def run(self, plans: Callable[[], Plans | None]) -> None:
        """Sample and ask until cancelled."""
        asking = asyncio.create_task(self.health.run())
        try:
            await self._sample_on(plans)
        finally:
            asking.cancel()

    async def _sample_on(self, plans: Callable[[], Plans | None]) -> None:
        took_s = 0.0
        while True:
            await asyncio.sleep(max(SAMPLE_S, took_s / SHARE))
            started_s = time.monotonic()
            if (now := plans()) is not None:
                try:
                    await self._sample(now)
                except Exception:  # balancing goes on as it is
                    log.exception("lifetimes of connections")
            took_s = time.monotonic() - started_s

    async def _sample(self, plans: Plans) -> None:
        counted = await asyncio.to_thread(self._datapath.counted)
        loads = self._datapath.loads(counted) if counted else {}  # here: rounds change numbers
        if loads and self._indexed is not plans.balancing.frontends:
            frontends = plans.balancing.frontends
            self._ports, self._known = await asyncio.to_thread(_index, frontends, self._services)
            self._indexed = frontends
        gone = bool(loads) and self._lifetimes.keep_only(self._known)
        decided = self._lifetimes.take(loads, self._ports, time.monotonic())
        for port in decided:
            service, number, protocol = port
            lasts_s, long = self._lifetimes.lifetime_s(port), port in self._lifetimes.long_lived
            log.info(
                "balancing: connections to %s:%d/%s last %.1f s on average: %s",
                *(service, number, protocol, lasts_s, "long" if long else "short"),
            )
        if decided or gone:
            self._remember()

    def _remember(self) -> None:
        text = msgspec.json.encode([*self._lifetimes.long_lived.items()]).decode()
        self._database.set_meta(META, text)
        self._changed()

    def _see(self, ramps: Mapping[str, Mapping[IPAddress, int]]) -> None:
        long_lived: defaultdict[str, dict[tuple[int, Protocol], float]] = defaultdict(dict)
        for (service, port, protocol), lasts_s in self._lifetimes.long_lived.items():
            long_lived[service][port, protocol] = lasts_s
        trouble = self.health.trouble
        seen = {}
        trusted = self._failback.trusted
        for key in sorted({*long_lived, *trouble, *ramps, *trusted}):
            one = Seen(
                long_lived.get(key, {}),
                trouble.get(key, {}),
                ramps.get(key, {}),
                trusted.get(key, {}),
            )
            # What did not change stays the same object: planners tell by that.
            seen[key] = old if (old := self.seen.get(key)) == one else one
        self.seen = seen


class Present:
    """Who gets new connections, of the services that start backends slowly."""

    def __init__(self) -> None:
        self._endpoints: Mapping[str, Endpoint] = {}
        self._rest: tuple[Any, ...] = (None,) * 3
        self._windows: dict[str, float] = {}
        self._found: dict[str, tuple[float, list[IPAddress]]] = {}
        self.may_panic: list[str] = []

    def of(
        self, world: World, trouble: Mapping[str, Mapping[IPAddress, str]]
    ) -> Mapping[str, tuple[float, list[IPAddress]]]:
        """By service: its window, and its backends. Looked for when something has changed."""
        if world.services is not self._rest[0]:
            notes = {key: one.metadata.annotations for key, one in world.services.items()}
            windows = {key: slow_start_s(notes[key]) for key in notes if SLOW_START in notes[key]}
            self._windows = windows
            self.may_panic = [key for key in notes if panic_percent(notes[key]) is not None]
        rest = (world.services, world.slices, trouble)
        changed = any(map(is_not, rest, self._rest))
        self._rest = rest
        if not self._windows:
            return {}
        if any(changes(self._endpoints, world.endpoints)) or changed:
            self._endpoints = world.endpoints
            self._found = {
                key: (window_s, _takers(world, key, Seen(unhealthy=trouble.get(key, {}))))
                for key, window_s in self._windows.items()
            }
        return self._found


def _takers(world: World, key: str, seen: Seen) -> list[IPAddress]:
    service = world.services[key]
    members = members_of(world, service, key)
    places = (place_of(one) for one in members if takes_new(service, one, seen))
    return [one for one in places if one is not None]


def _index(
    frontends: Mapping[Frontend, FrontendEntry], services: Mapping[int, ServiceName]
) -> tuple[Mapping[Place, set[PortKey]], set[PortKey]]:
    """The service ports that each place is a backend of; all service ports."""
    found: defaultdict[Place, set[PortKey]] = defaultdict(set)
    known: set[PortKey] = set()
    for frontend, entry in frontends.items():
        service = services.get(entry.service)
        if frontend.address.is_unspecified:
            continue  # a node port: the service's own port stands for it
        if frontend.port and service:
            name = f"{service.namespace}/{service.name}"
            key: PortKey = (name, frontend.port, PROTOCOL_NAMES[frontend.protocol])
            known.add(key)
            for backend in entry.backends:
                found[Place(backend.address, backend.port, frontend.protocol)].add(key)
    return found, known
