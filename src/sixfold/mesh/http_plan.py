"""What is to be known of requests: routes by service, backends by service's port, rules by pod.

Pure. A port is *looked at* when a route is attached to it, or when a policy is about requests to
it. A service that was routed once stays known: clients have connections to it, and each request of
theirs needs a way. So does one that routes led to once: what the last route sent may arrive when
the next is in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

from sixfold.mesh import foreign_steps, http, http_steps
from sixfold.mesh.backend_tls import tls_of
from sixfold.mesh.foreign import Foreign, foreign_services
from sixfold.mesh.foreign_steps import Said
from sixfold.mesh.gateway_plan import plan_gateways
from sixfold.mesh.http_steps import Ever, Resources, by_key
from sixfold.mesh.kept import Steps
from sixfold.mesh.member import Member
from sixfold.mesh.messages import ROUTE, Name, Resource
from sixfold.mesh.routes import Routed, ServicePort
from sixfold.mesh.streams import plan_streams
from sixfold.mesh.tokens import Keys
from sixfold.mesh.traffic import RequestTables, Traffic, straight_to
from sixfold.model.datapath import Frontend, FrontendEntry, RoutedPorts
from sixfold.model.layers import Layers, differing
from sixfold.model.world import World
from sixfold.policy.plan import PolicyPlan
from sixfold.policy.requests import Requests

NO_KEYS_YET: Keys = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class HttpPlan:
    """Of one world. What is as in the plan before is the same object.

    resources  in groups, in every plan the same ones; none is in two
    routed     service addresses and ports whose clients are routed, and by what
    ports      of pods: those about whose requests some policy is
    judged     routes of requests that arrive, by pod
    gateways   names of what is a Gateway's alone, by its pod
    tunnels    what AuthorizationPolicies say of tunnels that arrive, by pod
    behind     pods behind each service that requests may be sent to
    dialled    services that connections are passed on to
    foreign    services of other trust domains
    known      services whose names a Gateway's pod tells other trust domains
    exports    of pods: what those know, and what AuthorizationPolicies say of it
    narrowed   what AuthorizationPolicies say of clients of a Gateway, by its pod
    from_abroad  routes of requests of other trust domains, by pod
    """

    resources: tuple[Resources, ...] = ()
    routed: RoutedPorts = field(default_factory=dict)
    ports: Mapping[str, frozenset[int]] = field(default_factory=dict)
    judged: Mapping[str, list[dict[str, object]]] = field(default_factory=dict)
    gateways: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    tunnels: Mapping[str, dict[str, object]] = field(default_factory=dict)
    behind: Mapping[ServicePort, frozenset[str]] = field(default_factory=dict)
    dialled: frozenset[ServicePort] = frozenset()
    foreign: Mapping[ServicePort, Foreign] = field(default_factory=dict)
    known: Mapping[str, frozenset[ServicePort]] = field(default_factory=dict)
    exports: Said = field(default_factory=dict)
    narrowed: Mapping[str, object] = field(default_factory=dict)
    from_abroad: Mapping[str, list[dict[str, object]]] = field(default_factory=dict)

    @property
    def tables(self) -> Iterator[Name]:
        """Where what is dialled is looked up, and which address picks which."""
        for group in self.resources[:2]:
            yield from group


class HttpPlanner:
    """Plans world after world; remembers which services were ever routed.

    Theory of operation. A plan is made in steps, each a pure function of a few parts, and made
    anew when one of these is another; so a step lists all that it reads. Routes, of which there
    are many and one changes, are followed one by one.
    """

    def __init__(self, connections_max: int = 0, carried_max: int = 0) -> None:
        self._connections_max = connections_max
        self._carried_max = carried_max
        self._ever: dict[ServicePort, None] = {}
        self._ever_passed: dict[ServicePort, None] = {}  # likewise, by TCPRoutes
        self._ever_named: dict[ServicePort, None] = {}  # likewise, by TLSRoutes
        self._ever_led: frozenset[ServicePort] = frozenset()  # where requests were led to
        self._ever_dialled: frozenset[ServicePort] = frozenset()  # and connections
        self._start()

    def _start(self) -> None:
        self._steps = Steps()
        self._requests = RequestTables()
        self._leads: dict[ServicePort, frozenset[ServicePort]] = {}  # where a port's ways lead
        self._routed: Mapping[ServicePort, Routed] = {}  # of these are ``_leads`` and ``_tables``
        self._tables: Layers[Name, Resource] = Layers()

    def plan(
        self,
        world: World,
        policy: PolicyPlan,
        frontends: Mapping[Frontend, FrontendEntry],
        members: Mapping[str, Member],
        keys: Keys = NO_KEYS_YET,
    ) -> HttpPlan:
        """One that was interrupted has forgotten what it had yet to do: it starts anew."""
        try:
            return self._plan(world, policy, frontends, members, keys)
        except BaseException:
            self._start()
            raise

    def _plan(
        self,
        world: World,
        policy: PolicyPlan,
        frontends: Mapping[Frontend, FrontendEntry],
        members: Mapping[str, Member],
        keys: Keys,
    ) -> HttpPlan:
        step, services = self._steps.of, world.services
        compiled = services, world.routes, world.grants, world.has_mesh
        traffic = step(
            "traffic",
            (world.traffic, *http_steps.if_(world.traffic, compiled)),
            lambda _: Traffic(world),
        )
        routed = self._requests.follow(world, traffic)
        abroad = any(one.is_federated for one in world.backend_tls.values())
        of_gateways = world.gateways, world.gateway_classes, world.federated, world.config
        foreign = step(
            "foreign",
            http_steps.if_(abroad, (world.backend_tls, services, world.endpoints, *of_gateways)),
            lambda _: foreign_services(world) if abroad else {},
        )
        routed = step(
            "read",
            (routed, frozenset(foreign), *http_steps.if_(foreign, (services,))),
            lambda _: foreign_steps.read(services, foreign, routed),
        )
        passed = step(
            "passed",
            (frozenset(foreign), world.streams, *http_steps.if_(world.streams, compiled)),
            lambda _: {it: one for it, one in plan_streams(world).items() if it not in foreign},
        )
        unread = {port: one for port, one in passed.items() if not one.by_name}
        named = {port: one for port, one in passed.items() if one.by_name}
        looked_at = frozenset(routed), frozenset(unread), frozenset(named)
        ever, ever_passed, ever_named = step(
            "ever", (*looked_at, services), lambda _: self._remember(world, *looked_at)
        )
        sections = world.gateway_classes, world.namespaces, world.secrets, world.listener_sets
        served = *sections, world.streams, members
        narrowing = world.policies, world.audited, world.endpoints, world.config
        gateways = step(
            "gateways",
            (
                world.gateways,
                *http_steps.if_(world.gateways, (*served, *compiled, *narrowing, traffic)),
            ),
            lambda _: plan_gateways(world, members, traffic),
        )
        tables = self._follow(routed, ever)
        known = step("known", (gateways,), lambda _: foreign_steps.known(gateways.known))
        self._ever_led = led = http_steps.there(
            services,
            self._ever_led.union(
                *ever.values(),
                *self._leads.values(),
                http_steps.led(gateways.ways),
                *known.values(),
            ),
        )
        behind = step(
            "behind",
            (led, services, frontends, members, frozenset(foreign)),
            lambda kept: foreign_steps.without_ours(
                http_steps.behind(led, services, frontends, members, kept), foreign
            ),
        )
        tls = step(
            "tls",
            (world.backend_tls, *http_steps.if_(world.backend_tls, (services, world.config_maps))),
            lambda _: tls_of(world),
        )
        aimed = step(
            "aimed", (behind, traffic, tls), lambda _: http_steps.aimed(behind, traffic, tls)
        )
        said = world.endpoints, world.policies, world.namespaces
        audit = world.config, world.audited, world.relaxations
        requests = step(
            "requests",
            (
                *http_steps.read(policy),
                *said,
                *audit,
                *(world.gateways, world.gateway_classes),
                *http_steps.if_(http_steps.narrows(world), (services,)),
            ),
            lambda _: Requests(world, policy),
        )
        ports = step(
            "ports", (requests, members), lambda _: http_steps.looked_into(world, requests, members)
        )
        exports = step(
            "exports",
            (gateways, behind, ports),
            lambda _: foreign_steps.exports(gateways.known, behind, ports),
        )
        ways = foreign, members, known, behind, traffic, exports
        copying = step(
            "copying",
            (routed, gateways),
            lambda _: http_steps.copying(
                (*gateways.ways, *(way for one in routed.values() for way in one.ways))
            ),
        )
        led_to = *gateways.services, *ever_passed, *ever_named, *http_steps.targets(passed)
        self._ever_dialled = dialled = http_steps.there(services, self._ever_dialled.union(led_to))
        groups = (
            tables if members else {},
            step(
                "scopes",
                (ever, services, members),
                partial(http_steps.scopes, ever, services, members),
            ),
            step(
                "clusters",
                (behind, frozenset(foreign), traffic, services),
                partial(http_steps.clusters, behind, foreign, traffic, world),
            ),
            step(
                "endpoints",
                (behind, frozenset(foreign)),
                partial(http_steps.endpoints, behind, foreign),
            ),
            step(
                "applications",
                (aimed,),
                lambda _: by_key(http.applications(aimed.bound, aimed.tls, self._carried_max)),
            ),
            step("at gateways", (gateways,), lambda _: by_key(gateways.resources)),
            step(
                "tokens",
                (requests, members, keys, gateways.own),
                partial(http_steps.tokens, world, requests, members, keys, gateways.own),
            ),
            step(
                "listeners",
                (
                    *(members, unread, ever_passed, foreign),
                    *http_steps.if_(foreign, (routed,)),
                    *http_steps.if_(ever_passed, (services,)),
                ),
                partial(
                    http_steps.listeners,
                    *(world, unread, ever_passed, foreign, routed, members),
                    self._connections_max,
                ),
            ),
            step(
                "named",
                (named, ever_named, *http_steps.if_(ever_named, (members, foreign, services))),
                partial(
                    http_steps.named,
                    *(world, named, ever_named, foreign, members, self._connections_max),
                ),
            ),
            step("copied", (copying, members), partial(http_steps.copied, copying, members)),
            step(
                "dialled",
                (dialled, services),
                lambda _: http_steps.dialled(services, dialled),
            ),
            step(
                "ways abroad",
                (*ways, *http_steps.if_(known, (services,))),
                lambda _: foreign_steps.resources(world, *ways),
            ),
        )
        return HttpPlan(
            groups,
            step(
                "routed",
                (*looked_at, frozenset(foreign), services),
                lambda _: http_steps.dialled_at(services, {*routed, *unread, *foreign}, named),
            ),
            ports,
            step(
                "judged",
                (requests, ports, aimed, members),
                lambda _: http_steps.judged(world, policy, requests, members, ports, aimed),
            ),
            gateways.own,
            step(
                "tunnels",
                (requests, members),
                lambda _: http_steps.tunnels(world, requests, members),
            ),
            step("pods behind", (behind,), lambda _: http_steps.pods(behind)),
            dialled,
            foreign,
            known,
            step(
                "said abroad",
                (requests, exports),
                lambda _: foreign_steps.said(world, requests, exports),
            ),
            gateways.narrowed,
            step(
                "asked from abroad",
                (requests, exports, aimed, members, *http_steps.if_(exports, (world.federated,))),
                lambda _: foreign_steps.judged(world, policy, requests, members, exports, aimed),
            ),
        )

    def _remember(
        self,
        world: World,
        routed: Iterable[ServicePort],
        passed: Iterable[ServicePort],
        named: Iterable[ServicePort],
    ) -> tuple[Ever, tuple[ServicePort, ...], tuple[ServicePort, ...]]:
        """What was ever routed, as long as its service is there; what TCPRoutes were about, but
        no route of requests is; what TLSRoutes were about."""
        known = world.services
        self._ever = {it: None for it in (*self._ever, *routed) if it.service in known}
        routed = set(routed)
        self._ever_passed = {
            it: None
            for it in (*self._ever_passed, *passed)
            if it.service in known and it not in routed
        }
        self._ever_named = {it: None for it in (*self._ever_named, *named) if it.service in known}
        by_service: dict[str, tuple[ServicePort, ...]] = {}
        for port in sorted(self._ever):
            by_service[port.service] = (*by_service.get(port.service, ()), port)
        return by_service, tuple(self._ever_passed), tuple(self._ever_named)

    def _follow(self, routed: Mapping[ServicePort, Routed], ever: Ever) -> Resources:
        """A table for each service that is, or was, routed."""
        changed = differing(self._routed, routed)
        for port in changed:
            self._leads.pop(port, None)
            if port in routed:
                self._leads[port] = http_steps.led(routed[port].ways)
        self._routed = routed
        there = {http.routes_name(service): service for service in ever}
        stale = {port.service for port in changed}
        stale |= {it for name, it in there.items() if (ROUTE, name) not in self._tables}
        puts = [
            http.routes(it, [(port, self._table(port)) for port in ever[it]])
            for it in stale
            if it in ever
        ]
        gone = [key for key in self._tables if key[1] not in there]
        self._tables = self._tables.changed(by_key(puts), gone)
        return self._tables

    def _table(self, port: ServicePort) -> Routed:
        """Of clients that no route is about, requests go to the service itself."""
        one = self._routed.get(port, Routed())
        return one if one.producer is not None else replace(one, producer=(straight_to(port),))
