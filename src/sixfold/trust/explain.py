"""One flow through the whole stack: a line per pattern, and the verdict with its reason.

Pure. Each pattern is asked in stack order what it does with the flow; policy is asked about the
backend's own port, because that is what the kernel judges. The plan is the one that is in force
(live) or would be (offline): the explanation is the enforcement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from sixfold.balancing.explain import BalancingAnswer, Candidate, explain_balancing
from sixfold.errors import NotFoundError
from sixfold.mesh.asked import Asked
from sixfold.mesh.explain import MTLS, explain_mesh, explain_outward
from sixfold.mesh.foreign import foreign_services
from sixfold.mesh.routes import ServicePort
from sixfold.model.datapath import PROTOCOL_NUMBERS
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import HOST, RESOLVER, WORLD
from sixfold.model.service import IPFamily, Service
from sixfold.model.spiffe import SCHEME
from sixfold.model.world import World
from sixfold.policy.decide import Party, decide
from sixfold.policy.explain import PolicyAnswer, Side, explain_policy
from sixfold.policy.plan import PolicyPlan, compile_policies
from sixfold.routing.explain import RouteAnswer, explain_route, is_same_pod
from sixfold.routing.plan import RoutingPlan, plan_routing
from sixfold.trust.explain_foreign import Answer as Abroad
from sixfold.trust.explain_foreign import into, out
from sixfold.trust.explain_gateway import WayIn, narrowed_at, way_in
from sixfold.trust.explain_requests import RouteOfRequest, judged, narrowed, route_of
from sixfold.trust.hidden import told_of
from sixfold.trust.outside import at_node_port, refused
from sixfold.trust.question import Destination, Place, destination, place_at, sources, version_of

NOT_INVOLVED = "-"
LISTED_MAX = 4  # backends spelled out on one line


@dataclass(frozen=True, slots=True)
class Line:
    """What one pattern says. ``outcome`` is one word, "-" when the pattern is not involved."""

    pattern: str
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer; ``port`` is the one that was dialled, a service's if TO is a service."""

    allowed: bool
    source: str
    destination: str
    port: int
    protocol: str
    lines: tuple[Line, ...]


class Plans(Protocol):
    """What must have been planned before a flow can be explained."""

    @property
    def routing(self) -> RoutingPlan: ...
    @property
    def policy(self) -> PolicyPlan: ...


@dataclass(frozen=True, slots=True)
class OfflinePlans:
    """Plans made for the question only, from a world without an agent."""

    routing: RoutingPlan
    policy: PolicyPlan


def plan_offline(world: World) -> OfflinePlans:
    """Compile what the agent would load."""
    policy = compile_policies(world)
    return OfflinePlans(
        plan_routing(world, policy.covering_cidr, (), policy.cidrs, policy.domains), policy
    )


def explain(
    world: World,
    plans: Plans,
    source: str,
    destination: str,
    port: int | None = None,
    protocol: str = "TCP",
    namespace: str = "default",
    asked: Asked | None = None,
) -> Explanation:
    """Explain a new connection; raises NotFoundError for names that mean nothing here.

    namespace  of bare names; TO is read as the client itself would, in its own namespace
    port       of the service or pod; None: the first of the service, the only one of the pod
    asked      a request over it; None: the connection alone
    """
    if source.startswith(SCHEME):
        return _from_abroad(world, plans, source, destination, port, namespace, asked)
    places = sources(world, plans.routing, source, namespace)
    question = _Question(world, plans, places, destination, port, protocol, namespace)
    return question.answer(asked)


def _from_abroad(
    world: World,
    plans: Plans,
    source: str,
    to: str,
    port: int | None,
    namespace: str,
    asked: Asked | None,
) -> Explanation:
    """A SPIFFE ID of another trust domain dials something of ours."""
    asker = (Place(source, WORLD),)
    question = _Question(world, plans, asker, to, port, "TCP", namespace)
    answer = into(world, plans.policy, source, question.target, question.port, asked)
    what = f"{source} → {to}:{question.port}/TCP"
    said = [
        *answer.lines,
        ("verdict", "DROPPED", f"{what}: {answer.why}")
        if answer.why
        else ("verdict", "FORWARDED", what),
    ]
    lines = tuple(Line(*one) for one in said)
    return Explanation(not answer.why, source, to, question.port, "TCP", lines)


def denied(
    world: World,
    plans: Plans,
    source: str,
    destination: str,
    port: int | None = None,
    protocol: str = "TCP",
    namespace: str = "default",
) -> list[tuple[Party, Party, str, int]]:
    """The flows behind a connection that policy denies: both ends, protocol and the pod's port."""
    if source.startswith(SCHEME):
        return []  # no edit of network policy lets an identity in
    places = sources(world, plans.routing, source, namespace)
    return _Question(world, plans, places, destination, port, protocol, namespace).denied()


