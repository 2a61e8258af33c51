"""One request over a connection: which way it takes, and what policy says of it.

Pure. Of the same routes and rules that the proxy has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from sixfold.balancing.choice import choose
from sixfold.mesh import said
from sixfold.mesh.asked import Asked, allowing, way_for
from sixfold.mesh.authorized import authorized, caller_of
from sixfold.mesh.listeners import EVERY_HOST
from sixfold.mesh.routes import Backend, ServicePort, Way
from sixfold.mesh.streams import Stream, plan_streams, stream_for
from sixfold.mesh.tokens import NO_TOKEN, claims_of
from sixfold.mesh.traffic import Traffic, plan_requests
from sixfold.model.endpoint import Endpoint
from sixfold.model.seen import NOTHING_SEEN
from sixfold.model.service import Service
from sixfold.model.world import World
from sixfold.policy.conditions import no_token
from sixfold.policy.plan import PolicyPlan
from sixfold.policy.requests import Requests


class RouteOfRequest(NamedTuple):
    """``backends``: where it leads; None: to the service itself, as without a route.

    carried  what else holds for it: limits, faults, tries, by which policies
    """

    outcome: str
    text: str
    backends: tuple[ServicePort, ...] | None = ()
    carried: str = ""


def route_of(
    world: World, service: Service, number: int, namespace: str, asked: Asked | None
) -> RouteOfRequest | None:
    """For clients of a namespace; None: nothing routes requests to this port of the service."""
    port = ServicePort(f"{service.metadata.namespace}/{service.metadata.name}", number)
    looked_at = world.routes or world.traffic
    routed = plan_requests(world, Traffic(world)).get(port) if looked_at else None
    ways = routed.for_clients_of(namespace) if routed is not None else None
    if ways is None:
        passed = plan_streams(world).get(port) if world.streams else None
        streams = passed.for_clients_of(namespace) if passed is not None else None
        return _by_name(streams, port, asked) if streams is not None else None
    if asked is None:
        names = sorted({way.name.partition(" ")[0] for way in ways if way.rule is not None})
        how = f"routed by {', '.join(names)}" if names else "balanced one by one"
        text = f"requests are {how}; --method and --path ask about one"
        return RouteOfRequest("routed", text, None)
    return route_among(world, ways, asked, str(port), port)


def _by_name(streams: Sequence[Stream], port: ServicePort, asked: Asked | None) -> RouteOfRequest:
    """A connection that nobody reads, by what its handshake names where a TLSRoute asks for it."""
    named = any(host != EVERY_HOST for one in streams for host in one.hosts)
    host = asked.server if named and asked is not None else ""
    if named and asked is None:
        names = ", ".join(sorted({one.way.name for one in streams}))
        text = f"connections are routed by {names}; --host asks about one that names it (SNI)"
        return RouteOfRequest("routed", text, None)
    way = stream_for(streams, host)
    what = f"SNI {host or 'none'}: " if named else ""
    if not way.name:
        return RouteOfRequest("closed", f"{what}no TLSRoute of {port} has this name")
    if all(one.to is None for one in way.backends):
        return RouteOfRequest("closed", f"{what}{way.name} has no backend that is there")
    return taken_by(f"{what}{way.name}", way.backends)


def route_among(
    world: World, ways: Sequence[Way], asked: Asked, of: str, port: ServicePort | None = None
) -> RouteOfRequest:
    """``of``: whose ways they are, for people; ``port``: of the service that was asked, if any."""
    way = way_for(ways, asked)
    if way is None:
        return RouteOfRequest("404", f"{asked}: no match of a route of {of} (404)")
    if any(step.request_redirect is not None for step in way.filters):
        return RouteOfRequest("redirected", f"{asked}: by {way.name}")
    whole = sum(one.weight for one in way.backends)
    if not whole or any(one.to is None and one.weight for one in way.backends):
        return RouteOfRequest("500", f"{asked}: {way.name} has a backend that is none (500)")
    found = taken_by(f"{asked}: {way.name}", way.backends)
    return found._replace(carried="; ".join(_carried(world, way, port, found.backends or ())))


def taken_by(what: str, backends: Sequence[Backend]) -> RouteOfRequest:
    """The shares of those that are some."""
    whole = sum(one.weight for one in backends)
    taken = {one.to: one.weight for one in backends if one.weight and one.to is not None}
    shares = ", ".join(f"{to} ({weight * 100 / whole:g} %)" for to, weight in taken.items())
    return RouteOfRequest("ok", f"{what} → {shares}", tuple(taken))


def _carried(
    world: World, way: Way, port: ServicePort | None, taken: Iterable[ServicePort]
) -> Iterator[str]:
    traffic = Traffic(world)
    if port is None:
        way = traffic.carried(way)
    yield from said.of_way(way)
    for to in taken:
        service = world.services[to.service]
        number = next(one for one in service.spec.ports if one.port == to.port)
        choice = choose(service, number, world.seen.get(to.service, NOTHING_SEEN))
        spec = traffic.spec(to)
        yield ", ".join(
            [f"{to} picked by {said.picked(choice.algorithm, spec)}", *said.of_backends(spec)]
        )
    if names := said.policies(traffic, way, port):
        yield f"by {', '.join(names)}"


def judged(
    world: World,
    plan: PolicyPlan,
    client: Endpoint,
    server: Endpoint,
    port: int,
    asked: Asked | None,
) -> Iterator[tuple[str, str]]:
    """Outcome and reason, where some policy is about requests to that port of the pod."""
    requests = Requests(world, plan)
    if port not in requests.written(server):
        return
    rules = requests.allowed(server, port, client)
    would = requests.would_allow(server, port, client)
    if asked is not None and allowing(rules, asked) and not allowing(would, asked):
        yield "AUDIT", f"{asked}: no rule of {server.key} allows it; it passes, and is told"
        return
    if asked is None:
        names = ", ".join(dict.fromkeys(str(one.rule) for one in rules))
        yield "judged", f"requests are judged by {names}; --method and --path ask about one"
        return
    found = allowing(rules, asked)
    if found is None:
        yield "DROPPED", f"{asked}: no rule of {server.key} allows it (403)"
    else:
        yield "FORWARDED", f"{asked} allowed by {found.rule}"


def narrowed(
    world: World,
    plan: PolicyPlan,
    client: Endpoint,
    server: Endpoint,
    port: int,
    asked: Asked | None,
) -> Iterator[tuple[str, str]]:
    """Outcome and reason, where an AuthorizationPolicy is about that pod."""
    requests = Requests(world, plan)
    policies = requests.authorizations.of(server)
    written = requests.authorizations.tokens(server)
    if not (policies or written) or client.key == server.key:
        return
    seen = port in requests.ports(server)
    claims = claims_of(written, asked) if seen and asked is not None else NO_TOKEN
    if claims is None:
        yield "DROPPED", f"{asked}: no token of these issuers, by {no_token(written)} (401)"
        return
    if claims:
        who = f"{claims.get('iss')}/{claims.get('sub')}"
        yield "token", f"of {who}, as it says: explain verifies no signature and no date"
    domain = world.config.trust_domain
    caller = caller_of(client, domain, port, asked if seen else None, claims)
    if seen and asked is None:
        names = ", ".join(f"AuthorizationPolicy {one.name}" for one in policies)
        names = names or str(no_token(written))
        yield "judged", f"requests are judged by {names}; --method and --path ask about one"
        return
    answer = authorized(policies, caller)
    what = f"{asked}" if caller.asked is not None else "the connection"
    for rule in answer.told:
        yield "AUDIT", f"{what}: passes, and is told by {rule}"
    if not answer.allow:
        opaque = asked is not None and not seen
        hint = f"; port {port} is not known to be HTTP: name it so, or in ports" if opaque else ""
        yield "DROPPED", f"{what}: denied by {answer.rule}{' (403)' if seen else ''}{hint}"
    elif answer.rule is not None:
        yield "FORWARDED", f"{what} allowed by {answer.rule}"
