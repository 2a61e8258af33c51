"""Explanations of connections with other trust domains: who lets what out, and in."""

from __future__ import annotations

import json

import pytest

from sixfold.errors import NotFoundError
from sixfold.manifest import loads, offline
from sixfold.mesh.asked import Asked
from sixfold.model.config import Config
from sixfold.model.gateway import Gateway
from sixfold.trust.explain import explain, plan_offline
from sixfold.workloads.gateway import made_for

GROUP = "gateway.networking.k8s.io"
GATEWAY = {f"{GROUP}/gateway-name": "abroad"}
BY_GATEWAY = {"namespaceSelector": {}, "podSelector": {"matchLabels": GATEWAY}}
WEB, DB = "spiffe://partner.example/ns/shop/sa/web", "spiffe://partner.example/ns/shop/sa/db"


def made(api, kind, name, namespace="shop", **spec):
    meta = {"name": name, "namespace": namespace} if namespace else {"name": name}
    return {"apiVersion": api, "kind": kind, "metadata": meta, "spec": spec}


def pod(name):
    container = {"name": "main", "command": ["sleep", "inf"]}
    found = made("v1", "Pod", name, containers=[container], serviceAccountName=name)
    found["metadata"]["labels"] = {"app": name}
    return found


def policy(name, namespace="shop", **spec):
    return made("networking.k8s.io/v1", "NetworkPolicy", name, namespace, **spec)


FEDERATED = made(
    "spire.spiffe.io/v1alpha1",
    "ClusterFederatedTrustDomain",
    "partner",
    "",
    trustDomain="partner.example",
    bundleEndpointURL="https://192.0.2.2/bundle",
    bundleEndpointProfile={"type": "https_web"},
)
NAMED = made(
    "security.istio.io/v1",
    "AuthorizationPolicy",
    "db",
    rules=[{"from": [{"source": {"principals": ["partner.example/ns/shop/sa/web"]}}]}],
)
TOLD = made(
    f"{GROUP}/v1",
    "TLSRoute",
    "db",
    parentRefs=[{"name": "abroad", "namespace": "edge"}],
    hostnames=["db.home.example"],
    rules=[{"backendRefs": [{"name": "db", "port": 5432}]}],
)
LET_IN = policy(
    "db",
    podSelector={"matchLabels": {"app": "db"}},
    policyTypes=["Ingress"],
    ingress=[{"from": [BY_GATEWAY], "ports": [{"port": 6432}]}],
)
LET_OUT = policy(
    "abroad",
    "edge",
    podSelector={},
    policyTypes=["Egress"],
    egress=[{"to": [{"ipBlock": {"cidr": "192.0.2.80/32"}}], "ports": [{"port": 15443}]}],
)
THEIRS = made(
    f"{GROUP}/v1",
    "BackendTLSPolicy",
    "db-there",
    "edge",
    targetRefs=[{"group": "", "kind": "Service", "name": "db-there"}],
    validation={
        "hostname": "db.partner.example",
        "wellKnownCACertificates": "sixfold.dev/federated",
        "subjectAltNames": [{"type": "URI", "uri": DB}],
    },
    options={"sixfold.dev/endpoints": "192.0.2.80:15443"},
)
OURS = [
    made(f"{GROUP}/v1", "GatewayClass", "sixfold", "", controllerName="sixfold.dev/gateway"),
    made(
        f"{GROUP}/v1",
        "Gateway",
        "abroad",
        "edge",
        gatewayClassName="sixfold",
        listeners=[
            {
                "name": "in",
                "port": 15443,
                "protocol": "HBONE",
                "allowedRoutes": {"namespaces": {"from": "All"}},
            }
        ],
    ),
    pod("web"),
    pod("db"),
    made("v1", "Service", "db", selector={"app": "db"}, ports=[{"port": 5432, "targetPort": 6432}]),
    made("v1", "Service", "db-there", "edge", selector=GATEWAY, ports=[{"port": 5432}]),
    policy("web", podSelector={"matchLabels": {"app": "web"}}, egress=[{}], policyTypes=["Egress"]),
    policy(
        "in",
        "edge",
        podSelector={},
        policyTypes=["Ingress"],
        ingress=[{"from": [{"namespaceSelector": {}}]}],
    ),
    THEIRS,
]
WHOLE = (FEDERATED, NAMED, TOLD, LET_IN, LET_OUT)


