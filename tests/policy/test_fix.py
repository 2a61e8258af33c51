"""Edits that are suggested really allow the flow, and let as little else pass as there is."""

import random
from dataclasses import replace

import pytest
from tests.policy import cases, languages
from tests.policy.worlds import nine, np, parties, world

from sixfold.model.datapath import PROTOCOL_NUMBERS
from sixfold.policy.decide import decide
from sixfold.policy.fix import fixes
from sixfold.policy.plan import compile_policies

BASE = np("base", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
A, B = ({"matchLabels": {"pod": name}} for name in "ab")


def fix(case, source, destination, port=80, protocol="TCP"):
    here = world(case)
    plan = compile_policies(here)
    ends = [parties(plan, here, side) for side in (source, destination)]
    return here, fixes(here, plan, *ends, protocol, port)


def pod(case, name):
    return next(one for one in case["pods"] if one["pod"] == name)


def applied(here, edits):
    added = {f"{e.policy.metadata.namespace}/{e.policy.metadata.name}": e.policy for e in edits}
    return replace(here, policies={**here.policies, **added})


def between(case, source, destination, **more):
    _, edits = fix(case, pod(case, source), pod(case, destination), **more)
    return [(edit.direction, edit.what) for edit in edits]


def test_each_side_that_denies_gets_an_edit():
    assert between(nine(BASE), "x/a", "x/b") == [
        ("egress", "new policy x/a-to-b: to x/b on TCP/80"),
        ("ingress", "new policy x/b-from-a: from x/a on TCP/80"),
    ]


def test_a_policy_of_the_workload_alone_gets_a_port_more():
    own = np(
        "own",
        {"podSelector": B, "ingress": [{"from": [{"podSelector": A}], "ports": [{"port": 81}]}]},
    )
    case = nine(own)
    assert between(case, "x/a", "x/b") == [
        ("ingress", "add TCP/80 to the ports of x/own ingress[0]")
    ]
    assert between(case, "x/c", "x/b", port=81) == [
        ("ingress", "add x/c to the peers of x/own ingress[0]")
    ]
    assert between(case, "x/c", "x/b") == [("ingress", "add a rule to x/own: from x/c on TCP/80")]


def test_an_address_is_named_by_a_block():
    case = nine(BASE)
    _, (edit,) = fix(case, pod(case, "x/a"), {"ip": "192.0.2.7"}, 443)
    (rule,) = edit.policy.spec.egress
    assert rule.to[0].ip_block.cidr == "192.0.2.7/32"
    assert edit.others == 0


def test_a_protocol_without_ports_opens_all_and_says_so():
    case = nine(BASE)
    _, edits = fix(case, pod(case, "x/a"), pod(case, "x/b"), 8, "ICMP")
    assert all(edit.policy.spec.ingress or edit.policy.spec.egress for edit in edits)
    assert edits[0].policy.spec.egress[0].ports is None


def test_what_denies_by_name_is_named_when_no_allow_can_help():
    deny = {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "shut"},
        "spec": {
            "tier": "Admin",
            "priority": 1,
            "subject": {"namespaces": {}},
            "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}],
        },
    }
    ((side, what),) = between(nine(deny), "x/a", "x/b")
    assert side == "ingress"
    assert what.startswith("no allow rule can help: change what denies, ClusterNetworkPolicy")


def test_nothing_is_edited_where_nothing_is_denied():
    assert between(nine(), "x/a", "x/b") == []


@pytest.mark.parametrize("worlds", [cases, languages], ids=["networkpolicy", "languages"])
@pytest.mark.parametrize("seed", range(25))
def test_random_denials_are_mended(seed, worlds):
    pick = random.Random(seed)
    case = worlds.case(seed, pick.choice(("kubernetes", "zero-trust")))
    tried = 0
    for source, destination, protocol, port, version in worlds.flows(case, pick, 40):
        if version == 6 or source.get("pod") == destination.get("pod") or tried == 4:
            continue
        here, edits = fix(case, source, destination, port, protocol)
        if not edits or any(edit.policy is None for edit in edits):
            continue
        tried += 1
        after = applied(here, edits)
        plan = compile_policies(after)
        ends = [parties(plan, after, side) for side in (source, destination)]
        assert decide(plan, *ends, PROTOCOL_NUMBERS[protocol], port).allow, (seed, edits)
