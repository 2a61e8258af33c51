"""What is in audit is told, not enforced; everything else is enforced as before."""

import random
from dataclasses import replace

import pytest
from tests.policy import cases, languages
from tests.policy.reference import allowed
from tests.policy.worlds import parties, policy, world

from sixfold.model.datapath import PROTOCOL_NUMBERS
from sixfold.model.enforcement import ENFORCEMENT
from sixfold.policy.decide import decide
from sixfold.policy.plan import PolicyCompiler, compile_policies

PODS = [
    {"pod": f"shop/{name}", "labels": {"app": name}, "ip": f"10.0.0.{at}"}
    for at, name in enumerate(("web", "db", "guest"), 1)
]
LET_WEB = {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}


def db_policy(name="db", audit=True, **spec):
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "annotations": {ENFORCEMENT: "audit" if audit else "enforce"},
        },
        "spec": {"podSelector": {"matchLabels": {"app": "db"}}, **spec},
    }


def place(*policies, posture="kubernetes", **changes):
    case = {
        "namespaces": {"shop": {}},
        "pods": PODS,
        "policies": policies,
        "posture": posture,
    }
    return replace(world(case), **changes)


def ingress(here, source, destination="shop/db", port=80):
    """(allowed, audit, rule) of the destination's side."""
    plan = compile_policies(here)
    sides = [parties(plan, here, {"pod": key}) for key in (source, destination)]
    side = decide(plan, *sides, PROTOCOL_NUMBERS["TCP"], port).ingress
    return side.allow, side.audit, str(plan.rules[side.rule])


def test_what_a_policy_in_audit_would_deny_passes_under_the_name_of_its_default():
    here = place(db_policy(ingress=[LET_WEB]))
    assert ingress(here, "shop/web") == (True, False, "shop/db ingress[0]")
    assert ingress(here, "shop/guest") == (True, True, "default-deny (shop/db)")


def test_a_policy_that_is_enforced_still_denies_beside_one_in_audit():
    strict = db_policy("strict", audit=False, ingress=[LET_WEB])
    here = place(db_policy(ingress=[]), strict)
    assert ingress(here, "shop/web") == (True, False, "shop/strict ingress[0]")
    assert ingress(here, "shop/guest") == (False, False, "default-deny (shop/strict)")


def test_what_a_policy_in_audit_allows_it_allows():
    strict = db_policy("strict", audit=False, ingress=[])
    here = place(db_policy(ingress=[LET_WEB]), strict)
    assert ingress(here, "shop/web") == (True, False, "shop/db ingress[0]")


def test_zero_trust_opens_only_the_direction_that_is_in_audit():
    here = place(db_policy(ingress=[]), posture="zero-trust")
    assert ingress(here, "shop/guest") == (True, True, "default-deny (shop/db)")
    allow, audit, rule = ingress(here, "shop/db", "shop/guest")
    assert (allow, audit, rule) == (False, False, "default-deny (zero-trust)")


@pytest.mark.parametrize("posture", ["kubernetes", "zero-trust"])
def test_a_namespace_in_audit_denies_nothing(posture):
    strict = db_policy(audit=False, ingress=[LET_WEB])
    here = place(strict, posture=posture, audited=frozenset({"shop"}))
    assert ingress(here, "shop/web") == (True, False, "shop/db ingress[0]")
    assert ingress(here, "shop/guest") == (True, True, "default-deny (shop/db)")


def test_a_deny_rule_in_audit_is_named():
    deny = policy(
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNetworkPolicy",
            "metadata": {
                "name": "no-guests",
                "namespace": "shop",
                "annotations": {ENFORCEMENT: "audit"},
            },
            "spec": {
                "endpointSelector": {"matchLabels": {"app": "db"}},
                "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"app": "guest"}}]}],
            },
        }
    )
    here = place()
    here = replace(here, policies={"CiliumNetworkPolicy shop/no-guests": deny})
    found = ingress(here, "shop/guest")
    assert found == (True, True, "CiliumNetworkPolicy shop/no-guests ingressDeny[0]")


def test_tables_are_single_where_nothing_is_in_audit():
    here = place(db_policy(audit=False, ingress=[LET_WEB]))
    assert all(table.audit is None for table in compile_policies(here).tables.values())


@pytest.mark.parametrize("posture", ["kubernetes", "zero-trust"])
@pytest.mark.parametrize("worlds", [cases, languages], ids=["networkpolicy", "languages"])
def test_audit_only_opens_and_tells_just_what_the_reference_denies(worlds, posture):
    for seed in range(60):
        case = worlds.case(seed, posture)
        pick = random.Random(seed)
        audited = [raw for raw in case["policies"] if pick.random() < 0.5]
        enforced = {**case, "policies": [raw for raw in case["policies"] if raw not in audited]}
        marked = [
            {**raw, "metadata": {**raw["metadata"], "annotations": {ENFORCEMENT: "audit"}}}
            if raw in audited
            else raw
            for raw in case["policies"]
        ]
        here = world({**case, "policies": marked})
        everything = replace(here, config=replace(here.config, audit=True))
        plan, told = compile_policies(here), compile_policies(everything)
        for source, destination, protocol, port, version in worlds.flows(case, pick, 60):
            if source.get("pod") == destination.get("pod") and "pod" in source:
                continue
            flow = (source, destination, protocol, port)
            number = PROTOCOL_NUMBERS[protocol]
            sides = [parties(plan, here, one, version) for one in (source, destination)]
            verdict = decide(plan, *sides, number, port)
            if verdict.allow:
                audit = any(one and one.audit for one in (verdict.egress, verdict.ingress))
                assert audit != allowed(case, *flow), (seed, flow)
            else:
                assert not allowed(case, *flow), (seed, flow)
                if posture == "kubernetes" and worlds is cases:
                    assert not allowed(enforced, *flow), (seed, flow)
            sides = [parties(told, everything, one, version) for one in (source, destination)]
            verdict = decide(told, *sides, number, port)
            audit = any(one and one.audit for one in (verdict.egress, verdict.ingress))
            assert verdict.allow
            assert audit != allowed(case, *flow), (seed, flow)


def test_following_annotations_equals_compiling_afresh():
    strict, audit = (db_policy(audit=one, ingress=[LET_WEB]) for one in (False, True))
    rules = {}
    compiler = PolicyCompiler(lambda rule: rules.setdefault(rule, len(rules) + 1))
    steps = [
        place(strict),
        place(audit),
        place(strict, audited=frozenset({"shop"})),
        place(strict, audited=frozenset({"elsewhere"})),
        place(audit, audited=frozenset({"shop"})),
        place(strict),
    ]
    for here in steps:
        fresh = compile_policies(here, lambda rule: rules.setdefault(rule, len(rules) + 1))
        assert compiler.compile(here).tables == fresh.tables
