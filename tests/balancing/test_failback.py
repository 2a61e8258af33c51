"""A place that was ill gets its connections back only when it has been well for a while."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sixfold.balancing.failback import Failback

KEY = (80, "TCP", "IPv4", "same zone")
HOLD = {"shop/web": 10.0}


def follow(failback, health, now_s):
    return failback.follow({"shop/web": {KEY: health}}, HOLD, now_s)


def trusted(failback):
    return failback.trusted["shop/web"][KEY]


def test_who_was_never_seen_is_believed():
    failback = Failback()
    assert not follow(failback, 70, 0.0)
    assert trusted(failback) == 70
    assert failback.next_deadline() is None


def test_trust_falls_at_once_and_rises_after_a_while():
    failback = Failback()
    follow(failback, 100, 0.0)
    assert not follow(failback, 0, 1.0)
    assert trusted(failback) == 0
    assert not follow(failback, 100, 2.0)
    assert failback.next_deadline() == 12.0
    assert not follow(failback, 100, 11.9)
    assert trusted(failback) == 0
    assert follow(failback, 100, 12.0)
    assert trusted(failback) == 100
    assert failback.next_deadline() is None


def test_a_relapse_begins_the_wait_anew():
    failback = Failback()
    for health, now_s in ((100, 0.0), (0, 1.0), (100, 2.0), (0, 11.0), (100, 11.5), (100, 12.0)):
        follow(failback, health, now_s)
    assert trusted(failback) == 0
    assert failback.next_deadline() == 21.5


def test_it_gets_as_much_as_it_was_healthy_all_the_time():
    failback = Failback()
    for health, now_s in ((100, 0.0), (0, 1.0), (30, 2.0), (100, 9.0)):
        follow(failback, health, now_s)
    assert follow(failback, 100, 12.0)
    assert trusted(failback) == 30
    assert follow(failback, 100, 22.0)
    assert trusted(failback) == 100


def test_a_shorter_wait_counts_at_once():
    failback = Failback()
    for health, now_s in ((100, 0.0), (0, 1.0), (100, 2.0)):
        follow(failback, health, now_s)
    assert failback.follow({"shop/web": {KEY: 100}}, {"shop/web": 0.0}, 3.0)
    assert trusted(failback) == 100


def test_a_service_that_is_gone_is_forgotten():
    failback = Failback()
    follow(failback, 0, 0.0)
    failback.follow({}, {}, 1.0)
    assert failback.trusted == {}
    follow(failback, 100, 2.0)
    assert trusted(failback) == 100


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 8)), min_size=1, max_size=20))
def test_nobody_is_trusted_with_more_than_he_was_for_the_whole_wait(history):
    failback, now_s, past = Failback(), 0.0, []
    for health, wait_s in history:
        now_s += wait_s
        past.append((now_s, health))
        before = trusted(failback) if len(past) > 1 else None
        follow(failback, health, now_s)
        assert trusted(failback) <= health
        if before is not None and trusted(failback) > before:
            recent = [one for at_s, one in past if at_s > now_s - HOLD["shop/web"]]
            assert trusted(failback) <= min(recent)
