"""What do two versions of the policies let pass differently, side by side?

Pure. A side is one workload's own policy in one direction, whatever the other side would say: the
effect of a single rule shows here even where the other side denies the flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sixfold.model.datapath import EGRESS, INGRESS
from sixfold.policy.reach_parties import Group, View, side_ports
from sixfold.policy.reach_ports import NO_PORT, PortSet


class SideChange(NamedTuple):
    """One side of one pair of groups, and what it lets pass before and after."""

    subject: int
    peer: int
    direction: int
    before: PortSet
    after: PortSet


def side_changes(old: View, new: View, groups: Sequence[Group]) -> Iterator[SideChange]:
    """Every side that differs; ``groups`` are those of both views."""
    per_view = len(groups[0].faces) // 2 if groups else 0
    for subject, group in enumerate(groups):
        for at in range(per_view):
            was, now = group.faces[at], group.faces[at + per_view]
            if was is None or now is None or was.table is None or was.table == now.table:
                continue
            for peer, other in enumerate(groups):
                there = other.faces[at], other.faces[at + per_view]
                if peer == subject and group.alone:
                    continue
                for direction in (INGRESS, EGRESS):
                    before, after = (
                        NO_PORT if face is None else side_ports(view, side, direction, face.names)
                        for view, side, face in ((old, was, there[0]), (new, now, there[1]))
                    )
                    if before != after:
                        yield SideChange(subject, peer, direction, before, after)
