"""Numbers that the kernel uses for names: stable across restarts, never two for one.

One space per kind of number (identity, rule, service, endpoint, cidr). A number that was
given up is taken again only after all fresh ones were, so that a late packet or an old flow
record is not read under a new name.
"""

from __future__ import annotations

from sixfold.errors import HostError
from sixfold.store.database import Database


class Numbers:
    """A persistent one-to-one mapping from keys to ``first``…``last``."""

    def __init__(self, database: Database, space: str, first: int, last: int) -> None:
        self._database = database
        self._space = space
        self._first = first
        self._last = last
        rows = database.connection.execute(
            "SELECT key, number FROM numbers WHERE space=?", (space,)
        ).fetchall()
        self.by_key: dict[str, int] = dict(rows)
        self.by_number: dict[int, str] = {number: key for key, number in rows}
        self._next = int(database.meta(f"next.{space}", str(first)))

    def number(self, key: str) -> int:
        """The number of this key, taking a new one if needed; HostError when all are taken."""
        if (known := self.by_key.get(key)) is not None:
            return known
        number = self._fresh()
        with self._database.transaction() as connection:
            connection.execute("REPLACE INTO numbers VALUES (?, ?, ?)", (self._space, key, number))
            self._database.set_meta(f"next.{self._space}", str(number + 1))
        self._next = number + 1
        self.by_key[key] = number
        self.by_number[number] = key
        return number

    def release(self, key: str) -> None:
        """Give the number up; unknown keys are ignored."""
        if key not in self.by_key:
            return
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM numbers WHERE space=? AND key=?", (self._space, key))
        del self.by_number[self.by_key.pop(key)]

    def _fresh(self) -> int:
        size = self._last - self._first + 1
        if len(self.by_number) >= size:
            raise HostError(
                f"{self._space}: all {size} numbers are taken; delete workloads or policies"
            )
        number = self._next
        while number > self._last or number in self.by_number:
            number = self._first if number >= self._last else number + 1
        return number
