"""The host's network: a routed veth for every pod, and the device that the pods know as host.

Theory of operation. A pod has one interface, ``eth0``, with a /32 and a /128 and everything
else behind the gateways 169.254.1.1 and fe80::1, which no interface owns: permanent
neighbours on both sides say who is there, so no ARP is needed, and the datapath answers what
is asked nevertheless. The host has a /32 and /128 route to every pod, and routes the rest of
the pools to ``unreachable``: a packet to an address that nobody has never leaves the host.

``attach`` leaves the host side down; the datapath's programs are put on it; ``activate``
brings it up, adds the routes and then writes the owner and addresses into the link's alias.
So a link with an alias is a whole attachment, and one without was cut short: that is how a
successor of the agent tells them apart. The kernel is the only record.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from pathlib import Path

from sixfold.errors import HostError
from sixfold.host import netlink_route as rt
from sixfold.host import netns, sysctl
from sixfold.host.netlink import Netlink, Request
from sixfold.host.paths import NETNS_ROOT, Paths
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
POD_DEVICE = "eth0"
POD_LINK_PREFIX = "sf"
CARRIER_TRIES, CARRIER_WAIT_S = 100, 0.001
DEFAULT_V4, DEFAULT_V6 = ip_network("0.0.0.0/0"), ip_network("::/0")

# In every pod: addresses are given, not discovered; so nothing is asked and nothing believed.
POD_SYSCTLS = {
    "net/ipv6/conf/all/accept_ra": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/addr_gen_mode": "1",
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv6/conf/default/accept_redirects": "0",
    "net/ipv4/ping_group_range": "0 2147483647",
}


@dataclass(frozen=True, slots=True)
class Attachment:
    """A pod's network as it stands in the kernel."""

    name: str  # "namespace/pod"
    ifindex: int  # of the host side
    device: str
    netns: Path
    cookie: int  # of the namespace, as BPF programs see it
    ipv4: IPv4Address | None
    ipv6: IPv6Address | None

    @property
    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        return tuple(address for address in (self.ipv4, self.ipv6) if address is not None)


