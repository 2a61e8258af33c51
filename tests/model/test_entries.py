"""ServiceEntries with endpoints: what they are as Services, and to policy."""

from __future__ import annotations

from ipaddress import ip_address

from tests.manifest.conftest import service_entry

from sixfold.balancing.members import cluster_addresses
from sixfold.balancing.written import written_for
from sixfold.manifest import decode
from sixfold.model.entries import entry_domains, entry_services, entry_slices, merged

VIP, ONE, TWO = "203.0.113.10", "198.51.100.1", "2001:db8::1"


BY_NAME = {
    "addresses": [],
    "ports": [{"name": "tls", "number": 443, "protocol": "TLS"}],
    "endpoints": [{"address": ONE}, {"address": TWO}],
}


def entries(**spec):
    raw = service_entry(
        **{
            "resolution": "STATIC",
            "addresses": [VIP],
            "ports": [
                {"name": "web", "number": 80, "protocol": "HTTP", "targetPort": 443},
                {"name": "raw", "number": 7000, "protocol": "TCP", "targetPort": 8443},
            ],
            "endpoints": [{"address": ONE, "weight": 3, "ports": {"raw": 9000}}, {"address": TWO}],
            **spec,
        }
    )
    raw["metadata"]["namespace"] = "shop"
    return {"shop/api": decode(raw).object}


def test_an_entry_is_a_service_that_is_named_as_its_host():
    (key,) = found = entry_services(entries())
    assert key == "shop/api.example.com"
    assert cluster_addresses(found[key]) == (ip_address(VIP),)
    assert entry_services(entries(**BY_NAME | {"resolution": "DNS", "endpoints": []})) == {}


def test_each_endpoint_has_ports_and_a_weight_of_its_own():
    one, two = written_for(entry_slices(entries()), "shop/api.example.com")
    assert (str(one.ipv4), one.weight) == (ONE, 3)
    assert (str(two.ipv6), two.weight) == (TWO, 1)
    assert one.ports == {("web", "TCP"): 80, ("raw", "TCP"): 9000}
    assert two.ports == {("web", "TCP"): 80, ("raw", "TCP"): 8443}
    assert one.key == two.key == "shop/ServiceEntry/api"


def test_without_addresses_it_is_headless():
    (service,) = entry_services(entries(**BY_NAME)).values()
    assert service.spec.headless


def test_hosts_mean_the_endpoints_besides_what_they_resolved_to():
    said = entry_domains(entries())
    both = frozenset(map(ip_address, (ONE, TWO)))
    assert said == {"api.example.com": both}
    resolved = {
        "api.example.com": frozenset({ip_address(VIP)}),
        "x.org": frozenset({ip_address(VIP)}),
    }
    assert merged(resolved, said) == {
        "api.example.com": both | {ip_address(VIP)},
        "x.org": frozenset({ip_address(VIP)}),
    }
