"""Policies and rules without which all flows would be the same.

Pure. Each is left out, and what is compiled without it compared on every side: the effect counts,
not what is written. A policy without rules is a base for workloads to come, and no matter of this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import replace

import msgspec

from sixfold.model.policies import Policy
from sixfold.model.policy import NetworkPolicy
from sixfold.model.world import World
from sixfold.policy.lint_finding import Finding, Path
from sixfold.policy.plan import PolicyCompiler
from sixfold.policy.reach_parties import View, parties
from sixfold.policy.reach_sides import side_changes

COMPARED_MAX = 1_000_000  # workloads times rules whose absence is tried: a minute or so


def redundant(world: World, policies: Set[str], said: Set[tuple[str, Path]]) -> Iterator[Finding]:
    """Look at these policies; ``said`` are rules about which there is a finding already."""
    rules = sum(1 for key in policies for _ in _rules(world.policies[key]))
    if (len(policies) + rules) * len(world.endpoints) > COMPARED_MAX:
        message = f"not looked for: {rules} rules are too many to leave out; lint some of them"
        yield Finding("", (), "redundant", "info", message)
        return
    compiler = PolicyCompiler()
    base = View(world, compiler.compile(world))

    def is_same(changed: Mapping[str, Policy]) -> bool:
        other = replace(world, policies=changed)
        after = View(other, compiler.compile(other))
        return next(side_changes(base, after, parties([base, after])), None) is None

    for key in sorted(policies):
        policy = world.policies[key]
        if is_same({name: one for name, one in world.policies.items() if name != key}):
            message = "without this policy, nothing would change"
            yield Finding(key, ("spec",), "redundant", "info", message)
            continue
        for path, without in _rules(policy):
            if (key, path) not in said and is_same({**world.policies, key: without}):
                message = "without this rule, nothing would change: others allow it all"
                yield Finding(key, path, "redundant", "info", message)


def _rules(policy: Policy) -> Iterator[tuple[Path, NetworkPolicy]]:
    """Each rule of a NetworkPolicy, with the policy as it were without it."""
    if not isinstance(policy, NetworkPolicy):
        return
    types = sorted(policy.spec.isolates)  # without its last rule it still isolates as before
    for name in ("ingress", "egress"):
        rules = getattr(policy.spec, name) or []
        for at in range(len(rules) if name.capitalize() in types else 0):
            rest = [*rules[:at], *rules[at + 1 :]]
            spec = msgspec.structs.replace(policy.spec, policy_types=types, **{name: rest})
            yield ("spec", name, at), msgspec.structs.replace(policy, spec=spec)
