"""Who gets how much of a service: near and far, and places that stand in for each other."""

from __future__ import annotations

from fractions import Fraction
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.balancing.divide import (
    ELSEWHERE,
    SAME_REGION,
    SAME_ZONE,
    divide,
    priority_loads,
    shared,
)
from sixfold.balancing.written import Written
from sixfold.model.locality import FAILOVER, OVERPROVISIONING, Here, Locality
from sixfold.model.meta import ObjectMeta
from sixfold.model.service import Service, ServicePort, ServiceSpec

A, B, US = Locality("eu", "a"), Locality("eu", "b"), Locality("us", "x")
HERE = Here("n1", A)
PERCENT = st.integers(0, 100)


def member(number, where=A, **more):
    return Written(f"m{number}", {}, ip_address(f"198.51.100.{number}"), locality=where, **more)


def service(annotations=None, **spec):
    meta = ObjectMeta("web", "shop", annotations=annotations or {})
    return Service(meta, ServiceSpec(ports=[ServicePort(80)], **spec))


def failover(places="locality", **more):
    return service({FAILOVER: places, **more})


def names(division):
    return [one.key for one, _ in division.shares]


def loads(division):
    return {level.name: level.load for level in division.levels}


def test_without_a_rule_all_places_are_alike():
    members = [member(1), member(2, US), member(3, ready=False)]
    assert names(divide(service(), members, HERE)) == ["m1", "m2"]


def test_the_same_zone_comes_first_then_the_region_then_all():
    members = [member(1), member(2, B), member(3, US), member(4, Locality("us", "a"))]
    division = divide(failover(), members, HERE)
    assert names(division) == ["m1"]
    assert loads(division) == {SAME_ZONE: 100, SAME_REGION: 0, ELSEWHERE: 0}
    assert [level.total for level in division.levels] == [1, 1, 2]
    standby = [[one.key for one, _ in place] for place in division.standby]
    assert standby == [["m2"], ["m3", "m4"]]


def test_places_come_in_the_order_in_which_they_are_written():
    members = [member(1), member(2, B), member(3, US)]
    division = divide(failover("us, eu/b"), members, HERE)
    assert [level.name for level in division.levels] == ["us", "eu/b", ELSEWHERE]
    assert names(division) == ["m3"]


def test_a_place_below_its_threshold_gives_the_rest_away():
    """1.4 times half is 70 percent, as Envoy's page on priorities has it."""
    members = [member(1), member(2, ready=False), member(3, US), member(4, US)]
    division = divide(failover(), members, HERE)
    assert loads(division) == {SAME_ZONE: 70, ELSEWHERE: 30}
    weights = {one.key: weight for one, weight in division.shares}
    assert weights == {"m1": 14, "m3": 3, "m4": 3}
    generous = divide(failover(**{OVERPROVISIONING: "200"}), members, HERE)
    assert loads(generous) == {SAME_ZONE: 100, ELSEWHERE: 0}


def test_maintenance_is_missed_and_who_is_on_his_way_out_is_not():
    idle = [member(1), member(2, weight=0), member(3, US)]
    assert loads(divide(failover(), idle, HERE)) == {SAME_ZONE: 70, ELSEWHERE: 30}
    ending = [member(1), member(2, ready=False, terminating=True), member(3, US)]
    assert loads(divide(failover(), ending, HERE)) == {SAME_ZONE: 100, ELSEWHERE: 0}


def test_a_place_that_has_to_prove_itself_gets_what_it_is_trusted_with():
    members = [member(1), member(2, US)]
    division = divide(failover(), members, HERE, trusted={SAME_ZONE: 0})
    assert names(division) == ["m2"]
    assert (division.levels[0].health, division.levels[0].trusted) == (100, 0)


def test_trust_does_not_matter_when_nobody_else_can_carry_it():
    members = [member(1), member(2, US, ready=False)]
    assert names(divide(failover(), members, HERE, trusted={SAME_ZONE: 0})) == ["m1"]


