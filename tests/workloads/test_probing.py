from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sixfold.model.workload import Container, Probe
from sixfold.workloads.probing import ProbeTrack, Probing


def steady() -> float:
    return 0.5


def track(**fields):
    probe = msgspec.convert({"tcpSocket": {"port": 1}, **fields}, Probe)
    return ProbeTrack("readiness", probe, 0.0)


def test_successes_must_follow_one_another():
    probe = track(successThreshold=3)
    answers = [probe.take(ok, "", now_s) for now_s, ok in enumerate([1, 1, 0, 1, 1, 1])]
    assert answers == [None, None, None, None, None, "passed"]


def test_failures_must_follow_one_another():
    probe = track(failureThreshold=2, periodSeconds=1)
    assert [probe.take(ok, "", now_s) for now_s, ok in enumerate([0, 1, 0, 0])][-1] == "failed"
    assert [probe.take(ok, "", now_s) for now_s, ok in enumerate([1, 0, 1], 9)][1] is None


def test_last_complaint_is_kept_until_a_success():
    probe = track()
    probe.take(False, "ECONNREFUSED", 0.0)
    assert probe.message == "ECONNREFUSED"
    probe.take(True, "connected", 1.0)
    assert probe.message == ""


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 60))
def test_jitter_stays_within_a_tenth_of_the_period(chance, period):
    probe = track(periodSeconds=period)
    probe.schedule(100.0, lambda: chance, eager=False)
    assert abs(probe.next_s - 100.0 - period) <= period * 0.05 + 1e-9


def test_result_that_nobody_asked_for_is_not_counted():
    container = msgspec.convert(
        {"name": "main", "readinessProbe": {"tcpSocket": {"port": 1}}}, Container
    )
    probing = Probing(container, 0.0, steady)
    assert not probing.take("readiness", True, "", 0.0)
    assert not probing.ready
    probing.due(0.0)
    probing.take("readiness", True, "", 0.0)
    assert probing.ready
    assert not probing.take("liveness", False, "", 0.0)


def test_probe_under_way_is_not_due_again():
    container = msgspec.convert(
        {"name": "main", "readinessProbe": {"tcpSocket": {"port": 1}}}, Container
    )
    probing = Probing(container, 0.0, steady)
    assert [kind for kind, _ in probing.due(0.0)] == ["readiness"]
    assert probing.due(1000.0) == []
    assert probing.next_deadline() is None