class HostNetwork:
    """Effects on the network namespace that it was made in, wherever it is called from."""

    def __init__(self, config: Config, paths: Paths) -> None:
        self._config = config
        self._paths = paths
        self._netlink = Netlink()
        self._sysctls = Sysctls(paths.run / "sysctl.json")
        self._pending: dict[int, tuple[Attachment, Netlink]] = {}  # attached, not active

    def close(self) -> None:
        """Let go of sockets; what is in the kernel stays."""
        for _, pod_netlink in self._pending.values():
            pod_netlink.close()
        self._pending.clear()
        self._netlink.close()

    def setup(self) -> list[str]:
        """Make the host's side: forwarding, device, pools; remove what was cut short.

        Idempotent; returns what was not as it should be, for the log.
        """
        self._refuse_overlaps()
        done = [f"sysctl {key}" for key in self._sysctls.set(self._forwarding())]
        done += self._setup_device()
        done += self._route_pools()
        return done + self._sweep()

    def teardown(self) -> None:
        """Remove everything of this instance, and give back the settings."""
        for path in self._namespaces():
            netns.delete(path)
        self._netlink.batch([rt.link_delete_group()])
        routes = rt.dump_routes(self._netlink, protocol=rt.PROTOCOL)
        self._netlink.batch([rt.route_delete(route) for route in routes])
        self._sysctls.restore()

    def attach(self, name: str, ipv4: IPv4Address | None, ipv6: IPv6Address | None) -> Attachment:
        """Make a pod's namespace and link; host side down until ``activate``.

        What an earlier attempt left under the name is removed first. On failure nothing is left.
        """
        path = self._paths.netns(name)
        device = self.device_of(name)
        if path.exists() or rt.get_link(self._netlink, name=device):
            self.detach(name)
        pod_netlink, cookie = netns.create(path, _open_inside)
        try:
            ifindex = self._add_link(device, path)
            attachment = Attachment(name, ifindex, device, path, cookie, ipv4, ipv6)
            self._configure_pod(pod_netlink, attachment)
        except BaseException:
            pod_netlink.close()
            with suppress(HostError):
                self.detach(name)
            raise
        self._pending[ifindex] = attachment, pod_netlink
        return attachment

    def activate(self, ifindex: int) -> None:
        """Bring the host side up, with its routes; from here on packets flow."""
        attachment, pod_netlink = self._pending[ifindex]
        self._netlink.batch(self._host_side(attachment))
        _await_carrier(pod_netlink, attachment)
        del self._pending[ifindex]
        pod_netlink.close()

    def detach(self, name: str) -> None:
        """Remove link, routes and namespace; absent is fine."""
        device = self.device_of(name)
        link = rt.get_link(self._netlink, name=device)
        if link:
            _, pod_netlink = self._pending.pop(link.index, (None, None))
            if pod_netlink:
                pod_netlink.close()
            self._netlink.batch([rt.link_delete(link.index, name=device)])
        netns.delete(self._paths.netns(name))

    def observe(self) -> dict[str, Attachment]:
        """Whole attachments that exist, by pod; also those that another agent made."""
        links = {link.name: link for link in rt.dump_links(self._netlink)}
        found = {}
        for path in self._namespaces():
            name = self._paths.netns_owner(path)
            link = links.get(self.device_of(name)) if name else None
            if not name or not link or not link.up or not netns.exists(path):
                continue
            owner, addresses = _parse_alias(link.alias)
            if owner == name:
                cookie = netns.run_inside(path, netns.cookie)
                found[name] = Attachment(name, link.index, link.name, path, cookie, *addresses)
        return found

    def device_of(self, name: str) -> str:
        """Name of the host side: short enough for the kernel, the same after a restart."""
        digest = hashlib.sha256(f"{self._paths.instance}.{name}".encode()).hexdigest()
        return POD_LINK_PREFIX + digest[:10]

    @property
    def _pools(self) -> tuple[IPv4Network | IPv6Network, ...]:
        config = self._config
        return config.pod_ipv4, config.service_ipv4, config.pod_ipv6, config.service_ipv6

    def _refuse_overlaps(self) -> None:
        """A pool over a network that the host already reaches would cut the host off from it."""
        links = {link.index: link for link in rt.dump_links(self._netlink)}
        for route in rt.dump_routes(self._netlink):
            link = links.get(route.ifindex)
            ours = route.protocol == rt.PROTOCOL or (link and link.group == rt.GROUP)
            if ours or route.destination.prefixlen == 0:
                continue
            for pool in self._pools:
                if pool.version == route.destination.version and pool.overlaps(route.destination):
                    device = link.name if link else str(route.ifindex)
                    raise HostError(
                        f"pool {pool}: overlaps route {route.destination} dev {device} of this "
                        "host; give other pools (sixfold up --pod-cidr, --service-cidr)"
                    )

    def _forwarding(self) -> dict[str, str]:
        """Forwarding, and router advertisements still taken where they were taken before:
        the kernel stops listening to them on a host that forwards, unless told 2."""
        values = {}
        for link in rt.dump_links(self._netlink):
            key = f"net/ipv6/conf/{link.name}/accept_ra"
            with suppress(OSError):
                if link.name not in ("lo", HOST_DEVICE, HOST_PEER) and sysctl.read(key) == "1":
                    values[key] = "2"
        return values | {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}

    def _setup_device(self) -> list[str]:
        """A veth pair that holds the node's and the resolver's addresses: always up, and no
        module needed (a dummy device is one)."""
        done = []
        if not rt.get_link(self._netlink, name=HOST_DEVICE):
            pair = rt.veth_add(HOST_DEVICE, HOST_MAC, HOST_PEER, POD_MAC, mtu=self._config.mtu)
            self._netlink.batch([pair])
            done.append(f"link {HOST_DEVICE}")
        host, peer = (_index_of(self._netlink, name) for name in (HOST_DEVICE, HOST_PEER))
        there = {address for index, address, _ in rt.dump_addresses(self._netlink) if index == host}
        config = self._config
        wanted = (config.host_ipv4, config.host_ipv6, RESOLVER_IPV4, RESOLVER_IPV6)
        missing = [address for address in wanted if address not in there]
        self._netlink.batch(
            [
                *(rt.link_up(index, noarp=True) for index in (peer, host)),
                *(rt.address_add(host, address) for address in missing),
            ]
        )
        return done + [f"address {address}" for address in missing]

    def _route_pools(self) -> list[str]:
        """The pools lead nowhere, unless a pod's own route leads somewhere."""
        routes = rt.dump_routes(self._netlink, protocol=rt.PROTOCOL)
        there = {route.destination for route in routes if route.kind == "unreachable"}
        missing = [pool for pool in self._pools if pool not in there]
        self._netlink.batch([rt.route_replace(pool) for pool in missing])
        return [f"route unreachable {pool}" for pool in missing]

    def _sweep(self) -> list[str]:
        """Remove attachments that were cut short: neither link nor namespace is whole."""
        whole = self.observe()
        devices = {attachment.device for attachment in whole.values()}
        own = {HOST_DEVICE, HOST_PEER}
        strays = [
            link
            for link in rt.dump_links(self._netlink)
            if link.group == rt.GROUP and link.name not in devices | own
            if link.index not in self._pending
        ]
        self._netlink.batch([rt.link_delete(link.index, name=link.name) for link in strays])
        pending = {attachment.netns for attachment, _ in self._pending.values()}
        done = [f"half-made link {link.name} removed" for link in strays]
        for path in self._namespaces():
            if self._paths.netns_owner(path) not in whole and path not in pending:
                netns.delete(path)
                done.append(f"half-made namespace {path.name} removed")
        return done

    def _namespaces(self) -> list[Path]:
        return sorted(NETNS_ROOT.glob(f"{self._paths.netns_prefix}*"))

    def _add_link(self, device: str, path: Path) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._netlink.batch(
                [
                    rt.veth_add(
                        device, HOST_MAC, POD_DEVICE, POD_MAC,
                        mtu=self._config.mtu, peer_netns=descriptor,
                    )
                ]
            )  # fmt: skip
        finally:
            os.close(descriptor)
        return _index_of(self._netlink, device)

    def _configure_pod(self, pod_netlink: Netlink, attachment: Attachment) -> None:
        loopback, eth0 = _index_of(pod_netlink, "lo"), _index_of(pod_netlink, POD_DEVICE)
        requests = [rt.link_up(loopback), rt.link_up(eth0)]
        requests += [rt.address_add(eth0, address) for address in attachment.addresses]
        if attachment.ipv4:
            requests += [
                rt.neighbour_replace(eth0, GATEWAY_IPV4, HOST_MAC),
                rt.route_replace(DEFAULT_V4, ifindex=eth0, gateway=GATEWAY_IPV4),
            ]
        if attachment.ipv6:
            requests += [
                rt.neighbour_replace(eth0, GATEWAY_IPV6, HOST_MAC),
                rt.route_replace(DEFAULT_V6, ifindex=eth0, gateway=GATEWAY_IPV6),
            ]
        pod_netlink.batch(requests)

    def _host_side(self, attachment: Attachment) -> list[Request]:
        """Everything on the host that makes an attachment whole; the alias comes last."""
        alias = _alias(attachment)
        requests = [rt.link_up(attachment.ifindex)]
        for address in attachment.addresses:
            source = self._config.host_ipv4 if address.version == 4 else self._config.host_ipv6
            requests += [
                rt.route_replace(ip_network(address), ifindex=attachment.ifindex, source=source),
                rt.neighbour_replace(attachment.ifindex, address, POD_MAC),
            ]
        return [*requests, rt.link_up(attachment.ifindex, alias=alias)]


