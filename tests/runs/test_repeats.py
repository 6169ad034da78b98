"""Repeats of a run over seeds: which runs count, their statistics, what starts. Expected values computed by hand."""

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

A = RunConfig("digits", uniform(0.5), epochs=4, evaluations=2, device="cpu")  # evaluated after epochs 2 and 4
pytestmark = pytest.mark.usefixtures("no_supervisor")  # runs stay queued, no process starts


def finished_run(
    store: RunStore,
    seed: int,
    last: float | None = 60.0,
    config: RunConfig = A,
    status: Status = Status.FINISHED,
    weights: str = "aaaaaaaaaaaa",
    device: str = "cpu",
    **more: Any,
) -> Run:
    """A run of this seed that ends at this accuracy; None: it was stopped after an evaluation."""
    run = store.enqueue(replace(config, seed=seed), device, **more)
    return measured(store, run, 50.0, *([] if last is None else [last]), status=status, weights=weights)


def test_repeats_differ_in_the_seed_only(store: RunStore) -> None:
    first, third = finished_run(store, 0, 60.0), finished_run(store, 3, 66.0)
    finished_run(store, 1, 99.0, replace(A, plan=dense()))
    finished_run(store, 1, 99.0, replace(A, learning_rate=0.1))
    finished_run(store, 1, 99.0, replace(A, method="linear"))
    finished_run(store, 1, 99.0, device="cuda")
    finished_run(store, 1, 99.0, origin=Origin(first.id, "branched", "2"))
    stopped = finished_run(store, 2, None, status=Status.STOPPED)
    other = finished_run(store, 4, 99.0, weights="bbbbbbbbbbbb")
    result = repeats.repeats(store, first)
    assert [(r.seed, r.run.id, r.accuracy) for r in result.seeds] == [
        (0, first.id, 60.0), (2, stopped.id, None), (3, third.id, 66.0),
    ]  # fmt: skip
    assert [run.id for run, _ in result.excluded] == [other.id]
    assert "fingerprints" in result.excluded[0][1]
    assert [r.seed for r in result.done] == [0, 3]
    assert repeats.repeats(store, third).seeds == result.seeds, "whichever of them is asked"


def test_repeats_of_a_linear_probe(store: RunStore) -> None:
    probe = finished_run(store, 0, 60.0, replace(A, method="linear"))
    finished_run(store, 1, 61.0, replace(A, method="linear", plan=dense()))
    assert [r.accuracy for r in repeats.repeats(store, probe).seeds] == [60.0, 61.0]


def test_mean_interval_and_deviation(store: RunStore) -> None:
    for seed, accuracy in enumerate((60.0, 63.0, 66.0)):
        run = finished_run(store, seed, accuracy)
    result = repeats.repeats(store, run)
    reach = 4.30265273 * 3 / math.sqrt(3)
    assert result.statistics is not None
    assert (result.statistics.n, result.statistics.mean, result.statistics.deviation) == (3, 63.0, 3.0)
    assert (result.statistics.low, result.statistics.high) == (pytest.approx(63 - reach), pytest.approx(63 + reach))
    assert result.summary == (
        "63.0 % on average over 3 seeds (95 % interval 55.5 to 70.5 %); the standard deviation between seeds is 3.0 "
        "points."
    )
    assert (
        f"3.00 points: two single runs that differ only in the seed are up to {4.30265273 * 3 * 2**0.5:.1f} po"
        in result.noise
    )
    assert repeats.mean_and_interval(result.statistics) == "63.0 % (55.5 to 70.5)"


def test_summaries_of_few_seeds(store: RunStore) -> None:
    stopped = finished_run(store, 0, None, status=Status.STOPPED)
    assert "has reached its last epoch yet" in repeats.repeats(store, stopped).summary
    assert repeats.mean_and_interval(None) == "–"
    assert repeats.repeats(store, stopped).statistics is None
    single = finished_run(store, 1, 60.0)
    assert (
        "One run does not show the variation between seeds: repeat it with at least 3 seeds"
        in repeats.repeats(store, single).summary
    )
    assert repeats.mean_and_interval(repeats.repeats(store, single).statistics) == "60.0 %"
    finished_run(store, 2, 60.0)
    assert repeats.repeats(store, single).noise == ""
    assert "All 2 seeds end at 60.0 %" in repeats.repeats(store, single).summary
    finished_run(store, 3, 61.0)
    assert "Two seeds are few" not in repeats.repeats(store, single).summary


def test_a_branched_run_has_no_repeats(store: RunStore) -> None:
    run = finished_run(store, 0, 60.0)
    child = finished_run(store, 0, 61.0, origin=Origin(run.id, "branched", "2"))
    assert repeats.repeats(store, child).seeds == ()
    with pytest.raises(StoreError, match=f"was branched from a checkpoint of run {run.id}: repeat that run"):
        wanted(store, child.id, 3)


