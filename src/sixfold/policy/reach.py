"""Who can reach whom, on what: all pairs, all ports, all addresses.

Pure. The answer is a list of blocks: any source of a block reaches any of its destinations on its
ports. Blocks never overlap. A single pod may stand on both sides: it always reaches itself, and
``pairs_of`` leaves that out. Several views may be asked at once; then a block says what holds in
each (a comparison is two).

Theory of operation. Tables mention few peers, and treat all others alike. So pairs in which
neither side mentions the other are not looked at one by one: sources are put into buckets by what
they send to anybody, destinations by what they take from anybody, and buckets are paired. Only
pairs that are mentioned are looked at, so the cost follows the rules, not the square of the pods.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import msgspec

from sixfold.model.datapath import EGRESS, INGRESS
from sixfold.model.identity import Identity
from sixfold.policy.reach_parties import GENERAL, Face, Group, View, side_ports
from sixfold.policy.reach_ports import EVERY_PORT, PortSet

Value = tuple[PortSet | None, ...]  # one for each face
Pair = tuple[int, int]  # indices of groups: source, destination
Plain = tuple[bool, PortSet, PortSet]  # is a pod; what passes with any pod, and with anything else
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
    blocks = merge([*_rows(explicit), *plain], groups)
    return [block for block in blocks if next(pairs_of(block, groups), None)]


def pairs_of(block: Block, groups: Sequence[Group]) -> Iterator[Pair]:
    """The pairs of a block, without single pods that talk to themselves."""
    for source in block.sources:
        for destination in block.destinations:
            if source != destination or not groups[source].alone:
                yield source, destination


class _Survey:
    """The groups, indexed by what tables call them, and in their buckets."""

    def __init__(self, views: Sequence[View], groups: Sequence[Group]) -> None:
        self.groups = groups
        self.faces = len(groups[0].faces) if groups else 0
        per_view = self.faces // len(views) if groups else 1
        self.views = [views[at // per_view] for at in range(self.faces)]  # of each face
        self.called: list[dict[Identity, list[int]]] = [{} for _ in range(self.faces)]
        for number, group in enumerate(groups):
            for called, face in zip(self.called, group.faces, strict=True):
                for name in face.names if face is not None else ():
                    if name not in GENERAL:
                        called.setdefault(name, []).append(number)
        self.unjudged = [group.unjudged for group in groups]
        self.buckets: list[Bucket] = []
        self._bucket_numbers: dict[Bucket, int] = {}
        self.sends = [self._bucket(group, EGRESS) for group in groups]
        self.takes = [self._bucket(group, INGRESS) for group in groups]
        # Buckets of those that pass nothing unless they name the other.
        self.shut = {
            number for number, (_, one) in enumerate(self.buckets) if not any(map(_open, one))
        }

    def _bucket(self, group: Group, direction: int) -> int:
        """Its number."""
        bucket = (
            group.unjudged,
            tuple(
                [
                    None if face is None else self._plain(at, face, direction)
                    for at, face in enumerate(group.faces)
                ]
            ),
        )
        if (number := self._bucket_numbers.get(bucket)) is None:
            number = self._bucket_numbers[bucket] = len(self.buckets)
            self.buckets.append(bucket)
        return number

    def _plain(self, at: int, face: Face, direction: int) -> Plain:
        if face.table is None:
            return face.is_pod, EVERY_PORT, EVERY_PORT
        return (face.is_pod, *self.views[at].general(face.table, direction))

    def explicit(self) -> dict[Pair, Value]:
        """Pairs of which one side's table says something particular about the other."""
        found: dict[Pair, Value] = {}
        for number, group in enumerate(self.groups):
            for at, face in enumerate(group.faces):
                if face is None or face.table is None:
                    continue
                for peer in self._peers(at, face, EGRESS):
                    if not self._is_shut(peer, number, INGRESS):
                        self._look_at((number, peer), found)
                for peer in self._peers(at, face, INGRESS):
                    if not self._is_shut(peer, number, EGRESS):
                        self._look_at((peer, number), found)
        return found

    def _peers(self, at: int, face: Face, direction: int) -> Iterator[int]:
        called = self.called[at]
        assert face.table is not None
        for name in self.views[at].mentioned(face.table, direction):
            yield from called.get(name, ())

    def inside_the_host(self) -> Iterator[Pair]:
        """From the host to its resolver: that never meets policy."""
        hosts, resolvers = (
            [number for number, group in enumerate(self.groups) if group.kind == kind]
            for kind in ("host", "resolver")
        )
        return product(hosts, resolvers)

    def _is_shut(self, subject: int, peer: int, direction: int) -> bool:
        """Whether a group passes nothing, and has no word for the other either."""
        if (self.takes if direction == INGRESS else self.sends)[subject] not in self.shut:
            return False
        for mine, its in zip(self.groups[subject].faces, self.groups[peer].faces, strict=True):
            if mine is not None and its is not None and mine.table is not None:
                main, admin = mine.table.main[direction].peers, mine.table.admin[direction].peers
                if admin or not main.keys().isdisjoint(its.names):
                    return False
        return True

    def _counts(self, pair: Pair) -> bool:
        """Whether policy has a say at all, and the two are two."""
        source, destination = pair
        if self.unjudged[source] and self.unjudged[destination]:
            return False
        if self.groups[source].kind in SILENT:
            return False
        return source != destination or not self.groups[source].alone

    def _look_at(self, pair: Pair, found: dict[Pair, Value]) -> None:
        source, destination = self.groups[pair[0]], self.groups[pair[1]]
        if pair not in found and self._counts(pair):
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
                    if self.groups[source].kind not in SILENT:
                        same[frozenset(without.get(source, ()))].append(source)
                for left_out, members in same.items():
                    rest = tuple(one for one in destinations if one not in left_out)
                    yield Block(tuple(members), rest, ports)


def _meet(sender: Plain | None, taker: Plain | None) -> PortSet | None:
    """What passes between two that do not mention each other."""
    if sender is None or taker is None:
        return None
    out = sender[1] if taker[0] else sender[2]
    return out & (taker[1] if sender[0] else taker[2])


def _flow(view: View, out: Face, into: Face) -> PortSet:
    """What both sides let pass."""
    if out.table is None:
        return side_ports(view, into, INGRESS, out.names)
    sent = view.ports(out.table, EGRESS, into.names)
    return sent if into.table is None else sent & view.ports(into.table, INGRESS, out.names)


def _open(plain: Plain | None) -> bool:
    """Whether anything passes with somebody whom nobody mentions."""
    return plain is not None and bool(plain[1] or plain[2])


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
        if len(block.sources) == 1 and groups[block.sources[0]].alone:
            closed[frozenset((*block.sources, *block.destinations)), block.ports].append(block)
        else:
            yield block
    for (members, ports), rows in closed.items():
        sources = {row.sources[0] for row in rows}
        if len(rows) > 1 and all(row.sources[0] not in row.destinations for row in rows):
            yield Block(tuple(sources), tuple(members), ports)
        else:
            yield from rows
