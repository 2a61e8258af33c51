"""What does a change open, and what does it close? Flows, not lines of YAML.

Pure. Both worlds are compiled, and everybody in either is put into groups that neither tells
apart; then whole sets of ports are compared. A workload that is only in one of the worlds opens, or
closes, all its flows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sixfold.model.groups import Grouped
from sixfold.model.layers import Layers
from sixfold.policy.reach import Block, Value, merge, reach
from sixfold.policy.reach_parties import View, parties
from sixfold.policy.reach_ports import NO_PORT, PortSet
from sixfold.policy.reach_show import Names, Row, families


@dataclass(frozen=True, slots=True)
class Difference:
    """Flows opened and closed, in rows; and workloads that are only in one world."""

    opened: tuple[Row, ...]
    closed: tuple[Row, ...]
    came: tuple[str, ...] = ()
    went: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.opened or self.closed)


def compare(old: View, new: View) -> Difference:
    """Everything that may flow in one world and not in the other."""
    views = [old, new]
    groups = parties(views)
    names = Names(views, groups)
    blocks = reach(views, groups)

    def rows(changes: Iterator[Block]) -> tuple[Row, ...]:
        found = [
            Row(names.of(block.sources), names.of(block.destinations), *ports)
            for block in merge(changes, groups)
            for ports in families(block.ports)
        ]
        return tuple(sorted(found, key=lambda row: (row.sources, row.destinations)))

    before, after = set(old.world.endpoints), set(new.world.endpoints)
    return Difference(
        rows(_changes(blocks, opened=True)),
        rows(_changes(blocks, opened=False)),
        tuple(sorted(after - before)),
        tuple(sorted(before - after)),
    )


def only_by_audit(view: View) -> tuple[Row, ...]:
    """Flows that would be denied, were nothing in audit: the tables have that beside them."""
    plan = view.plan
    tables, host = plan.tables.value_of, plan.host
    if all(table is None or table.audit is None for table in (*tables.values(), host)):
        return ()
    enforced = Layers({group: table.audit or table for group, table in tables.items()})
    grouped = Grouped(plan.tables.group_of, enforced)
    enforcing = replace(plan, tables=grouped, host=host and (host.audit or host))
    return compare(View(view.world, enforcing), view).opened


def _changes(blocks: list[Block], *, opened: bool) -> Iterator[Block]:
    """Blocks with what the one side has and the other has not, by IP version."""
    for block in blocks:
        per_view = len(block.ports) // 2
        old, new = block.ports[:per_view], block.ports[per_view:]
        ports = _minus(new, old) if opened else _minus(old, new)
        if any(ports):
            yield Block(block.sources, block.destinations, ports)


def _minus(one: Value, other: Value) -> Value:
    return tuple(map(_less, one, other))


def _less(one: PortSet | None, other: PortSet | None) -> PortSet | None:
    """None stays None only where there is nothing to say about this version."""
    if one is None:
        return None if other is None else NO_PORT
    return one - (other or NO_PORT)
