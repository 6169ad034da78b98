"""What a store has measured: only what every run of the same settings measures too."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlae_lab.core import events as ev
from mlae_lab.runs import outcomes
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from tests.runs.test_pairs import A, B, made, measured

pytestmark = pytest.mark.usefixtures("no_supervisor")


def test_only_scheduled_measurements_of_whole_epochs_count(store: RunStore) -> None:
    run = made(store, A, {})
    store.append(
        run.id,
        [
            measured(1, 40.0),  # not in the schedule
            measured(2, 50.0),
            measured(3, 55.0, step=30),  # it was stopped here and measured itself on leaving
            measured(4, 99.0, step=45),  # stopped a second time, in an epoch of the schedule
            measured(4, 60.0),
        ],
    )
    assert outcomes.accuracies(store, run) == ((2, 50.0), (4, 60.0))
    bare = store.enqueue(A, "cpu")
    store.append(bare.id, [measured(2, 50.0)])
    assert outcomes.accuracies(store, bare) == ()  # nobody knows how many steps its epochs had


def test_a_run_that_was_stopped_says_within_which_epoch_it_was_evaluated(store: RunStore) -> None:
    """13 steps an epoch of 800 images in batches of 64; the last of an epoch has 32."""
    run = made(store, A, {2: 50.0}, Status.STOPPED)
    store.append(run.id, [ev.TrainStep(30, 3, 1.0, 50.0, 1e-3, 1, 4.0), ev.Evaluation(3, 30, "val", 45.0, 1.0, 5.0)])
    now = outcomes.outcome(store, run)
    first, last = now.evaluations
    assert (now.last, now.best) == (last, first)
    assert outcomes.accuracy(store, run) == 45.0
    assert [now.when(e) for e in now.evaluations] == ["after epoch 2", "within epoch 3"]
    assert [now.epochs_at(e) for e in now.evaluations] == [2, 2.308]
    assert now.curve == ((2, 50.0),)
    assert not outcomes.is_through(run, now.curve)
    assert (now.seconds, now.images_per_second) == (5.0, (2 * 800 + 4 * 64) / 5.0)  # evaluation included


def test_a_run_without_a_step_has_no_number(store: RunStore) -> None:
    now = outcomes.outcome(store, store.enqueue(A, "cpu"))
    assert (now.last, now.best, now.curve, now.seconds, now.images_per_second) == (None, None, (), None, None)


def test_a_run_is_taken_that_came_to_its_end_else_one_on_its_way_else_none(store: RunStore) -> None:
    early = made(store, A, {2: 50.0}, Status.STOPPED)
    assert outcomes.reusable(store, [A, B]) == [A, B]
    waits = made(store, A, {}, Status.QUEUED)
    assert outcomes.reusable(store, [A, B]) == [waits, B]
    through = made(store, replace(A, data="/elsewhere"), {2: 50.0, 4: 60.0})  # where its images lie does not count
    assert outcomes.reusable(store, [A, B]) == [through, B]
    assert outcomes.candidates(store, [A])[0] == [through, waits]
    assert early.status is Status.STOPPED
