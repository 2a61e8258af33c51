"""Kubernetes objects as applied: typed in memory, JSON on disk, versioned as the API does.

``resourceVersion`` is one counter for the whole store; ``generation`` of an object counts
changes of its spec. A status that the agent computes is not stored: it is true now or not at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from sixfold.model.meta import Key
from sixfold.store.database import Database


@dataclass(frozen=True, slots=True)
class Stored:
    """One object: the typed struct that planners read and the raw form that users see."""

    key: Key
    object: Any  # a struct of sixfold.model
    raw: Mapping[str, Any]

    @property
    def uid(self) -> str:
        return str(self.raw["metadata"]["uid"])

    @property
    def deleting(self) -> bool:
        return "deletionTimestamp" in self.raw["metadata"]


@dataclass(frozen=True, slots=True)
class Put:
    """What one write did; ``action`` in kubectl's words."""

    key: Key
    action: str  # created, configured, unchanged


class Objects:
    """The current objects, by key; every write goes through ``put`` or ``remove``."""

    def __init__(self, database: Database, decode: Callable[[dict[str, Any]], Any]) -> None:
        """``decode`` turns raw JSON into a struct; it must accept whatever was put before."""
        self._database = database
        self._decode = decode
        self._by_kind: dict[str, dict[Key, Stored]] = {}
        self._turns: Counter[str] = Counter()
        self.version = int(database.meta("resource_version", "0"))
        for kind, namespace, name, raw in database.connection.execute(
            "SELECT kind, namespace, name, raw FROM objects"
        ):
            decoded = msgspec.json.decode(raw)
            key = Key(kind, namespace, name)
            self._set(key, Stored(key, decode(decoded), decoded))

    def _set(self, key: Key, stored: Stored | None) -> None:
        self._turns[key.kind] += 1
        of_kind = self._by_kind.setdefault(key.kind, {})
        if stored is None:
            of_kind.pop(key, None)
        else:
            of_kind[key] = stored

    def _change(self, key: Key, stored: Stored | None) -> None:
        """Within a transaction: as it goes, so goes this."""
        self._database.on_rollback(partial(self._set, key, self.get(key)))
        self._set(key, stored)

    def _count(self, version: int) -> None:
        self._database.on_rollback(partial(setattr, self, "version", self.version))
        self._database.set_meta("resource_version", str(version))
        self.version = version

    def get(self, key: Key) -> Stored | None:
        return self._by_kind.get(key.kind, {}).get(key)

    def of(self, kind: str) -> Mapping[Key, Stored]:
        """All objects of a kind; do not change the mapping."""
        return self._by_kind.get(kind, {})

    def turn(self, kind: str) -> int:
        """Another number as soon as any object of a kind is another."""
        return self._turns[kind]

    def __iter__(self) -> Iterator[Stored]:
        for objects in self._by_kind.values():
            yield from objects.values()

    def put(
        self, raws: Iterable[tuple[Key, dict[str, Any]]], uid: Callable[[], str], now: str
    ) -> list[Put]:
        """Write all or none. ``now`` is RFC 3339; ``uid`` is asked once per new object.

        What the API server owns (uid, generation, creationTimestamp, resourceVersion) is kept
        from the stored object and never taken from the caller.
        """
        results, fresh, version = self._prepare(raws, uid, now)
        with self._database.transaction() as connection:
            connection.executemany(
                "REPLACE INTO objects VALUES (?, ?, ?, ?)",
                [(*item.key, msgspec.json.encode(item.raw).decode()) for item in fresh],
            )
            self._count(version)
            for item in fresh:
                self._change(item.key, item)
        return results

    def preview(self, raws: Iterable[tuple[Key, dict[str, Any]]]) -> list[Put]:
        """What ``put`` would do, without doing it."""
        return self._prepare(raws, lambda: "", "")[0]

    def _prepare(
        self, raws: Iterable[tuple[Key, dict[str, Any]]], uid: Callable[[], str], now: str
    ) -> tuple[list[Put], list[Stored], int]:
        """Results, objects to write, and the resource version after them."""
        results: list[Put] = []
        fresh: list[Stored] = []
        version = self.version
        for key, raw in raws:
            old = self.get(key)
            merged = _admit(raw, old.raw if old else None, uid, now)
            if old is not None and old.raw == merged:
                results.append(Put(key, "unchanged"))
                continue
            version += 1
            merged["metadata"]["resourceVersion"] = str(version)
            fresh.append(Stored(key, self._decode(merged), merged))
            results.append(Put(key, "configured" if old else "created"))
        return results, fresh, version

    def mark_deleting(self, key: Key, now: str, grace_s: int) -> None:
        """Set the deletion timestamp, once; the object goes when its finish is seen.

        Asked again with less grace, the lesser holds.
        """
        stored = self._by_kind[key.kind][key]
        metadata = stored.raw["metadata"]
        if stored.deleting and metadata["deletionGracePeriodSeconds"] <= grace_s:
            return
        leaving = {
            "deletionTimestamp": metadata.get("deletionTimestamp", now),
            "deletionGracePeriodSeconds": grace_s,
        }
        raw = {**stored.raw, "metadata": {**stored.raw["metadata"], **leaving}}
        with self._database.transaction() as connection:
            connection.execute(
                "REPLACE INTO objects VALUES (?, ?, ?, ?)",
                (*key, msgspec.json.encode(raw).decode()),
            )
            self._change(key, Stored(key, self._decode(raw), raw))

    def remove(self, keys: Iterable[Key]) -> None:
        """Forget these objects; unknown keys are ignored."""
        keys = list(keys)
        with self._database.transaction() as connection:
            connection.executemany(
                "DELETE FROM objects WHERE kind=? AND namespace=? AND name=?", keys
            )
            self._count(self.version + 1)
            for key in keys:
                self._change(key, None)


DELETION = ("deletionTimestamp", "deletionGracePeriodSeconds")
SERVER_OWNED = (
    *("uid", "creationTimestamp", "generation", "resourceVersion", "selfLink", "managedFields"),
    *DELETION,
)


def _admit(
    raw: dict[str, Any], old: Mapping[str, Any] | None, uid: Callable[[], str], now: str
) -> dict[str, Any]:
    """The object to keep; ``raw`` is not changed, but shared."""
    metadata = {k: v for k, v in raw.get("metadata", {}).items() if k not in SERVER_OWNED}
    merged = {k: v for k, v in raw.items() if k != "status"} | {"metadata": metadata}
    if old is None:
        return _stamp(merged, {"uid": uid(), "creationTimestamp": now, "generation": 1})
    previous = old["metadata"]
    changed = old.get("spec") != merged.get("spec")
    kept = {field: previous[field] for field in DELETION if field in previous}
    return _stamp(
        merged,
        {
            "uid": previous["uid"],
            "creationTimestamp": previous["creationTimestamp"],
            "generation": previous["generation"] + changed,
            "resourceVersion": previous["resourceVersion"],
            **kept,
        },
    )


def _stamp(raw: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    raw["metadata"].update(fields)
    return raw
