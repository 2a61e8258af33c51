"""Namespaces that are alike: reading them off one of them equals compiling each."""

import random
from dataclasses import replace
from itertools import product

import pytest
from tests.policy import cases, languages
from tests.policy.reference import allowed
from tests.policy.test_compile import keep
from tests.policy.worlds import np, passes, world

from sixfold.model.meta import namespace_labels
from sixfold.policy import alike
from sixfold.policy.plan import PolicyCompiler, compile_policies
from sixfold.policy.reach_parties import View
from sixfold.policy.reach_show import Reach

HOMES = [f"home{number}" for number in range(6)]


def homes(seed, posture):
    """Six namespaces from one mould, beside three of a world with all languages."""
    pick = random.Random(seed)
    found = languages.case(seed, posture)
    pods = cases.case(seed + 1, posture)["pods"][:3]
    policies = [inward(pick, at) for at in range(pick.randint(1, 3))]
    if pick.random() < 0.4:  # then nobody looks into them
        found["policies"] = [raw for raw in found["policies"] if raw["kind"] == "NetworkPolicy"][:1]
    for number, name in enumerate(HOMES):
        found["namespaces"][name] = cases.labels(pick)
        found["pods"] += [home_pod(pod, name, number) for pod in pods]
        found["policies"] += [
            {**raw, "metadata": {"name": raw["metadata"]["name"], "namespace": name}}
            for raw in policies
        ]
    return found


def home_pod(pod, namespace, number):
    last = pod["ip"].rpartition(".")[2]
    return {
        **pod,
        "pod": f"{namespace}/{pod['pod'].partition('/')[2]}",
        "ip": f"192.168.{number + 4}.{last}",
        "ip6": f"2001:db8:{number + 4}::{last}",
    }


def inward(pick, at):
    """A policy whose peers are pods of its own namespace."""
    raw = cases.policy(pick, at)
    for section, side in (("ingress", "from"), ("egress", "to")):
        for rule in raw["spec"].get(section, ()):
            if side in rule:
                rule[side] = [{"podSelector": cases.selector(pick)} for _ in rule[side]]
    return raw


def change(before, seed):
    """One thing changes, at home or elsewhere."""
    pick = random.Random(seed)
    if pick.random() < 0.4:
        return languages.change(before, seed)
    after = {**before, "pods": list(before["pods"]), "policies": list(before["policies"])}
    home = pick.choice(HOMES)
    mine = [at for at, pod in enumerate(after["pods"]) if pod["pod"].startswith(f"{home}/")]
    kinds = ("labels", "no pod", "one more", "moved", "no policy", "policy", "namespace")
    match pick.choice((*kinds, "no namespace")):
        case "one more" if mine:
            like = after["pods"][pick.choice(mine)]
            more = {"pod": f"{home}/more-{seed}", "ip": f"192.168.9.{seed % 250}", "ip6": ""}
            after["pods"].append({**like, **more, "probes": pick.choice((like["probes"], [81]))})
        case "moved" if mine:
            at = pick.choice(mine)
            moved = {"ip": f"192.168.10.{seed % 250}", "probes": pick.choice(([], [80]))}
            after["pods"][at] = {**after["pods"][at], **moved}
        case "labels" if mine:
            at = pick.choice(mine)
            after["pods"][at] = {**after["pods"][at], "labels": cases.labels(pick)}
        case "no pod" if mine:
            after["pods"].pop(pick.choice(mine))
        case "no policy":
            theirs = [raw for raw in after["policies"] if raw["metadata"].get("namespace") == home]
            after["policies"] = [raw for raw in after["policies"] if raw not in theirs[:1]]
        case "namespace":
            after["namespaces"] = {**before["namespaces"], home: cases.labels(pick)}
        case "no namespace":
            after["namespaces"] = {k: v for k, v in before["namespaces"].items() if k != home}
            after["pods"] = [pod for pod in after["pods"] if not pod["pod"].startswith(f"{home}/")]
        case _:
            raw = pick.choice((inward, cases.policy))(pick, 200 + seed)
            raw["metadata"]["namespace"] = home
            after["policies"].append(raw)
    return after


