"""Values by number: equal ones share a number, and no number means two things at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Numbered(Generic[T]):
    """Counts who holds each value; ``last`` is the highest number ever given."""

    def __init__(self) -> None:
        self.last = 0
        self._numbers: dict[T, int] = {}
        self._holders: Counter[int] = Counter()

    def hold(self, value: T, times: int = 1) -> tuple[int, bool]:
        """The number of a value, and whether it is a new one."""
        number = self._numbers.get(value)
        fresh = number is None
        if number is None:
            self.last = number = self._numbers[value] = self.last + 1
        self._holders[number] += times
        return number, fresh

    def drop(self, value: T, times: int = 1) -> int:
        """Hold it no longer; its number when nobody does, else 0."""
        number = self._numbers[value]
        self._holders[number] -= times
        if self._holders[number]:
            return 0
        del self._numbers[value], self._holders[number]
        return number

    def rename(self, value: T, successor: T) -> int:
        """Let a number mean another value, which has none, to all that hold it."""
        number = self._numbers[successor] = self._numbers.pop(value)
        return number

    def holders(self, value: T) -> int:
        return self._holders[self._numbers[value]]

    def __contains__(self, value: T) -> bool:
        return value in self._numbers

    def adopt(self, value: T, number: int) -> bool:
        """Hold a value that had this number before we came; whether it was not held yet."""
        self._numbers[value] = number
        self._holders[number] += 1
        return self._holders[number] == 1

    def knows(self, number: int) -> bool:
        return number in self._holders
