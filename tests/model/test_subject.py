from __future__ import annotations

import msgspec
import pytest

from sixfold.model.identity import NamedPort
from sixfold.model.meta import ObjectMeta
from sixfold.model.subject import (
    container_ports,
    probe_ports,
    service_account_of,
    serving_containers,
    subject_of,
)
from sixfold.model.workload import PodSpec


def spec(*containers, init=(), **more):
    raw = {"containers": list(containers), "initContainers": list(init), **more}
    return msgspec.convert(raw, PodSpec)


HTTP = {"containerPort": 80, "name": "http"}
METRICS = {"containerPort": 9090, "name": "metrics"}


def test_labels_and_ports_are_sorted_so_that_equal_pods_are_equal():
    one = subject_of("n", ObjectMeta(labels={"b": "2", "a": "1"}), spec({"name": "c"}))
    two = subject_of("n", ObjectMeta(labels={"a": "1", "b": "2"}), spec({"name": "d"}))
    assert one == two
    assert one.labels == (("a", "1"), ("b", "2"))


def test_named_ports_are_those_of_containers_and_sidecars():
    pod = spec(
        {"name": "a", "ports": [HTTP, {"containerPort": 81}]},
        init=[
            {"name": "sidecar", "restartPolicy": "Always", "ports": [METRICS]},
            {"name": "init", "ports": [{"containerPort": 5, "name": "never"}]},
        ],
    )
    assert subject_of("n", ObjectMeta(), pod).named_ports == (
        NamedPort("http", "TCP", 80),
        NamedPort("metrics", "TCP", 9090),
    )


def test_a_port_that_two_containers_name_counts_once():
    pod = spec({"name": "a", "ports": [HTTP]}, {"name": "b", "ports": [HTTP]})
    assert container_ports(pod) == (NamedPort("http", "TCP", 80),)


def test_ports_without_a_name_are_listed_with_none():
    pod = spec({"name": "a", "ports": [{"containerPort": 53, "protocol": "UDP"}]})
    assert container_ports(pod) == (NamedPort("", "UDP", 53),)
    assert subject_of("n", ObjectMeta(), pod).named_ports == ()


@pytest.mark.parametrize(
    ("probe", "ports"),
    [
        pytest.param({"httpGet": {"port": "http"}}, {80}, id="name"),
        pytest.param({"httpGet": {"port": 8080}}, {8080}, id="number"),
        pytest.param({"tcpSocket": {"port": 81}}, {81}, id="tcp"),
        pytest.param({"grpc": {"port": 82}}, {82}, id="grpc"),
        pytest.param({"exec": {"command": ["true"]}}, set(), id="exec"),
        pytest.param({"httpGet": {"port": 80, "host": "192.0.2.1"}}, set(), id="elsewhere"),
        pytest.param({"httpGet": {"port": "nowhere"}}, set(), id="unknown name"),
    ],
)
@pytest.mark.parametrize("field", ["readinessProbe", "livenessProbe", "startupProbe"])
def test_probe_ports_are_those_that_the_node_dials(field, probe, ports):
    assert probe_ports(spec({"name": "a", "ports": [HTTP], field: probe})) == ports


def test_a_probe_names_ports_of_its_own_container():
    probe = {"readinessProbe": {"httpGet": {"port": "http"}}}
    pod = spec({"name": "a", "ports": [HTTP]}, {"name": "b", **probe})
    assert probe_ports(pod) == set()


def test_sidecars_come_before_the_containers_that_need_them():
    pod = spec({"name": "a"}, init=[{"name": "s", "restartPolicy": "Always"}, {"name": "i"}])
    assert [container.name for container in serving_containers(pod)] == ["s", "a"]


@pytest.mark.parametrize(
    ("fields", "account"),
    [
        ({}, "default"),
        ({"serviceAccountName": "web"}, "web"),
        ({"serviceAccount": "web"}, "web"),
        ({"serviceAccountName": ""}, "default"),
    ],
)
def test_the_service_account_has_a_default_and_an_old_name(fields, account):
    assert service_account_of(spec({"name": "a"}, **fields)) == account
