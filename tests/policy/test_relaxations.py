"""A relaxation of the posture tells what it is for, enforces the rest, and ends whole."""

import random
from dataclasses import replace

import pytest
from tests.policy import cases
from tests.policy.test_audit import LET_WEB, db_policy, ingress, place
from tests.policy.worlds import parties, world

from sixfold.model.datapath import PROTOCOL_NUMBERS
from sixfold.model.meta import LabelSelector
from sixfold.model.posture import Posture, PostureSpec, Relaxation, RelaxedPort, in_force, over
from sixfold.policy.audit import in_audit
from sixfold.policy.decide import decide
from sixfold.policy.plan import PolicyCompiler, compile_policies

STRICT = db_policy(audit=False, ingress=[LET_WEB])
DB = LabelSelector({"app": "db"})
WEB = LabelSelector({"app": "web"})


def relaxation(*ports, namespace="shop", selector=None, **said):
    return Relaxation(
        "legacy",
        namespace,
        "2126-12-24T18:00:00Z",
        "it takes time",
        selector,
        [RelaxedPort(port, protocol) for port, protocol in ports],
        **(said or {"enforcement": "audit"}),
    )


def relaxed(*given, posture="zero-trust"):
    return place(STRICT, posture=posture, relaxations=given)


@pytest.mark.parametrize("posture", ["kubernetes", "zero-trust"])
@pytest.mark.parametrize("selector", [None, DB], ids=["namespace", "workload"])
def test_what_is_in_its_scope_passes_and_is_told(posture, selector):
    here = relaxed(relaxation(selector=selector), posture=posture)
    assert ingress(here, "shop/web") == (True, False, "shop/db ingress[0]")
    assert ingress(here, "shop/guest") == (True, True, "default-deny (shop/db)")


@pytest.mark.parametrize(
    "one",
    [
        relaxation(selector=WEB),
        relaxation(namespace="bank"),
        relaxation((81, "TCP")),
        relaxation((80, "UDP")),
        relaxation(mtls="permissive"),
        relaxation(discovery="open"),
    ],
    ids=["workload", "namespace", "port", "protocol", "mtls", "names"],
)
def test_what_is_out_of_its_scope_is_enforced(one):
    assert ingress(relaxed(one), "shop/guest") == (False, False, "default-deny (shop/db)")


def test_a_port_is_told_and_the_others_and_egress_are_enforced():
    here = relaxed(relaxation((80, "TCP"), selector=DB))
    assert ingress(here, "shop/guest") == (True, True, "default-deny (shop/db)")
    assert ingress(here, "shop/guest", port=81)[0] is False
    plan = compile_policies(here)
    sides = [parties(plan, here, {"pod": key}) for key in ("shop/db", "shop/guest")]
    egress = decide(plan, *sides, PROTOCOL_NUMBERS["TCP"], 80).egress
    assert (egress.allow, egress.audit) == (False, False)


def test_a_deny_of_the_admin_tier_is_told_too():
    deny = {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "no-guests"},
        "spec": {
            "tier": "Admin",
            "priority": 1,
            "subject": {"namespaces": {}},
            "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}],
        },
    }
    here = place(STRICT, deny, posture="zero-trust", relaxations=(relaxation((80, "TCP")),))
    allow, audit, rule = ingress(here, "shop/web")
    assert (allow, audit) == (True, True)
    assert "no-guests" in rule


def test_ports_open_just_what_they_say_and_all_that_is_denied_is_told():
    for seed in range(60):
        case = cases.case(seed, "zero-trust" if seed % 2 else "kubernetes")
        pick = random.Random(seed)
        strict = world(case)
        ports = [(pick.choice((80, 81, 9999)), pick.choice(("TCP", "UDP")))]
        key = pick.choice(cases.KEYS)
        selector = LabelSelector({key: pick.choice(cases.VALUES)}) if pick.random() < 0.6 else None
        one = relaxation(*ports, namespace=pick.choice("xyz"), selector=selector)
        here = replace(strict, relaxations=(one,))
        plain, plan = compile_policies(strict), compile_policies(here)
        for source, destination, protocol, port, version in cases.flows(case, pick, 80):
            if source.get("pod") == destination.get("pod") or "pod" not in destination:
                continue
            sides = [
                [parties(each, here, end, version) for end in (source, destination)]
                for each in (plain, plan)
            ]
            number = PROTOCOL_NUMBERS[protocol]
            before, after = (
                decide(each, *ends, number, port)
                for each, ends in zip((plain, plan), sides, strict=True)
            )
            if before.ingress is None:
                continue
            end = here.endpoints[destination["pod"]]
            open_ = (port, protocol) in ports and one.selects(end.namespace, end.labels)
            assert after.ingress.allow == (before.ingress.allow or open_), (seed, destination)
            assert after.ingress.audit == (open_ and not before.ingress.allow), (seed, destination)
            if before.egress is not None:
                assert after.egress.allow == before.egress.allow


def test_following_a_posture_equals_compiling_afresh():
    rules = {}

    def number(rule):
        return rules.setdefault(rule, len(rules) + 1)

    compiler = PolicyCompiler(number)
    steps = [
        relaxed(),
        relaxed(relaxation(selector=DB)),
        relaxed(relaxation((80, "TCP"), selector=DB)),
        relaxed(relaxation((80, "TCP")), relaxation((81, "TCP"), selector=WEB)),
        relaxed(posture="kubernetes"),
        relaxed(relaxation(), posture="kubernetes"),
        relaxed(relaxation(mtls="disabled")),
        relaxed(),
    ]
    for here in steps:
        assert compiler.compile(here).tables == compile_policies(here, number).tables


def test_it_is_in_force_until_its_end_and_not_then():
    one = relaxation()
    posture = Posture(None, PostureSpec(relaxations=[one]))
    end_s = one.until_s
    assert (in_force(posture, end_s - 0.001), over(posture, end_s - 0.001)) == ((one,), [])
    assert (in_force(posture, end_s), over(posture, end_s)) == ((), [one])
    assert in_force(None, 0) == ()


def test_what_is_in_audit_names_it():
    here = relaxed(relaxation())
    named = ("relaxation legacy, until 2126-12-24T18:00:00Z",)
    assert in_audit(here, compile_policies(here)) == named