# ---------------------------------------------------------------- launch


def test_missing_seeds_start_once(store: RunStore) -> None:
    first, fifth = finished_run(store, 2, 60.0), finished_run(store, 5, 61.0)
    finished_run(store, 3, None, status=Status.STOPPED)  # never reaches its last epoch
    todo = wanted(store, fifth.id, 4)
    assert starting(todo) == [3, 4]
    assert len(store.runs()) == 3
    assert [entry if isinstance(entry, Run) else entry.seed for entry in todo] == [first, 3, 4, fifth]
    launched = launch_repeats(store, fifth.id, 4, owner="v1")
    assert [run.config.seed for run in launched] == [2, 3, 4, 5]
    new = launched[1]
    assert (new.status, new.owner, new.parent, new.relation) == (Status.QUEUED, "v1", fifth.id, "repeat")
    assert launch_repeats(store, first.id, 4) == launched
    assert len(store.runs()) == 5
    assert starting(wanted(store, first.id, 2)) == []
    assert len(wanted(store, first.id, 2)) == 4


def test_runs_with_other_weights_are_excluded(store: RunStore) -> None:
    run = finished_run(store, 0)
    finished_run(store, 1, weights="bbbbbbbbbbbb")
    assert starting(wanted(store, run.id, 2)) == [2]


def test_after_an_excluded_repeat_no_further_one_starts(store: RunStore) -> None:
    run = finished_run(store, 0)
    other = finished_run(store, 1, weights="bbbbbbbbbbbb", origin=Origin(run.id, "repeat"))
    with pytest.raises(
        StoreError, match=f"run {other.id}, a repeat of run {run.id}, does not count because their weights differ"
    ):
        wanted(store, run.id, 2)
    assert starting(wanted(store, other.id, 2)) == [2], "it can be repeated itself"


def test_the_seed_determines_a_random_backbone(store: RunStore) -> None:
    config = replace(A, backbone="lab_vit_12x128.random")
    run = finished_run(store, 0, 60.0, config)
    finished_run(store, 1, 61.0, config, weights="bbbbbbbbbbbb")
    assert [r.seed for r in repeats.repeats(store, run).done] == [0, 1]


def test_a_stopping_run_is_not_reused(store: RunStore) -> None:
    run = finished_run(store, 0)
    stopping = commands.launch(store, replace(A, seed=1), "", Origin(run.id, "repeat"))
    assert starting(wanted(store, run.id, 2)) == []
    store.move(stopping.id, Status.STOPPING)
    lock = locks.take(store.paths(stopping.id).lock)  # as its process does
    assert starting(wanted(store, run.id, 2)) == [1]
    os.close(lock)


def test_invalid_requests(store: RunStore) -> None:
    run = finished_run(store, 0)
    for seeds in (0, 31, True, 2.0):
        with pytest.raises(ConfigError, match="a whole number from 1 to 30"):
            launch_repeats(store, run.id, seeds)
    limited = finished_run(store, 0, 60.0, replace(A, max_seconds=5))
    with pytest.raises(ConfigError, match="stops after 5 seconds"):
        launch_repeats(store, limited.id, 2)
    elsewhere = {"cpu": "cuda", "cuda": "cpu"}[devices.kind("auto")]
    imported = finished_run(store, 0, 60.0, replace(A, device="auto"), device=elsewhere)
    with pytest.raises(
        StoreError, match=f"ran on {elsewhere} and this machine would repeat it on {devices.kind('auto')}"
    ):
        launch_repeats(store, imported.id, 2)
    with pytest.raises(StoreError, match="is not in"):
        launch_repeats(store, "aaaaaaaa", 2)
    last = finished_run(store, 2**31 - 1, config=replace(A, warmup=0.1))
    with pytest.raises(ConfigError, match="seed is 2147483648"):
        launch_repeats(store, last.id, 2)
    assert len(store.runs()) == 4


def test_other_masks_of_the_same_settings(store: RunStore) -> None:
    run = finished_run(store, 1)
    same_seed = finished_run(store, 1, config=replace(A, plan=dense()))
    finished_run(store, 2, config=replace(A, plan=dense()))
    finished_run(store, 0, config=replace(A, plan=uniform(0.2)))
    newest = finished_run(store, 2, config=replace(A, plan=uniform(0.2)))
    finished_run(store, 1, config=replace(A, plan=uniform(0.7), learning_rate=0.1))
    finished_run(store, 2)
    assert pairs.other_masks(store, run) == [newest, same_seed]
    assert pairs.other_masks(store, finished_run(store, 1, config=replace(A, method="linear"))) == []
