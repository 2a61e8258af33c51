"""Explanations of what clients outside ask of a Gateway: both legs, and who says no."""

from __future__ import annotations

import json

import pytest

from sixfold.manifest import loads, offline
from sixfold.mesh.asked import Asked
from sixfold.model.config import Config
from sixfold.model.gateway import Gateway
from sixfold.trust.explain import explain, plan_offline
from sixfold.workloads.gateway import made_for

GROUP = "gateway.networking.k8s.io"
EVERYWHERE = {"namespaces": {"from": "All"}}
OPEN = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]}


def route(kind, name, to, **spec):
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "parentRefs": [{"name": "front", "namespace": "edge"}],
            "rules": [{"backendRefs": [{"name": to, "port": 80}]}],
            **spec,
        },
    }


def pod(name, namespace="shop"):
    container = {"name": "main", "command": ["sleep", "inf"]}
    meta = {"name": name, "namespace": namespace, "labels": {"app": name}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": [container]},
    }


def service(name):
    meta = {"name": name, "namespace": "shop"}
    spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def policy(name, namespace, spec):
    meta = {"name": name, "namespace": namespace}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta,
        "spec": spec,
    }


FROM_FRONT = {
    "namespaceSelector": {},
    "podSelector": {"matchLabels": {f"{GROUP}/gateway-name": "front"}},
}
OBJECTS = [
    {
        "apiVersion": f"{GROUP}/v1",
        "kind": "GatewayClass",
        "metadata": {"name": "sixfold"},
        "spec": {"controllerName": "sixfold.dev/gateway"},
    },
    {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Gateway",
        "metadata": {"name": "front", "namespace": "edge"},
        "spec": {
            "gatewayClassName": "sixfold",
            "listeners": [
                {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": EVERYWHERE},
                {"name": "tcp", "port": 90, "protocol": "TCP", "allowedRoutes": EVERYWHERE},
                {
                    "name": "tls",
                    "port": 443,
                    "protocol": "TLS",
                    "allowedRoutes": EVERYWHERE,
                    "tls": {"mode": "Passthrough"},
                },
            ],
        },
    },
    pod("client", "edge"),
    *(pod(name) for name in ("one", "two")),
    *(service(name) for name in ("one", "two")),
    route("HTTPRoute", "web", "one", hostnames=["shop.com"]),
    route("HTTPRoute", "shy", "two", hostnames=["shy.com"]),
    route("TLSRoute", "named", "one", hostnames=["tls.com"]),
    route("TCPRoute", "db", "one"),
    policy("open", "edge", OPEN),
    policy(
        "one",
        "shop",
        {"podSelector": {"matchLabels": {"app": "one"}}, "ingress": [{"from": [FROM_FRONT]}]},
    ),
]


@pytest.fixture(scope="module")
def world():
    (gateway,) = [
        one.object
        for one in loads("\n---\n".join(map(json.dumps, OBJECTS))).objects
        if isinstance(one.object, Gateway)
    ]
    given = [*OBJECTS, *made_for(gateway)]
    return offline(loads("\n---\n".join(map(json.dumps, given)), offline=True), Config())


def asked(world, port, request, source="edge/client"):
    plans = plan_offline(world)
    answer = explain(world, plans, source, "edge/front-sixfold", port, "TCP", "edge", request)
    return answer.allowed, answer.lines


def said(lines, pattern):
    return [(line.outcome, line.detail) for line in lines if line.pattern == pattern]


def test_who_does_not_reach_the_gateway_reaches_nobody_behind_it(world):
    allowed, lines = asked(world, 80, Asked("GET", "/x", "shop.com"), source="shop/two")
    assert not allowed
    assert said(lines, "gateway") == []


@pytest.mark.parametrize(
    ("port", "request_", "allowed", "outcome", "words"),
    [
        (80, Asked("GET", "/x", "shop.com:80"), True, "ok", "shop/web rules[0].matches[0]"),
        (80, Asked("GET", "/x", "no.com"), False, "404", "no route of no.com"),
        (80, Asked("GET", "/x", "shy.com"), False, "ok", "shop/shy"),
        (80, None, True, "routed", "shop/shy, shop/web; --host and --path"),
        (90, None, True, "ok", "listener tcp of gateway edge/front: shop/db → shop/one:80"),
        (443, Asked(host="tls.com"), True, "ok", "listener tls of gateway edge/front: shop/named"),
        (443, Asked(host="no.com"), False, "closed", "no route has a backend for it"),
    ],
)
def test_what_a_gateway_does_with_it_is_said(world, port, request_, allowed, outcome, words):
    may, lines = asked(world, port, request_)
    (line,) = said(lines, "gateway")
    assert line[0] == outcome
    assert words in line[1]
    assert may == allowed
    if allowed and outcome == "ok":
        assert said(lines, "policy ingress")[-1] == (
            "FORWARDED",
            "shop/one allowed by shop/one ingress[0]",
        )
        how = "as all requests of Gateways" if port == 80 else "strict by posture zero-trust"
        assert said(lines, "mesh")[-1][1].endswith(f"sa/default, {how}")
    if outcome == "ok" and not allowed:
        assert "ingress of shop/two denied" in lines[-1].detail
