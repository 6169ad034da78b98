"""Presets in a store: what starts, what is reused, and the study that existing runs make. Nothing trains here."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from mlae_lab import locks
from mlae_lab.core import events as ev
from mlae_lab.core import image_labels, study_presets
from mlae_lab.core.catalog import CatalogError
from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.patterns import dense, uniform
from mlae_lab.core.study import Study
from mlae_lab.runs import commands, devices, presets, studies, study_results
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, Run, RunStore, StoreError
from tests.lab import measured

A = RunConfig("digits", uniform(0.5), epochs=4, evaluations=2, device="cpu")  # evaluated after epochs 2 and 4
B = replace(A, plan=dense())
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


def starting(store: RunStore, study: Study) -> list[int]:
    """The seeds of the runs that a study would start."""
    return [cell.seed for cell, run in studies.reusable(store, study) if run is None]


# ---------------------------------------------------------------- start


def test_a_second_launch_starts_nothing_and_more_seeds_extend_the_study(store: RunStore) -> None:
    race = study_presets.race(replace(A, seed=5), [dense(), uniform(0.5)], 1)
    first = presets.launch(store, race, "ada")
    runs = store.runs()
    assert {(run.relation, run.source, run.owner, run.parent) for run in runs} == {("study", first.id, "ada", "")}
    again = presets.launch(store, replace(race, title="another title"), "ada")
    assert (again, store.runs()) == (first, runs)
    more = presets.launch(store, replace(race, seeds=(5, 9)), "ada")
    assert (more.id, more.version, more.study.seeds, len(store.runs())) == (first.id, 2, (5, 9), 4)
    assert [(run.config.plan, run.config.seed) for run in presets.runs_of(store, first.id, race)] == [
        (dense(), 5),
        (uniform(0.5), 5),
    ]
    others = presets.launch(store, race, "bob")
    assert others.id != first.id, "nobody extends the study of another person"
    assert len(store.runs()) == 4, "equal runs are shared"
    turned = presets.launch(store, study_presets.race(replace(A, seed=5), [uniform(0.5), dense()]), "ada")
    assert turned.id != first.id, "another reference is another study"


def test_two_requests_at_the_same_moment_make_one_study(store: RunStore) -> None:
    race = study_presets.race(A, [dense(), uniform(0.5)], 2)
    with ThreadPoolExecutor(4) as pool:
        names = {stored.id for stored in pool.map(lambda _: presets.launch(RunStore(store.folder), race), range(4))}
    assert len(names) == len(store.studies()) == 1
    assert len(store.runs()) == 4


def test_a_request_for_one_seed_leaves_what_was_stopped_of_others(store: RunStore) -> None:
    race = study_presets.race(replace(A, seed=5), [dense(), uniform(0.5)], 3)
    stored = presets.launch(store, race)
    studies.stop(store, stored.id)
    assert store.open_runs() == []
    presets.launch(store, replace(race, seeds=(5,)))
    assert {run.config.seed for run in store.open_runs()} == {5}


def test_a_run_of_another_precision_is_not_reused(store: RunStore) -> None:
    old, new = finished_run(store, 0), store.enqueue(B, "cpu")
    started = ev.Started(1, 1, 1, 800, 200, 52, "cpu", "bfloat16", 0.1, weights="aaaaaaaaaaaa")
    store.append(new.id, [started, ev.Evaluation(4, 52, "val", 60.0, 1.0, 1.0)])
    store.move(new.id, Status.FINISHED)
    assert [run and run.id for _, run in studies.reusable(store, presets.pair(store, old, B.plan, 1))] == [None, new.id]


def test_a_study_on_other_images_is_another_one(store: RunStore) -> None:
    own = replace(A, data_label="own images, 14/5/5", data_fingerprint="0" * 12)
    first = presets.launch(store, study_presets.repeats(own, (0,)))
    other = presets.launch(store, study_presets.repeats(replace(own, data_fingerprint="1" * 12), (0,)))
    assert first.id != other.id
    assert len(store.runs()) == 2


def test_a_pair_reuses_the_runs_that_are_there(store: RunStore) -> None:
    a = finished_run(store, 0)
    existing = finished_run(store, 1, config=B)
    finished_run(store, 1, None, status=Status.STOPPED)  # never reaches its last epoch
    study = presets.pair(store, a, dense(), 2)
    assert [(cell.config.plan, cell.seed) for cell in study.cells()] == [
        (p, s) for s in (0, 1) for p in (A.plan, B.plan)
    ]
    name = presets.launch(store, study, "v1").id
    launched = presets.runs_of(store, name, study)
    assert (launched[0], launched[3]) == (a, existing)
    assert {(run.status, run.owner, run.relation) for run in launched[1:3]} == {(Status.QUEUED, "v1", "study")}
    assert presets.launch(store, study, "v1").version == 1
    assert len(store.open_runs()) == 2
    rank = presets.pair(store, a, replace(dense(), expert_rank=2), 1)
    assert rank.arms[1].config.plan.expert_rank == 2


def test_masks_have_their_saved_names(store: RunStore) -> None:
    store.save_plan("Mine", A.plan)
    assert [arm.name for arm in presets.pair(store, finished_run(store, 0), dense()).arms] == ["Mine", "Dense"]


def test_a_run_on_weights_that_were_replaced_is_not_reused(store: RunStore) -> None:
    old = finished_run(store, 0)
    new = finished_run(store, 0, config=B, weights="bbbbbbbbbbbb")
    study = presets.pair(store, old, B.plan, 1)
    assert [run for _, run in studies.reusable(store, study)] == [None, new]
    name = presets.launch(store, study).id
    first, second = presets.runs_of(store, name, study)
    assert (first.status, second) == (Status.QUEUED, new)
    measured(store, first, 50.0, 60.0, weights="bbbbbbbbbbbb")
    presets.launch(store, study)
    assert len(store.runs()) == 3


def test_the_seed_determines_a_random_backbone(store: RunStore) -> None:
    config = replace(A, backbone="lab_vit_12x128.random")
    run = finished_run(store, 0, 60.0, config)
    finished_run(store, 1, 61.0, config, weights="bbbbbbbbbbbb")
    assert [cell.seed for cell in presets.alone(store, run).state.cells] == [0, 1]
    assert starting(store, presets.repeats(store, run, 2)) == []


@pytest.mark.parametrize("seeds", [0, 31, True, 2.0])
def test_repeats_refuse_a_wrong_number_of_seeds(seeds: Any, store: RunStore) -> None:
    with pytest.raises(ConfigError, match="a whole number from 1 to 30"):
        presets.repeats(store, finished_run(store, 0), seeds)


def test_what_cannot_be_repeated_or_paired(store: RunStore) -> None:
    run = finished_run(store, 0)
    with pytest.raises(ConfigError, match="this is the mask of run"):
        presets.pair(store, run, A.plan)
    with pytest.raises(CatalogError, match=r"blocks\.12\.attn\.qkv is not a linear layer"):
        presets.pair(store, run, replace(dense(13), expert_rank=2))
    probe = finished_run(store, 0, config=replace(A, method="linear"))
    with pytest.raises(ConfigError, match=r"\(linear probe\) has no mask"):
        presets.pair(store, probe, dense())
    limited = finished_run(store, 0, 60.0, replace(A, max_seconds=5))
    child = finished_run(store, 0, 61.0, origin=Origin(run.id, "branched", "2"))
    elsewhere = {"cpu": "cuda", "cuda": "cpu"}[devices.kind("auto")]
    imported = finished_run(store, 0, 60.0, replace(A, device="auto"), device=elsewhere)
    last = finished_run(store, 2**31 - 1, config=replace(A, warmup=0.1))
    for other, error, why in (
        (limited, ConfigError, "has a time limit of 5 seconds"),
        (child, StoreError, f"was branched from a checkpoint of run {run.id}: repeat that run"),
        (imported, StoreError, f"ran on {elsewhere} and this machine would repeat it on {devices.kind('auto')}"),
        (last, ConfigError, "seed is 2147483648"),
    ):
        with pytest.raises(error, match=why):
            presets.repeats(store, other, 2)
    assert presets.alone(store, limited).state.done == 1
    assert presets.alone(store, child).runs == []


# ---------------------------------------------------------------- repeats


def test_missing_seeds_start_once(store: RunStore) -> None:
    first, fifth = finished_run(store, 2, 60.0), finished_run(store, 5, 61.0)
    finished_run(store, 3, None, status=Status.STOPPED)  # never reaches its last epoch
    study = presets.repeats(store, fifth, 4)
    assert (study.seeds, starting(store, study), len(store.runs())) == ((2, 3, 4, 5), [3, 4], 3)
    name = presets.launch(store, study, "v1").id
    launched = presets.runs_of(store, name, study)
    assert (launched[0], launched[3]) == (first, fifth)
    assert (launched[1].status, launched[1].owner, launched[1].source) == (Status.QUEUED, "v1", name)
    assert starting(store, presets.repeats(store, first, 4)) == []
    assert presets.launch(store, presets.repeats(store, first, 4), "v1").id == name
    assert len(store.runs()) == 5
    assert presets.repeats(store, first, 2).seeds == (2, 3, 4, 5)


def test_after_a_repeat_on_other_weights_no_further_one_starts(store: RunStore) -> None:
    run = finished_run(store, 0)
    other = finished_run(store, 1, weights="bbbbbbbbbbbb", origin=Origin(relation="study", source="abcd2345"))
    with pytest.raises(StoreError, match=f"run {other.id}, .* does not count because their weights differ"):
        presets.repeats(store, run, 2)
    assert starting(store, presets.repeats(store, other, 2)) == [2], "it can be repeated itself"


def test_a_stopping_run_is_not_reused(store: RunStore) -> None:
    run = finished_run(store, 0)
    stopping = commands.launch(store, replace(A, seed=1))
    assert starting(store, presets.repeats(store, run, 2)) == []
    store.move(stopping.id, Status.STOPPING)
    lock = locks.take(store.paths(stopping.id).lock)  # as its process does
    assert starting(store, presets.repeats(store, run, 2)) == [1]
    assert lock is not None
    os.close(lock)


def test_new_runs_have_the_label_of_the_latest_images_and_no_note_of_the_change(store: RunStore) -> None:
    new = "own images, 15/5/5"
    notes = (image_labels.change_note("own images, 14/5/5", new), "25 images")
    label = image_labels.mixed("own images, 14/5/5", new)
    run = finished_run(store, 0, config=replace(A, data_label=label, data_notes=notes, data_fingerprint="0" * 12))
    for study in (presets.pair(store, run, dense()), presets.repeats(store, run, 2)):
        config = study.arms[-1].config
        assert (config.data_label, config.data_notes, config.data_fingerprint) == (new, ("25 images",), "0" * 12)


# ---------------------------------------------------------------- what the store has


def test_repeats_differ_in_the_seed_only(store: RunStore) -> None:
    first, third = finished_run(store, 0, 60.0), finished_run(store, 3, 66.0)
    finished_run(store, 1, 99.0, B)
    finished_run(store, 1, 99.0, replace(A, learning_rate=0.1))
    finished_run(store, 1, 99.0, replace(A, method="linear"))
    finished_run(store, 1, 99.0, device="cuda")
    finished_run(store, 1, 99.0, origin=Origin(first.id, "branched", "2"))
    stopped = finished_run(store, 2, None, status=Status.STOPPED)
    other = finished_run(store, 4, 99.0, weights="bbbbbbbbbbbb")
    known = presets.alone(store, first)
    assert [(cell.seed, cell.run and cell.run.id, cell.accuracy) for cell in known.state.cells] == [
        (0, first.id, 60.0), (2, stopped.id, None), (3, third.id, 66.0),
    ]  # fmt: skip
    ((run, reason),) = known.excluded
    assert (run.id, "fingerprints" in reason) == (other.id, True)
    assert starting(store, presets.repeats(store, first, 3)) == [1], "the excluded seed is left out"
    assert presets.alone(store, third).state.cells == known.state.cells, "whichever of them is asked"
    results = study_results.results(store, known.state)
    assert results.verdict.startswith("Uniform, p = 0.5 reaches 63.0 % (95 % interval 24.9 to 100.0 %, 2 seeds).")
    assert "4.24 points: two single runs that differ only in the seed are up to" in study_results.noise(
        results.arms[0].statistics
    )


def test_one_seed_gives_no_noise(store: RunStore) -> None:
    results = study_results.results(store, presets.alone(store, finished_run(store, 0)).state)
    assert "One run does not show the variation between seeds" in results.verdict
    assert study_results.noise(results.arms[0].statistics) == ""
    assert study_results.mean_and_interval(results.arms[0]) == "60.0 %"


def test_of_several_runs_the_one_that_got_furthest_counts_then_the_newest(store: RunStore) -> None:
    a = finished_run(store, 0)
    old = finished_run(store, 0, 61.0, B)
    finished_run(store, 0, None, B, Status.STOPPED)
    waits = store.enqueue(B, "cpu")
    known = presets.compared(store, a, waits)
    assert known is not None
    assert known.run("B", 0) == old
    newer = finished_run(store, 0, 63.0, B)
    known = presets.compared(store, a, waits)
    assert known is not None
    assert known.run("B", 0) == newer


def test_two_runs_of_a_seed_are_compared_with_each_other_too(store: RunStore) -> None:
    a = finished_run(store, 0, weights="")  # of version 0.5, which recorded no weights
    b = finished_run(store, 1, 61.0, B, weights="bbbbbbbbbbbb")
    old = finished_run(store, 1, 62.0, weights="aaaaaaaaaaaa")
    known = presets.compared(store, a, b)
    assert known is not None
    assert (known.run("A", 1), known.run("B", 1)) == (old, None)
    ((run, reason),) = known.excluded
    assert (run, "aaaaaaaaaaaa and bbbbbbbbbbbb" in reason) == (b, True)
    same = finished_run(store, 1, 63.0, B, weights="aaaaaaaaaaaa")
    known = presets.compared(store, a, b)
    assert known is not None
    assert (known.run("B", 1), known.excluded) == (same, ())


def test_two_masks_are_compared_over_all_seeds_of_the_store(store: RunStore) -> None:
    a, b = finished_run(store, 0), finished_run(store, 1, 62.0, B)
    finished_run(store, 1)
    finished_run(store, 7)
    finished_run(store, 0, 61.0, B)
    known = presets.compared(store, a, b)
    assert known is not None
    assert known.state.stored.study.seeds == (0, 1, 7)
    assert known.state.values == {"A": {0: 60.0, 1: 60.0, 7: 60.0}, "B": {0: 61.0, 1: 62.0}}
    assert presets.compared(store, a, finished_run(store, 0, config=replace(B, epochs=6))) is None
    assert presets.pair_with_seeds(store, a, b, known).seeds == (0, 1, 2), "one more than there are pairs"
    assert presets.pair_with_seeds(store, a, b, None).seeds == (0,)
