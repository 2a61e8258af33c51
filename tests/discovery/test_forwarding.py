"""What other resolvers are told to ask of ours."""

from ipaddress import ip_address

import pytest

from sixfold.cli.dns import OUTSIDE, SERVERS
from sixfold.discovery.forwarding import DELEGATIONS, WRITERS, configuration, delegation
from sixfold.model.config import RESOLVER_IPV4

ZONES = ("cluster.local", "244.10.in-addr.arpa")


def test_the_command_offers_what_can_be_written():
    assert [*SERVERS] == [*WRITERS]
    assert [*OUTSIDE] == [*DELEGATIONS]


@pytest.mark.parametrize("server", [*DELEGATIONS])
def test_a_resolver_outside_is_told_zone_and_address(server: str):
    edges = [(ip_address("192.0.2.1"), 53), (ip_address("2001:db8::1"), 53)]
    text = "\n".join(delegation(server, ["k8s.example.org"], edges))
    assert all(word in text for word in ("k8s.example.org", "192.0.2.1", "2001:db8::1"))


@pytest.mark.parametrize("server", [*WRITERS])
def test_every_zone_of_ours_goes_our_way(server: str):
    text = "\n".join(configuration(server, ZONES, "sixfold0"))
    assert str(RESOLVER_IPV4) in text
    if server != "resolv.conf":  # which knows no zones
        assert all(zone in text for zone in ZONES)
