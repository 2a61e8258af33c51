"""A pod's attachment: what it is called on the host, and what is set up inside its namespace."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

from sixfold.errors import HostError
from sixfold.host import netlink_route as rt
from sixfold.host import netns
from sixfold.host.netlink import Netlink
from sixfold.model.config import GATEWAY_IPV4, GATEWAY_IPV6, HOST_MAC
from sixfold.model.mesh import ORIGINAL_SOURCE_MARK

POD_DEVICE = "eth0"
DEFAULT_V4, DEFAULT_V6 = ip_network("0.0.0.0/0"), ip_network("::/0")
READY_TRIES, READY_WAIT_S = 1000, 0.001
NAME_MAX = 199  # an alias has 255 bytes, addresses and blanks take up to 56

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
    # For the proxy: answers to what it sends under a client's address go back to it, refusals too,
    # and ports of connections that it has closed are free again before they run out.
    "net/ipv4/tcp_fwmark_accept": "1",
    "net/ipv4/fwmark_reflect": "1",
    "net/ipv6/fwmark_reflect": "1",
    "net/ipv4/tcp_tw_reuse": "1",
    # When one proxy takes over from another, so do its listeners from those that close: also what
    # has arrived there and was not accepted yet.
    "net/ipv4/tcp_migrate_req": "1",
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

    @property
    def alias(self) -> str:
        """What ``ip link`` shows, and what a successor of the agent reads."""
        return " ".join((self.name, *map(str, self.addresses)))


def parse_alias(alias: str) -> tuple[str, IPv4Address | None, IPv6Address | None]:
    """Owner and addresses; of anybody else's alias, whatever is in it."""
    owner, *rest = alias.split(" ")
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None
    for text in rest:
        with suppress(ValueError):
            address = ip_address(text)
            if isinstance(address, IPv4Address):
                ipv4 = address
            else:
                ipv6 = address
    return owner, ipv4, ipv6


def check_alias(name: str) -> None:
    """Refuse a name that the link's alias has no room for."""
    if len(name) > NAME_MAX:
        raise HostError(
            f"pod {name}: name of {len(name)} bytes, its link has room for {NAME_MAX}; "
            "shorten the pod's name"
        )


def open_inside() -> tuple[Netlink, int]:
    """Runs in a new namespace: its settings, a socket that stays in it, its cookie."""
    for key, value in POD_SYSCTLS.items():
        with suppress(FileNotFoundError):  # a kernel without IPv6
            Path("/proc/sys", key).write_text(value)
    return Netlink(), netns.cookie()


def configure_inside(netlink: Netlink, attachment: Attachment) -> None:
    """Addresses, and everything else behind the gateways; ``netlink`` is the pod's.

    What the proxy sends under a client's address stays inside, and so do the answers.
    """
    loopback, eth0 = index_of(netlink, "lo"), index_of(netlink, POD_DEVICE)
    requests = [rt.link_up(loopback), rt.link_up(eth0)]
    requests += [rt.address_add(eth0, address) for address in attachment.addresses]
    if attachment.ipv4:
        requests += [
            rt.neighbour_replace(eth0, GATEWAY_IPV4, HOST_MAC),
            rt.route_replace(DEFAULT_V4, ifindex=eth0, gateway=GATEWAY_IPV4),
            rt.local_route(DEFAULT_V4, loopback),
            rt.mark_rule(DEFAULT_V4, ORIGINAL_SOURCE_MARK),
        ]
    if attachment.ipv6:
        requests += [
            rt.neighbour_replace(eth0, GATEWAY_IPV6, HOST_MAC),
            rt.route_replace(DEFAULT_V6, ifindex=eth0, gateway=GATEWAY_IPV6),
            rt.local_route(DEFAULT_V6, loopback),
            rt.mark_rule(DEFAULT_V6, ORIGINAL_SOURCE_MARK),
        ]
    netlink.batch(requests)


def await_ready(netlink: Netlink, attachment: Attachment) -> None:
    """Until the pod sends and receives: of both the kernel leaves a part to a work queue, and a
    packet before that would be lost, and a second with it."""
    for _ in range(READY_TRIES):
        link = rt.get_link(netlink, name=POD_DEVICE)
        local = attachment.ipv6 is None or rt.is_local(netlink, attachment.ipv6)
        if link and link.running and local:
            return
        time.sleep(READY_WAIT_S)
    raise HostError(f"pod {attachment.name}: {POD_DEVICE}: no carrier or address after activation")


def index_of(netlink: Netlink, device: str) -> int:
    """Index of a link that must be there."""
    link = rt.get_link(netlink, name=device)
    if link is None:
        raise HostError(f"link {device}: gone while it was being set up; try again")
    return link.index
