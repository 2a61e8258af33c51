"""Which names of services are told to the world."""

from __future__ import annotations

import pytest

from sixfold.discovery.outside import HOSTNAME, plan_outside
from sixfold.discovery.zone import Rcode, lookup
from sixfold.model.config import Config
from sixfold.model.meta import ObjectMeta
from sixfold.model.service import Service, ServicePort, ServiceSpec

ZONE = "k8s.example.org"
CONFIG = Config(dns_edge=("192.0.2.1:53", "[2001:db8::1]:53"), dns_edge_zones=(ZONE,))


def service(name: str, hostname: str = "", **spec) -> Service:
    annotations = {HOSTNAME: hostname} if hostname else {}
    meta = ObjectMeta(name=name, namespace="shop", annotations=annotations)
    return Service(meta, ServiceSpec(ports=[ServicePort(80, "http")], **spec))


def balanced(name: str, *addresses: str, hostname: str = "") -> Service:
    made = service(name, hostname, type="LoadBalancer")
    made.status = {"loadBalancer": {"ingress": [{"ip": one} for one in addresses]}}
    return made


def records(*services: Service, config: Config = CONFIG) -> dict[tuple[str, str], tuple[str, ...]]:
    keyed = {f"shop/{one.metadata.name}": one for one in services}
    (zone,) = plan_outside(config, keyed)
    return {(name, type_): rdata for name, type_, rdata in zone.records}


APEX = {
    (ZONE, "NS"): (f"ns.dns.{ZONE}.",),
    (f"ns.dns.{ZONE}", "A"): ("192.0.2.1",),
    (f"ns.dns.{ZONE}", "AAAA"): ("2001:db8::1",),
}


def test_addresses_of_balancers_and_external_ones_are_told_with_named_ports():
    found = records(
        balanced("web", "192.0.2.64", "2001:db8::64"),
        service("mail", external_ips=["203.0.113.7"]),
    )
    assert found == {
        **APEX,
        (f"web.shop.{ZONE}", "A"): ("192.0.2.64",),
        (f"web.shop.{ZONE}", "AAAA"): ("2001:db8::64",),
        (f"_http._tcp.web.shop.{ZONE}", "SRV"): (f"0 100 80 web.shop.{ZONE}.",),
        (f"mail.shop.{ZONE}", "A"): ("203.0.113.7",),
        (f"_http._tcp.mail.shop.{ZONE}", "SRV"): (f"0 100 80 mail.shop.{ZONE}.",),
    }


@pytest.mark.parametrize(
    "inner",
    [
        pytest.param(service("db", cluster_ip="10.96.0.1"), id="cluster address"),
        pytest.param(service("db", cluster_ip="None"), id="headless"),
        pytest.param(service("db", type="NodePort"), id="node port"),
        pytest.param(balanced("db"), id="no address yet"),
    ],
)
def test_what_has_no_address_outside_is_not_told(inner: Service):
    assert records(inner) == APEX


def test_names_of_ones_own_choice_are_told_if_they_lie_in_the_zone_and_share_addresses():
    found = records(
        balanced("a", "192.0.2.64", hostname=f"www.{ZONE}, elsewhere.example.net,{ZONE}"),
        balanced("b", "192.0.2.65", hostname=f"WWW.{ZONE}."),
    )
    assert found[f"www.{ZONE}", "A"] == ("192.0.2.64", "192.0.2.65")
    assert found[ZONE, "A"] == ("192.0.2.64",)
    assert not any("elsewhere" in name for name, _ in found)


def test_in_the_cluster_domain_a_name_is_what_it_is_inside():
    config = Config(dns_edge=("192.0.2.1:53",), dns_edge_zones=("cluster.local",))
    found = records(balanced("web", "192.0.2.64"), config=config)
    assert found["web.shop.svc.cluster.local", "A"] == ("192.0.2.64",)


def test_the_zone_answers_by_itself():
    (zone,) = plan_outside(CONFIG, {"shop/web": balanced("web", "192.0.2.64")})
    tree = zone.tree()
    assert lookup(tree, f"web.shop.{ZONE}", "A").rcode is Rcode.NOERROR
    assert lookup(tree, f"db.shop.{ZONE}", "A").rcode is Rcode.NXDOMAIN
    assert lookup(tree, "example.org", "A") is None
