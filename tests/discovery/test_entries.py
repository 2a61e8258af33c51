"""Hosts of ServiceEntries with endpoints, as pods are told them."""

from __future__ import annotations

from ipaddress import ip_network

from tests.model.test_entries import BY_NAME, ONE, VIP, entries

from sixfold.discovery.entries import entry_names
from sixfold.discovery.globalnames import choose

CLIENT = ip_network("10.0.0.1")


def test_pods_are_told_its_addresses_or_its_endpoints_and_the_world_nothing():
    for given, told in (({}, VIP), (BY_NAME, ONE)):
        (name,) = entry_names(entries(**given))
        assert name.hostname == "api.example.com"
        assert choose(name, CLIENT, 4, 0.0, inside=True).addresses == (told,)
        assert choose(name, CLIENT, 4, 0.0, inside=False).addresses == ()
