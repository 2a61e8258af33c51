"""What is in audit: told, not enforced.

Pure. Which flows pass only because of that says ``diff.only_by_audit``.
"""

from __future__ import annotations

from sixfold.model.world import World
from sixfold.policy.plan import PolicyPlan

EVERYTHING = "everything (up --audit)"


def in_audit(world: World, plan: PolicyPlan) -> tuple[str, ...]:
    """Whose word is told only: of everything, of namespaces, of policies; () when all counts."""
    if world.config.audit:
        return (EVERYTHING,)
    namespaces = [f"namespace {name}" for name in sorted(world.audited)]
    relaxed = [str(one) for one in world.relaxations if one.enforcement]
    policies = {one.title for one in plan.policies.values() if one.audit}
    return (*namespaces, *relaxed, *sorted(policies))
