"""How long connections live, out of counters."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfold.balancing.lifetimes import LONG_S, REST_S, SHORT_S, Lifetimes

WEB = ("shop/web", 80, "TCP")
API = ("shop/api", 8080, "TCP")
PORTS = {"one": {WEB}, "two": {WEB, API}}


def played(
    lifetimes: Lifetimes,
    until_s: int,
    loads: Callable[[int], dict[str, tuple[int, int]]],
    start_s: int = 0,
    step_s: int = 2,
) -> list[tuple[int, str]]:
    """Samples every other second; what was decided, and when."""
    return [
        (now_s, "long" if port in lifetimes.long_lived else "short")
        for now_s in range(start_s, until_s, step_s)
        for port in lifetimes.take(loads(now_s), PORTS, float(now_s))
    ]


def steady(rate: float, lasts_s: float):
    """Arrivals of so many a second: as many are open as Little says."""
    return lambda now_s: {"one": (round(rate * lasts_s), int(rate * now_s))}


def test_connections_that_last_are_found_out_and_the_mean_is_told():
    lifetimes = Lifetimes()
    ((at_s, what),) = played(lifetimes, 300, steady(2, 45))
    assert what == "long"
    assert at_s <= 30
    assert lifetimes.lifetime_s(WEB) == pytest.approx(45, rel=0.1)
    assert lifetimes.long_lived.keys() == {WEB}


def test_connections_that_never_end_are_long_though_none_has_ended():
    lifetimes = Lifetimes()
    assert played(lifetimes, 60, lambda now_s: {"one": (8, 8)})[0][1] == "long"


def test_short_ones_are_not_however_many():
    assert played(Lifetimes(), 300, steady(500, 0.05)) == []


def test_one_long_connection_judges_nobody():
    assert played(Lifetimes(), 40, lambda now_s: {"one": (1, 1)}) == []


def test_what_was_before_the_first_look_is_not_known():
    assert played(Lifetimes(), 100, lambda now_s: {"one": (0, 10**6)}) == []


def test_it_becomes_short_again_when_they_are_but_not_in_between():
    lifetimes = Lifetimes({WEB: 45.0})
    between = (LONG_S + SHORT_S) / 2
    assert played(lifetimes, 300, steady(20, between)) == []
    assert lifetimes.long_lived == {WEB: 45.0}
    ((_, what),) = played(lifetimes, 900, steady(20, 0.5), start_s=300)
    assert what == "short"
    assert lifetimes.long_lived == {}


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_whatever_comes_it_changes_at_most_once_in_its_rest(seed):
    chance = Random(seed)
    total = 0

    def loads(now_s: int) -> dict[str, tuple[int, int]]:
        nonlocal total
        total += chance.choice((0, 0, 1, 400))
        return {"one": (chance.choice((0, 1, 4000)), total)}

    changes = [at_s for at_s, _ in played(Lifetimes(), 600, loads)]
    assert all(b - a >= REST_S for a, b in pairwise(changes))


def test_a_place_that_is_another_ones_now_counts_from_nothing():
    lifetimes = Lifetimes()
    played(lifetimes, 20, lambda now_s: {"one": (1, 1000 + now_s)})
    before = lifetimes.lifetime_s(WEB)
    lifetimes.take({"one": (0, 3)}, PORTS, 22.0)
    assert 0 < lifetimes.lifetime_s(WEB) < before


def test_ports_that_share_a_place_share_what_it_shows_and_gone_ones_are_forgotten():
    lifetimes = Lifetimes()
    played(lifetimes, 60, lambda now_s: {"two": (9, 9)})
    assert lifetimes.long_lived.keys() == {WEB, API}
    assert lifetimes.keep_only([API])
    assert lifetimes.long_lived.keys() == {API}
    assert not lifetimes.keep_only([API])