@dataclass(frozen=True, slots=True)
class _Flow:
    """One source to one backend: the unit that routing and policy judge."""

    source: Place
    destination: Place
    route: RouteAnswer
    policy: PolicyAnswer
    port: int

    @property
    def allowed(self) -> bool:
        return self.route.reachable and self.policy.allow

    def by_proxy(self, plan: PolicyPlan, protocol: str) -> bool:
        """Whether it leaves for the world by the proxy, or not at all."""
        if self.destination.identity != WORLD or protocol != "TCP":
            return False
        address = self.destination.address
        version = 4 if address is None else address.version
        ends = self.source.party(plan, version), self.destination.party(plan, version)
        side = decide(plan, *ends, PROTOCOL_NUMBERS["TCP"], self.port).egress
        return side is not None and side.by_proxy

    @property
    def target(self) -> str:
        return f"{self.destination.name}:{self.port}" if self.port else self.destination.name


class _Question:
    """What was asked, and the answers of the patterns so far."""

    def __init__(
        self,
        world: World,
        plans: Plans,
        places: tuple[Place, ...],
        text: str,
        port: int | None,
        protocol: str,
        namespace: str,
    ) -> None:
        self.world = world
        self.plans, self.plan, self.routing = plans, plans.policy, plans.routing
        self.of_gateway: Literal["", "read", "passed on"] = ""  # how it comes from one
        self.sources = places
        client = places[0].endpoint
        self.target = _destination(
            world, plans.routing, text, client.namespace if client else "", namespace
        )
        self.text = text
        self.protocol = "ICMPv6" if protocol.upper() == "ICMPV6" else protocol.upper()
        if self.protocol not in PROTOCOL_NUMBERS:
            known = ", ".join(PROTOCOL_NUMBERS)
            raise NotFoundError(f"protocol {protocol}: not one that policy knows; give {known}")
        self.port = self._port(port)
        # The port of the service, where it is not the one that was dialled.
        self.target, self.service_port = at_node_port(world, self.target, self.port, self.protocol)

    def denied(self) -> list[tuple[Party, Party, str, int]]:
        """Each flow that policy denies, as policy sees it."""
        found = []
        backends, _ = self._balancing()
        for source in self.sources:
            for backend, port in backends:
                flow = self._flow(source, backend, port)
                if not flow.policy.allow:
                    version = version_of(source, backend)
                    ends = (self._party(source, version), self._party(backend, version))
                    found.append((*ends, *self._asked(version, port)))
        return found

    def _asked(self, version: int, port: int) -> tuple[str, int]:
        """Protocol and port of one flow; who asks about ICMP means a ping."""
        if not self.protocol.startswith("ICMP"):
            return self.protocol, port
        return ("ICMPv6", 128) if version == 6 or self.protocol == "ICMPv6" else ("ICMP", 8)

    def answer(self, asked: Asked | None) -> Explanation:
        lines = [self._discovery()]
        backends, balancing = self._balancing()
        lines.append(balancing)
        route, carried = self._route(asked) if backends else None, list[Line]()
        if route is not None:
            lines.append(Line("route", route.outcome, route.text))
            if route.carried:
                carried = [Line("traffic", "ok", route.carried)]
            if route.backends is not None:
                backends = self._backends(route.backends)
        flows = [self._flow(source, *backend) for source in self.sources for backend in backends]
        if flows:
            lines.append(_routing(flows))
            lines += _policy(flows, "egress", [flow.policy.egress for flow in flows])
            lines += _policy(flows, "ingress", [flow.policy.ingress for flow in flows])
            always = self.of_gateway == "read"
            abroad = self._abroad(route) if all(flow.allowed for flow in flows) else None
            if abroad is None:
                lines.append(self._mesh(flows[0], always=always))
            else:
                lines += (Line(*one) for one in abroad.lines)
                if abroad.why:
                    lines.append(Line("verdict", "DROPPED", f"{self._what}: {abroad.why}"))
                    return self._explained(lines, allowed=False)
            lines += carried
        answers = [line for flow in flows if flow.allowed for line in self._requests(flow, asked)]
        lines += dict.fromkeys(answers)
        refused = next((one for one in answers if one.outcome == "DROPPED"), None)
        allowed = bool(flows) and all(flow.allowed for flow in flows) and refused is None
        if allowed and (way := self._way_in(asked)) is not None:
            return self._onwards(lines, way, asked)
        if refused is not None and all(flow.allowed for flow in flows):
            lines.append(Line("verdict", "DROPPED", f"{self._what}: {refused.detail}"))
        else:
            lines.append(self._verdict(allowed, flows, lines[1 if route is None else 2]))
        return self._explained(lines, allowed=allowed)

    def _explained(self, lines: Iterable[Line], *, allowed: bool) -> Explanation:
        return Explanation(allowed, self._from, self.text, self.port, self.protocol, tuple(lines))

    def _abroad(self, route: RouteOfRequest | None) -> Abroad | None:
        """Where a service of another trust domain was dialled, or a route leads to one."""
        if self.protocol != "TCP" or not self.world.backend_tls:
            return None
        dialled, client = self.target.service, self.sources[0].endpoint
        ports = route.backends if route is not None and route.backends else ()
        if not ports and dialled is not None:
            name = f"{dialled.metadata.namespace}/{dialled.metadata.name}"
            ports = (ServicePort(name, self.service_port or self.port),)
        foreign = foreign_services(self.world)
        answers = [
            out(self.world, self.plan, self.routing, client, foreign[port])
            for port in ports
            if port in foreign
        ]
        if not answers:
            return None
        lines = tuple(dict.fromkeys(line for one in answers for line in one.lines))
        return Abroad(lines, next((one.why for one in answers if one.why), ""))

    def _way_in(self, asked: Asked | None) -> WayIn | None:
        """Where a Gateway has it go on to, if it was dialled."""
        service = self.target.service
        if service is None or self.protocol != "TCP":
            return None
        return way_in(self.world, service, self.service_port or self.port, asked)

    def _onwards(self, lines: list[Line], way: WayIn, asked: Asked | None) -> Explanation:
        """The second leg: from the Gateway's pod to each backend of its route."""
        lines.append(Line("gateway", way.route.outcome, way.route.text))
        if way.route.carried:
            lines.append(Line("traffic", "ok", way.route.carried))
        allowed = way.route.outcome in ("ok", "routed", "redirected")
        why = way.route.text
        source = self.sources[0]
        address = source.address or (source.endpoint.ipv4 if source.endpoint else None)
        port = self.service_port or self.port
        for said in narrowed_at(self.world, way, address, port, asked):
            lines.append(Line("authorization", *said))
            if said[0] == "DROPPED":
                lines.append(Line("verdict", "DROPPED", f"{self._what}: {said[1]}"))
                return self._explained(lines, allowed=False)
        for to in way.route.backends or ():
            leg = _Question(
                self.world,
                self.plans,
                sources(self.world, self.routing, way.gateway.made, way.gateway.metadata.namespace),
                ".".join(reversed(to.service.split("/"))),
                to.port,
                "TCP",
                way.gateway.metadata.namespace,
            )
            leg.of_gateway = "read" if way.read else "passed on"
            answer = leg.answer(asked if way.read else None)
            lines += [one for one in answer.lines if one.pattern not in ("discovery", "verdict")]
            if allowed and not answer.allowed:
                allowed, why = False, answer.lines[-1].detail
        if allowed:
            lines.append(Line("verdict", "FORWARDED", self._what))
        else:
            lines.append(Line("verdict", "DROPPED", f"{self._what}: {why}"))
        return self._explained(lines, allowed=allowed)

    def _route(self, asked: Asked | None) -> RouteOfRequest | None:
        """Which way requests take, if they are routed."""
        service, client = self.target.service, self.sources[0].endpoint
        if service is None or client is None or self.protocol != "TCP" or self.of_gateway:
            return None  # routes of Services are for those who dial them
        return route_of(self.world, service, self.port, client.namespace, asked)

    def _backends(self, ports: Sequence[ServicePort]) -> list[tuple[Place, int]]:
        """The pods behind the services that a route leads to."""
        return [
            (self._backend(one), one.port)
            for to in ports
            for one in explain_balancing(
                self.world, self.world.services[to.service], to.port, "TCP", self._family
            ).candidates
            if one.ready and not one.written
        ]

    def _requests(self, flow: _Flow, asked: Asked | None) -> Iterable[Line]:
        client, server = flow.source.endpoint, flow.destination.endpoint
        if client is not None and server is not None and self.protocol == "TCP":
            said = judged(self.world, self.plan, client, server, flow.port, asked)
            yield from (Line("requests", *one) for one in said)
            said = narrowed(self.world, self.plan, client, server, flow.port, asked)
            yield from (Line("authorization", *one) for one in said)

    @property
    def _what(self) -> str:
        port = f":{self.port}" if self.port else ""
        return f"{self._from} → {self.text}{port}/{self.protocol}"

    @property
    def _from(self) -> str:
        return self.sources[0].name

    def _port(self, port: int | None) -> int:
        if self.protocol.startswith("ICMP"):
            return 0
        if port is not None:
            return port
        service = self.target.service
        if service is not None and service.spec.ports:
            self.protocol = service.spec.ports[0].protocol
            return service.spec.ports[0].port
        published = sorted(
            {
                one.port
                for place in self.target.places
                if place.endpoint is not None
                for one in place.endpoint.publish_ports
                if one.protocol == self.protocol
            }
        )
        if len(published) == 1:
            return published[0]
        has = f"it names {', '.join(map(str, published))}" if published else "it names none"
        raise NotFoundError(f"to {self.text}: no port given, and {has}; give {self.text}:PORT")

    def _mesh(self, flow: _Flow, *, always: bool) -> Line:
        source, destination = flow.source.endpoint, flow.destination.endpoint
        if source is not None and flow.by_proxy(self.plan, self.protocol):
            name = self.target.lookup.fqdn if self.target.lookup is not None else ""
            said = explain_outward(self.world, self.plan, source, flow.port, name)
            return Line("mesh", said.outcome, said.text)
        if source is None or destination is None:
            return Line("mesh", NOT_INVOLVED, "one side is no workload of ours")
        ends = source, destination, self.protocol, flow.port
        answer = explain_mesh(self.world, *ends, always=always)
        return Line("mesh", answer.outcome, answer.text)

    def _discovery(self) -> Line:
        lookup = self.target.lookup
        if lookup is None or lookup.kind == "address":
            return Line("discovery", NOT_INVOLVED, "no name to look up")
        client = self.sources[0]
        return Line("discovery", *told_of(self.world, self.plan, self.routing, client, lookup))

    def _balancing(self) -> tuple[list[tuple[Place, int]], Line]:
        """The backends that a connection may meet, each with its own port."""
        service = self.target.service
        if service is None:
            line = Line("balancing", NOT_INVOLVED, "no service in between")
            return [(place, self.port) for place in self.target.places], line
        if refusal := self._refusal(service):
            return [], Line("balancing", "refused", refusal)
        port = self.service_port or self.port
        answer = explain_balancing(
            self.world, service, port, self.protocol, self._family, outside=self._outside
        )
        candidates = [one for one in answer.candidates if one.ready]
        if not candidates:
            return [], Line("balancing", "refused", answer.why)
        backends = [(self._backend(one), one.port) for one in candidates]
        return backends, Line("balancing", answer.algorithm, _candidates(answer, candidates))

    def _backend(self, one: Candidate) -> Place:
        """A pod; or whoever has the address that somebody wrote, whatever it is called."""
        if one.written:
            assert one.address is not None
            return place_at(self.world, self.routing, one.address, one.endpoint)
        endpoint = self.world.endpoints[one.endpoint]
        return Place(one.endpoint, endpoint.identity, endpoint, one.address)

    @property
    def _family(self) -> IPFamily | None:
        dialled = self.target.address
        if dialled is None:
            return None
        return "IPv4" if dialled.version == 4 else "IPv6"

    def _refusal(self, service: Service) -> str:
        if self.protocol.startswith("ICMP") and not service.spec.headless:
            return "a service address answers on its ports only, not to ICMP"
        if not self._outside or self.service_port:
            return ""
        return refused(service, self.target.address, self.sources[0].address)

    @property
    def _outside(self) -> bool:
        return self.sources[0].identity == WORLD

    def _flow(self, source: Place, backend: Place, port: int) -> _Flow:
        version = version_of(source, backend)
        address = backend.address
        if backend.endpoint is not None:
            address = backend.endpoint.ipv4 if version == 4 else backend.endpoint.ipv6
        route = explain_route(
            self.world,
            source.endpoint,
            backend.endpoint,
            address,
            backend.identity,
            self.protocol,
            proxied=self._proxied(source.endpoint, backend.endpoint, port),
        )
        if self._outside and self.target.service is not None:
            away = backend.endpoint is None and backend.identity == WORLD
            how = f"{route.text}, under the host's address" if away else route.text
            route = RouteAnswer(True, f"translated at the uplink; {how}")
        if is_same_pod(source.endpoint, backend.endpoint):
            return _Flow(source, backend, route, PolicyAnswer(None, None), port)
        policy = explain_policy(
            self.world,
            self.plan,
            self._party(source, version),
            self._party(backend, version),
            *self._asked(version, port),
        )
        return _Flow(source, backend, route, policy, port)

    def _proxied(self, source: Endpoint | None, backend: Endpoint | None, port: int) -> bool:
        """Asked only where it matters to the route: of two that are accelerated."""
        if source is None or backend is None or not (source.accelerated and backend.accelerated):
            return False
        return explain_mesh(self.world, source, backend, self.protocol, port).outcome == MTLS

    def _party(self, place: Place, version: int) -> Party:
        """As policy sees a place; the node has an address of each family."""
        config = self.world.config
        if place.address == config.host_ipv4 and version == 6:
            place = replace(place, address=config.host_ipv6)
        return place.party(self.plan, version)

    def _verdict(self, allowed: bool, flows: Sequence[_Flow], balancing: Line) -> Line:
        what = self._what
        if allowed:
            audit = any(flow.policy.audit for flow in flows)
            return Line("verdict", "AUDIT" if audit else "FORWARDED", what)
        if not flows:
            return Line("verdict", "DROPPED", f"{what}: {balancing.detail}")
        denied = [flow for flow in flows if not flow.allowed]
        some = f" for {len(denied)} of {len(flows)} backends" if len(denied) < len(flows) else ""
        return Line("verdict", "DROPPED", f"{what}: {_why(denied[0])}{some}")


