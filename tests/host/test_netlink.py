import errno
import os
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.host import netlink_route as rt
from sixfold.host import netns
from sixfold.host.netlink import (
    Netlink,
    NetlinkError,
    attribute,
    attributes,
    nested,
)

root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="changing links needs root"),
]


def marked(function):
    for mark in root:
        function = mark(function)
    return function


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40), max_size=8))
def test_attributes_are_read_as_written(written):
    packed = b"".join(attribute(kind, value) for kind, value in written.items())
    assert len(packed) % 4 == 0
    assert attributes(packed) == written
    assert attributes(b"head" + packed, 4) == written


@given(st.binary(max_size=64))
def test_any_bytes_are_read_without_error(junk):
    for kind, value in attributes(junk).items():
        assert 0 <= kind <= 0x3FFF
        assert len(value) <= len(junk)


def test_nested_attributes_are_found_without_their_flag():
    assert attributes(attributes(nested(18, attribute(1, b"veth")))[18]) == {1: b"veth"}


def test_loopback_is_found_by_name_and_in_the_dump():
    with Netlink() as netlink:
        loopback = rt.get_link(netlink, name="lo")
        assert loopback.index == 1
        assert loopback in rt.dump_links(netlink)
        assert rt.get_link(netlink, name="no-such-link") is None


@marked
def test_refusal_names_the_request_the_errno_and_the_kernels_words():
    def work():
        netns.leave()
        with Netlink() as netlink:
            netlink.batch([rt.link_up(99)])

    with pytest.raises(NetlinkError, match="link set dev 99 up: ENODEV") as caught:
        netns.in_thread(work)
    assert caught.value.code == errno.ENODEV


@marked
def test_batch_goes_on_after_a_refusal_and_raises_the_first():
    def work():
        netns.leave()
        with Netlink() as netlink:
            requests = [rt.link_up(98), rt.link_up(1), rt.link_up(99)]
            with pytest.raises(NetlinkError, match="dev 98"):
                netlink.batch(requests)
            return rt.get_link(netlink, name="lo").up

    assert netns.in_thread(work)


@marked
def test_batch_of_thousands_is_answered_in_full():
    """More answers than a receive buffer holds, and more routes than a dump message."""
    networks = [ip_network((int(ip_address("10.1.0.0")) + i, 32)) for i in range(3000)]

    def work():
        netns.leave()
        with Netlink() as netlink:
            netlink.batch([rt.link_up(1)])
            netlink.batch([rt.route_replace(network) for network in networks])
            return rt.dump_routes(netlink, protocol=rt.PROTOCOL)

    assert {route.destination for route in netns.in_thread(work)} == set(networks)


@marked
def test_socket_stays_in_the_namespace_it_was_opened_in():
    def work():
        netns.leave()
        netlink = Netlink()
        netlink.batch([rt.veth_add("a0", "02:00:00:00:00:01", "b0", "02:00:00:00:00:02", mtu=1400)])
        return netlink

    with netns.in_thread(work) as netlink:
        link = rt.get_link(netlink, name="b0")
    assert (link.kind, link.mac, link.mtu, link.up) == ("veth", "02:00:00:00:00:02", 1400, False)
