"""Paired runs: which runs are a pair, the pairs of a store, their difference. Expected values computed by hand."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import pytest

from mlae_lab import locks
from mlae_lab.core import events as ev
from mlae_lab.core import image_labels
from mlae_lab.core.catalog import CatalogError
from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.patterns import dense, pattern, uniform
from mlae_lab.runs import commands, devices, pairs
from mlae_lab.runs.repeats import launch_repeats
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, Run, RunStore, StoreError

A = RunConfig("digits", uniform(0.5), epochs=4, evaluations=2, device="cpu")  # evaluated after epochs 2 and 4
B = replace(A, plan=dense())
C = replace(A, plan=uniform(0.25))
PER_EPOCH = 13  # 800 images in batches of 64
pytestmark = pytest.mark.usefixtures("no_supervisor")  # runs stay queued, no process starts


def finished_run(
    store: RunStore,
    config: RunConfig,
    accuracies: dict[int, float],
    status: Status = Status.FINISHED,
    weights: str = "aaaaaaaaaaaa",
    **more: object,
) -> Run:
    """A run with these accuracies after complete epochs."""
    run = store.enqueue(config, str(more.pop("device", "cpu")), **more)  # type: ignore[arg-type]
    started = ev.Started(1, 1, 1, 800, 200, 52, "cpu", "float32", 0.1, weights=weights)
    store.append(run.id, [started, *(measured(epoch, value) for epoch, value in accuracies.items())])
    if status is not Status.QUEUED:
        store.move(run.id, status)
    return store.run(run.id)


def measured(epoch: int, accuracy: float, step: int | None = None) -> ev.Evaluation:
    return ev.Evaluation(epoch, epoch * PER_EPOCH if step is None else step, "val", accuracy, 1.0, 1.0)


def three_seeds(store: RunStore) -> tuple[Run, Run]:
    """Differences of 1, 2 and 6 points at the end: mean 3, deviation sqrt(7)."""
    for seed, (first, last) in enumerate([(0.0, 1.0), (1.0, 2.0), (-1.0, 6.0)]):
        a = finished_run(store, replace(A, seed=seed), {2: 50.0, 4: 60.0 + seed})
        b = finished_run(store, replace(B, seed=seed), {2: 50.0 + first, 4: 60.0 + seed + last})
    return a, b


# ---------------------------------------------------------------- what a pair is


def test_only_the_mask_may_differ() -> None:
    assert pairs.is_paired(A, B)
    assert pairs.unpaired_because(A, replace(B, learning_rate=1e-3)) == "their learning rates differ: 0.0005 and 0.001"
    assert pairs.unpaired_because(A, replace(B, seed=3)) == "their seeds differ: 0 and 3"
    two = pairs.unpaired_because(A, replace(B, seed=3, batch_size=32))
    assert two is not None
    assert "batch sizes differ: 64 and 32" in two
    assert "seeds differ: 0 and 3" in two
    assert pairs.unpaired_because(A, A) == "their masks are the same"
    probe = replace(A, method="linear")
    assert pairs.unpaired_because(A, probe) == "B (linear probe) has no mask"
    assert "A (linear probe) has no mask" in str(pairs.unpaired_because(probe, B))
    assert "A (linear probe) and B (linear probe) have no mask" in str(
        pairs.unpaired_because(probe, replace(probe, plan=dense()))
    )


def test_every_differing_setting_is_named() -> None:
    others = {"task": "fashion", "backbone": "lab_vit_12x128.random", "protocol": "test", "epochs": 9,
              "max_seconds": 5.0, "weight_decay": 0.1, "warmup": 0.1, "evaluations": 3,
              "precision": "float32", "data_label": "own images", "weights": "w.npz",
              "normalisation": "imagenet"}  # fmt: skip
    for name, value in others.items():
        assert " differ: " in str(pairs.unpaired_because(A, replace(B, **{name: value}))), name


def test_the_folder_of_images_and_the_spelling_of_a_device_do_not_count() -> None:
    assert pairs.is_paired(A, replace(B, data="/elsewhere"))
    assert pairs.is_paired(replace(A, device="auto"), replace(B, device=devices.kind("auto")))
    assert pairs.unpaired_because(A, replace(B, device="cuda")) == "their devices differ: cpu and cuda"


def test_runs_with_a_time_limit_are_not_a_pair() -> None:
    reason = pairs.unpaired_because(replace(A, max_seconds=60), replace(B, max_seconds=60))
    assert reason is not None
    assert "60 seconds" in reason
    assert "learning rate depends on the time" in reason


def test_branched_runs_and_runs_of_other_weights_are_not_a_pair(store: RunStore) -> None:
    a = finished_run(store, A, {4: 60.0})
    assert pairs.unpaired_runs_because(store, a, finished_run(store, B, {4: 61.0})) is None
    on = finished_run(store, B, {4: 61.0}, origin=Origin(a.id, "branched", "2"))
    assert "was branched from a checkpoint" in str(pairs.unpaired_runs_because(store, a, on))
    other = finished_run(store, B, {4: 61.0}, weights="bbbbbbbbbbbb")
    assert "fingerprints aaaaaaaaaaaa and bbbbbbbbbbbb" in str(pairs.unpaired_runs_because(store, a, other))
    assert "devices differ: cpu and cuda" in str(
        pairs.unpaired_runs_because(store, a, finished_run(store, B, {4: 61.0}, device="cuda"))
    )


def test_plans_may_differ_in_more_than_cells() -> None:
    assert pairs.beyond_the_cells(uniform(0.5), dense()) == []
    sentences = pairs.beyond_the_cells(uniform(0.5), replace(dense(), expert_rank=2, coefficient_init=4.0))
    assert len(sentences) == 2
    assert "rank 1 in A and 2 in B" in sentences[0]
    assert "initial λ is 1 in A and 4 in B" in sentences[1]
    assert pairs.is_paired(A, replace(B, plan=replace(dense(), expert_rank=2)))


# ---------------------------------------------------------------- families


def test_a_family_is_all_seeds_of_both_masks(store: RunStore) -> None:
    a, b = three_seeds(store)
    finished_run(store, replace(A, seed=7), {2: 50.0, 4: 60.0})  # no partner
    finished_run(store, replace(B, seed=8), {2: 50.0, 4: 60.0})
    finished_run(store, replace(B, seed=7, learning_rate=0.1), {2: 50.0, 4: 99.0})  # of another family
    finished_run(store, replace(B, seed=7), {}, Status.FAILED)  # never evaluated
    finished_run(store, replace(B, seed=7), {4: 99.0}, origin=Origin(a.id, "branched", "2"))
    family = pairs.family(store, a, b)
    assert [pair.seed for pair in family] == [0, 1, 2]
    assert family[-1].difference == ((2, -1.0), (4, 6.0))
    assert all(pair.is_complete for pair in family)
    assert [pair.difference[-1][1] for pair in pairs.family(store, b, a)] == [-1.0, -2.0, -6.0]
    across = pairs.family(store, pairs.family(store, a, b)[0].a, b)  # other seeds, same family
    assert across == family
    assert set(pairs.sides(store, a, b)) == {0, 1, 2, 7, 8}
    assert pairs.sides(store, a, b)[7][1] is None
    assert pairs.family(store, a, finished_run(store, replace(B, epochs=5), {2: 1.0})) == []
    assert pairs.family(store, a, a) == []


def test_of_several_runs_the_one_that_got_furthest_counts_then_the_newest(store: RunStore) -> None:
    a = finished_run(store, A, {2: 50.0, 4: 60.0})
    old = finished_run(store, B, {2: 51.0, 4: 61.0})
    finished_run(store, B, {2: 52.0}, Status.STOPPED)
    b = store.enqueue(B, "cpu")
    assert pairs.family(store, a, b)[0].b == old
    newer = finished_run(store, B, {2: 53.0, 4: 63.0})
    assert pairs.family(store, a, b)[0].b == newer


def test_a_pair_of_which_one_was_stopped_is_incomplete(store: RunStore) -> None:
    a = finished_run(store, A, {2: 50.0, 4: 60.0})
    b = finished_run(store, B, {2: 54.0}, Status.STOPPED)
    (pair,) = pairs.family(store, a, b)
    assert pair.difference == ((2, 4.0),)
    assert not pair.is_complete
    difference = pairs.difference([pair])
    assert difference.last is None
    assert "After epoch 2 of 4 B is 4.0 points above A" in difference.verdict


def test_runs_with_other_weights_are_left_out_of_a_family(store: RunStore) -> None:
    a = finished_run(store, A, {4: 60.0})
    b = finished_run(store, B, {4: 61.0}, weights="bbbbbbbbbbbb")
    assert pairs.family(store, a, b) == []
    assert set(pairs.sides(store, a, b)) == {0}


def images(config: RunConfig, fingerprint: str, notes: tuple[str, ...] = ()) -> RunConfig:
    return replace(config, data_label="own images, 14/5/5", data_fingerprint=fingerprint, data_notes=notes)


def test_a_family_has_the_same_images_or_images_without_a_fingerprint(store: RunStore) -> None:
    """What no hash holds does not matter; version 0.5 recorded no fingerprint."""
    a = finished_run(store, images(A, "0" * 12, ("20 images",)), {4: 60.0})
    other = finished_run(store, images(replace(A, seed=1), "1" * 12), {4: 61.0})
    earlier = finished_run(store, images(replace(A, seed=2), ""), {4: 62.0})
    moved = finished_run(store, replace(images(replace(A, seed=3), "0" * 12), data="/images"), {4: 63.0})
    assert pairs.by_seed(store, a) == {0: a, 2: earlier, 3: moved}
    assert list(pairs.by_seed(store, other)) == [1, 2]
    same, _ = finished_run(store, images(B, "0" * 12), {4: 60.0}), finished_run(store, images(C, "1" * 12), {4: 60.0})
    assert pairs.other_masks(store, a) == [same]
    assert "their images differ: fingerprints" in (pairs.unlike_because(store, a, other) or "")
    assert pairs.unlike_because(store, a, earlier) is None


def test_new_runs_have_the_label_of_the_latest_images_and_no_note_of_the_change(store: RunStore) -> None:
    new = "own images, 15/5/5"
    mixed = image_labels.mixed("own images, 14/5/5", new)
    notes = (image_labels.change_note("own images, 14/5/5", new), "25 images")
    config = replace(images(A, "0" * 12, notes), data_label=mixed)
    a = finished_run(store, config, {4: 60.0})
    clean = finished_run(store, replace(config, data_label=new, data_notes=("25 images",)), {4: 60.0})
    entries = pairs.wanted(store, a.id, B.plan)
    assert entries[0] == clean, "the mixed run is no partner of a run on the latest images"
    launched = pairs.launch_pair(store, a.id, B.plan)
    assert (launched[1].config.data_label, launched[1].config.data_notes) == (new, ("25 images",))
    (_, repeat) = launch_repeats(store, a.id, 2)
    assert (repeat.config.data_label, repeat.config.data_notes) == (new, ("25 images",))
    rerun = commands.rerun(store, a.id)
    assert (rerun.config.data_label, rerun.config.data_notes) == (new, ("25 images",))
    assert rerun.config.data_fingerprint == "0" * 12


# ---------------------------------------------------------------- the difference


def test_mean_deviation_and_interval_of_three_seeds(store: RunStore) -> None:
    difference = pairs.difference(pairs.family(store, *three_seeds(store)))
    early, last = difference.over_epochs
    assert (early.epoch, early.n, early.mean, early.deviation) == (2, 3, 0.0, 1.0)
    assert last == difference.last
    assert (last.epoch, last.n, last.mean, last.minimum, last.maximum) == (4, 3, pytest.approx(3.0), 1.0, 6.0)
    assert last.deviation == pytest.approx(math.sqrt(7))
    reach = 4.30265273 * math.sqrt(7) / math.sqrt(3)
    assert (last.low, last.high) == (pytest.approx(3 - reach), pytest.approx(3 + reach))
    assert difference.verdict == (
        "The difference is within the seed noise: +3.0 points, 95 % interval −3.6 to +9.6, 3 pairs."
    )


def test_a_pair_that_ends_early_is_left_out_of_later_epochs(store: RunStore) -> None:
    a, b = three_seeds(store)
    finished_run(store, replace(A, seed=3), {2: 50.0, 4: 60.0})
    finished_run(store, replace(B, seed=3), {2: 58.0}, Status.LOST)
    difference = pairs.difference(pairs.family(store, a, b))
    assert [s.n for s in difference.over_epochs] == [4, 3]
    assert difference.over_epochs[0].mean == 2.0
    assert difference.last.n == 3


def verdict(*last: float) -> str:
    """The verdict of pairs with these last differences."""
    run = Run("aaaaaaaa", 0.0, A, A.hash, Status.FINISHED, "", "cpu", None, None, None)
    family = [pairs.Pair(s, run, run, ((4, 50.0),), ((4, 50.0 + value),), 4) for s, value in enumerate(last)]
    return pairs.difference(family).verdict


def test_verdicts() -> None:
    assert "no difference to show yet" in verdict()
    assert verdict(2.5).startswith("B ends 2.5 points above A. One pair does not show the variation between seeds")
    assert "level with A" in verdict(0.0)
    assert "run at least three" in verdict(0.0)
    assert verdict(3.0, 3.5, 4.0).startswith("B is better by 3.5 points (95 % interval 2.3 to 4.7, 3 pairs of seeds).")
    assert verdict(-3.0, -3.5, -4.0).startswith("B is worse by 3.5 points (95 % interval 2.3 to 4.7")
    assert "within the seed noise" in verdict(3.0, 4.0)
    assert "Two pairs are few" in verdict(3.0, 4.0)
    assert verdict(1.5, 1.5, 1.5).startswith(
        "All 3 pairs end with B 1.5 points above A, with no variation between seeds"
    )
    assert verdict(0.0, 0.0).startswith("Both pairs end equal")


# ---------------------------------------------------------------- launch


def test_launching_reuses_runs_and_starts_the_missing_ones(store: RunStore) -> None:
    a = finished_run(store, A, {2: 50.0, 4: 60.0})
    existing = finished_run(store, replace(B, seed=1), {2: 50.0, 4: 61.0})
    finished_run(store, replace(A, seed=1), {2: 50.0}, Status.STOPPED)  # never reaches its last epoch
    launched = pairs.launch_pair(store, a.id, dense(), seeds=2, owner="v1")
    assert [(run.config.plan, run.config.seed) for run in launched] == [
        (p, s) for s in (0, 1) for p in (A.plan, dense())
    ]
    assert launched[0] == a
    assert launched[3] == existing
    for run in launched[1:3]:
        assert (run.status, run.owner, run.parent, run.relation) == (Status.QUEUED, "v1", a.id, "paired")
    assert pairs.launch_pair(store, a.id, dense(), seeds=2) == launched
    assert len(store.open_runs()) == 2
    assert all(pairs.is_paired(x.config, y.config) for x, y in zip(launched[::2], launched[1::2], strict=False))


def test_a_stopping_run_is_not_reused(store: RunStore) -> None:
    a = finished_run(store, A, {4: 60.0})
    stopping = store.enqueue(B, "cpu")
    assert pairs.wanted(store, a.id, dense()) == [a, stopping]
    store.move(stopping.id, Status.STOPPING)
    lock = locks.take(store.paths(stopping.id).lock)  # as its process does
    assert pairs.wanted(store, a.id, dense()) == [a, B]
    os.close(lock)


def test_a_run_of_another_device_is_not_reused(store: RunStore) -> None:
    config = replace(A, device="auto")
    elsewhere = {"cpu": "cuda", "cuda": "cpu"}[devices.kind("auto")]
    a = finished_run(store, config, {4: 60.0}, device=elsewhere)
    assert pairs.wanted(store, a.id, dense()) == [config, replace(config, plan=dense())]


def test_invalid_requests(store: RunStore) -> None:
    a = finished_run(store, A, {4: 60.0})
    before = len(store.runs())
    for seeds in (0, 11, True, 2.0):
        with pytest.raises(ConfigError, match="a whole number from 1 to 10"):
            pairs.launch_pair(store, a.id, dense(), seeds=seeds)
    with pytest.raises(ConfigError, match="this is the mask of run"):
        pairs.launch_pair(store, a.id, A.plan)
    deep = replace(dense(13), expert_rank=2)
    with pytest.raises(CatalogError, match=r"blocks\.12\.attn\.qkv is not a linear layer"):
        pairs.launch_pair(store, a.id, deep, seeds=3)
    with pytest.raises(StoreError, match="is not in"):
        pairs.launch_pair(store, "aaaaaaaa", dense())
    assert len(store.runs()) == before
    probe = finished_run(store, replace(A, method="linear"), {4: 60.0})
    with pytest.raises(ConfigError, match=r"\(linear probe\) has no mask"):
        pairs.launch_pair(store, probe.id, dense())
    limited = finished_run(store, replace(A, max_seconds=5), {4: 60.0})
    with pytest.raises(ConfigError, match="stops after 5 seconds"):
        pairs.launch_pair(store, limited.id, dense())
    last = finished_run(store, replace(A, seed=2**31 - 1), {4: 60.0})
    with pytest.raises(ConfigError, match="seed is 2147483648"):
        pairs.launch_pair(store, last.id, dense(), seeds=2)


def test_another_rank_is_a_pair(store: RunStore) -> None:
    a = finished_run(store, A, {4: 60.0})
    launched = pairs.launch_pair(store, a.id, replace(pattern("hourglass"), expert_rank=2))
    assert launched[1].config.plan.expert_rank == 2
    assert pairs.unpaired_runs_because(store, *launched) is None


def test_two_runs_that_did_not_start_from_the_same_are_rerun_once(store: RunStore) -> None:
    """As when the weight file was replaced between them."""
    old = finished_run(store, A, {2: 50.0, 4: 60.0}, weights="aaaaaaaaaaaa")
    finished_run(store, B, {2: 51.0, 4: 61.0}, weights="bbbbbbbbbbbb")
    first = pairs.launch_pair(store, old.id, B.plan)
    assert [run.status for run in first] == [Status.QUEUED] * 2
    assert [run.id for run in pairs.launch_pair(store, old.id, B.plan)] == [run.id for run in first]
    for run in first:  # they finish, with the new weights
        store.append(
            run.id,
            [ev.Started(1, 1, 1, 800, 200, 52, "cpu", "float32", 0.1, weights="bbbbbbbbbbbb"), measured(4, 60.0)],
        )
        store.move(run.id, Status.FINISHED)
        assert next(run.id for run in pairs.launch_pair(store, old.id, B.plan)) == first[0].id
    assert len(store.runs()) == 4


def test_the_next_pair_is_the_lowest_seed_that_lacks_a_run(store: RunStore) -> None:
    a, b = finished_run(store, A, {4: 60.0}), finished_run(store, B, {4: 61.0})
    assert pairs.following(store, a, b) == (a, B.plan, 2)
    assert pairs.following(store, b, a) == (b, A.plan, 2)
    finished_run(store, replace(A, seed=1), {4: 60.0})
    run, plan, seeds = pairs.following(store, a, b)
    assert [r.config.seed for r in pairs.launch_pair(store, run.id, plan, seeds) if r.status is Status.QUEUED] == [1]
    for seed in range(2, 12):  # more seeds than one call allows
        for config in (A, B):
            finished_run(store, replace(config, seed=seed), {4: 60.0})
    run, plan, seeds = pairs.following(store, a, b)
    assert run.config.seed + seeds - 1 == 12
    with pytest.raises(StoreError, match="are not a pair"):
        pairs.following(store, a, finished_run(store, replace(B, epochs=5), {}))
