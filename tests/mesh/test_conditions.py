"""AuthorizationPolicies: what each says of a request, in Python and as Envoy would judge it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from tests.mesh.rbac import matching

from sixfold.manifest import decode
from sixfold.mesh import conditions
from sixfold.mesh.asked import Asked
from sixfold.mesh.authorized import Caller, authorized
from sixfold.mesh.conditions import ALLOW_FILTER, DENY_FILTER
from sixfold.model.mesh import DESTINATION
from sixfold.policy.conditions import conditions_of

DOMAIN = "home.example"
CLAIMS = {
    "iss": "https://issuer.example/a",
    "sub": "user/7",
    "aud": ["web", "shop"],
    "azp": "front",
    "realm": {"roles": ["admin", "dev"], "name": "home"},
    "level": 3,
}


def policy(*rules, action="DENY", name="p", audit=False):
    annotations = {"sixfold.dev/enforcement": "audit"} if audit else {}
    raw = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "shop", "annotations": annotations},
        "spec": {"action": action, "rules": list(rules)},
    }
    return conditions_of(decode(raw).object)


def source(**fields):
    return {"from": [{"source": fields}]}


def operation(**fields):
    return {"to": [{"operation": fields}]}


def when(key, *values, **more):
    return {"when": [{"key": key, **({"values": list(values)} if values else {}), **more}]}


def caller(asked=None, port=8080, claims=None):
    address = (ip_address("10.244.0.2"),)
    return Caller(DOMAIN, "shop", "front", address, port, asked, claims or {})


def unpacked(found, name):
    rbac = rbac_pb2.RBACPerRoute()
    found[name].Unpack(rbac)
    return rbac.rbac


def by_envoy(rules, who):
    """The first rule that matches: of a request, or of a tunnel."""
    asked = who.asked
    place = f"10.244.0.3:{who.port}"
    headers = {}
    if asked is not None:
        headers = {
            **{name.replace("-", "_"): text for name, text in asked.headers.items()},
            DESTINATION.replace("-", "_"): place,
            "method": asked.method,
            "path": asked.path,
        }
    authority = asked.host if asked is not None else place
    principal = f"spiffe://{who.principal}"
    return matching(rules, principal, "10.244.0.2", authority, dict(who.claims), **headers)


def denies(rule, who):
    """Whether a DENY rule matches: Python and Envoy must agree."""
    one = policy(rule)
    compiled = conditions.of_requests if who.asked is not None else conditions.of_tunnels
    rules = unpacked(compiled([one], DOMAIN), DENY_FILTER).rules
    answer = authorized([one], who)
    assert (by_envoy(rules, who) is not None) is not answer.allow
    return not answer.allow


REQUEST = Asked("GET", "/items/7?x=1", "Web.shop:80", {"x-team": "red"})


@pytest.mark.parametrize(
    ("rule", "denied"),
    [
        ({}, True),
        (source(principals=["home.example/ns/shop/sa/front"]), True),
        (source(principals=["cluster.local/ns/shop/sa/front"]), True),
        (source(principals=["cluster.local/ns/shop/sa/fron"]), False),
        (source(principals=["cluster.local/ns/shop/*"]), True),
        (source(principals=["*/sa/front"]), True),
        (source(principals=["*"]), True),
        (source(notPrincipals=["*"]), False),
        (source(notPrincipals=["cluster.local/ns/shop/sa/other"]), True),
        (source(serviceAccounts=["front"]), True),
        (source(serviceAccounts=["shop/front", "x"]), True),
        (source(serviceAccounts=["other/front"]), False),
        (source(notServiceAccounts=["front"]), False),
        (source(namespaces=["shop"]), True),
        (source(namespaces=["sho*"]), True),
        (source(namespaces=["*op"]), True),
        (source(namespaces=["op"]), False),
        (source(namespaces=["shop"], notNamespaces=["*"]), False),
        (source(ipBlocks=["10.244.0.0/16"]), True),
        (source(ipBlocks=["10.244.0.3"]), False),
        (source(notIpBlocks=["10.244.0.2"]), False),
        (source(principals=["*"], namespaces=["other"]), False),
        (
            {"from": [{"source": {"namespaces": [one]}} for one in ("other", "shop")]},
            True,
        ),
        (operation(methods=["GET", "HEAD"]), True),
        (operation(methods=["POST"]), False),
        (operation(notMethods=["GET"]), False),
        (operation(paths=["/items/7"]), True),
        (operation(paths=["/items"]), False),
        (operation(paths=["/items*"]), True),
        (operation(paths=["*/7"]), True),
        (operation(paths=["/items/{*}"]), True),
        (operation(paths=["/{*}"]), False),
        (operation(paths=["/{**}"]), True),
        (operation(paths=["/items/{*}/x"]), False),
        (operation(notPaths=["/items/*"]), False),
        (operation(hosts=["web.SHOP:80"]), True),
        (operation(hosts=["web.shop"]), False),
        (operation(hosts=["web.shop*"]), True),
        (operation(ports=["8080"]), True),
        (operation(ports=["80"]), False),
        (operation(notPorts=["8080"]), False),
        (operation(methods=["GET"], paths=["/other"]), False),
        (when("request.headers[X-Team]", "red"), True),
        (when("request.headers[x-team]", "blue"), False),
        (when("request.headers[x-team]", "*"), True),
        (when("request.headers[x-none]", "*"), False),
        (when("request.headers[x-none]", notValues=["a"]), True),
        (when("source.ip", "10.244.0.2/32"), True),
        (when("source.namespace", "shop"), True),
        (when("source.principal", "*/sa/front"), True),
        (when("source.serviceAccount", "shop/front"), True),
        (when("destination.port", "8080"), True),
        (when("request.auth.principal", "https://issuer.example/a/user/7"), True),
        (when("request.auth.principal", "https://issuer.example/*"), True),
        (when("request.auth.principal", "https://issuer.example/a/us*"), True),
        (when("request.auth.principal", "*/user/7"), True),
        (when("request.auth.principal", "*a/user/7"), True),
        (when("request.auth.principal", "*7"), True),
        (when("request.auth.principal", "https://issuer.example/a/user/8"), False),
        (when("request.auth.principal", "noslash"), False),
        (source(requestPrincipals=["*"]), True),
        (source(notRequestPrincipals=["*"]), False),
        (when("request.auth.audiences", "shop"), True),
        (when("request.auth.audiences", "sho"), False),
        (when("request.auth.presenter", "front"), True),
        (when("request.auth.claims[realm][roles]", "admin"), True),
        (when("request.auth.claims[realm][roles]", "adm*"), True),
        (when("request.auth.claims[realm][roles]", "root"), False),
        (when("request.auth.claims[realm][name]", "*"), True),
        (when("request.auth.claims[realm]", "*"), False),
        (when("request.auth.claims[level]", "3"), False),
        (when("request.auth.claims[none]", notValues=["x"]), True),
    ],
)
def test_a_rule_matches_a_request_that_is_all_it_says(rule, denied):
    assert denies(rule, caller(REQUEST, claims=CLAIMS)) is denied


def test_without_a_token_nothing_is_known_of_one():
    for rule in (
        source(requestPrincipals=["*"]),
        when("request.auth.audiences", "*"),
        when("request.auth.claims[a]", "*"),
    ):
        assert not denies(rule, caller(REQUEST))
    assert denies(source(notRequestPrincipals=["*"]), caller(REQUEST))


@pytest.mark.parametrize(
    ("rule", "denied", "allowed"),
    [
        pytest.param(operation(ports=["8080"]), True, True, id="of connections"),
        pytest.param(operation(ports=["8080"], methods=["POST"]), True, False, id="of requests"),
        pytest.param(operation(ports=["81"], methods=["POST"]), False, False, id="other port"),
        pytest.param(operation(methods=["POST"]), True, False, id="of requests only"),
        pytest.param(when("request.headers[x]", "y"), True, False, id="a header"),
        pytest.param(source(notRequestPrincipals=["*"]), True, False, id="a token's"),
        pytest.param(
            {"to": [{"operation": {"methods": ["GET"]}}, {"operation": {"ports": ["8080"]}}]},
            True,
            True,
            id="one of two",
        ),
        pytest.param(
            {**source(namespaces=["other"]), **operation(paths=["/x"])}, False, False, id="stranger"
        ),
    ],
)
def test_of_a_connection_that_is_not_looked_into_requests_are_not_known(rule, denied, allowed):
    """istio.io: HTTP attributes on TCP: an ALLOW rule never matches, a DENY rule by the rest."""
    assert denies(rule, caller()) is denied
    one = policy(rule, action="ALLOW")
    rules = unpacked(conditions.of_tunnels([one], DOMAIN), ALLOW_FILTER).rules
    answer = authorized([one], caller())
    assert answer.allow is (by_envoy(rules, caller()) is not None) is allowed


def test_a_deny_comes_before_an_allow_and_the_default_last():
    allow, deny = policy({}, action="ALLOW", name="a"), policy({}, name="d")
    assert str(authorized([allow, deny], caller(REQUEST)).rule) == (
        "AuthorizationPolicy shop/d rules[0]"
    )
    nothing = policy(action="ALLOW", name="n")
    answer = authorized([nothing], caller(REQUEST))
    assert not answer.allow
    assert str(answer.rule) == "default-deny (AuthorizationPolicy shop/n)"
    assert authorized([nothing, allow], caller(REQUEST)).allow
    assert authorized([], caller(REQUEST)) == authorized([policy()], caller(REQUEST))


def test_what_is_in_audit_is_told_and_lets_pass():
    told = authorized([policy({}, audit=True), policy({}, action="AUDIT", name="l")], caller())
    assert told.allow
    assert [str(rule) for rule in told.told] == [
        "AuthorizationPolicy shop/p rules[0]",
        "AuthorizationPolicy shop/l rules[0]",
    ]
    allow = policy(operation(paths=["/a"]), action="ALLOW", audit=True)
    answer = authorized([allow], caller(REQUEST))
    assert (answer.allow, [str(rule) for rule in answer.told]) == (
        True,
        ["default-deny (AuthorizationPolicy shop/p)"],
    )
    found = unpacked(conditions.of_requests([policy({}, audit=True)], DOMAIN), DENY_FILTER)
    assert not found.HasField("rules")
    assert list(found.shadow_rules.policies) == ["AuthorizationPolicy shop/p rules[0]"]
