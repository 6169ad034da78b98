"""Names, notes, tags and mask names of runs: stored, sanitised, migrated, archived and restored."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import pattern, uniform
from mlae_lab.runs import archive_file
from mlae_lab.runs.annotations import MAX_TAGS, AnnotationError
from mlae_lab.runs.paths import database
from mlae_lab.runs.schema import SCHEMA
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, Run, RunStore, StoreError
from tests.lab import measured


def ended(store: RunStore, config: RunConfig | None = None) -> Run:
    return measured(store, store.enqueue(config or RunConfig("digits"), "cpu"), 50.0)


def test_name_notes_and_tags_are_stored_as_plain_lines(store: RunStore) -> None:
    run = ended(store)
    assert (run.name, run.notes, run.tags) == ("", "", ())
    store.annotate(run.id, "  A\x1b[31m name\n", "first \nsecond\x00\n", add=["b", " A "])
    changed = store.run(run.id)
    assert (changed.name, changed.notes, changed.tags) == ("A[31m name", "first\nsecond", ("A", "b"))
    store.annotate(run.id, add=["a"], remove=["B"])  # neither differs by case
    assert store.run(run.id).tags == ("A",)
    store.annotate(run.id, name="", notes="")
    assert (store.run(run.id).name, store.run(run.id).notes) == ("", "")
    assert store.run(run.id).config_hash == run.config_hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "x" * 81}, "the name of a run has 81 characters: it must have at most 80"),
        ({"notes": "x" * 10_001}, "the notes have 10,001 characters"),
        ({"add": ["a,b"]}, "must have 1 to 32 characters and no comma"),
        ({"add": [""]}, "must have 1 to 32 characters"),
        ({"add": [f"t{i}" for i in range(MAX_TAGS + 1)]}, f"has {MAX_TAGS + 1} tags: it must have at most {MAX_TAGS}"),
    ],
)
def test_what_breaks_a_rule_changes_nothing(change: dict, message: str, store: RunStore) -> None:
    run = ended(store)
    with pytest.raises(AnnotationError, match=message):
        store.annotate(run.id, **({"name": "other"} | change))
    assert store.run(run.id) == run


def test_tags_of_many_runs_change_together_or_not_at_all(store: RunStore) -> None:
    first, second = ended(store), ended(store)
    store.annotate(second.id, add=[f"t{i}" for i in range(MAX_TAGS)])
    with pytest.raises(AnnotationError, match="21 tags"):
        store.change_tags([first.id, second.id], add=["new"])
    with pytest.raises(StoreError, match="'aaaabbbb' is not in the store"):
        store.change_tags([first.id, "aaaabbbb"], add=["new"])
    assert store.run(first.id).tags == ()
    store.change_tags([first.id, second.id], add=["t0"], remove=["t1", "t2"])
    assert store.run(first.id).tags == ("t0",)
    assert len(store.run(second.id).tags) == MAX_TAGS - 2
    assert store.known_tags()[0] == "t0"


def test_a_run_keeps_the_name_that_its_mask_had_in_the_library(store: RunStore) -> None:
    plan = pattern("hourglass", "mixed")
    saved = store.save_plan("Heavy middle", plan)
    config = RunConfig("digits", plan)
    run = ended(store, config)
    store.rename_plan(saved.id, "Other")
    store.delete_plan(saved.id)
    again = store.enqueue(config, "cpu", origin=Origin(run.id, "duplicate"))
    other = store.enqueue(RunConfig("digits", uniform(0.2)), "cpu", origin=Origin(run.id, "branched"))
    probe = store.enqueue(RunConfig("digits", plan, method="linear"), "cpu", origin=Origin(run.id, "retry"))
    assert [store.run(r.id).mask_name for r in (run, again, other, probe)] == ["Heavy middle", "Heavy middle", "", ""]


def test_archive_and_import_carry_them(store: RunStore, tmp_path: Path) -> None:
    store.save_plan("Heavy middle", RunConfig("digits").plan)
    run = ended(store)
    store.annotate(run.id, "A name", "Notes\nin two lines", add=["x", "y"])
    run = store.run(run.id)
    archive_file.export(store, run.id, tmp_path / "run.mlae")
    other = RunStore(tmp_path / "other")
    imported = archive_file.import_run(other, tmp_path / "run.mlae")
    archive_file.archive(store, run.id)
    restored = archive_file.restore(store, run.id)
    for copy in (imported, restored):
        assert (copy.name, copy.notes, copy.tags, copy.mask_name) == (run.name, run.notes, run.tags, "Heavy middle")


def test_a_store_of_schema_7_opens_and_names_the_masks_of_its_library(store: RunStore) -> None:
    plan = pattern("hourglass", "mixed")
    masked = ended(store, RunConfig("digits", plan))
    probe = ended(store, RunConfig("digits", plan, method="linear"))
    damaged = ended(store)
    store.save_plan("Heavy middle", plan)
    db = sqlite3.connect(database(store.folder))
    for column in ("name", "notes", "tags", "mask_name"):
        db.execute(f"ALTER TABLE runs DROP COLUMN {column}")
    db.execute("DROP TABLE lesson_predictions")
    db.execute("UPDATE runs SET config = 'not JSON' WHERE id = ?", (damaged.id,))
    db.execute("INSERT INTO plans VALUES ('x', 'damaged', '', 1.0, 'not JSON')")
    db.commit()
    db.execute("PRAGMA user_version=7")
    db.close()
    newer = RunStore(store.folder)
    assert newer.run(masked.id).mask_name == "Heavy middle"
    assert newer.run(probe.id) == probe
    assert newer.run(masked.id).tags == ()
    assert newer.unread() == [damaged.id]
    with newer._connection() as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    assert newer.run(masked.id).status is Status.FINISHED
