"""Whom of another trust domain AuthorizationPolicies let in: in Python, and as Envoy judges it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from tests.mesh.rbac import matching

from sixfold.manifest import decode
from sixfold.mesh import conditions
from sixfold.mesh.asked import Asked
from sixfold.mesh.authorized import authorized, foreign_caller, not_let_in
from sixfold.policy.conditions import conditions_of
from sixfold.policy.foreign import for_foreign, not_named

OWN, THEIRS = "home.example", "partner.example"
WEB = f"{THEIRS}/ns/shop/sa/web"
PORT = 5432


def policy(*sources, action="ALLOW", audit=False, name="p", **rest):
    annotations = {"sixfold.dev/enforcement": "audit"} if audit else {}
    rule = {"from": [{"source": one} for one in sources]} if sources else {}
    raw = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "x", "annotations": annotations},
        "spec": {"action": action, "rules": [{**rule, **rest}]},
    }
    return conditions_of(decode(raw).object)


def principals(*names, **more):
    return {"principals": list(names), **more}


def to_port(port):
    return {"to": [{"operation": {"ports": [str(port)]}}]}


DENY_ALL = policy(action="DENY", name="d")
EVERYBODY = {"key": "source.principal", "values": ["*"]}


@pytest.mark.parametrize(
    ("policies", "let_in"),
    [
        ([], False),
        ([policy()], False),  # everybody of ours
        ([policy(principals("*"))], False),
        ([policy(principals("*/ns/shop/sa/web"))], False),
        ([policy(principals("partner.*"))], False),  # names no trust domain
        ([policy({"namespaces": ["shop"]})], False),
        ([policy(principals("cluster.local/ns/shop/sa/web"))], False),
        ([policy(principals(f"{OWN}/ns/shop/sa/web"))], False),
        ([policy(principals("third.example/ns/shop/sa/web"))], False),
        ([policy(principals(f"{THEIRS}/ns/shop/sa/other"))], False),
        ([policy(principals(WEB))], True),
        ([policy(principals(f"{THEIRS}/*"))], True),
        ([policy(principals(f"{THEIRS}/ns/shop/*"))], True),
        ([policy(principals("*", WEB))], True),
        ([policy(principals(WEB)), policy(principals("*"), name="q")], True),
        ([policy(principals(WEB, notPrincipals=[WEB]))], False),
        ([policy(principals(WEB, namespaces=["shop"]))], True),
        ([policy(principals(WEB, namespaces=["other"]))], False),
        ([policy(principals(WEB, ipBlocks=["10.0.0.9/32"]))], False),
        ([policy(principals(WEB, ipBlocks=["10.0.0.3/32"]))], True),  # the Gateway's
        ([policy(principals(WEB), **to_port(PORT))], True),
        ([policy(principals(WEB), **to_port(1))], False),
        ([policy(principals(WEB), to=[{"operation": {"methods": ["GET"]}}])], False),
        ([policy(when=[{"key": "source.principal", "values": [WEB]}])], True),
        ([policy(when=[EVERYBODY])], False),
        ([policy(principals(WEB), audit=True)], False),  # audit opens nothing
        ([policy(principals(WEB)), DENY_ALL], False),
        ([policy(principals(WEB)), policy({"namespaces": ["shop"]}, action="DENY")], False),
        ([policy(principals(WEB)), policy(principals("*"), action="DENY")], False),
        ([policy(principals(WEB)), policy({"namespaces": ["b"]}, action="DENY")], True),
        ([policy(principals(WEB)), policy(action="AUDIT")], True),
    ],
)
def test_of_another_trust_domain_is_let_in_who_is_named(policies, let_in):
    gateway = "10.0.0.3"
    caller = foreign_caller(f"spiffe://{WEB}", None, PORT)
    caller = replace(caller, addresses=(ip_address(gateway),))
    answer = authorized(for_foreign(policies, OWN), caller)
    assert answer.allow is let_in

    found = conditions.of_foreign(policies, OWN, PORT)
    # What a tunnel's authority says of a port is another's word.
    asked = (f"spiffe://{WEB}", gateway, "db.home.example:1", {})
    denying, allowing = (
        _rules(found, name) for name in (conditions.DENY_FILTER, conditions.ALLOW_FILTER)
    )
    denied = denying is not None and matching(denying, *asked) is not None
    assert allowing is not None, "who is not named is denied, whatever else there is"
    assert (not denied and matching(allowing, *asked) is not None) is let_in


def _rules(found, name):
    if name not in found:
        return None
    rbac = rbac_pb2.RBACPerRoute()
    found[name].Unpack(rbac)
    return rbac.rbac.rules if rbac.rbac.HasField("rules") else None


def test_a_trust_domain_that_is_called_as_ours_is_in_istio_is_not_ours():
    policies = [policy(principals("cluster.local/ns/a/sa/b"))]
    caller = foreign_caller("spiffe://cluster.local/ns/a/sa/b", None, PORT)
    assert not authorized(for_foreign(policies, OWN), caller).allow


def test_who_is_not_named_is_told_by_which_policies():
    assert str(not_named([])) == (
        "default-deny (no AuthorizationPolicy names this identity of another trust domain)"
    )
    assert "none of AuthorizationPolicy x/p names" in str(not_named([policy(), DENY_ALL]))


ITEMS = {"to": [{"operation": {"methods": ["GET"], "paths": ["/items*"], "ports": [str(PORT)]}}]}
BY_HEADER = [{"key": "request.headers[x-team]", "values": ["shop"]}]


@pytest.mark.parametrize(
    ("policies", "asked", "let_in"),
    [
        ([policy(principals(WEB), **ITEMS)], Asked("GET", "/items/1"), True),
        ([policy(principals(WEB), **ITEMS)], Asked("POST", "/items/1"), False),
        ([policy(principals(WEB), **ITEMS)], Asked("GET", "/keys"), False),
        ([policy(principals("*"), **ITEMS)], Asked("GET", "/items/1"), False),
        ([policy(principals(WEB), when=BY_HEADER)], Asked(headers={"x-team": "shop"}), True),
        ([policy(principals(WEB), when=BY_HEADER)], Asked(), False),
        (
            [policy(principals(WEB)), policy(action="DENY", name="d", **ITEMS)],
            Asked("GET", "/items/1"),
            False,
        ),
    ],
)
def test_of_another_trust_domain_asks_what_a_rule_lets_it(policies, asked, let_in):
    gateway = "10.0.0.3"
    caller = foreign_caller(f"spiffe://{WEB}", None, PORT, asked)
    assert authorized(for_foreign(policies, OWN), caller).allow is let_in
    found = conditions.of_foreign_requests(policies, OWN, PORT)
    sent = {"method": asked.method, "path": asked.path}
    sent |= {name.replace("-", "_"): text for name, text in asked.headers.items()}
    where = (f"spiffe://{WEB}", gateway, "api.there", {})
    denying, allowing = (
        _rules(found, name) for name in (conditions.DENY_FILTER, conditions.ALLOW_FILTER)
    )
    denied = denying is not None and matching(denying, *where, **sent) is not None
    assert (not denied and matching(allowing, *where, **sent) is not None) is let_in


def test_who_is_named_is_told_by_whose_rules_he_may_not_ask_that():
    caller = foreign_caller(f"spiffe://{WEB}", None, PORT, Asked("POST"))
    named = not_let_in([policy(principals(WEB), **ITEMS)], OWN, caller)
    assert str(named) == "default-deny (AuthorizationPolicy x/p)"
    assert "names this identity" in str(not_let_in([policy()], OWN, caller))
