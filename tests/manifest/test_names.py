from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.manifest import names


@pytest.mark.parametrize(
    ("rule", "good"),
    [
        pytest.param(names.dns_label, ["a", "0", "a-b", "x" * 63], id="label"),
        pytest.param(names.dns_label_1035, ["a", "a-0", "x" * 63], id="label 1035"),
        pytest.param(names.dns_subdomain, ["a", "a.b", "0.a-b.c", "a" * 253], id="subdomain"),
        pytest.param(names.label_key, ["a", "A_b.c-d", "example.com/a", "x" * 63], id="key"),
        pytest.param(names.label_value, ["", "a", "A_b.c-d", "1", "x" * 63], id="value"),
        pytest.param(names.port_name, ["http", "a", "a-1", "x" * 15], id="port name"),
    ],
)
def test_valid_names_pass(rule, good):
    assert [rule(name) for name in good] == [None] * len(good)


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        pytest.param(
            names.dns_label, ["", "A", "a.b", "-a", "a-", "a_b", "x" * 64, "a\n"], id="label"
        ),
        pytest.param(names.dns_label_1035, ["", "0a", "A", "x" * 64], id="label 1035"),
        pytest.param(names.dns_subdomain, ["", ".a", "a..b", "a.", "A", "a" * 254], id="subdomain"),
        pytest.param(names.label_key, ["", "/a", "a/", "a/b/c", "-a", "x" * 64, "A/b"], id="key"),
        pytest.param(names.label_value, ["-a", "a-", "a b", "x" * 64, "ä"], id="value"),
        pytest.param(names.port_name, ["", "80", "A", "a--b", "-a", "x" * 16], id="port name"),
    ],
)
def test_invalid_names_are_refused(rule, bad):
    assert [name for name in bad if rule(name) is None] == []


def test_ports_go_from_1_to_65535():
    assert [n for n in (-1, 0, 1, 65535, 65536) if names.port(n) is None] == [1, 65535]


def test_a_port_number_in_quotes_is_told_from_a_name():
    assert names.port("80") == '"80" is a number in quotes; give 80 without'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("10.0.0.1/24", '"10.0.0.1/24" has host bits set; give 10.0.0.0/24', id="host"),
        pytest.param("fd00::1/64", '"fd00::1/64" has host bits set; give fd00::/64', id="host 6"),
        pytest.param("10.0.0.1", '"10.0.0.1" has no prefix length; give 10.0.0.1/32', id="bare"),
        pytest.param("10.0.0.0/33", "prefix length is not 0 to 32", id="long"),
        pytest.param("10.0.0.0/255.0.0.0", "prefix length is not 0 to 32", id="netmask"),
        pytest.param("10.0.0.0/+8", "prefix length is not 0 to 32", id="sign"),
        pytest.param("10.0.0.0/٨", "prefix length is not 0 to 32", id="Arabic digit"),
        pytest.param("10.0.0/24", "is not a CIDR", id="three octets"),
        pytest.param("010.0.0.0/8", "is not a CIDR", id="leading zero"),
        pytest.param("::ffff:10.0.0.0/104", "is not a CIDR", id="mapped"),
        pytest.param("fe80::%eth0/64", "is not a CIDR", id="zone"),
        pytest.param("", "is not a CIDR", id="empty"),
    ],
)
def test_a_wrong_cidr_says_what_to_give(text, message):
    assert message in str(names.cidr(text))
    assert isinstance(names.cidr(text), str)


@given(st.ip_addresses(), st.integers(0, 128))
def test_every_network_address_with_its_length_is_a_cidr(address, length):
    mapped = address.version == 6 and address.ipv4_mapped
    network = ip_network((address, min(length, address.max_prefixlen)), strict=False)
    if not mapped and not getattr(network.network_address, "ipv4_mapped", None):
        assert names.cidr(str(network)) == network


def test_host_bits_of_a_cidr_are_dropped_where_they_may_be():
    assert names.cidr("10.0.0.1/8", lenient=True) == ip_network("10.0.0.0/8")
    assert names.cidr("fd00::1/64", lenient=True) == ip_network("fd00::/64")


def test_long_values_are_cut_in_messages():
    assert len(names.quoted("x" * 1000)) < 70
