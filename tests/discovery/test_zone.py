"""Records and answers, line by line of the Kubernetes DNS specification and CoreDNS's choices."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.balancing.plan import BalancingPlanner, plan_balancing
from sixfold.discovery.answers import AnswerPlanner
from sixfold.discovery.explain import explain_name
from sixfold.discovery.plan import ZonePlanner, plan_zone, zone_settings
from sixfold.discovery.pod_files import hosts_file, resolv_conf
from sixfold.discovery.zone import (
    Answer,
    Rcode,
    RecordKey,
    ZoneDelta,
    ZoneSettings,
    ZoneTree,
    difference,
    lookup,
    owner_of,
    reverse_origins,
)
from sixfold.model.config import Config
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import Subject
from sixfold.model.meta import ObjectMeta
from sixfold.model.service import Service, ServicePort, ServiceSpec
from sixfold.model.world import World

DOMAIN = "cluster.local"
SUBJECT = Subject("shop", "default", (("app", "db"),), ())


def pod(name, number, *, ready=True, hostname="", subdomain=""):
    return Endpoint(
        "shop",
        name,
        f"Pod/{name}",
        SUBJECT,
        ipv4=ip_address(f"10.244.0.{number}"),
        ipv6=ip_address(f"fd00:5f:244::{number:x}"),
        ready=ready,
        hostname=hostname,
        subdomain=subdomain,
    )


PORTS = (ServicePort(80, "http"), ServicePort(53, "dns", "UDP"))


def service(name, ports=PORTS, **spec):
    spec = {"selector": {"app": "db"}, **spec}
    meta = ObjectMeta(name=name, namespace="shop")
    return Service(meta, ServiceSpec(ports=list(ports), **spec))


def headless(name="db", **spec):
    families = {"ip_families": ["IPv4", "IPv6"]}
    return service(name, cluster_ip="None", cluster_ips=["None"], **families, **spec)


def web():
    return service("web", cluster_ips=["10.96.0.1", "fd00:5f:96::1"])


def world(*objects, namespaces=("shop", "empty")):
    pods = {o.key: o for o in objects if isinstance(o, Endpoint)}
    services = {f"shop/{o.metadata.name}": o for o in objects if isinstance(o, Service)}
    names = {name: {} for name in namespaces}
    return World(namespaces=names, endpoints=pods, services=services)


def tree(one, pods="disabled"):
    one = replace(one, config=replace(one.config, dns_pods=pods))
    slices = plan_balancing(one, lambda key: 1).slices
    return ZoneTree(zone_settings(one.config), plan_zone(one, slices))


def ask(zone, name, type_="A"):
    answer = lookup(zone, name if name.endswith("arpa") else f"{name}.{DOMAIN}", type_)
    return answer.rcode, [text for rrset in answer.answers for text in rrset.rdata]


def test_a_service_has_an_address_record_per_cluster_address():
    """2.3.1"""
    zone = tree(world(web()))
    assert ask(zone, "web.shop.svc") == (Rcode.NOERROR, ["10.96.0.1"])
    assert ask(zone, "web.shop.svc", "AAAA") == (Rcode.NOERROR, ["fd00:5f:96::1"])


def test_a_named_port_has_an_srv_record_by_protocol():
    """2.3.2"""
    zone = tree(world(web()))
    target = f"web.shop.svc.{DOMAIN}."
    assert ask(zone, "_http._tcp.web.shop.svc", "SRV")[1] == [f"0 100 80 {target}"]
    assert ask(zone, "_dns._udp.web.shop.svc", "SRV")[1] == [f"0 100 53 {target}"]
    assert ask(zone, "_http._udp.web.shop.svc", "SRV")[0] == Rcode.NXDOMAIN


def test_an_unnamed_port_has_no_srv_record_of_its_own():
    """2.3.2; CoreDNS lists all ports at the service's name"""
    zone = tree(world(service("web", [ServicePort(80)], cluster_ips=["10.96.0.1"])))
    assert ask(zone, "web.shop.svc", "SRV")[1] == [f"0 100 80 web.shop.svc.{DOMAIN}."]
    assert [key.name for key in zone.records if key.name.startswith("_")] == []