def _destination(
    world: World, routing: RoutingPlan, text: str, client: str, namespace: str
) -> Destination:
    """TO as the client reads it; a bare name may also be meant in the asker's namespace."""
    try:
        return destination(world, routing, text, client or namespace)
    except NotFoundError as unknown:
        if client in ("", namespace):
            raise
        try:
            return destination(world, routing, text, namespace)
        except NotFoundError:
            raise unknown from None


def _candidates(answer: BalancingAnswer, candidates: Sequence[Candidate]) -> str:
    listed = [
        f"{one.endpoint} ({one.address or 'no address'}):{one.port}"
        if one.address is None or one.address.version == 4
        else f"{one.endpoint} ([{one.address}]):{one.port}"
        for one in candidates[:LISTED_MAX]
    ]
    rest = len(candidates) - len(listed)
    more = f" and {rest} more" if rest else ""
    return f"{answer.service}:{answer.port} → {', '.join(listed)}{more}; {answer.why}"


def _routing(flows: Sequence[_Flow]) -> Line:
    outcome = "ok" if all(flow.route.reachable for flow in flows) else "unreachable"
    texts = list(dict.fromkeys(flow.route.text for flow in flows))
    rest = len(texts) - 1
    more = f"; and {rest} more backend{'s' if rest > 1 else ''} likewise" if rest else ""
    return Line("routing", outcome, texts[0] + more)


