"""How a table is read: the kernel's order of lookups, spelled out on small tables."""

import pytest

from sixfold.model.datapath import ALLOW, DENY, EGRESS, INGRESS, PASS, PolicyEntry, PolicyTable
from sixfold.model.identity import ANY_POD, FIRST_CIDR, HOST, OUTSIDE, WORLD, Identity
from sixfold.policy.decide import Decision, Party, decide, lookup
from sixfold.policy.plan import PolicyPlan

PEER, CIDR, ANY = Identity(300), Identity(FIRST_CIDR), Identity(0)
TCP, UDP = 6, 17


def allow(peer, protocol=0, port=0, bits=0, rule=1, direction=INGRESS, **more):
    return PolicyEntry(direction, peer, protocol, port, bits, ALLOW, rule)._replace(**more)


def table(*entries):
    return PolicyTable.of(frozenset(entries), 90, 91)


def read(held, protocol=TCP, port=80, direction=INGRESS, cidr=CIDR):
    return lookup(held, direction, Party(PEER, cidr), protocol, port)


def test_no_match_is_the_default_of_the_direction():
    assert read(table()) == Decision(False, 90)
    assert read(table(), direction=EGRESS) == Decision(False, 91)


@pytest.mark.parametrize("peer", [PEER, CIDR, ANY])
def test_identity_cidr_and_any_each_allow(peer):
    assert read(table(allow(peer))) == Decision(True, 1)


def test_the_most_specific_peer_names_the_rule():
    held = table(allow(ANY, rule=1), allow(CIDR, rule=2), allow(PEER, rule=3))
    assert read(held).rule == 3
    assert read(table(allow(ANY, rule=1), allow(CIDR, rule=2))).rule == 2


def test_the_longest_port_prefix_names_the_rule():
    held = table(
        allow(PEER, rule=1),
        allow(PEER, TCP, rule=2),
        allow(PEER, TCP, 80, 14, rule=3),
        allow(PEER, TCP, 80, 16, rule=4),
    )
    assert [read(held, port=port).rule for port in (80, 81, 84)] == [4, 3, 2]
    assert read(held, protocol=UDP).rule == 1


def test_a_deny_beats_every_allow():
    held = table(allow(PEER, rule=1), allow(ANY, rule=2, verdict=DENY))
    assert read(held) == Decision(False, 2)


def test_a_higher_precedence_beats_a_deny():
    held = table(allow(PEER, rule=1, precedence=2), allow(ANY, rule=2, verdict=DENY, precedence=1))
    assert read(held) == Decision(True, 1)


def test_the_admin_tier_is_asked_first():
    held = table(allow(ANY, rule=1, verdict=DENY, admin=True), allow(PEER, rule=2, precedence=9))
    assert read(held) == Decision(False, 1)


def test_a_pass_hands_over_to_the_other_tiers():
    passed = allow(PEER, rule=1, verdict=PASS, precedence=2, admin=True)
    denied = allow(ANY, rule=2, verdict=DENY, precedence=1, admin=True)
    assert read(table(passed, denied, allow(CIDR, rule=3))) == Decision(True, 3)
    assert read(table(passed, denied)) == Decision(False, 90)


def test_every_pod_is_any_pod_and_nobody_else_is():
    held = table(allow(ANY_POD))
    assert read(held).allow
    assert not lookup(held, INGRESS, Party(WORLD, CIDR), TCP, 80).allow


def test_outside_a_block_of_the_world_are_the_pods_in_it():
    held = table(allow(Identity(CIDR + OUTSIDE)))
    assert not read(held).allow
    assert not lookup(held, INGRESS, Party(HOST, CIDR), TCP, 80).allow
    assert lookup(held, INGRESS, Party(WORLD, CIDR), TCP, 80).allow


def test_a_rule_of_one_direction_says_nothing_about_the_other():
    assert not read(table(allow(PEER)), direction=EGRESS).allow


def test_a_peer_outside_every_block_has_no_block_rule():
    assert not read(table(allow(CIDR)), cidr=Identity(0)).allow


def test_both_sides_must_allow():
    ends = Party(PEER, key="x/a"), Party(PEER, key="x/b")
    out = table(allow(PEER, direction=EGRESS))
    for ingress, allowed in ((table(allow(PEER)), True), (out, False)):
        tables = {"x/a": out, "x/b": ingress}
        assert decide(PolicyPlan(tables=tables), *ends, TCP, 80).allow is allowed


def test_an_endpoint_without_table_is_shut():
    verdict = decide(PolicyPlan(), Party(PEER, key="x/a"), Party(ANY), TCP, 80)
    assert verdict.egress == Decision(False, 0)
    assert verdict.ingress is None
    assert not verdict.allow


def test_a_pod_with_a_number_beyond_the_kernels_is_any_pod_too():
    """Offline, a hundred thousand kinds of pods may be judged together."""
    held = table(allow(ANY_POD))
    assert lookup(held, INGRESS, Party(Identity(70000)), TCP, 80).allow
    assert not lookup(held, INGRESS, Party(WORLD), TCP, 80).allow
