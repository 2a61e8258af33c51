"""The node's own side of the network: settings, the device with its addresses, pools, the way out.

The pods know the node by the first address of their pool and the resolver by a link-local
one; both are on a veth pair that has both ends here. A pool's routes are ``unreachable``
but for the pods' own, so that a packet to nobody fails at once and never leaves the host.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import combinations

from sixfold.errors import HostError
from sixfold.host import netlink_route as rt
from sixfold.host import sysctl
from sixfold.host.nat import Masquerade
from sixfold.host.netlink import Netlink
from sixfold.host.paths import Paths
from sixfold.host.sysctl import Sysctls
from sixfold.model.config import (
    GATEWAY_IPV4,
    GATEWAY_IPV6,
    HOST_MAC,
    POD_MAC,
    RESOLVER_IPV4,
    RESOLVER_IPV6,
    Config,
)

HOST_DEVICE, HOST_PEER = "sixfold0", "sixfold1"
DEVICES = frozenset((HOST_DEVICE, HOST_PEER))
READY_TRIES, READY_WAIT_S = 1000, 0.001
FORWARDING = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
MTU_DEFAULT, MTU_MIN, MTU_MAX = 1500, 1280, 65535  # IPv6 needs 1280
SCOPES = {rt.SCOPE_UNIVERSE: "global", rt.SCOPE_LINK: "link", rt.SCOPE_HOST: "host"}


class Node:
    """Effects on the namespace of the given socket, which is the calling thread's, too."""

    def __init__(self, config: Config, paths: Paths, netlink: Netlink) -> None:
        self._config = config
        self._netlink = netlink
        self._masquerade = Masquerade(config)
        self._sysctls = Sysctls(paths.run / "sysctl.json")
        self._uplinks_record = paths.run / "uplinks.json"

    def close(self) -> None:
        self._masquerade.close()

    def setup(self, links: Sequence[rt.Link], routes: Sequence[rt.Route]) -> list[str]:
        """Idempotent; returns what was not as it should be. Links and routes as of now."""
        if (owner := self.owner()) not in (None, self._config.instance):
            raise HostError(
                f"network namespace: instance {owner} runs in it; end it (sixfold down --instance "
                f"{owner}), or start this one in a namespace of its own"
            )
        for problem in unusable(self._pools) + overlaps(links, routes, self._pools):
            raise HostError(problem)
        # The guard between uplinks stands before forwarding is switched on.
        done = self.repair_settings(self._uplinks(links))
        changed = self._sysctls.set(_advertisements(links))
        done += [f"sysctl {key}" for key in changed]
        done += self._setup_device(pod_mtu(self._config, links, routes))
        return done + self._route_pools(routes)

    def owner(self) -> str | None:
        """The instance that this namespace is the host of; None when there is none."""
        link = rt.get_link(self._netlink, name=HOST_DEVICE)
        return link.alias if link and link.alias else None

    def repair_settings(self, uplinks: Sequence[str] | None = None) -> list[str]:
        """Filters and forwarding: of these the kernel announces no change."""
        done = self._masquerade.setup(self._uplinks([]) if uplinks is None else uplinks)
        changed = self._sysctls.set(dict.fromkeys(FORWARDING, "1"))
        return done + [f"sysctl {key}" for key in changed]

    def teardown(self) -> None:
        """Routes, settings and filters; the device goes with its group."""
        routes = rt.dump_routes(self._netlink, protocol=rt.PROTOCOL)
        self._netlink.batch(
            [
                rt.route_delete(it.destination, it.ifindex if it.kind == "unicast" else 0)
                for it in routes
            ]
        )
        self._sysctls.restore()
        self._masquerade.remove()
        self._uplinks_record.unlink(missing_ok=True)

    def routes(self, owners: Mapping[int, str]) -> list[dict[str, str]]:
        """Our routes in the words of ``ip route``; ``owners``: pod by ifindex."""
        names = {link.index: link.name for link in rt.dump_links(self._netlink)}
        return [
            {
                "type": route.kind,
                "dst": str(route.destination),
                "dev": names.get(route.ifindex, "") if route.kind == "unicast" else "",
                "via": str(route.gateway or ""),
                "src": str(route.source or ""),
                "scope": SCOPES.get(route.scope, str(route.scope)),
                "proto": str(route.protocol),
                "pod": owners.get(route.ifindex, ""),
            }
            for route in rt.dump_routes(self._netlink, protocol=rt.PROTOCOL)
        ]

    @property
    def _pools(self) -> tuple[IPv4Network | IPv6Network, ...]:
        config = self._config
        return config.pod_ipv4, config.service_ipv4, config.pod_ipv6, config.service_ipv6

    def _uplinks(self, links: Sequence[rt.Link]) -> list[str]:
        """Devices that were here before us, if the host did not forward then; else none."""
        if self._uplinks_record.exists():
            return [str(name) for name in json.loads(self._uplinks_record.read_text())]
        uplinks: list[str] = []
        if any(sysctl.read(key) == "0" for key in FORWARDING):
            uplinks = sorted(it.name for it in links if it.group != rt.GROUP and it.name != "lo")
        self._uplinks_record.parent.mkdir(parents=True, exist_ok=True)
        draft = self._uplinks_record.with_suffix(".new")
        draft.write_text(json.dumps(uplinks))
        draft.replace(self._uplinks_record)
        return uplinks

    def _setup_device(self, mtu: int) -> list[str]:
        """A veth pair, because a dummy device is a module that not every kernel has."""
        done = []
        if not rt.get_link(self._netlink, name=HOST_DEVICE):
            self._netlink.batch([rt.veth_add(HOST_DEVICE, HOST_MAC, HOST_PEER, POD_MAC, mtu=mtu)])
            done.append(f"link {HOST_DEVICE}")
        host, peer = self._device(HOST_DEVICE), self._device(HOST_PEER)
        enable_ipv6(HOST_DEVICE)
        there = {address for index, address, _ in rt.dump_addresses(self._netlink) if index == host}
        config = self._config
        wanted = (config.host_ipv4, config.host_ipv6, RESOLVER_IPV4, RESOLVER_IPV6)
        missing = [address for address in wanted if address not in there]
        self._netlink.batch(
            [
                rt.link_up(peer, noarp=True),
                rt.link_up(host, noarp=True, alias=config.instance),
                *(rt.address_add(host, address) for address in missing),
            ]
        )
        self._await_local(missing)
        return done + [f"address {address}" for address in missing]

    def _await_local(self, addresses: Sequence[IPv4Address | IPv6Address]) -> None:
        """So that the resolver can bind them at once."""
        for _ in range(READY_TRIES):
            if all(rt.is_local(self._netlink, address) for address in addresses):
                return
            time.sleep(READY_WAIT_S)
        raise HostError(f"addresses of {HOST_DEVICE}: not usable after {READY_TRIES} ms")

    def _device(self, name: str) -> int:
        link = rt.get_link(self._netlink, name=name)
        if link is None:
            raise HostError(f"link {name}: gone while it was being set up; try again")
        return link.index

    def _route_pools(self, routes: Sequence[rt.Route]) -> list[str]:
        there = {
            route.destination
            for route in routes
            if route.kind == "unreachable" and route.protocol == rt.PROTOCOL
        }
        missing = [pool for pool in self._pools if pool not in there]
        self._netlink.batch([rt.route_replace(pool) for pool in missing])
        return [f"route unreachable {pool}" for pool in missing]


