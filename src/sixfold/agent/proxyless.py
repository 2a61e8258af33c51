"""What a pod's gRPC clients are told, from the last plans: services whose names the pod is told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from sixfold.agent.planning import Plans
from sixfold.mesh import proxyless
from sixfold.mesh.http_routes import cluster_of
from sixfold.mesh.http_steps import backends_of
from sixfold.mesh.member import Member
from sixfold.mesh.messages import CLUSTER, ENDPOINTS, LISTENER, Resource
from sixfold.mesh.routes import Routed, ServicePort, Way
from sixfold.mesh.traffic import RequestTables, Traffic, straight_to
from sixfold.model.names import NOTHING
from sixfold.model.world import World

log = logging.getLogger(__name__)


class Proxyless:
    """``now`` is the last plans, and the pods of the mesh."""

    def __init__(self, now: Callable[[], tuple[Plans, Mapping[str, Member]]]) -> None:
        self._now = now
        self._tables = RequestTables()
        self._world: World | None = None
        self._traffic: Traffic | None = None
        self._routed: Mapping[ServicePort, Routed] = {}
        self._said: set[str] = set()

    def tell(self, pod: str, kind: str, names: Iterable[str]) -> list[Resource]:
        """Of these names those that there are, and that this pod may know of."""
        plans, members = self._now()
        endpoint = plans.world.endpoints.get(pod)
        if endpoint is None:
            return []
        view, namespace = plans.views.of.get(endpoint.id, NOTHING), pod.partition("/")[0]

        def seen(port: ServicePort) -> bool:
            return plans.views.sees(view, port.service)

        found = []
        if kind == LISTENER:
            for name in sorted(names):
                port = proxyless.port_named(plans.world, name, namespace)
                if port is not None and seen(port):
                    ways = self._ways(plans.world, port, namespace)
                    if why := self._why_not(port, ways):
                        self._say(f"xds:///{name} is not told to gRPC: {why}")
                    else:
                        found.append(proxyless.listener(name, ways))
            return found
        make = {CLUSTER: proxyless.cluster, ENDPOINTS: proxyless.endpoints}.get(kind)
        for name in sorted(names):
            port = _port(plans.world, name)
            if make is not None and port is not None and seen(port):
                to = backends_of(plans.world, plans.balancing.frontends, members, port)
                found.append(make(port, to))
        return found

    def _ways(self, world: World, port: ServicePort, namespace: str) -> tuple[Way, ...]:
        if self._world is not world:
            self._world = world
            self._traffic = Traffic(world)
            self._routed = self._tables.follow(world, self._traffic)
        routed = self._routed.get(port)
        ways = routed.for_clients_of(namespace) if routed is not None else None
        return (straight_to(port),) if ways is None else ways

    def _why_not(self, port: ServicePort, ways: tuple[Way, ...]) -> str:
        if self._traffic is not None and port in self._traffic.by_port:
            return f"{port} has a TrafficPolicy"
        return proxyless.why_not(ways)

    def _say(self, text: str) -> None:
        """Once."""
        if text not in self._said:
            self._said.add(text)
            log.warning("%s", text)


def _port(world: World, cluster: str) -> ServicePort | None:
    """Whose cluster this is."""
    service, _, digits = cluster.rpartition("|")[2].rpartition(":")
    port = ServicePort(service, int(digits)) if digits.isdigit() else None
    known = port is not None and service in world.services and cluster_of(port) == cluster
    return port if known else None
