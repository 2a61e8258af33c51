"""Who can reach whom, on what: all pairs, all ports, all addresses.

Pure. The answer is a list of blocks: any source of a block reaches any of its destinations on its
ports. Blocks never overlap. A single pod may stand on both sides: it always reaches itself, and
``pairs_of`` leaves that out. Several views may be asked at once; then a block says what holds in
each (a comparison is two).

Theory of operation. Tables mention few peers, and treat all others alike, by the role that they
have: some pod, some address, the host, its resolver. So pairs in which neither side mentions the
other are not looked at one by one: sources are put into buckets by what they send to each role,
destinations by what they take from each, and buckets are paired. Only pairs that are mentioned
are looked at, and those of which the same is said only once (``reach_classes``), so the cost
follows the rules, not the square of the pods.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import msgspec

from sixfold.model.datapath import EGRESS, INGRESS
from sixfold.model.identity import Identity
from sixfold.policy.reach_classes import Classes, classes
from sixfold.policy.reach_parties import ROLE_NAMES, Face, Group, View, role_of, roles, side_ports
from sixfold.policy.reach_ports import EVERY_PORT, PortSet

Value = tuple[PortSet | None, ...]  # one for each face
Pair = tuple[int, int]  # a class of sources, one of destinations
Plain = tuple[int, tuple[PortSet, ...]]  # its role; what passes with each role, if not named
Bucket = tuple[bool, tuple[Plain | None, ...]]  # unjudged or not; one for each face
SILENT = ("resolver", "name")  # the one answers, and asks nobody here; who asks has an address


class Block(msgspec.Struct, frozen=True):
    """Each source reaches each destination on the same ports; ``ports`` has one for each face."""

    sources: tuple[int, ...]
    destinations: tuple[int, ...]
    ports: Value


def reach(views: Sequence[View], groups: Sequence[Group]) -> list[Block]:
    """All that may flow, as disjoint blocks over indices of ``groups``."""
    survey = _Survey(views, groups)
    explicit = survey.explicit()
    for pair in survey.inside_the_host():
        explicit[pair] = (None,) * survey.faces
    plain = list(survey.plain_blocks(explicit))
    rows = [_without_itself(survey.spelled_out(row), groups) for row in _rows(explicit)]
    blocks = merge([*rows, *map(survey.spelled_out, plain)], groups)
    return [block for block in blocks if next(pairs_of(block, groups), None)]


def pairs_of(block: Block, groups: Sequence[Group]) -> Iterator[Pair]:
    """The pairs of a block, without single pods that talk to themselves."""
    for source in block.sources:
        for destination in block.destinations:
            if source != destination or not groups[source].alone:
                yield source, destination


class _Survey:
    """The groups, indexed by what tables call them, in their classes, and these in buckets."""

    def __init__(self, views: Sequence[View], groups: Sequence[Group]) -> None:
        self.groups = groups
        self.faces = len(groups[0].faces) if groups else 0
        per_view = self.faces // len(views) if groups else 1
        self.views = [views[at // per_view] for at in range(self.faces)]  # of each face
        self.called: list[dict[Identity, list[int]]] = [{} for _ in range(self.faces)]
        for number, group in enumerate(groups):
            for called, face in zip(self.called, group.faces, strict=True):
                for name in face.names if face is not None else ():
                    if name not in ROLE_NAMES:
                        called.setdefault(name, []).append(number)
        self.sources = classes(groups, self.called, EGRESS)
        self.destinations = classes(groups, self.called, INGRESS)
        self.roles = roles(groups)
        self.buckets: list[Bucket] = []
        self._bucket_numbers: dict[Bucket, int] = {}
        self._known: dict[tuple[object, ...], int] = {}  # the number, by ``id`` of rules
        self.sends = self._buckets(self.sources, EGRESS)
        self.takes = self._buckets(self.destinations, INGRESS)
        self._spelled: dict[tuple[bool, tuple[int, ...]], tuple[int, ...]] = {}

    def spelled_out(self, block: Block) -> Block:
        """From classes to groups; who has the same sources has the same object."""
        found = []
        for at, side in enumerate((self.sources, self.destinations)):
            some = (block.sources, block.destinations)[at]
            if (known := self._spelled.get((bool(at), some))) is None:
                known = self._spelled[bool(at), some] = side.groups(some)
            found.append(known)
        return Block(found[0], found[1], block.ports)

    def _buckets(self, side: Classes, direction: int) -> list[int]:
        """Of each class."""
        found = [self._bucket(side.members[one][0], direction) for one in side.originals]
        for one, copies in side.copies.items():
            found += [found[one]] * len(copies)
        return found

    def _bucket(self, number: int, direction: int) -> int:
        """That of a group; looked up once for all of whose roles the same rules speak."""
        group = self.groups[number]
        said: list[object] = [group.unjudged]
        for face, peers in zip(group.faces, self.roles, strict=True):
            said.append(face and role_of(group, face))
            if face is not None and face.table is not None:
                main, admin = face.table.main[direction].peers, face.table.admin[direction].peers
                said += map(id, map(main.get, peers.names))
                if admin:
                    said += map(id, map(admin.get, peers.names))
        key = tuple(said)
        if (found := self._known.get(key)) is None:
            bucket = group.unjudged, tuple(self._plain(group, direction))
            found = self._known[key] = self._bucket_numbers.setdefault(bucket, len(self.buckets))
            if found == len(self.buckets):
                self.buckets.append(bucket)
        return found

    def _plain(self, group: Group, direction: int) -> Iterator[Plain | None]:
        """One for each face."""
        for face, view, peers in zip(group.faces, self.views, self.roles, strict=True):
            if face is None:
                yield None
            elif face.table is None:
                yield role_of(group, face), (EVERY_PORT,) * len(peers.each)
            else:
                ports = [view.ports(face.table, direction, names) for names in peers.each]
                yield role_of(group, face), tuple(ports)

    def explicit(self) -> dict[Pair, Value]:
        """Pairs of which one side's table says something particular about the other."""
        found: dict[Pair, Value] = {}
        for source in self.sources.originals:
            for destination in self._mentioned(self.sources, source, self.destinations, EGRESS):
                if not self._is_shut(destination, source, INGRESS):
                    self._look_at((source, destination), found)
        for destination in self.destinations.originals:
            for source in self._mentioned(self.destinations, destination, self.sources, INGRESS):
                if not self._is_shut(source, destination, EGRESS):
                    self._look_at((source, destination), found)
        return found | self._copies(found)

    def _mentioned(self, mine: Classes, one: int, others: Classes, direction: int) -> set[int]:
        """Classes of whom the own rules of a class say something particular."""
        return {
            others.of[peer]
            for at, face in enumerate(self.groups[mine.members[one][0]].faces)
            if face is not None and face.table is not None
            for name in self.views[at].mentioned(face.table, direction)
            for peer in self.called[at].get(name, ())
        }

    def _copies(self, found: dict[Pair, Value]) -> dict[Pair, Value]:
        """The same pairs in namespaces that are like a first one: pairs inside it, for nobody else
        is mentioned there."""
        into, out = self.destinations.copies, self.sources.copies
        return {
            pair: value
            for (source, destination), value in found.items()
            if source in out and destination in into
            for pair in zip(out[source], into[destination], strict=True)
        }

    def inside_the_host(self) -> Iterator[Pair]:
        """From the host to its resolver: that never meets policy."""
        hosts, resolvers = (
            [side.of[number] for number, group in enumerate(self.groups) if group.kind == kind]
            for side, kind in ((self.sources, "host"), (self.destinations, "resolver"))
        )
        return product(hosts, resolvers)

    def _is_shut(self, subject: int, peer: int, direction: int) -> bool:
        """Whether a class passes nothing with another's role, and has no word for itself either."""
        if direction == INGRESS:
            number, other = self.destinations.members[subject][0], self.sources.members[peer][0]
            bucket = self.buckets[self.takes[subject]]
        else:
            number, other = self.sources.members[subject][0], self.destinations.members[peer][0]
            bucket = self.buckets[self.sends[subject]]
        group = self.groups[other]
        faces = zip(self.groups[number].faces, group.faces, bucket[1], strict=True)
        for mine, its, plain in faces:
            if mine is None or its is None or plain is None:
                continue
            if mine.table is None or plain[1][role_of(group, its)]:
                return False
            main, admin = mine.table.main[direction].peers, mine.table.admin[direction].peers
            if admin or not main.keys().isdisjoint(its.names):
                return False
        return True

    def _counts(self, pair: Pair) -> bool:
        """Whether policy has a say at all, and the two are two."""
        sources, destinations = (
            self.sources.members[pair[0]],
            self.destinations.members[pair[1]],
        )
        source, destination = self.groups[sources[0]], self.groups[destinations[0]]
        if (source.unjudged and destination.unjudged) or source.kind in SILENT:
            return False
        return len(sources) > 1 or sources != destinations or not source.alone

    def _look_at(self, pair: Pair, found: dict[Pair, Value]) -> None:
        if pair not in found and self._counts(pair):
            source = self.groups[self.sources.members[pair[0]][0]]
            destination = self.groups[self.destinations.members[pair[1]][0]]
            found[pair] = tuple(
                [
                    None if out is None or into is None else _flow(view, out, into)
                    for view, out, into in zip(
                        self.views, source.faces, destination.faces, strict=True
                    )
                ]
            )

    def plain_blocks(self, explicit: dict[Pair, Value]) -> Iterator[Block]:
        """Pairs that no table mentions; explicit ones that come to the same are taken back in."""
        senders, takers = _grouped(self.sends), _grouped(self.takes)
        by_buckets: defaultdict[Pair, list[Pair]] = defaultdict(list)
        for source, destination in explicit:
            by_buckets[self.sends[source], self.takes[destination]].append((source, destination))
        for sends, sources in senders.items():
            for takes, destinations in takers.items():
                sender, taker = self.buckets[sends], self.buckets[takes]
                if sender[0] and taker[0]:
                    continue
                ports = tuple(map(_meet, sender[1], taker[1]))
                if not any(ports):
                    continue
                without: defaultdict[int, set[int]] = defaultdict(set)
                for pair in by_buckets.get((sends, takes), ()):
                    if explicit[pair] == ports:
                        del explicit[pair]
                    else:
                        without[pair[0]].add(pair[1])
                same: defaultdict[frozenset[int], list[int]] = defaultdict(list)
                for source in sources:
                    if self.groups[self.sources.members[source][0]].kind not in SILENT:
                        same[frozenset(without.get(source, ()))].append(source)
                for left_out, members in same.items():
                    rest = tuple([one for one in destinations if one not in left_out])
                    yield Block(tuple(members), rest, ports)


