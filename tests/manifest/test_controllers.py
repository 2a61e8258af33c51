from __future__ import annotations

import pytest


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"])
def test_the_selector_must_match_the_template(said, make, kind):
    raw = make.deployment({"selector": {"matchLabels": {"app": "db"}}}, kind=kind)
    assert said(raw) == [
        "spec.selector: does not match the labels of spec.template.metadata; make them agree"
    ]


def test_a_selector_that_selects_everything_is_refused(said, make):
    assert said(make.deployment({"selector": {}})) == [
        "spec.selector: selects every pod; give matchLabels of the template"
    ]


def test_the_pods_of_a_deployment_always_restart(said, make):
    raw = make.deployment()
    raw["spec"]["template"]["spec"]["restartPolicy"] = "Never"
    assert said(raw) == [
        "spec.template.spec.restartPolicy: Never: a Deployment restarts its pods; give Always"
    ]


def test_the_pods_of_a_job_end(said, make):
    raw = make.job()
    del raw["spec"]["template"]["spec"]["restartPolicy"]
    assert said(raw) == [
        "spec.template.spec.restartPolicy: Always: a Job ends; give OnFailure or Never"
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param({"replicas": -1}, "replicas: -1 is out of range; give 0 to", id="replicas"),
        pytest.param({"replicas": 10**12}, "replicas: 1000000000000 is out of", id="too many"),
        pytest.param(
            {"minReadySeconds": 5, "progressDeadlineSeconds": 5},
            "progressDeadlineSeconds: 5 is not above minReadySeconds, 5",
            id="deadline",
        ),
        pytest.param({"strategy": {"type": "OnDelete"}}, 'strategy.type: "OnDelete" is', id="type"),
        pytest.param(
            {"strategy": {"type": "Recreate", "rollingUpdate": {}}},
            "strategy.rollingUpdate: has no meaning with Recreate",
            id="recreate",
        ),
        pytest.param(
            {"strategy": {"rollingUpdate": {"maxSurge": "25"}}},
            'strategy.rollingUpdate.maxSurge: "25" is no share',
            id="share",
        ),
        pytest.param(
            {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}},
            "strategy.rollingUpdate: maxSurge and maxUnavailable are both 0",
            id="stuck",
        ),
    ],
)
def test_what_a_deployment_cannot_be_is_said(said, make, spec, message):
    (line,) = said(make.deployment(spec))
    assert line.startswith(f"spec.{message}")


def test_a_template_may_have_a_name_but_no_other_namespace(said, make):
    raw = make.deployment()
    raw["metadata"]["namespace"] = "shop"
    raw["spec"]["template"]["metadata"] |= {"name": "web", "namespace": "shop"}
    assert said(raw) == []
    raw["spec"]["template"]["metadata"]["namespace"] = "other"
    assert said(raw) == [
        "spec.template.metadata.namespace: pods are made in the namespace of their Deployment;"
        " remove it"
    ]


def test_problems_inside_the_template_name_their_place(said, make):
    raw = make.deployment()
    raw["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": 0}]
    (line,) = said(raw)
    assert line.startswith("spec.template.spec.containers[0].ports[0].containerPort: 0 is not")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param({"completions": -1}, "completions: -1 is out of range", id="completions"),
        pytest.param(
            {"activeDeadlineSeconds": 0}, "activeDeadlineSeconds: 0 is out", id="deadline"
        ),
        pytest.param({"suspend": True}, "suspend: not supported: the job would run", id="suspend"),
        pytest.param({"completionMode": "Indexed"}, "completionMode: not supported", id="indexed"),
    ],
)
def test_what_a_job_cannot_be_is_said(said, make, spec, message):
    (line,) = said(make.job(spec))
    assert line.startswith(f"spec.{message}")