def ways_out(links: Iterable[rt.Link], routes: Iterable[rt.Route]) -> set[rt.Link]:
    """Links with a default route."""
    by_index = {link.index: link for link in links}
    ways = {route.ifindex for route in routes if route.destination.prefixlen == 0}
    return {by_index[index] for index in ways if index in by_index}


def pod_mtu(config: Config, links: Iterable[rt.Link], routes: Iterable[rt.Route]) -> int:
    """As configured, else what every way out takes whole."""
    if config.mtu:
        return config.mtu
    smallest = min((link.mtu for link in ways_out(links, routes)), default=MTU_DEFAULT)
    return min(max(smallest, MTU_MIN), MTU_MAX)


def enable_ipv6(device: str) -> None:
    """On this device of ours, where the host has switched it off by default."""
    key = f"net/ipv6/conf/{device}/disable_ipv6"
    with suppress(FileNotFoundError):
        if sysctl.read(key) == "1":
            (sysctl.ROOT / key).write_text("0")


def _advertisements(links: Sequence[rt.Link]) -> dict[str, str]:
    """Router advertisements are still taken where they were taken before: the kernel stops
    listening to them on a host that forwards, unless told 2."""
    values = {}
    for link in links:
        if link.group == 0 and link.name != "lo":
            key = f"net/ipv6/conf/{link.name}/accept_ra"
            with suppress(OSError):
                if sysctl.read(key) == "1":
                    values[key] = "2"
    return values


def unusable(pools: Sequence[IPv4Network | IPv6Network]) -> list[str]:
    """What is wrong with the pools themselves."""
    found = [
        f"pool {pool}: too small: network, host and broadcast take three addresses; give a /29"
        for pool in pools
        if pool.num_addresses < 8
    ]
    found += [
        f"pool {one}: overlaps pool {other}; give pools that do not (sixfold up --pod-cidr, "
        "--service-cidr)"
        for one, other in combinations(pools, 2)
        if one.version == other.version and one.overlaps(other)
    ]
    return found + [
        f"pool {pool}: holds {address}, which is reserved; give another pool"
        for pool in pools
        for address in (RESOLVER_IPV4, RESOLVER_IPV6, GATEWAY_IPV4, GATEWAY_IPV6)
        if pool.version == address.version and address in pool
    ]


def overlaps(
    links: Sequence[rt.Link],
    routes: Sequence[rt.Route],
    pools: Sequence[IPv4Network | IPv6Network],
) -> list[str]:
    """Pools over networks that this host already reaches: they would cut it off from them."""
    by_index = {link.index: link for link in links}
    found = []
    for route in routes:
        link = by_index.get(route.ifindex)
        ours = route.protocol == rt.PROTOCOL or (link and link.group == rt.GROUP)
        if ours or route.destination.prefixlen == 0:
            continue
        device = link.name if link else route.kind
        found += [
            f"pool {pool}: overlaps route {route.destination} dev {device} of this host; "
            "give other pools (sixfold up --pod-cidr, --service-cidr)"
            for pool in pools
            if pool.version == route.destination.version and pool.overlaps(route.destination)
        ]
    return found
