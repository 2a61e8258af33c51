"""Which of two policies of equal tier and priority comes first? That of the smaller key.

The API leaves it open; one answer that does not depend on the order of arrival is needed. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable

from sixfold.policy import ir

Rank = tuple[ir.Tier, int]


class Ties:
    """Keys of the ordered policies by tier and priority."""

    def __init__(self) -> None:
        self._keys: defaultdict[Rank, list[str]] = defaultdict(list)

    def of(self, policy: ir.Policy) -> int:
        """How many of its equals come before it; 0 where order does not matter."""
        if policy.tier is ir.Tier.NETWORK_POLICY:
            return 0
        return bisect_left(self._keys[policy.tier, policy.priority], policy.key)

    def follow(self, gone: Iterable[ir.Policy], come: Iterable[ir.Policy]) -> set[str]:
        """Take over changes; returns the keys of all whose place may be another now."""
        moved: set[str] = set()
        for policy in gone:
            if policy.tier is not ir.Tier.NETWORK_POLICY:
                keys = self._keys[policy.tier, policy.priority]
                del keys[bisect_left(keys, policy.key)]
                moved.update(keys)
        for policy in come:
            if policy.tier is not ir.Tier.NETWORK_POLICY:
                keys = self._keys[policy.tier, policy.priority]
                insort(keys, policy.key)
                moved.update(keys)
        return moved & {key for keys in self._keys.values() for key in keys}
