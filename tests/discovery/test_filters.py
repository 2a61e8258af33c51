"""Filter expressions: what they choose, and that what is unknown is an error."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.discovery.filters import FilterError, compile_filter


class Inner(msgspec.Struct):
    ID: str = "w1"
    Port: int = 80
    Up: bool = True
    Tags: list[str] = msgspec.field(default_factory=lambda: ["a", "primary"])
    Meta: dict[str, str] = msgspec.field(default_factory=lambda: {"env": "prod", "a-b": "c"})


class Entry(msgspec.Struct):
    Service: Inner = msgspec.field(default_factory=Inner)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", True),
        ('Service.ID == "w1"', True),
        ("Service.ID == w1", True),
        ("Service.ID != w1", False),
        ("Service.Port == 80 and Service.Up == true", True),
        ("Service.Port == 81 or Service.Up == true", True),
        ("not Service.Port == 80", False),
        ("not (Service.Port == 81 or Service.Up == false)", True),
        ("primary in Service.Tags", True),
        ('"x" not in Service.Tags', True),
        ("Service.Tags contains a", True),
        ("Service.Tags not contains a", False),
        ("Service.Tags is empty", False),
        ("Service.Tags is not empty", True),
        ("env in Service.Meta", True),
        ("Service.Meta.env == prod", True),
        ('Service.Meta["a-b"] == `c`', True),
        ("Service.Meta.none == prod", False),
        ("Service.Meta.none != prod", True),
        ("Service.Port == 81 and Service.Port == 80 or Service.ID == w1", True),
        ('Service.ID == "w\\"1"', False),
    ],
)
def test_an_expression_chooses(text, chosen):
    assert compile_filter(text, Entry)(Entry()) is chosen


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Service.Nope == 1", 'selector "Service.Nope" is not valid'),
        ("Service.ID.x == 1", 'selector "Service.ID.x" is not valid'),
        ("Service.ID", "an operator"),
        ("Service.ID ==", "ends too early"),
        ("Service.ID == (", "a value belongs here"),
        ("Service.Port == x", "is int, not 'x'"),
        ("Service.Tags == a", "for single values"),
        ("a in Service.Port", "for lists, maps and strings"),
        ("Service.ID matches w", "no regular expressions"),
        ("(Service.ID == w1", 'a "\\)" is missing'),
        ("Service.ID == w1 w2", "nothing may follow"),
        ('Service.ID == "w1', "is not understood"),
        ("(" * 100, "levels deep"),
        ("x" * 5000, "longer than"),
    ],
)
def test_what_is_unknown_is_an_error_that_says_what(text, says):
    with pytest.raises(FilterError, match=says):
        compile_filter(text, Entry)


WORDS = ["Service.ID", "==", '"a"', "and", "or", "not", "(", ")", "in", "is", "empty", "["]


@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_anything_else_is_either_a_filter_or_an_error(words):
    with suppress(FilterError):
        compile_filter(" ".join(words), Entry)(Entry())
