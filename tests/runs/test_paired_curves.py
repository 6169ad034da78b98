"""The difference of two arms over epochs and its verdict. Expected values computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mlae_lab.runs import paired_curves, presets, study_results
from mlae_lab.runs.paired_curves import Difference
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore
from tests.runs.test_comparability import A, B, finished_run

pytestmark = pytest.mark.usefixtures("no_supervisor")  # runs stay queued, no process starts


def pairs_with(store: RunStore, *gains: tuple[float, float]) -> tuple[Run, Run]:
    """Runs of one seed after the other; B ends epochs 2 and 4 above A by these points. Returns the last two."""
    runs = [
        (
            finished_run(store, replace(A, seed=seed), {2: 50.0, 4: 60.0 + seed}),
            finished_run(store, replace(B, seed=seed), {2: 50.0 + first, 4: 60.0 + seed + last}),
        )
        for seed, (first, last) in enumerate(gains)
    ]
    return runs[-1]


def compared(store: RunStore, a: Run, b: Run) -> tuple[Difference, str]:
    known = presets.compared(store, a, b)
    assert known is not None
    difference = paired_curves.difference(paired_curves.pairs_of(store, known.state, "A", "B"))
    return difference, paired_curves.verdict(study_results.results(store, known.state), difference, "B")


def test_mean_deviation_and_interval_of_three_seeds(store: RunStore) -> None:
    """Differences of 1, 2 and 6 points at the end: mean 3, deviation sqrt(7)."""
    difference, verdict = compared(store, *pairs_with(store, (0, 1), (1, 2), (-1, 6)))
    early, last = difference.over_epochs
    assert (early.epoch, early.n, early.mean, early.deviation) == (2, 3, 0.0, 1.0)
    assert last == difference.last
    assert (last.epoch, last.n, last.mean, last.minimum, last.maximum) == (4, 3, pytest.approx(3.0), 1.0, 6.0)
    assert last.deviation == pytest.approx(math.sqrt(7))
    reach = 4.30265273 * math.sqrt(7) / math.sqrt(3)
    assert (last.low, last.high) == (pytest.approx(3 - reach), pytest.approx(3 + reach))
    assert verdict == "B is within the seed noise: +3.0 points (95 % interval −3.6 to +9.6)."
    assert "the 95 % interval excludes 0 with" in difference.seeds_needed


def test_a_pair_that_ends_early_is_left_out_of_later_epochs(store: RunStore) -> None:
    a, b = pairs_with(store, (0, 1), (1, 2), (-1, 6))
    finished_run(store, replace(A, seed=3), {2: 50.0, 4: 60.0})
    finished_run(store, replace(B, seed=3), {2: 58.0}, Status.LOST)
    difference, _ = compared(store, a, b)
    assert [s.n for s in difference.over_epochs] == [4, 3]
    assert [pair.is_complete for pair in difference.pairs] == [True, True, True, False]
    assert difference.over_epochs[0].mean == 2.0
    assert difference.last is not None
    assert difference.last.n == 3


@pytest.mark.parametrize(
    ("gains", "text"),
    [
        ([2.5], "B is 2.5 points above; one seed cannot distinguish that from noise."),
        ([0.0], "B is level; one seed cannot distinguish that from noise."),
        ([3.0, 3.5, 4.0], "B is better by 3.5 points (95 % interval +2.3 to +4.7)."),
        ([-3.0, -3.5, -4.0], "B is worse by 3.5 points (95 % interval −4.7 to −2.3)."),
        ([1.5, 1.5, 1.5], "B is 1.5 points above with every seed: the evaluation is too coarse for an interval."),
    ],
)
def test_verdicts(gains: list[float], text: str, store: RunStore) -> None:
    assert compared(store, *pairs_with(store, *((0.0, gain) for gain in gains)))[1] == text


def test_before_the_last_epoch_there_is_no_verdict(store: RunStore) -> None:
    a = finished_run(store, A, {2: 50.0, 4: 60.0})
    waits = finished_run(store, B, {}, Status.QUEUED)
    assert "no difference to show yet" in compared(store, a, waits)[1]
    store.move(waits.id, Status.STOPPED)
    store.delete(waits.id)
    difference, verdict = compared(store, a, finished_run(store, B, {2: 54.0}, Status.STOPPED))
    assert difference.last is None
    assert verdict == "After epoch 2 of 4 B is 4.0 points above A. A verdict needs both runs at their last epoch."
