"""Hysteresis: what flaps moves nobody."""

from __future__ import annotations

from sixfold.agent.globalnames import Track
from sixfold.model.globalname import RegionCheck


def seen(results: str, *, well: bool = True, known: bool = True) -> str:
    """Health after each result: + passed, - failed."""
    check = RegionCheck(success_threshold=2, failure_threshold=3)
    track = Track(check, 0.0, well, known)
    found = ""
    for result in results:
        track.take(result == "+")
        found += "w" if track.well else "i"
    return found


def test_an_address_is_ill_after_as_many_failures_in_a_row_as_were_asked_for():
    assert seen("--+--+---") == "wwwwwwwwi"


def test_and_well_again_after_as_many_successes():
    assert seen("+-+-++", well=False) == "iiiiiw"


def test_the_first_answer_decides_at_once():
    assert seen("-", known=False) == "i"
    assert seen("+", known=False) == "w"
