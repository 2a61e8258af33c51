"""Addresses and ports as bytes: packed at once is packed one after the other."""

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from sixfold.model.place import (
    address_text,
    pack_address,
    pack_place,
    pack_port,
    unpack_address,
    unpack_port,
)

# Of the mapped range there are only IPv4 addresses: there, the two are one.
ADDRESSES = st.integers(0, (1 << 32) - 1).map(IPv4Address) | st.integers(0, (1 << 128) - 1).map(
    IPv6Address
).filter(lambda one: one.ipv4_mapped is None)


@given(ADDRESSES, st.integers(0, 65535))
def test_an_address_and_its_port_are_the_bytes_of_both(address, port):
    packed = pack_place(address, port)
    assert packed == pack_address(address) + pack_port(port)
    assert (unpack_address(packed[:16]), unpack_port(packed[16:])) == (address, port)


@given(ADDRESSES)
def test_the_text_of_an_address_is_that_of_the_library(address):
    assert address_text(address) == str(address)
