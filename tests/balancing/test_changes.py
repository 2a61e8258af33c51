"""What changed between two mappings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sixfold.balancing.changes import changes
from sixfold.model.layers import Layers

VALUES = [object() for _ in range(3)]
MAPPINGS = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(VALUES))


@given(MAPPINGS, MAPPINGS)
def test_applying_the_changes_to_the_old_mapping_gives_the_new_one(old, new):
    gone, changed = changes(old, new)
    patched = {key: value for key, value in old.items() if key not in gone}
    assert patched | {key: new[key] for key in changed} == new
    assert all(old.get(key) is not new[key] for key in changed)
    assert set(gone) == old.keys() - new.keys()


@given(MAPPINGS, MAPPINGS)
def test_layers_have_the_changes_of_plain_mappings(old, new):
    before = Layers(old)
    after = before.changed(new, old.keys() - new.keys())
    assert [*map(set, changes(before, after))] == [*map(set, changes(old, new))]
