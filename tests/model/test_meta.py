from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.model.meta import (
    Key,
    LabelSelector,
    LabelSelectorRequirement,
    Namespace,
    ObjectMeta,
    namespace_labels,
)


@pytest.mark.parametrize(
    ("operator", "values", "matching"),
    [
        pytest.param("In", ["a", "b"], ["a"], id="In needs the key"),
        pytest.param("NotIn", ["a"], ["c", None], id="NotIn matches without the key"),
        pytest.param("Exists", [], ["a", "c"], id="Exists"),
        pytest.param("DoesNotExist", [], [None], id="DoesNotExist"),
    ],
)
def test_expressions_follow_the_api(operator, values, matching):
    requirement = LabelSelectorRequirement(key="k", operator=operator, values=values)
    worlds = {value: {"k": value} if value else {"other": "a"} for value in ("a", "c", None)}
    assert [v for v, labels in worlds.items() if requirement.matches(labels)] == matching


@given(st.dictionaries(st.text(), st.text()))
def test_an_empty_selector_selects_everything(labels):
    assert LabelSelector().matches(labels)
    assert LabelSelector(match_labels=labels).matches({**labels, "more": "x"}) or "more" in labels


def test_all_lines_of_a_selector_must_hold():
    requirement = LabelSelectorRequirement(key="b", operator="Exists")
    selector = LabelSelector(match_labels={"a": "1"}, match_expressions=[requirement])
    assert selector.matches({"a": "1", "b": ""})
    assert not selector.matches({"a": "1"})
    assert not selector.matches({"b": ""})


def test_the_name_label_of_a_namespace_cannot_be_forged():
    assert namespace_labels("n", {"kubernetes.io/metadata.name": "m", "a": "b"}) == {
        "kubernetes.io/metadata.name": "n",
        "a": "b",
    }


def test_kind_and_version_are_always_encoded():
    encoded = msgspec.to_builtins(Namespace(metadata=ObjectMeta(name="n")))
    assert encoded == {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}


def test_keys_read_as_users_write_them():
    assert str(Key("Pod", "n", "a")) == "pod n/a"
    assert str(Key("Namespace", "", "n")) == "namespace n"
