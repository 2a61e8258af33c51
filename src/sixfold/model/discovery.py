"""Whether the names of a namespace are told to everybody, or to those only who may reach them."""

from __future__ import annotations

from sixfold.model.meta import ObjectMeta

DISCOVERY = "sixfold.dev/discovery"
OPEN, REACHABLE = "open", "reachable"


def is_open(meta: ObjectMeta) -> bool:
    """Whether a namespace's annotation says so."""
    return meta.annotations.get(DISCOVERY, REACHABLE) == OPEN
