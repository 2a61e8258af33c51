"""Frozen mappings in which many keys have one value, and get the next one together.

Ten thousand pods of one kind have one policy table. When it changes, what changed is one thing,
not ten thousand; so a key has a group, and a group has a value, and both are ``Layers``.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, TypeVar, overload

from sixfold.model.layers import ABSENT, Layers, differing

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
V_co = TypeVar("V_co", covariant=True)


class Grouped(Mapping[K, V_co]):
    """A mapping that never changes. Every group of ``group_of`` is in ``value_of``.

    A group is whatever can be a key; what it is matters to nobody but who made it.
    """

    __slots__ = ("group_of", "value_of")

    def __init__(
        self,
        group_of: Layers[K, Hashable] | None = None,
        value_of: Layers[Hashable, V_co] | None = None,
    ) -> None:
        self.group_of: Layers[K, Hashable] = Layers() if group_of is None else group_of
        self.value_of: Layers[Hashable, V_co] = Layers() if value_of is None else value_of

    def __getitem__(self, key: K) -> V_co:
        return self.value_of[self.group_of[key]]

    @overload
    def get(self, key: K) -> V_co | None: ...
    @overload
    def get(self, key: K, default: V_co | T) -> V_co | T: ...
    def get(self, key: K, default: Any = None) -> Any:
        group: Any = self.group_of.get(key, ABSENT)
        return default if group is ABSENT else self.value_of[group]

    def __contains__(self, key: object) -> bool:
        return key in self.group_of

    def __len__(self) -> int:
        return len(self.group_of)

    def __iter__(self) -> Iterator[K]:
        return iter(self.group_of)

    def __repr__(self) -> str:
        return f"Grouped({dict(self)!r})"


def grouped(mapping: Mapping[K, V]) -> Grouped[K, V]:
    """The mapping as it is now; the groups of a plain one are its values."""
    if isinstance(mapping, Grouped):
        return mapping
    return Grouped(Layers(mapping), Layers({value: value for value in mapping.values()}))


def differing_groups(old: Grouped[K, V], new: Grouped[K, V]) -> set[K]:
    """Keys whose values are not the same objects, whose groups are others, or that are in one only.

    Costs what ``differing`` costs for groups, and a look at each key when one has another value.
    """
    found = differing(old.group_of, new.group_of)
    changed = differing(old.value_of, new.value_of)
    if changed:
        found.update(key for key, group in new.group_of.items() if group in changed)
    return found
