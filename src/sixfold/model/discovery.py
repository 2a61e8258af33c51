"""What annotations say of discovery: whether the names of a namespace are told to everybody, or to
those only who may reach them; and whether a pod that keeps a retired address is redirected."""

from __future__ import annotations

from sixfold.model.meta import ObjectMeta

DISCOVERY = "sixfold.dev/discovery"
OPEN, REACHABLE = "open", "reachable"
REDIRECT = "sixfold.dev/redirect-retired"
TRUE, FALSE = "true", "false"


def is_open(meta: ObjectMeta) -> bool:
    """Whether a namespace's annotation says so."""
    return meta.annotations.get(DISCOVERY, REACHABLE) == OPEN


def asks_for_redirects(meta: ObjectMeta, *, default: bool = False) -> bool:
    """Whether an object's annotation says so; ``default`` is what a pod's namespace says."""
    said = meta.annotations.get(REDIRECT)
    return default if said is None else said == TRUE
