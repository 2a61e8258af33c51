"""Frozen mappings that share with the one before all that did not change.

A world of 100,000 pods is a mapping of 100,000 items; when one pod comes, making the next mapping
and finding what differs must not cost 100,000 steps. A ``Layers`` is a base that many share, and
a few changes on top; two of one base differ at most in their changes, and one and the next in what
was changed just then.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from operator import is_
from typing import Any, Final, TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
V_co = TypeVar("V_co", covariant=True)

ABSENT: Final[Any] = object()
CHANGES_MIN, CHANGES_PART = 64, 64  # on top: a 64th of the base, and 64 in any case


class Layers(Mapping[K, V_co]):
    """A mapping that never changes; ``changed`` makes the next one."""

    __slots__ = ("_base", "_made_of", "_size", "_step", "_top")

    def __init__(self, base: Mapping[K, V_co] | None = None) -> None:
        self._base: dict[K, V_co] = {} if base is None else dict(base)
        self._top: dict[K, V_co] = {}  # ABSENT: gone
        self._size = len(self._base)
        # When it was made by merging: the base and the changes, so that what differs is known.
        self._made_of: tuple[dict[K, V_co], dict[K, V_co]] | None = None
        # Base and changes of the one that this was made from, and what was changed then.
        self._step: tuple[dict[K, V_co], dict[K, V_co], dict[K, V_co]] | None = None

    def changed(self, puts: Mapping[K, V_co], gone: Iterable[K] = ()) -> Layers[K, V_co]:
        """The same with these items put, and those gone. Costs what changes, mostly."""
        gone = dict.fromkeys(gone, ABSENT)
        if not puts and not gone:
            return self
        if not self._size and not gone:
            return Layers(puts)
        step = {**puts, **gone}
        top = {**self._top, **step} if self._top else step
        found: Layers[K, V_co] = Layers()
        found._step = self._base, self._top, step
        if len(top) > CHANGES_MIN and len(top) > len(self._base) // CHANGES_PART:
            found._base = _merged(self._base, top)
            found._size = len(found._base)
            found._made_of = self._base, top
            return found
        found._base, found._top = self._base, top
        found._size = self._size + sum(
            (value is not ABSENT) - (key in self) for key, value in step.items()
        )
        return found

    def __getitem__(self, key: K) -> V_co:
        found: V_co = self._top[key] if key in self._top else self._base[key]
        if found is ABSENT:
            raise KeyError(key)
        return found

    @overload
    def get(self, key: K) -> V_co | None: ...
    @overload
    def get(self, key: K, default: V_co | T) -> V_co | T: ...
    def get(self, key: K, default: Any = None) -> Any:
        value: Any = self._top[key] if key in self._top else self._base.get(key, default)
        return default if value is ABSENT else value

    def __contains__(self, key: object) -> bool:
        if key in self._top:
            return self._top[key] is not ABSENT
        return key in self._base

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[K]:
        return iter(flat(self))

    def keys(self) -> KeysView[K]:
        return flat(self).keys()

    def values(self) -> ValuesView[V_co]:
        return flat(self).values()

    def items(self) -> ItemsView[K, V_co]:
        return flat(self).items()

    def __repr__(self) -> str:
        return f"Layers({flat(self)!r})"


def flat(mapping: Mapping[K, V]) -> dict[K, V]:
    """The items as a dict that nobody else has reason to change; not to be changed either."""
    if isinstance(mapping, Layers):
        return _merged(mapping._base, mapping._top) if mapping._top else mapping._base
    return mapping if isinstance(mapping, dict) else dict(mapping)


def kept(mapping: Mapping[K, V]) -> Mapping[K, V]:
    """The mapping as it is now, whatever its owner does with it later."""
    return mapping if isinstance(mapping, Layers) else dict(mapping)


def same_objects(these: Sequence[object], those: Sequence[object]) -> bool:
    """Whether what is made of these need not be made anew: mappings here never change."""
    return len(these) == len(those) and all(map(is_, these, those))


def differing(old: Mapping[K, V], new: Mapping[K, V]) -> set[K]:
    """Keys whose values are not the same objects, or that are in one only."""
    if old is new:
        return set()
    if isinstance(old, Layers) and isinstance(new, Layers):
        if (step := new._step) is not None and step[0] is old._base and step[1] is old._top:
            return {key for key, value in step[2].items() if old.get(key, ABSENT) is not value}
        if old._base is new._base:
            return _differing_tops(old._base, old._top, new._top)
        if new._made_of is not None and new._made_of[0] is old._base and not new._top:
            return _differing_tops(old._base, old._top, new._made_of[1])
    before, after = flat(old), flat(new)
    found = {key for key, value in after.items() if before.get(key, ABSENT) is not value}
    if len(before) + sum(key not in before for key in found) != len(after):
        found.update(key for key in before if key not in after)
    return found


def _differing_tops(base: dict[K, V], old: dict[K, V], new: dict[K, V]) -> set[K]:
    """What differs between two that have the same base."""
    found = {key for key, value in new.items() if old.get(key, base) is not value}
    found = {key for key in found if key in old or base.get(key, ABSENT) is not new[key]}
    back = old.keys() - new.keys()
    found.update(key for key in back if base.get(key, ABSENT) is not old[key])
    return found


def _merged(base: dict[K, V], top: dict[K, V]) -> dict[K, V]:
    found = {**base, **top}
    for key, value in top.items():
        if value is ABSENT:
            del found[key]
    return found
