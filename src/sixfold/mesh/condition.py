"""What holds of an object of the Gateway API, and how its status says so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from sixfold.model.meta import Object, ObjectMeta

CONTROLLER = "sixfold.dev/mesh"


class Condition(NamedTuple):
    """As in ``status.parents[].conditions``."""

    type: str
    holds: bool
    reason: str
    message: str


def told(meta: ObjectMeta, given: Iterable[Condition]) -> list[dict[str, Any]]:
    """``conditions``, of the generation of an object that they were found for."""
    return [
        {
            "type": one.type,
            "status": "True" if one.holds else "False",
            "reason": one.reason,
            "message": one.message,
            "observedGeneration": meta.generation,
            "lastTransitionTime": meta.creation_timestamp or "",
        }
        for one in given
    ]


def told_of_targets(
    meta: ObjectMeta, found: Iterable[tuple[Object, Iterable[Condition]]]
) -> dict[str, Any]:
    """``status`` of a policy that is attached to targets (PolicyStatus)."""
    return {
        "ancestors": [
            {
                "ancestorRef": msgspec.to_builtins(target),
                "controllerName": CONTROLLER,
                "conditions": told(meta, given),
            }
            for target, given in found
        ]
    }
