"""Where the catalogue may be told."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from sixfold.agent.doors import endpoint_place, listening_places, metrics_place
from sixfold.model.config import Config


def test_loopback_and_the_node_are_places():
    config = Config(catalog_listen=("127.0.0.1:8500", "[::1]:8500", "node:8501"))
    assert listening_places(config) == [
        (ip_address("127.0.0.1"), 8500),
        (ip_address("::1"), 8500),
        (config.host_ipv4, 8501),
        (config.host_ipv6, 8501),
    ]


@pytest.mark.parametrize("text", ["0.0.0.0:8500", "192.0.2.1:8500", "[::]:8500"])
def test_the_world_is_no_place(text):
    with pytest.raises(ValueError, match="give an address of loopback, or node:PORT"):
        listening_places(Config(catalog_listen=(text,)))


@pytest.mark.parametrize("text", ["127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", ":x", "a:80"])
def test_no_place_is_an_error(text):
    with pytest.raises(ValueError, match=r"address|ADDRESS"):
        listening_places(Config(catalog_listen=(text,)))


def test_metrics_are_told_on_loopback_only():
    assert metrics_place("[::1]:9153") == (ip_address("::1"), 9153)
    for text in ("192.0.2.1:9153", "node:9153", "0.0.0.0:9153"):
        with pytest.raises(ValueError, match=r"loopback|address"):
            metrics_place(text)


def test_the_trust_bundle_may_be_told_to_the_world():
    assert endpoint_place("0.0.0.0:8443") == (ip_address("0.0.0.0"), 8443)
    with pytest.raises(ValueError, match="ADDRESS:PORT"):
        endpoint_place("localhost")
