"""Which way does a packet take from here to there?

Pure. The same facts as ``plan.py``: an endpoint's address is delivered to its interface by a
redirect, everything else is left to the host's own routes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sixfold.model.acceleration import ACCELERATION
from sixfold.model.datapath import IPAddress, IpcacheEntry, IPNetwork
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import WORLD, Identity
from sixfold.model.world import World


@dataclass(frozen=True, slots=True)
class RouteAnswer:
    """``reachable`` is False when nobody has the address."""

    reachable: bool
    text: str


def identity_at(ipcache: Mapping[IPNetwork, IpcacheEntry], address: IPAddress) -> Identity:
    """Whose address it is when it is no endpoint's: the longest prefix in the ipcache says."""
    covering = (network for network in ipcache if address in network)
    longest = max(covering, key=lambda network: network.prefixlen, default=None)
    return WORLD if longest is None else ipcache[longest].identity


def endpoint_at(world: World, address: IPAddress) -> Endpoint | None:
    """The pod that has this address."""
    return next(
        (one for one in world.endpoints.values() if address in (one.ipv4, one.ipv6)),
        None,
    )


def is_same_pod(source: Endpoint | None, destination: Endpoint | None) -> bool:
    """Whether a flow stays inside one pod, where nothing of ours sees it."""
    if source is None or destination is None or source.is_template:
        return False
    return source.key == destination.key


def explain_route(
    world: World,
    source: Endpoint | None,
    destination: Endpoint | None,
    address: IPAddress | None,
    identity: Identity = WORLD,
    protocol: str = "",
    *,
    proxied: bool = False,
) -> RouteAnswer:
    """The way from a pod (None: the host or outside) to a pod, or else to ``address``.

    identity  of the address, when it is no pod's
    protocol  of the flow: TCP may be accelerated
    proxied   its data goes by the mesh's proxy
    """
    if destination is not None:
        if is_same_pod(source, destination):
            return RouteAnswer(True, "to itself, inside its own namespace")
        here = _place(source, address) if source is not None else "the host's stack"
        how = "redirected to its interface" if source is not None else "by the host's route"
        fast = _acceleration(source, destination, proxied) if protocol == "TCP" else ""
        return RouteAnswer(True, f"{here} → {_place(destination, address)}, {how}{fast}")
    if address is None:
        return RouteAnswer(True, "by the host's routes; no address known here")
    if source is None:
        return RouteAnswer(True, f"{address} by the host's routes")
    here = _place(source, address)
    if identity != WORLD:
        return RouteAnswer(True, f"{here} → {address} on the node itself")
    config = world.config
    for pool in (config.pod_ipv4, config.pod_ipv6, config.service_ipv4, config.service_ipv6):
        if address in pool:
            return RouteAnswer(False, f"{address} is in our pool {pool}, and nobody has it")
    return RouteAnswer(
        True, f"{here} → {address} by the host's routes, masqueraded as the node's address"
    )


def _acceleration(source: Endpoint | None, destination: Endpoint, proxied: bool) -> str:
    """Whether data goes from socket to socket, once the connection is made."""
    if source is None or not (source.accelerated or destination.accelerated):
        return ""
    if proxied:
        return "; not accelerated: its data goes by the mesh's proxy"
    if source.accelerated and destination.accelerated:
        return "; accelerated: once open, data goes from socket to socket (sockmap)"
    silent = destination if source.accelerated else source
    return f"; not accelerated: {silent.key} does not ask for it ({ACCELERATION})"


def _place(endpoint: Endpoint, towards: IPAddress | None) -> str:
    """An endpoint's address of the right family, and where it is attached."""
    six = towards is not None and towards.version == 6
    address = endpoint.ipv6 if six else endpoint.ipv4 or endpoint.ipv6
    attached = f" (interface {endpoint.ifindex}, {endpoint.netns})" if endpoint.ifindex else ""
    return f"{address or endpoint.key}{attached}"
