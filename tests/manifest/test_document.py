from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from sixfold.errors import Problem
from sixfold.manifest.document import line_of, parse
from sixfold.manifest.scalar import plain


def read(text):
    problems: list[Problem] = []
    return [document.value for document in parse(text, "f", problems)], list(map(str, problems))


def test_keys_are_strings_as_written():
    assert read("{80: a, yes: b, null: c}") == ([{"80": "a", "yes": "b", "null": "c"}], [])


def test_quotes_make_a_string():
    assert read("- '80'\n- \"yes\"\n- |\n  80\n- !!str 80")[0] == [["80", "yes", "80\n", "80"]]


def test_every_document_of_a_stream_is_read():
    assert read("a: 1\n---\n---\nb: 2\n")[0] == [{"a": 1}, None, {"b": 2}]


def test_an_alias_repeats_the_value_of_its_anchor():
    assert read("a: &x {k: 1}\nb: *x\nc: &y z\nd: *y")[0] == [
        {"a": {"k": 1}, "b": {"k": 1}, "c": "z", "d": "z"}
    ]


def test_a_merge_key_adds_what_is_not_written():
    text = "a: &x {k: 1, l: 2}\nb: {<<: *x, l: 3}\nc: {<<: [{m: 1}, {m: 2, n: 3}]}"
    values, problems = read(text)
    assert values[0]["b"] == {"k": 1, "l": 3}
    assert values[0]["c"] == {"m": 1, "n": 3}
    assert problems == []


def test_a_key_twice_is_reported_at_its_second_place_with_the_first():
    values, problems = read("spec:\n  ports:\n  - port: 1\n    port: 2\n")
    assert problems == [
        "f:4: spec.ports[0].port: key 'port' is here twice, first in line 3; keep one"
    ]
    assert values == [{"spec": {"ports": [{"port": 1}]}}]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        pytest.param("a: 1\nb: [1, 2\nc: 3", "f:3:2: not YAML: while parsing", id="bracket"),
        pytest.param("a:\n\tb: 1", "f:2:1: not YAML: while scanning", id="tab"),
        pytest.param("a: b\n c: d", "f:2:3: not YAML: mapping values are not", id="indent"),
        pytest.param("a: 'b", "f:1:6: not YAML: while scanning a quoted", id="quote"),
        pytest.param("ok: 1\nb: \x01", "f:2: not YAML: character U+0001", id="control"),
        pytest.param("a: \ud83d", "f:1: not YAML: half of a UTF-16 pair", id="surrogate"),
    ],
)
def test_text_that_is_not_yaml_names_line_and_column(text, start):
    _, problems = read(text)
    assert len(problems) == 1
    assert problems[0].startswith(start)


def test_a_tab_that_indents_is_called_by_its_name():
    assert read("a:\n\tb: 1")[1][0].endswith("; a tab indents this line, use spaces")


def test_documents_before_the_malformed_one_are_still_read():
    values, problems = read("a: 1\n---\nb: [")
    assert values == [{"a": 1}]
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: &x {b: *x}", "alias *x refers to itself", id="cyclic"),
        pytest.param("a: *x", "alias *x has no anchor before it", id="missing"),
        pytest.param("[" * 5000, "nested deeper than 100 levels", id="deep"),
        pytest.param("- " * 5000, "nested deeper than 100 levels", id="deep block"),
        pytest.param("? " * 5000, "nested deeper than 100 levels", id="deep keys"),
        pytest.param("a: !python/object:os.system x", "tag !python/object:os.system", id="tag"),
        pytest.param("{[a]: 1}", "a key is a mapping or a list", id="list as key"),
        pytest.param("<<: 5", "<< merges mappings only", id="merge of a scalar"),
    ],
)
def test_what_no_manifest_needs_is_refused(text, message):
    assert message in " ".join(read(text)[1])


def test_an_alias_bomb_is_refused_before_it_costs_anything():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    _, problems = read("\n".join(lines))
    assert problems == ["f:5: aliases repeat more than 100000 nodes; write the values out"]


def test_the_line_of_a_path_is_that_of_its_key_or_item():
    text = "# head\nspec:\n  ports:\n  - port: 80\n    name: a\n  - {port: 81,\n     name: b}\n"
    (document,) = parse(text, "f", [])
    assert line_of(document, ("spec",)) == 2
    assert line_of(document, ("spec", "ports")) == 3
    assert line_of(document, ("spec", "ports", 0, "name")) == 5
    assert line_of(document, ("spec", "ports", 1)) == 6
    assert line_of(document, ("spec", "ports", 1, "name")) == 7
    assert line_of(document, ("spec", "ports", 0, "missing")) == 4
    assert line_of(document, ("missing",)) == 2


def test_a_flood_of_problems_stops_the_reading():
    _, problems = read("\n".join(f"k{n % 3000}: 1" for n in range(6000)))
    assert len(problems) == 1001
    assert "the rest was not read" in problems[-1]


keys = st.text(max_size=40)  # a key longer than 1024 bytes needs "? " in YAML; none has it
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)


class Quoting(yaml.SafeDumper):
    """Quotes what Go takes for a number, too: PyYAML takes 0E0 for a word."""


def _text(dumper, text):
    style = None if text and type(plain(text)) is str else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


Quoting.add_representer(str, _text)


@given(json_values)
@example({"<<": {"a": 1}})
@example(["0E0", "1e3"])
def test_what_yaml_writes_is_read_back(value):
    assert read(yaml.dump(value, Dumper=Quoting)) == ([value], [])


@given(json_values)
@example({"<<": None})
def test_what_json_writes_is_read_back(value):
    assert read(json.dumps({"value": value})) == ([{"value": value}], [])
    assert read(json.dumps({"value": value}, indent="\t")) == ([{"value": value}], [])


@given(st.text())
def test_any_text_gives_values_or_problems_and_never_a_crash(text):
    read(text)
