"""Blocks against plain set arithmetic on a small address space."""

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from sixfold.model.policy import IPBlock
from sixfold.policy.block import Blocks, holds


@st.composite
def networks(draw):
    """Networks inside 192.0.2.0/24 or 2001:db8::/120."""
    bits = draw(st.integers(0, 8))
    host = draw(st.integers(0, 255)) >> (8 - bits) << (8 - bits)
    if draw(st.booleans()):
        return ip_network(f"192.0.2.{host}/{24 + bits}")
    return ip_network(f"2001:db8::{host:x}/{120 + bits}")


ADDRESSES = [
    *map(ip_address, ip_network("192.0.2.0/24")),
    *map(ip_address, ip_network("2001:db8::/120")),
]


@given(st.sets(networks(), max_size=12))
def test_covering_is_the_longest_network_around(nets):
    blocks = Blocks(nets)
    for address in ADDRESSES[::7]:
        around = [net for net in nets if address in net]
        longest = max(around, key=lambda net: net.prefixlen, default=None)
        assert blocks.covering(address) == longest


@given(networks(), st.sets(networks(), max_size=6), st.sets(networks(), max_size=6))
def test_what_is_inside_a_block_stands_for_exactly_its_addresses(outer, holes, others):
    """An address is in the block if and only if its longest CIDR is listed."""
    holes = {net for net in holes if net.version == outer.version and net.subnet_of(outer)}
    holes.discard(outer)
    block = IPBlock(str(outer), [str(net) for net in holes])
    blocks = Blocks({outer} | holes | others)
    listed = set(blocks.inside(block))
    for address in ADDRESSES[::5]:
        covering = blocks.covering(address)
        assert (covering in listed) == holds(block, address)
