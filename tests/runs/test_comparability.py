"""Which runs are a pair, and which are a race."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense, uniform
from mlae_lab.runs import devices
from mlae_lab.runs.comparability import (
    beyond_the_cells,
    is_one_family,
    is_paired,
    unequal_because,
    unlike_because,
    unpaired_because,
    unpaired_runs_because,
)
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, Run, RunStore

A = RunConfig("digits", uniform(0.5), epochs=4, evaluations=2, device="cpu")  # evaluated after epochs 2 and 4
B = replace(A, plan=dense())
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


# ---------------------------------------------------------------- what a pair is


def test_only_the_mask_may_differ() -> None:
    assert is_paired(A, B)
    assert unpaired_because(A, replace(B, learning_rate=1e-3)) == "their learning rates differ: 0.0005 and 0.001"
    assert unpaired_because(A, replace(B, seed=3)) == "their seeds differ: 0 and 3"
    two = unpaired_because(A, replace(B, seed=3, batch_size=32))
    assert two is not None
    assert "batch sizes differ: 64 and 32" in two
    assert "seeds differ: 0 and 3" in two
    assert unpaired_because(A, A) == "their masks are the same"
    probe = replace(A, method="linear")
    assert unpaired_because(A, probe) == "B (linear probe) has no mask"
    assert "A (linear probe) has no mask" in str(unpaired_because(probe, B))
    assert "A (linear probe) and B (linear probe) have no mask" in str(
        unpaired_because(probe, replace(probe, plan=dense()))
    )


def test_every_differing_setting_is_named() -> None:
    others = {"task": "fashion", "backbone": "lab_vit_12x128.random", "protocol": "test", "epochs": 9,
              "max_seconds": 5.0, "weight_decay": 0.1, "warmup": 0.1, "evaluations": 3,
              "precision": "float32", "data_label": "own images", "weights": "w.npz",
              "normalisation": "imagenet"}  # fmt: skip
    for name, value in others.items():
        assert " differ: " in str(unpaired_because(A, replace(B, **{name: value}))), name


def test_the_folder_of_images_and_the_spelling_of_a_device_do_not_count() -> None:
    assert is_paired(A, replace(B, data="/elsewhere"))
    assert is_paired(replace(A, device="auto"), replace(B, device=devices.kind("auto")))
    assert unpaired_because(A, replace(B, device="cuda")) == "their devices differ: cpu and cuda"


def test_runs_with_a_time_limit_are_not_a_pair() -> None:
    reason = unpaired_because(replace(A, max_seconds=60), replace(B, max_seconds=60))
    assert reason is not None
    assert "60 seconds" in reason
    assert "learning rate depends on the time" in reason


def test_branched_runs_and_runs_of_other_weights_are_not_a_pair(store: RunStore) -> None:
    a = finished_run(store, A, {4: 60.0})
    assert unpaired_runs_because(store, a, finished_run(store, B, {4: 61.0})) is None
    on = finished_run(store, B, {4: 61.0}, origin=Origin(a.id, "branched", "2"))
    assert "was branched from a checkpoint" in str(unpaired_runs_because(store, a, on))
    other = finished_run(store, B, {4: 61.0}, weights="bbbbbbbbbbbb")
    assert "fingerprints aaaaaaaaaaaa and bbbbbbbbbbbb" in str(unpaired_runs_because(store, a, other))
    assert "devices differ: cpu and cuda" in str(
        unpaired_runs_because(store, a, finished_run(store, B, {4: 61.0}, device="cuda"))
    )


def test_plans_may_differ_in_more_than_cells() -> None:
    assert beyond_the_cells(uniform(0.5), dense()) == []
    sentences = beyond_the_cells(uniform(0.5), replace(dense(), expert_rank=2, coefficient_init=4.0))
    assert len(sentences) == 2
    assert "rank 1 in A and 2 in B" in sentences[0]
    assert "initial λ is 1 in A and 4 in B" in sentences[1]
    assert is_paired(A, replace(B, plan=replace(dense(), expert_rank=2)))


def test_one_family_differs_in_mask_and_seed(store: RunStore) -> None:
    a, b = finished_run(store, A, {4: 60.0}), finished_run(store, replace(B, seed=3), {4: 61.0})
    assert is_one_family(a, b)
    assert not is_one_family(a, finished_run(store, replace(A, seed=1), {4: 60.0})), "the same mask"
    assert not is_one_family(a, finished_run(store, replace(B, epochs=5), {}))
    assert not is_one_family(a, finished_run(store, B, {4: 61.0}, origin=Origin(a.id, "branched", "2")))
    assert not is_one_family(a, finished_run(store, replace(A, method="linear"), {4: 50.0}))


def test_images_with_another_fingerprint_differ_those_without_one_may_be_the_same(store: RunStore) -> None:
    a, other, earlier = (
        finished_run(store, replace(A, data_label="own images, 14/5/5", data_fingerprint=fingerprint), {4: 60.0})
        for fingerprint in ("0" * 12, "1" * 12, "")
    )
    assert "their images differ: fingerprints" in (unlike_because(store, a, other) or "")
    assert unlike_because(store, a, earlier) is None


def test_runs_that_are_not_a_race(store: RunStore) -> None:
    a, b = (store.enqueue(config, "cpu") for config in (A, B))
    other = store.enqueue(replace(B, learning_rate=0.1), "cpu")
    assert unequal_because(store, [a]) == "they have one mask; choose runs with two or more"
    assert f"of {a.id} and {other.id} their learning rates differ" in str(unequal_because(store, [a, b, other]))
    same_mask = store.enqueue(replace(A, batch_size=32, seed=9), "cpu")
    assert "batch sizes differ" in str(unequal_because(store, [a, b, same_mask]))
    assert unequal_because(store, [a, b]) is None


def test_random_weights_may_differ_between_seeds_but_not_within_one(store: RunStore) -> None:
    runs = [
        finished_run(store, replace(config, seed=seed), {}, weights=weights * 12)
        for seed, weights in enumerate("ab")
        for config in (A, B)
    ]
    assert unequal_because(store, runs) is None
    third = finished_run(store, replace(A, plan=uniform(0.25)), {}, weights="c" * 12)
    assert "their weights differ" in str(unequal_because(store, [*runs, third]))
