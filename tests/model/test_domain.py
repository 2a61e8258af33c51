"""Patterns of names, held to a reference that tries everything a star could stand for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.policy.reference_languages import means

from sixfold.model.domain import DomainMatcher, an_example, matches, plain_name

LABELS = st.text("ab-_", min_size=1, max_size=4)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PARTS = st.text("ab*-", min_size=1, max_size=5)
PATTERNS = st.tuples(st.sampled_from(["", "**."]), st.lists(PARTS, min_size=1, max_size=3)).map(
    lambda drawn: drawn[0] + ".".join(drawn[1])
)


@given(PATTERNS, NAMES)
def test_patterns_mean_what_the_reference_says(pattern, name):
    assert matches(pattern, name) == means(pattern, name)


@given(st.lists(PATTERNS | NAMES, max_size=5), NAMES)
def test_many_patterns_are_asked_as_one_by_one(patterns, name):
    matcher = DomainMatcher(patterns)
    for _ in range(2):  # the second time it remembers
        assert matcher.of(name) == {one for one in patterns if matches(one, name)}


@given(PATTERNS | NAMES | st.just("*"))
def test_an_example_of_a_pattern_is_meant_by_it(pattern):
    assert matches(pattern, an_example(pattern))


@pytest.mark.parametrize(
    ("pattern", "name", "meant"),
    [
        pytest.param("*", "a.b.c", True, id="every name"),
        pytest.param("*.example.com", "example.com", False, id="not the name itself"),
        pytest.param("*.example.com", "a.b.example.com", False, id="one label"),
        pytest.param("**.example.com", "a.b.example.com", True, id="labels"),
        pytest.param("**.example.com", "example.com", False, id="one label at least"),
        pytest.param("api*.example.com", "api.example.com", True, id="no character"),
        pytest.param("*.example.com", "evil\\.example.com", False, id="a dot inside a label"),
        pytest.param("*.example.com", "a b.example.com", False, id="odd characters"),
        pytest.param("*example.com", "notexample.com", True, id="as written"),
        pytest.param("a*a.x", "a.x", False, id="parts do not overlap"),
    ],
)
def test_stars(pattern, name, meant):
    assert matches(pattern, name) is meant


def test_a_pattern_of_many_stars_is_no_trap():
    assert not matches("*a" * 60 + "*b.x", "a" * 63 + ".x")


def test_names_are_compared_in_lower_case_and_without_the_final_dot():
    assert plain_name("API.Example.Org.") == "api.example.org"
