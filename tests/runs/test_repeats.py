"""Repeats of a run over seeds: which runs are some, what they say, what is started. Numbers done by hand."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import Any

import pytest

from mlae_lab import locks
from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.patterns import dense, uniform
from mlae_lab.runs import commands, devices, pairs, repeats
from mlae_lab.runs.repeats import launch_repeats, starting, wanted
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, Run, RunStore, StoreError
from tests.lab import measured

A = RunConfig("digits", uniform(0.5), epochs=4, evaluations=2, device="cpu")  # measured after epochs 2 and 4
pytestmark = pytest.mark.usefixtures("no_supervisor")  # what is enqueued waits, and no process starts


def made(
    store: RunStore,
    seed: int,
    last: float | None = 60.0,
    config: RunConfig = A,
    status: Status = Status.FINISHED,
    weights: str = "aaaaaaaaaaaa",
    device: str = "cpu",
    **more: Any,
) -> Run:
    """A run of this seed that ends at this accuracy; None: it was stopped after its first measurement."""
    run = store.enqueue(replace(config, seed=seed), device, **more)
    return measured(store, run, 50.0, *([] if last is None else [last]), status=status, weights=weights)


def test_equal_in_everything_but_the_seed(store: RunStore) -> None:
    first, third = made(store, 0, 60.0), made(store, 3, 66.0)
    made(store, 1, 99.0, replace(A, plan=dense()))
    made(store, 1, 99.0, replace(A, learning_rate=0.1))
    made(store, 1, 99.0, replace(A, method="linear"))
    made(store, 1, 99.0, device="cuda")
    made(store, 1, 99.0, origin=Origin(first.id, "branched", "2"))
    stopped = made(store, 2, None, status=Status.STOPPED)
    other = made(store, 4, 99.0, weights="bbbbbbbbbbbb")
    found = repeats.repeats(store, first)
    assert [(r.seed, r.run.id, r.accuracy) for r in found.seeds] == [
        (0, first.id, 60.0), (2, stopped.id, None), (3, third.id, 66.0),
    ]  # fmt: skip
    assert [run.id for run, _ in found.excluded] == [other.id]
    assert "fingerprints" in found.excluded[0][1]
    assert [r.seed for r in found.done] == [0, 3]
    assert repeats.repeats(store, third).seeds == found.seeds, "whichever of them is asked"


def test_repeats_of_a_linear_probe_have_no_mask_to_share(store: RunStore) -> None:
    probe = made(store, 0, 60.0, replace(A, method="linear"))
    made(store, 1, 61.0, replace(A, method="linear", plan=dense()))
    assert [r.accuracy for r in repeats.repeats(store, probe).seeds] == [60.0, 61.0]


def test_mean_interval_and_deviation(store: RunStore) -> None:
    for seed, accuracy in enumerate((60.0, 63.0, 66.0)):
        run = made(store, seed, accuracy)
    found = repeats.repeats(store, run)
    reach = 4.303 * 3 / math.sqrt(3)
    assert found.statistics is not None
    assert (found.statistics.n, found.statistics.mean, found.statistics.deviation) == (3, 63.0, 3.0)
    assert (found.statistics.low, found.statistics.high) == (pytest.approx(63 - reach), pytest.approx(63 + reach))
    assert found.summary == (
        "63.0 % on average over 3 seeds (95 % interval 55.5 to 70.5 %); the standard deviation between seeds is 3.0 "
        "points."
    )
    assert (
        f"3.00 points: two single runs that differ only in the seed are up to {4.303 * 3 * 2**0.5:.1f} po"
        in found.noise
    )
    assert repeats.mean_and_interval(found.statistics) == "63.0 % (55.5 to 70.5)"


def test_words_for_few(store: RunStore) -> None:
    stopped = made(store, 0, None, status=Status.STOPPED)
    assert "has reached its last epoch yet" in repeats.repeats(store, stopped).summary
    assert repeats.mean_and_interval(None) == "–"
    assert repeats.repeats(store, stopped).statistics is None
    one = made(store, 1, 60.0)
    assert (
        "One run does not show the variation between seeds: repeat it with at least 3 seeds"
        in repeats.repeats(store, one).summary
    )
    assert repeats.mean_and_interval(repeats.repeats(store, one).statistics) == "60.0 %"
    made(store, 2, 60.0)
    assert repeats.repeats(store, one).noise == ""
    assert "All 2 seeds end at 60.0 %" in repeats.repeats(store, one).summary
    made(store, 3, 61.0)
    assert "Two seeds are few" not in repeats.repeats(store, one).summary


def test_a_run_that_goes_on_from_another_has_no_repeats(store: RunStore) -> None:
    run = made(store, 0, 60.0)
    child = made(store, 0, 61.0, origin=Origin(run.id, "branched", "2"))
    assert repeats.repeats(store, child).seeds == ()
    with pytest.raises(StoreError, match=f"was branched from a checkpoint of run {run.id}: repeat that one"):
        wanted(store, child.id, 3)


# ---------------------------------------------------------------- starting


def test_what_is_missing_starts_once(store: RunStore) -> None:
    first, fifth = made(store, 2, 60.0), made(store, 5, 61.0)
    made(store, 3, None, status=Status.STOPPED)  # would never have a last epoch
    todo = wanted(store, fifth.id, 4)
    assert starting(todo) == [3, 4]
    assert len(store.runs()) == 3
    assert [entry if isinstance(entry, Run) else entry.seed for entry in todo] == [first, 3, 4, fifth]
    found = launch_repeats(store, fifth.id, 4, owner="v1")
    assert [run.config.seed for run in found] == [2, 3, 4, 5]
    new = found[1]
    assert (new.status, new.owner, new.parent, new.relation) == (Status.QUEUED, "v1", fifth.id, "repeat")
    assert launch_repeats(store, first.id, 4) == found
    assert len(store.runs()) == 5
    assert starting(wanted(store, first.id, 2)) == []
    assert len(wanted(store, first.id, 2)) == 4


def test_runs_with_other_weights_are_neither_counted_nor_repeated(store: RunStore) -> None:
    run = made(store, 0)
    made(store, 1, weights="bbbbbbbbbbbb")
    assert starting(wanted(store, run.id, 2)) == [2]


def test_a_repeat_that_turned_out_unlike_is_not_tried_again(store: RunStore) -> None:
    run = made(store, 0)
    other = made(store, 1, weights="bbbbbbbbbbbb", origin=Origin(run.id, "repeat"))
    with pytest.raises(
        StoreError, match=f"run {other.id}, a repeat of run {run.id}, does not count because their weights differ"
    ):
        wanted(store, run.id, 2)
    assert starting(wanted(store, other.id, 2)) == [2], "it can be repeated itself"


def test_the_seed_draws_a_random_backbone_too(store: RunStore) -> None:
    config = replace(A, backbone="lab_vit_12x128.random")
    run = made(store, 0, 60.0, config)
    made(store, 1, 61.0, config, weights="bbbbbbbbbbbb")
    assert [r.seed for r in repeats.repeats(store, run).done] == [0, 1]


def test_a_run_that_is_being_stopped_is_not_counted_on(store: RunStore) -> None:
    run = made(store, 0)
    stopping = commands.launch(store, replace(A, seed=1), "", Origin(run.id, "repeat"))
    assert starting(wanted(store, run.id, 2)) == []
    store.move(stopping.id, Status.STOPPING)
    lock = locks.take(store.paths(stopping.id).lock)  # as its process holds it
    assert starting(wanted(store, run.id, 2)) == [1]
    os.close(lock)


def test_what_is_refused(store: RunStore) -> None:
    run = made(store, 0)
    for seeds in (0, 31, True, 2.0):
        with pytest.raises(ConfigError, match="a whole number from 1 to 30"):
            launch_repeats(store, run.id, seeds)
    limited = made(store, 0, 60.0, replace(A, max_seconds=5))
    with pytest.raises(ConfigError, match="stops after 5 seconds"):
        launch_repeats(store, limited.id, 2)
    elsewhere = {"cpu": "cuda", "cuda": "cpu"}[devices.kind("auto")]
    imported = made(store, 0, 60.0, replace(A, device="auto"), device=elsewhere)
    with pytest.raises(
        StoreError, match=f"ran on {elsewhere} and this machine would repeat it on {devices.kind('auto')}"
    ):
        launch_repeats(store, imported.id, 2)
    with pytest.raises(StoreError, match="is not in"):
        launch_repeats(store, "aaaaaaaa", 2)
    last = made(store, 2**31 - 1, config=replace(A, warmup=0.1))
    with pytest.raises(ConfigError, match="seed is 2147483648"):
        launch_repeats(store, last.id, 2)
    assert len(store.runs()) == 4


def test_masks_to_stand_beside_it(store: RunStore) -> None:
    run = made(store, 1)
    same_seed = made(store, 1, config=replace(A, plan=dense()))
    made(store, 2, config=replace(A, plan=dense()))
    made(store, 0, config=replace(A, plan=uniform(0.2)))
    newest = made(store, 2, config=replace(A, plan=uniform(0.2)))
    made(store, 1, config=replace(A, plan=uniform(0.7), learning_rate=0.1))
    made(store, 2)
    assert pairs.other_masks(store, run) == [newest, same_seed]
    assert pairs.other_masks(store, made(store, 1, config=replace(A, method="linear"))) == []
