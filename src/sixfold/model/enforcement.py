"""Whether a policy, a namespace or everything is enforced, or in audit: told, not enforced."""

from __future__ import annotations

from sixfold.model.meta import ObjectMeta

ENFORCEMENT = "sixfold.dev/enforcement"
AUDIT, ENFORCE = "audit", "enforce"


def in_audit(meta: ObjectMeta) -> bool:
    """Whether an object's annotation says so."""
    return meta.annotations.get(ENFORCEMENT, ENFORCE) == AUDIT
