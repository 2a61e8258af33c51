"""What `lb list` says of frontends and of those behind them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from sixfold.balancing.labels import LabelIndex
from sixfold.balancing.show import list_frontends
from sixfold.model.endpoint import Endpoint
from sixfold.model.identity import Subject
from sixfold.model.meta import ObjectMeta
from sixfold.model.service import Service, ServicePort, ServiceSpec
from sixfold.model.world import World

SUBJECT = Subject("shop", "default", (("app", "web"),), ())
WEB = Endpoint("shop", "web-0", "Pod/web-0", SUBJECT, ipv4=ip_address("192.0.2.1"), ready=True)


def listed(endpoint, loads=lambda *place: (0, 0)):
    spec = ServiceSpec(
        selector={"app": "web"},
        cluster_ips=["10.96.0.1"],
        ports=[ServicePort(80, "grpc", target_port=8080)],
    )
    service = Service(ObjectMeta(name="web", namespace="shop"), spec)
    world = World(endpoints={endpoint.key: endpoint}, services={"shop/web": service})
    (frontend,) = list_frontends(world, loads)
    return frontend


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({}, "active"),
        ({"ready": False}, "not ready"),
        ({"terminating": True}, "terminating"),
        ({"drained": True}, "draining"),
        ({"weight": 0}, "maintenance"),
        ({"weight": 0, "ready": False}, "not ready"),
    ],
)
def test_the_state_says_why_a_backend_gets_nothing_new(change, state):
    (backend,) = listed(replace(WEB, **change))["backends"]
    assert backend["state"] == state


def test_connections_are_those_of_address_port_and_protocol():
    counted = {(ip_address("192.0.2.1"), 8080, 6): (3, 17)}
    frontend = listed(WEB, lambda *place: counted[place])
    assert (frontend["connections"], frontend["algorithm"]) == (3, "least-connections")
    assert frontend["backends"][0]["total"] == 17


def test_an_index_finds_what_a_service_selects():
    index = LabelIndex.of({WEB.key: WEB})
    made = Service(ObjectMeta(name="x", namespace="shop"), ServiceSpec(selector={"app": "web"}))
    assert index.selected_by(made) == [WEB]
    index.remove(WEB.key, WEB)
    assert index.selected_by(made) == []
