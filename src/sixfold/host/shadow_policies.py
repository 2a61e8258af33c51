"""The part of the shadow that is about policy: who has which table, of which sections.

Equal tables have one number, and so have equal sections. Endpoints that pass from one table to
another are told apart by how:

  - all that had it have the same new one: its number stays, and gets the new contents in one
    write, for ten thousand endpoints as for one
  - the others get another number: before that write if they left such a table, so that they
    never see what it will hold; after it if they come to one, so that they never see what it held

Nothing here writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import repeat

from sixfold.host import layout
from sixfold.host.changes import Changes, map_full
from sixfold.host.numbered import Numbered
from sixfold.host.tables import WrittenTable
from sixfold.model.datapath import ANY_PROTOCOL, PolicyTable, Section
from sixfold.model.endpoint import EndpointId
from sixfold.model.groups import Grouped, grouped
from sixfold.model.layers import differing

ZERO = layout.U32.pack(0)
Policies = Grouped[EndpointId, PolicyTable]


@dataclass(slots=True)
class Move:
    """Endpoints that had one table and have another; None: they were, or are, not there."""

    before: PolicyTable | None
    after: PolicyTable | None
    endpoints: list[EndpointId] = field(default_factory=list)


class PolicyShadow:
    """Tables and sections by number, and the endpoints that have them."""

    def __init__(self, capacity: int, packed: Mapping[bytes, bytes]) -> None:
        """``packed``: what the map ``policy`` holds, of ``capacity`` entries."""
        self._capacity, self._packed = capacity, packed
        self.tables: Numbered[PolicyTable] = Numbered()
        self.sections: Numbered[Section] = Numbered()
        self.now: Policies = Grouped()
        self._members: dict[Hashable, set[EndpointId]] = {}

    def adopt(self, policies: Mapping[EndpointId, PolicyTable]) -> None:
        """What the kernel holds already; ``adopt_table`` was called for each."""
        self.now = grouped(policies)
        self._join(policies)

    def adopt_table(self, number: int, tables: Mapping[int, WrittenTable]) -> None:
        """One more holder of a table that is written under this number."""
        one = tables[number]
        if self.tables.adopt(one.table, number):
            for section, at in zip(one.table.sections, one.sections, strict=True):
                if at:
                    self.sections.adopt(section, at)
            if one.audit:
                self.adopt_table(one.audit, tables)

    def advance(self, desired: Mapping[EndpointId, PolicyTable], changes: Changes) -> None:
        """Become ``desired``; the writes go to ``changes``."""
        before, self.now = self.now, grouped(desired)
        moves = self._moves(before)
        in_place = self._in_place(moves)
        renamed = {new: self.tables.rename(old, new) for old, new in in_place.items()}
        for table, number in renamed.items():
            changes.switches[layout.U32.pack(number)] = self._hold_parts(table, changes)
        moves = [move for move in moves if not _follows(move, in_place)]
        for move in moves:  # all are held before the first is dropped: what both have stays
            self._arrive(move, renamed, changes)
        for table in in_place:
            self._drop_parts(table, changes)
        for move in moves:
            if move.before is not None:
                left = in_place.get(move.before, move.before)
                self._drop_table(left, changes, len(move.endpoints))

    def _moves(self, before: Policies) -> list[Move]:
        """Take over who is where; who has another table than before, those alike together."""
        after, members = self.now, self._members
        moved = differing(before.group_of, after.group_of)
        found: dict[tuple[int, int], Move] = {}

        def move(old: PolicyTable | None, new: PolicyTable | None) -> Move:
            if (known := found.get((id(old), id(new)))) is None:
                known = found[id(old), id(new)] = Move(old, new)
            return known

        for endpoint in moved:
            move(before.get(endpoint), after.get(endpoint)).endpoints.append(endpoint)
            if endpoint in before.group_of:
                members[before.group_of[endpoint]].discard(endpoint)
        for group in differing(before.value_of, after.value_of):
            if stayed := members.get(group):
                old, new = before.value_of.get(group), after.value_of.get(group)
                move(old, new).endpoints.extend(stayed)
            else:
                members.pop(group, None)
        self._join(endpoint for endpoint in moved if endpoint in after.group_of)
        return [one for one in found.values() if one.before != one.after]

    def _join(self, endpoints: Iterable[EndpointId]) -> None:
        members, group_of = self._members, self.now.group_of
        for endpoint in endpoints:
            group = group_of[endpoint]
            if (known := members.get(group)) is not None:
                known.add(endpoint)
            else:
                members[group] = {endpoint}

    def _in_place(self, moves: Iterable[Move]) -> dict[PolicyTable, PolicyTable]:
        """Tables whose numbers go over to others: nobody is left who has the old one."""
        sizes: Counter[tuple[PolicyTable, PolicyTable]] = Counter()
        leaving: Counter[PolicyTable] = Counter()
        for move in moves:
            if move.before is not None:
                leaving[move.before] += len(move.endpoints)
                if move.after is not None:
                    sizes[move.before, move.after] += len(move.endpoints)
        found: dict[PolicyTable, PolicyTable] = {}
        taken: set[PolicyTable] = set()
        asked = {move.after.audit for move in moves if move.after is not None}  # by others, too
        for (before, after), _ in sizes.most_common():
            if (
                before not in found
                and after not in taken
                and after not in asked
                and after not in self.tables
                and leaving[before] == self.tables.holders(before)
            ):
                found[before] = after
                taken.add(after)
        # From one of these to another there is no moment to go.
        for before, after in sizes:
            if before in found and found[before] != after and after in taken:
                found = {old: new for old, new in found.items() if new != after}
                taken.discard(after)
        return found

    def _arrive(self, move: Move, renamed: Collection[PolicyTable], changes: Changes) -> None:
        held, puts = ZERO, changes.puts["policy_of"]
        if move.after is not None:
            held = layout.U32.pack(self._hold_table(move.after, changes, len(move.endpoints)))
            if move.after in renamed:
                puts = changes.joins
        puts.update(zip(map(layout.U32.pack, move.endpoints), repeat(held), strict=False))

    def _hold_table(self, table: PolicyTable, changes: Changes, times: int = 1) -> int:
        """Its number; written when it is the first to ask. Equal tables share one."""
        number, fresh = self.tables.hold(table, times)
        if fresh:
            packed = self._hold_parts(table, changes)
            changes.put("policy_tables", layout.U32.pack(number), packed)
        return number

    def _hold_parts(self, table: PolicyTable, changes: Changes) -> bytes:
        audit = self._hold_table(table.audit, changes) if table.audit is not None else 0
        sections = [self._hold_section(section, changes) for section in table.sections]
        return layout.pack_table(table, sections, audit)

    def _hold_section(self, section: Section, changes: Changes) -> int:
        if not section:
            return 0
        number, fresh = self.sections.hold(section)
        if fresh:
            self._make_room(section, changes)
            changes.puts["policy"].update(layout.pack_section(number, section))
        return number

    def _make_room(self, section: Section, changes: Changes) -> None:
        """Refuse what will not fit before it is spelled out: that alone could fill the memory."""
        free = len(changes.deletes["policy"])  # what nobody owns
        wanted = len(self._packed) + len(changes.puts["policy"]) + section_size(section)
        if wanted - free > self._capacity:
            raise map_full("policy", wanted, self._capacity)

    def _drop_table(self, table: PolicyTable, changes: Changes, times: int = 1) -> None:
        if number := self.tables.drop(table, times):
            changes.delete("policy_tables", layout.U32.pack(number))
            self._drop_parts(table, changes)

    def _drop_parts(self, table: PolicyTable, changes: Changes) -> None:
        if table.audit is not None:
            self._drop_table(table.audit, changes)
        for section in filter(None, table.sections):
            if gone := self.sections.drop(section):
                changes.deletes["policy"] += [key for key, _ in layout.pack_section(gone, section)]


def _follows(move: Move, in_place: Mapping[PolicyTable, PolicyTable]) -> bool:
    """Whether its endpoints keep the number that they have."""
    return move.before is not None and in_place.get(move.before) == move.after is not None


def section_size(section: Section) -> int:
    """How many entries ``layout.pack_section`` gives."""
    return sum(
        1 + sum(rule.protocol != ANY_PROTOCOL for rule in rules) for rules in section.peers.values()
    )
