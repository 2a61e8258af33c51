"""Frontends for who dials an address that a headless service had."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from sixfold.balancing.plan import BalancingPlanner
from sixfold.model.datapath import Backend, Frontend
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import NamedPort, Subject
from sixfold.model.meta import ObjectMeta
from sixfold.model.service import Service, ServicePort, ServiceSpec
from sixfold.model.world import World

TCP = 6
SUBJECT = Subject("shop", "default", (("app", "db"),), (NamedPort("sql", "TCP", 5432),))
DB = Endpoint(
    *("shop", "db-0", "StatefulSet/db", SUBJECT),
    ipv4=ip_address("10.244.0.5"),
    ipv6=ip_address("fd00:5f:244::5"),
    ready=True,
)
CLIENT = Endpoint("shop", "client", "Pod/client", Subject("shop", "default", (), ()))
HEADLESS = ServiceSpec(
    selector={"app": "db"},
    cluster_ip="None",
    ip_families=["IPv4", "IPv6"],
    ports=[ServicePort(1, "sql", target_port="sql")],
)


def world(*endpoints: Endpoint, spec: ServiceSpec = HEADLESS) -> World:
    service = Service(ObjectMeta(name="db", namespace="shop"), spec)
    return World(endpoints={one.key: one for one in endpoints}, services={"shop/db": service})


def test_nobody_asks_and_there_is_none():
    assert BalancingPlanner(lambda _: 7).plan(world(DB, CLIENT)).frontends == {}


def test_who_asks_finds_backends_at_their_own_port_in_both_families():
    planner = BalancingPlanner(lambda _: 7)
    asking = replace(CLIENT, redirected=True)
    found = planner.plan(world(DB, asking)).frontends
    assert {frontend: entry.backends for frontend, entry in found.items()} == {
        Frontend.at(ip_address("240.0.0.7"), 5432, TCP): (Backend.at(DB.ipv4, 5432),),
        Frontend.at(ip_address("100::7"), 5432, TCP): (Backend.at(DB.ipv6, 5432),),
    }


def test_they_come_and_go_with_who_asks():
    planner = BalancingPlanner(lambda _: 7)
    asking = replace(CLIENT, redirected=True)
    counts = [
        len(planner.plan(world(*endpoints)).frontends)
        for endpoints in ((DB, CLIENT), (DB, asking), (DB, CLIENT), (DB, asking), (DB,))
    ]
    assert counts == [0, 2, 0, 2, 0]


def test_nobody_is_sent_to_who_does_not_serve():
    planner = BalancingPlanner(lambda _: 7)
    ill = replace(DB, ready=False)
    found = planner.plan(world(ill, replace(CLIENT, redirected=True))).frontends
    assert {entry.backends for entry in found.values()} == {()}
