"""Assertions are proved or refuted, and what refutes them is a flow that really passes."""

import random
from dataclasses import replace

import msgspec
import pytest
from tests.policy import cases, reference
from tests.policy.worlds import nine, np, world

from sixfold.policy.reach_parties import View
from sixfold.policy.verify import verify
from sixfold.policy.verify_assertion import Assertion

X_A = {"namespace": "x", "podSelector": {"matchLabels": {"pod": "a"}}}
TCP_80 = [{"port": 80}]
FROM_B = np(
    "from-b",
    {
        "podSelector": {"matchLabels": {"pod": "a"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}], "ports": TCP_80}],
    },
)
LAN = np("lan", {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]})


def outcome(case, **assertion):
    (found,) = verify(View(world(case)), [msgspec.convert(assertion, Assertion)])
    return found


def holds(case, **assertion):
    return outcome(case, **assertion).holds


def test_only_counts_everybody_else():
    only = {"to": [X_A], "from": [{"workload": "x/b"}]}
    assert holds(nine(FROM_B), only=only)
    found = outcome(nine(), only=only)
    assert (found.holds, found.example["to"]) == (False, "x/a")
    assert found.example["verdict"] == "ALLOWED"


def test_only_may_guard_what_a_workload_reaches():
    egress = np("out", {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [POD_B]}]})
    guarded = {"from": [{"namespace": "x"}], "to": [{"workload": "x/b"}], "guards": "from"}
    assert holds(nine(egress), only=guarded)
    assert not holds(nine(), only=guarded)


POD_B = {"podSelector": {"matchLabels": {"pod": "b"}}}


def test_deny_is_about_the_ports_that_are_named():
    deny = {"from": [{"workload": "x/b"}], "to": [X_A]}
    assert not holds(nine(FROM_B), deny=deny)
    assert not holds(nine(FROM_B), deny={**deny, "ports": [{"port": 1, "endPort": 80}]})
    assert holds(nine(FROM_B), deny={**deny, "ports": [{"port": 81, "endPort": 65535}]})
    assert holds(nine(FROM_B), deny={**deny, "ports": [{"port": 80, "protocol": "UDP"}]})


def test_allow_wants_every_port_of_every_pair():
    allow = {"from": [{"workload": "x/b"}], "to": [X_A]}
    assert holds(nine(FROM_B), allow={**allow, "ports": TCP_80})
    found = outcome(nine(FROM_B), allow={**allow, "ports": [{"port": 80, "endPort": 90}]})
    assert (found.why, found.example["port"]) == ("a flow is denied", 81)
    assert holds(nine(), allow={"from": [{}], "to": [{}]})


def test_addresses_outside_are_cut_where_assertions_and_policies_say():
    case = nine(LAN)
    assert holds(case, allow={"from": [{"cidr": "192.0.2.64/26"}], "to": [X_A]})
    assert holds(case, deny={"from": [{"cidr": "192.0.3.0/24"}], "to": [X_A]})
    found = outcome(case, deny={"from": [{"cidr": "192.0.2.0/23"}], "to": [X_A]})
    assert found.example["from"].startswith("192.0.2.")
    assert not holds(case, allow={"from": [{"cidr": "192.0.2.0/23"}], "to": [X_A]})
    assert holds(case, deny={"from": [{"cidr": "2001:db8::/32"}], "to": [X_A]})


def test_isolated_means_that_the_default_is_deny():
    everyone = {"namespaceSelector": {}}
    assert not holds(nine(FROM_B), isolated={**everyone, "direction": "ingress"})
    assert holds(nine(FROM_B), isolated={"workload": "x/a", "direction": "ingress"})
    assert not holds(nine(FROM_B), isolated={"workload": "x/a"})
    assert holds(nine(posture="zero-trust"), isolated=everyone)


def test_an_assertion_about_nobody_fails_unless_it_says_so():
    nobody = {"from": [{"workload": "x/ghost"}], "to": [X_A]}
    assert "selects nobody" in outcome(nine(), deny=nobody).why
    assert holds(nine(), deny=nobody, mayBeEmpty=True)


def test_the_nodes_own_access_counts_only_where_it_is_named():
    deny_all = np("deny", {"podSelector": {}})
    assert holds(nine(deny_all), deny={"to": [{"namespace": "x"}]})
    assert not holds(nine(deny_all), deny={"from": [{"host": True}], "to": [{"namespace": "x"}]})


def test_a_workload_is_not_taken_for_its_twin():
    case = nine(FROM_B)
    twin = {**case["pods"][1], "pod": "x/twin", "ip": "192.168.1.77"}
    case = {**case, "pods": [*case["pods"], twin]}
    found = outcome(case, only={"to": [X_A], "from": [{"workload": "x/b"}]})
    assert found.example["from"] == "x/twin"


@pytest.mark.parametrize("seed", range(40))
def test_random_assertions_agree_with_the_reference(seed):
    case = cases.case(seed)
    pick = random.Random(seed)
    end = pick.choice([{"namespace": "x"}, {"cidr": "192.0.2.0/30"}, {"podSelector": LABELLED}])
    first = pick.randint(79, 82)
    ports = [{"protocol": pick.choice(cases.PROTOCOLS), "port": first, "endPort": first + 2}]
    deny = {"from": [end], "to": [{"namespace": "y"}], "ports": ports}
    found = outcome(case, deny=deny, mayBeEmpty=True)
    if not found.holds:
        flow = found.example
        ends = [side(case, flow[name]) for name in ("from", "to")]
        assert reference.allowed(case, *ends, flow["protocol"], flow["port"]), flow
        return
    for source, destination, protocol, port, _ in cases.flows(case, pick, 400):
        if protocol != ports[0]["protocol"] or not first <= port <= first + 2:
            continue
        if destination.get("pod", "")[:2] != "y/" or not inside(end, source):
            continue
        if source.get("pod") != destination["pod"]:
            assert not reference.allowed(case, source, destination, protocol, port)


LABELLED = {"matchLabels": {"app": "red"}}


def side(case, text):
    """A name or address of a counterexample as a side of the case."""
    for pod in case["pods"]:
        if text in (pod["pod"], pod["ip"]):
            return pod
        if text == pod["ip6"]:
            return {**pod, "ip": pod["ip6"]}
    return {"ip": text}


def inside(end, source):
    if "pod" not in source:
        return end.get("cidr") is not None and source["ip"] == "192.0.2.1"
    if "podSelector" in end:
        return source["labels"].get("app") == "red"
    return end.get("namespace") == source["pod"][0]


def test_an_assertion_has_exactly_one_kind():
    with pytest.raises(ValueError, match="one of deny, allow, only, isolated"):
        verify(View(replace(world(nine()))), [Assertion()])
