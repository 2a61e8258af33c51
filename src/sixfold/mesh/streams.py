"""Which connection goes where? TLSRoutes and TCPRoutes, of Gateways and of Services.

Pure. Nobody reads such a connection: its TLS names a host, or nothing does. From the proxy it goes
on to the *service*, from the pod that it is in, as one that a process there had opened: so the
kernel picks the backend by the service's algorithm, asks policy and sends it through a tunnel, or
as it is where the backend has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sixfold.balancing.members import cluster_addresses
from sixfold.mesh.listeners import EVERY_HOST, ListenerPlan, age_of, covers, owner, rank
from sixfold.mesh.routes import Backend, ServicePort, attachments, target
from sixfold.model.datapath import IPAddress
from sixfold.model.streamroute import StreamRoute, TCPRoute, TLSRoute
from sixfold.model.world import World


class StreamWay(NamedTuple):
    """``name``: of the route; "": there is none, and the connection is closed."""

    name: str
    backends: tuple[Backend, ...] = ()


class Stream(NamedTuple):
    """Connections that name one of these hosts; of a TCPRoute all, whatever they say."""

    hosts: tuple[str, ...]
    way: StreamWay


class ServiceStreams(NamedTuple):
    """Connections to a port of a Service, of the clients of one namespace."""

    port: ServicePort
    addresses: tuple[IPAddress, ...]
    streams: tuple[Stream, ...]


class RoutedStreams(NamedTuple):
    """As ``routes.Routed``; of several routes that mean one host the oldest has it.

    by_name  TLSRoutes: what a handshake names decides, and who names nothing of theirs is closed
    """

    by_name: bool
    producer: tuple[Stream, ...] | None
    consumers: Mapping[str, tuple[Stream, ...]]

    def for_clients_of(self, namespace: str) -> tuple[Stream, ...] | None:
        return self.consumers.get(namespace, self.producer)


def plan_streams(world: World) -> Mapping[ServicePort, RoutedStreams]:
    """Every port of a Service that some TLSRoute or TCPRoute is attached to."""
    found: dict[ServicePort, dict[str, list[Stream]]] = {}
    named: set[ServicePort] = set()
    for route in sorted(world.streams.values(), key=age_of):
        hosts = route.spec.hostnames if isinstance(route, TLSRoute) else (EVERY_HOST,)
        for port in {it: None for one in attachments(world, route) for it in one.ports}:
            where = route.metadata.namespace
            owner = "" if port.service.partition("/")[0] == where else where
            mine = found.setdefault(port, {}).setdefault(owner, [])
            taken = {host for stream in mine for host in stream.hosts}
            if left := tuple(host for host in dict.fromkeys(hosts) if host not in taken):
                mine.append(Stream(left, way_of(world, route)))
            if isinstance(route, TLSRoute):
                named.add(port)
    return {
        port: RoutedStreams(
            port in named,
            tuple(owners[""]) if "" in owners else None,
            {owner: tuple(streams) for owner, streams in owners.items() if owner},
        )
        for port, owners in found.items()
    }


def of_clients(
    world: World,
    ports: Iterable[ServicePort],
    routed: Mapping[ServicePort, RoutedStreams],
    of: str,
) -> Iterator[ServiceStreams]:
    """What the clients of a namespace are told of ports that are, or were, routed."""
    for port in ports:
        streams = routed[port].for_clients_of(of) if port in routed else None
        if streams is None:
            streams = (Stream((EVERY_HOST,), StreamWay(str(port), (Backend(port, 1),))),)
        addresses = tuple(cluster_addresses(world.services[port.service]))
        yield ServiceStreams(port, addresses, streams)


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
    return min(meant, key=lambda it: rank(it[0]))[1].way


def way_of(world: World, route: StreamRoute) -> StreamWay:
    meta = route.metadata
    backends = tuple(
        Backend(target(world, route, one), one.weight)
        for rule in route.spec.rules
        for one in rule.backend_refs
        if one.weight
    )
    return StreamWay(f"{meta.namespace}/{meta.name}", backends)
