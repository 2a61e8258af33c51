"""Those policies that are about more than who reaches which port, kept in step with all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

from sixfold.model.layers import Layers
from sixfold.policy import ir


class About:
    """``asks``: whether a policy is one of them."""

    def __init__(self, asks: Callable[[ir.Policy], bool]) -> None:
        self._asks = asks
        self.policies: Layers[str, ir.Policy] = Layers()

    def follow(self, after: Mapping[str, ir.Policy], touched: Set[str]) -> None:
        """``touched``: keys of those that came, went or changed; ``after``: what is there now."""
        asking = {key: one for key, one in after.items() if self._asks(one)}
        silent = {key for key in touched - asking.keys() if key in self.policies}
        self.policies = self.policies.changed(asking, silent)