def _open_inside() -> tuple[Netlink, int]:
    """Runs in a new namespace: its settings, a socket that stays in it, its cookie."""
    for key, value in POD_SYSCTLS.items():
        with suppress(FileNotFoundError):  # a kernel without IPv6
            Path("/proc/sys", key).write_text(value)
    return Netlink(), netns.cookie()


def _index_of(netlink: Netlink, device: str) -> int:
    link = rt.get_link(netlink, name=device)
    if link is None:
        raise HostError(f"link {device}: gone while it was being set up; try again")
    return link.index


def _await_carrier(pod_netlink: Netlink, attachment: Attachment) -> None:
    """Until the pod may transmit: a packet sent earlier would vanish in the noop queue."""
    for _ in range(CARRIER_TRIES):
        link = rt.get_link(pod_netlink, name=POD_DEVICE)
        if link and link.running:
            return
        time.sleep(CARRIER_WAIT_S)
    raise HostError(f"pod {attachment.name}: {POD_DEVICE}: no carrier after activation")


def _alias(attachment: Attachment) -> str:
    return " ".join((attachment.name, *map(str, attachment.addresses)))


def _parse_alias(alias: str) -> tuple[str, tuple[IPv4Address | None, IPv6Address | None]]:
    owner, _, rest = alias.partition(" ")
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None
    for text in rest.split():
        with suppress(ValueError):
            address = ip_address(text)
            if isinstance(address, IPv4Address):
                ipv4 = address
            else:
                ipv6 = address
    return owner, (ipv4, ipv6)
