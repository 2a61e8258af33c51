"""What the agent sees of backends while they serve: ``World.seen``, which planners look at.

The rules are in ``balancing/lifetimes.py``; here are the clock, the kernel's counters and the
database, so that the next agent begins with what this one knew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import get_args

import msgspec

from sixfold.agent.planning import Plans
from sixfold.balancing.lifetimes import Lifetimes
from sixfold.host.datapath import KernelDatapath
from sixfold.host.layout import Place
from sixfold.model.datapath import PROTOCOL_NUMBERS, Frontend, FrontendEntry
from sixfold.model.seen import PortKey, Seen
from sixfold.model.workload import Protocol
from sixfold.observe import ServiceName
from sixfold.store import Database

log = logging.getLogger(__name__)

SAMPLE_S = 2.0
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
        self.seen: Mapping[str, Seen] = {}
        self._show()

    def lifetime_s(self, port: PortKey) -> float:
        """How long connections to a service port last on average, as far as seen; 0 = not."""
        return self._lifetimes.lifetime_s(port)

    async def run(self, plans: Callable[[], Plans | None]) -> None:
        """Sample until cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_S)
            if (now := plans()) is not None:
                try:
                    await self._sample(now)
                except Exception:  # balancing goes on as it is
                    log.exception("lifetimes of connections")

    async def _sample(self, plans: Plans) -> None:
        loads = await asyncio.to_thread(self._datapath.busy)
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
        self._show()
        self._changed()

    def _show(self) -> None:
        by_service: defaultdict[str, dict[tuple[int, Protocol], float]] = defaultdict(dict)
        for (service, port, protocol), lasts_s in self._lifetimes.long_lived.items():
            by_service[service][port, protocol] = lasts_s
        fresh = {key: Seen(ports) for key, ports in by_service.items()}
        # What did not change stays the same object: planners tell by that.
        self.seen = {
            key: old if (old := self.seen.get(key)) == one else one for key, one in fresh.items()
        }


def _index(
    frontends: Mapping[Frontend, FrontendEntry], services: Mapping[int, ServiceName]
) -> tuple[Mapping[Place, set[PortKey]], set[PortKey]]:
    """The service ports that each place is a backend of; all service ports."""
    found: defaultdict[Place, set[PortKey]] = defaultdict(set)
    known: set[PortKey] = set()
    for frontend, entry in frontends.items():
        service = services.get(entry.service)
        if frontend.port and service:
            name = f"{service.namespace}/{service.name}"
            key: PortKey = (name, frontend.port, PROTOCOL_NAMES[frontend.protocol])
            known.add(key)
            for backend in entry.backends:
                found[Place(backend.address, backend.port, frontend.protocol)].add(key)
    return found, known
