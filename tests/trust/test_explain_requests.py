"""Explanations of requests: the route, and what policy says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from sixfold.manifest import load, offline
from sixfold.mesh.asked import Asked
from sixfold.model.config import Config
from sixfold.model.httproute import HTTPMatch, PathMatch
from sixfold.policy.requests import unseen
from sixfold.trust.explain import explain, plan_offline


@pytest.fixture(scope="module")
def world():
    manifests = load([str(Path(__file__).with_name("requests.yaml"))], "shop", offline=True)
    return offline(manifests, Config(mtls="strict"))


def lines(world, asked):
    answer = explain(world, plan_offline(world), "shop/front", "cart", 80, "TCP", "shop", asked)
    return answer.allowed, {line.pattern: (line.outcome, line.detail) for line in answer.lines}


def test_the_route_and_the_rule_of_a_request_are_named(world):
    allowed, said = lines(world, Asked("GET", "/items/7"))
    assert allowed
    assert said["route"] == (
        "ok",
        "GET /items/7: shop/canary rules[0].matches[0] → shop/cart:80 (90 %), shop/cart2:80 (10 %)",
    )
    assert said["requests"][0] == "FORWARDED"


def test_a_request_that_no_rule_allows_is_denied(world):
    allowed, said = lines(world, Asked("POST", "/items"))
    assert not allowed
    assert "(403)" in said["requests"][1]
    assert said["verdict"][0] == "DROPPED"


def test_a_request_without_a_way_is_answered_404(world):
    (route,) = world.routes.values()
    (rule,) = route.spec.rules
    narrow = msgspec.structs.replace(rule, matches=[HTTPMatch(path=PathMatch("Exact", "/only"))])
    other = msgspec.structs.replace(route, spec=msgspec.structs.replace(route.spec, rules=[narrow]))
    allowed, said = lines(replace(world, routes={"HTTPRoute shop/canary": other}), Asked())
    assert not allowed
    assert said["route"][0] == "404"


def test_a_connection_alone_is_told_who_judges_its_requests(world):
    allowed, said = lines(world, None)
    assert allowed
    assert said["requests"][0] == "judged"
    assert said["route"][0] == "routed"


def test_without_a_mesh_it_is_said_that_nobody_looks(world):
    here = replace(world, config=replace(world.config, mtls="disabled"))
    (text,) = unseen(here)
    assert text.startswith("CiliumNetworkPolicy shop/cart: its rules about requests let nothing")
    assert unseen(world) == []


def test_without_a_mesh_a_rule_about_requests_lets_nothing_pass(world):
    here = replace(world, config=replace(world.config, mtls="disabled"))
    allowed, said = lines(here, Asked("GET", "/items/7"))
    assert not allowed
    assert said["policy ingress"][0] in ("DROPPED", "nearly")
