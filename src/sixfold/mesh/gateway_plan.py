"""What the proxy should hold for Gateways: of each its listeners, and where their routes lead.

Pure. A Gateway is served in the pod that was made for it; while there is none, it waits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sixfold.mesh import gateway
from sixfold.mesh.certificates import Shown
from sixfold.mesh.hosts import hosts_of, misdirected
from sixfold.mesh.http_routes import Front
from sixfold.mesh.listeners import ListenerPlan, plan_listeners
from sixfold.mesh.member import Member
from sixfold.mesh.messages import Resource
from sixfold.mesh.routes import Way
from sixfold.model.world import World


class GatewayPlan(NamedTuple):
    """Of all Gateways: resources, ways of requests, and the names of listeners by pod."""

    resources: tuple[Resource, ...]
    ways: tuple[Way, ...]
    listeners: Mapping[str, tuple[str, ...]]


def plan_gateways(world: World, members: Mapping[str, Member]) -> GatewayPlan:
    resources: list[Resource] = []
    ways: list[Way] = []
    names: dict[str, tuple[str, ...]] = {}
    certificates: dict[str, Shown] = {}
    for listeners in plan_listeners(world).values():
        member = members.get(listeners[0].gateway.made)
        if member is None:
            continue
        ports = _by_port(listeners)
        for port, some in ports.items():
            chains = []
            for part in _parts(some):
                one = part[0]
                section = one.listener.name if one.listener.protocol == "HTTPS" else ""
                table = gateway.table_name(member, port, section)
                hosts = hosts_of(world, part, some)
                ways += [way for them in hosts.values() for way in them]
                if section:
                    chains.append(gateway.https(member, table, one))
                    front, elsewhere = Front("https", port), misdirected(one, some)
                else:
                    chains.append(gateway.http(member, table))
                    front, elsewhere = Front("http", port), set()
                resources.append(gateway.table(table, hosts, front, elsewhere))
                certificates |= one.certs
            resources.append(gateway.listener(member, port, chains))
        names[member.pod] = tuple(gateway.listener_name(member, port) for port in ports)
    resources += [gateway.certificate(name, shown) for name, shown in certificates.items()]
    return GatewayPlan(tuple(resources), tuple(ways), names)


def _parts(listeners: Sequence[ListenerPlan]) -> list[Sequence[ListenerPlan]]:
    """Those that share a connection: of plaintext all, in TLS each alone."""
    if listeners[0].listener.protocol == "HTTP":
        return [listeners]
    return [[one] for one in listeners]


def _by_port(listeners: tuple[ListenerPlan, ...]) -> Mapping[int, list[ListenerPlan]]:
    found: defaultdict[int, list[ListenerPlan]] = defaultdict(list)
    for one in listeners:
        if one.served:
            found[one.listener.port].append(one)
    return found
