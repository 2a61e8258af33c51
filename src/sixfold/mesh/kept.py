"""What was made once, of the same parts: kept until it is not asked for any more.

Pure. So a change costs what it changes, and not what there is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Kept:
    """By name; what was not asked for between two calls of ``forget`` is forgotten."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[tuple[Any, ...], Any]] = {}
        self._asked: dict[Hashable, tuple[tuple[Any, ...], Any]] = {}

    def of(self, name: Hashable, parts: tuple[Any, ...], make: Callable[[], T]) -> T:
        """The same object as long as its parts are equal; parts that are one object are."""
        known = self._asked.get(name) or self._known.get(name)
        if known is None or known[0] != parts:
            known = parts, make()
        self._asked[name] = known
        found: T = known[1]
        return found

    def forget(self) -> None:
        """All that nobody asked for since the last time."""
        self._known, self._asked = self._asked, {}


class Steps:
    """Of a plan, by name: each is made anew when a part is another, and keeps what it likes."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[tuple[Any, ...], Any]] = {}
        self._kept: defaultdict[str, Kept] = defaultdict(Kept)

    def of(self, name: str, parts: tuple[Any, ...], make: Callable[[Kept], T]) -> T:
        """The same object as long as its parts are equal; parts that are one object are."""
        known = self._made.get(name)
        if known is None or known[0] != parts:
            kept = self._kept[name]
            known = self._made[name] = parts, make(kept)
            kept.forget()
        found: T = known[1]
        return found
