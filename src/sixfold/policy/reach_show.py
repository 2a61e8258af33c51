"""Reach in words: names of groups, rows of a table, edges of a graph.

Pure. Pods of one workload go by the workload's name when they are all alike; all workloads of a
namespace by ``ns/*``; addresses by the fewest CIDRs, with exceptions where that is shorter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, summarize_address_range

from sixfold.model.endpoint import Endpoint
from sixfold.model.layers import flat
from sixfold.policy.block import BITS
from sixfold.policy.reach import Block, Value, pairs_of, reach
from sixfold.policy.reach_parties import VERSIONS, Group, Range, View, parties
from sixfold.policy.reach_ports import PortSet
from sixfold.policy.uncollected import uncollected

WORLD_NAME = "world"
Seen = tuple[View, Mapping[str, Endpoint]]  # and its endpoints


@dataclass(frozen=True, slots=True)
class Row:
    """Any source reaches any destination on these ports; ``family`` "" means both IP versions."""

    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    family: str
    ports: PortSet


@dataclass(frozen=True, slots=True)
class Edge:
    """One pair of a row."""

    source: str
    destination: str
    family: str
    ports: PortSet


class Reach:
    """Everything that one world allows, ready to be shown.

    namespace  leave out what has neither side there
    """

    def __init__(self, view: View, namespace: str | None = None) -> None:
        with uncollected():
            self.groups = parties([view])
            self.blocks = reach([view], self.groups)
            self.names = Names([view], self.groups)
        if namespace is not None:
            here = {
                number
                for number, group in enumerate(self.groups)
                if any(view.world.endpoints[key].namespace == namespace for key in group.members)
            }
            self.blocks = [part for block in self.blocks for part in _touching(block, here)]

    def rows(self, *, compact: bool = True) -> list[Row]:
        """Blocks in words, sorted; not ``compact``: every workload by its own name."""
        named = self.names.of if compact else self.names.all_of
        return sorted(
            (
                Row(named(block.sources), named(block.destinations), *ports)
                for block in self.blocks
                for ports in families(block.ports)
            ),
            key=lambda row: (row.sources, row.destinations),
        )

    def edges(self) -> Iterator[Edge]:
        """Pair by pair, one name each."""
        for block in self.blocks:
            for ports in families(block.ports):
                for source, destination in self._pairs(block):
                    yield Edge(source, destination, *ports)

    def _pairs(self, block: Block) -> Iterator[tuple[str, str]]:
        for source, destination in pairs_of(block, self.groups):
            group = self.groups[source]
            for one in self.names.each(source):
                for other in self.names.each(destination):
                    if source != destination or one != other or self.names.is_many(group, one):
                        yield one, other


def _touching(block: Block, here: set[int]) -> Iterator[Block]:
    """The pairs of a block with a side among some groups."""
    inside = tuple(one for one in block.sources if one in here)
    outside = tuple(one for one in block.sources if one not in here)
    targets = tuple(one for one in block.destinations if one in here)
    if inside:
        yield Block(inside, block.destinations, block.ports)
    if outside and targets:
        yield Block(outside, targets, block.ports)


def families(value: Value) -> list[tuple[str, PortSet]]:
    """What to say of each IP version: once for both where they agree, or where only one can be."""
    known = [(f"IPv{v}", ports) for v, ports in zip(VERSIONS, value, strict=False) if ports]
    possible = [ports for ports in value if ports is not None]
    if len(set(possible)) == 1:
        return [("", possible[0])] if possible[0] else []
    return known


class Names:
    """What groups are called."""

    def __init__(self, views: Sequence[View], groups: Sequence[Group]) -> None:
        self._groups = groups
        self._many: set[str] = set()
        seen = [(view, flat(view.world.endpoints)) for view in views]
        self._controlled = {
            key
            for _, endpoints in seen
            for key, one in endpoints.items()
            if not one.workload.startswith("Pod/")
        }
        self._each = [self._members(seen, group) for group in groups]

    @cached_property
    def _everyone(self) -> set[str]:
        """All workloads."""
        named = zip(self._each, self._groups, strict=True)
        return {name for names, group in named if group.kind == "workloads" for name in names}

    @cached_property
    def _workloads(self) -> Mapping[str, set[str]]:
        """The same, by namespace."""
        return _by_namespace(self._everyone)

    def each(self, number: int) -> tuple[str, ...]:
        """All names of one group."""
        return self._each[number]

    def is_many(self, group: Group, name: str) -> bool:
        """Whether a name stands for several parties, so that it may reach others of its name."""
        return not group.alone and (name in self._many or group.kind in ("world", "name"))

    def all_of(self, numbers: Iterable[int]) -> tuple[str, ...]:
        """Every name of a set of groups."""
        return tuple(sorted({name for number in numbers for name in self._each[number]}))

    def of(self, numbers: Iterable[int]) -> tuple[str, ...]:
        """A set of groups, in few words: workloads, then the node, then the world."""
        workloads: set[str] = set()
        others: list[Group] = []
        for number in numbers:
            if (group := self._groups[number]).kind == "workloads":
                workloads.update(self._each[number])
            else:
                others.append(group)
        kinds = [kind for kind in ("host", "resolver") if any(kind == g.kind for g in others)]
        ranges = [one for group in others if group.kind == "world" for one in group.ranges]
        shown = addresses(ranges)
        patterns = sorted({group.pattern for group in others if group.pattern})
        if shown == [WORLD_NAME]:  # wherever the names are, it is part of that
            patterns = []
        return (*self._compact(workloads), *kinds, *patterns, *shown)

    def _compact(self, names: set[str]) -> list[str]:
        if len(names) == len(self._everyone) > 1:
            return ["all workloads"]
        found: list[str] = []
        for namespace, some in sorted(_by_namespace(names).items()):
            whole = len(some) > 1 and some == self._workloads[namespace]
            found += [f"{namespace}/*"] if whole else sorted(some)
        return found

    def _members(self, views: Sequence[Seen], group: Group) -> tuple[str, ...]:
        if group.kind == "world":
            return tuple(addresses(group.ranges))
        if group.outside:
            return (group.pattern or group.kind,)
        if self._controlled.isdisjoint(group.members):  # each goes by its own name
            if not group.alone:
                self._many.update(group.members)
            return group.members
        members = set(group.members)
        found = set()
        for key in group.members:
            name, siblings = _workload(views, key)
            if siblings is None:  # one pod
                found.add(name)
                if not group.alone:
                    self._many.add(name)
                continue
            whole = siblings <= members
            found.add(name if whole else key)
            if whole and (len(siblings) > 1 or not group.alone):
                self._many.add(name)
        return tuple(sorted(found))


def _by_namespace(names: Iterable[str]) -> Mapping[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name in names:
        found[name.partition("/")[0]].add(name)
    return found


def _workload(views: Sequence[Seen], key: str) -> tuple[str, frozenset[str] | None]:
    """The name of a pod's workload, and all pods that it has here; None: it is one pod."""
    for view, endpoints in views:
        endpoint = endpoints.get(key)
        if endpoint is not None and endpoint.workload.startswith("Pod/"):
            return key, None  # the name of one pod, whatever else has it
        if endpoint is not None and not endpoint.is_template:
            siblings = view.siblings(endpoint)
            name = f"{endpoint.namespace}/{endpoint.workload.partition('/')[2]}"
            return (name if view.is_unique(name) else key), siblings
    return key, None


