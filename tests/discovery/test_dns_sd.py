"""Services to browse for, record by record of RFC 6763."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from tests.discovery.test_zone import headless, pod, service, web, world

from sixfold.balancing.plan import plan_balancing
from sixfold.discovery.answers import compile_answer
from sixfold.discovery.plan import ZonePlanner, plan_zone, zone_settings
from sixfold.discovery.wire import decode_rdata, encode_rdata, read_records
from sixfold.discovery.zone import Rcode, ZoneTree, lookup
from sixfold.manifest.announcing import announcing
from sixfold.model.config import Config
from sixfold.model.meta import ObjectMeta
from sixfold.model.world import World

ALIAS = "sixfold.internal"
CONFIG = Config(dns_sd_domain=ALIAS)


def tree(one: World) -> ZoneTree:
    one = replace(one, config=CONFIG)
    slices = plan_balancing(one, lambda key: 1).slices
    return ZoneTree(zone_settings(CONFIG), plan_zone(one, slices))


def ask(zone: ZoneTree, name: str, type_: str) -> list[str]:
    answer = lookup(zone, name, type_)
    assert answer is not None
    return [text for rrset in answer.answers for text in rrset.rdata]


def test_where_to_browse_is_said_under_the_alias_and_under_the_cluster_domain():
    """RFC 6763 §11"""
    zone = tree(world(web()))
    for parent in (ALIAS, "cluster.local"):
        for kind in ("b", "lb", "db"):
            assert ask(zone, f"{kind}._dns-sd._udp.{parent}", "PTR") == [f"{ALIAS}."]


def test_types_are_the_names_of_ports():
    """RFC 6763 §9"""
    types = ask(tree(world(web())), f"_services._dns-sd._udp.{ALIAS}", "PTR")
    assert types == [f"_dns._udp.{ALIAS}.", f"_http._tcp.{ALIAS}."]


def test_a_service_is_an_instance_at_its_cluster_address():
    """RFC 6763 §4 to §6"""
    zone = tree(world(web(), service("api", cluster_ips=["10.96.0.2"])))
    browsed = ask(zone, f"_http._tcp.{ALIAS}", "PTR")
    assert browsed == [f"shop/api._http._tcp.{ALIAS}.", f"shop/web._http._tcp.{ALIAS}."]
    target = f"web.shop.svc.{ALIAS}"
    assert ask(zone, f"shop/web._http._tcp.{ALIAS}", "SRV") == [f"0 0 80 {target}."]
    assert ask(zone, f"shop/web._http._tcp.{ALIAS}", "TXT") == ['"port=http"']
    assert ask(zone, target, "A") == ["10.96.0.1"]
    assert ask(zone, target, "AAAA") == ["fd00:5f:96::1"]


def test_who_is_behind_it_is_told_when_it_is_one():
    """The same service account for all endpoints."""
    zone = tree(world(web(), headless(), pod("db-0", 1), pod("db-1", 2)))
    text = '"port=http" "spiffe=spiffe://cluster.local/ns/shop/sa/default"'
    assert ask(zone, f"shop/web._http._tcp.{ALIAS}", "TXT") == [text]
    assert ask(zone, f"shop/db/db-0._http._tcp.{ALIAS}", "TXT") == [text]


def test_of_a_headless_service_each_ready_endpoint_is_one():
    ready = pod("db-0", 1, hostname="db-0", subdomain="db")
    zone = tree(world(headless(), ready, pod("db-1", 2, ready=False)))
    name = f"shop/db/db-0._http._tcp.{ALIAS}"
    assert ask(zone, f"_http._tcp.{ALIAS}", "PTR") == [f"{name}."]
    assert ask(zone, name, "SRV") == [f"0 0 80 db-0.db.shop.svc.{ALIAS}."]
    assert ask(zone, f"db-0.db.shop.svc.{ALIAS}", "A") == ["10.244.0.1"]


def test_a_path_is_told_and_a_wrong_one_refused():
    one = web()
    meta = ObjectMeta("web", "shop", annotations={"sixfold.dev/dns-sd-path": "/ui?a=b"})
    zone = tree(world(msgspec.structs.replace(one, metadata=meta)))
    text = '"port=http" "path=/ui?a=b"'
    assert ask(zone, f"shop/web._http._tcp.{ALIAS}", "TXT") == [text]
    wrong = ObjectMeta("web", "shop", annotations={"sixfold.dev/dns-sd-path": "ui"})
    assert [f.message[:16] for f in announcing("Service", (), wrong)] == ['"ui" is no path;']
    assert list(announcing("Service", (), meta)) == []
    assert len(list(announcing("Pod", (), meta))) == 1


def test_a_label_that_is_too_long_is_not_listed():
    long = service("w" * 60, cluster_ips=["10.96.0.3"])
    assert lookup(tree(world(long)), f"_http._tcp.{ALIAS}", "PTR").rcode == Rcode.NXDOMAIN  # type: ignore[union-attr]


def test_nothing_is_listed_unless_asked_for():
    zone = plan_zone(world(web()), plan_balancing(world(web()), lambda _: 1).slices)
    assert [key for key in zone if "_dns-sd" in key.name or ALIAS in key.name] == []


def test_the_last_instance_takes_its_type_along():
    planner = ZonePlanner()
    for one in (world(web()), world()):
        one = replace(one, config=CONFIG)
        zone = planner.plan(one, plan_balancing(one, lambda _: 1).slices)
    assert [key for key in zone if "_http" in key.name] == []


def test_texts_of_several_strings_go_through_the_wire():
    text = '"port=http" "path=/a b"'
    assert decode_rdata("TXT", encode_rdata("TXT", text)) == text
    zone = tree(world(web()))
    answer = compile_answer(zone, f"shop/web._http._tcp.{ALIAS}", "TXT")
    assert read_records(answer.records, 1) == [(5, '"port=http"')]
