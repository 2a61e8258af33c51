"""The same connections on every algorithm, with the kernel's own choice."""

from __future__ import annotations

from ipaddress import ip_address
from random import Random
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfold.balancing.compare import Arrival, compare, enough_workers, stated
from sixfold.balancing.compare_picture import bar, cells, seconds, svg
from sixfold.balancing.durations import SHAPES, draws, mean_of, parse_duration
from sixfold.model.algorithm import Algorithm
from sixfold.model.datapath import Backend

LC, RR, MAGLEV = Algorithm.LEAST_CONNECTIONS, Algorithm.ROUND_ROBIN, Algorithm.MAGLEV
HASH, RANDOM = Algorithm.SOURCE_HASH, Algorithm.RANDOM


def backends(*weights: int) -> list[Backend]:
    return [
        Backend.at(ip_address("192.0.2.0") + at, 80, weight) for at, weight in enumerate(weights, 1)
    ]


def compared(behind, mixture, rate=20.0, count=4000, clients=200, seed=3):
    arrivals = stated([*map(parse_duration, mixture)], rate, count, clients, Random(seed))
    workers = enough_workers(arrivals, behind)
    found = compare(behind, arrivals, workers=workers, table_size=2039, seed=seed)
    return {one.algorithm: one for one in found}


def test_least_connections_is_the_most_even_and_waits_least_where_few_live_long():
    found = compared(backends(1, 1, 1, 1), ["9*const:50ms", "exp:30s"])
    assert found[LC].imbalance == min(one.imbalance for one in found.values()) < 1.2
    assert found[LC].wait_p99_s == min(one.wait_p99_s for one in found.values())
    assert found[MAGLEV].imbalance > found[RR].imbalance > found[LC].imbalance


def test_a_rotation_is_even_where_all_last_alike():
    found = compared(backends(1, 1, 1, 1), ["const:10s"])
    assert found[RR].imbalance < 1.02
    assert found[RR].imbalance < found[RANDOM].imbalance


def test_weights_are_minded_in_shares_and_in_workers():
    found = compared(backends(5, 3, 1, 1), ["const:10s"])
    assert found[RR].imbalance < 1.1
    assert found[LC].imbalance < 1.2


def test_maglev_moves_hardly_more_than_must_move_and_a_hash_moves_most():
    found = compared(backends(*[1] * 10), ["const:1s"], count=200)
    assert found[MAGLEV].moved_gone == found[MAGLEV].moved_back < 0.1 * 1.5
    assert found[HASH].moved_gone > 0.8
    assert found[RANDOM].moved_gone > 0.8


def test_the_same_seed_says_the_same():
    assert compared(backends(1, 2), ["exp:1s"]) == compared(backends(1, 2), ["exp:1s"])


def test_one_backend_waits_for_itself_in_order():
    arrivals = [Arrival(float(at), 2.0, 1) for at in range(11)]
    (found,) = compare(backends(1), arrivals, workers=1, table_size=251, seed=1, algorithms=[RR])
    assert found.wait_p99_s == 10.0  # the tenth began at 20
    assert found.imbalance == 1.0


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.lists(
        st.tuples(st.floats(0, 5), st.floats(0, 20), st.integers(0, 9)), min_size=2, max_size=60
    ),
)
@settings(max_examples=15)
def test_nobody_waits_less_than_nothing_and_no_backend_has_less_than_the_mean(weights, given_):
    at_s, arrivals = 0.0, []
    for gap_s, lasts_s, client in given_:
        at_s += gap_s
        arrivals.append(Arrival(at_s, lasts_s, client))
    for one in compare(backends(*weights), arrivals, workers=1, table_size=251, seed=1):
        assert one.wait_p99_s >= 0
        assert one.imbalance >= 1 - 1e-9
        assert 0 <= one.moved_gone <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_the_mean_that_was_stated(shape):
    stated_ = parse_duration(f"{shape}:2s")
    found = draws([stated_], 40_000, Random(1))
    assert min(found) >= 0
    assert sum(found) / len(found) == pytest.approx(2.0, rel=0.2 if shape == "pareto" else 0.03)


def test_a_mixture_has_its_weights():
    mixture = [parse_duration("9*const:50ms"), parse_duration("exp:5m")]
    assert mean_of(mixture) == pytest.approx(0.9 * 0.05 + 0.1 * 300)
    assert draws(mixture, 1000, Random(1)).count(0.05) == pytest.approx(900, abs=40)


@pytest.mark.parametrize(
    "text", ["30s", "exp", "exp:30", "gauss:1s", "exp:0s", "0*exp:1s", "exp:-1s"]
)
def test_what_is_no_duration_is_said_with_an_example(text):
    with pytest.raises(ValueError, match=r"exp:30s|more than 0"):
        parse_duration(text)


def test_the_drawing_is_xml_with_every_algorithm_and_the_one_in_force():
    found = [*compared(backends(1, 1), ["exp:1s"], count=300).values()]
    root = ElementTree.fromstring(svg(found, "shop/web <80>", "maglev"))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "maglev (chosen)" in texts
    assert texts.count("least-connections") == 4
    lines = list(root.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(lines) == len(Algorithm)
    width, height = float(root.get("width")), float(root.get("height"))
    for line in lines:
        for point in line.get("points").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height


def test_bars_are_as_long_as_their_figures():
    assert bar(1, 1, 4) == "████"
    assert bar(0.5, 1, 4) == "██"
    assert bar(0.3, 1, 4) == "█▎"
    assert bar(0, 0) == ""
    rows = cells([*compared(backends(1, 1), ["exp:1s"], count=300).values()])
    assert [len(row) for row in rows] == [4] * len(Algorithm)
    assert [seconds(value) for value in (0, 0.0123, 3.44)] == ["0", "12 ms", "3.4 s"]
