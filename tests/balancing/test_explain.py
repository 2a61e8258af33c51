"""Why a connect to a service goes where it goes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from sixfold.balancing.explain import explain_balancing
from sixfold.balancing.plan import plan_balancing
from sixfold.model.datapath import Frontend
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import NamedPort, Subject
from sixfold.model.meta import ObjectMeta
from sixfold.model.service import Service, ServicePort, ServiceSpec
from sixfold.model.world import World

SUBJECT = Subject("shop", "default", (("app", "web"),), (NamedPort("http", "TCP", 8080),))


def pod(name, *, ready=True):
    return Endpoint("shop", name, f"Pod/{name}", SUBJECT, ready=ready)


def service(**spec):
    spec = {"selector": {"app": "web"}, "cluster_ips": ["10.96.0.1"], **spec}
    ports = [ServicePort(80, "http", target_port="http"), ServicePort(53, "dns", "UDP", 5353)]
    return Service(ObjectMeta(name="web", namespace="shop"), ServiceSpec(ports=ports, **spec))


def explain(one, port, protocol="TCP", pods=("a", "b")):
    endpoints = {f"shop/{name}": pod(name) for name in pods}
    world = World(endpoints=endpoints, services={"shop/web": one})
    return explain_balancing(world, one, port, protocol)


@pytest.mark.parametrize("port", [80, "http", None])
def test_a_port_is_found_by_number_by_name_or_as_the_first(port):
    answer = explain(service(), port)
    assert (answer.service, answer.port, answer.algorithm) == ("shop/web", 80, "random")
    assert [(c.endpoint, c.port) for c in answer.candidates] == [("shop/a", 8080), ("shop/b", 8080)]


@pytest.mark.parametrize(("port", "protocol"), [(81, "TCP"), (80, "UDP"), ("admin", "TCP")])
def test_an_unknown_port_is_refused_and_says_which_there_are(port, protocol):
    answer = explain(service(), port, protocol)
    assert answer.candidates == ()
    assert "refused at once: the service has 80/TCP, 53/UDP" in answer.why


def test_no_matching_pod_names_the_selector():
    assert "no pod matches selector app=web" in explain(service(), 80, pods=()).why


def test_a_headless_service_leaves_port_and_choice_to_the_client():
    answer = explain(service(cluster_ip="None", cluster_ips=["None"]), 9999)
    assert (answer.algorithm, [c.port for c in answer.candidates]) == ("client", [9999, 9999])


def test_ready_candidates_are_exactly_the_backends_of_the_plan():
    pods = {
        f"shop/{name}": replace(pod(name, ready=ready), ipv4=ip_address(f"192.0.2.{number}"))
        for number, (name, ready) in enumerate([("a", True), ("b", False), ("c", True)])
    }
    world = World(endpoints=pods, services={"shop/web": service()})
    plan = plan_balancing(world, lambda key: 1)
    answer = explain_balancing(world, service(), 80)
    backends = plan.frontends[Frontend.at(ip_address("10.96.0.1"), 80, 6)].backends
    ready = [(c.address, c.port) for c in answer.candidates if c.ready]
    assert ready == [(backend.address, backend.port) for backend in backends]
    assert len(ready) == 2