def addresses(ranges: Iterable[Range]) -> list[str]:
    """Ranges of addresses as CIDRs; "world" is all there are."""
    ranges = list(ranges)
    if not ranges:
        return []
    merged = {version: _merge(ranges, version) for version in VERSIONS}
    if all(merged[version] == [(0, (1 << BITS[version]) - 1)] for version in VERSIONS):
        return [WORLD_NAME]
    return [text for version in VERSIONS for text in _family(version, merged[version])]


def _family(version: int, spans: list[tuple[int, int]]) -> list[str]:
    """The fewest CIDRs; or the smallest one around all of them, with exceptions."""
    inside = _cidrs(version, spans)
    if len(inside) <= 1:
        return inside
    first, last = spans[0][0], spans[-1][1]
    host_bits = (first ^ last).bit_length()
    start = first >> host_bits << host_bits
    bounds = [start - 1, *(bound for span in spans for bound in span), start + (1 << host_bits)]
    gaps = [
        (before + 1, after - 1)
        for before, after in zip(bounds[::2], bounds[1::2], strict=True)
        if before + 1 <= after - 1
    ]
    outside = _cidrs(version, gaps)
    if len(outside) >= len(inside):
        return inside
    around = _cidrs(version, [(start, start + (1 << host_bits) - 1)])[0]
    return [f"{around} except {', '.join(outside)}"]


def _cidrs(version: int, spans: Iterable[tuple[int, int]]) -> list[str]:
    make = IPv4Address if version == 4 else IPv6Address
    return [
        str(network)
        for first, last in spans
        for network in summarize_address_range(make(first), make(last))
    ]


def _merge(ranges: Iterable[Range], version: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for _, first, last in sorted(one for one in ranges if one[0] == version):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found
