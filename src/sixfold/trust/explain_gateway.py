"""One connection or request to a Gateway: which of its listeners has it, and where it goes on to.

Pure. Of the same listeners and routes that the proxy has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sixfold.mesh.asked import Asked
from sixfold.mesh.authorized import authorized, outside
from sixfold.mesh.hosts import host_for, hosts_of
from sixfold.mesh.listeners import ListenerPlan, covers, owner, plan_listeners
from sixfold.mesh.streams import StreamWay, stream_for, streams_of
from sixfold.mesh.tokens import claims_of
from sixfold.model.datapath import IPAddress
from sixfold.model.gateway import Gateway
from sixfold.model.service import Service
from sixfold.model.world import World
from sixfold.policy.authorizations import Authorizations
from sixfold.policy.conditions import no_token
from sixfold.trust.explain_requests import RouteOfRequest, route_among, taken_by


class WayIn(NamedTuple):
    """``gateway``: whose service was dialled; ``read``: its requests are, and go on in mTLS."""

    gateway: Gateway
    route: RouteOfRequest
    read: bool


def narrowed_at(
    world: World, way: WayIn, client: IPAddress | None, port: int, asked: Asked | None
) -> Iterator[tuple[str, str]]:
    """Outcome and reason, where an AuthorizationPolicy or RequestAuthentication is about it."""
    endpoint = world.endpoints.get(way.gateway.made)
    if endpoint is None or not way.read:
        return
    authorizations = Authorizations(world)
    policies, written = authorizations.at_gateway(endpoint), authorizations.tokens(endpoint)
    if not (policies or written):
        return
    if asked is None:
        names = ", ".join(f"AuthorizationPolicy {one.name}" for one in policies)
        names = names or str(no_token(written))
        yield "judged", f"requests are judged by {names}; --host and --path ask about one"
        return
    claims = claims_of(written, asked)
    if claims is None:
        yield "DROPPED", f"{asked}: no token of these issuers, by {no_token(written)} (401)"
        return
    answer = authorized(policies, outside(client, port, asked, claims))
    for rule in answer.told:
        yield "AUDIT", f"{asked}: passes, and is told by {rule}"
    if not answer.allow:
        yield "DROPPED", f"{asked}: denied by {answer.rule} (403)"
    elif answer.rule is not None:
        yield "FORWARDED", f"{asked} allowed by {answer.rule}"


def way_in(world: World, service: Service, port: int, asked: Asked | None) -> WayIn | None:
    """None: the service is no Gateway's."""
    name = f"{service.metadata.namespace}/{service.metadata.name}"
    gateway = next((one for one in world.gateways.values() if one.made == name), None)
    if gateway is None or not world.is_ours(gateway):
        return None
    listeners = [
        one
        for one in plan_listeners(world)[gateway.key]
        if one.listener.port == port and one.served
    ]
    if not listeners:
        text = f"gateway {gateway.key} serves no listener at port {port}"
        return WayIn(gateway, RouteOfRequest("closed", text), read=False)
    host = asked.server if asked is not None else ""
    protocol = listeners[0].listener.protocol
    if protocol != "HTTP":
        meant = [one for one in listeners if covers(one.host, host or "*")]
        if not meant:
            text = f"no listener of gateway {gateway.key} has {host or 'a connection without SNI'}"
            return WayIn(gateway, RouteOfRequest("closed", text), read=False)
        chosen = owner(host or "*", meant)
        one = next(it for it in meant if it.host == chosen)
        if one.listener.protocol != "HTTPS":
            ways = [*streams_of(world, one, listeners)]
            way = ways[0].way if protocol == "TCP" else stream_for(ways, host)
            return WayIn(gateway, _stream(way, one), read=False)
        listeners, port_of = [one], listeners
    else:
        port_of = listeners
    return WayIn(gateway, _request(world, listeners, port_of, asked, host), read=True)


def _stream(way: StreamWay, one: ListenerPlan) -> RouteOfRequest:
    where = f"listener {one.section} of gateway {one.gateway.key}"
    if not way.name or all(backend.to is None for backend in way.backends):
        return RouteOfRequest("closed", f"{where}: no route has a backend for it")
    return taken_by(f"{where}: {way.name}", way.backends)


def _request(
    world: World,
    listeners: Sequence[ListenerPlan],
    port: Sequence[ListenerPlan],
    asked: Asked | None,
    host: str,
) -> RouteOfRequest:
    hosts = hosts_of(world, listeners, port)
    if asked is None:
        names = sorted({way.name.partition(" ")[0] for ways in hosts.values() for way in ways})
        routes = f"requests are routed by {', '.join(names)}" if names else "it has no route"
        return RouteOfRequest("routed", f"{routes}; --host and --path ask about one", None)
    ways = host_for(hosts, host)
    if not ways:
        return RouteOfRequest("404", f"{asked}: no route of {host or 'no host'} (404)")
    return route_among(world, ways, asked, host)
