from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.model.workload import Pod
from sixfold.workloads.environment import (
    DEFAULT_PATH,
    ContainerConfigError,
    Placement,
    arguments,
    environment,
    expand,
    field,
    hostname,
    user,
)

PLACE = Placement("node-1", ("10.244.0.1", "fd00::1"), ("10.244.0.2", "fd00::2"))


def make_pod(container=None, meta=None, **spec):
    main = {"name": "main", "command": ["x"], **(container or {})}
    raw = {
        "metadata": {"name": "web", "namespace": "shop", "uid": "u-1", **(meta or {})},
        "spec": {"containers": [main], **spec},
    }
    return msgspec.convert(raw, Pod)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$(A)", "one"),
        ("<$(A)$(B)>", "<onetwo>"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$one"),
        ("$(MISSING)", "$(MISSING)"),
        ("$(A", "$(A"),
        ("$A", "$A"),
        ("cost 5$", "cost 5$"),
        ("$$", "$"),
        ("$()", "$()"),
    ],
)
def test_references_expand_as_kubernetes_documents(text, expected):
    assert expand(text, {"A": "one", "B": "two"}) == expected


@given(st.text(alphabet="ab $()AB", max_size=20))
def test_doubling_every_dollar_keeps_a_text_as_written(text):
    assert expand(text.replace("$", "$$"), {"A": "x", "": "y"}) == text


def test_variable_sees_only_those_before_it():
    env = [
        {"name": "A", "value": "$(B)"},
        {"name": "B", "value": "two"},
        {"name": "C", "value": "$(B)"},
    ]
    made = environment(make_pod({"env": env}), make_pod({"env": env}).spec.containers[0], PLACE)
    assert (made["A"], made["C"]) == ("$(B)", "two")


def test_later_variable_of_the_same_name_wins():
    env = [{"name": "PATH", "value": "/opt/bin:$(PATH)"}]
    pod = make_pod({"env": env})
    made = environment(pod, pod.spec.containers[0], PLACE)
    assert made["PATH"] == f"/opt/bin:{DEFAULT_PATH}"
    assert made["HOSTNAME"] == "web"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "shop-web"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['example.com/x']", "y"),
        ("spec.nodeName", "node-1"),
        ("spec.serviceAccountName", "robot"),
        ("status.podIP", "10.244.0.2"),
        ("status.podIPs", "10.244.0.2,fd00::2"),
        ("status.hostIP", "10.244.0.1"),
    ],
)
def test_field_references(path, expected):
    meta = {"labels": {"app": "shop-web"}, "annotations": {"example.com/x": "y"}}
    assert field(make_pod(meta=meta, serviceAccountName="robot"), PLACE, path) == expected


def test_unknown_field_is_an_error_that_lists_the_known_ones():
    with pytest.raises(
        ContainerConfigError, match=r"spec\.priority.*not supported.*metadata\.name"
    ):
        field(make_pod(), PLACE, "spec.priority")


def test_arguments_are_command_and_args_expanded():
    pod = make_pod({"command": ["/bin/echo", "$(A)"], "args": ["$(B)", "$$(A)"]})
    assert arguments(pod.spec.containers[0], {"A": "1"}) == ("/bin/echo", "1", "$(B)", "$(A)")


def test_container_without_a_command_is_refused():
    pod = make_pod({"command": []})
    with pytest.raises(ContainerConfigError, match="main: no command"):
        arguments(pod.spec.containers[0], {})


def test_user_of_the_container_wins_over_the_pods_field_by_field():
    pod = make_pod(
        {"securityContext": {"runAsUser": 7}},
        securityContext={"runAsUser": 5, "runAsGroup": 6, "supplementalGroups": [8, 9]},
    )
    made = user(pod, pod.spec.containers[0])
    assert (made.uid, made.gid, made.groups) == (7, 6, (8, 9))


@pytest.mark.parametrize(
    ("container", "pod"),
    [
        ({"runAsNonRoot": True}, {}),
        ({}, {"runAsNonRoot": True}),
        ({"runAsUser": 0}, {"runAsNonRoot": True, "runAsUser": 5}),
    ],
)
def test_root_is_refused_where_it_is_excluded(container, pod):
    made = make_pod({"securityContext": container}, securityContext=pod)
    with pytest.raises(ContainerConfigError, match="runAsNonRoot is set"):
        user(made, made.spec.containers[0])


def test_container_may_lift_the_pods_exclusion_of_root():
    made = make_pod(
        {"securityContext": {"runAsNonRoot": False}}, securityContext={"runAsNonRoot": True}
    )
    assert user(made, made.spec.containers[0]).uid == 0


def test_hostname_is_the_pods_name_cut_to_a_label():
    assert hostname(make_pod()) == "web"
    assert hostname(make_pod(hostname="db")) == "db"
    assert len(hostname(make_pod(meta={"name": "x" * 80}))) == 63
