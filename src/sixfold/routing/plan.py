"""Where does a packet go, and who is at that address?

Pure: the world in, the kernel's endpoint and ipcache tables out; no I/O, no clock. Delivery
itself is a lookup: an address of an endpoint is redirected to its interface, everything else
is left to the host's routes. The ipcache answers for addresses that are no endpoint's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network
from types import MappingProxyType

from sixfold.model.config import GATEWAY_IPV4, GATEWAY_IPV6, RESOLVER_IPV4, RESOLVER_IPV6, Config
from sixfold.model.datapath import EndpointEntry, IPAddress, IpcacheEntry, IPNetwork
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import HOST, RESOLVER, UNKNOWN, WORLD, Identity
from sixfold.model.world import World

EVERYWHERE: tuple[IPNetwork, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
NO_DOMAINS: Mapping[IPAddress, Identity] = MappingProxyType({})

single = lru_cache(maxsize=65_536)(ip_network)  # of one address


@dataclass(frozen=True, slots=True)
class RoutingPlan:
    """Desired content of two kernel tables.

    ipcache  covers every address: the longest prefix decides, and the last resort is WORLD
    """

    endpoints: dict[int, EndpointEntry]  # by ifindex of the host side
    ipcache: dict[IPNetwork, IpcacheEntry]


def plan_routing(
    world: World,
    cidr_of: Callable[[IPAddress], Identity],
    host_addresses: Iterable[IPAddress],
    cidrs: Mapping[IPNetwork, Identity],
    domains: Mapping[IPAddress, Identity] = NO_DOMAINS,
) -> RoutingPlan:
    """Plan delivery and identity of addresses.

    cidr_of         the local CIDR identity that covers an address, 0 if none
    host_addresses  every address of the node, loopback or not; ours are added
    cidrs           every CIDR that a policy names, with its local identity
    domains         addresses that domain names of policies have resolved to; one that is the
                    node's or the resolver's stays what it is
    """
    ipcache = plan_ipcache(world.config, cidr_of, host_addresses, cidrs, domains)
    return RoutingPlan(EndpointPlanner().plan(world, cidr_of, None), ipcache)


def plan_ipcache(
    config: Config,
    cidr_of: Callable[[IPAddress], Identity],
    host_addresses: Iterable[IPAddress],
    cidrs: Mapping[IPNetwork, Identity],
    domains: Mapping[IPAddress, Identity] = NO_DOMAINS,
) -> dict[IPNetwork, IpcacheEntry]:
    """Who is behind an address that is no endpoint's; arguments as above."""
    ipcache: dict[IPNetwork, IpcacheEntry] = {
        network: IpcacheEntry(WORLD) for network in EVERYWHERE
    }
    ipcache |= {network: IpcacheEntry(WORLD, identity) for network, identity in cidrs.items()}
    ipcache |= plan_domains(cidr_of, domains)
    ours = (config.host_ipv4, config.host_ipv6, GATEWAY_IPV4, GATEWAY_IPV6)
    for address in (*host_addresses, *ours):
        ipcache[ip_network(address)] = IpcacheEntry(HOST, cidr_of(address))
    # The resolver's addresses are on a device of the host too, so they come last.
    for address in (RESOLVER_IPV4, RESOLVER_IPV6):
        ipcache[ip_network(address)] = IpcacheEntry(RESOLVER, cidr_of(address))
    return ipcache


def plan_domains(
    cidr_of: Callable[[IPAddress], Identity], domains: Mapping[IPAddress, Identity]
) -> dict[IPNetwork, IpcacheEntry]:
    """Addresses of the world that domain names have resolved to."""
    return {
        single(address): IpcacheEntry(WORLD, cidr_of(address), identity)
        for address, identity in domains.items()
    }


class EndpointPlanner:
    """Delivery, by ifindex; an entry stays while its pod is the same object."""

    def __init__(self) -> None:
        self._cidrs: object = None
        self._known: dict[int, tuple[Endpoint, EndpointEntry]] = {}

    def plan(
        self, world: World, cidr_of: Callable[[IPAddress], Identity], cidrs: object
    ) -> dict[int, EndpointEntry]:
        """``cidrs`` is what ``cidr_of`` reads: the same object, the same answers."""
        pod_cidr_of = cidr_of if world.config.ipblock_matches_pods else _no_cidr
        known = self._known if cidrs is self._cidrs else {}
        planned = {}
        for endpoint in world.endpoints.values():
            if not endpoint.ifindex:
                continue
            found = known.get(endpoint.ifindex)
            if found is None or found[0] is not endpoint:
                found = endpoint, plan_endpoint(endpoint, pod_cidr_of)
            planned[endpoint.ifindex] = found
        self._cidrs, self._known = cidrs, planned
        return {ifindex: entry for ifindex, (_, entry) in planned.items()}


def _no_cidr(_: IPAddress) -> Identity:
    return UNKNOWN


def plan_endpoint(endpoint: Endpoint, cidr_of: Callable[[IPAddress], Identity]) -> EndpointEntry:
    """What the kernel needs to know of one attached pod: a fragment of the plan."""
    return EndpointEntry(
        ifindex=endpoint.ifindex,
        id=endpoint.id,
        identity=endpoint.identity,
        ipv4=endpoint.ipv4,
        ipv6=endpoint.ipv6,
        cidr4=cidr_of(endpoint.ipv4) if endpoint.ipv4 else UNKNOWN,
        cidr6=cidr_of(endpoint.ipv6) if endpoint.ipv6 else UNKNOWN,
        netns_cookie=endpoint.netns_cookie,
        accelerated=endpoint.accelerated,
    )
