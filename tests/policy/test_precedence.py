"""Which rule decides when several match: written by hand, tier by tier and corner by corner."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from tests.policy.worlds import NINE, nine, np, parties, passes, world

from sixfold.model.datapath import DENY, EGRESS, INGRESS, PROTOCOL_NUMBERS
from sixfold.policy.decide import lookup
from sixfold.policy.plan import PolicyCompiler, compile_policies

A, B, FAR = NINE[0], NINE[1], NINE[3]
OUTSIDE = {"ip": "192.0.2.1"}
NODE = {"ip": "10.244.0.1", "host": True}
DNS = {"ip": "169.254.20.10"}
EVERY = [{"namespaces": {}}]
ONLY_A = {"matchLabels": {"pod": "a"}}


def cnp(name, *rules, tier="Admin", priority=10, section="ingress"):
    side = "from" if section == "ingress" else "to"
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "tier": tier,
            "priority": priority,
            "subject": {"namespaces": {}},
            section: [{"action": action, side: peers, **more} for action, peers, more in rules],
        },
    }


def ccnp(name, **spec):
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"endpointSelector": {}, **spec},
    }


def judge(case, source, destination, protocol="TCP", port=80):
    here = world(case)
    return passes(compile_policies(here), here, (source, destination, protocol, port))


def rule_named(case, subject, direction, other, protocol="TCP", port=80):
    here = world(case)
    plan = compile_policies(here)
    party = parties(plan, here, other, 4)
    table = plan.tables[subject["pod"]]
    decision = lookup(table, direction, party, PROTOCOL_NUMBERS[protocol], port)
    return decision.allow, str(plan.rules[decision.rule])


def rule(action, peers=EVERY, **more):
    return action, peers, more


# --- ordered tiers -----------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 999])
def test_the_lower_priority_is_asked_first(first):
    low = cnp("b", rule("Deny"), priority=first)
    high = cnp("a", rule("Accept"), priority=1000)
    assert rule_named(nine(low, high), A, INGRESS, B) == (
        False,
        "ClusterNetworkPolicy admin/b ingress[0]",
    )


def test_of_equal_priorities_the_first_name_decides_whole():
    """v1alpha2 leaves it open; every rule of ``a`` comes before the first of ``b``."""
    narrow = [{"tcp": {"destinationPort": {"number": 1}}}]
    a = cnp("a", rule("Accept", protocols=narrow), rule("Accept"))
    b = cnp("b", rule("Deny"))
    for policies in ((a, b), (b, a)):
        assert judge(nine(*policies), B, A)
    assert not judge(nine(cnp("c", rule("Accept")), b), B, A)


def test_a_policy_that_comes_between_equals_moves_those_after_it():
    compiler, identities = PolicyCompiler(), {}
    policies = [cnp("b", rule("Accept")), cnp("c", rule("Deny"))]
    for first, allowed in ((None, True), (cnp("a", rule("Deny")), False), (None, True)):
        case = nine(*policies, *([first] if first else []))
        here = world(case, identities)
        assert passes(compiler.compile(here), here, (B, A, "TCP", 80)) is allowed


def test_a_deny_of_all_ports_does_not_hide_behind_an_accepted_port():
    """The kernel reads the longest match only: the compiler must prune what is overruled."""
    narrow = [{"tcp": {"destinationPort": {"number": 80}}}]
    case = nine(
        cnp("deny", rule("Deny")), cnp("late", rule("Accept", protocols=narrow), priority=20)
    )
    assert not judge(case, B, A, port=80)


def test_any_peer_denied_first_beats_one_peer_accepted_later():
    one = [{"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"pod": "b"}}}}]
    assert not judge(nine(cnp("p", rule("Deny"), rule("Accept", one))), B, A)
    assert judge(nine(cnp("p", rule("Accept", one), rule("Deny"))), B, A)


def test_pass_leaves_the_tier_and_later_admin_policies_unasked():
    case = [cnp("p", rule("Pass")), cnp("q", rule("Deny"), priority=20)]
    assert judge(nine(*case), B, A)
    assert not judge(nine(*case, np("shut", {"podSelector": {}})), B, A)


def test_a_network_policy_is_final_and_baseline_is_not_heard():
    allow = np("allow", {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]})
    base = cnp("base", rule("Accept"), tier="Baseline")
    assert judge(nine(allow, base), B, A)
    assert not judge(nine(allow, base), FAR, A)
    assert judge(nine(base, posture="zero-trust"), FAR, A) is False  # nobody lets it out
    out = cnp("out", rule("Accept"), tier="Baseline", section="egress")
    assert judge(nine(base, out, posture="zero-trust"), FAR, A)


@pytest.mark.parametrize(("posture", "allowed"), [("kubernetes", True), ("zero-trust", False)])
def test_pass_in_baseline_leaves_it_to_the_posture(posture, allowed):
    base = cnp("base", rule("Pass"), rule("Deny" if allowed else "Accept"), tier="Baseline")
    name = "default-allow (kubernetes)" if allowed else "default-deny (zero-trust)"
    assert rule_named(nine(base, posture=posture), A, INGRESS, B) == (allowed, name)


def test_networks_match_pods_too_unless_they_are_passed_before():
    networks = [{"networks": ["0.0.0.0/0"]}]
    deny = rule("Deny", networks)
    assert not judge(nine(cnp("p", deny, section="egress")), A, B)
    assert not judge(nine(cnp("p", deny, section="egress")), A, OUTSIDE)
    passed = cnp("p", rule("Pass"), deny, section="egress")
    assert judge(nine(passed), A, B)
    assert not judge(nine(passed), A, OUTSIDE)


def test_built_in_exceptions_come_before_admin_rules():
    deny = cnp("deny", rule("Deny", [{"networks": ["0.0.0.0/0", "::/0"]}]), section="egress")
    assert judge(nine(deny), A, DNS, "UDP", 53)
    assert not judge(nine(deny), A, DNS, "UDP", 54)
    everything = ccnp("deny", ingressDeny=[{"fromEntities": ["all"]}])
    assert judge(nine(everything), NODE, A)
    assert not judge(nine(everything), OUTSIDE, A)


# --- Cilium --------------------------------------------------------------------------------------


def test_an_empty_list_of_rules_has_no_effect():
    assert judge(nine(ccnp("p", ingress=[])), B, A)


def test_an_empty_rule_denies_by_default_and_allows_nothing():
    case = nine(ccnp("p", ingress=[{}]))
    assert rule_named(case, A, INGRESS, B) == (
        False,
        "default-deny (CiliumClusterwideNetworkPolicy p)",
    )
    assert judge(case, A, OUTSIDE)  # egress is as it was


def test_an_empty_list_of_peers_is_nobody_and_none_is_anybody():
    ports = [{"ports": [{"port": "80"}]}]
    assert not judge(nine(ccnp("p", ingress=[{"fromEndpoints": [], "toPorts": ports}])), B, A)
    case = nine(ccnp("p", ingress=[{"toPorts": ports}]))
    assert judge(case, OUTSIDE, A)
    assert judge(case, OUTSIDE, A, "SCTP")
    assert not judge(case, OUTSIDE, A, port=81)


def test_a_deny_alone_denies_all_by_default():
    deny = [{"fromEndpoints": [{"matchLabels": {"pod": "c"}}]}]
    assert not judge(nine(ccnp("p", ingressDeny=deny)), B, A)
    open_ = {"ingress": False}
    assert judge(nine(ccnp("p", ingressDeny=deny, enableDefaultDeny=open_)), B, A)
    assert not judge(nine(ccnp("p", ingressDeny=deny, enableDefaultDeny=open_)), NINE[2], A)


def test_a_deny_beats_a_more_specific_allow_of_a_network_policy():
    ports = [{"port": 80}]
    allow = np(
        "allow",
        {"podSelector": {}, "ingress": [{"from": [{"podSelector": ONLY_A}], "ports": ports}]},
    )
    deny = ccnp("deny", ingressDeny=[{"fromEntities": ["cluster"]}])
    assert judge(nine(allow), A, B)
    assert not judge(nine(allow, deny), A, B)


def test_every_spec_stands_for_itself():
    found = ccnp("p")
    del found["spec"]
    found["specs"] = [
        {"endpointSelector": ONLY_A, "ingress": [{"fromEntities": ["world"]}]},
        {"endpointSelector": {}, "ingressDeny": [{"toPorts": [{"ports": [{"port": "81"}]}]}],
         "enableDefaultDeny": {"ingress": False}},
    ]  # fmt: skip
    case = nine(found)
    assert judge(case, OUTSIDE, A)
    assert not judge(case, B, A)
    assert judge(case, A, B)
    assert rule_named(case, B, INGRESS, A, port=81) == (
        False,
        "CiliumClusterwideNetworkPolicy p specs[1].ingressDeny[0]",
    )


def test_a_label_of_two_sources_with_two_values_is_nobodys():
    labels = {"k8s:pod": "a", "any:pod": "b"}
    case = nine(ccnp("p", ingress=[{"fromEndpoints": [{"matchLabels": labels}]}]))
    assert not judge(case, A, B)
    assert not judge(case, B, A)


def test_names_open_the_addresses_that_they_are_known_to_have():
    out = [
        {"toFQDNs": [{"matchName": "Api.Example.com."}], "toPorts": [{"ports": [{"port": "443"}]}]}
    ]
    compiler, here = PolicyCompiler(), world(nine(ccnp("p", egress=out)))
    flow = (A, OUTSIDE, "TCP", 443)
    assert not passes(compiler.compile(here), here, flow)
    known = replace(here, domains={"api.example.com": frozenset({ip_address("192.0.2.1")})})
    assert passes(compiler.compile(known), known, flow)
    assert not passes(compiler.compile(known), known, (A, {"ip": "192.0.2.2"}, "TCP", 443))
    assert not passes(compiler.compile(here), here, flow)


def test_what_a_name_resolves_to_next_changes_no_table():
    out = [{"toFQDNs": [{"matchPattern": "*.example.com"}]}]
    compiler, here = PolicyCompiler(), world(nine(ccnp("p", egress=out)))
    before = compiler.compile(here).tables
    for number in range(1, 9):
        names = {f"{number}.example.com": frozenset({ip_address(f"192.0.2.{number}")})}
        plan = compiler.compile(replace(here, domains=names))
        assert plan.tables == before
        assert passes(plan, here, (A, {"ip": f"192.0.2.{number}"}, "TCP", 443))
        assert not passes(plan, here, (A, {"ip": f"192.0.2.{number + 1}"}, "TCP", 443))


def test_an_address_with_a_name_stays_in_its_blocks():
    named = [{"toFQDNs": [{"matchName": "a.b"}]}]
    denied = [{"toCIDR": ["192.0.2.0/31"]}]
    domains = {"a.b": ["192.0.2.1", "192.0.2.2"]}
    case = nine(ccnp("p", egress=named, egressDeny=denied), domains=domains)
    assert judge(case, A, {"ip": "192.0.2.2"})
    assert not judge(case, A, OUTSIDE)
    allowed = [{"toCIDR": ["192.0.2.0/24"], "toPorts": [{"ports": [{"port": "22"}]}]}]
    case = nine(ccnp("p", egress=allowed), ccnp("q", egress=named), domains=domains)
    assert judge(case, A, OUTSIDE, port=22)
    assert judge(case, A, OUTSIDE, port=23)
    assert not judge(case, A, {"ip": "192.0.2.3"}, port=23)


def test_a_name_that_resolves_to_a_pod_or_the_node_opens_neither():
    named = [{"toFQDNs": [{"matchName": "a.b"}]}]
    node = {"ip": "192.168.0.1", "host": True}
    case = nine(ccnp("p", egress=named), domains={"a.b": [B["ip"], node["ip"]]})
    assert not judge(case, A, B)
    assert not judge(case, A, node)


def test_a_rule_about_every_pod_is_one_entry_however_many_pods():
    plan = compile_policies(world(nine(cnp("p", rule("Deny")))))
    denies = [one for one in plan.tables["x/a"].entries if one.verdict == DENY]
    assert len(denies) == 1
    assert {one.direction for one in denies} == {INGRESS}
    assert all(one.direction == EGRESS or one.admin for one in denies)