def answer(objects, source, to, port=5432, asked=None):
    given = [*OURS, *objects]
    text = "\n---\n".join(map(json.dumps, given))
    (gateway,) = (one.object for one in loads(text).objects if isinstance(one.object, Gateway))
    text = "\n---\n".join(map(json.dumps, [*given, *made_for(gateway)]))
    world = offline(loads(text, offline=True), Config(mtls="strict", trust_domain="home.example"))
    found = explain(world, plan_offline(world), source, to, port, "TCP", "shop", asked)
    return found.allowed, [f"{one.pattern} {one.outcome} {one.detail}" for one in found.lines]


@pytest.mark.parametrize(
    ("without", "words"),
    [
        (None, "authorization FORWARDED allowed by AuthorizationPolicy shop/db rules[0]"),
        (FEDERATED, "federation closed partner.example is not federated"),
        (NAMED, "authorization DROPPED denied by default-deny (no AuthorizationPolicy names"),
        (TOLD, "gateway closed no TLSRoute"),
        (LET_IN, "policy ingress DROPPED shop/db by edge/abroad-sixfold denied by default-deny"),
    ],
)
def test_who_of_another_trust_domain_gets_in_and_what_else_stands_in_the_way(without, words):
    objects = [one for one in WHOLE if one is not without]
    for to, port in (("db", 5432), ("shop/db", 5432)):
        allowed, lines = answer(objects, WEB, to, port)
        assert allowed is (without is None)
        assert any(line.startswith(words) for line in lines), lines


def test_another_identity_of_that_trust_domain_is_another():
    allowed, lines = answer(WHOLE, WEB.replace("web", "other"), "db")
    assert not allowed
    assert "none of AuthorizationPolicy shop/db names" in lines[-1]


@pytest.mark.parametrize(
    ("without", "allowed", "words"),
    [
        (None, True, f"mesh mTLS spiffe://home.example/ns/shop/sa/web → {DB}, as db.partner.ex"),
        (FEDERATED, False, "mesh closed partner.example is not federated"),
        (LET_OUT, False, "policy egress DROPPED edge/abroad-sixfold to 192.0.2.80:15443 denied"),
    ],
)
def test_what_leaves_for_another_trust_domain_leaves_by_its_gateway(without, allowed, words):
    objects = [one for one in WHOLE if one is not without]
    may, lines = answer(objects, "web", "db-there.edge")
    assert may is allowed
    assert any(line.startswith(words) for line in lines), lines


@pytest.mark.parametrize("id_", ["spiffe://home.example/ns/shop/sa/web", "spiffe://UPPER/x"])
def test_an_identity_of_ours_or_none_at_all_is_no_foreigner(id_):
    with pytest.raises(NotFoundError):
        answer(WHOLE, id_, "db")


ITEMS = {"methods": ["GET"], "paths": ["/items*"], "ports": ["6432"]}
MAY_ASK = {
    **NAMED,
    "spec": {"rules": [{**NAMED["spec"]["rules"][0], "to": [{"operation": ITEMS}]}]},
}


@pytest.mark.parametrize(
    ("asked", "allowed", "words"),
    [
        (None, True, "authorization judged requests to port 6432 are judged one by one"),
        (Asked("GET", "/items/1"), True, "GET /items/1 allowed by AuthorizationPolicy shop/db"),
        (Asked("POST", "/items/1"), False, "denied by default-deny (AuthorizationPolicy shop/db)"),
    ],
)
def test_a_request_from_another_trust_domain_is_explained(asked, allowed, words):
    given = [one for one in WHOLE if one is not NAMED]
    found, lines = answer([*given, MAY_ASK], WEB, "db", 5432, asked)
    assert found is allowed
    assert any(words in line for line in lines), lines