def test_a_cluster_address_points_back_to_its_service():
    """2.3.3"""
    zone = tree(world(web()))
    name = f"web.shop.svc.{DOMAIN}."
    assert ask(zone, "1.0.96.10.in-addr.arpa", "PTR")[1] == [name]
    assert ask(zone, ip_address("fd00:5f:96::1").reverse_pointer, "PTR")[1] == [name]


def test_a_headless_service_has_the_addresses_of_its_ready_endpoints():
    """2.4.1"""
    zone = tree(world(headless(), pod("a", 1), pod("b", 2, ready=False), pod("c", 3)))
    assert ask(zone, "db.shop.svc")[1] == ["10.244.0.1", "10.244.0.3"]
    assert ask(zone, "db.shop.svc", "AAAA")[1] == ["fd00:5f:244::1", "fd00:5f:244::3"]


def test_a_headless_service_without_ready_endpoints_does_not_exist():
    """2.4.1"""
    zone = tree(world(headless(), pod("a", 1, ready=False)))
    assert ask(zone, "db.shop.svc")[0] == Rcode.NXDOMAIN


def test_unready_endpoints_are_named_when_the_service_publishes_them():
    zone = tree(world(headless(publish_not_ready_addresses=True), pod("a", 1, ready=False)))
    assert ask(zone, "db.shop.svc")[1] == ["10.244.0.1"]


def test_a_pod_with_hostname_and_subdomain_has_a_name():
    """2.4.1"""
    zone = tree(world(headless(), pod("a", 1, hostname="db-0", subdomain="db")))
    assert ask(zone, "db-0.db.shop.svc")[1] == ["10.244.0.1"]
    assert ask(zone, "10-244-0-1.db.shop.svc")[0] == Rcode.NXDOMAIN


def test_a_pod_without_hostname_is_called_by_its_address():
    zone = tree(world(headless(), pod("a", 1)))
    assert ask(zone, "10-244-0-1.db.shop.svc")[1] == ["10.244.0.1"]
    assert ask(zone, "fd00-5f-244--1.db.shop.svc", "AAAA")[1] == ["fd00:5f:244::1"]


def test_a_headless_service_has_endpoints_times_ports_srv_records():
    """2.4.2"""
    pods = [pod(f"db-{i}", i + 1, hostname=f"db-{i}", subdomain="db") for i in range(3)]
    zone = tree(world(headless(), *pods))
    hosts = [f"db-{i}.db.shop.svc.{DOMAIN}." for i in range(3)]
    assert ask(zone, "_http._tcp.db.shop.svc", "SRV")[1] == [f"0 33 80 {host}" for host in hosts]
    assert len(ask(zone, "db.shop.svc", "SRV")[1]) == 6


def test_an_srv_answer_brings_the_addresses_of_its_targets():
    zone = tree(world(headless(), pod("a", 1, hostname="db-0", subdomain="db")))
    answer = lookup(zone, f"_http._tcp.db.shop.svc.{DOMAIN}", "SRV")
    assert [rrset.rdata for rrset in answer.additional] == [("10.244.0.1",), ("fd00:5f:244::1",)]


def test_a_ready_endpoint_points_back_to_each_of_its_names():
    """2.4.3, for every headless service that selects it"""
    zone = tree(world(headless("db"), headless("peers"), pod("a", 1)))
    names = ask(zone, "1.0.244.10.in-addr.arpa", "PTR")[1]
    assert names == [f"10-244-0-1.{name}.shop.svc.{DOMAIN}." for name in ("db", "peers")]


def test_the_schema_version_is_published():
    """2.2"""
    assert ask(tree(world()), "dns-version", "TXT")[1] == ['"1.1.0"']


@pytest.mark.parametrize(
    "name", ["", "svc.", "pod.", "shop.svc.", "empty.svc.", "_tcp.web.shop.svc."]
)
def test_names_above_names_and_namespaces_are_nodata(name):
    answer = lookup(tree(world(web())), f"{name}{DOMAIN}", "A")
    assert (answer.rcode, answer.answers) == (Rcode.NOERROR, ())


@pytest.mark.parametrize("name", ["nobody.svc", "x.shop.svc", "a.b.web.shop.svc", "shop.pod", "x"])
def test_unknown_names_and_namespaces_are_nxdomain(name):
    assert ask(tree(world(web())), name)[0] == Rcode.NXDOMAIN


def test_a_negative_answer_carries_the_soa_whose_minimum_is_the_ttl():
    answer = lookup(tree(world()), f"x.{DOMAIN}", "A")
    assert answer.authority[0].rdata[0].split()[-1] == "5"
    assert answer.authority[0].ttl_s == 5


