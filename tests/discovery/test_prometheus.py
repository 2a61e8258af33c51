"""Targets as Prometheus' kubernetes_sd would find them; names of labels from its documentation."""

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest

from sixfold.balancing.plan import plan_balancing
from sixfold.discovery.prometheus import Scene, groups
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import NamedPort, Subject
from sixfold.model.meta import ObjectMeta
from sixfold.model.service import Service, ServicePort, ServiceSpec
from sixfold.model.workload import Container, ContainerPort, Pod, PodSpec
from sixfold.model.world import World

META = "__meta_kubernetes"


def scene() -> Scene:
    ports = [ContainerPort(8080, "http"), ContainerPort(9090, "metrics")]
    meta = ObjectMeta(
        "web-1",
        "shop",
        labels={"app": "web", "app.kubernetes.io/name": "web"},
        annotations={"prometheus.io/path": "/m"},
        uid="u1",
    )
    web = Pod(meta, PodSpec([Container("main", ports=ports), Container("idle")]))
    named = tuple(NamedPort(one.name, one.protocol, one.container_port) for one in ports)
    endpoint = Endpoint(
        "shop",
        "web-1",
        "Deployment/web",
        Subject("shop", "default", (("app", "web"),), named),
        ipv4=ip_address("10.244.0.3"),
        ipv6=ip_address("fd00:5f:244::3"),
        ready=True,
        node="n1",
        publish_ports=named,
    )
    service = Service(
        ObjectMeta(
            "web", "shop", labels={"team": "a"}, annotations={"prometheus.io/scrape": "yes"}
        ),
        ServiceSpec(
            selector={"app": "web"},
            ports=[ServicePort(80, "http", target_port="http")],
            cluster_ip="10.96.0.5",
        ),
    )
    world = World(endpoints={"shop/web-1": endpoint}, services={"shop/web": service})
    slices = plan_balancing(world, lambda _: 1).slices
    return Scene(world, slices, {"shop/web-1": web}, {"shop/web-1": "Running"})


def targets(role: str, *namespaces: str) -> dict[str, dict[str, str]]:
    found = groups(scene(), role, frozenset(namespaces))
    return {str(one["targets"][0]): one["labels"] for one in found}  # type: ignore[index,misc]


def test_a_pod_is_a_target_per_container_port_and_bare_without_any():
    found = targets("pod")
    assert set(found) == {"10.244.0.3:8080", "10.244.0.3:9090", "10.244.0.3"}
    labels = found["10.244.0.3:9090"]
    assert {
        f"{META}_namespace": "shop",
        f"{META}_pod_name": "web-1",
        f"{META}_pod_ip": "10.244.0.3",
        f"{META}_pod_phase": "Running",
        f"{META}_pod_ready": "true",
        f"{META}_pod_node_name": "n1",
        f"{META}_pod_controller_kind": "Deployment",
        f"{META}_pod_controller_name": "web",
        f"{META}_pod_label_app_kubernetes_io_name": "web",
        f"{META}_pod_labelpresent_app": "true",
        f"{META}_pod_annotation_prometheus_io_path": "/m",
        f"{META}_pod_annotationpresent_prometheus_io_path": "true",
        f"{META}_pod_container_name": "main",
        f"{META}_pod_container_port_name": "metrics",
        f"{META}_pod_container_port_number": "9090",
        f"{META}_pod_container_port_protocol": "TCP",
        f"{META}_pod_container_init": "false",
    }.items() <= labels.items()


def test_a_service_is_a_target_per_port_under_its_name():
    (labels,) = targets("service").values()
    assert set(targets("service")) == {"web.shop.svc:80"}
    assert labels[f"{META}_service_cluster_ip"] == "10.96.0.5"
    assert labels[f"{META}_service_type"] == "ClusterIP"
    assert labels[f"{META}_service_port_name"] == "http"
    assert labels[f"{META}_service_annotation_prometheus_io_scrape"] == "yes"
    assert labels[f"{META}_service_labelpresent_team"] == "true"


@pytest.mark.parametrize("role", ["endpoints", "endpointslice"])
def test_an_endpoint_is_a_target_with_service_and_pod_and_its_pods_other_ports(role):
    found = targets(role)
    assert set(found) == {"10.244.0.3:8080", "10.244.0.3:9090"}
    labels = found["10.244.0.3:8080"]
    assert labels[f"{META}_service_name"] == "web"
    assert labels[f"{META}_pod_name"] == "web-1"
    assert labels[f"{META}_pod_container_port_number"] == "8080"
    if role == "endpoints":
        assert labels[f"{META}_endpoints_name"] == "web"
        assert labels[f"{META}_endpoint_ready"] == "true"
        assert labels[f"{META}_endpoint_port_name"] == "http"
        assert labels[f"{META}_endpoint_address_target_kind"] == "Pod"
    else:
        assert labels[f"{META}_endpointslice_address_type"] == "IPv4"
        assert labels[f"{META}_endpointslice_endpoint_conditions_ready"] == "true"
        assert labels[f"{META}_endpointslice_port"] == "8080"
        assert labels[f"{META}_endpointslice_address_target_name"] == "web-1"


def test_only_the_namespaces_asked_for():
    assert targets("pod", "shop") == targets("pod")
    assert targets("pod", "store") == {}


def test_labels_are_names_that_prometheus_takes():
    for role in ("pod", "service", "endpoints", "endpointslice"):
        for labels in targets(role).values():
            assert all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name) for name in labels)
            assert all(isinstance(value, str) for value in labels.values())


def test_an_unknown_role_is_an_error_that_names_the_known():
    with pytest.raises(ValueError, match="role 'node': not here; give one of pod, service"):
        groups(scene(), "node", frozenset())
