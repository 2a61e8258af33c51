"""What changed between two mappings whose unchanged values are the same objects.

Pure. Planners ask this of every world, mostly to hear "nothing" or "one thing"; so the common
case, the same keys in the same order, stays within C; layers know themselves what differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress
from operator import eq, is_not
from typing import TypeVar

from sixfold.model.layers import Layers, differing

K = TypeVar("K")
V = TypeVar("V")


def changes(old: Mapping[K, V], new: Mapping[K, V]) -> tuple[list[K], list[K]]:
    """Keys that are gone, and keys whose value is new or another object."""
    if old is new:
        return [], []
    if isinstance(old, Layers) and isinstance(new, Layers):
        keys = differing(old, new)
        gone = [key for key in keys if key not in new]
        return gone, [key for key in keys if key in new]
    if len(old) == len(new) and all(map(eq, old, new)):
        return [], list(compress(new, map(is_not, old.values(), new.values())))
    gone = [key for key in old if key not in new]
    return gone, [key for key, value in new.items() if old.get(key) is not value]
