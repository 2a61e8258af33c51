"""Which ways do requests for which host take at a port of a Gateway?

Pure. Of listeners on one port the most specific hostname has a request, and no other: one without
a route for it answers 404. Within a listener the most specific hostname of a route is asked first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from sixfold.mesh.listeners import ListenerPlan, covers, owner, rank
from sixfold.mesh.routes import Way, ordered, ways_of
from sixfold.model.httproute import GRPCRoute, HTTPRoute
from sixfold.model.world import World

Hosts = Mapping[str, tuple[Way, ...]]  # by domain, as Envoy reads it: "*", "*.a.b", "a.b"


def hosts_of(
    world: World, listeners: Sequence[ListenerPlan], port: Sequence[ListenerPlan] = ()
) -> Hosts:
    """Of listeners that one connection may reach; ``port``: all of the same port."""
    found: dict[str, tuple[Way, ...]] = {one.host: () for one in listeners}
    for listener in listeners:
        by_host: defaultdict[str, list[tuple[object, Way]]] = defaultdict(list)
        for attached in listener.attached:
            if not isinstance(attached.route, HTTPRoute | GRPCRoute):
                continue
            ways = list(ways_of(world, attached.route))
            for host in attached.hosts:
                by_host[host] += [((*rank(host), *place), way) for place, way in ways]  # type: ignore[misc]
        for domain in by_host:
            if owner(domain, port or listeners) == listener.host:
                wider = [them for host, them in by_host.items() if covers(host, domain)]
                found[domain] = ordered([one for them in wider for one in them])
    return found


def misdirected(listener: ListenerPlan, port: Sequence[ListenerPlan]) -> set[str]:
    """Hosts of other listeners of the port: a connection was made for one, and is used for another.

    Answered 421, so that the client dials again (RFC 9110, 15.5.20; GEP-3567).
    """
    return {one.host for one in port} - {listener.host}


def host_for(hosts: Hosts, name: str) -> tuple[Way, ...]:
    """The ways of requests for a host, without its port."""
    meant = [domain for domain in hosts if covers(domain, name.lower())]
    return hosts[min(meant, key=rank)] if meant else ()
