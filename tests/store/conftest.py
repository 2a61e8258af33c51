"""A database whose disk is full for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sixfold.store import Database


@contextmanager
def full_disk(database: Database) -> Iterator[None]:
    """SQLite gets no further page, and says what it says on a full disk."""
    pages = database.connection.execute("PRAGMA page_count").fetchone()[0]
    most = database.connection.execute("PRAGMA max_page_count").fetchone()[0]
    database.connection.execute(f"PRAGMA max_page_count={pages}")
    try:
        yield
    finally:
        database.connection.execute(f"PRAGMA max_page_count={most}")
