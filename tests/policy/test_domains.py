"""Domain names in tables and tools: which addresses they mean, and what is said of them offline."""

from dataclasses import replace
from ipaddress import ip_address

import msgspec
import pytest
from tests.policy.worlds import nine, passes, world

from sixfold.policy.diff import compare
from sixfold.policy.domains import DomainIndex
from sixfold.policy.lint import lint
from sixfold.policy.plan import PolicyCompiler
from sixfold.policy.reach_parties import View
from sixfold.policy.reach_probe import Probes
from sixfold.policy.reach_show import Reach
from sixfold.policy.verify import verify
from sixfold.policy.verify_assertion import Assertion
from sixfold.trust.explain import explain, plan_offline

A, B = {"pod": "x/a"}, {"pod": "x/b"}
ONE, TWO = ip_address("192.0.2.1"), ip_address("192.0.2.2")


def named(*names, name="p", pod="a", ports=("443",), **more):
    selectors = [{"matchPattern" if "*" in one else "matchName": one} for one in names]
    rule = {"toFQDNs": selectors, "toPorts": [{"ports": [{"port": one} for one in ports]}]}
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "x"},
        "spec": {"endpointSelector": {"matchLabels": {"pod": pod}}, "egress": [rule], **more},
    }


CASE = nine(named("*.example.com"), posture="zero-trust")


def numbered():
    numbers = {}
    return lambda them: numbers.setdefault(them, len(numbers) + 1)


def test_an_address_of_several_names_is_of_a_set_and_each_pattern_lists_it():
    index = DomainIndex(numbered())
    index.count([], ["a.b", "*.b", "c.d"])
    assert index.follow({}) == {"a.b", "*.b", "c.d"}
    assert index.follow({"a.b": frozenset({ONE}), "c.d": frozenset({ONE, TWO})}) == index.patterns
    assert index.addresses[ONE] != index.addresses[TWO]
    for pattern in ("a.b", "*.b", "c.d"):
        assert index.addresses[ONE] in index.named(pattern)
    assert index.named("c.d").count(index.addresses[TWO]) == 1
    assert index.addresses[TWO] not in index.named("a.b")


def test_one_pattern_needs_no_new_number_whatever_its_names_resolve_to():
    index = DomainIndex(numbered())
    index.count([], ["*.b"])
    index.follow({})
    for number in range(1, 20):
        names = {f"{number}.b": frozenset({ip_address(number)})}
        assert index.follow(names) == set()
        assert index.addresses == {ip_address(number): index.named("*.b")[0]}


def test_a_pattern_that_two_policies_name_stays_until_both_are_gone():
    index = DomainIndex(numbered())
    index.count([], ["*.b", "*.b"])
    index.follow({})
    index.count(["*.b"], [])
    assert index.follow({}) == set()
    index.count(["*.b"], [])
    assert index.follow({}) == {"*.b"}
    assert index.patterns == frozenset()


def test_a_table_grows_with_sets_of_patterns_not_with_addresses():
    case = nine(named("*.example.com"), named("www.example.com", name="q"))
    here, compiler = world(case), PolicyCompiler()
    sizes = set()
    for count in (1, 10, 100):
        addresses = frozenset(ip_address(f"192.0.2.{number}") for number in range(1, count + 1))
        domains = {"www.example.com": addresses, "api.example.com": frozenset({ONE, TWO})}
        plan = compiler.compile(replace(here, domains=domains))
        sizes.add(len(plan.tables["x/a"].entries))
        assert passes(plan, here, (A, {"ip": f"192.0.2.{count}"}, "TCP", 443))
    assert len(sizes) == 1


def test_reach_offline_says_the_pattern_and_the_world_includes_it():
    rows = [(row.sources, row.destinations, str(row.ports)) for row in reach_of(CASE)]
    assert (("x/a",), ("*.example.com",), "TCP/443 UDP/443 SCTP/443") in rows
    everything = named("*.example.com", pod="b")
    everything["spec"]["egress"].append({"toEntities": ["world"]})
    found = [
        row.destinations
        for row in reach_of(nine(everything))
        if row.sources in (("x/b",), ("all workloads",))
    ]
    assert any("world" in destinations for destinations in found)
    assert not any("*.example.com" in destinations for destinations in found)


def reach_of(case):
    return Reach(View(world(case))).rows()


def test_reach_live_says_what_has_resolved():
    rows = reach_of({**CASE, "domains": {"api.example.com": [str(ONE)]}})
    (row,) = (
        row for row in rows if row.sources == ("x/a",) and "*.example.com" in row.destinations
    )
    assert row.destinations == ("*.example.com", "192.0.2.1/32")


