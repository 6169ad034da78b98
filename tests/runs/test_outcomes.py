"""Results of a store: only evaluations that are comparable between runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlae_lab.core import events as ev
from mlae_lab.runs import outcomes
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from tests.runs.test_comparability import A, B, finished_run, measured

pytestmark = pytest.mark.usefixtures("no_supervisor")


def test_only_scheduled_evaluations_of_complete_epochs_count(store: RunStore) -> None:
    run = finished_run(store, A, {})
    store.append(
        run.id,
        [
            measured(1, 40.0),  # not in the schedule
            measured(2, 50.0),
            measured(3, 55.0, step=30),  # stopped here, with an evaluation
            measured(4, 99.0, step=45),  # stopped again, within a scheduled epoch
            measured(4, 60.0),
        ],
    )
    assert outcomes.accuracies(store, run) == ((2, 50.0), (4, 60.0))
    bare = store.enqueue(A, "cpu")
    store.append(bare.id, [measured(2, 50.0)])
    assert outcomes.accuracies(store, bare) == ()  # the number of steps per epoch is unknown


def test_a_stopped_run_is_evaluated_within_an_epoch(store: RunStore) -> None:
    """13 steps an epoch of 800 images in batches of 64; the last of an epoch has 32."""
    run = finished_run(store, A, {2: 50.0}, Status.STOPPED)
    store.append(run.id, [ev.TrainStep(30, 3, 1.0, 50.0, 1e-3, 1, 4.0), ev.Evaluation(3, 30, "val", 45.0, 1.0, 5.0)])
    result = outcomes.outcome(store, run)
    first, last = result.evaluations
    assert (result.last, result.best) == (last, first)
    assert outcomes.accuracy(store, run) == 45.0
    assert [result.when(e) for e in result.evaluations] == ["after epoch 2", "within epoch 3"]
    assert [result.epochs_at(e) for e in result.evaluations] == [2, 2.308]
    assert result.curve == ((2, 50.0),)
    assert not outcomes.is_through(run, result.curve)
    assert (result.seconds, result.images_per_second) == (5.0, (2 * 800 + 4 * 64) / 5.0)  # evaluation included


def test_a_run_without_a_step_has_no_results(store: RunStore) -> None:
    result = outcomes.outcome(store, store.enqueue(A, "cpu"))
    assert (result.last, result.best, result.curve, result.seconds, result.images_per_second) == (
        None,
        None,
        (),
        None,
        None,
    )


def test_a_run_through_its_last_epoch_is_reused_else_an_unfinished_one(store: RunStore) -> None:
    early = finished_run(store, A, {2: 50.0}, Status.STOPPED)
    assert outcomes.candidates(store, [A, B]) == [[], []]
    waits = finished_run(store, A, {}, Status.QUEUED)
    assert outcomes.candidates(store, [A, B]) == [[waits], []]
    through = finished_run(
        store, replace(A, data="/elsewhere"), {2: 50.0, 4: 60.0}
    )  # the folder of the images does not count
    assert outcomes.candidates(store, [A])[0] == [through, waits]
    assert early.status is Status.STOPPED


def test_a_run_on_other_images_is_not_reused_one_of_version_0_5_is(store: RunStore) -> None:
    images = replace(A, data_fingerprint="0" * 12, data_notes=("20 images",))
    other = finished_run(store, replace(A, data_fingerprint="1" * 12), {2: 50.0, 4: 60.0})
    assert outcomes.candidates(store, [images]) == [[]]
    same = finished_run(store, replace(A, data_fingerprint="0" * 12), {2: 50.0, 4: 60.0})
    assert outcomes.candidates(store, [images]) == [[same]]
    earlier = finished_run(store, A, {2: 50.0, 4: 60.0})  # its notes and fingerprint are not known
    assert outcomes.candidates(store, [images])[0] == [earlier, same]
    assert other not in outcomes.candidates(store, [images])[0]
