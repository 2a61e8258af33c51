"""Which ports does a table let a peer use? All of them at once, and only once for alike rules.

Pure. The table is read as the kernel reads it (``decide.lookup_names``), once between any two
bounds of rules.
"""

from __future__ import annotations

from itertools import pairwise

from sixfold.model.datapath import (
    ANY_PROTOCOL,
    INGRESS,
    NOTHING,
    PROTOCOL_NUMBERS,
    PolicyTable,
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
    """Every port that is allowed: the table is read once between any two bounds of rules."""
    rules = [
        rule
        for section in (table.main[direction], table.admin[direction])
        for name in names
        for rule in section.peers.get(name, ())
    ]
    found: list[Span] = []
    for at, protocol in enumerate(PROTOCOLS):
        number, bounds = PROTOCOL_NUMBERS[protocol], {0, PORTS}
        for rule in rules:
            if rule.protocol not in (ANY_PROTOCOL, number):
                continue
            size = 1 << (16 - rule.port_bits)
            first = rule.port & -size
            bounds |= {first, first + size}
        found += (
            (at * PORTS + first, at * PORTS + after - 1)
            for first, after in pairwise(sorted(bounds))
            if lookup_names(table, direction, names, number, first).allow
        )
    return PortSet.join(found)