class Numbers:
    """One numbering for several compilers, so that what they say can be compared."""

    def __init__(self):
        self.rules, self.cidrs, self.sets = {}, {}, {}

    def compiler(self):
        return PolicyCompiler(
            lambda rule: self.rules.setdefault(rule, len(self.rules) + 1),
            lambda cidr: self.cidrs.setdefault(cidr, (1 << 24) + len(self.cidrs)),
            lambda them: self.sets.setdefault(them, (1 << 26) + len(self.sets)),
        )


@pytest.fixture
def one_by_one(monkeypatch):
    """Compiles every namespace for itself."""

    def compiled(numbers, here):
        with monkeypatch.context() as patch:
            patch.setattr("sixfold.policy.plan.alike", lambda world: [])
            return numbers.compiler().compile(here)

    return compiled


@pytest.mark.parametrize("posture", ["kubernetes", "zero-trust"])
@pytest.mark.parametrize("seed", range(20))
def test_it_equals_compiling_each_then_and_after_every_change(seed, posture, one_by_one):
    case, numbers, identities = homes(seed, posture), Numbers(), {}
    compiler, before = numbers.compiler(), world(case, identities)
    steps = 8
    for step in range(steps + 1):
        here = keep(before, world(case, identities))
        followed, each = compiler.compile(here), one_by_one(numbers, here)
        assert followed.tables == each.tables, f"step {step}"
        assert followed.policies == each.policies, f"step {step}"
        assert followed.about_requests == each.about_requests, f"step {step}"
        assert followed.host == each.host, f"step {step}"
        assert followed.endpoint_cidrs == each.endpoint_cidrs, f"step {step}"
        if step in (0, steps):
            assert rows(here, followed) == rows(here, replace(followed, alike={})), f"step {step}"
        case, before = change(case, seed * 100 + step), here


def rows(here, plan):
    return Reach(View(here, plan)).rows()


@pytest.mark.parametrize("posture", ["kubernetes", "zero-trust"])
def test_it_equals_the_reference(posture):
    for seed in range(20):
        case = homes(seed, posture)
        here = world(case)
        plan = compile_policies(here)
        for *flow, version in languages.flows(case, random.Random(seed), 120):
            source, destination, *_ = flow
            if source.get("pod") == destination.get("pod"):
                continue
            assert passes(plan, here, flow, version) == allowed(case, *flow), (seed, flow)


def test_the_worlds_have_what_is_alike_looked_into_or_not():
    found = [alike.alike(world(homes(seed, "kubernetes"))) for seed in range(40)]
    assert sum([[one.name for one in some] for some in shapes] == [HOMES] for shapes in found) > 20


