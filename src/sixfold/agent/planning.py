"""One world in, everything that should hold out: the planners, in stack order.

No effects here. Each planner keeps the fragments that did not change, so the cost of a round
follows the change.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from sixfold.agent.ledger import Ledger
from sixfold.balancing.plan import BalancingPlan, BalancingPlanner
from sixfold.discovery.answers import AnswerPlanner
from sixfold.discovery.direct import DirectPlanner
from sixfold.discovery.plan import ZonePlanner, zone_settings
from sixfold.discovery.zone import Zone, ZoneTree
from sixfold.mesh.modes import PodModes, kernel_lines, plan_modes
from sixfold.model.config import Config
from sixfold.model.datapath import Datapath, IPAddress, IpcacheEntry, IPNetwork, PolicyTable
from sixfold.model.endpoint import HOST_ENDPOINT, Endpoint, EndpointId, by_address
from sixfold.model.groups import Grouped
from sixfold.model.identity import Identity
from sixfold.model.layers import Layers, differing, kept
from sixfold.model.names import EVERYTHING, FIRST_POD_OWNER, NamePlan, ViewPlan
from sixfold.model.service import Service
from sixfold.model.world import World
from sixfold.policy.block import Blocks
from sixfold.policy.outward import Leaving, OutwardPlanner
from sixfold.policy.plan import PolicyCompiler, PolicyPlan
from sixfold.policy.questions import Limit, QuestionPlanner
from sixfold.policy.requests import Requests
from sixfold.policy.uncollected import uncollected
from sixfold.policy.views import ViewPlanner, open_views
from sixfold.routing.plan import EndpointPlanner, RoutingPlan, plan_domains, plan_ipcache
from sixfold.trust.speakers import plan_speakers


@dataclass(frozen=True, slots=True)
class Plans:
    """What the planners say of one world.

    bridge  to be applied before ``datapath``: every address is what it was, and the tables know
            already what it will be
    """

    world: World
    routing: RoutingPlan
    balancing: BalancingPlan
    zone: Zone
    names: NamePlan
    views: ViewPlan
    named: Mapping[IPAddress, tuple[int, ...]]  # addresses of pods that names lead to, whose
    limits: Mapping[str, Limit]  # of pods that may not ask for every name
    leavings: Mapping[str, Leaving]  # of pods of whose dials the proxy has to see some
    policy: PolicyPlan
    modes: Mapping[str, PodModes]  # of mTLS; nobody's: there is no mesh
    datapath: Datapath
    bridge: Datapath | None = None

    @property
    def netns_of(self) -> dict[int, Path]:
        """Network namespaces of pods, by their interface on the host."""
        endpoints = self.world.endpoints.values()
        return {one.ifindex: Path(one.netns) for one in endpoints if one.netns}

    @property
    def netns_at(self) -> dict[IPAddress, Path]:
        """The same by the pods' addresses."""
        at = by_address(self.world.endpoints.values())
        return {address: Path(one.netns) for address, one in at.items() if one.netns}


@dataclass(frozen=True, slots=True)
class _Placed:
    """An ipcache, and what it was made of: made anew when one of them is another object."""

    ipcache: dict[IPNetwork, IpcacheEntry]
    blocks: Blocks
    domains: Mapping[IPAddress, Identity]
    hosts: tuple[IPAddress, ...]


HOST_GROUP = "host"  # pods have other groups


class TablesById:
    """The tables of a plan by endpoint number; cost follows the change."""

    def __init__(self) -> None:
        self._endpoints: Mapping[str, Endpoint] = Layers()
        self._groups: Layers[str, Hashable] = Layers()
        self._by_id: Layers[EndpointId, Hashable] = Layers()

    def follow(
        self,
        endpoints: Mapping[str, Endpoint],
        tables: Grouped[str, PolicyTable],
        host: PolicyTable | None = None,
    ) -> Grouped[EndpointId, PolicyTable]:
        """The tables now; every endpoint has one, and the host if a policy selects it."""
        groups = tables.group_of
        keys = differing(self._endpoints, endpoints) | differing(self._groups, groups)
        before = {self._endpoints[key].id for key in keys if key in self._endpoints}
        puts = {endpoints[key].id: groups[key] for key in keys if key in endpoints}
        values = tables.value_of
        if host is not None:
            values = values.changed({HOST_GROUP: host}, ())
            puts[HOST_ENDPOINT] = HOST_GROUP
        elif HOST_ENDPOINT in self._by_id:
            before.add(HOST_ENDPOINT)
        self._by_id = self._by_id.changed(puts, before - puts.keys())
        self._endpoints, self._groups = kept(endpoints), groups
        return Grouped(self._by_id, values)


