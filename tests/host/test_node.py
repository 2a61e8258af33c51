from ipaddress import ip_network

import pytest

from sixfold.host.netlink_route import GROUP, PROTOCOL, Link, Route
from sixfold.host.node import overlaps, unusable

UPLINK = Link(2, "up0", "", "", "", 1500, up=True, running=True, group=0)
OURS = Link(3, "sixfold0", "", "veth", "", 1500, up=True, running=True, group=GROUP)
POOL = ip_network("10.244.0.0/16")


def route(destination, ifindex=2, kind="unicast", protocol=3):
    return Route(ip_network(destination), kind, ifindex, None, None, 0, protocol)


def test_good_pools_have_no_problem():
    pools = [POOL, ip_network("10.96.0.0/16"), ip_network("fd00:5f:244::/64")]
    assert unusable(pools) == []


@pytest.mark.parametrize(
    ("pools", "problem"),
    [
        pytest.param(["10.0.0.0/30"], "too small", id="small"),
        pytest.param(["10.0.0.0/32"], "too small", id="one-address"),
        pytest.param(["10.0.0.0/8", "10.96.0.0/16"], "overlaps pool 10.96.0.0/16", id="nested"),
        pytest.param(["169.254.0.0/16"], "holds 169.254.20.10", id="resolver"),
        pytest.param(["fd00::/16"], "holds fd00:5f::10", id="resolver6"),
        pytest.param(["fe80::/10"], "holds fe80::1", id="gateway6"),
    ],
)
def test_unusable_pools_are_told(pools, problem):
    assert problem in unusable([ip_network(pool) for pool in pools])[0]


@pytest.mark.parametrize(
    ("other", "found"),
    [
        pytest.param(route("10.244.9.0/24"), True, id="inside"),
        pytest.param(route("10.0.0.0/8"), True, id="around"),
        pytest.param(route("10.244.0.0/16", 0, "blackhole"), True, id="blackhole"),
        pytest.param(route("10.245.0.0/16"), False, id="beside"),
        pytest.param(route("0.0.0.0/0"), False, id="default"),
        pytest.param(route("fd00::/8"), False, id="other-family"),
        pytest.param(route("10.244.0.9/32", 9, protocol=PROTOCOL), False, id="our-route"),
        pytest.param(route("10.244.0.1/32", 3), False, id="our-device"),
    ],
)
def test_route_of_the_host_within_a_pool_is_in_the_way(other, found):
    assert bool(overlaps([UPLINK, OURS], [other], [POOL])) == found
