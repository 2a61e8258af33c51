"""Health of backends: whom to ask, what answers add up to, who is used then."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.balancing.health import NEVER_ASKED, Checks, Target
from sixfold.balancing.members import panics, receivers, weight_now
from sixfold.balancing.show import list_frontends, panicking
from sixfold.balancing.slow_start import SlowStart, percent_at
from sixfold.balancing.vanished import places_in_use
from sixfold.model.seen import Seen
from sixfold.model.workload import Probe, TCPSocketAction

from .test_plan import backends, number, pod, service, world, written
from .test_plan import plan_balancing as plan

ONE, TWO, THREE = (ip_address(f"198.51.100.{at}") for at in (1, 2, 3))
TARGET = Target("shop/web", ONE, 9000)
PROBE = Probe(
    tcp_socket=TCPSocketAction(0), period_seconds=10, failure_threshold=3, success_threshold=2
)


def never() -> float:
    return 0.5  # no jitter


def asked(checks: Checks, *answers: bool, now_s: float = 0.0) -> list[str]:
    """After each answer, what is believed: "ok" or the trouble."""
    said = []
    for ok in answers:
        now_s = max(now_s, checks.next_deadline() or 0.0)
        ((target, _),) = checks.due(now_s)
        checks.take(target, ok, "fine" if ok else "ECONNREFUSED", now_s, never)
        said.append(checks.trouble.get("shop/web", {}).get(ONE, "ok"))
    return said


def under_check(known=(), probe=PROBE) -> Checks:
    checks = Checks(dict(known))
    checks.follow({TARGET: probe}, 0.0, never)
    return checks


def test_a_new_backend_is_asked_at_once_and_its_first_answer_counts():
    checks = under_check()
    assert checks.trouble == {"shop/web": {ONE: NEVER_ASKED}}
    assert asked(checks, True) == ["ok"]
    assert asked(under_check(), False) == ["ECONNREFUSED"]


def test_after_that_thresholds_count_and_one_good_answer_begins_anew():
    checks = under_check({("shop/web", ONE): ""})
    down = "ECONNREFUSED"
    assert asked(checks, False, False, True, False, False, False) == ["ok"] * 5 + [down]
    assert asked(checks, True, False, True, True) == [down, down, down, "ok"]


def test_what_an_agent_found_out_is_where_the_next_one_begins():
    checks = under_check()
    asked(checks, False)
    following = under_check(checks.known)
    assert following.trouble == {"shop/web": {ONE: "ECONNREFUSED"}}
    assert following.next_deadline() == 5.0  # spread over the period


def test_what_is_not_asked_for_any_more_is_forgotten():
    checks = under_check({("shop/web", ONE): "down"})
    checks.follow({}, 0.0, never)
    assert (checks.known, checks.trouble, checks.next_deadline()) == ({}, {}, None)


def test_another_check_of_the_same_backend_begins_with_what_is_known():
    checks = under_check({("shop/web", ONE): "down"})
    other = Probe(tcp_socket=TCPSocketAction(81), period_seconds=2)
    checks.follow({TARGET: other}, 0.0, never)
    assert checks.trouble == {"shop/web": {ONE: "down"}}
    assert asked(checks, True) == ["ok"]


def test_an_answer_that_nobody_waits_for_is_no_answer():
    checks = under_check()
    assert not checks.take(TARGET, True, "", 0.0, never)
    assert not checks.take(Target("shop/web", TWO, 9000), True, "", 0.0, never)


@given(st.floats(0, 1, exclude_max=True))
def test_periods_have_jitter_and_no_more_than_that(chance):
    checks = under_check()
    ((target, probe),) = checks.due(0.0)
    checks.take(target, True, "", 0.0, lambda: chance)
    assert 0.95 * probe.period_seconds <= checks.next_deadline() <= 1.05 * probe.period_seconds


# --- who is used ------------------------------------------------------------------------------


SLICE = written("ext", str(ONE), str(TWO), str(THREE))
CHECKED = {"sixfold.dev/lb-health-check": "{tcpSocket: {}}"}


def outside(**annotations):
    made = service(selector={})
    notes = {f"sixfold.dev/lb-{key.replace('_', '-')}": one for key, one in annotations.items()}
    made.metadata.annotations.update(CHECKED, **notes)
    return made


def used(made, *unhealthy, endpoints=(), slices=(SLICE,)):
    seen = {"shop/web": Seen(unhealthy=dict.fromkeys(unhealthy, "down"))}
    here = replace(world(endpoints, [made], slices), seen=seen)
    return {one.address for one in backends(plan(here, number))}


def test_the_unhealthy_get_nothing_as_long_as_somebody_is_well():
    assert used(outside(), TWO) == {ONE, THREE}


def test_when_none_is_well_all_are_used_and_it_is_said():
    assert used(outside(), ONE, TWO, THREE) == {ONE, TWO, THREE}
    seen = {"shop/web": Seen(unhealthy=dict.fromkeys((ONE, TWO, THREE), "down"))}
    here = replace(world([], [outside()], [SLICE]), seen=seen)
    assert list(panicking(here, ["shop/web"])) == ["shop/web: 0 of 3 healthy, all are used"]
    (frontend,) = list_frontends(here, lambda *place: (0, 0))
    assert frontend["panic"]
    assert {(one["state"], one["detail"]) for one in frontend["backends"]} == {
        ("unhealthy", "down")
    }


def test_fail_refuses_instead():
    assert used(outside(panic_threshold="fail"), ONE, TWO, THREE) == set()


@pytest.mark.parametrize(("percent", "panic"), [("33", False), ("34", True), ("100", True)])
def test_a_threshold_is_a_share_of_healthy_ones(percent, panic):
    found = used(outside(panic_threshold=percent), ONE, TWO)
    assert found == ({ONE, TWO, THREE} if panic else {THREE})


def test_pods_that_are_not_ready_are_refused_unless_a_threshold_is_written():
    pods = [pod("a", number=1, ready=False), pod("b", number=2, ready=False)]
    plain = service()
    assert used(plain, endpoints=pods, slices=()) == set()
    plain.metadata.annotations["sixfold.dev/lb-panic-threshold"] = "0"
    assert len(used(plain, endpoints=pods, slices=())) == 2


def test_pods_that_end_and_still_serve_come_before_a_panic():
    ending = pod("a", number=1, ready=False, terminating=True, serving=True)
    unready = pod("b", number=2, ready=False)
    made = service()
    made.metadata.annotations["sixfold.dev/lb-panic-threshold"] = "50"
    assert used(made, endpoints=[ending, unready], slices=()) == {ending.ipv4}
    assert not panics(made, [ending, unready])


def test_a_panic_leaves_the_drained_and_those_in_maintenance_alone():
    pods = [
        pod("a", number=1, ready=False),
        pod("b", number=2, ready=False, drained=True),
        pod("c", number=3, ready=False, weight=0),
    ]
    made = service()
    made.metadata.annotations["sixfold.dev/lb-panic-threshold"] = "0"
    assert [one.pod for one in receivers(made, pods)] == ["a"]


# --- slow start -------------------------------------------------------------------------------


def test_the_formula_is_envoys_in_steps_of_a_tenth():
    assert [percent_at(age, 10.0) for age in (0, 0.9, 1, 2.5, 9.9, 10, 99)] == [
        *(10, 10, 10, 20, 90, 100, 100)
    ]


def test_who_comes_later_starts_slowly_and_nobody_else():
    slow = SlowStart()
    assert slow.follow({"web": (10.0, [ONE, TWO])}, 0.0) == {}
    assert slow.next_deadline_s is None
    assert slow.follow({"web": (10.0, [ONE])}, 5.0) == {}
    assert slow.follow({"web": (10.0, [ONE, TWO])}, 6.0) == {"web": {TWO: 10}}
    assert slow.next_deadline_s == 8.0
    assert slow.follow({"web": (10.0, [ONE, TWO])}, 11.0) == {"web": {TWO: 50}}
    assert slow.follow({"web": (10.0, [ONE, TWO])}, 16.0) == {}


def test_where_nobody_was_nobody_is_new():
    slow = SlowStart()
    slow.follow({"web": (10.0, [])}, 0.0)
    assert slow.follow({"web": (10.0, [ONE, TWO])}, 1.0) == {}


@given(st.floats(0.01, 100), st.lists(st.floats(0, 200), min_size=1, max_size=20))
def test_a_share_only_grows_and_ends_whole(window_s, moments):
    slow = SlowStart()
    slow.follow({"web": (window_s, [ONE])}, 0.0)
    shares = []
    for now_s in sorted(moments):
        ramps = slow.follow({"web": (window_s, [ONE, TWO])}, now_s)
        shares.append(ramps.get("web", {}).get(TWO, 100))
        assert ONE not in ramps.get("web", {})
        assert (slow.next_deadline_s is None) == (not ramps)
        assert slow.next_deadline_s is None or slow.next_deadline_s >= now_s - 1e-9
    assert shares == sorted(shares)
    assert slow.follow({"web": (window_s, [ONE, TWO])}, max(moments) + window_s * 1.001) == {}


def test_weights_are_in_tenths_while_somebody_starts():
    two = pod("b", number=2, weight=3)
    seen = Seen(ramps={two.ipv4: 20})
    assert (weight_now(pod("a"), seen), weight_now(two, seen)) == (10, 6)
    assert weight_now(two) == 3
    assert weight_now(pod("c"), Seen(ramps={ip_address("192.0.2.1"): 1})) == 1


# --- whose connections are cut ----------------------------------------------------------------


UDP_PORTS = [("", 8080)]


def test_places_are_lost_when_the_slice_forgets_them_and_udp_when_they_are_unwell():
    made = outside()
    made.spec.ports[0] = type(made.spec.ports[0])(80, protocol="UDP")
    ends = written("ext", str(ONE), str(TWO))
    for port in ends.ports:
        port.protocol = "UDP"
    here = world([], [made], [ends])
    assert {place[0] for place in places_in_use(here)} == {ONE, TWO}
    unwell = replace(here, seen={"shop/web": Seen(unhealthy={TWO: "down"})})
    assert {place[0] for place in places_in_use(unwell)} == {ONE}
    tcp = replace(world([], [outside()], [SLICE]), seen=unwell.seen)
    assert {place[0] for place in places_in_use(tcp)} == {ONE, TWO, THREE}
    assert places_in_use(world([], [outside()])) == frozenset()
