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
from dataclasses import dataclass

from sixfold.model.datapath import EGRESS, INGRESS
from sixfold.model.identity import ANY_POD, UNKNOWN, Identity
from sixfold.policy.reach_parties import GENERAL, Face, Group, View, flow_ports, side_ports
from sixfold.policy.reach_ports import PortSet

Value = tuple[PortSet | None, ...]  # one for each face
Pair = tuple[int, int]  # indices of groups: source, destination
Plain = tuple[bool, PortSet, PortSet]  # is a pod; what passes with any pod, and with anything else
Bucket = tuple[bool, tuple[Plain | None, ...]]  # unjudged or not; one for each face
ANY_PEER_NAMES = (UNKNOWN,)
SILENT = ("resolver", "name")  # the one answers, and asks nobody here; who asks has an address
ANY_POD_NAMES = (ANY_POD, UNKNOWN)


@dataclass(frozen=True, slots=True)
class Block:
    """Each source reaches each destination on the same ports; ``ports`` has one for each face."""

    sources: tuple[int, ...]
    destinations: tuple[int, ...]
    ports: Value


def reach(views: Sequence[View], groups: Sequence[Group]) -> list[Block]:
    """All that may flow, as disjoint blocks over indices of ``groups``."""
    survey = _Survey(views, groups)
    explicit: dict[Pair, Value] = {}
    for pair in survey.mentioned_pairs():
        if survey.counts(pair):
            explicit[pair] = flow_ports(views, groups[pair[0]], groups[pair[1]])
    for pair in survey.inside_the_host():
        explicit[pair] = (None,) * survey.per_view * len(views)
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
        self.views, self.groups = views, groups
        self.per_view = len(groups[0].faces) // len(views) if groups else 1
        self.called: list[defaultdict[Identity, list[int]]] = []
        for at in range(self.per_view * len(views)):
            called: defaultdict[Identity, list[int]] = defaultdict(list)
            for number, group in enumerate(groups):
                face = group.faces[at]
                for name in face.names if face is not None else ():
                    if name not in GENERAL:
                        called[name].append(number)
            self.called.append(called)
        self.sends = [self._bucket(group, EGRESS) for group in groups]
        self.takes = [self._bucket(group, INGRESS) for group in groups]

    def _bucket(self, group: Group, direction: int) -> Bucket:
        return group.unjudged, tuple(
            None
            if face is None
            else (
                face.is_pod,
                side_ports(self.view(at), face, direction, ANY_POD_NAMES),
                side_ports(self.view(at), face, direction, ANY_PEER_NAMES),
            )
            for at, face in enumerate(group.faces)
        )

    def view(self, face: int) -> View:
        return self.views[face // self.per_view]

    def mentioned_pairs(self) -> set[Pair]:
        """Pairs of which one side's table says something particular about the other."""
        found: set[Pair] = set()
        for number, group in enumerate(self.groups):
            for at, face in enumerate(group.faces):
                if face is None or face.table is None:
                    continue
                found.update((number, peer) for peer in self._peers(at, face, EGRESS))
                found.update((peer, number) for peer in self._peers(at, face, INGRESS))
        return found

    def _peers(self, at: int, face: Face, direction: int) -> Iterator[int]:
        assert face.table is not None
        for name in self.view(at).mentioned(face.table, direction):
            yield from self.called[at].get(name, ())

    def inside_the_host(self) -> Iterator[Pair]:
        """From the host to its resolver: that never meets policy."""
        for source, group in enumerate(self.groups):
            for destination, other in enumerate(self.groups):
                if group.kind == "host" and other.kind == "resolver":
                    yield source, destination

    def counts(self, pair: Pair) -> bool:
        """Whether policy has a say at all, and the two are two."""
        source, destination = self.groups[pair[0]], self.groups[pair[1]]
        if source.unjudged and destination.unjudged:
            return False
        if source.kind in SILENT:
            return False
        return not (source is destination and source.alone)

    def plain_blocks(self, explicit: dict[Pair, Value]) -> Iterator[Block]:
        """Pairs that no table mentions; explicit ones that come to the same are taken back in."""
        senders, takers = _grouped(self.sends), _grouped(self.takes)
        by_buckets: defaultdict[tuple[Bucket, Bucket], list[Pair]] = defaultdict(list)
        for source, destination in explicit:
            by_buckets[self.sends[source], self.takes[destination]].append((source, destination))
        for sends, sources in senders.items():
            for takes, destinations in takers.items():
                if sends[0] and takes[0]:
                    continue
                ports = tuple(map(_meet, sends[1], takes[1]))
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


def _grouped(buckets: Sequence[Bucket]) -> dict[Bucket, list[int]]:
    found: defaultdict[Bucket, list[int]] = defaultdict(list)
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
