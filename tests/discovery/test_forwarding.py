"""What other resolvers are told to ask of ours."""

import pytest

from sixfold.cli.dns import SERVERS
from sixfold.discovery.forwarding import WRITERS, configuration
from sixfold.model.config import RESOLVER_IPV4

ZONES = ("cluster.local", "244.10.in-addr.arpa")


def test_the_command_offers_what_can_be_written():
    assert [*SERVERS] == [*WRITERS]


@pytest.mark.parametrize("server", [*WRITERS])
def test_every_zone_of_ours_goes_our_way(server: str):
    text = "\n".join(configuration(server, ZONES, "sixfold0"))
    assert str(RESOLVER_IPV4) in text
    if server != "resolv.conf":  # which knows no zones
        assert all(zone in text for zone in ZONES)
