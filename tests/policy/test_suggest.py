"""Suggested policies allow what was seen and nothing else, by reach of what they compile to."""

import random

import pytest

from sixfold.model.config import Config
from sixfold.policy.suggest import Observations, suggest
from sixfold.policy.suggest_check import differences, world_of
from sixfold.policy.suggest_selector import common, selector_for

PODS = (Config().pod_ipv4, Config().pod_ipv6)


def pod(name, labels=None, workload=None):
    """One end of a record: ``ns/pod``."""
    namespace, short = name.split("/")
    kind, owner = (workload or f"Pod/{short}").split("/")
    return {
        "identity": 300,
        "namespace": namespace,
        "pod_name": short,
        "workloads": [{"name": owner, "kind": kind}],
        "labels": [
            *(f"k8s:{key}={value}" for key, value in (labels or {"app": short}).items()),
            f"k8s:io.kubernetes.pod.namespace={namespace}",
        ],
    }


def record(source, destination, port=80, protocol="TCP", **more):
    def address(end):
        return end if isinstance(end, str) else "10.244.0.9"

    ends = {"source": source, "destination": destination}
    return {
        "flow": {
            "verdict": "FORWARDED",
            "IP": {side: address(end) for side, end in ends.items()},
            "l4": {protocol: {"source_port": 40000, "destination_port": port}},
            **{
                side: {"identity": 2} if isinstance(end, str) else end for side, end in ends.items()
            },
            **more,
        }
    }


def observed(*records, **options):
    found = Observations()
    for one in records:
        found.add(one, **options)
    return found


def exact(found):
    policies = suggest(found, PODS).policies
    return differences(world_of(found), policies, found)


WEB, DB = pod("shop/web-1", {"app": "web"}, "Deployment/web"), pod("shop/db")


def test_one_policy_for_each_workload_on_a_deny_all_base():
    policies = suggest(observed(record(WEB, DB, 6379)), PODS).policies
    assert [policy.metadata.name for policy in policies] == ["default-deny", "db", "web"]
    _, db, web = policies
    assert db.spec.pod_selector.match_labels == {"app": "db"}
    (rule,) = db.spec.ingress
    assert (rule.from_[0].pod_selector.match_labels, rule.ports[0].port) == ({"app": "web"}, 6379)
    assert db.spec.egress is web.spec.ingress is None
    assert exact(observed(record(WEB, DB, 6379))) == ([], [])


def test_the_same_ports_share_a_rule():
    found = observed(*(record(pod(f"shop/{name}"), DB, 80) for name in "abc"))
    (policy,) = [one for one in suggest(found, PODS).policies if one.metadata.name == "db"]
    assert [len(rule.from_) for rule in policy.spec.ingress] == [3]


def test_another_namespace_is_named():
    found = observed(record(pod("a/x", {"app": "same"}), pod("b/x", {"app": "same"})))
    policy = suggest(found, PODS).policies[-1]
    (peer,) = policy.spec.ingress[0].from_
    assert peer.namespace_selector.match_labels == {"kubernetes.io/metadata.name": "a"}
    assert exact(found) == ([], [])


def test_labels_of_the_machinery_are_not_used():
    old, new = ({"app": "web", "pod-template-hash": mark} for mark in ("1", "2"))
    assert common([old, new]) == common([old]) == {"app": "web"}


def test_a_workload_with_more_labels_is_told_apart():
    selector, alone = selector_for({"app": "web"}, [{"app": "web", "tier": "x"}, {"app": "db"}])
    assert alone
    assert not selector.matches({"app": "web", "tier": "x"})
    assert selector.matches({"app": "web"})


def test_twins_are_noted():
    found = observed(record(pod("x/a", {"app": "t"}), pod("x/b", {"app": "t"})))
    assert any("has the same labels" in note for note in suggest(found, PODS).notes)


def test_addresses_outside_are_single_ones_until_they_are_many():
    few = observed(*(record(f"192.0.2.{n}", DB) for n in range(3)))
    blocks = [peer.ip_block.cidr for peer in suggest(few, PODS).policies[-1].spec.ingress[0].from_]
    assert blocks == ["192.0.2.0/32", "192.0.2.1/32", "192.0.2.2/32"]
    assert exact(few) == ([], [])
    many = suggest(observed(*(record(f"192.0.2.{n}", DB) for n in range(40))), PODS)
    (peer,) = many.policies[-1].spec.ingress[0].from_
    assert (peer.ip_block.cidr, peer.ip_block.except_) == ("0.0.0.0/0", ["10.244.0.0/16"])
    assert "taken for everybody outside" in many.notes[0]


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (record(WEB, DB, is_reply=True), "replies"),
        (record(WEB, DB, verdict="DROPPED", egress_denied_by=[{}]), "dropped (--include"),
        (record(WEB, {"identity": 128}, 53, "UDP"), "resolver"),
        (record(WEB, DB, l4={"ICMPv4": {"type": 8}}), "cannot name"),
        (record("192.0.2.1", "192.0.2.2"), "no workload"),
    ],
)
def test_what_is_no_reason_for_a_rule_is_counted(one, why):
    found = observed(one)
    assert not found.seen
    assert any(why in note for note in suggest(found, PODS).notes)


def test_what_was_denied_may_be_wanted():
    one = record(WEB, DB, verdict="DROPPED", egress_denied_by=[{"name": "default-deny"}])
    assert len(observed(one, denied=True).seen) == 1


def test_one_namespace_of_several():
    found = observed(record(pod("a/x"), pod("b/x")))
    namespaces = {one.metadata.namespace for one in suggest(found, PODS, "a").policies}
    assert namespaces == {"a"}


@pytest.mark.parametrize("seed", range(30))
def test_random_flows_are_allowed_exactly(seed):
    pick = random.Random(seed)
    pods = [
        pod(f"{ns}/{n}", {"name": n, **({"tier": "x"} if pick.random() < 0.5 else {})})
        for ns in "xyz"
        for n in "abc"
    ]
    outside = ["192.0.2.1", "198.51.100.7", "2001:db8::1"]
    found = observed()
    for _ in range(pick.randint(1, 25)):
        source, destination = pick.choice([*pods, *outside]), pick.choice(pods)
        if pick.random() < 0.2:
            source, destination = destination, pick.choice(outside)
        protocol = pick.choice(("TCP", "UDP", "SCTP"))
        if source is not destination:
            found.add(record(source, destination, pick.choice((53, 80, 443)), protocol))
    assert exact(found) == ([], [])