def judged(case, **assertion):
    (found,) = verify(View(world(case)), [msgspec.convert(assertion, Assertion)])
    return found


def test_a_name_may_be_any_address_of_the_world_when_it_is_to_be_proved():
    deny = {"from": [{"namespace": "x"}], "to": [{"cidr": "198.51.100.0/24"}]}
    found = judged(CASE, deny=deny)
    assert not found.holds
    assert (found.example["to"], found.example["verdict"]) == ("any.example.com", "ALLOWED")
    guarded = named("*.example.com", egressDeny=[{"toCIDR": ["198.51.100.0/24"]}])
    assert judged(nine(guarded, posture="zero-trust"), deny=deny).holds
    assert not judged(
        nine(guarded, posture="zero-trust"), deny={**deny, "to": [{"world": True}]}
    ).holds
    assert judged(CASE, deny={**deny, "from": [{"namespace": "y"}]}).holds


def test_a_name_is_no_pod_and_not_the_host():
    for to in ({"namespace": "x"}, {"host": True}):
        assert judged(CASE, deny={"from": [{"workload": "x/a"}], "to": [to]}).holds


def test_a_difference_is_told_by_patterns():
    wider = nine(named("**.example.com", "api.other.com"), posture="zero-trust")
    found = compare(View(world(CASE)), View(world(wider)))
    assert [row.destinations for row in found.opened] == [("**.example.com", "api.other.com")]
    assert [row.destinations for row in found.closed] == [("*.example.com",)]


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("API.example.com", "ALLOWED"), ("example.com", "DENIED"), ("a.b.example.com", "DENIED")],
)
def test_probes_may_name_names(name, verdict):
    probes = Probes(View(world(CASE)))
    answer = probes.answer({"from": "x/a", "to": name, "protocol": "TCP", "port": 443})
    assert answer["verdict"] == verdict
    assert probes.answer({"from": "x/b", "to": name, "port": 443})["verdict"] == "DENIED"


def test_explain_says_that_a_name_is_opened_when_it_is_asked_for():
    here = world(CASE)
    plans = plan_offline(here)
    answer = explain(here, plans, "x/a", "api.example.com", 443)
    text = "\n".join(f"{line.pattern} {line.outcome} {line.detail}" for line in answer.lines)
    assert answer.allowed
    assert "asked upstream; what it resolves to is opened for *.example.com" in text
    assert "allowed by CiliumNetworkPolicy x/p egress[0]" in text
    denied = explain(here, plans, "x/a", "api.example.org", 443)
    assert not denied.allowed
    assert any("*.example.com is another name" in line.detail for line in denied.lines)


def test_explain_live_asks_about_every_address_that_a_name_has():
    here = world({**CASE, "domains": {"api.example.com": [str(ONE), str(TWO)]}})
    answer = explain(here, plan_offline(here), "x/a", "api.example.com", 443)
    assert answer.allowed
    assert "has resolved to 192.0.2.1, 192.0.2.2" in answer.lines[0].detail
    other = explain(here, plan_offline(here), "x/a", "192.0.2.3", 443)
    assert any("*.example.com has not resolved to 192.0.2.3" in line.detail for line in other.lines)


def checks(case):
    found = lint(View(world(case)))
    return [one.check for one in found if one.check != "allow-without-deny-base"]


def test_lint_knows_which_pattern_covers_which_and_whose_names_are_the_clusters():
    assert checks(nine(named("*.example.com", "api.example.com"))) == []
    twice = named("*")
    twice["spec"]["egress"].append(named("api.example.com")["spec"]["egress"][0])
    assert checks(nine(twice)) == ["shadowed"]
    assert checks(nine(named("web.shop.svc.cluster.local"))) == ["no-effect"]


def test_in_a_cluster_policy_a_star_is_one_label_or_more():
    accept = {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "names"},
        "spec": {
            "tier": "Admin",
            "priority": 1,
            "subject": {"namespaces": {}},
            "egress": [{"action": "Accept", "to": [{"domainNames": ["*.Example.com"]}]}],
        },
    }
    probes = Probes(View(world(nine(accept, posture="zero-trust"))))
    for name, verdict in (("a.example.com", "ALLOWED"), ("a.b.example.com", "ALLOWED")):
        assert probes.answer({"from": "x/a", "to": name, "port": 1})["verdict"] == verdict
    assert probes.answer({"from": "x/a", "to": "example.com", "port": 1})["verdict"] == "DENIED"
