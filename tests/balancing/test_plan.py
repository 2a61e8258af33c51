"""What stands behind a service address, and what a change costs."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.balancing.plan import BalancingPlanner, plan_balancing
from sixfold.model.algorithm import Algorithm
from sixfold.model.datapath import Backend, Frontend
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import NamedPort, Subject
from sixfold.model.meta import ObjectMeta
from sixfold.model.seen import Seen
from sixfold.model.service import (
    SERVICE_LABEL,
    EndpointConditions,
    EndpointSlice,
    Service,
    ServicePort,
    ServiceSpec,
    SliceEndpoint,
    SlicePort,
)
from sixfold.model.world import World


def pod(name, labels=None, *, number=1, ready=True, ports=(), **more):
    labels = {"app": "web"} if labels is None else labels
    subject = Subject("shop", "default", tuple(sorted(labels.items())), ())
    return Endpoint(
        "shop",
        name,
        f"Pod/{name}",
        subject,
        ipv4=ip_address(f"192.0.2.{number}"),
        ipv6=ip_address(f"2001:db8::{number:x}"),
        ready=ready,
        publish_ports=tuple(NamedPort(*port) for port in ports),
        **more,
    )


def service(name="web", *, ports=None, **spec):
    spec = {"selector": {"app": "web"}, "cluster_ips": ["10.96.0.1"], **spec}
    ports = ports or [ServicePort(port=80, target_port=8080)]
    return Service(ObjectMeta(name=name, namespace="shop"), ServiceSpec(ports=ports, **spec))


def written(name, *addresses, of="web", ports=(("", 8080),), annotations=None, **conditions):
    return EndpointSlice(
        ObjectMeta(name, "shop", {SERVICE_LABEL: of}, annotations or {}),
        "IPv6" if ":" in addresses[0] else "IPv4",
        [SliceEndpoint([one], EndpointConditions(**conditions)) for one in addresses],
        [SlicePort(port_name, port) for port_name, port in ports],
    )


def world(endpoints=(), services=(), slices=()):
    return World(
        slices={f"{s.metadata.namespace}/{s.metadata.name}": s for s in slices},
        endpoints={endpoint.key: endpoint for endpoint in endpoints},
        services={f"{s.metadata.namespace}/{s.metadata.name}": s for s in services},
    )


def number(key):
    return sum(key.encode())


def backends(plan, address="10.96.0.1", port=80, protocol=6):
    return plan.frontends[Frontend.at(ip_address(address), port, protocol)].backends


def plan_of(endpoints, *services):
    return plan_balancing(world(endpoints, services), number)


def test_only_ready_and_not_terminating_endpoints_are_backends():
    pods = [
        pod("a", number=1),
        pod("b", number=2, ready=False),
        pod("c", number=3, terminating=True),
    ]
    assert backends(plan_of(pods, service())) == (Backend.at(ip_address("192.0.2.1"), 8080),)


def test_when_all_terminate_those_that_still_serve_are_backends():
    """KEP-1669; a drained one is not asked even then."""
    ending = {"ready": False, "terminating": True}
    pods = [
        pod("a", number=1, serving=True, **ending),
        pod("b", number=2, **ending),
        pod("c", number=3, serving=True, drained=True, **ending),
    ]
    assert backends(plan_of(pods, service())) == (Backend.at(ip_address("192.0.2.1"), 8080),)
    conditions = [e.conditions for e in plan_of(pods, service()).slices["shop/web"][0].endpoints]
    first = conditions[0]
    assert (first.ready, first.serving, first.terminating) == (False, True, True)
    ready = pod("d", number=4)
    assert backends(plan_of([*pods, ready], service())) == (Backend.at(ready.ipv4, 8080),)


def test_publish_not_ready_addresses_takes_every_endpoint():
    pods = [pod("a", number=1, ready=False), pod("b", number=2, terminating=True)]
    plan = plan_of(pods, service(publish_not_ready_addresses=True))
    assert len(backends(plan)) == 2
    assert [e.conditions.ready for e in plan.slices["shop/web"][0].endpoints] == [True, True]


def test_a_frontend_without_backends_stays_so_that_connects_are_refused():
    assert backends(plan_of([pod("a", ready=False)], service())) == ()


def test_only_an_address_outside_the_service_networks_has_a_wildcard_that_refuses_other_ports():
    plan = plan_of([pod("a")], service(cluster_ips=["10.96.0.1", "2001:db8:96::1"]))
    wildcards = [frontend for frontend in plan.frontends if not frontend.protocol]
    assert wildcards == [Frontend.at(ip_address("2001:db8:96::1"), 0, 0)]
    assert plan.frontends[wildcards[0]].backends == ()


def test_each_family_is_served_by_addresses_of_its_own():
    plan = plan_of([pod("a")], service(cluster_ips=["10.96.0.1", "2001:db8:96::1"]))
    assert backends(plan) == (Backend.at(ip_address("192.0.2.1"), 8080),)
    assert backends(plan, "2001:db8:96::1") == (Backend.at(ip_address("2001:db8::1"), 8080),)
    assert [s.address_type for s in plan.slices["shop/web"]] == ["IPv4", "IPv6"]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(None, 80, id="absent means the same port"),
        pytest.param(8080, 8080, id="a number"),
        pytest.param("http", 9000, id="a name of the same protocol"),
    ],
)
def test_target_port(target, expected):
    pods = [pod("a", ports=[("http", "UDP", 53), ("http", "TCP", 9000)])]
    plan = plan_of(pods, service(ports=[ServicePort(port=80, target_port=target)]))
    assert [backend.port for backend in backends(plan)] == [expected]


def test_a_pod_that_lacks_the_named_port_is_no_backend():
    assert backends(plan_of([pod("a")], service(ports=[ServicePort(80, target_port="http")]))) == ()


def test_a_named_port_of_two_numbers_makes_two_slices_of_one_frontend():
    pods = [
        pod("a", number=1, ports=[("http", "TCP", 8080)]),
        pod("b", number=2, ports=[("http", "TCP", 9090)]),
    ]
    plan = plan_of(pods, service(ports=[ServicePort(80, target_port="http")]))
    assert [(s.metadata.name, s.ports[0].port) for s in plan.slices["shop/web"]] == [
        ("web-ipv4-8080", 8080),
        ("web-ipv4-9090", 9090),
    ]
    assert sorted(backend.port for backend in backends(plan)) == [8080, 9090]


def test_protocols_of_one_port_number_are_apart():
    ports = [
        ServicePort(53, "tcp", "TCP", 1053),
        ServicePort(53, "udp", "UDP", 2053),
        ServicePort(53, "sctp", "SCTP", 3053),
    ]
    plan = plan_of([pod("a")], service(ports=ports))
    assert [backends(plan, port=53, protocol=p)[0].port for p in (6, 17, 132)] == [1053, 2053, 3053]


def test_a_headless_service_has_slices_and_no_frontend():
    plan = plan_of([pod("a")], service(cluster_ip="None", cluster_ips=["None"]))
    assert not plan.frontends
    assert plan.slices["shop/web"][0].endpoints[0].addresses == ["192.0.2.1"]


def test_a_service_without_selector_has_no_slices():
    plan = plan_of([pod("a")], service(selector={}))
    assert plan.slices["shop/web"] == ()
    assert backends(plan) == ()


def test_what_was_written_for_a_service_stands_beside_the_pods_that_it_selects():
    slices = [written("a", "198.51.100.1"), written("b", "198.51.100.2", "198.51.100.3")]
    slices.append(written("c", "198.51.100.4", of="other"))
    plan = plan_balancing(world([pod("a")], [service()], slices), number)
    found = [str(backend.address) for backend in backends(plan)]
    assert found == ["192.0.2.1", "198.51.100.1", "198.51.100.2", "198.51.100.3"]
    assert [s.metadata.name for s in plan.slices["shop/web"]] == ["web-ipv4", "a", "b"]


def test_a_port_of_a_slice_is_found_by_name_and_protocol():
    slices = [written("a", "198.51.100.1", ports=[("sql", 1), ("admin", 2)])]
    slices.append(written("b", "198.51.100.2", ports=[("admin", 3)]))
    one = service(selector={}, ports=[ServicePort(80, "sql"), ServicePort(81, "admin", "TCP", 9)])
    plan = plan_balancing(world([], [one], slices), number)
    assert [backend.port for backend in backends(plan)] == [1]
    assert [backend.port for backend in backends(plan, port=81)] == [2, 3]


def test_written_conditions_and_weights_decide_as_those_of_pods():
    ending = {"ready": False, "serving": True, "terminating": True}
    heavy, off = ({"sixfold.dev/lb-weight": weight} for weight in "30")
    slices = [
        written("a", "198.51.100.1", annotations=heavy),
        written("b", "198.51.100.2", ready=False),
        written("c", "198.51.100.3", annotations=off),
        written("d", "198.51.100.4", **ending),
    ]
    plan = plan_balancing(world([], [service(selector={})], slices), number)
    assert backends(plan) == (Backend.at(ip_address("198.51.100.1"), 8080, 3),)
    plan = plan_balancing(world([], [service(selector={})], slices[1:]), number)
    assert backends(plan) == (Backend.at(ip_address("198.51.100.4"), 8080),)
    everybody = service(selector={}, publish_not_ready_addresses=True)
    assert len(backends(plan_balancing(world([], [everybody], slices), number))) == 3


def test_every_label_of_the_selector_must_match():
    pods = [pod("a", {"app": "web", "tier": "x"}, number=1), pod("b", {"tier": "x"}, number=2)]
    plan = plan_of(pods, service(selector={"app": "web", "tier": "x"}))
    assert len(backends(plan)) == 1


def test_pods_of_another_namespace_are_never_selected():
    subject = Subject("other", "", (("app", "web"),), ())
    stranger = replace(pod("a"), namespace="other", subject=subject)
    assert backends(plan_of([stranger], service())) == ()


def test_a_hostname_is_published_only_under_the_service_of_its_subdomain():
    pods = [
        pod("a", number=1, hostname="db-0", subdomain="web"),
        pod("b", number=2, hostname="db-1", subdomain="other"),
    ]
    plan = plan_of(pods, service())
    assert [e.hostname for e in plan.slices["shop/web"][0].endpoints] == ["db-0", None]


def test_an_address_may_pass_from_one_service_to_another():
    planner = BalancingPlanner(number)
    planner.plan(world([pod("a")], [service("web")]))
    plan = planner.plan(world([pod("a")], [service("api")]))
    assert plan.frontends[Frontend.at(ip_address("10.96.0.1"), 80, 6)].service == number("shop/api")


def test_a_change_without_effect_on_a_service_leaves_its_slices_the_same_objects():
    planner = BalancingPlanner(number)
    before = planner.plan(world([pod("a")], [service()]))
    after = planner.plan(world([replace(pod("a"), ifindex=7)], [service()]))
    assert after.slices["shop/web"] is before.slices["shop/web"]
    assert after.changed == frozenset()


LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from("xy"), max_size=2)
PODS = st.builds(
    lambda name, labels, ready: pod(name, labels, number=ord(name), ready=ready),
    st.sampled_from("abcd"),
    LABELS,
    st.booleans(),
)
SERVICES = st.builds(
    lambda name, selector: service(name, selector=selector, cluster_ips=[f"10.96.0.{ord(name)}"]),
    st.sampled_from("efg"),
    LABELS,
)
SLICES = st.builds(
    lambda name, of, ready: written(name, f"198.51.100.{ord(name)}", of=of, ready=ready),
    st.sampled_from("abcd"),
    st.sampled_from("efg"),
    st.booleans(),
)
WORLDS = st.builds(
    world,
    st.lists(PODS, max_size=4),
    st.lists(SERVICES, max_size=3),
    st.lists(SLICES, max_size=3),
)


@given(st.lists(WORLDS, min_size=2, max_size=5))
def test_whatever_the_history_the_plan_equals_one_from_nothing(worlds):
    planner = BalancingPlanner(number)
    before = {}
    for one in worlds:
        plan = planner.plan(one)
        fresh = plan_balancing(one, number)
        assert plan.slices == fresh.slices
        assert plan.frontends == fresh.frontends
        keys = before.keys() | plan.slices.keys()
        assert plan.changed >= {key for key in keys if before.get(key) != plan.slices.get(key)}
        before = plan.slices


def test_one_endpoint_of_a_thousand_changes_in_milliseconds_at_ten_thousand_services():
    pods = {
        f"shop/p{i}": replace(pod(f"p{i}", {"app": f"a{i}"}), ipv4=ip_address(0x0A000000 + i))
        for i in range(1000)
    }
    services = {
        f"shop/s{i}": service(
            f"s{i}",
            selector={"app": f"a{i % 1000}"},
            cluster_ips=[str(ip_address(0x0A600000 + i))],
        )
        for i in range(10_000)
    }
    planner = BalancingPlanner(number)
    planner.plan(World(endpoints=pods, services=services))
    for i in range(5):
        key = f"shop/p{i}"
        pods = {**pods, key: replace(pods[key], ready=False)}
        plan = planner.plan(World(endpoints=pods, services=dict(services)))
        assert len(plan.changed) == 10


def test_what_is_seen_changes_the_services_whose_backends_it_was_seen_of_and_no_other():
    other = service("other", cluster_ips=["10.96.0.2"])
    before = world([pod("a")], [service(), other])
    planner = BalancingPlanner(number)
    first = planner.plan(before)
    after = replace(before, seen={"shop/web": Seen({(80, "TCP"): 30.0})})
    plan = planner.plan(after)
    assert plan.changed == {"shop/web"}
    frontend = Frontend.at(ip_address("10.96.0.1"), 80, 6)
    assert plan.frontends[frontend].algorithm is Algorithm.LEAST_CONNECTIONS
    assert plan.frontends[frontend].backends == first.frontends[frontend].backends
    assert plan.frontends == plan_balancing(after, number).frontends
    assert planner.plan(before).frontends == first.frontends
