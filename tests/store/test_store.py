"""The store keeps what was applied, whole, under stable numbers."""

from __future__ import annotations

import itertools
import sqlite3

import pytest
from tests.store.conftest import full_disk

from sixfold.errors import HostError
from sixfold.model.meta import Key
from sixfold.store import Database, Numbers, Objects
from sixfold.store.database import SCHEMA
from sixfold.store.learned import LearnedNames

NOW = "2026-11-23T08:00:00Z"


@pytest.fixture
def database(tmp_path):
    opened = Database(tmp_path / "state.db")
    yield opened
    opened.close()


def reopen(database: Database) -> Database:
    database.close()
    return Database(database.path)


def uids():
    counter = itertools.count(1)
    return lambda: f"uid-{next(counter)}"


def service(name: str, **spec: object) -> tuple[Key, dict[str, object]]:
    raw = {"kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": spec}
    return Key("Service", "shop", name), raw


def objects_of(database: Database) -> Objects:
    return Objects(database, lambda raw: raw["spec"])


def test_applied_objects_are_there_after_a_reopen(database):
    objects_of(database).put([service("web", a=1)], uids(), NOW)
    again = objects_of(reopen(database))
    assert again.get(Key("Service", "shop", "web")).object == {"a": 1}


def test_kubectl_words_say_what_a_put_did(database):
    objects = objects_of(database)
    put = lambda **spec: objects.put([service("web", **spec)], uids(), NOW)[0].action  # noqa: E731
    assert [put(a=1), put(a=1), put(a=2)] == ["created", "unchanged", "configured"]


def test_generation_counts_changes_of_the_spec_only(database):
    objects = objects_of(database)
    key, raw = service("web", a=1)
    for labels in ({}, {"x": "y"}):
        objects.put(
            [(key, {**raw, "metadata": {**raw["metadata"], "labels": labels}})], uids(), NOW
        )
    assert objects.get(key).raw["metadata"]["generation"] == 1
    objects.put([service("web", a=2)], uids(), NOW)
    assert objects.get(key).raw["metadata"]["generation"] == 2


def test_uid_is_the_servers_and_survives_updates(database):
    objects = objects_of(database)
    key, raw = service("web", a=1)
    raw["metadata"]["uid"] = "forged"
    objects.put([(key, raw)], uids(), NOW)
    objects.put([service("web", a=2)], uids(), NOW)
    assert objects.get(key).uid == "uid-1"


def test_one_bad_object_leaves_nothing_of_an_apply(database):
    objects = objects_of(database)
    broken = (Key("Service", "shop", "bad"), {"metadata": {"name": "bad"}})
    with pytest.raises(KeyError):
        objects.put([service("web", a=1), broken], uids(), NOW)
    assert list(objects) == []
    assert list(objects_of(reopen(database))) == []


def test_an_object_marked_for_deletion_stays_so_when_applied_again(database):
    objects = objects_of(database)
    objects.put([service("web", a=1)], uids(), NOW)
    objects.mark_deleting(Key("Service", "shop", "web"), NOW, 30)
    objects.put([service("web", a=2)], uids(), NOW)
    assert objects.get(Key("Service", "shop", "web")).deleting


def test_numbers_are_stable_across_a_reopen(database):
    first = Numbers(database, "identity", 256, 300)
    taken = {key: first.number(key) for key in "abc"}
    again = Numbers(reopen(database), "identity", 256, 300)
    assert {key: again.number(key) for key in "cab"} == taken


def test_a_released_number_is_the_last_to_be_taken_again(database):
    numbers = Numbers(database, "endpoint", 1, 3)
    numbers.number("a")
    numbers.release("a")
    assert [numbers.number(key) for key in "bcd"] == [2, 3, 1]


def test_a_full_space_is_an_error_that_names_it(database):
    numbers = Numbers(database, "endpoint", 1, 2)
    numbers.number("a")
    numbers.number("b")
    with pytest.raises(HostError, match="endpoint: all 2 numbers are taken"):
        numbers.number("c")


def test_a_file_that_is_not_a_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "state.db"
    path.write_text("not a database, but somebody's file " * 100)
    with pytest.raises(HostError, match=r"state\.db"):
        Database(path)
    assert path.read_text().startswith("not a database")


def test_a_damaged_file_is_refused_with_what_to_do(database):
    objects_of(database).put([service(f"web-{n}", a="x" * 500) for n in range(50)], uids(), NOW)
    database.close()
    with database.path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 8192)
    with pytest.raises(HostError, match=r"state\.db.* move the file away"):
        Database(database.path)


def test_what_a_full_disk_refuses_is_not_in_memory_either(database):
    objects = objects_of(database)
    objects.put([service("old", a=1)], uids(), NOW)
    before = {item.key: item.raw for item in objects}
    much = [service("old", a=2), *(service(f"new-{n}", a="x" * 4000) for n in range(9))]
    with full_disk(database), pytest.raises(HostError, match=r"full; free some space"):
        objects.put(much, uids(), NOW)
    assert {item.key: item.raw for item in objects} == before
    objects.put([service("late", a=3)], uids(), NOW)
    assert {item.key: item.raw for item in objects_of(reopen(database))} == {
        item.key: item.raw for item in objects
    }


def test_an_outer_transaction_that_comes_to_nothing_undoes_all_within_it(database):
    objects = objects_of(database)
    objects.put([service("a", a=1), service("b", a=1)], uids(), NOW)
    before, version = {item.key: item.raw for item in objects}, objects.version
    with database.rehearsal():
        objects.put([service("a", a=2), service("c", a=1)], uids(), NOW)
        objects.mark_deleting(Key("Service", "shop", "a"), NOW, 30)
        objects.remove([Key("Service", "shop", "b"), Key("Service", "shop", "c")])
    assert {item.key: item.raw for item in objects} == before
    assert objects.version == version


def test_a_schema_from_the_future_is_refused(tmp_path):
    connection = sqlite3.connect(tmp_path / "state.db")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(HostError, match="schema 99 is newer"):
        Database(tmp_path / "state.db")


def test_the_file_of_an_earlier_version_gets_the_tables_that_came(tmp_path):
    """1 knew no names of the world."""
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(SCHEMA)
        connection.execute("DROP TABLE learned")
        connection.execute("INSERT INTO meta VALUES ('generation', '7')")
        connection.execute("PRAGMA user_version=1")
    connection.close()
    database = Database(path)
    assert LearnedNames(database).load() == {}
    assert database.meta("generation") == "7"
    database.close()