def test_the_apex_has_soa_and_ns():
    zone = tree(world())
    assert lookup(zone, DOMAIN, "SOA").answers[0].type == "SOA"
    assert lookup(zone, DOMAIN, "NS").additional[0].rdata == ("169.254.20.10",)


def test_names_outside_our_zones_are_not_ours():
    zone = tree(world())
    assert lookup(zone, "example.com", "A") is None
    assert lookup(zone, "1.2.0.192.in-addr.arpa", "PTR") is None


@pytest.mark.parametrize(
    ("mode", "real", "invented"),
    [
        ("disabled", Rcode.NXDOMAIN, Rcode.NXDOMAIN),
        ("verified", Rcode.NOERROR, Rcode.NXDOMAIN),
        ("insecure", Rcode.NOERROR, Rcode.NOERROR),
    ],
)
def test_pod_address_names_by_mode(mode, real, invented):
    zone = tree(world(pod("a", 1)), mode)
    assert ask(zone, "10-244-0-1.shop.pod")[0] == real
    assert ask(zone, "192-0-2-1.shop.pod")[0] == invented
    assert ask(zone, "192-0-2-1.nobody.pod")[0] == Rcode.NXDOMAIN


@pytest.mark.parametrize(
    ("network", "origins"),
    [
        ("10.244.0.0/16", ("244.10.in-addr.arpa",)),
        ("10.96.0.0/15", ("96.10.in-addr.arpa", "97.10.in-addr.arpa")),
        ("2001:db8::/32", ("8.b.d.0.1.0.0.2.ip6.arpa",)),
    ],
)
def test_reverse_zones_cover_a_pool_exactly(network, origins):
    assert reverse_origins(ip_network(network)) == origins


def test_nothing_changed_is_the_same_zone_object():
    planner, balancing = ZonePlanner(), BalancingPlanner(lambda key: 1)
    before = planner.plan(world(web()), balancing.plan(world(web())).slices)
    one = world(web())
    planner.plan(one, balancing.plan(one).slices)
    again = planner.plan(replace(one), balancing.plan(one).slices)
    assert again == before
    assert planner.plan(replace(one), balancing.plan(one).slices) is again


def alias(name, target):
    spec = ServiceSpec(type="ExternalName", external_name=target)
    return Service(ObjectMeta(name=name, namespace="shop"), spec)


def test_an_alias_leads_out_of_our_zones_and_upstream_has_the_rest():
    zone = tree(world(alias("api", "API.example.org.")))
    name = f"api.shop.svc.{DOMAIN}"
    for type_ in ("A", "AAAA", "MX", "SRV"):
        answer = lookup(zone, name, type_)
        assert (answer.rcode, answer.beyond) == (Rcode.NOERROR, "api.example.org")
        assert [(one.name, one.rdata) for one in answer.answers] == [(name, ("api.example.org.",))]
    assert lookup(zone, name, "CNAME") == Answer(Rcode.NOERROR, answer.answers)
    assert lookup(zone, f"x.{name}", "A").rcode == Rcode.NXDOMAIN


def test_an_alias_of_a_name_of_ours_is_followed_here():
    far, near = (f"{name}.shop.svc.{DOMAIN}" for name in ("far", "near"))
    zone = tree(world(alias("far", near), alias("near", f"web.shop.svc.{DOMAIN}"), web()))
    answer = lookup(zone, far, "A")
    assert [one.type for one in answer.answers] == ["CNAME", "CNAME", "A"]
    assert not answer.beyond
    assert lookup(zone, far, "TXT").authority
    nowhere = tree(world(alias("far", f"nobody.shop.svc.{DOMAIN}")))
    assert lookup(nowhere, far, "A").rcode == Rcode.NXDOMAIN


def test_aliases_that_go_round_fail():
    one, other = (f"{name}.shop.svc.{DOMAIN}" for name in ("one", "other"))
    here = world(alias("one", other), alias("other", one))
    assert lookup(tree(here), one, "A").rcode == Rcode.SERVFAIL
    assert explain_name(here, "one", "shop").kind == "nxdomain"


