"""A section under construction: what several rules say of the same peers, put together.

Pure. Two rules for the same ports of a peer: the stronger counts, and of equals the first. What a
broader one overrules is left out where precedence decides, because only the longest match is
read.

Theory of operation. Most peers of a section are named by the same few sets of peers, and many
policies name the very same set. So rules are collected by set, and a peer is given a chain of the
sets that it is in, shared with all peers in just the same ones; each chain is made into rules
once. The cost is that of distinct sets and chains, not of peers × rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Set
from operator import itemgetter
from typing import NamedTuple

from sixfold.model.datapath import PortRule, PortRules, Section, narrowest_first
from sixfold.model.identity import Identity

RULES_MAX = 1 << 21  # of one section, shared ones counted once: twice what the kernel's map holds
Prune = Callable[[PortRules], PortRules]


class TooManyRulesError(Exception):
    """More than a kernel's map would hold, told before memory is gone."""


Said = list[tuple[int, PortRules]]  # of one set of peers; first when it was said


class Chain(NamedTuple):
    """What was said of one set, and of those before; ``size`` counts all of it."""

    before: Chain | None
    said: Said
    size: int


class Pile:
    """Collects rules by peer; of equals, what comes first is named."""

    def __init__(self) -> None:
        self._sets: dict[int, tuple[Collection[Identity], Said]] = {}  # by id; the value is alive
        self._words = 0

    def add(self, peers: Collection[Identity], rules: PortRules) -> None:
        """Say the same of each of these peers."""
        self._sets.setdefault(id(peers), (peers, []))[1].append((self._words, rules))
        self._words += 1

    def section(self, prune: Prune | None) -> Section:
        """All of it; ``prune`` where precedence decides."""
        chains = self._chains()
        distinct = {id(chain): chain for chain in chains.values()}
        _check(sum(chain.size for chain in distinct.values()))
        done = {key: _rules(chain, prune) for key, chain in distinct.items()}
        return Section({peer: done[id(chain)] for peer, chain in chains.items()})

    def _chains(self) -> dict[Identity, Chain]:
        chains: dict[Identity, Chain] = {}
        longer: dict[tuple[int, int], Chain] = {}  # by ``id`` of a chain and of what comes next
        for peers, said in self._sets.values():
            size = sum(len(rules) for _, rules in said)
            single = Chain(None, said, size)
            known = chains.keys() & (peers if isinstance(peers, Set) else set(peers))
            more: dict[Identity, Chain] = {}
            for peer in known:
                before = chains[peer]
                if (found := longer.get((id(before), id(said)))) is None:
                    found = longer[id(before), id(said)] = Chain(before, said, before.size + size)
                    _check(len(longer))
                more[peer] = found
            chains.update(dict.fromkeys(peers, single))
            chains.update(more)
        return chains


def _rules(chain: Chain, prune: Prune | None) -> PortRules:
    words = [*chain.said]
    while chain.before is not None:
        chain = chain.before
        words += chain.said
    if len(words) == 1:
        rules = words[0][1]
    else:
        strongest: dict[tuple[int, ...], PortRule] = {}
        for _, one in sorted(words, key=itemgetter(0)):
            for rule in one:
                known = strongest.setdefault(rule[:3], rule)
                if known is not rule and rule.strength > known.strength:
                    strongest[rule[:3]] = rule
        rules = narrowest_first(strongest.values())
    return prune(rules) if prune is not None and len(rules) > 1 else rules


def _check(size: int) -> None:
    if size > RULES_MAX:
        raise TooManyRulesError