class Planning:
    """The planners of this instance and the numbers they use."""

    def __init__(self, ledger: Ledger, serial: int = 1, last_view: int = EVERYTHING) -> None:
        """``serial`` is where that of the zones starts; it must not go back.

        ``last_view``: no view has a higher number yet.
        """
        self._ledger = ledger
        self._serial = serial
        self._view_numbers = count(last_view + 1)
        self._start()

    def _start(self) -> None:
        self._before: Plans | None = None
        self._placed: _Placed | None = None
        self._balancing = BalancingPlanner(self._ledger.service_number)
        self._zones = ZonePlanner()
        self._endpoints = EndpointPlanner()
        self._tables = TablesById()
        self._answers = AnswerPlanner(self._serial, self._owner_number, self._is_direct)
        self._direct = DirectPlanner(self._ledger.service_number)
        self._services: Mapping[str, Service] = {}
        self._views = self._no_views()
        self._open_views = False
        self._owners: Mapping[str, int] = {}
        self._questions = QuestionPlanner()
        self._outward = OutwardPlanner()
        self._policies = PolicyCompiler(
            self._ledger.rule_number, self._ledger.cidr_identity, self._ledger.domain_identity
        )

    def plan(
        self, world: World, host_addresses: Iterable[IPAddress], host_netns_cookie: int
    ) -> Plans:
        """Plans for this world; pure but for numbers that the ledger hands out on the way.

        A planner that was interrupted has forgotten what it had yet to do: all start anew.
        """
        try:
            hosts = tuple(host_addresses)
            with uncollected():
                plans = self._plan(world, hosts, host_netns_cookie)
                if (between := self._between(plans)) is not None:
                    bridge = self._plan(between, hosts, host_netns_cookie).datapath
                    plans = replace(self._plan(world, hosts, host_netns_cookie), bridge=bridge)
            self._before = plans
            return plans
        except BaseException:
            self._start()
            raise

    @property
    def zone(self) -> ZoneTree | None:
        """The zone of the last plan, to look names up in."""
        return self._answers.zone

    def learn(
        self,
        plans: Plans,
        names: Mapping[str, frozenset[IPAddress]],
        fresh: Iterable[tuple[str, IPAddress]],
    ) -> tuple[Plans, dict[IPNetwork, IpcacheEntry]] | None:
        """The last plans, when names have resolved to some more; and what is new in the ipcache.

        None: it takes a plan of everything. What knows who is where is extended, not copied, so
        that the cost follows what is fresh.
        """
        if plans is not self._before:
            return None
        opened = self._policies.learn(names, fresh)
        if opened is None:
            return None
        entries = plan_domains(plans.policy.covering_cidr, opened)
        plans.routing.ipcache.update(entries)
        world = replace(plans.world, domains=names)
        self._before = replace(plans, world=world, bridge=None)
        return self._before, entries

    def _between(self, plans: Plans) -> World | None:
        """The world to pass through when addresses get numbers that no table knows yet.

        Who is where is written before the tables are switched, so such an address would be
        closed for a moment. It happens when it comes to be known by names of several patterns.
        """
        if self._before is None:
            return None
        before, after = self._before.policy, plans.policy
        fresh = set(after.domain_sets.values()) - set(before.domain_sets.values())
        if not any(
            number in fresh and address in before.domains
            for address, number in after.domains.items()
        ):
            return None
        return replace(
            plans.world,
            domains=self._before.world.domains,
            domain_sets=frozenset(after.domain_sets),
        )

    def _no_views(self) -> ViewPlanner:
        return ViewPlanner(self._ledger.service_number, self._view_numbers.__next__)

    def _owner_number(self, owner: str) -> int:
        """Of a service, or of a pod by its address; one that nobody sees where it has none."""
        if "/" in owner:
            return self._ledger.service_number(owner)
        return self._owners.get(owner, FIRST_POD_OWNER)

    def _is_direct(self, owner: str) -> bool:
        service = self._services.get(owner)
        return service is not None and service.spec.headless

    def _ipcache(
        self, config: Config, policy: PolicyPlan, hosts: tuple[IPAddress, ...]
    ) -> dict[IPNetwork, IpcacheEntry]:
        known = self._placed
        if (
            known is None
            or known.blocks is not policy.blocks
            or known.domains is not policy.domains
            or known.hosts != hosts
        ):
            ipcache = plan_ipcache(
                config, policy.covering_cidr, hosts, policy.cidrs, policy.domains
            )
            known = self._placed = _Placed(ipcache, policy.blocks, policy.domains, hosts)
        return known.ipcache

    def _plan(
        self, world: World, host_addresses: Iterable[IPAddress], host_netns_cookie: int
    ) -> Plans:
        balancing = self._balancing.plan(world)
        zone = self._zones.plan(world, balancing.slices)
        policy = self._policies.compile(world)
        hosts = tuple(host_addresses)
        if open_views(world) != self._open_views:  # the base of the posture is another
            self._views, self._open_views = self._no_views(), open_views(world)
        views = self._views.plan(world, policy, balancing.slices, balancing.changed, hosts)
        self._owners, self._services = views.owners, world.services
        named = self._direct.plan(world.services, balancing.slices, balancing.changed)
        names = self._answers.plan(zone_settings(world.config), self._zones.take_delta())
        routing = RoutingPlan(
            self._endpoints.plan(world, policy.covering_cidr, policy.blocks),
            self._ipcache(world.config, policy, hosts),
        )
        requests = Requests(world, policy)
        leavings = self._outward.plan(world, policy)
        modes = plan_modes(world, requests.ports, requests.authorizations.strict_by, leavings)
        datapath = Datapath(
            endpoints=routing.endpoints,
            ipcache=routing.ipcache,
            policies=self._tables.follow(world.endpoints, policy.tables, policy.host),
            frontends=balancing.frontends,
            service_networks=world.config.service_networks,
            source_ranges=balancing.source_ranges,
            modes=kernel_lines(modes, world.endpoints),
            speakers=plan_speakers(world),
            host_netns_cookie=host_netns_cookie,
        )
        limits = self._questions.plan(world, policy)
        return Plans(
            *(world, routing, balancing, zone, names, views, named, limits),
            *(leavings, policy, modes, datapath),
        )
