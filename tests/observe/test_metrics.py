"""What is written is what Prometheus' own parsers read."""

from __future__ import annotations

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from sixfold.observe.metrics import Durations, Family, render, single

ODD = 'a "quoted"\\ name\nof two lines'


def families() -> list[Family]:
    rounds = Durations((0.1, 1))
    for took_s in (0.05, 0.1, 0.5, 7):
        rounds.add(took_s)
    return [
        single("sixfold_up", "gauge", "Whether; a \\ and all.", 1),
        Family("sixfold_drops", "counter", "Drops.", ("reason",), [(("x",), 3), ((ODD,), 2)]),
        Family("sixfold_nothing", "counter", "Never there.", ("reason",), []),
        rounds.family("sixfold_round_seconds", "Rounds."),
    ]


def read(parsed) -> dict[str, list[tuple[str, dict[str, str], float]]]:
    return {
        family.name: [(one.name, one.labels, one.value) for one in family.samples]
        for family in parsed
    }


def test_both_formats_say_the_same_to_their_parsers():
    plain = read(text_string_to_metric_families(render(families())))
    open_ = read(openmetrics.text_string_to_metric_families(render(families(), openmetrics=True)))
    assert plain == open_


def test_values_labels_and_types_come_through():
    found = {one.name: one for one in text_string_to_metric_families(render(families()))}
    assert found["sixfold_drops"].type == "counter"
    samples = [(one.name, one.labels, one.value) for one in found["sixfold_drops"].samples]
    assert samples == [
        ("sixfold_drops_total", {"reason": "x"}, 3),
        ("sixfold_drops_total", {"reason": ODD}, 2),
    ]
    assert found["sixfold_up"].type == "gauge"
    assert "sixfold_nothing" not in found


def test_buckets_of_a_histogram_add_up():
    samples = read(text_string_to_metric_families(render(families())))["sixfold_round_seconds"]
    assert samples == [
        ("sixfold_round_seconds_bucket", {"le": "0.1"}, 2),
        ("sixfold_round_seconds_bucket", {"le": "1.0"}, 3),
        ("sixfold_round_seconds_bucket", {"le": "+Inf"}, 4),
        ("sixfold_round_seconds_count", {}, 4),
        ("sixfold_round_seconds_sum", {}, 7.65),
    ]
