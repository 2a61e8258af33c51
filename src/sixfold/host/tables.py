"""Which policy tables, of which sections, do the maps hold? Read from what an earlier agent left.

Pure: bytes of ``policy`` and ``policy_tables`` in, values out. What is not just as ``layout`` would
have written it, or refers to what is not there, is not read: it is nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from sixfold.host import layout
from sixfold.model.datapath import NOTHING, PolicyTable, PortRules, Section, narrowest_first
from sixfold.model.identity import UNKNOWN, Identity

Packed = Mapping[bytes, bytes]


class WrittenTable(NamedTuple):
    """A table as it is in the map: sections and its table in audit by number, 0 for none."""

    table: PolicyTable
    sections: tuple[int, ...]
    audit: int

    def resolved(
        self, sections: Mapping[int, Section], tables: Mapping[int, WrittenTable]
    ) -> WrittenTable | None:
        """With what the numbers stand for; None when one of them stands for nothing."""
        if any(number and number not in sections for number in self.sections):
            return None
        if self.audit and self.audit not in tables:
            return None
        into, out, *admin = (sections.get(number, NOTHING) for number in self.sections)
        audit = tables[self.audit].table if self.audit else None
        table = msgspec.structs.replace(
            self.table, main=(into, out), admin=(admin[0], admin[1]), audit=audit
        )
        return self._replace(table=table)


def unpack_table(packed: bytes) -> WrittenTable:
    ingress, egress, *sections, audit = layout.POLICY_TABLE.unpack(packed)
    nothing = (NOTHING, NOTHING)
    return WrittenTable(PolicyTable(nothing, nothing, ingress, egress), tuple(sections), audit)


def section_number(key: bytes) -> int:
    """Of a key of ``policy``."""
    return int(layout.U32.unpack_from(key)[0])


def read_sections(policy: Packed) -> dict[int, Section]:
    """Sections by number: the first of each content."""
    written: dict[bytes, dict[bytes, list[tuple[bytes, bytes]]]] = {}
    for key, value in policy.items():
        peers = written.get(key[:4])
        if peers is None:
            peers = written[key[:4]] = {}
        peers.setdefault(key[4:8], []).append((key[8:], value))
    known: dict[tuple[tuple[bytes, bytes], ...], PortRules | None] = {}  # most are alike
    first: dict[Section, int] = {}
    for number in sorted(written, key=section_number):
        found: dict[Identity, PortRules] = {}
        for peer, entries in written[number].items():
            said = tuple(sorted(entries))
            if said not in known:
                known[said] = _rules(said)
            if (rules := known[said]) is None:
                break
            found[Identity(layout.U32.unpack(peer)[0])] = rules
        else:
            first.setdefault(Section(found), section_number(number))
    return {number: section for section, number in first.items()}


def _rules(entries: Iterable[tuple[bytes, bytes]]) -> PortRules | None:
    """Of one peer; None if ``layout`` would have written something else."""
    nobody = bytes(8)
    read = (layout.unpack_policy(nobody + key, value)[2] for key, value in entries)
    rules = narrowest_first(rule for rule in read if rule is not None)
    said = layout.pack_section(0, Section({UNKNOWN: rules}))
    return rules if {key[8:]: value for key, value in said} == dict(entries) else None


def read_tables(tables: Packed, sections: Mapping[int, Section]) -> dict[int, WrittenTable]:
    """Tables by number: the first of each content."""
    found: dict[int, WrittenTable] = {}
    first: dict[PolicyTable, int] = {}
    unpacked = {layout.U32.unpack(key)[0]: unpack_table(value) for key, value in tables.items()}
    # Tables in audit first: others refer to them.
    for number in sorted(unpacked, key=lambda one: (unpacked[one].audit != 0, one)):
        table = unpacked[number].resolved(sections, found)
        if table is not None and first.setdefault(table.table, number) == number:
            found[number] = table
    return found


def asked_for(tables: Packed, numbers: Iterable[int]) -> dict[str, set[int]]:
    """Numbers that these tables lead to, themselves among them, by map."""
    found: dict[str, set[int]] = {"policy_tables": set(), "policy": set()}
    waiting = list(numbers)
    while waiting:
        number = waiting.pop()
        value = tables.get(layout.U32.pack(number))
        if value is not None and number not in found["policy_tables"]:
            table = unpack_table(value)
            found["policy_tables"].add(number)
            found["policy"].update(table.sections)
            waiting.append(table.audit)
    return found
