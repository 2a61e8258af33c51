"""A section under construction: what several rules say of the same peers, put together.

Pure. Two rules for the same ports of a peer: the stronger counts, and of equals the first. What a
broader one overrules is left out where precedence decides, because only the longest match is
read.

Theory of operation. Most peers of a section are named by the same few rules. So a peer is given a
chain of what was said of it, shared with all peers of which just the same was said, and each
chain is made into rules once: the cost is that of distinct chains, not of peers × rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Set
from typing import NamedTuple

from sixfold.model.datapath import PortRule, PortRules, Section, narrowest_first
from sixfold.model.identity import Identity

RULES_MAX = 1 << 21  # of one section, shared ones counted once: twice what the kernel's map holds
Prune = Callable[[PortRules], PortRules]


class TooManyRulesError(Exception):
    """More than a kernel's map would hold, told before memory is gone."""


class Chain(NamedTuple):
    """What was said last, and what before; ``size`` counts all of it."""

    before: Chain | None
    rules: PortRules
    size: int


class Pile:
    """Collects rules by peer; of equals, what comes first is named."""

    def __init__(self) -> None:
        self._chains: dict[Identity, Chain] = {}
        self._longer: dict[tuple[int, int], Chain] = {}  # by id; the values keep both alive

    def add(self, peers: Collection[Identity], rules: PortRules) -> None:
        """Say the same of each of these peers."""
        chains, single = self._chains, Chain(None, rules, len(rules))
        if not chains:
            self._chains = dict.fromkeys(peers, single)
            return
        known = chains.keys() & (peers if isinstance(peers, Set) else set(peers))
        longer = {peer: self._chain(chains[peer], rules) for peer in known}
        chains.update(dict.fromkeys(peers, single))
        chains.update(longer)

    def _chain(self, before: Chain, rules: PortRules) -> Chain:
        key = id(before), id(rules)
        if (known := self._longer.get(key)) is None:
            known = self._longer[key] = Chain(before, rules, before.size + len(rules))
            _check(len(self._longer))
        return known

    def section(self, prune: Prune | None) -> Section:
        """All of it; ``prune`` where precedence decides."""
        distinct = {id(chain): chain for chain in self._chains.values()}
        _check(sum(chain.size for chain in distinct.values()))
        done = {key: _rules(chain, prune) for key, chain in distinct.items()}
        return Section({peer: done[id(chain)] for peer, chain in self._chains.items()})


def _rules(chain: Chain, prune: Prune | None) -> PortRules:
    if chain.before is None:
        rules = chain.rules
    else:
        said = []
        at: Chain | None = chain
        while at is not None:
            said.append(at.rules)
            at = at.before
        strongest: dict[tuple[int, ...], PortRule] = {}
        for one in reversed(said):
            for rule in one:
                known = strongest.setdefault(rule[:3], rule)
                if known is not rule and rule.strength > known.strength:
                    strongest[rule[:3]] = rule
        rules = narrowest_first(strongest.values())
    return prune(rules) if prune is not None and len(rules) > 1 else rules


def _check(size: int) -> None:
    if size > RULES_MAX:
        raise TooManyRulesError
