"""A layered mapping is a mapping like any other; what differs is found without asking all."""

from hypothesis import given
from hypothesis import strategies as st

from sixfold.model.layers import Layers, differing, flat, kept

KEYS = st.integers(0, 200)
CHANGE = st.tuples(st.dictionaries(KEYS, st.integers(0, 3).map(str)), st.sets(KEYS))


@given(st.dictionaries(KEYS, st.text(max_size=1)), st.lists(CHANGE, max_size=12))
def test_it_is_the_dict_that_the_same_changes_make(base, changes):
    layers, plain = Layers(base), dict(base)
    history = [(layers, dict(plain))]
    for puts, gone in changes:
        layers = layers.changed(puts, gone)
        plain = {key: value for key, value in {**plain, **puts}.items() if key not in gone}
        history.append((layers, dict(plain)))
    for made, wanted in history:  # the earlier ones too: nothing is changed in place
        assert (dict(made.items()), len(made), set(made)) == (wanted, len(wanted), set(wanted))
        assert [made.get(key) for key in range(201)] == [wanted.get(key) for key in range(201)]
        assert [key in made for key in range(201)] == [key in wanted for key in range(201)]


@given(st.dictionaries(KEYS, st.text(max_size=1)), st.lists(CHANGE, min_size=1, max_size=12))
def test_what_differs_is_what_a_comparison_finds(base, changes):
    every = [Layers(base)]
    for puts, gone in changes:
        every.append(every[-1].changed(puts, gone))
    for old in every:
        for new in every:
            wanted = {
                key
                for key in flat(old).keys() | flat(new).keys()
                if old.get(key) is not new.get(key)
            }
            assert differing(old, new) == wanted == differing(dict(old), dict(new))


def test_a_dict_that_is_kept_does_not_change_with_its_owner():
    mine = {"a": 1}
    there, layered = kept(mine), Layers(mine)
    mine["a"] = 2
    assert (there["a"], layered["a"]) == (1, 1)
