"""What must not change when something else does."""

import copy
import random

from tests.policy import languages
from tests.policy.worlds import passes, world

from sixfold.policy.plan import compile_policies

ORDERED_LISTS = {"ingress", "egress"}  # of ordered kinds: the first rule that matches decides


def verdicts(case, flows):
    here = world(case)
    plan = compile_policies(here)
    return [
        passes(plan, here, (source, destination, protocol, port), version)
        for source, destination, protocol, port, version in flows
    ]


def shuffled(value, pick, ordered=False):
    """The same with every list in another order, but for those whose order means something."""
    if isinstance(value, dict):
        return {
            key: [shuffled(one, pick) for one in item]
            if ordered and key in ORDERED_LISTS
            else shuffled(item, pick, ordered)
            for key, item in value.items()
        }
    if isinstance(value, list):
        items = [shuffled(one, pick, ordered) for one in value]
        pick.shuffle(items)
        return items
    return value


def test_the_order_of_objects_and_of_list_items_never_matters():
    for seed in range(80):
        pick = random.Random(seed)
        case = languages.case(seed)
        flows = languages.flows(case, pick, 60)
        other = {**case, "pods": shuffled(case["pods"], pick)}
        other["policies"] = [
            shuffled(raw, pick, raw["kind"] in languages.ORDERED) for raw in case["policies"]
        ]
        pick.shuffle(other["policies"])
        assert verdicts(case, flows) == verdicts(other, flows), f"seed {seed}"


def isolates(raw):
    """Directions that a NetworkPolicy isolates, as upstream defaults them."""
    types = raw["spec"].get("policyTypes")
    return set(types or ("Ingress", *(["Egress"] if raw["spec"].get("egress") else [])))


def test_another_rule_in_a_network_policy_never_removes_a_flow():
    """Except where the rule makes the policy isolate a direction that it did not."""
    looked = 0
    for seed in range(200):
        pick = random.Random(seed)
        case = languages.case(seed)
        before = [raw for raw in case["policies"] if raw["kind"] == "NetworkPolicy"]
        if not before:
            continue
        after = copy.deepcopy(case)
        chosen = next(raw for raw in after["policies"] if raw["kind"] == "NetworkPolicy")
        section, side = pick.choice((("ingress", "from"), ("egress", "to")))
        rules = chosen["spec"].setdefault(section, [])
        rules.insert(pick.randint(0, len(rules)), languages.cases.rule(pick, side))
        if isolates(chosen) != isolates(before[0]):
            continue
        looked += 1
        flows = languages.flows(case, pick, 60)
        for old, new, flow in zip(
            verdicts(case, flows), verdicts(after, flows), flows, strict=True
        ):
            assert new or not old, f"seed {seed}: {flow}"
    assert looked > 50


def test_a_cilium_deny_never_adds_a_flow():
    """Except where it is the first rule of a direction: but then it isolates, and removes more."""
    for seed in range(120):
        pick = random.Random(seed)
        case = languages.case(seed)
        spec = {"endpointSelector": languages.endpoints(pick)}
        section, side = pick.choice((("ingressDeny", "from"), ("egressDeny", "to")))
        spec[section] = [languages.cilium_rule(pick, side, section)]
        deny = {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumClusterwideNetworkPolicy",
            "metadata": {"name": "deny"},
            "spec": spec,
        }
        after = {**case, "policies": [*case["policies"], deny]}
        # Isolation keeps the Baseline tier from being heard: that may allow what it denied.
        if any(raw["kind"] in languages.ORDERED for raw in case["policies"]):
            spec["enableDefaultDeny"] = {"ingress": False, "egress": False}
        flows = languages.flows(case, pick, 60)
        for old, new, flow in zip(
            verdicts(case, flows), verdicts(after, flows), flows, strict=True
        ):
            assert old or not new, f"seed {seed}: {flow}"
