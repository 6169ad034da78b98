"""Stores of versions 0.5 to 0.10: pairs, races, repeats and diversity experiments become studies."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace

import pytest

from mlae_lab.core import study_presets
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense, pattern, uniform
from mlae_lab.runs import paths, preset_migration, studies
from mlae_lab.runs.schema import SCHEMA
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, Run, RunStore
from tests.lab import measured

A = RunConfig("digits", uniform(0.5), epochs=4, evaluations=2, device="cpu")
B = replace(A, plan=dense())
pytestmark = pytest.mark.usefixtures("no_supervisor")
Enqueue = Callable[..., Run]


@pytest.fixture
def enqueue(store: RunStore) -> Enqueue:
    """Adds a run that has finished, as an earlier version recorded it."""

    def add(config: RunConfig, parent: str = "", relation: str = "", source: str = "", **changes: object) -> Run:
        run = store.enqueue(replace(config, **changes), "cpu", "ada", Origin(parent, relation, source))
        return measured(store, run, 50.0, 60.0 + run.config.seed)

    return add


def migrated(store: RunStore) -> RunStore:
    """The store, opened as one of schema 8, which had no guesses."""
    db = sqlite3.connect(paths.database(store.folder))
    db.execute("DROP TABLE lesson_predictions")
    db.execute("PRAGMA user_version = 8")
    db.close()
    opened = RunStore(store.folder)
    assert SCHEMA >= 9
    assert not {run.relation for run in opened.runs()} & {"paired", "race", "repeat", "diversity"}
    return opened


def only(store: RunStore) -> tuple[studies.State, dict[tuple[str, int], str]]:
    """The state of the only study, and its cells."""
    (stored,) = store.studies()
    assert stored.owner == "ada"
    return studies.state(store, stored.id), store.study_cells(stored.id)


def test_a_race_with_its_seeds_and_names(store: RunStore, enqueue: Enqueue) -> None:
    store.save_plan("Mine", pattern("hourglass"))
    plans = [uniform(0.5), dense(), pattern("hourglass")]
    first = enqueue(A, "", "race", "0011aabb")
    runs = [first, *(enqueue(A, first.id, "race", "0011aabb", plan=plan) for plan in plans[1:])]
    runs += [enqueue(A, first.id, "race", "0011aabb", plan=plan, seed=1) for plan in plans]
    enqueue(A, first.id, "race", "other", plan=uniform(0.3))  # another race with the same first run
    opened = migrated(store)
    race = next(stored for stored in opened.studies() if len(stored.study.arms) == 3)
    assert [arm.name for arm in race.study.arms] == ["Uniform, p = 0.5", "Dense", "Mine"]
    assert (race.study.seeds, race.study.reference, race.halted) == ((0, 1), "Uniform, p = 0.5", False)
    assert studies.state(opened, race.id).done == 6
    assert set(opened.study_cells(race.id).values()) == {run.id for run in runs}
    assert {(opened.run(run.id).relation, opened.run(run.id).source) for run in runs} == {("study", race.id)}
    other = next(stored for stored in opened.studies() if stored.id != race.id)
    assert opened.study_cells(other.id)["Uniform, p = 0.5", 0] == first.id
    assert studies.start(opened, race.id) == [], "the study is complete"


def test_a_pair_with_an_existing_run(store: RunStore, enqueue: Enqueue) -> None:
    a = enqueue(A, seed=3)
    b = enqueue(B, a.id, "paired", seed=3)
    more = [enqueue(A, a.id, "paired", seed=4), enqueue(B, a.id, "paired", seed=4)]
    opened = migrated(store)
    state, cells = only(opened)
    assert [arm.config.plan for arm in state.stored.study.arms] == [A.plan, B.plan]
    assert (state.stored.study.seeds, state.done) == ((3, 4), 4)
    assert set(cells.values()) == {a.id, b.id, *(run.id for run in more)}
    assert opened.run(a.id).relation == "", "it was not started for the pair"
    assert opened.run(b.id).relation == "study"


def test_two_masks_that_were_started_as_a_pair(store: RunStore, enqueue: Enqueue) -> None:
    first = enqueue(A, "", "paired", "0011aabb")
    enqueue(B, first.id, "paired", "0011aabb")
    state, _ = only(migrated(store))
    assert (state.stored.study.title, state.done) == ("Uniform, p = 0.5 and Dense on Digits", 2)


def test_repeats_of_whichever_seed(store: RunStore, enqueue: Enqueue) -> None:
    first = enqueue(A, seed=2)
    second = enqueue(A, first.id, "repeat", seed=3)
    enqueue(A, second.id, "repeat", seed=7)
    enqueue(A, seed=9)  # started by itself
    state, _ = only(migrated(store))
    assert [(cell.seed, cell.accuracy) for cell in state.cells] == [(2, 62.0), (3, 63.0), (7, 67.0)]


def test_a_diversity_experiment_of_which_a_run_was_deleted(store: RunStore, enqueue: Enqueue) -> None:
    study = study_presets.diversity(A, (0.5,), 2)
    runs = [enqueue(cell.config, "", "diversity") for cell in study.cells()]
    store.delete(runs[3].id)
    opened = migrated(store)
    state, _ = only(opened)
    assert state.stored.study == study
    assert (state.done, state.counts["missing"], state.stored.halted) == (9, 1, True)
    assert len(studies.start(opened, state.stored.id)) == 1


def test_queued_runs_of_a_race_go_on(store: RunStore) -> None:
    first = store.enqueue(A, "cpu", "ada", Origin("", "race", "m"))
    store.enqueue(B, "cpu", "ada", Origin(first.id, "race", "m"))
    state, _ = only(migrated(store))
    assert (state.counts, state.stored.halted) == ({"queued": 2}, False)


def test_what_is_not_recognised_is_left_alone_and_named(
    store: RunStore, enqueue: Enqueue, caplog: pytest.LogCaptureFixture
) -> None:
    lonely = enqueue(A, "", "race", "m")  # the others were deleted
    orphan = enqueue(B, "aaaaaaaa", "paired")  # its parent was deleted
    limited = enqueue(A, lonely.id, "race", "m2", max_seconds=60.0, plan=dense())
    unlike = enqueue(A, lonely.id, "race", "m3", learning_rate=0.1, plan=dense())
    kept = enqueue(A, lonely.id, "retry")
    broken = enqueue(B)
    with store._connection(write=True) as db:
        db.execute("UPDATE runs SET config = '{', relation = 'race' WHERE id = ?", (broken.id,))
    with caplog.at_level("WARNING"):
        opened = migrated(store)
    (line,) = caplog.messages
    assert all(run.id in line for run in (lonely, orphan, limited, unlike, broken))
    note = preset_migration.note(store.folder)
    assert note.startswith("5 runs of an earlier version (4 of a race, 1 of a pair) could not become part of a study")
    preset_migration.note_was_read(store.folder)
    assert preset_migration.note(store.folder) == ""
    assert opened.studies() == []
    for run in (lonely, orphan, limited, unlike):
        now = opened.run(run.id)
        assert (now.status, now.config, now.relation, now.parent) == (Status.FINISHED, run.config, "", "")
    assert (opened.run(kept.id).relation, opened.run(kept.id).parent) == ("retry", lonely.id)
    assert len(opened.unread()) == 1
