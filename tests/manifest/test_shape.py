from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param(
            {"hostname": 5},
            'spec.hostname: 5 is an integer; give a string: quote it, "5"',
            id="int",
        ),
        pytest.param(
            {"hostname": True},
            'spec.hostname: is a boolean; give a string: quote it, "true"',
            id="bool",
        ),
        pytest.param(
            {"hostNetwork": "no"},
            'spec.hostNetwork: "no" is a string; give true or false',
            id="string for bool",
        ),
        pytest.param(
            {"terminationGracePeriodSeconds": "30"},
            'spec.terminationGracePeriodSeconds: "30" is a string; give 30 without quotes',
            id="quoted number",
        ),
        pytest.param(
            {"terminationGracePeriodSeconds": 1.5},
            "spec.terminationGracePeriodSeconds: is a number; give an integer",
            id="float",
        ),
        pytest.param(
            {"initContainers": {}}, "spec.initContainers: is a mapping; give a list", id="mapping"
        ),
        pytest.param(
            {"securityContext": []}, "spec.securityContext: is a list; give a mapping", id="list"
        ),
        pytest.param(
            {"nodeSelector": "x"}, "spec.nodeSelector: is a string; give a mapping", id="string"
        ),
        pytest.param(
            {"nodeSelector": {"a": 1}},
            'spec.nodeSelector.a: 1 is an integer; give a string: quote it, "1"',
            id="value of a map",
        ),
        pytest.param(
            {"nodeSelector": {"a": None}},
            'spec.nodeSelector.a: is null; give "" when it is meant to be empty',
            id="null in a map",
        ),
        pytest.param(
            {"nodeSelector": {5: "a"}}, "spec.nodeSelector: key 5 is an integer; quote it", id="key"
        ),
        pytest.param(
            {"initContainers": [None]},
            "spec.initContainers[0]: is null; fill the item in or remove it",
            id="null in a list",
        ),
        pytest.param(
            {"restartPolicy": "never"},
            'spec.restartPolicy: "never" is not one of Always, Never, OnFailure;'
            " did you mean Never?",
            id="case of an enum",
        ),
        pytest.param(
            {"restartPolicy": "sometimes"},
            'spec.restartPolicy: "sometimes" is not one of Always, Never, OnFailure',
            id="enum",
        ),
        pytest.param(
            {"restartPolicy": []},
            "spec.restartPolicy: is a list: it is not one of Always, Never, OnFailure",
            id="list for an enum",
        ),
        pytest.param(
            {"hostnmae": "a"}, "spec.hostnmae: unknown field; did you mean hostname?", id="typo"
        ),
        pytest.param(
            {"xyzzy": 1},
            "spec.xyzzy: unknown field; remove it, or see docs/support.md",
            id="unknown",
        ),
    ],
)
def test_one_wrong_field_is_said_once_and_what_to_give(said, make, spec, message):
    assert said(make.pod(spec)) == [message]


def test_a_required_field_is_missed_where_it_belongs(said, make):
    raw = make.pod({"containers": [{"command": ["true"]}]})
    assert said(raw) == ["spec.containers[0].name: is required; add it"]
    del raw["spec"]
    assert said(raw) == ["spec: is required; add it"]


def test_a_null_field_is_an_absent_field(said, make):
    spec = {"hostname": None, "initContainers": None, "securityContext": {"runAsUser": None}}
    raw = make.pod(spec, status=None)
    raw["metadata"] |= {"creationTimestamp": None, "annotations": None}
    assert said(raw) == []


def test_a_required_field_that_is_null_is_missing(said, make):
    assert said(make.pod({"containers": None})) == ["spec.containers: is required; add it"]


def test_a_boolean_is_no_number(said, make):
    raw = make.service({"ports": [{"port": True}]})
    assert said(raw) == ["spec.ports[0].port: is a boolean; give an integer"]


def test_a_port_may_be_a_number_or_a_name_only(said, make):
    raw = make.service({"ports": [{"port": 80, "targetPort": 1.5}]})
    assert said(raw) == ["spec.ports[0].targetPort: is a number; give an integer or a string"]


def test_shape_and_meaning_are_reported_together(said, make):
    raw = make.policy(
        {
            "ingress": [
                {
                    "form": [],
                    "ports": [{"port": 80, "endPort": 79}, {"port": 0}, {"protocol": "tcp"}],
                },
                {"from": [{}]},
            ]
        }
    )
    paths = [line.partition(":")[0] for line in said(raw)]
    assert sorted(paths) == [
        "spec.ingress[0].form",
        "spec.ingress[0].ports[0].endPort",
        "spec.ingress[0].ports[1].port",
        "spec.ingress[0].ports[2].protocol",
        "spec.ingress[1].from[0]",
    ]


def test_a_consequence_of_a_wrong_field_is_not_reported(said, make):
    raw = make.deployment()
    raw["spec"]["template"]["metadata"]["labels"]["app"] = 5
    assert said(raw) == [
        'spec.template.metadata.labels.app: 5 is an integer; give a string: quote it, "5"'
    ]
    assert said(make.pod({"containers": 5})) == ["spec.containers: is an integer; give a list"]


def test_an_object_without_anything_right_is_still_only_reported(said):
    raw = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": [], "spec": 7}
    assert said(raw) == [
        "metadata: is a list; give a mapping",
        "spec: is an integer; give a mapping",
    ]
