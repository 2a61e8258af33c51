"""Asking backends that are no pods of ours whether they are well, as their Service says; and
addresses of global names.

The rules are in ``balancing/health.py``; here are the clock, the sockets, the log and the database.
Without an agent nobody asks, and what was found out last stays in force: it is in the kernel's
tables; the next agent begins with what this one knew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from random import Random

import msgspec

from sixfold.balancing.health import Checks, Target
from sixfold.balancing.members import place_of, target_port
from sixfold.balancing.written import by_service, written_members
from sixfold.host import probes
from sixfold.manifest.health import at_port, parse_check, port_of
from sixfold.model.datapath import IPAddress
from sixfold.model.health import HEALTH_CHECK
from sixfold.model.service import EndpointSlice, Service
from sixfold.model.workload import Probe
from sixfold.model.world import World
from sixfold.store import Database

log = logging.getLogger(__name__)

META = "health"
AT_ONCE = 64  # checks under way
PAUSE_MAX_S = 3600.0


class HealthWatch:
    """``trouble`` by service and backend; ``changed`` is called when it is otherwise.

    ``meta`` is under which name of the database it is kept.
    """

    def __init__(self, database: Database, changed: Callable[[], None], meta: str = META) -> None:
        self._database = database
        self._changed = changed
        self._meta = meta
        rows = msgspec.json.decode(database.meta(meta, "[]"), type=list[tuple[str, str, str]])
        self._checks = Checks({(s, ip_address(a)): why for s, a, why in rows})
        self._looked_at: tuple[Mapping[str, Service], Mapping[str, EndpointSlice]] | None = None
        self._chance = Random().random
        self._places = asyncio.Semaphore(AT_ONCE)
        self._wake = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self.trouble: Mapping[str, Mapping[IPAddress, str]] = {}

    def follow(self, world: World) -> None:
        """Check the backends of this world."""
        looked_at = (world.services, world.slices)
        if self._looked_at is not None and all(
            a is b for a, b in zip(looked_at, self._looked_at, strict=True)
        ):
            return
        self._looked_at = looked_at
        self.watch(_wanted(world))

    def watch(self, wanted: Mapping[Target, Probe]) -> None:
        """Check these and no others."""
        self._checks.follow(wanted, time.monotonic(), self._chance)
        self.trouble = self._checks.trouble
        self._wake.set()

    async def run(self) -> None:
        """Ask until cancelled."""
        try:
            while True:
                deadline_s = self._checks.next_deadline()
                pause_s = PAUSE_MAX_S if deadline_s is None else deadline_s - time.monotonic()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), max(0.0, pause_s))
                self._wake.clear()
                for target, probe in self._checks.due(time.monotonic()):
                    task = asyncio.create_task(self._ask(target, probe))
                    self._under_way.add(task)
                    task.add_done_callback(self._under_way.discard)
        finally:
            for task in self._under_way:
                task.cancel()

    async def _ask(self, target: Target, probe: Probe) -> None:
        port = port_of(probe, target.port)
        probed = probes.Probed(target.address, {}, None, target.port)
        try:
            async with self._places:
                answer = await probes.run(at_port(probe, port), probed)
        except Exception as error:  # a check that cannot be made is one that failed
            log.exception("health of %s %s", target.service, target.address)
            answer = probes.ProbeResult(False, str(error))
        now_s = time.monotonic()
        if self._checks.take(target, answer.ok, answer.message, now_s, self._chance):
            self._tell(target, answer)
        self._wake.set()

    def _tell(self, target: Target, answer: probes.ProbeResult) -> None:
        level, what = (logging.INFO, "healthy") if answer.ok else (logging.WARNING, "unhealthy")
        where = (target.service, target.address, target.port, what, answer.message)
        log.log(level, "health: %s: %s port %d is %s: %s", *where)
        rows = [(service, str(one), why) for (service, one), why in self._checks.known.items()]
        self._database.set_meta(self._meta, msgspec.json.encode(rows).decode())
        self.trouble = self._checks.trouble
        self._changed()


def _wanted(world: World) -> dict[Target, Probe]:
    """Whom to ask, and what: the written backends of services that ask for it."""
    wanted: dict[Target, Probe] = {}
    slices = by_service(world.slices)
    for key, service in world.services.items():
        text = service.metadata.annotations.get(HEALTH_CHECK)
        if text is None or service.spec.headless or not service.spec.ports:
            continue
        probe = parse_check(text)
        for member in written_members(slices.get(key, ())):
            address, port = place_of(member), target_port(service.spec.ports[0], member)
            if address is not None and port is not None:
                wanted[Target(key, address, port)] = probe
    return wanted
