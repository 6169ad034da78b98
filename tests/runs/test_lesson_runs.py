"""The runs of lessons: shared by a class, recorded by training them, and guesses without names."""

from __future__ import annotations

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from mlae_lab.core.config import RunConfig
from mlae_lab.lessons import lesson
from mlae_lab.lessons.lesson import Arm
from mlae_lab.lessons.recording import Recording, Results, needed, outdated
from mlae_lab.runs import lesson_runs, paths, probe
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore, StoreError
from tests.lab import end_probe, small_config, start_probe_here, train_queued


@pytest.mark.usefixtures("no_supervisor")
def test_forty_students_share_one_training(store: RunStore) -> None:
    entry = lesson("what-experts-add")
    wanted = entry.live_runs([20, 60], entry.tasks[0])
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: lesson_runs.start(store, entry, wanted, f"student-{i}"), range(40)))
    assert len({tuple(known.run.id for known in result if known.run) for result in results}) == 1
    assert [(run.relation, run.source) for run in store.runs()] == [("lesson", "what-experts-add")] * 2


@pytest.mark.usefixtures("no_supervisor")
def test_a_failed_run_is_started_again_and_a_finished_one_is_reused(store: RunStore) -> None:
    entry = lesson("what-p-does")
    wanted = entry.live_runs(None, entry.tasks[0])
    (first,) = lesson_runs.start(store, entry, wanted)
    assert first.run is not None
    store.move(first.run.id, Status.FAILED, "for the test")
    assert lesson_runs.existing_runs(store, wanted)[0].run is None
    with pytest.raises(StoreError, match="is missing"):
        lesson_runs.recorded_run(store, lesson_runs.existing_runs(store, wanted)[0])
    with pytest.raises(StoreError, match="is failed: for the test"):
        lesson_runs.recorded_run(store, replace(first, run=store.run(first.run.id)))
    (second,) = lesson_runs.start(store, entry, wanted)
    assert second.run is not None
    assert second.run.id != first.run.id


@pytest.mark.usefixtures("no_supervisor")
def test_a_lesson_is_recorded_by_training_its_runs(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lesson with a what-if, on runs of a second."""
    monkeypatch.setattr(probe, "_start", lambda store, files: start_probe_here(store, files))
    monkeypatch.setattr(lesson_runs, "RANDOM_SETS", 2)
    monkeypatch.setattr(lesson_runs, "HALF_SAMPLES", 2)
    small = replace(small_config(), epochs=2)
    entry = lesson("which-experts-matter")
    entry = replace(
        entry, arms=(Arm("p0", "small", small), Arm("other", "other", replace(small, epochs=1), later=True))
    )
    recording = lesson_runs.record(store, entry, (0,), wait=lambda runs: train_queued(store))
    try:
        assert Recording.from_json(recording.to_json()) == recording
        assert outdated(entry, recording) == ""
        assert [(run.arm, len(run.curve)) for run in recording.runs] == [("p0", 2), ("other", 1)]
        assert all(0 < run.accuracy <= 100 and run.similarity is not None for run in recording.runs)
        results = Results(entry, recording, small.task)
        assert len(results.whatif["random"]) == 2
        assert [len(half["accuracies"]) for half in results.whatif["half_off"]] == [2, 2]
        trained = results.whatif["trained"]["loss"]
        assert results.whatif["top"]["loss"] > trained
        assert len(results.whatif["loss"]) == 12
        runs = len(store.runs())
        again = lesson_runs.record(store, entry, (0,))
        assert len(store.runs()) == runs
        assert again.runs == recording.runs
    finally:
        for run in store.runs():
            end_probe(store, run.id)


def test_needed_runs_are_listed_seed_by_seed() -> None:
    entry = lesson("is-it-better")
    assert [(arm.name, seed) for arm, seed in needed(entry, (0, 1))] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert isinstance(entry.arms[0].run(2), RunConfig)
    assert entry.arms[0].run(2).seed == 2


def test_predictions_are_kept_without_names(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_prediction("is-it-better", "fashion", ["A", 3])
    store.add_prediction("is-it-better", "digits", ["B", 3])
    store.add_prediction("is-it-better", "fashion", ["cannot tell", 9])
    assert store.predictions("is-it-better", "fashion") == [["A", 3], ["cannot tell", 9]]
    with sqlite3.connect(paths.database(store.folder)) as db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(lesson_predictions)")]
        browsers = {row[0] for row in db.execute("SELECT browser FROM lesson_predictions")}
    assert columns == ["lesson", "task", "browser", "guess", "time"]
    assert len(browsers) == 3
    monkeypatch.setattr("mlae_lab.runs.lesson_predictions.MAX_PREDICTIONS", 3)
    store.add_prediction("is-it-better", "fashion", ["B", 5])
    assert store.predictions("is-it-better", "fashion") == [["cannot tell", 9], ["B", 5]], "the oldest one is removed"
    assert store.predictions("is-it-better", "fashion", since=time.time() + 60) == []


def test_one_guess_of_a_browser_counts(store: RunStore) -> None:
    for lesson_name, guess in (("what-p-does", 1), ("what-p-does", 2), ("is-it-better", 3)):
        store.add_prediction(lesson_name, "fashion", guess, browser="secret id")
    assert store.predictions("what-p-does", "fashion") == [1]
    assert store.predictions("is-it-better", "fashion") == [3]
    with sqlite3.connect(paths.database(store.folder)) as db:
        rows = [row[0] for row in db.execute("SELECT browser FROM lesson_predictions")]
    assert len(set(rows)) == 2, "nobody can see which guesses are of one browser"
    assert "secret id" not in rows
