"""Flow records and conntrack together say how long connections lasted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sixfold.observe import join
from sixfold.observe.recorded import ends_of, recorded

from .flow_samples import OFFSET_NS, Event, sample_names

FLOW = join(Event(time_ns=10_000_000_000), sample_names(), OFFSET_NS)
NOW_S = OFFSET_NS / 1e9 + 100


def test_an_ended_connection_lasted_until_its_last_packet_and_an_open_one_until_now():
    other = replace(FLOW, source=replace(FLOW.source, port=41235), time_ns=FLOW.time_ns - 10**9)
    known = {ends_of(FLOW): (60.0, False), ends_of(other): (50.0, True)}
    found = recorded([FLOW, other], known, NOW_S)
    assert [(round(one.lasts_s), one.open) for one in found] == [(91, True), (30, False)]
    assert found[1].client == FLOW.source.endpoint_id


def test_what_conntrack_forgot_or_never_let_in_is_left_out():
    assert recorded([FLOW], {}, NOW_S) == []
    dropped = replace(FLOW, verdict=2)
    assert recorded([dropped], {ends_of(FLOW): (0.0, True)}, NOW_S) == []


@pytest.mark.parametrize("idle_s", [90.5, 95.0])
def test_what_was_over_within_the_first_tick_lasted_nothing(idle_s):
    (found,) = recorded([FLOW], {ends_of(FLOW): (idle_s, False)}, NOW_S)
    assert found.lasts_s == 0
