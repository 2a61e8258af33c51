"""Findings of lint: each check on the smallest policies that show it, and not on good ones."""

from dataclasses import replace

import msgspec
import pytest
from tests.policy import languages
from tests.policy.worlds import NINE, nine, np, world

from sixfold.model.policy import NetworkPolicy
from sixfold.policy.diff import compare
from sixfold.policy.lint import lint
from sixfold.policy.lint_finding import CHECKS
from sixfold.policy.reach_parties import View

A, B = ({"matchLabels": {"pod": name}} for name in "ab")
FROM_B = {"from": [{"podSelector": B}], "ports": [{"port": 80}]}


def found(*policies, pods=NINE, **more):
    case = {**nine(*policies, **more), "pods": pods}
    return [(one.check, one.policy, one.path) for one in lint(View(world(case)))]


def ingress(*rules, name="p", **spec):
    return np(name, {"podSelector": A, "ingress": list(rules), **spec})


BASE = np("base", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})


def test_good_policies_have_no_findings():
    assert found(BASE, ingress(FROM_B)) == []


def test_a_rule_that_another_covers_is_shadowed():
    wide = {"from": [{"podSelector": {}}], "ports": [{"port": 80, "endPort": 90}]}
    assert ("shadowed", "x/p", ("spec", "ingress", 0)) in found(BASE, ingress(FROM_B, wide))
    udp = {"from": [{"podSelector": {}}], "ports": [{"protocol": "UDP"}]}
    assert found(BASE, ingress(FROM_B, udp)) == []


def test_of_two_equal_rules_only_the_later_is_shadowed():
    checks = found(BASE, ingress(FROM_B, FROM_B))
    assert [one for one in checks if one[0] == "shadowed"] == [
        ("shadowed", "x/p", ("spec", "ingress", 1))
    ]


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        ({"cidr": "10.0.0.0/8"}, {"cidr": "10.1.0.0/16"}, True),
        ({"cidr": "10.0.0.0/8", "except": ["10.1.2.0/24"]}, {"cidr": "10.1.0.0/16"}, False),
        (
            {"cidr": "10.0.0.0/8", "except": ["10.1.2.0/24"]},
            {"cidr": "10.1.0.0/16", "except": ["10.1.0.0/17"]},
            True,
        ),
        ({"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}, {"cidr": "10.1.2.0/24"}, False),
    ],
)
def test_blocks_cover_less_their_exceptions(wide, narrow, covered):
    rules = [{"from": [{"ipBlock": block}]} for block in (wide, narrow)]
    checks = [check for check, _, _ in found(BASE, ingress(*rules))]
    assert ("shadowed" in checks) is covered


def test_a_policy_that_selects_nobody():
    ghost = np("p", {"podSelector": {"matchLabels": {"pod": "ghost"}}})
    assert found(BASE, ghost) == [("selects-nothing", "x/p", ("spec", "podSelector"))]


def test_a_peer_that_is_nobody_and_a_rule_of_only_such_peers():
    ghost = {"podSelector": {"matchLabels": {"pod": "ghost"}}}
    rule = {"from": [ghost, *FROM_B["from"]], "ports": FROM_B["ports"]}
    place = ("spec", "ingress", 0)
    assert found(BASE, ingress(rule)) == [("selects-nothing", "x/p", (*place, "from", 0))]
    assert ("no-effect", "x/p", place) in found(BASE, ingress({"from": [ghost]}))


def test_a_direction_that_policy_types_leave_out():
    inert = ingress(FROM_B, policyTypes=["Egress"])
    assert ("no-effect", "x/p", ("spec", "ingress")) in found(BASE, inert)


def test_a_block_of_service_addresses():
    rule = {"to": [{"ipBlock": {"cidr": "10.96.0.10/32"}}]}
    policy = np("p", {"podSelector": A, "egress": [rule], "policyTypes": ["Egress"]})
    place = ("spec", "egress", 0, "to", 0, "ipBlock")
    assert ("no-effect", "x/p", place) in found(BASE, policy)


def test_a_block_that_means_pods():
    rule = {"from": [{"ipBlock": {"cidr": "192.168.1.11/32"}}]}
    place = ("spec", "ingress", 0, "from", 0, "ipBlock")
    assert found(BASE, ingress(rule)) == [("cidr-instead-of-identity", "x/p", place)]
    outside = {"from": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}
    assert found(BASE, ingress(outside)) == []


@pytest.mark.parametrize(
    "rule", [{}, {"from": []}, {"from": [{"namespaceSelector": {}}]}, {"ports": [{"port": 80}]}]
)
def test_a_rule_for_everybody(rule):
    assert ("empty-selector", "x/p", ("spec", "ingress", 0)) in found(BASE, ingress(rule))


def test_a_port_name_that_nobody_has():
    def rule(name, protocol="TCP"):
        return {**FROM_B, "ports": [{"port": name, "protocol": protocol}]}

    place = ("spec", "ingress", 0, "ports")
    assert ("unknown-port-name", "x/p", place) in found(BASE, ingress(rule("web")))
    assert found(BASE, ingress(rule("serve-80-tcp"))) == []
    assert found(BASE, ingress(rule("serve-80-tcp", "UDP")))[-1][0] == "unknown-port-name"


def test_rules_without_a_base():
    assert found(ingress(FROM_B)) == [("allow-without-deny-base", "x/p", ("spec", "podSelector"))]


def test_what_others_allow_already_is_redundant():
    twice = ingress(FROM_B, name="q")
    assert found(BASE, ingress(FROM_B), twice) == [
        ("redundant", "x/p", ("spec",)),
        ("redundant", "x/q", ("spec",)),
    ]
    more = {"from": [{"podSelector": {"matchLabels": {"pod": "c"}}}], "ports": [{"port": 80}]}
    assert found(BASE, ingress(FROM_B), ingress(FROM_B, more, name="q")) == [
        ("redundant", "x/p", ("spec",)),
        ("redundant", "x/q", ("spec", "ingress", 0)),
    ]


def test_every_check_is_explained():
    assert all(CHECKS[check] for check in CHECKS)


@pytest.mark.parametrize("seed", range(60))
def test_what_is_called_shadowed_or_redundant_can_go(seed):
    """And in all languages nothing breaks, and every place is one."""
    case = languages.case(seed, ("kubernetes", "zero-trust")[seed % 2])
    here = world(case)
    before = View(here)
    for one in lint(before):
        assert one.path[0] in ("spec", "specs")
        policy = here.policies[one.policy]
        if one.check not in ("shadowed", "redundant") or not isinstance(policy, NetworkPolicy):
            continue
        policies = {key: held for key, held in here.policies.items() if key != one.policy}
        if len(one.path) > 1:
            _, section, at = one.path
            rules = list(getattr(policy.spec, section))
            del rules[at]
            types = sorted(policy.spec.isolates)
            spec = msgspec.structs.replace(policy.spec, policy_types=types, **{section: rules})
            policies[one.policy] = msgspec.structs.replace(policy, spec=spec)
        assert not compare(before, View(replace(here, policies=policies))), one
