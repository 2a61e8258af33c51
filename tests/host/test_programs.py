"""Programs of the datapath, as far as no kernel need hold them: what is done around them."""

import os
import signal

import pytest

from sixfold.host import programs


@pytest.fixture
def knob(tmp_path, monkeypatch):
    path = tmp_path / "rcu_expedited"
    path.write_text("0\n")
    monkeypatch.setattr(programs, "RCU_EXPEDITED", path)
    monkeypatch.setattr(programs, "RCU_BEFORE", tmp_path / "before")
    return path


def test_the_hosts_knob_is_turned_for_as_long_as_needed(knob):
    with programs.expedited_rcu():
        assert knob.read_text() == "1\n"
    assert knob.read_text() == "0\n"


def test_a_knob_that_the_host_has_turned_stays_turned(knob):
    knob.write_text("1\n")
    with programs.expedited_rcu():
        pass
    assert knob.read_text() == "1\n"


def test_who_comes_after_one_that_was_killed_puts_the_knob_back(knob):
    for _ in range(2):
        if (pid := os.fork()) == 0:
            with programs.expedited_rcu():
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        assert knob.read_text() == "1\n"
    with programs.expedited_rcu():
        pass
    assert knob.read_text() == "0\n"
    assert not programs.RCU_BEFORE.exists()
