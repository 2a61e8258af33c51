"""Writes to maps, as values: what to put, what to delete; nothing is written here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sixfold.errors import HostError
from sixfold.model.datapath import Datapath
from sixfold.model.endpoint import HOST_ENDPOINT
from sixfold.model.groups import Grouped, grouped
from sixfold.model.layers import differing, flat

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True)
class Changes:
    """Writes by map; keys and values are packed.

    fills     stretches of arrays by map, each with the index where it begins
    room      deletes that must come before puts
    switches  new contents of policy tables that are in use: after all other puts, but for
    joins     the tables of endpoints that come to one of these (``policy_of``)
    """

    puts: dict[str, dict[bytes, bytes]] = field(default_factory=lambda: defaultdict(dict))
    fills: dict[str, list[tuple[int, bytes | bytearray]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    deletes: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    room: dict[str, list[bytes]] = field(default_factory=dict)
    switches: dict[bytes, bytes] = field(default_factory=dict)
    joins: dict[bytes, bytes] = field(default_factory=dict)

    def put(self, name: str, key: bytes, value: bytes) -> None:
        self.puts[name][key] = value

    def fill(self, name: str, indices: Sequence[int], values: bytes | bytearray) -> None:
        """Put the values of an array, one after the other, at these indices, the lowest first."""
        if not indices:
            return
        size = len(values) // len(indices)
        if indices[-1] - indices[0] == len(indices) - 1:
            self.fills[name].append((indices[0], values))
            return
        for at, index in enumerate(indices):
            self.fills[name].append((index, values[at * size : (at + 1) * size]))

    def delete(self, name: str, key: bytes) -> None:
        self.deletes[name].append(key)

    def replace(
        self, name: str, before: Mapping[bytes, bytes], after: Mapping[bytes, bytes]
    ) -> None:
        """Writes for the part of a map that changed owners."""
        for key, value in after.items():
            if before.get(key) != value:
                self.put(name, key, value)
        for key in before:
            if key not in after:
                self.delete(name, key)

    def __len__(self) -> int:
        puts = sum(map(len, self.puts.values())) + len(self.switches) + len(self.joins)
        fills = sum(map(len, self.fills.values()))
        return puts + fills + sum(map(len, self.deletes.values()))


def difference(old: Mapping[K, V], new: Mapping[K, V]) -> tuple[dict[K, V], list[K]]:
    """What to put, and keys that are gone. Cheap where values are the same objects."""
    if not old:
        return flat(new), []
    put, gone = {}, []
    equal: dict[tuple[int, int], bool] = {}  # many have the same two values
    for key in differing(old, new):
        if key not in new:
            gone.append(key)
            continue
        before, after = old.get(key), new[key]
        pair = id(before), id(after)
        if pair not in equal:
            equal[pair] = before == after
        if not equal[pair]:
            put[key] = after
    return put, gone


def repairs(name: str, old: Mapping[K, V], new: Mapping[K, V]) -> list[str]:
    """What differs between what the kernel holds and what it should, in words."""
    put, gone = difference(old, new)
    return [
        *(f"{name}[{key}]: missing or changed; put back" for key in put),
        *(f"{name}[{key}]: nobody asked for it; deleted" for key in gone),
    ]


def may_revoke(before: Datapath, after: Datapath) -> bool:
    """Whether an open connection may have lost what allowed it. Not when pods come or go; but
    the host was there before it had a policy."""
    return (
        (before.ipcache is not after.ipcache and before.ipcache != after.ipcache)
        or before.policies.get(HOST_ENDPOINT) != after.policies.get(HOST_ENDPOINT)
        or before.modes != after.modes
        or _switched(grouped(before.policies), grouped(after.policies))
        or _differs_where_both(before.endpoints, after.endpoints)
    )


def _differs_where_both(old: Mapping[K, V], new: Mapping[K, V]) -> bool:
    return any(key in old and key in new and old[key] != new[key] for key in differing(old, new))


def _switched(old: Grouped[K, V], new: Grouped[K, V]) -> bool:
    """The same of what is grouped: whole groups, or keys that are in another."""
    if old is new:
        return False
    return _differs_where_both(old.value_of, new.value_of) or any(
        key in old and key in new and old[key] != new[key]
        for key in differing(old.group_of, new.group_of)
    )


def map_full(name: str, wanted: int, capacity: int) -> HostError:
    return HostError(
        f"put {name}: map is full: {wanted} entries wanted, {capacity} fit; "
        "nothing was changed; apply less"
    )
