"""The words for modes."""

from __future__ import annotations

from typing import get_args

from sixfold.model.mesh import MODES, Mode, Mtls


def test_every_word_that_up_takes_is_a_mode():
    assert set(MODES) == set(get_args(Mtls))
    assert set(MODES.values()) == set(Mode)
