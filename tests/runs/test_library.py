"""The library of masks: shared by all users of a store, with unique names."""

from __future__ import annotations

import contextlib
import sqlite3
import threading

import pytest

from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense, pattern, uniform
from mlae_lab.runs import library
from mlae_lab.runs.library import plan_name
from mlae_lab.runs.paths import database
from mlae_lab.runs.schema import SCHEMA
from mlae_lab.runs.store import RunStore, StoreError
from tests.lab import to_schema_5


def test_a_saved_mask_is_visible_to_everybody(store: RunStore) -> None:
    plan = pattern("hourglass", "mixed", 0.3)
    saved = store.save_plan("  My \n hourglass\u200b ", plan, "ada")
    assert (saved.name, saved.owner, saved.plan) == ("My hourglass", "ada", plan)
    second = store.save_plan("dense", dense())
    assert RunStore(store.folder).plans() == [second, saved]


def test_names_are_unique(store: RunStore) -> None:
    saved = store.save_plan("One", dense(), "ada")
    with pytest.raises(StoreError, match="has a mask named 'one' already: choose another name"):
        store.save_plan("one", uniform(0.5), "bob")
    other = store.save_plan("Two", uniform(0.5))
    with pytest.raises(StoreError, match="has a mask named 'ONE' already"):
        store.rename_plan(other.id, "ONE")
    store.rename_plan(saved.id, "one")  # the same name in other case
    assert [saved_plan.name for saved_plan in store.plans()] == ["Two", "one"]


def test_rename_and_delete(store: RunStore) -> None:
    saved = store.save_plan("One", dense())
    store.rename_plan(saved.id, "Three")
    assert store.plans()[0].name == "Three"
    assert store.delete_plan(saved.id)
    assert not store.delete_plan(saved.id)
    with pytest.raises(StoreError, match="was deleted from the library"):
        store.rename_plan(saved.id, "Four")


@pytest.mark.parametrize("name", ["", "  \n ", "\u200b", "x" * 49])
def test_invalid_names(store: RunStore, name: str) -> None:
    with pytest.raises(StoreError, match="it must have 1 to 48"):
        store.save_plan(name, dense())
    assert store.plans() == []
    assert plan_name("x" * 48) == "x" * 48


def test_a_full_library_refuses_more_masks(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "MAX_PLANS", 2)
    for number in range(2):
        store.save_plan(str(number), dense())
    with pytest.raises(StoreError, match="the library is full, with 2 masks: delete one"):
        store.save_plan("3", dense())


def test_one_of_many_concurrent_saves_gets_the_name(store: RunStore) -> None:
    won: list[str] = []

    def take(who: str) -> None:
        with contextlib.suppress(StoreError):
            won.append(store.save_plan("The name", dense(), who).owner)

    threads = [threading.Thread(target=take, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert [saved_plan.owner for saved_plan in store.plans()] == won


def test_a_mask_that_cannot_be_read_is_left_out(store: RunStore) -> None:
    saved = store.save_plan("One", dense())
    with sqlite3.connect(database(store.folder)) as db:
        db.execute("INSERT INTO plans VALUES ('x', 'from tomorrow', '', 1.0, '{\"shape\": 3}')")
    db.close()
    assert store.plans() == [saved]


def test_a_store_without_a_library_gets_one(store: RunStore) -> None:
    run = store.enqueue(RunConfig("digits"), "cpu")
    db = sqlite3.connect(database(store.folder))
    for table in ("plans", "served"):
        db.execute(f"DROP TABLE {table}")
    db.execute("ALTER TABLE gone DROP COLUMN owner")
    to_schema_5(db)
    db.execute("PRAGMA user_version=2")
    db.close()
    newer = RunStore(store.folder)
    assert newer.plans() == []
    assert newer.runs() == [run]
    newer.save_plan("One", dense())
    db = sqlite3.connect(database(store.folder))
    assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    db.close()
