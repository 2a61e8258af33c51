"""Which addresses do the domain patterns of policies mean, now?

Pure. An address that names have resolved to has, beside WORLD and perhaps a CIDR, an identity of
its own kind: one for each set of patterns that those names match. Rules about a pattern list
every set that it is in. The sets of a single pattern are there from the moment that a policy
names it; so what is learned later is, as a rule, one entry of the ipcache and no change of any
table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from sixfold.model.datapath import IPAddress
from sixfold.model.domain import DomainMatcher
from sixfold.model.identity import Identity

Patterns = frozenset[str]


class DomainIndex:
    """Sets of patterns with their identities, kept in step with policies and resolved names."""

    def __init__(self, identity: Callable[[Patterns], Identity]) -> None:
        self._identity = identity
        self._uses: Counter[str] = Counter()
        self._matcher = DomainMatcher()
        self._names: Mapping[str, frozenset[IPAddress]] = {}
        self._also: frozenset[Patterns] = frozenset()
        self._sets: dict[Patterns, Identity] = {}
        self._by_pattern: dict[str, list[Identity]] = {}
        self._meant: dict[IPAddress, Patterns] = {}
        self.addresses: dict[IPAddress, Identity] = {}

    @property
    def sets(self) -> Mapping[Patterns, Identity]:
        return dict(self._sets)

    @property
    def patterns(self) -> Patterns:
        """All that policies name."""
        return self._matcher.patterns

    def named(self, pattern: str) -> list[Identity]:
        """The identities of addresses that a pattern means."""
        return self._by_pattern.get(pattern, [])

    def count(self, before: Iterable[str], after: Iterable[str]) -> None:
        """Policies that went named ``before``, those that came ``after``; then ``follow``."""
        self._uses.update(after)
        self._uses.subtract(before)

    def follow(
        self, names: Mapping[str, frozenset[IPAddress]], also: frozenset[Patterns] = frozenset()
    ) -> set[str]:
        """Take over what names have resolved to; patterns with other identities than before.

        ``also``: sets to have besides those that are in use.
        """
        patterns = {one for one, count in self._uses.items() if count > 0}
        if names is self._names and also == self._also and patterns == self.patterns:
            return set()
        if patterns != self.patterns:
            self._uses = +self._uses
            self._matcher = DomainMatcher(patterns)
        self._names, self._also = names, also
        meant: dict[IPAddress, Patterns] = {}
        used = {frozenset({one}) for one in patterns}
        used |= {one for one in also if one <= patterns}
        for name, addresses in names.items():
            if found := self._matcher.of(name):
                used.add(found)
                for address in addresses:
                    meant[address] = meant.get(address, frozenset()) | found
        used.update(meant.values())
        self._meant = meant
        changed = self._keep(used)
        self.addresses = {address: self._sets[found] for address, found in meant.items()}
        return changed

    def learn(
        self, names: Mapping[str, frozenset[IPAddress]], fresh: Iterable[tuple[str, IPAddress]]
    ) -> dict[IPAddress, Identity] | None:
        """``follow`` for names that differ by some fresh pairs only; cost follows these.

        Returns the addresses with new identities, which ``addresses`` has from now on; None, and
        nothing has happened, when one of them needs a set that is not there.
        """
        meant: dict[IPAddress, Patterns] = {}
        for name, address in fresh:
            before = meant.get(address) or self._meant.get(address, frozenset())
            meant[address] = before | self._matcher.of(name)
        if not all(one in self._sets for one in meant.values() if one):
            return None
        opened = {address: self._sets[one] for address, one in meant.items() if one}
        self._names = names
        self._meant.update(meant)
        self.addresses.update(opened)
        return opened

    def _keep(self, used: set[Patterns]) -> set[str]:
        """Have the sets that are used; returns the patterns in those that came or went."""
        gone, came = self._sets.keys() - used, used - self._sets.keys()
        if not came and not gone:
            return set()
        for one in gone:
            del self._sets[one]
        for one in sorted(came, key=sorted):
            self._sets[one] = self._identity(one)
        self._by_pattern = {}
        for one, identity in self._sets.items():
            for pattern in one:
                self._by_pattern.setdefault(pattern, []).append(identity)
        return set().union(*came, *gone)
