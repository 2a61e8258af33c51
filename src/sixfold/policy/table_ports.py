"""Which ports does a table let a peer use? All of them at once, and only once for alike rules.

Pure. The table is read as the kernel reads it (``decide.lookup_names``), once between any two
bounds of rules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

from sixfold.model.datapath import (
    ANY_PROTOCOL,
    INGRESS,
    NOTHING,
    PROTOCOL_NUMBERS,
    PolicyTable,
    PortRule,
    PortRules,
    Section,
)
from sixfold.model.identity import UNKNOWN, Identity
from sixfold.policy.decide import lookup_names
from sixfold.policy.reach_ports import NO_PORT, PORTS, PROTOCOLS, PortSet, Span

Shape = tuple[tuple[int, ...], ...]
SHAPES_MAX = 65_536


class TablePorts:
    """Remembers what rules alike have said, whichever table they stand in."""

    def __init__(self) -> None:
        # Rules by their ``id``: that they stay alive is what they are kept for.
        self._shapes: dict[int, tuple[Shape, PortRules]] = {}
        self._ports: dict[tuple[tuple[Shape, ...], ...], PortSet] = {}

    def ports(self, table: PolicyTable, direction: int, names: tuple[Identity, ...]) -> PortSet:
        """All ports on which a table lets a peer of these names pass."""
        main, admin = table.main[direction].peers, table.admin[direction].peers
        if not admin:
            only: PortRules | None = None
            for name in names:
                if (rules := main.get(name)) is not None:
                    if only is not None:
                        break
                    only = rules
            else:  # whoever of the names they are for
                return NO_PORT if only is None else self._of_rules(only)
        shape = self._shape
        met = (
            tuple([shape(main.get(name)) for name in names]),
            tuple([shape(admin.get(name)) for name in names]) if admin else (),
        )
        if (known := self._ports.get(met)) is None:
            known = self._ports[met] = allowed_ports(table, direction, names)
        return known

    def _of_rules(self, rules: PortRules) -> PortSet:
        met = ((self._shape(rules),),)
        if (known := self._ports.get(met)) is None:
            alone = PolicyTable((Section({UNKNOWN: rules}), NOTHING), (NOTHING, NOTHING), 0, 0)
            known = self._ports[met] = allowed_ports(alone, INGRESS, (UNKNOWN,))
        return known

    def _shape(self, rules: PortRules | None) -> Shape:
        """Rules less what does not change a verdict: whose they are."""
        if rules is None:
            return ()
        if (known := self._shapes.get(id(rules))) is None:
            if len(self._shapes) >= SHAPES_MAX:
                self._shapes.clear()
            known = tuple([rule[:4] + rule[5:] for rule in rules]), rules
            self._shapes[id(rules)] = known
        return known[0]


def allowed_ports(table: PolicyTable, direction: int, names: tuple[Identity, ...]) -> PortSet:
    """Every port that is allowed: the table is read once between any two bounds of rules, less the
    rules that say nothing there."""
    rules = [
        (admin, name, rule)
        for admin, tier in enumerate((table.main, table.admin))
        for name in names
        for rule in tier[direction].peers.get(name, ())
    ]
    found: list[Span] = []
    for at, protocol in enumerate(PROTOCOLS):
        number = PROTOCOL_NUMBERS[protocol]
        bounds: defaultdict[int, list[int]] = defaultdict(list, {0: [], PORTS: []})
        for word, (_, _, rule) in enumerate(rules):
            if rule.protocol in (ANY_PROTOCOL, number):
                size = 1 << (16 - rule.port_bits)
                first = rule.port & -size
                bounds[first].append(word)
                bounds[first + size].append(word)
        in_force: set[int] = set()
        for first, after in pairwise(sorted(bounds)):
            in_force.symmetric_difference_update(bounds[first])  # begun, or at their end
            there = _table(rules[word] for word in sorted(in_force))
            if lookup_names(there, INGRESS, names, number, first).allow:
                found.append((at * PORTS + first, at * PORTS + after - 1))
    return PortSet.join(found)


def _table(rules: Iterable[tuple[int, Identity, PortRule]]) -> PolicyTable:
    """Of these rules alone, in one direction; they stay in order."""
    tiers: tuple[dict[Identity, PortRules], dict[Identity, PortRules]] = ({}, {})
    for admin, name, rule in rules:
        tiers[admin][name] = (*tiers[admin].get(name, ()), rule)
    main, admins = tiers
    return PolicyTable((Section(main), NOTHING), (Section(admins), NOTHING), 0, 0)