def _policy(flows: Sequence[_Flow], direction: str, sides: Sequence[Side | None]) -> Iterable[Line]:
    """One line when all backends agree, else one for each verdict and rule."""
    pattern = f"policy {direction}"
    grouped: dict[Side | None, list[_Flow]] = {}
    for flow, side in zip(flows, sides, strict=True):
        grouped.setdefault(side and replace(side, endpoint=""), []).append(flow)
    for side, group in grouped.items():
        whose = group[0].source if direction == "egress" else group[0].destination
        if side is None:
            yield Line(pattern, NOT_INVOLVED, _no_policy(group[0], whose, direction))
            continue
        towards = f" to {', '.join(flow.target for flow in group)}" if len(grouped) > 1 else ""
        verb = "allowed" if side.allow else "denied"
        outcome = "FORWARDED" if side.allow else "DROPPED"
        if side.audit:
            verb, outcome = "allowed, but would be denied", "AUDIT"
        yield Line(pattern, outcome, f"{whose.name}{towards} {verb} by {side.rule}")
        for near in side.nearly:
            yield Line(pattern, "nearly", near)


def _no_policy(flow: _Flow, whose: Place, direction: str) -> str:
    if {flow.source.identity, flow.destination.identity} <= {HOST, RESOLVER}:
        return "inside the host there is no policy"
    if whose.identity == HOST:
        return f"no policy selects the host: its {direction} is open (nodeSelector)"
    if is_same_pod(flow.source.endpoint, flow.destination.endpoint):
        return "a pod may always talk to itself"
    return f"{whose.name} is no workload of ours: no policy on this side"


def _why(flow: _Flow) -> str:
    if not flow.route.reachable:
        return flow.route.text
    for direction, side in (("egress", flow.policy.egress), ("ingress", flow.policy.ingress)):
        if side is not None and not side.allow:
            return f"{direction} of {side.endpoint} denied by {side.rule}"
    raise AssertionError("asked why of a flow that is allowed")