POLICIES = [
    np("shut", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
    np("a", {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}),
]


def estate(count=5, **settings):
    """Namespaces n0, n1 … of two pods each, with the same two policies."""
    names = [f"n{number}" for number in range(count)]
    return {
        "namespaces": {name: {} for name in names},
        "pods": [
            {"pod": f"{name}/{pod}", "labels": {"app": pod}, "ip": f"192.168.{at}.{number}"}
            for at, name in enumerate(names)
            for number, pod in enumerate("ab", 1)
        ],
        "policies": [
            {**raw, "metadata": {**raw["metadata"], "namespace": name}}
            for name in names
            for raw in POLICIES
        ],
        **settings,
    }


def names_of(case):
    return [[one.name for one in some] for some in alike.alike(world(case))]


def test_namespaces_with_the_same_pods_and_policies_are_alike():
    assert names_of(estate()) == [["n0", "n1", "n2", "n3", "n4"]]


def test_few_are_not_worth_it():
    assert names_of(estate(3)) == []


@pytest.mark.parametrize(
    "spec",
    [
        {"ingress": [{"from": [{"namespaceSelector": {}}]}]},
        {"ingress": [{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]},
        {"egress": [{"ports": [{"port": "web"}]}]},
    ],
    ids=["other namespaces", "addresses", "a name that each pod gives another meaning"],
)
def test_a_namespace_that_looks_beyond_itself_is_not_closed(spec):
    case = estate()
    case["policies"].append(np("out", {"podSelector": {}, **spec}, "n2"))
    assert names_of(case) == [["n0", "n1", "n3", "n4"]]


def test_a_namespace_in_audit_is_not_closed():
    here = replace(world(estate()), audited=frozenset({"n1"}))
    assert [one.name for one in alike.alike(here)[0]] == ["n0", "n2", "n3", "n4"]


def test_one_label_more_makes_another_shape():
    case = estate(5)
    case["pods"][0]["labels"] = {"app": "a", "tier": "red"}
    assert names_of(case) == [["n1", "n2", "n3", "n4"]]


def test_rules_and_defaults_name_policies_of_their_own_namespace():
    plan = compile_policies(world(estate()))
    table = plan.tables["n3/a"]
    named = {plan.rules[entry.rule] for entry in table.entries}
    assert {rule.namespace for rule in named if rule.kind == "NetworkPolicy"} == {"n3"}
    assert plan.rules[table.ingress_default].because == "n3/a,n3/shut"
    assert plan.policies["n3/a"].title == "n3/a"


def test_what_is_reached_in_one_namespace_is_reached_in_those_like_it():
    """Also where one has a second pod of a kind, so that it is not like the others any more."""
    case = estate(6, policies=[])
    case["policies"] = [
        np("in", {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}, name)
        for name in case["namespaces"]
    ]
    case["pods"].append({**case["pods"][0], "pod": "n0/more", "ip": "192.168.9.1"})
    here = world(case)
    plan = compile_policies(here)
    edges = {(edge.source, edge.destination) for edge in Reach(View(here, plan)).edges()}
    assert len(plan.alike) == 6
    assert {(a, b) for a, b in edges if a != b and b.startswith(f"{a.partition('/')[0]}/")} == {
        (f"{name}/{a}", f"{name}/{b}")
        for name in case["namespaces"]
        for a, b in product(["a", "b", *["more"][: name == "n0"]], repeat=2)
        if a != b
    }


def test_pods_of_two_such_namespaces_do_not_meet():
    view = View(world(estate()))
    rows = {(row.sources, row.destinations) for row in Reach(view).rows()}
    assert not any(
        source.startswith("n") and destination.startswith("n") and source[:2] != destination[:2]
        for sources, destinations in rows
        for source in sources
        for destination in destinations
    )


def test_a_policy_for_all_namespaces_reaches_those_that_are_alike():
    case = estate()
    compiler, identities = PolicyCompiler(), {}
    before = world(case, identities)
    compiler.compile(before)
    case["policies"].append(
        {
            "apiVersion": "policy.networking.k8s.io/v1alpha2",
            "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "all"},
            "spec": {
                "tier": "Admin",
                "priority": 1,
                "subject": {"namespaces": {}},
                "ingress": [{"action": "Accept", "from": [{"namespaces": {}}]}],
                "egress": [{"action": "Accept", "to": [{"namespaces": {}}]}],
            },
        }
    )
    here = keep(before, world(case, identities))
    flow = case["pods"][0], case["pods"][-1], "TCP", 80
    assert passes(compiler.compile(here), here, flow)
    assert not passes(compile_policies(before), before, flow)


@pytest.mark.parametrize("probes", [[], [81]], ids=["like another", "probed unlike any"])
def test_a_pod_that_comes_has_the_table_that_it_would_have_had(probes, one_by_one):
    case, numbers, identities = estate(posture="zero-trust"), Numbers(), {}
    compiler, before = numbers.compiler(), world(case, identities)
    compiler.compile(before)
    case["pods"].append({**case["pods"][0], "pod": "n0/c", "ip": "192.168.9.1", "probes": probes})
    here = keep(before, world(case, identities))
    tables = compiler.compile(here).tables
    assert tables == one_by_one(numbers, here).tables
    assert (tables["n0/c"] is tables["n0/a"]) == (not probes)


def test_labels_of_a_namespace_may_open_it_later():
    case = estate()
    case["namespaces"]["door"] = {}
    case["pods"].append({"pod": "door/a", "labels": {}, "ip": "192.168.9.1"})
    peers = [{"namespaceSelector": {"matchLabels": {"team": "red"}}}]
    case["policies"].append(np("red", {"podSelector": {}, "ingress": [{"from": peers}]}, "door"))
    case["policies"] = [raw for raw in case["policies"] if raw["metadata"]["name"] != "shut"]
    compiler, identities = PolicyCompiler(), {}
    before = world(case, identities)
    flow = case["pods"][0], case["pods"][-1], "TCP", 80
    assert not passes(compiler.compile(before), before, flow)
    here = keep(before, world(case, identities))
    here.namespaces["n0"] = namespace_labels("n0", {"team": "red"})
    assert passes(compiler.compile(here), here, flow)
