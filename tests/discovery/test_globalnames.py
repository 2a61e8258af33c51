"""Which region a client is sent to."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_network

import pytest
from tests.discovery.test_prometheus import scene

from sixfold.balancing.plan import plan_balancing
from sixfold.discovery.globalnames import choose, ill_names, plan_global_names
from sixfold.model.globalname import GlobalName, GlobalNameSpec, Region, ServiceReference
from sixfold.model.meta import ObjectMeta
from sixfold.model.world import World

SOMEWHERE = ip_network("203.0.113.9/32")
ALL = {"192.0.2.1", "192.0.2.2", "192.0.2.3"}


def name(*regions: Region, policy="Weighted", ill=(), world=None):
    world = world or World()
    spec = GlobalNameSpec("shop.example.org", list(regions), policy=policy)
    objects = {"shop": GlobalName(ObjectMeta("shop"), spec)}
    slices = plan_balancing(world, lambda _: 1).slices
    unwell = {("shop", address) for address in ill}
    (planned,) = plan_global_names(world, objects, slices, unwell)
    return planned


def picks(planned, *, client=SOMEWHERE, inside=False, turns=1000):
    found = (
        choose(planned, client, 4, turn / turns, inside=inside).region for turn in range(turns)
    )
    return Counter(found)


def region(number, **options):
    return Region(f"r{number}", addresses=[f"192.0.2.{number}"], **options)


def test_weights_are_shares():
    assert picks(name(region(1, weight=3), region(2, weight=1))) == {"r1": 750, "r2": 250}


def test_weight_0_is_off_unless_all_that_are_left_have_it():
    assert picks(name(region(1), region(2, weight=0))) == {"r1": 1000}
    planned = name(region(1), region(2, weight=0), region(3, weight=0), ill=["192.0.2.1"])
    assert picks(planned) == {"r2": 500, "r3": 500}


def test_an_ill_region_gets_nobody():
    assert picks(name(region(1), region(2), ill=["192.0.2.1"])) == {"r2": 1000}


def test_of_a_region_only_addresses_that_are_well_are_answered():
    both = Region("r", addresses=["192.0.2.1", "192.0.2.2", "2001:db8::1"])
    planned = name(both, ill=["192.0.2.2"])
    assert choose(planned, SOMEWHERE, 4, 0.0, inside=False).addresses == ("192.0.2.1",)
    assert choose(planned, SOMEWHERE, 6, 0.0, inside=False).addresses == ("2001:db8::1",)


def test_when_all_are_ill_all_are_answered_and_that_is_said():
    planned = name(region(1), region(2), ill=ALL)
    assert picks(planned) == {"r1": 500, "r2": 500}
    assert ill_names([planned]) == {
        "shop.example.org": "none of 2 regions is well; answered as if all were"
    }
    assert ill_names([name(region(1), region(2), ill=["192.0.2.1"])]) == {}


def test_failover_is_the_first_that_is_well_in_order():
    regions = (region(1), region(2), region(3))
    assert picks(name(*regions, policy="Failover")) == {"r1": 1000}
    assert picks(name(*regions, policy="Failover", ill=["192.0.2.1"])) == {"r2": 1000}
    assert picks(name(*regions, policy="Failover", ill=ALL)) == {"r1": 1000}


@pytest.mark.parametrize(
    ("client", "where"),
    [
        ("198.51.100.7/32", "r1"),
        ("198.51.100.128/25", "r2"),
        ("198.51.100.0/24", "r1"),
        ("198.51.0.0/16", "either"),
        ("2001:db8:1::/56", "r2"),
        ("203.0.113.0/24", "either"),
    ],
)
def test_geography_is_the_longest_subnet_that_holds_the_client(client, where):
    planned = name(
        region(1, client_subnets=["198.51.100.0/24"]),
        region(2, client_subnets=["198.51.100.128/25", "2001:db8:1::/48"]),
        policy="Geography",
    )
    found = picks(planned, client=ip_network(client))
    assert found == ({"r1": 500, "r2": 500} if where == "either" else {where: 1000})


def test_clients_of_an_ill_region_go_to_the_next_best():
    planned = name(
        region(1, client_subnets=["198.51.100.0/24"]),
        region(2, client_subnets=["198.51.0.0/16"]),
        region(3),
        policy="Geography",
        ill=["192.0.2.1"],
    )
    assert picks(planned, client=ip_network("198.51.100.0/24")) == {"r2": 1000}


def test_a_service_is_for_pods_and_addresses_for_the_world():
    there = Region("here", addresses=["192.0.2.1"], service=ServiceReference("web", "shop"))
    planned = name(there, world=scene().world)
    assert choose(planned, SOMEWHERE, 4, 0.0, inside=True).addresses == ("10.96.0.5",)
    assert choose(planned, SOMEWHERE, 4, 0.0, inside=False).addresses == ("192.0.2.1",)
    (only,) = name(Region("here", service=ServiceReference("web", "shop"))).regions
    assert (only.inside.well, only.outside.addresses) == (False, ())