@pytest.mark.parametrize(
    ("target", "kind", "fqdn"),
    [
        ("api.example.org", "external", "api.example.org"),
        (f"web.shop.svc.{DOMAIN}", "service", f"web.shop.svc.{DOMAIN}"),
        (f"nobody.shop.svc.{DOMAIN}", "nxdomain", f"api.shop.svc.{DOMAIN}"),
    ],
)
def test_an_alias_is_explained_by_what_it_leads_to(target, kind, fqdn):
    answer = explain_name(world(alias("api", target), web()), "api", "shop")
    assert (answer.kind, answer.fqdn) == (kind, fqdn)
    assert f"api is service shop/api, an alias of {target}" in answer.text


PODS = st.builds(
    lambda name, ready, named: pod(
        f"p{name}", name, ready=ready, hostname=f"h{name}" if named else "", subdomain="db"
    ),
    st.integers(1, 5),
    st.booleans(),
    st.booleans(),
)
SERVICES = st.sampled_from(
    [web(), headless("db"), headless("peers"), service("api"), alias("out", "example.org")]
)
WORLDS = st.builds(
    lambda objects, spaces: world(*objects, namespaces=("shop", *spaces)),
    st.lists(PODS | SERVICES, max_size=7),
    st.sets(st.sampled_from("abc")),
)


@given(WORLDS)
def test_every_name_resolves_and_its_siblings_do_not(one):
    zone = tree(one)
    for (name, type_), rdata in zone.records.items():
        answer = lookup(zone, name, type_ or "A")
        assert answer.rcode == Rcode.NOERROR
        if type_:
            assert answer.answers[0].rdata == rdata
        nodata = Answer(Rcode.NOERROR, (), answer_soa(zone, name))
        if type_ == "CNAME":
            continue
        assert lookup(zone, name, "TYPE99") == nodata
        sibling = f"nobody-here.{name}"
        assert lookup(zone, sibling, "A").rcode == Rcode.NXDOMAIN
        parent = name.partition(".")[2]
        if zone.origin_of(parent):
            assert lookup(zone, parent, "TYPE99").rcode == Rcode.NOERROR  # RFC 8020


def answer_soa(zone, name):
    return (zone.soa(zone.origin_of(name)),)


@given(st.lists(WORLDS, min_size=2, max_size=5))
def test_whatever_the_history_the_zone_equals_one_from_nothing(worlds):
    planner, balancing = ZonePlanner(), BalancingPlanner(lambda key: 1)
    served, before = None, {}
    answers = AnswerPlanner()
    for one in worlds:
        slices = balancing.plan(one).slices
        zone = planner.plan(one, slices)
        settings = zone_settings(one.config)
        plan = answers.plan(settings, planner.take_delta())
        fresh = AnswerPlanner().plan(settings, ZoneDelta(zone))
        assert dict(plan.answers) == dict(fresh.answers)
        assert [each.origin for each in plan.zones] == list(settings.origins)
        assert zone == plan_zone(one, slices)
        served = served or ZoneTree(zone_settings(one.config))
        served.update(difference(before, zone))
        assert served.records == zone
        assert served._names == ZoneTree(served.settings, zone)._names
        before = zone


@given(WORLDS)
def test_the_explanation_of_a_name_agrees_with_its_answer(one):
    zone = tree(one)
    hosts = ["", "10-244-0-1.", "h1."]
    for name in [f"{host}{name}" for host in hosts for name in ("web", "db", "peers", "api")]:
        explained = explain_name(one, name, "shop")
        expected = {
            ip_address(text)
            for type_ in ("A", "AAAA")
            for text in ask(zone, f"{name}.shop.svc", type_)[1]
        }
        if explained.kind == "external":  # two labels, unknown here: asked upstream at last
            assert not expected
        else:
            assert set(explained.addresses) == expected


def test_a_short_name_is_found_in_the_callers_own_namespace():
    answer = explain_name(world(web()), "web", "shop")
    assert (answer.kind, answer.fqdn) == ("service", f"web.shop.svc.{DOMAIN}")
    assert explain_name(world(web()), "web", "empty").kind == "nxdomain"
    assert explain_name(world(web()), "web.shop", "empty").service == "shop/web"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("web.shop.svc.cluster.local.", "service"),
        ("WEB.shop", "service"),
        ("192.0.2.1", "address"),
        ("2001:db8::1", "address"),
        ("example.com", "external"),
        ("nobody", "nxdomain"),
        ("nobody.shop.svc.cluster.local", "nxdomain"),
        ("db-0.db", "pod"),
        ("db", "headless"),
    ],
)
def test_kinds_of_names(name, kind):
    one = world(web(), headless(), pod("a", 1, hostname="db-0", subdomain="db"))
    assert explain_name(one, name, "shop").kind == kind


