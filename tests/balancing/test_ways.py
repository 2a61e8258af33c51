"""At which addresses a service is dialled, and by whom."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from sixfold.balancing.plan import BalancingPlanner, plan_balancing
from sixfold.balancing.ways import ways
from sixfold.model.config import Config
from sixfold.model.datapath import Backend, Frontend, FrontendFlag, SourceRange
from sixfold.model.health_port import HealthPort
from sixfold.model.meta import ObjectMeta
from sixfold.model.service import Service, ServicePort, ServiceSpec
from sixfold.model.world import World

from .test_plan import pod, written

OUTSIDE, ANNOUNCED, RANGES = FrontendFlag.OUTSIDE, FrontendFlag.ANNOUNCED, FrontendFlag.RANGES


def balancer(**spec):
    spec = {
        "type": "LoadBalancer",
        "selector": {"app": "web"},
        "cluster_ips": ["10.96.0.1"],
        "ports": [ServicePort(port=80, target_port=8080, node_port=30080)],
        "external_ips": ["203.0.113.7"],
        **spec,
    }
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.64"}]}}
    return Service(ObjectMeta(name="web", namespace="shop"), ServiceSpec(**spec), status=status)


def test_a_load_balancer_has_every_way():
    assert [(way.kind, str(way.address), way.flags, way.alone) for way in ways(balancer())] == [
        ("ClusterIP", "10.96.0.1", FrontendFlag(0), True),
        ("NodePort", "0.0.0.0", OUTSIDE, False),
        ("LoadBalancer", "192.0.2.64", OUTSIDE | ANNOUNCED, True),
        ("ExternalIP", "203.0.113.7", OUTSIDE, False),
    ]


def test_a_node_port_is_one_of_each_family_and_of_its_own_number():
    service = balancer(ip_families=["IPv6", "IPv4"], type="NodePort")
    found = [way for way in ways(service) if way.kind == "NodePort"]
    assert [str(way.address) for way in found] == ["::", "0.0.0.0"]
    assert {port for way in found for port, _ in way.ports} == {30080}


def test_status_of_another_type_opens_nothing():
    assert "LoadBalancer" not in [way.kind for way in ways(balancer(type="NodePort"))]


def test_a_headless_service_has_no_way():
    assert [*ways(balancer(cluster_ips=["None"]))] == []


@pytest.mark.parametrize("policy", ["Cluster", "Local"])
def test_every_way_has_the_same_backends_but_those_of_other_nodes_with_local_traffic(policy):
    world = World(
        endpoints={"shop/a": pod("a", number=1)},
        services={"shop/web": balancer(external_traffic_policy=policy)},
        slices={"shop/other": written("other", "198.51.100.9")},
        config=Config(node="here"),
    )
    found = plan_balancing(world, lambda _: 7).frontends
    inside = Frontend.at(ip_address("10.96.0.1"), 80, 6)
    outside = [
        Frontend.at(ip_address("0.0.0.0"), 30080, 6),
        Frontend.at(ip_address("192.0.2.64"), 80, 6),
        Frontend.at(ip_address("203.0.113.7"), 80, 6),
    ]
    here = Backend.at(ip_address("192.0.2.1"), 8080)
    there = Backend.at(ip_address("198.51.100.9"), 8080)
    assert found[inside].backends == (here, there)
    from_outside = (here, there) if policy == "Cluster" else (here,)
    assert [found[it].backends for it in outside] == [from_outside] * 3
    wildcards = {frontend.address for frontend in found if not frontend.port}
    assert wildcards == {ip_address("192.0.2.64")}  # the cluster's are refused by their network


def test_source_ranges_are_of_the_load_balancers_address_only():
    service = balancer(load_balancer_source_ranges=["198.51.100.0/24"])
    plan = plan_balancing(World(services={"shop/web": service}), lambda _: 7)
    assert plan.source_ranges == {SourceRange(7, ip_network("198.51.100.0/24"))}
    ranged = [frontend.address for frontend, it in plan.frontends.items() if it.flags & RANGES]
    assert {*map(str, ranged)} == {"192.0.2.64"}


def test_a_health_port_counts_endpoints_of_this_node_that_take_new_connections():
    service = balancer(external_traffic_policy="Local", health_check_node_port=30090)
    pods = [pod("a", number=1), pod("b", number=2, ready=False), pod("c", number=3, drained=True)]
    world = World(
        endpoints={f"shop/{one.pod}": one for one in pods},
        services={"shop/web": service},
        slices={"shop/other": written("other", "198.51.100.9")},
    )
    assert plan_balancing(world, lambda _: 1).health_ports == (HealthPort(30090, "shop", "web", 1),)
    service.spec.external_traffic_policy = "Cluster"
    assert plan_balancing(world, lambda _: 1).health_ports == ()


def test_a_health_port_follows_pods_and_goes_with_its_service():
    service = balancer(external_traffic_policy="Local", health_check_node_port=30090)
    planner = BalancingPlanner(lambda _: 1)
    worlds = [
        World(endpoints={"shop/a": pod("a", number=1)}, services={"shop/web": service}),
        World(services={"shop/web": service}),
        World(),
    ]
    found = [[one.endpoints for one in planner.plan(world).health_ports] for world in worlds]
    assert found == [[1], [0], []]
