"""Which connection goes where? TLSRoutes and TCPRoutes at a port of a Gateway.

Pure. Nobody reads such a connection: its TLS names a host, or nothing does. From the proxy it goes
on to the *service*, in the Gateway's pod, as one that a process there had opened: so the kernel
picks the backend by the service's algorithm, asks policy and sends it through a tunnel, or as it
is where the backend has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sixfold.mesh.listeners import ListenerPlan, covers, owner
from sixfold.mesh.routes import Backend, target
from sixfold.model.streamroute import StreamRoute, TCPRoute, TLSRoute
from sixfold.model.world import World


class StreamWay(NamedTuple):
    """``name``: of the route; "": there is none, and the connection is closed."""

    name: str
    backends: tuple[Backend, ...] = ()


class Stream(NamedTuple):
    """Of a listener: connections that name one of these hosts. None: all there are."""

    hosts: tuple[str, ...]
    way: StreamWay


def streams_of(
    world: World, listener: ListenerPlan, port: Sequence[ListenerPlan]
) -> Iterator[Stream]:
    """Each host once: of two routes the older has it."""
    taken: set[str] = set()
    for attached in listener.attached:
        if not isinstance(attached.route, TLSRoute | TCPRoute):
            continue
        mine = tuple(
            host
            for host in attached.hosts
            if host not in taken and owner(host, port) == listener.host
        )
        taken.update(mine)
        if mine:
            yield Stream(mine, way_of(world, attached.route))
    if listener.host not in taken:
        yield Stream((listener.host,), StreamWay(""))


def stream_for(streams: Sequence[Stream], name: str) -> StreamWay:
    """The way of a connection whose handshake names a host; "": it names none."""
    meant = [(host, one) for one in streams for host in one.hosts if covers(host, name or "*")]
    if not meant:
        return StreamWay("")
    return min(meant, key=lambda it: (it[0].startswith("*"), -len(it[0])))[1].way


def way_of(world: World, route: StreamRoute) -> StreamWay:
    meta = route.metadata
    backends = tuple(
        Backend(target(world, route, one), one.weight)
        for rule in route.spec.rules
        for one in rule.backend_refs
        if one.weight
    )
    return StreamWay(f"{meta.namespace}/{meta.name}", backends)
