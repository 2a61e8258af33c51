"""What is written comes back by the dumps, and ``ip`` shows it as we mean it."""

import json
import os
import subprocess
import time
from ipaddress import ip_address, ip_network

import pytest

from sixfold.host import netlink_route as rt
from sixfold.host import netns
from sixfold.host.netlink import Netlink, NetlinkError

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="changing links needs root"),
]

MAC, PEER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
V4, V6 = ip_address("192.0.2.1"), ip_address("2001:db8::1")


def with_link(work):
    """Run in a new namespace with a veth pair a0, b0, both up."""

    def entered():
        netns.leave()
        with Netlink() as netlink:
            netlink.batch([rt.veth_add("a0", MAC, "b0", PEER_MAC, mtu=1400)])
            index, peer = (rt.get_link(netlink, name=name).index for name in ("a0", "b0"))
            netlink.batch([rt.link_up(index, alias="who owns it"), rt.link_up(peer)])
            return work(netlink, index)

    return netns.in_thread(entered)


def ip(*arguments):
    result = subprocess.run(["ip", "-j", *arguments], capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def test_link_has_alias_group_and_no_address_of_its_own_making():
    def work(netlink, index):
        return rt.get_link(netlink, ifindex=index), ip("address", "show", "dev", "a0")

    link, (shown,) = with_link(work)
    assert (link.alias, link.group, link.mac, link.mtu) == ("who owns it", rt.GROUP, MAC, 1400)
    assert shown["addr_info"] == []


def test_address_is_local_without_delay_for_detection():
    def work(netlink, index):
        netlink.batch([rt.address_add(index, V4), rt.address_add(index, V6)])
        netlink.batch([rt.address_add(index, V4), rt.address_add(index, V6)])  # again is fine
        return rt.dump_addresses(netlink), ip("address", "show", "tentative"), index

    addresses, tentative, index = with_link(work)
    assert addresses == [(index, V4, 32), (index, V6, 128)]
    assert not any(link.get("addr_info") for link in tentative)


def test_routes_come_back_as_written():
    networks = ip_network("198.51.100.0/24"), ip_network("2001:db8:1::/48")

    def work(netlink, index):
        netlink.batch([rt.address_add(index, V4), rt.address_add(index, V6)])
        deadline = time.monotonic() + 2
        while not rt.is_local(netlink, V6) and time.monotonic() < deadline:
            time.sleep(0.001)
        netlink.batch(
            [
                *(rt.route_replace(it, ifindex=index, source=(V4, V6)[it.version == 6])
                  for it in networks),
                rt.route_replace(ip_network("203.0.113.0/24")),
            ]
        )  # fmt: skip
        before = rt.dump_routes(netlink, protocol=rt.PROTOCOL)
        netlink.batch([*(rt.route_delete(it, index) for it in networks),
                       rt.route_delete(ip_network("203.0.113.0/24")),
                       rt.route_delete(ip_network("203.0.113.0/24"))])  # fmt: skip
        return before, rt.dump_routes(netlink, protocol=rt.PROTOCOL), index

    before, after, index = with_link(work)
    found = {(it.destination, it.kind, it.ifindex, it.source) for it in before}
    assert (networks[0], "unicast", index, V4) in found
    assert (networks[1], "unicast", index, V6) in found
    assert (ip_network("203.0.113.0/24"), "unreachable", 0, None) in found
    assert after == []


def test_neighbour_is_permanent():
    def work(netlink, index):
        netlink.batch([rt.neighbour_replace(index, address, PEER_MAC) for address in (V4, V6)])
        return rt.dump_neighbours(netlink), index

    neighbours, index = with_link(work)
    for address in (V4, V6):
        assert (index, address, PEER_MAC, rt.NUD_PERMANENT) in neighbours


def test_group_is_deleted_at_once_and_others_stay():
    def work(netlink, _):
        subprocess.run(["ip", "link", "add", "theirs", "type", "veth"], check=True)
        netlink.batch([rt.link_delete_group(rt.GROUP), rt.link_delete_group(rt.GROUP)])
        return {link.name for link in rt.dump_links(netlink)}

    assert with_link(work) == {"lo", "theirs", "veth0"}


def test_name_in_use_is_an_error():
    with pytest.raises(NetlinkError, match="link add a0 type veth: EEXIST"):
        with_link(
            lambda netlink, _: netlink.batch([rt.veth_add("a0", MAC, "c0", PEER_MAC, mtu=1400)])
        )
