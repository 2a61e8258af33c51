"""Acceleration: TCP between two pods of this host from socket to socket, past the packets.

Asked for by an annotation of a Namespace or of a pod, whose own word counts. Both ends of a
connection must ask.
"""

from __future__ import annotations

from sixfold.model.meta import ObjectMeta

ACCELERATION = "sixfold.dev/acceleration"
SOCKMAP, NONE = "sockmap", "none"


def asks_for_acceleration(meta: ObjectMeta, *, default: bool = False) -> bool:
    """Whether an object's annotation says so; ``default`` is what a pod's namespace says."""
    said = meta.annotations.get(ACCELERATION)
    return default if said is None else said == SOCKMAP
