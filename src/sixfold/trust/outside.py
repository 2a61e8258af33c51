"""A service as it is dialled from outside, or by a port of the node.

Pure. What the programs on the uplinks do (``bpf/uplink.bpf.c``), asked for one flow.
"""

from __future__ import annotations

from dataclasses import replace

from sixfold.balancing.ways import source_ranges, ways
from sixfold.model.datapath import FrontendFlag, IPAddress
from sixfold.model.identity import HOST
from sixfold.model.service import NODE_PORTS, Service
from sixfold.model.world import World
from sixfold.trust.question import Destination


def at_node_port(
    world: World, target: Destination, port: int, protocol: str
) -> tuple[Destination, int]:
    """What is meant by a port of the node: the service that has it, and the service's own port.

    Any other target, and 0.
    """
    places = target.places
    if port not in NODE_PORTS or not places or places[0].identity != HOST:
        return target, 0
    for _, service in sorted(world.services.items()):
        for it in service.spec.ports:
            if (it.node_port, it.protocol) == (port, protocol):
                address = places[0].address
                return replace(target, service=service, places=(), address=address), it.port
    return target, 0


def refused(service: Service, dialled: IPAddress | None, client: IPAddress | None) -> str:
    """Why a client outside may not dial one of a service's addresses; "" when it may."""
    way = next((it for it in ways(service) if it.address == dialled), None)
    if way is None or not way.flags:
        return "cluster addresses exist for the pods and the node of this host only"
    ranges = source_ranges(service) if way.flags & FrontendFlag.RANGES else ()
    if ranges and (client is None or not any(client in it for it in ranges)):
        return f"only {', '.join(map(str, ranges))} may dial it from outside"
    return ""