def test_when_nobody_is_ready_those_that_still_serve_are_used_wherever_they_are():
    members = [member(1, ready=False), member(2, US, ready=False, terminating=True)]
    assert names(divide(failover(), members, HERE)) == ["m2"]


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        ([100, 100], [100, 0]),
        ([71, 100], [71, 29]),
        ([0, 100], [0, 100]),
        ([25, 25, 0], [50, 50, 0]),
        ([0, 0], [0, 0]),
        ([5, 0, 10], [34, 0, 66]),
    ],
)
def test_priorities_are_loaded_as_envoys(health, expected):
    assert priority_loads(health) == expected


@given(st.lists(PERCENT, min_size=1, max_size=6))
def test_all_connections_go_somewhere_and_none_to_a_place_that_is_dead(health):
    found = priority_loads(health)
    assert sum(found) == (100 if any(health) else 0)
    assert all(load == 0 for load, one in zip(found, health, strict=True) if not one)
    if health[0] == 100:
        assert found[0] == 100


@given(st.lists(PERCENT, min_size=2, max_size=5), st.integers(0, 4), st.integers(1, 100))
def test_a_place_that_gets_better_gets_no_less(health, at, more):
    at %= len(health)
    better = [*health]
    better[at] = min(100, better[at] + more)
    slack = len(health)  # of rounding
    assert priority_loads(better)[at] >= priority_loads(health)[at] - slack


GROUPS = st.lists(
    st.tuples(st.lists(st.integers(1, 100), min_size=1, max_size=8), st.integers(1, 100)),
    min_size=1,
    max_size=4,
)


@given(GROUPS)
def test_each_place_gets_its_percent_and_each_of_its_members_its_weight(described):
    whole = sum(load for _, load in described)
    groups = [
        ([member(number, weight=weight) for number, weight in enumerate(weights)], load)
        for weights, load in described
    ]
    found = shared([(group, load) for group, load in groups])
    assert len(found) == sum(len(group) for group, _ in groups)
    assert all(0 < weight < 1 << 14 for _, weight in found)
    if len(groups) == 1:
        return
    total = sum(weight for _, weight in found)
    expected = [
        Fraction(load, whole) * Fraction(one.weight, sum(other.weight for other in group))
        for group, load in groups
        for one in group
    ]
    for (_, weight), wanted in zip(found, expected, strict=True):
        assert abs(Fraction(weight, total) - wanted) < Fraction(1, 60)


def distributed(how, members, here=HERE):
    return names(divide(service(traffic_distribution=how), members, here))


@pytest.mark.parametrize("how", ["PreferClose", "PreferSameZone"])
def test_the_same_zone_is_preferred_as_long_as_somebody_is_ready_there(how):
    members = [member(1), member(2, B)]
    assert distributed(how, members) == ["m1"]
    assert distributed(how, [member(1, ready=False), member(2, B)]) == ["m2"]
    assert distributed(how, members, Here("n1")) == ["m1", "m2"]  # where are we?


def test_one_endpoint_without_a_zone_and_there_is_no_preference():
    members = [member(1), member(2, Locality())]
    assert distributed("PreferSameZone", members) == ["m1", "m2"]


def test_the_same_node_is_preferred_then_the_zone():
    members = [member(1, node="n1"), member(2, node="n2"), member(3, B, node="n3")]
    assert distributed("PreferSameNode", members) == ["m1"]
    assert distributed("PreferSameNode", members[1:]) == ["m2"]
    assert distributed("PreferSameNode", members[2:]) == ["m3"]


def test_hints_that_were_written_count_without_being_asked_for():
    """As kube-proxy does: the zone that a hint names, not the one where the endpoint is."""
    members = [
        member(1, for_zones=frozenset({"b"})),
        member(2, US, for_zones=frozenset({"a", "b"})),
    ]
    assert names(divide(service(), members, HERE)) == ["m2"]
    assert names(divide(service(), [*members, member(3)], HERE)) == ["m1", "m2", "m3"]


def test_local_is_this_node_or_nobody():
    local = service(internal_traffic_policy="Local")
    members = [member(1), member(2, node="n1"), member(3, node="n2")]
    assert names(divide(local, members, HERE)) == ["m2"]
    assert names(divide(local, members[::2], HERE)) == []
