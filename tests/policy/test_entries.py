"""Ports as prefixes."""

from hypothesis import given
from hypothesis import strategies as st

from sixfold.policy.entries import port_prefixes

PORTS = st.integers(0, 65535)


def covered(block):
    port, bits = block
    return range(port, port + (1 << (16 - bits)))


@given(PORTS, PORTS)
def test_prefixes_cover_a_range_exactly_and_once(one, other):
    first, last = min(one, other), max(one, other)
    ports = [port for block in port_prefixes(first, last) for port in covered(block)]
    assert ports == list(range(first, last + 1))


@given(PORTS, PORTS)
def test_prefixes_are_aligned_and_few(one, other):
    first, last = min(one, other), max(one, other)
    blocks = port_prefixes(first, last)
    assert all(port % (1 << (16 - bits)) == 0 for port, bits in blocks)
    assert len(blocks) <= 30


def test_all_ports_are_one_prefix():
    assert port_prefixes(0, 65535) == ((0, 0),)


def test_a_single_port_is_one_prefix_of_all_bits():
    assert port_prefixes(80, 80) == ((80, 16),)


def test_end_port_is_included():
    assert port_prefixes(80, 82) == ((80, 15), (82, 16))
