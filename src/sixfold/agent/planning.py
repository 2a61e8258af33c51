"""One world in, everything that should hold out: the planners, in stack order.

No effects here. Each planner keeps the fragments that did not change, so the cost of a round
follows the change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sixfold.agent.ledger import Ledger
from sixfold.balancing.plan import BalancingPlan, BalancingPlanner
from sixfold.discovery.plan import ZonePlanner
from sixfold.discovery.zone import Zone
from sixfold.model.datapath import Datapath, IPAddress
from sixfold.model.world import World
from sixfold.policy.plan import PolicyCompiler, PolicyPlan
from sixfold.routing.plan import RoutingPlan, plan_routing


@dataclass(frozen=True, slots=True)
class Plans:
    """What the planners say of one world."""

    world: World
    routing: RoutingPlan
    balancing: BalancingPlan
    zone: Zone
    policy: PolicyPlan
    datapath: Datapath


class Planning:
    """The planners of this instance and the numbers they use."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._start()

    def _start(self) -> None:
        self._balancing = BalancingPlanner(self._ledger.service_number)
        self._zones = ZonePlanner()
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
            return self._plan(world, host_addresses, host_netns_cookie)
        except BaseException:
            self._start()
            raise

    def _plan(
        self, world: World, host_addresses: Iterable[IPAddress], host_netns_cookie: int
    ) -> Plans:
        balancing = self._balancing.plan(world)
        zone = self._zones.plan(world, balancing.slices)
        policy = self._policies.compile(world)
        routing = plan_routing(
            world, policy.covering_cidr, host_addresses, policy.cidrs, policy.domains
        )
        datapath = Datapath(
            endpoints=routing.endpoints,
            ipcache=routing.ipcache,
            policies={endpoint.id: policy.tables[key] for key, endpoint in world.endpoints.items()},
            frontends=balancing.frontends,
            host_netns_cookie=host_netns_cookie,
        )
        return Plans(world, routing, balancing, zone, policy, datapath)
