"""What the proxy should hold for Gateways: of each its listeners, and where their routes lead.

Pure. A Gateway is served in the pod that was made for it; while there is none, it waits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from sixfold.mesh import gateway
from sixfold.mesh.hosts import hosts_of
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
    for listeners in plan_listeners(world).values():
        member = members.get(listeners[0].gateway.made)
        if member is None:
            continue
        ports = _by_port(listeners)
        for port, some in ports.items():
            hosts = hosts_of(world, some)
            ways += [way for them in hosts.values() for way in them]
            resources.append(gateway.http_listener(member, port))
            resources.append(gateway.http_routes(member, port, hosts))
        names[member.pod] = tuple(gateway.listener_name(member, port) for port in ports)
    return GatewayPlan(tuple(resources), tuple(ways), names)


def _by_port(listeners: tuple[ListenerPlan, ...]) -> Mapping[int, list[ListenerPlan]]:
    found: defaultdict[int, list[ListenerPlan]] = defaultdict(list)
    for one in listeners:
        if one.served:
            found[one.listener.port].append(one)
    return found
