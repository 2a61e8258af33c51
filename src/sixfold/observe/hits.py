"""How often each policy decided, by rule: the kernel's counters under the names of policies.

Pure. A rule that allows counts connections, one that denies counts packets. A default deny is
named by every policy that isolates the workload, and so counted for each of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from sixfold.model.policies import key_of
from sixfold.model.rule import Rule

PolicyHits = dict[str, int]  # by rule, in words: "ingress[0]", "egress default-deny"


def policy_hits(rules: Mapping[int, Rule], hits: Mapping[int, int]) -> Mapping[str, PolicyHits]:
    """Hits by key of the policy, then by its rules; rules that nothing hit are left out."""
    found: dict[str, PolicyHits] = defaultdict(lambda: defaultdict(int))
    for number, count in sorted(hits.items()):
        rule = rules.get(number)
        if rule is None or rule.kind == "builtin":
            continue
        if rule.index >= 0:
            found[key_of(rule.kind, rule.namespace, rule.name)][rule.place] += count
            continue
        for title in rule.because.split(","):
            found[title][f"{rule.direction} {rule.name}"] += count
    return {key: dict(by_rule) for key, by_rule in found.items()}
