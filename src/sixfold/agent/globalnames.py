"""Global names: their addresses are asked, and the resolver is told who is well.

Asking is ``health``'s: an address is ill when its check has failed as often as its threshold says,
and well when it has passed as often: what flaps moves nobody. One that was never asked counts as
well. What is ill is kept in the state directory, so that a new agent does not send clients back to
it before it has looked; without an agent the last word stands.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from ipaddress import ip_address

import msgspec

from sixfold.agent.agent import Agent
from sixfold.agent.health import HealthWatch
from sixfold.balancing.health import NEVER_ASKED, Target
from sixfold.discovery.entries import entry_names
from sixfold.discovery.globalnames import PlannedName, ill_names, plan_global_names
from sixfold.discovery.outside import OutsideZone, plan_outside
from sixfold.model.globalname import GlobalName, RegionCheck
from sixfold.model.meta import Key
from sixfold.model.service import Service
from sixfold.model.workload import Probe
from sixfold.serve import dns_control as control

log = logging.getLogger(__name__)

KIND = "GlobalName"
PREFIX = "globalname/"  # before its name, where a service stands
META = "health of global names"


class GlobalNameHealth:
    """``follow`` is called after every round; ``watch`` asks."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.watch = HealthWatch(agent.database, agent.changed, META)
        self._wanted: dict[Target, Probe] = {}
        self._said: dict[str, str] = {}
        self._services: Mapping[str, Service] | None = None  # of which ``_told`` was planned
        self._told: tuple[OutsideZone, ...] = ()

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
        self._follow_checks(names)
        ill = {
            (key.removeprefix(PREFIX), str(address)): why
            for key, troubles in self.watch.trouble.items()
            for address, why in troubles.items()
            if why != NEVER_ASKED
        }
        planned = plan_global_names(plans.world, names, plans.balancing.slices, ill)
        zones = self._zones(plans.world.services)
        entries = tuple(entry_names(plans.world.service_entries))
        wanted = control.Globals((*planned, *entries), agent.config.dns_edge, zones)
        if agent.resolver.globals != wanted:
            agent.resolver.globals = wanted
        self._say(planned)
        self._show(names, planned, ill)

    def _zones(self, services: Mapping[str, Service]) -> tuple[OutsideZone, ...]:
        """Zones for the world; a zone that changed has a higher serial, over restarts too."""
        if services is not self._services:
            self._services = services
            before = {zone.origin: zone for zone in self._told}
            self._told = tuple(
                known
                if (known := before.get(zone.origin)) and known.records == zone.records
                else msgspec.structs.replace(
                    zone, serial=max(int(time.time()), known.serial + 1 if known else 0)
                )
                for zone in plan_outside(self._agent.config, services)
            )
        return self._told

    def _follow_checks(self, names: Mapping[str, GlobalName]) -> None:
        wanted = {
            Target(f"{PREFIX}{key}", ip_address(address), 0): _probe_of(check)
            for key, name in names.items()
            if (check := name.spec.health_check) is not None
            for region in name.spec.regions
            for address in region.addresses
        }
        if wanted != self._wanted:
            self._wanted = wanted
            self.watch.watch(wanted)

    def _say(self, planned: tuple[PlannedName, ...]) -> None:
        """All ill is answered as if all were well: that is said where one looks, and in the log."""
        ill = ill_names(planned)
        for hostname in ill.keys() - self._said.keys():
            log.error("global name %s: %s", hostname, ill[hostname])
        for hostname in self._said.keys() - ill.keys():
            log.warning("global name %s: a region is well again", hostname)
        self._said = ill
        problems = [f"{hostname}: {problem}" for hostname, problem in sorted(ill.items())]
        problems += [
            f"{one.hostname}: lies in a zone of the cluster, which answers it"
            for one in planned
            if self._agent.config.answers(one.hostname)
        ]
        if problem := self._agent.resolver.edge_problem:
            problems.append(problem)
        self._agent.global_problem = "; ".join(problems)

    def _show(
        self,
        names: Mapping[str, GlobalName],
        planned: tuple[PlannedName, ...],
        ill: Mapping[tuple[str, str], str],
    ) -> None:
        by_hostname = {one.hostname: one for one in planned}
        for key, name in names.items():
            plan = by_hostname[name.spec.hostname.lower().rstrip(".")]
            addresses = [
                {"address": address, "region": region.name, "problem": ill.get((key, address), "")}
                for region in name.spec.regions
                for address in map(str, map(ip_address, region.addresses))
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


def _probe_of(check: RegionCheck) -> Probe:
    return Probe(
        http_get=check.http_get,
        tcp_socket=check.tcp_socket,
        grpc=check.grpc,
        timeout_seconds=check.timeout_seconds,
        period_seconds=check.period_seconds,
        success_threshold=check.success_threshold,
        failure_threshold=check.failure_threshold,
    )
