"""Queries that the pages share."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.patterns import uniform
from mlae_lab.runs.archive_file import archive, restore
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.ui import queries


def test_restored_run_has_its_events_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunStore(tmp_path)
    monkeypatch.setattr(queries, "store", lambda: store)
    run = store.enqueue(FIRST_RUN, "cpu").id
    store.append(run, [ev.TrainStep(n, 1, 1.0, 50.0, 1e-3, 3, 0.1) for n in (1, 2)])
    store.append(run, [ev.Evaluation(1, 2, "val", 50.0, 1.5, 2.0)])
    store.move(run, Status.FINISHED)
    tail = queries.Tail(run)
    tail.update()
    archive(store, run)
    restore(store, run)
    for _ in range(2):
        tail.update()
        assert [step.step for step in tail.steps] == [1, 2]
        assert len(tail.evaluations) == 1
    assert tail.memo("steps", len(tail.steps), lambda: "made again") == "made again"


def test_damaged_events_and_what_changed_at_a_resumption_are_notes_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(tmp_path)
    monkeypatch.setattr(queries, "store", lambda: store)
    run = store.enqueue(FIRST_RUN, "cpu").id
    store.append(run, [ev.Resumed(1, 1, 0.5, notes=("Resumed in another environment.",))] * 2)
    store.append(run, [ev.TrainStep(n, 1, 1.0, 50.0, 1e-3, 3, 0.1) for n in (1, 2, 3)])
    with store._connection(write=True) as db:
        db.execute(
            """UPDATE events SET payload = REPLACE(payload, '"loss"', '"lofs"') WHERE step = 2 AND kind = 'step'"""
        )
    (damaged,) = store.damaged_events(run)
    tail = queries.Tail(run)
    tail.update()
    tail.update()
    assert [step.step for step in tail.steps] == [1, 3]
    assert tail.notes == [
        "Resumed in another environment.", f"Damaged events, which are left out: {damaged.id} (step)."
    ]  # fmt: skip


def test_a_damaged_first_event_does_not_make_every_update_read_all_events_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(tmp_path)
    monkeypatch.setattr(queries, "store", lambda: store)
    run = store.enqueue(FIRST_RUN, "cpu").id
    store.append(run, [ev.TrainStep(n, 1, 1.0, 50.0, 1e-3, 3, 0.1) for n in (1, 2)])
    with store._connection(write=True) as db:
        db.execute("""UPDATE events SET payload = REPLACE(payload, '"loss"', '"lofs"') WHERE step = 1""")
    tail = queries.Tail(run)
    tail.update()
    steps = tail.steps
    store.append(run, [ev.TrainStep(3, 1, 1.0, 50.0, 1e-3, 3, 0.1)])
    tail.update()
    assert [step.step for step in steps] == [2, 3]
    assert tail.steps is steps, "the events that are known stay"


def test_references_of_a_run_differ_in_mask_or_method_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among runs whose settings another method or mask does not take."""
    store = RunStore(tmp_path)
    monkeypatch.setattr(queries, "store", lambda: store)

    def finished(config: RunConfig) -> Run:
        run = store.enqueue(config, "cpu")
        store.append(run.id, [ev.Evaluation(1, 2, "val", 50.0, 1.5, 2.0)])
        store.move(run.id, Status.FINISHED)
        return store.run(run.id)

    finished(RunConfig("digits", method="lora", method_settings=("rank=4",)))
    finished(RunConfig("digits", uniform(0.5), consistency=1.0))
    expected = {"probe": finished(RunConfig("digits", method="linear")), "dense": finished(RunConfig("digits"))}
    monkeypatch.setattr(queries, "runs", store.runs)
    monkeypatch.setattr(queries, "tail", _updated)
    finished(RunConfig("digits", learned_drop_rates="layer"))  # p is learned: it drops experts
    for learned in ("off", "layer"):
        references = queries._references(finished(RunConfig("digits", uniform(0.5), learned_drop_rates=learned)))
        assert {name: reference.run for name, reference in references.items()} == {
            name: run.id for name, run in expected.items()
        }


def _updated(run: str) -> queries.Tail:
    tail = queries.Tail(run)
    tail.update()
    return tail