def test_offline_a_headless_service_is_found_without_addresses():
    offline = replace(pod("a", 1, ready=False), ipv4=None, ipv6=None)
    answer = explain_name(world(headless(), offline), "db", "shop")
    assert (answer.kind, answer.addresses) == ("headless", ())


@pytest.mark.parametrize(("name", "kind"), [("db-0.db", "pod"), ("web-0.db", "external")])
def test_offline_a_stateful_set_has_its_ordinals(name, kind):
    offline = pod("db", 1, subdomain="db")
    offline = replace(offline, ipv4=None, ipv6=None, workload="StatefulSet/db")
    assert explain_name(world(headless(), offline), name, "shop").kind == kind


def test_resolv_conf_searches_the_namespace_first():
    lines = resolv_conf(Config(), "shop", ["example.com"]).splitlines()
    assert lines == [
        "search shop.svc.cluster.local svc.cluster.local cluster.local example.com",
        "nameserver 169.254.20.10",
        "nameserver fd00:5f::10",
        "options ndots:5",
    ]


def test_hosts_file_names_the_pod_itself():
    text = hosts_file("web-1", "shop", [ip_address("10.244.0.1")], hostname="db-0", subdomain="db")
    assert "10.244.0.1\tdb-0.db.shop.svc.cluster.local\tdb-0\n" in text
    assert "127.0.0.1\tlocalhost\n" in text


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("web.shop.svc.cluster.local", "shop/web"),
        ("_http._tcp.web.shop.svc.cluster.local.", "shop/web"),
        ("db-0.db.shop.svc.cluster.local", "shop/db"),
        ("10-244-0-3.shop.pod.cluster.local", "10.244.0.3"),
        ("web.shop.svc.browse.test", "shop/web"),
        ("shop/web._http._tcp.browse.test", "shop/web"),
        ("shop/db/db-0._sql._tcp.browse.test", "shop/db"),
        ("_http._tcp.browse.test", None),
        ("shop.svc.cluster.local", None),
        ("svc.cluster.local", None),
        ("ns.dns.cluster.local", None),
        ("dns-version.cluster.local", None),
        ("web.shop.svc.elsewhere.test", None),
    ],
)
def test_a_name_says_whose_it_is(name, owner):
    assert owner_of(name, ("cluster.local", "browse.test")) == owner


def test_who_may_not_know_of_an_owner_meets_none_of_its_names():
    records = {
        RecordKey("web.shop.svc.cluster.local", "A"): ("10.96.0.1",),
        RecordKey("shop.svc.cluster.local", ""): (),
        RecordKey("7.0.244.10.in-addr.arpa", "PTR"): (
            "h.db.shop.svc.cluster.local.",
            "h.web.shop.svc.cluster.local.",
        ),
        RecordKey("alias.shop.svc.cluster.local", "CNAME"): ("web.shop.svc.cluster.local.",),
    }
    zone = ZoneTree(ZoneSettings(("cluster.local", "244.10.in-addr.arpa")), records)

    def answer(name, type_, *seen):
        return lookup(zone, name, type_, lambda owner: owner in seen)

    name = "web.shop.svc.cluster.local"
    assert answer(name, "A", "shop/web").answers
    for hidden in ((name, "A"), (name, "MX"), (f"x.{name}", "A"), (name, "ANY")):
        assert answer(*hidden).rcode is Rcode.NXDOMAIN
    assert answer("shop.svc.cluster.local", "A").rcode is Rcode.NOERROR
    pointer = "7.0.244.10.in-addr.arpa"
    assert answer(pointer, "PTR").rcode is Rcode.NXDOMAIN
    (told,) = answer(pointer, "PTR", "shop/db").answers
    assert told.rdata == ("h.db.shop.svc.cluster.local.",)
    alias = "alias.shop.svc.cluster.local"
    assert answer(alias, "A", "shop/web").answers == ()
    assert answer(alias, "A", "shop/alias").rcode is Rcode.NXDOMAIN
    assert len(answer(alias, "A", "shop/alias", "shop/web").answers) == 2
