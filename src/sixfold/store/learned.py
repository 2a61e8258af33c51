"""What names of the world have resolved to, kept for the next agent."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from sixfold.store.database import Database

Row = tuple[str, IPv4Address | IPv6Address]


class LearnedNames:
    """Pairs of name and address with the time at which they expire, seconds since the epoch."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> dict[Row, float]:
        rows = self._database.connection.execute("SELECT name, address, expires FROM learned")
        return {(name, ip_address(address)): expires for name, address, expires in rows}

    def put(self, pairs: Iterable[tuple[Row, float]]) -> None:
        rows = [(name, str(address), expires) for (name, address), expires in pairs]
        with self._database.transaction() as connection:
            connection.executemany("REPLACE INTO learned VALUES (?, ?, ?)", rows)

    def remove(self, pairs: Iterable[Row]) -> None:
        rows = [(name, str(address)) for name, address in pairs]
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM learned WHERE name=? AND address=?", rows)
