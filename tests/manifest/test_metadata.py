from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("meta", "start"),
    [
        pytest.param({}, "metadata.name: is required", id="no name"),
        pytest.param({"generateName": "a-"}, "metadata.generateName: names are not", id="generate"),
        pytest.param({"name": "Web"}, 'metadata.name: "Web" is not a DNS name', id="upper case"),
        pytest.param(
            {"name": "a", "namespace": "a.b"}, 'metadata.namespace: "a.b" is not a DNS', id="dots"
        ),
        pytest.param({"name": "a", "labels": {"a b": ""}}, 'metadata.labels["a b"]: key', id="key"),
        pytest.param({"name": "a", "labels": {"a": "-"}}, 'metadata.labels.a: "-" is', id="value"),
        pytest.param(
            {"name": "a", "annotations": {"a/b/c": ""}},
            'metadata.annotations["a/b/c"]: key',
            id="annotation",
        ),
        pytest.param(
            {"name": "a", "annotations": {"a": "x" * 300_000}},
            "metadata.annotations: 300001 bytes",
            id="size",
        ),
    ],
)
def test_metadata_follows_the_rules_of_the_api_server(said, make, meta, start):
    (message,) = said(make.pod(metadata=meta))
    assert message.startswith(start)


def test_a_service_name_starts_with_a_letter(said, make):
    raw = make.service()
    raw["metadata"]["name"] = "1web"
    assert said(raw) == [
        'metadata.name: "1web" starts with a digit; a service name starts with a letter'
    ]


def test_a_namespace_is_in_no_namespace(said, make):
    raw = make.namespace()
    raw["metadata"]["namespace"] = "shop"
    assert said(raw) == ["metadata.namespace: a Namespace is in no namespace; remove it"]


@pytest.mark.parametrize(
    ("line", "start"),
    [
        pytest.param({"key": "a", "operator": "In"}, "values: operator In needs", id="In"),
        pytest.param({"key": "a", "operator": "NotIn"}, "values: operator NotIn needs", id="NotIn"),
        pytest.param(
            {"key": "a", "operator": "Exists", "values": ["b"]},
            "values: operator Exists takes no values",
            id="Exists",
        ),
        pytest.param(
            {"key": "a", "operator": "DoesNotExist", "values": ["b"]},
            "values: operator DoesNotExist takes no values",
            id="DoesNotExist",
        ),
        pytest.param(
            {"key": "a", "operator": "in", "values": ["b"]},
            'operator: "in" is not one of DoesNotExist, Exists, In, NotIn; did you mean In?',
            id="case",
        ),
        pytest.param({"key": "a b", "operator": "Exists"}, 'key: key "a b" is', id="key"),
        pytest.param(
            {"key": "a", "operator": "In", "values": ["-"]}, 'values[0]: "-" is', id="value"
        ),
    ],
)
def test_an_expression_that_selects_nothing_sensible_is_refused(said, make, line, start):
    (message,) = said(make.policy({"podSelector": {"matchExpressions": [line]}}))
    assert message.startswith(f"spec.podSelector.matchExpressions[0].{start}")


@pytest.mark.parametrize(
    ("owners", "wanted"),
    [
        pytest.param([{"name": "web"}], "ownerReferences[0].kind: is required; add it", id="kind"),
        pytest.param(
            [{"kind": "Job", "name": 7}], "ownerReferences[0].name: is required; add it", id="name"
        ),
        pytest.param(
            [{"kind": "Job", "name": name, "controller": True} for name in "ab"],
            "ownerReferences[1].controller: a second controller; keep one",
            id="two-controllers",
        ),
    ],
)
def test_an_owner_that_cannot_be_found_is_refused(said, make, owners, wanted):
    raw = make.namespace()
    raw["metadata"]["ownerReferences"] = owners
    assert said(raw) == [f"metadata.{wanted}"]
