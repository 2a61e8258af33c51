"""Who gets which address of a pool."""

from __future__ import annotations

from ipaddress import ip_address

from sixfold.balancing.pools import assign
from sixfold.model.meta import LabelSelector, ObjectMeta
from sixfold.model.pool import CiliumLoadBalancerIPPool, PoolBlock, PoolSpec
from sixfold.model.service import Service, ServicePort, ServiceSpec


def pool(name, *blocks, selector=None, **spec):
    found = [
        PoolBlock(cidr=text) if "/" in text else PoolBlock("", *text.split("-")) for text in blocks
    ]
    labels = LabelSelector(match_labels=selector) if selector is not None else None
    return CiliumLoadBalancerIPPool(ObjectMeta(name=name), PoolSpec(found, labels, **spec))


def service(name, *, labels=None, annotations=None, families=("IPv4",), **spec):
    spec = {"type": "LoadBalancer", "ip_families": [*families], **spec}
    meta = ObjectMeta(name, "shop", labels or {}, annotations or {})
    return Service(meta, ServiceSpec(ports=[ServicePort(port=80)], **spec))


def given(services, pools, held=None):
    services = {f"shop/{one.metadata.name}": one for one in services}
    held = {key: tuple(map(ip_address, texts)) for key, texts in (held or {}).items()}
    found = assign(services, pools, held)
    return {
        key.removeprefix("shop/"): ([*map(str, one.addresses)], one.lacks)
        for key, one in found.items()
    }


def test_the_lowest_free_address_of_the_first_pool_that_selects_it():
    pools = [pool("a", "192.0.2.8/30", selector={"tier": "x"}), pool("b", "192.0.2.64-192.0.2.65")]
    names = [service(n) for n in "pqr"]
    assert given([*names, service("x", labels={"tier": "x"})], pools) == {
        "p": (["192.0.2.64"], ""),
        "q": (["192.0.2.65"], ""),
        "r": ([], "no IPv4 address is left in b"),
        "x": (["192.0.2.8"], ""),
    }


def test_services_of_other_types_get_none():
    assert given([service("web", type="NodePort")], [pool("a", "192.0.2.0/24")]) == {}


def test_without_a_pool_that_selects_it_the_service_is_told_so():
    assert given([service("web")], [pool("a", "192.0.2.0/24", selector={"a": "b"})]) == {
        "web": ([], "no CiliumLoadBalancerIPPool selects this service")
    }


def test_each_family_gets_one():
    pools = [pool("a", "2001:db8::/120", "192.0.2.0/24")]
    assert given([service("web", families=("IPv6", "IPv4"))], pools) == {
        "web": (["2001:db8::", "192.0.2.0"], "")
    }


def test_what_a_service_has_it_keeps_whoever_comes():
    pools = [pool("a", "192.0.2.0/30")]
    held = {"shop/z": ["192.0.2.0"]}
    found = given([service("b"), service("z")], pools, held)
    assert found == {"b": (["192.0.2.1"], ""), "z": (["192.0.2.0"], "")}


def test_a_disabled_pool_gives_nothing_new_and_takes_nothing_back():
    pools = [pool("a", "192.0.2.0/30", disabled=True)]
    found = given([service("b"), service("z")], pools, {"shop/z": ["192.0.2.1"]})
    assert found["z"] == (["192.0.2.1"], "")
    assert found["b"][0] == []


def test_an_address_goes_with_its_pool():
    assert given([service("z")], [], {"shop/z": ["192.0.2.1"]})["z"][0] == []


def test_the_address_that_is_asked_for_or_none():
    pools = [pool("a", "192.0.2.0/29")]
    asking = service("web", load_balancer_ip="192.0.2.5")
    assert given([asking], pools)["web"] == (["192.0.2.5"], "")
    noted = service("api", annotations={"lbipam.cilium.io/ips": "192.0.2.6, 192.0.2.7"})
    assert given([noted], pools)["api"] == (["192.0.2.6", "192.0.2.7"], "")
    assert given([asking, service("api", load_balancer_ip="192.0.2.5")], pools)["web"] == (
        [],
        "192.0.2.5 is that of service shop/api",
    )
    outside = service("web", load_balancer_ip="192.0.2.9")
    assert given([outside], pools)["web"] == (
        [],
        "no CiliumLoadBalancerIPPool that selects this service has 192.0.2.9",
    )


def test_another_address_that_is_asked_for_replaces_the_one_it_has():
    pools = [pool("a", "192.0.2.0/29")]
    asking = service("web", load_balancer_ip="192.0.2.5")
    assert given([asking], pools, {"shop/web": ["192.0.2.1"]})["web"] == (["192.0.2.5"], "")


def test_first_and_last_are_left_out_where_the_pool_says_so():
    pools = [pool("a", "192.0.2.0/30", "192.0.2.8/31", allow_first_last_ips="No")]
    names = [service(name) for name in "abcde"]
    assert [addresses for addresses, _ in given(names, pools).values()] == [
        ["192.0.2.1"], ["192.0.2.2"], ["192.0.2.8"], ["192.0.2.9"], [],
    ]  # fmt: skip


def test_a_selector_sees_name_and_namespace():
    pools = [pool("a", "192.0.2.0/30", selector={"io.kubernetes.service.name": "web"})]
    found = given([service("web"), service("api")], pools)
    assert (found["web"][0], found["api"][0]) == (["192.0.2.0"], [])
