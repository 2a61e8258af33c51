"""What leaves for the world by the proxy only: lines, their order, and whom they are for."""

import re
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.policy.worlds import nine, world

from sixfold.manifest import decode
from sixfold.mesh.outward import regex_of
from sixfold.model.domain import matches
from sixfold.policy.decide import decide, party_named, party_of
from sixfold.policy.outward import OutwardPlanner
from sixfold.policy.plan import PolicyCompiler

HOST = "api.example.com"


def out(port, *servers, to=None, **more):
    ports = {"ports": [{"port": str(port), "protocol": "TCP"}]}
    named = {"serverNames": list(servers)} if servers else {}
    return {"toPorts": [{**ports, **named}], **(to or {"toFQDNs": [{"matchName": HOST}]}), **more}


def cnp(*rules, name="p", **more):
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "x"},
        "spec": {
            "endpointSelector": {"matchLabels": {"pod": "a"}},
            "egress": list(rules),
            **more,
        },
    }


def entry(protocol, number, target=None, host=HOST):
    port = {"number": number, "name": "p", "protocol": protocol}
    port |= {"targetPort": target} if target else {}
    raw = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "api", "namespace": "y"},
        "spec": {"hosts": [host], "ports": [port], "resolution": "DNS"},
    }
    return decode(raw, offline=True).object


def begins_tls(host=HOST):
    raw = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "api", "namespace": "y"},
        "spec": {"host": host, "trafficPolicy": {"tls": {"mode": "SIMPLE"}}},
    }
    return decode(raw, offline=True).object


def planned(*policies, entries=(), rules=()):
    found = replace(
        world(nine(*policies, posture="zero-trust")),
        service_entries={f"y/{at}": one for at, one in enumerate(entries)},
        destination_rules={f"y/{at}": one for at, one in enumerate(rules)},
    )
    policy = PolicyCompiler().compile(found)
    return found, policy, OutwardPlanner().plan(found, policy)


def verdict(found, policy, port, host=HOST):
    """Of x/a to a host: whether it passes, and by the proxy only."""
    party = party_of(policy, found.endpoints["x/a"])
    side = decide(policy, party, party_named(policy, host), 6, port).egress
    return side.allow, side.by_proxy


def test_a_rule_with_server_names_lets_nothing_pass_but_the_proxy():
    found, policy, leavings = planned(cnp(out(443, "a.b", "*.c.d")))
    assert verdict(found, policy, 443) == (True, True)
    assert [*leavings] == ["x/a"]
    (seen,) = leavings["x/a"].seen
    assert (seen.port, seen.servers, seen.blocks) == (443, ("a.b", "*.c.d"), None)


def test_a_rule_without_goes_before_and_a_denial_before_both():
    plain = out(443)
    found, policy, _ = planned(cnp(out(443, "a.b"), plain))
    assert verdict(found, policy, 443) == (True, False)
    denied = cnp(name="q", egressDeny=[{"toEntities": ["world"]}])
    found, policy, _ = planned(cnp(out(443, "a.b"), plain), denied)
    assert verdict(found, policy, 443) == (False, False)


def test_a_block_is_told_to_the_proxy_with_its_holes():
    to = {"toCIDRSet": [{"cidr": "192.0.2.0/24", "except": ["192.0.2.8/29"]}]}
    _, _, leavings = planned(cnp(out(443, "a.b", to=to)))
    (block,) = leavings["x/a"].seen[0].blocks
    assert (block.cidr, [*block.except_]) == ("192.0.2.0/24", ["192.0.2.8/29"])


def test_an_entry_opens_nothing_and_a_policy_about_its_host_is_by_the_proxy():
    entries, rules = [entry("HTTP", 80, 443)], [begins_tls()]
    found, policy, leavings = planned(cnp({"toEntities": ["host"]}), entries=entries, rules=rules)
    assert verdict(found, policy, 80) == (False, False)
    assert leavings == {}
    for name in (HOST, "*.example.com"):
        to = {"toFQDNs": [{"matchPattern": name}]}
        found, policy, leavings = planned(cnp(out(80, to=to)), entries=entries, rules=rules)
        assert verdict(found, policy, 80) == (True, True)
        assert verdict(found, policy, 443) == (True, True)  # for the proxy's own dial
        assert leavings["x/a"].carried == ((HOST, 80),)
    assert verdict(found, policy, 80, "other.example.com") == (True, False)


def test_a_port_that_is_open_to_the_pod_itself_stays_so_beside_the_proxys():
    rules = out(80), out(443)
    found, policy, _ = planned(cnp(*rules), entries=[entry("HTTP", 80, 443)], rules=[begins_tls()])
    assert verdict(found, policy, 80) == (True, True)
    assert verdict(found, policy, 443) == (True, False)


def test_an_entry_of_tls_has_handshakes_name_its_hosts():
    found, policy, leavings = planned(cnp(out(443)), entries=[entry("TLS", 443)])
    assert verdict(found, policy, 443) == (True, True)
    assert [one.servers for one in leavings["x/a"].seen] == [(HOST,)]


@pytest.mark.parametrize("tls", [[], [begins_tls("other.example.com")]], ids=["none", "other"])
def test_requests_for_which_nobody_begins_tls_go_as_they_are(tls):
    found, policy, leavings = planned(cnp(out(80)), entries=[entry("HTTP", 80)], rules=tls)
    assert verdict(found, policy, 80) == (True, False)
    assert leavings == {}


LABELS = st.text("ab-", min_size=1, max_size=3)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.one_of(
    st.just("*"),
    st.lists(st.text("ab*-", min_size=1, max_size=3), min_size=1, max_size=3)
    .map(".".join)
    .filter(lambda it: not it.startswith("**")),
    NAMES.map(lambda it: f"**.{it}"),
)


@given(PATTERNS, NAMES)
def test_the_proxy_reads_patterns_as_policy_does(pattern, name):
    assert bool(re.fullmatch(regex_of(pattern), name)) == matches(pattern, name)


def test_addresses_are_no_names():
    assert not re.fullmatch(regex_of("a.b"), str(ip_address("192.0.2.1")))
