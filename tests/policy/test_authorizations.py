"""AuthorizationPolicies among other policies: ports that are looked into, what the kernel says."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from tests.policy import worlds

from sixfold.model.datapath import PROTOCOL_NUMBERS
from sixfold.model.identity import WORLD
from sixfold.model.service import Service
from sixfold.policy.authorizations import Authorizations
from sixfold.policy.decide import decide, party_at, party_of
from sixfold.policy.lint import lint
from sixfold.policy.plan import compile_policies
from sixfold.policy.reach_parties import View
from sixfold.policy.requests import Requests

TCP, UDP = PROTOCOL_NUMBERS["TCP"], PROTOCOL_NUMBERS["UDP"]
GET = {"operation": {"methods": ["GET"]}}


def authorization(*rules, action="ALLOW", namespace="x", **more):
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": namespace, **more},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "action": action,
            "rules": list(rules),
        },
    }


def here(*policies, ports=(), services=(), posture="kubernetes"):
    named = [{"name": name, "protocol": "TCP", "port": port} for name, port in ports]
    pods = [
        {"pod": "x/web", "labels": {"app": "web"}, "ip": "10.244.0.2", "ports": named},
        {"pod": "y/client", "labels": {}, "ip": "10.244.0.3"},
    ]
    case = {"namespaces": {"x": {}, "y": {}}, "pods": pods, "policies": policies}
    world = worlds.world({**case, "posture": posture})
    web = world.endpoints["x/web"]
    endpoints = {**world.endpoints, "x/web": replace(web, publish_ports=web.subject.named_ports)}
    return replace(
        world,
        endpoints=endpoints,
        services={f"x/{at}": msgspec.convert(raw, Service) for at, raw in enumerate(services)},
    )


def service(port, **fields):
    return {
        "metadata": {"name": "web", "namespace": "x"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": port, **fields}]},
    }


@pytest.mark.parametrize(
    ("ports", "services", "rule", "looked_into"),
    [
        pytest.param([("http", 80)], [], {"to": [GET]}, {80}, id="name of a containerPort"),
        pytest.param([("http-web", 80)], [], {"to": [GET]}, {80}, id="before a dash"),
        pytest.param([("web", 80)], [], {"to": [GET]}, set(), id="a name that means nothing"),
        pytest.param([("http", 80)], [], {}, set(), id="nothing is said of requests"),
        pytest.param([], [service(80, name="grpc")], {"to": [GET]}, {80}, id="name of a service's"),
        pytest.param(
            [], [service(80, appProtocol="http", targetPort=81)], {"to": [GET]}, {81}, id="protocol"
        ),
        pytest.param(
            [("http", 80)],
            [service(80, name="http", appProtocol="redis")],
            {"to": [GET]},
            set(),
            id="a service's protocol before names",
        ),
        pytest.param(
            [("web", 80)],
            [],
            {"to": [{"operation": {"methods": ["GET"], "ports": ["80", "81"]}}]},
            {80, 81},
            id="the rule lists it",
        ),
        pytest.param(
            [("redis", 80)],
            [],
            {"to": [{"operation": {"methods": ["GET"], "ports": ["80"]}}]},
            set(),
            id="it is said to be something else",
        ),
    ],
)
def test_requests_are_looked_into_on_ports_that_are_known_to_be_http(
    ports, services, rule, looked_into
):
    world = here(authorization(rule), ports=ports, services=services)
    found = Authorizations(world).ports(world.endpoints["x/web"])
    assert found == looked_into


def test_a_policy_is_for_its_namespace_or_in_the_root_one_for_all():
    for namespace, meant in (("x", True), ("y", False), ("istio-system", True)):
        world = here(authorization({}, namespace=namespace))
        assert bool(Authorizations(world).of(world.endpoints["x/web"])) is meant


@pytest.mark.parametrize(
    ("policy", "port", "allowed"),
    [
        (authorization({"from": [{"source": {"namespaces": ["y"]}}]}), 80, False),
        (authorization({"to": [{"operation": {"ports": ["81"]}}]}, action="DENY"), 80, True),
        (authorization({"to": [{"operation": {"ports": ["80"]}}]}, action="DENY"), 80, False),
        (authorization({}, action="AUDIT"), 80, True),
        (authorization({}, annotations={"sixfold.dev/enforcement": "audit"}), 80, True),
    ],
)
def test_who_proves_no_identity_gets_nothing_that_a_policy_might_be_about(policy, port, allowed):
    world = here(policy)
    plan = compile_policies(world)
    server = party_of(plan, world.endpoints["x/web"])
    outside = party_at(plan, WORLD, None)
    verdict = decide(plan, outside, server, TCP, port)
    assert verdict.allow is allowed
    assert decide(plan, outside, server, UDP, port).allow
    if not allowed:
        said = "default-deny (AuthorizationPolicy x/p: for who proves an identity)"
        assert str(plan.rules[verdict.ingress.rule]) == said


def test_pods_are_the_proxys_to_judge_and_their_ports_strict():
    world = here(authorization({}, action="DENY"))
    plan = compile_policies(world)
    ends = (party_of(plan, world.endpoints[key]) for key in ("y/client", "x/web"))
    assert decide(plan, *ends, TCP, 80).allow
    requests = Requests(world, plan)
    assert requests.authorizations.strict_by(world.endpoints["x/web"]) == "x/p"
    assert not requests.authorizations.strict_by(world.endpoints["y/client"])
    assert replace(world, config=replace(world.config, mtls="disabled")).has_mesh


def test_it_opens_nothing_that_network_policy_closes():
    world = here(authorization({}), posture="zero-trust")
    plan = compile_policies(world)
    requests = Requests(world, plan)
    client, server = world.endpoints["y/client"], world.endpoints["x/web"]
    assert requests.allowed(server, 80, client) == ()


def test_lint_names_rules_about_requests_that_nobody_looks_at_and_names_of_nobody():
    def checks(policy, **more):
        found = lint(View(here(policy, **more)))
        return [(one.check, one.path) for one in found if one.policy == "AuthorizationPolicy x/p"]

    rule = {"to": [GET]}
    assert checks(authorization(rule)) == [("not-http", ("spec", "rules", 0))]
    assert checks(authorization(rule), ports=[("http", 80)]) == []
    named = {"to": [{"operation": {"methods": ["GET"], "ports": ["80"]}}]}
    assert checks(authorization(named)) == []
    for who in (
        {"principals": ["cluster.local/ns/y/sa/none"]},
        {"namespaces": ["z"]},
        {"serviceAccounts": ["y/none"]},
    ):
        found = checks(authorization({"from": [{"source": who}]}))
        assert found == [("selects-nothing", ("spec", "rules", 0))]
    good = {"principals": ["cluster.local/ns/y/sa/default", "*/sa/x"]}
    assert checks(authorization({"from": [{"source": good}]})) == []
