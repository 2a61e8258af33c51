"""Which groups are the same as one end of a flow? They are looked at once.

Pure. As a source a group is what its own rules say that leave, and what the rules of others that
enter say of it; as a destination, the other way round. Ten thousand pods with a label each of its
own are ten thousand groups; where the same rules select and name them all, they are one source
and one destination. What is found for a namespace holds in those that are like it, group by group
(``Group.like``): their classes are copies of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sixfold.model.identity import Identity
from sixfold.policy.reach_parties import Face, Group, role_of

Called = Sequence[Mapping[Identity, Sequence[int]]]  # by face: groups by name


class Classes(NamedTuple):
    """The groups as sources, or as destinations.

    members  groups of each class; the first stands for all
    of       the class of each group
    copies   of a class: those like it in other namespaces, these in the same order for all
    """

    members: list[tuple[int, ...]]
    of: list[int]
    copies: dict[int, Sequence[int]]

    @property
    def originals(self) -> range:
        """Those that are no copies; they come first."""
        return range(len(self.members) - sum(map(len, self.copies.values())))

    def groups(self, classes: Sequence[int]) -> tuple[int, ...]:
        """All groups of some classes."""
        return tuple([number for one in classes for number in self.members[one]])


def classes(groups: Sequence[Group], called: Called, direction: int) -> Classes:
    """``direction``: of the groups' own rules, so egress is for sources."""
    followers: defaultdict[int, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        if group.like is not None:
            followers[group.like].append(number)
    said = _said(groups, called, 1 - direction)
    found: defaultdict[object, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        if group.like is not None:
            continue
        key: object = number
        if group.kind == "workloads":
            home = group.members[0].partition("/")[0] if number in followers else ""
            own = tuple([_own(group, face, direction) for face in group.faces])
            key = said[number], own, group.alone, home
        found[key].append(number)
    members = list(map(tuple, found.values()))
    copies: dict[int, Sequence[int]] = {}
    for at, some in enumerate(found.values()):
        if some[0] in followers:
            there = list(zip(*[followers[number] for number in some], strict=True))
            copies[at] = range(len(members), len(members) + len(there))
            members += there
    of = [0] * len(groups)
    for at, numbers in enumerate(members):
        for number in numbers:
            of[number] = at
    return Classes(members, of, copies)


def _own(group: Group, face: Face | None, direction: int) -> tuple[int, ...]:
    """Its role, and its own rules by ``id``."""
    if face is None:
        return ()
    if face.table is None:
        return (role_of(group, face),)
    return role_of(group, face), id(face.table.main[direction]), id(face.table.admin[direction])


def _said(groups: Sequence[Group], called: Called, direction: int) -> list[int]:
    """A number for each group: the same for those of which all rules of this direction say the
    same."""
    said = [0] * len(groups)
    known: dict[tuple[int, ...], int] = {}  # what was said before, and one more word
    for at, named in enumerate(called):
        seen = [group.faces[at] for group in groups if group.like is None]
        tables = {id(face.table): face.table for face in seen if face is not None and face.table}
        sections = {
            id(tier[direction]): tier[direction]
            for table in tables.values()
            for tier in (table.main, table.admin)
        }
        for section in sections.values():
            for name, rules in section.peers.items():
                for number in named.get(name, ()):
                    word = said[number], at, id(section), id(rules)
                    said[number] = known.setdefault(word, len(known) + 1)
    return said
