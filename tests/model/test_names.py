"""A mapping in shards is a mapping: whatever the history, and its changes lead from old to new."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sixfold.model.names import Shards

CHANGES = st.dictionaries(st.integers(0, 3000), st.none() | st.integers(0, 3), max_size=30)


@given(st.lists(CHANGES, max_size=5))
def test_a_history_of_changes_is_that_of_a_dictionary(history):
    plain, shards = {}, Shards()
    for changes in history:
        before = shards
        shards = shards.changed(changes)
        for key, value in changes.items():
            plain.pop(key, None) if value is None else plain.update({key: value})
        assert dict(shards) == plain
        assert len(shards) == len(plain)
        assert dict(before.changed(shards.changes_from(before))) == plain
        assert set(shards.changes_from(before)) <= set(changes)


@given(CHANGES)
def test_what_does_not_change_is_the_same_object(changes):
    shards = Shards().changed(changes)
    assert shards.changed({}) is shards
    assert shards.changes_from(shards) == {}
