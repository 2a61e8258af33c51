from __future__ import annotations

from sixfold.model.identity import HOST, RESOLVER, WORLD
from sixfold.model.reason import DropReason
from sixfold.model.rule import Rule
from sixfold.observe.counts import OTHER, Bounded, FlowCounts, Growing, HitCounts

from .flow_samples import Event, sample_names

RULES = {
    1: Rule("NetworkPolicy", "shop", "web", "ingress", 0),
    2: Rule("CiliumNetworkPolicy", "shop", "web", "egress", 0, section="egressDeny"),
    3: Rule("posture", "", "default-deny", "ingress", because="shop/web,CiliumNetworkPolicy a/b"),
    4: Rule("posture", "", "default-deny", "egress", because="zero-trust"),
    5: Rule("builtin", "", "resolver", "egress"),
}


def test_flows_are_counted_by_verdict_reason_and_namespaces():
    counts = FlowCounts(sample_names())
    web, db = Event().source_identity, Event().destination_identity
    denied = int(DropReason.POLICY_DENIED)
    counts.take([(1, 0, web, db), (1, 0, web, db), (2, denied, web, int(WORLD))])
    counts.take([(1, 0, web, int(RESOLVER)), (5, denied, int(HOST), db), (1, 0, web, 1 << 24)])
    assert counts.flows.counts == {
        ("FORWARDED", "", "shop", "shop"): 2,
        ("DROPPED", "policy_denied", "shop", "reserved:world"): 1,
        ("FORWARDED", "", "shop", "reserved:resolver"): 1,
        ("AUDIT", "policy_denied", "reserved:host", "shop"): 1,
        ("FORWARDED", "", "shop", "reserved:world"): 1,
    }


def test_what_finds_no_room_is_counted_together_and_stays_there():
    bounded = Bounded(1, most=1)
    for name, count in (("a", 1), ("b", 2), ("a", 4), ("c", 8), ("b", 16)):
        bounded.add((name,), count)
    assert bounded.counts == {("a",): 5, (OTHER,): 26}


def test_rules_are_counted_under_their_policy_and_a_default_under_each_that_isolates():
    hits = HitCounts()
    hits.take(RULES, {1: 5, 2: 1, 3: 3, 4: 2, 5: 9, 6: 7})
    assert hits.hits.counts == {
        ("shop", "web", "ingress[0]", "ingress"): 5,
        ("shop", "CiliumNetworkPolicy web", "egressDeny[0]", "egress"): 1,
        ("shop", "web", "default-deny", "ingress"): 3,
        ("a", "CiliumNetworkPolicy b", "default-deny", "ingress"): 3,
        ("", "zero-trust", "default-deny", "egress"): 2,
        ("", "builtin", "resolver", "egress"): 9,
    }


def test_a_counter_grows_by_what_the_kernel_counted_since():
    hits = HitCounts()
    for now in (5, 5, 8):
        hits.take(RULES, {1: now})
    assert hits.hits.counts == {("shop", "web", "ingress[0]", "ingress"): 8}


def test_maps_of_another_version_begin_at_zero():
    hits = HitCounts()
    for now in (5, 2):
        hits.take(RULES, {1: now})
    assert hits.hits.counts == {("shop", "web", "ingress[0]", "ingress"): 7}


def test_what_ended_stays_counted_and_its_successor_is_added():
    growing = Growing(1)
    for now in ({("a",): 3, ("b",): 4}, {("b",): 6}, {("a",): 2, ("b",): 6}):
        growing.take({key: (("web",), count) for key, count in now.items()})
    assert growing.sums.counts == {("web",): 11}
