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

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

from sixfold.errors import HostError
from sixfold.host import netlink_route as rt
from sixfold.host import netns, uplinks
from sixfold.host.announce import Announcer
from sixfold.host.attachment import (
    POD_DEVICE,
    Attachment,
    await_ready,
    check_alias,
    configure_inside,
    index_of,
    open_inside,
    parse_alias,
)
from sixfold.host.netlink import Changes, Netlink, Request
from sixfold.host.node import DEVICES, MTU_DEFAULT, Node, enable_ipv6, pod_mtu
from sixfold.host.paths import NETNS_ROOT, Paths
from sixfold.model.config import HOST_MAC, POD_MAC, Config

__all__ = ["Attachment", "HostNetwork"]

POD_LINK_PREFIX = "sf"

Owned = tuple[Attachment, rt.Link]  # an attachment that was activated once, and its link now


class HostNetwork:
    """Effects on the network namespace that it was made in, wherever it is called from."""

    def __init__(self, config: Config, paths: Paths) -> None:
        self._config = config
        self._paths = paths
        self._netlink = Netlink()
        self.broken: frozenset[str] = frozenset()  # pods that lost their link, as of repair()
        self.uplinks: dict[str, rt.Link] = {}  # by name, as of setup() or repair()
        self._node = Node(config, paths, self._netlink)
        self._announcer = Announcer(paths.run / "multicast.json")
        self._mtu = config.mtu or MTU_DEFAULT  # of the next pod
        self._cookie = netns.cookie()
        self._changes = Changes(rt.CHANGES)
        self._address_changes = Changes(rt.ADDRESS_CHANGES)
        self._burial = Netlink()
        self._undertaker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="links")
        self._buried: Future[None] = self._undertaker.submit(lambda: None)
        self._pending: dict[int, tuple[Attachment, Netlink]] = {}  # attached, not active
        self._unfinished: set[str] = set()  # pods from the begin of attach to the end of activate

    def close(self) -> None:
        """Let go of sockets; what is in the kernel stays."""
        for _, pod_netlink in self._pending.values():
            pod_netlink.close()
        self._pending.clear()
        self._undertaker.shutdown()
        self._node.close()
        self._burial.close()
        self._changes.close()
        self._address_changes.close()
        self._netlink.close()

    def setup(self) -> list[str]:
        """Make the host's side, complete what is damaged, remove what was cut short.

        Idempotent; returns what was not as it should be, for the log.
        """
        self._netlink.batch([rt.link_delete_group(rt.DYING_GROUP)])
        links, routes = rt.dump_links(self._netlink), rt.dump_routes(self._netlink)
        owned = list(self._owned(links))
        self._look(links, routes)
        done = self._node.setup(links, routes)
        return done + self._sweep(links, owned) + self._repair_pods(owned, routes)

    def repair(self) -> list[str]:
        """Restore what someone else broke; returns what, for the log. Costs next to nothing
        unless something of the network has changed since the last time."""
        if not self._changes.any():
            return self._node.repair_settings()
        links, routes = rt.dump_links(self._netlink), rt.dump_routes(self._netlink)
        owned = list(self._owned(links))
        self._look(links, routes)
        self.broken = self._without_link(owned)
        return self._node.setup(links, routes) + self._repair_pods(owned, routes)

    def teardown(self) -> None:
        """Remove everything of this instance, and give back the host's settings."""
        self._buried.exception()  # waits
        for path in self._namespaces():
            netns.delete(path)
        if self._node.owner() not in (None, self._config.instance):
            return  # links, routes and settings are those of another instance
        groups = (rt.GROUP, rt.DYING_GROUP)
        self._netlink.batch([rt.link_delete_group(group) for group in groups])
        self._announcer.stop()
        self._node.teardown()

    def attach(self, name: str, ipv4: IPv4Address | None, ipv6: IPv6Address | None) -> Attachment:
        """Make a pod's namespace and link; host side down until ``activate``.

        What an earlier attempt left under the name is removed first. On failure nothing is left.
        """
        path = self._paths.netns(name)
        check_alias(name)
        device = self.device_of(name)
        if path.exists() or rt.get_link(self._netlink, name=device):
            self.detach(name)
            self._buried.result()  # the device's name is free only then
        self._unfinished.add(name)
        try:
            pod_netlink, cookie = netns.create(path, open_inside)
        except BaseException:
            self._unfinished.discard(name)
            raise
        try:
            ifindex = self._add_link(device, path)
            attachment = Attachment(name, ifindex, device, path, cookie, ipv4, ipv6)
            configure_inside(pod_netlink, attachment)
        except BaseException:
            pod_netlink.close()
            with suppress(HostError):
                self.detach(name)
            raise
        self._pending[ifindex] = attachment, pod_netlink
        return attachment

    def activate(self, ifindex: int) -> None:
        """Bring the host side up, with its routes; from here on packets flow."""
        if ifindex not in self._pending:
            raise HostError(f"link {ifindex}: not attached, or detached since; attach it again")
        attachment, pod_netlink = self._pending[ifindex]
        self._netlink.batch(self._host_side(attachment))
        await_ready(pod_netlink, attachment)
        del self._pending[ifindex]
        self._unfinished.discard(attachment.name)
        pod_netlink.close()

    def detach(self, name: str) -> None:
        """Remove link, routes and namespace; absent is fine."""
        link = rt.get_link(self._netlink, name=self.device_of(name))
        if link and link.group != rt.DYING_GROUP:
            _, pod_netlink = self._pending.pop(link.index, (None, None))
            if pod_netlink:
                pod_netlink.close()
            self._give_up([link])
        netns.delete(self._paths.netns(name))
        self._unfinished.discard(name)

    def observe(self) -> dict[str, Attachment]:
        """Whole attachments that exist, by pod; also those that another agent made."""
        found = [
            attachment
            for attachment, link in self._owned(rt.dump_links(self._netlink))
            if link.up and netns.exists(attachment.netns)
        ]
        cookies = netns.cookies([attachment.netns for attachment in found])
        return {it.name: replace(it, cookie=cookies[it.netns]) for it in found}

    def host_addresses(self) -> list[IPv4Address | IPv6Address]:
        """Every address of this host, ours and loopback included; and those of broadcast, which
        are the host's to take, too."""
        found = []
        for _, address, length in rt.dump_addresses(self._netlink):
            found.append(address)
            if address.version == 4 and length < 31:
                found.append(ip_network((address, length), strict=False).broadcast_address)
        return found

    def on_address(self, hear: Callable[[], None]) -> None:
        """Call back when an address comes or goes; from the loop that is running."""

        def drain() -> None:
            if self._address_changes.any():
                hear()

        asyncio.get_running_loop().add_reader(self._address_changes, drain)

    def announce(self, addresses: Iterable[IPv4Address | IPv6Address]) -> None:
        """Have the neighbours on the uplinks know that these addresses are here."""
        self._announcer.announce(addresses, self.uplinks.values())

    def uplink_macs(self) -> dict[int, str]:
        """Ethernet addresses of uplinks, as of setup() or repair()."""
        links = self.uplinks.values()
        return {link.index: link.mac for link in links if link.ethernet and link.mac}

    def host_netns_cookie(self) -> int:
        """Cookie of the host's own namespace."""
        return self._cookie

    def routes(self) -> list[dict[str, str]]:
        """Routes of this instance in the words of ``ip route``, and the pod behind each."""
        owners = {link.index: item.name for item, link in self._owned(rt.dump_links(self._netlink))}
        return self._node.routes(owners)

    def device_of(self, name: str) -> str:
        """Name of the host side: short enough for the kernel, the same after a restart."""
        digest = hashlib.sha256(f"{self._paths.instance}.{name}".encode()).hexdigest()
        return POD_LINK_PREFIX + digest[:10]

    def _look(self, links: Sequence[rt.Link], routes: Sequence[rt.Route]) -> None:
        """Learn what the host is like."""
        self._mtu = pod_mtu(self._config, links, routes)
        addresses = rt.dump_addresses(self._netlink)
        self.uplinks = uplinks.find(links, addresses, routes, self._config.devices)

    def _sweep(self, links: Sequence[rt.Link], owned: Sequence[Owned]) -> list[str]:
        """Remove attachments that were cut short: no alias, or no namespace."""
        whole = {
            attachment.name: attachment.device
            for attachment, _ in owned
            if netns.exists(attachment.netns)
        }
        devices = DEVICES.union(whole.values())
        strays = [
            link
            for link in links
            if link.group == rt.GROUP and link.name not in devices
            if link.index not in self._pending
        ]
        self._give_up(strays)
        done = [f"half-made link {link.name} removed" for link in strays]
        for path in self._namespaces():
            if self._paths.netns_owner(path) not in whole:
                netns.delete(path)
                done.append(f"half-made namespace {path.name} removed")
        return done

    def _repair_pods(self, owned: Sequence[Owned], routes: Sequence[rt.Route]) -> list[str]:
        """Host side of every whole attachment: link up, routes, neighbours."""
        routed = {(route.ifindex, route.destination, route.source) for route in routes}
        neighbours = {
            (ifindex, address)
            for ifindex, address, mac, state in rt.dump_neighbours(self._netlink)
            if mac == POD_MAC and state == rt.NUD_PERMANENT
        }
        done = []
        for attachment, link in owned:
            wanted = {
                (link.index, ip_network(address), self._source(address))
                for address in attachment.addresses
            }
            known = {(link.index, address) for address in attachment.addresses}
            if link.up and wanted <= routed and known <= neighbours:
                continue
            self._netlink.batch(self._host_side(attachment))
            done.append(f"host side of pod {attachment.name} ({link.name}) restored")
        return done

    def _without_link(self, owned: Sequence[Owned]) -> frozenset[str]:
        """Pods whose link somebody deleted: their processes run on, cut off from everything."""
        names = {self._paths.netns_owner(path) for path in self._namespaces()}
        linked = {attachment.name for attachment, _ in owned}
        return frozenset(name for name in names if name) - linked - self._unfinished

    def _owned(self, links: Sequence[rt.Link]) -> Iterator[Owned]:
        """Attachments that were activated once, by link; up or not. Cookies are not read."""
        for link in links:
            if link.group != rt.GROUP or not link.alias:
                continue
            name, ipv4, ipv6 = parse_alias(link.alias)
            if link.name == self.device_of(name):
                path = self._paths.netns(name)
                yield Attachment(name, link.index, link.name, path, 0, ipv4, ipv6), link

    def _give_up(self, links: Sequence[rt.Link]) -> None:
        """Take links out of use now, and delete them in the background: it takes the kernel
        tens of milliseconds, however many they are."""
        if not links:
            return
        requests = []
        for link in links:
            _, *addresses = parse_alias(link.alias)
            requests += [
                rt.route_delete(ip_network(address), link.index) for address in addresses if address
            ]
            requests.append(rt.link_give_up(link))
        self._netlink.batch(requests)
        self._buried = self._undertaker.submit(
            self._burial.batch, [rt.link_delete_group(rt.DYING_GROUP)]
        )

    def _namespaces(self) -> list[Path]:
        return sorted(NETNS_ROOT.glob(f"{self._paths.netns_prefix}*"))

    def _add_link(self, device: str, path: Path) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._netlink.batch(
                [
                    rt.veth_add(
                        device, HOST_MAC, POD_DEVICE, POD_MAC,
                        mtu=self._mtu, peer_netns=descriptor,
                    )
                ]
            )  # fmt: skip
        finally:
            os.close(descriptor)
        enable_ipv6(device)
        return index_of(self._netlink, device)

    def _host_side(self, attachment: Attachment) -> list[Request]:
        """Everything on the host that makes an attachment whole; the alias comes last."""
        alias = attachment.alias
        requests = [rt.link_up(attachment.ifindex)]
        for address in attachment.addresses:
            source = self._source(address)
            requests += [
                rt.route_replace(ip_network(address), ifindex=attachment.ifindex, source=source),
                rt.neighbour_replace(attachment.ifindex, address, POD_MAC),
            ]
        return [*requests, rt.link_up(attachment.ifindex, alias=alias)]

    def _source(self, address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
        """The host's own address towards pods: they know it as the host."""
        return self._config.host_ipv4 if address.version == 4 else self._config.host_ipv6
