from __future__ import annotations

from sixfold.model.rule import Rule
from sixfold.observe import policy_hits

RULES = {
    1: Rule("NetworkPolicy", "shop", "web", "ingress", 0),
    2: Rule("NetworkPolicy", "shop", "web", "ingress", 1),
    3: Rule("CiliumNetworkPolicy", "shop", "web", "egress", 0, section="egressDeny"),
    4: Rule(
        "posture", "", "default-deny", "ingress", because="shop/web,CiliumNetworkPolicy shop/web"
    ),
    5: Rule("posture", "", "default-deny", "egress", because="zero-trust"),
    6: Rule("builtin", "", "resolver", "egress"),
}


def test_rules_are_counted_under_their_policy():
    assert policy_hits(RULES, {1: 5, 2: 7, 3: 1}) == {
        "shop/web": {"ingress[0]": 5, "ingress[1]": 7},
        "CiliumNetworkPolicy shop/web": {"egressDeny[0]": 1},
    }


def test_a_default_deny_counts_for_every_policy_that_isolates():
    assert policy_hits(RULES, {4: 3}) == {
        "shop/web": {"ingress default-deny": 3},
        "CiliumNetworkPolicy shop/web": {"ingress default-deny": 3},
    }


def test_what_no_policy_wrote_is_nobodys():
    assert policy_hits(RULES, {5: 3, 6: 9, 7: 1}).keys() <= {"zero-trust"}
