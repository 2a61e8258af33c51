"""The SQLite file: schema, connection, transactions.

WAL with ``synchronous=NORMAL``: a commit survives the death of the process at any moment;
after a power cut the last commits may be missing, never torn. What is kept in memory besides
follows the disk: a transaction that fails, on a full disk say, is undone in both.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sixfold.errors import HostError

SCHEMA_VERSION = 3  # tables only ever came: the script brings older files up to date

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    kind TEXT, namespace TEXT, name TEXT, raw TEXT NOT NULL,
    PRIMARY KEY (kind, namespace, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS numbers (
    space TEXT, key TEXT, number INTEGER NOT NULL,
    PRIMARY KEY (space, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS learned (
    name TEXT, address TEXT, expires REAL NOT NULL,
    PRIMARY KEY (name, address)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS registrations (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS addresses (
    address TEXT PRIMARY KEY, owner TEXT NOT NULL, freed_at REAL) WITHOUT ROWID;
"""

DAMAGED = "move the file away to start with an empty store"
ADVICE = {
    sqlite3.SQLITE_FULL: "free some space in its file system",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
}


def _keep_private(path: Path | str) -> None:
    """It has Secrets in it; its journal gets the mode of the file."""
    if str(path) != ":memory:":
        with suppress(OSError):  # sqlite says better what is wrong
            Path(path).touch(mode=0o600)
            Path(path).chmod(0o600)


class _RehearsedError(Exception):
    """Ends a rehearsal."""


class Database:
    """One connection, used by one thread."""

    def __init__(self, path: Path | str) -> None:
        """Open or create; raises HostError when the file is damaged, not ours, or too new."""
        self.path = path
        self._undo: dict[Callable[[], None], None] = {}  # in order; each once
        try:
            _keep_private(path)
            self.connection = sqlite3.connect(path, isolation_level=None)
            self.connection.execute("PRAGMA journal_mode=WAL")
            self.connection.execute("PRAGMA synchronous=NORMAL")
            found = self.connection.execute("PRAGMA user_version").fetchone()[0]
            if found > SCHEMA_VERSION:
                raise HostError(
                    f"{path}: schema {found} is newer than {SCHEMA_VERSION}; "
                    "run the newer sixfold that wrote it"
                )
            if found < SCHEMA_VERSION:
                self.connection.executescript(SCHEMA)
                self.connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            damage = self.connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.Error as error:
            raise self._host_error(error) from error
        if damage != "ok":
            raise HostError(f"{path}: damaged: {' '.join(damage.split())}; {DAMAGED}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; nested use joins the outer transaction. HostError: not written."""
        if self.connection.in_transaction:
            yield self.connection
            return
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            yield self.connection
            self.connection.execute("COMMIT")
        except BaseException as error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            for step in reversed([*self._undo]):
                step()
            if isinstance(error, sqlite3.Error):
                raise self._host_error(error) from error
            raise
        finally:
            self._undo.clear()

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """A transaction that comes to nothing."""
        with suppress(_RehearsedError), self.transaction():
            yield
            raise _RehearsedError

    def on_rollback(self, step: Callable[[], None]) -> None:
        """Do this, last things first, if the transaction under way comes to nothing."""
        assert self.connection.in_transaction, "nothing can be rolled back"
        self._undo.setdefault(step)

    def _host_error(self, error: sqlite3.Error) -> HostError:
        advice = ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "see its file system")
        return HostError(f"{self.path}: {error}; {advice}")

    def meta(self, key: str, default: str = "") -> str:
        row = self.connection.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return default if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        with self.transaction() as connection:
            connection.execute("REPLACE INTO meta VALUES (?, ?)", (key, value))

    def close(self) -> None:
        self.connection.close()