def _meet(sender: Plain | None, taker: Plain | None) -> PortSet | None:
    """What passes between two that do not mention each other."""
    if sender is None or taker is None:
        return None
    return sender[1][taker[0]] & taker[1][sender[0]]


def _flow(view: View, out: Face, into: Face) -> PortSet:
    """What both sides let pass."""
    if out.table is None:
        return side_ports(view, into, INGRESS, out.names)
    sent = view.ports(out.table, EGRESS, into.names)
    return sent if into.table is None else sent & view.ports(into.table, INGRESS, out.names)


def _grouped(buckets: Sequence[int]) -> dict[int, list[int]]:
    found: defaultdict[int, list[int]] = defaultdict(list)
    for number, bucket in enumerate(buckets):
        found[bucket].append(number)
    return found


def _rows(explicit: dict[Pair, Value]) -> Iterator[Block]:
    """Explicit pairs, those of one source with the same ports together."""
    rows: defaultdict[tuple[int, Value], list[int]] = defaultdict(list)
    for (source, destination), ports in explicit.items():
        if any(ports):
            rows[source, ports].append(destination)
    for (source, ports), destinations in rows.items():
        yield Block((source,), tuple(destinations), ports)


def _without_itself(row: Block, groups: Sequence[Group]) -> Block:
    """A single pod's row does not end at that pod, whatever rules say."""
    source = row.sources[0]
    if len(row.sources) > 1 or not groups[source].alone or source not in row.destinations:
        return row
    others = tuple([one for one in row.destinations if one != source])
    return Block(row.sources, others, row.ports)


