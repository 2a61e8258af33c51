from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from sixfold.balancing.measure import measure
from sixfold.model.endpoint import Endpoint
from sixfold.model.health import PANIC
from sixfold.model.identity import Subject
from sixfold.model.meta import ObjectMeta
from sixfold.model.service import Service, ServicePort, ServiceSpec
from sixfold.model.world import World

SUBJECT = Subject("shop", "default", (("app", "web"),), ())
ONE = Endpoint(
    *("shop", "web-0", "Deployment/web", SUBJECT),
    ipv4=ip_address("192.0.2.1"),
    ipv6=ip_address("2001:db8::1"),
    ready=True,
)
TWO = replace(ONE, pod="web-1", ipv4=ip_address("192.0.2.2"), ipv6=None, ready=False)


def measured(annotations=None, loads=None, **spec):
    wanted = {"selector": {"app": "web"}, "cluster_ips": ["10.96.0.1"], **spec}
    wanted.setdefault("ports", [ServicePort(80, "http", target_port=8080)])
    meta = ObjectMeta(name="web", namespace="shop", annotations=annotations or {})
    service = Service(meta, ServiceSpec(**wanted))
    world = World(endpoints={one.key: one for one in (ONE, TWO)}, services={"shop/web": service})
    return list(measure(world, loads or {}))


def test_backends_are_counted_by_state():
    (found,) = measured()
    assert (found.namespace, found.name, found.states) == (
        *("shop", "web"),
        {"active": 1, "not ready": 1},
    )


def test_connections_of_both_families_are_added():
    counted = {
        (ONE.ipv4, 8080, 6): (3, 10),
        (ONE.ipv6, 8080, 6): (1, 20),
        (TWO.ipv4, 8080, 6): (0, 7),
    }
    (found,) = measured(loads=counted)
    assert found.loads == {
        ("80", "TCP", "shop/web-0"): (4, 30),
        ("80", "TCP", "shop/web-1"): (0, 7),
    }


def test_a_panic_is_told():
    assert [one.panic for one in measured({PANIC: "60"})] == [True]
    assert [one.panic for one in measured({PANIC: "40"})] == [False]


def test_nobody_is_behind_an_alias_and_no_load_is_counted_of_a_headless_service():
    assert measured(type="ExternalName", external_name="example.org") == []
    assert measured(cluster_ips=["None"], cluster_ip="None")[0].loads == {}
