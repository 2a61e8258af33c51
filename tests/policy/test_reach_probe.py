"""Probes: names, both sides' reasons, and the errors of single lines."""

from dataclasses import replace

import pytest
from tests.policy.worlds import nine, np, world

from sixfold.policy.reach_parties import View
from sixfold.policy.reach_probe import Probes

DENY_IN = np("deny", {"podSelector": {"matchLabels": {"pod": "a"}}})
FROM_B = np(
    "from-b",
    {
        "podSelector": {"matchLabels": {"pod": "a"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}]}],
    },
)


def ask(case, source, destination, **more):
    probe = {"from": source, "to": destination, "protocol": "TCP", "port": 80, **more}
    return Probes(View(world(case))).answer(probe)


def test_the_rule_of_each_side_is_named():
    answer = ask(nine(DENY_IN, FROM_B), "x/b", "x/a")
    assert answer["verdict"] == "ALLOWED"
    assert (answer["ingress"]["policy"], answer["ingress"]["rule"]) == ("x/from-b", "ingress[0]")
    assert answer["egress"]["default"] == "default-allow (kubernetes)"


def test_a_default_deny_names_the_policies_that_isolate():
    answer = ask(nine(DENY_IN, FROM_B), "x/c", "x/a")
    assert answer["verdict"] == answer["ingress"]["verdict"] == "DENIED"
    assert answer["ingress"]["default"] == "default-deny (x/deny,x/from-b)"
    assert answer["egress"]["verdict"] == "ALLOWED"


def test_what_was_asked_comes_back_as_it_was():
    answer = ask(nine(), "x/b", "x/a", note=7)
    assert list(answer)[:5] == ["from", "to", "protocol", "port", "note"]
    assert answer["note"] == 7


def test_the_address_of_a_pod_is_the_pod_and_any_other_is_outside():
    deny = np("deny", {"podSelector": {}, "policyTypes": ["Egress"]}, namespace="y")
    case = nine(DENY_IN, FROM_B, deny)
    assert ask(case, "192.168.1.11", "x/a")["verdict"] == "ALLOWED"
    assert ask(case, "192.168.1.99", "x/a")["verdict"] == "DENIED"
    assert ask(case, "192.168.1.99", "x/b")["egress"]["policy"] is None
    assert ask(case, "y/a", "192.0.2.1")["verdict"] == "DENIED"
    assert ask(case, "z/a", "2001:db8::1")["verdict"] == "ALLOWED"


def test_a_pod_reaches_itself_whatever_policies_say():
    case = nine(np("deny", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))
    for own in ("x/a", "x/Pod/a", "192.168.1.10"):
        assert ask(case, "x/a", own)["verdict"] == "ALLOWED"


def test_the_replicas_of_a_controller_are_not_one_another():
    here = world(nine(DENY_IN))
    template = replace(here.endpoints["x/a"], workload="Deployment/a", ipv4=None)
    here = replace(here, endpoints={**here.endpoints, "x/a": template})
    probe = {"from": "x/a", "to": "x/a", "port": 80}
    assert Probes(View(here)).answer(probe)["verdict"] == "DENIED"


def test_an_ambiguous_name_says_which_kinds_there_are():
    here = world(nine())
    twins = {
        f"x/{kind}/t": replace(here.endpoints["x/a"], pod=f"{kind}/t", workload=f"{kind}/t")
        for kind in ("Deployment", "Job")
    }
    probes = Probes(View(replace(here, endpoints={**here.endpoints, **twins})))
    error = probes.answer({"from": "x/t", "to": "x/a"})["error"]
    assert error == '"x/t" is 2 workloads; give one of x/Deployment/t, x/Job/t'
    assert "verdict" in probes.answer({"from": "x/Job/t", "to": "x/a", "port": 1})


def test_a_workload_in_the_hosts_network_is_the_host():
    here = replace(world(nine(DENY_IN)), on_host=frozenset({"x/agent"}))
    probes = Probes(View(here))
    assert probes.answer({"from": "x/agent", "to": "x/a", "port": 80})["verdict"] == "ALLOWED"
    answer = probes.answer({"from": "x/b", "to": "x/agent", "port": 80})
    assert answer["ingress"]["default"] == "x/agent is the host: no policy selects the host"


@pytest.mark.parametrize(
    ("probe", "error"),
    [
        ({"from": "x/z", "to": "x/a"}, 'no workload or address "x/z"; did you mean x/'),
        ({"to": "x/a"}, '"from": None is no name; give "ns/name" or an address'),
        ({"from": "x/b", "to": "x/a", "protocol": "IP"}, "\"protocol\": 'IP': give one of"),
        ({"from": "x/b", "to": "x/a", "port": 65536}, '"port": 65536 is no port'),
        ({"from": "x/b", "to": "x/a", "port": True}, '"port": True is no port'),
    ],
)
def test_what_means_nothing_is_an_error_of_its_line(probe, error):
    answer = Probes(View(world(nine()))).answer(probe)
    assert answer["error"].startswith(error)
    assert "verdict" not in answer


def test_a_policy_of_another_language_is_named_with_its_kind_and_section():
    deny = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "c", "namespace": "x"},
        "spec": {"endpointSelector": {}, "ingressDeny": [{"fromEntities": ["all"]}]},
    }
    answer = ask(nine(deny), "x/a", "x/b")["ingress"]
    assert (answer["verdict"], answer["policy"]) == ("DENIED", "x/c")
    assert (answer["kind"], answer["rule"]) == ("CiliumNetworkPolicy", "ingressDeny[0]")


def test_a_port_may_be_text_and_nothing_said_is_tcp():
    case = nine(np("p", {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}))
    assert ask(case, "x/a", "x/b", port="80", protocol=None)["verdict"] == "ALLOWED"
    assert ask(case, "x/a", "x/b", port="http")["error"].startswith('"port": ')


def test_a_port_must_be_said_and_icmp_without_one_is_a_ping():
    assert ask(nine(), "x/a", "x/b", port=None)["error"].startswith('"port": is missing')
    rules = [{"icmps": [{"fields": [{"type": 8}, {"family": "IPv6", "type": 128}]}]}]
    ping = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "ping", "namespace": "x"},
        "spec": {"endpointSelector": {}, "ingress": rules},
    }
    assert ask(nine(ping), "y/a", "x/a", protocol="ICMP", port=None)["verdict"] == "ALLOWED"
    assert ask(nine(ping), "y/a", "x/a", protocol="ICMP", port=13)["verdict"] == "DENIED"
    assert ask(nine(ping), "2001:db8::9", "x/a", protocol="ICMP", port=None)["verdict"] == "ALLOWED"


def test_protocols_are_their_own():
    tcp = np("tcp", {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]})
    verdicts = [
        ask(nine(tcp), "y/a", "x/a", protocol=protocol)["verdict"]
        for protocol in ("TCP", "tcp", "UDP", "SCTP", "ICMP")
    ]
    assert verdicts == ["ALLOWED", "ALLOWED", "DENIED", "DENIED", "DENIED"]