def merge(blocks: Iterable[Block], groups: Sequence[Group]) -> list[Block]:
    """Blocks with the same destinations and ports become one; then those with the same sources."""
    by_row: defaultdict[tuple[frozenset[int], Value], set[int]] = defaultdict(set)
    for block in _cliques(blocks, groups):
        by_row[frozenset(block.destinations), block.ports].update(block.sources)
    by_column: defaultdict[tuple[frozenset[int], Value], set[int]] = defaultdict(set)
    for (destinations, ports), sources in by_row.items():
        by_column[frozenset(sources), ports].update(destinations)
    found = [
        Block(tuple(sorted(sources)), tuple(sorted(destinations)), ports)
        for (sources, ports), destinations in by_column.items()
    ]
    return sorted(found, key=lambda block: (block.sources, block.destinations))


def _cliques(blocks: Iterable[Block], groups: Sequence[Group]) -> Iterator[Block]:
    """Rows of single pods that differ only in leaving out themselves become one block."""
    closed: defaultdict[tuple[frozenset[int], Value], list[Block]] = defaultdict(list)
    for block in blocks:
        sources, destinations = block.sources, block.destinations
        if len(sources) == 1 and groups[sources[0]].alone:
            closed[frozenset((*sources, *destinations)), block.ports].append(block)
        elif (
            1 < len(sources) <= len(destinations)
            and all(groups[one].alone for one in sources)
            and (members := frozenset(destinations)).issuperset(sources)
        ):  # they leave out themselves, too
            closed[members, block.ports].append(block)
        else:
            yield block
    for (members, ports), rows in closed.items():
        single = [row for row in rows if len(row.sources) == 1]
        if len(rows) > 1 and all(row.sources[0] not in row.destinations for row in single):
            sources_ = {source for row in rows for source in row.sources}
            yield Block(tuple(sources_), tuple(members), ports)
        else:
            yield from rows
