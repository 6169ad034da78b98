"""Estimated time: based on similar runs of this machine only, None without one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlae_lab.core import catalog, machine, memory
from mlae_lab.core import events as ev
from mlae_lab.core.budget import forward_cost
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense, uniform
from mlae_lab.runs.estimate import REACHED, estimate, estimated_memory, memory_warning, pace, rough_estimate
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, Run, RunStore

CONFIG = RunConfig("digits", dense(), epochs=4, evaluations=2, device="cpu")  # 13 steps an epoch, 52 in all


def timed(
    store: RunStore, config: RunConfig = CONFIG, step: float = 0.5, measure: float = 3.0, loading: float = 2.0,
    precision: str = "float32", steps: int | None = None, elsewhere: bool = False,
) -> Run:  # fmt: skip
    """A run of equally long steps, with an evaluation after each scheduled epoch."""
    run = store.enqueue(config, "cpu", origin=Origin("", "imported") if elsewhere else Origin())
    assert store.claim(run.id, "cpu")
    per_epoch, clock = -(-800 // config.batch_size), 0.0
    events: list[ev.Event] = [ev.Started(1, 1, 1, 800, 200, 52, "cpu", precision, loading)]
    for number in range(1, (steps or config.epochs * per_epoch) + 1):
        clock += step
        epoch = -(-number // per_epoch)
        events.append(ev.TrainStep(number, epoch, 1.0, 50.0, 1e-3, 48, clock))
        if number % per_epoch == 0 and epoch in config.evaluated_epochs:
            clock += measure
            events.append(ev.Evaluation(epoch, number, "val", 50.0, 1.0, clock))
    store.append(run.id, events)
    store.move(run.id, Status.FINISHED)
    return store.run(run.id)


def test_without_past_runs_there_is_no_estimate(store: RunStore) -> None:
    result = estimate(store, CONFIG)
    assert (result.seconds, result.runs, result.steps) == (None, (), 52)
    assert result.reason == "No run with Lab ViT 12 x 128 has been timed on this machine's CPU yet."


def test_a_branched_run_has_no_pace(store: RunStore) -> None:
    run = timed(store)
    with store._connection(write=True) as db:
        db.execute("UPDATE runs SET relation = 'branched' WHERE id = ?", (run.id,))
    assert pace(store, store.run(run.id)) is None


def test_a_rerun_takes_as_long(store: RunStore) -> None:
    run = timed(store)
    assert pace(store, run) is not None
    result = estimate(store, CONFIG)
    assert result.seconds == pytest.approx(2 + 52 * 0.5 + 2 * 3.0)
    assert result.runs == (run.id,)
    assert result.reason == "From the last run with this backbone, device, precision and batch size on this machine."


def test_more_epochs_and_evaluations_take_longer(store: RunStore) -> None:
    timed(store)
    longer = estimate(store, replace(CONFIG, epochs=10, evaluations=5))
    assert (longer.seconds, longer.steps) == (pytest.approx(2 + 130 * 0.5 + 5 * 3.0), 130)
    test = estimate(store, replace(CONFIG, protocol="test"))  # 1000 images: 16 steps; 797 evaluation images, not 200
    assert test.seconds == pytest.approx(2 + 64 * 0.5 + 2 * 3.0 * 797 / 200)


def test_a_search_counts_by_its_candidates(store: RunStore) -> None:
    """200 images take 3 s, in an evaluation and in a candidate's; "test" searches on 200 of 1,000 and tests on 797."""
    timed(store, replace(CONFIG, method="glora"))
    searched = replace(CONFIG, method="glora", method_settings=("search_generations=5", "search_population=10"))
    assert estimate(store, searched).seconds == pytest.approx(2 + 52 * 0.5 + (2 + 50) * 3.0)
    tested = estimate(store, replace(searched, protocol="test"))
    assert tested.steps == 52
    assert tested.seconds == pytest.approx(2 + 52 * 0.5 + (2 * 797 / 200 + 50) * 3.0)


def test_the_time_of_a_search_is_that_of_its_images(store: RunStore) -> None:
    searched = replace(CONFIG, method="glora", method_settings=("search_generations=1", "search_population=4"))
    run = timed(store, searched)
    last = store.last(run.id, ev.Evaluation)
    assert last is not None
    store.append(run.id, [
        ev.SearchGeneration(4, 52, 1, 1, 4, 200, 50.0, 40.0, 0, last.seconds + 12, (), (), ()),
        ev.Evaluation(4, 52, "val", 50.0, 1.0, last.seconds + 15),
    ])  # fmt: skip
    times = pace(store, run)
    assert times is not None
    assert times.evaluation == pytest.approx(3.0 / 200)


def test_the_estimate_is_the_median_with_its_range(store: RunStore) -> None:
    for step in (9.0, 0.4, 0.5, 1.0):  # the first is the fourth newest
        timed(store, step=step)
    result = estimate(store, CONFIG)
    assert (result.low, result.seconds, result.high) == tuple(pytest.approx(8 + 52 * s) for s in (0.4, 0.5, 1.0))
    assert "the last 3 runs" in result.reason


def test_another_batch_size_is_scaled_and_named(store: RunStore) -> None:
    timed(store)
    result = estimate(store, replace(CONFIG, batch_size=32))
    assert result.seconds == pytest.approx(2 + 100 * 0.25 + 6)
    assert "no run with batch size 32 has been timed yet" in result.reason
    assert "batch size 64" in result.reason


def test_two_passes_take_twice_as_long_and_keep_both_activations(store: RunStore) -> None:
    timed(store)
    twice = replace(CONFIG, plan=uniform(0.5), consistency=1.0)
    assert estimate(store, twice).seconds == pytest.approx(2 + 52 * 1.0 + 6)
    assert estimate(store, twice).reason.endswith("assumed to take twice as long as one without.")
    once = replace(twice, consistency=0.0)
    assert estimated_memory(twice).step == 2 * estimated_memory(once).step
    timed(store, twice, step=0.7)
    assert estimate(store, twice).seconds == pytest.approx(2 + 52 * 0.7 + 6)


def test_drop_paths_count_where_they_keep_features_from_being_computed_once(store: RunStore) -> None:
    timed(store)
    assert estimate(store, replace(CONFIG, drop_path=0.1)).seconds == pytest.approx(34), "trained from block 1 on"
    probe = replace(CONFIG, method="linear")
    timed(store, probe)
    assert estimate(store, probe).seconds is not None
    assert estimate(store, replace(probe, drop_path=0.1)).seconds is None, "that would take far longer"


def test_sgd_keeps_one_moment(store: RunStore) -> None:
    learned = CONFIG.tuning.parameters(catalog.backbone(CONFIG.backbone))
    assert estimated_memory(CONFIG).fixed - estimated_memory(replace(CONFIG, optimizer="sgd")).fixed == 4 * learned


def test_another_precision_is_named(store: RunStore) -> None:
    timed(store, replace(CONFIG, precision="bfloat16"), precision="bfloat16")
    result = estimate(store, replace(CONFIG, precision="float32"))
    assert result.seconds is not None
    assert "no run in float32 has been timed yet" in result.reason
    timed(store, replace(CONFIG, precision="auto"), precision="bfloat16", step=0.1)
    assert "batch size on this machine" in estimate(store, CONFIG).reason


@pytest.mark.parametrize(
    "other",
    [
        replace(CONFIG, backbone="lab_vit_12x128.random"),
        replace(CONFIG, method="linear"),
        replace(CONFIG, device="cuda"),
    ],
)
def test_another_network_method_or_device_is_not_similar(store: RunStore, other: RunConfig) -> None:
    timed(store)
    assert estimate(store, other).seconds is None


def test_imported_and_too_short_runs_do_not_count(store: RunStore) -> None:
    timed(store, elsewhere=True)
    timed(store, steps=5)
    moved = replace(timed(store), id="abcd2345")
    store.insert(moved, [(1.0, s.event) for s in store.events(timed(store).id)])
    assert pace(store, store.run("abcd2345")) is None
    assert estimate(store, CONFIG, lambda s, r: None if r.config == CONFIG else pace(s, r)).seconds is None


def test_a_time_limit_bounds_the_estimate(store: RunStore) -> None:
    timed(store)
    result = estimate(store, replace(CONFIG, max_seconds=10.0))
    assert result.seconds == 12.0
    assert result.reason.startswith("Training stops after 10 s")
    assert estimate(store, replace(CONFIG, max_seconds=1000.0)).seconds == pytest.approx(34)


def test_a_folder_whose_images_are_not_counted(store: RunStore) -> None:
    own = replace(CONFIG, task="own:birds", data="/somewhere")
    result = estimate(store, own)
    assert (result.seconds, result.steps) == (None, None)
    assert "counted when a run starts" in result.reason
    timed(store, own)
    assert estimate(store, own).seconds == pytest.approx(34)


def test_the_most_similar_task_and_mask_come_first(store: RunStore) -> None:
    for _ in range(3):
        timed(store, step=1.0)
    for _ in range(3):
        timed(store, replace(CONFIG, plan=uniform(0.5, experts=1)), step=0.1)
    assert estimate(store, CONFIG).seconds == pytest.approx(8 + 52)
    assert estimate(store, replace(CONFIG, plan=uniform(0.3, experts=2))).seconds == pytest.approx(8 + 5.2)


def test_estimated_memory_includes_the_activations_of_a_batch_and_of_an_evaluation() -> None:
    vit = replace(CONFIG, backbone="vit_base_patch16_224.orig_in21k", batch_size=64, device="cpu")
    needed = estimated_memory(vit)
    assert needed.fixed == 4 * 85_798_656 + 16 * 295_008
    assert 6e9 < needed.step < 9e9
    assert needed.total == needed.fixed + needed.step
    assert estimated_memory(replace(vit, batch_size=32)).step == needed.step / 2
    linear = estimated_memory(replace(vit, method="linear"))
    assert linear.fixed == 4 * 85_798_656
    assert linear.total == linear.fixed + linear.evaluation
    assert 0 < linear.evaluation <= 4 * 2**30


def test_a_run_that_needs_more_memory_than_the_machine_has_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    dino = replace(CONFIG, backbone="vit_base_patch14_dinov2.lvd142m", batch_size=64, device="cpu")
    monkeypatch.setattr(memory, "machine_bytes", lambda: 16 * 2**30)
    assert memory_warning(dino).startswith(
        "This machine has 17.2 GB of memory, less than the estimate: choose a smaller"
    )
    assert memory_warning(replace(dino, backbone=CONFIG.backbone)) == ""
    monkeypatch.setattr(memory, "machine_bytes", lambda: None)
    assert memory_warning(dino) == ""


def test_another_image_size_is_scaled_by_its_multiply_adds_and_named(store: RunStore) -> None:
    timed(store)
    larger = replace(CONFIG, image_size=96)
    growth = forward_cost(larger.network) / forward_cost(CONFIG.network)
    assert 3.9 < growth < 5
    result = estimate(store, larger)
    assert result.seconds == pytest.approx(2 + growth * (52 * 0.5 + 2 * 3.0))
    assert "They had images of 48 pixels: the time is assumed to grow with the multiply-adds" in result.reason
    timed(store, larger, step=1.5)
    assert estimate(store, larger).seconds == pytest.approx(2 + 52 * 1.5 + 6), "a run of this size comes first"
    assert estimate(store, CONFIG).seconds == pytest.approx(34)


def test_a_step_of_a_linear_probe_does_not_grow_with_the_image(store: RunStore) -> None:
    probe = replace(CONFIG, method="linear")
    timed(store, probe)
    larger = replace(probe, image_size=96)
    growth = forward_cost(larger.network) / forward_cost(probe.network)
    assert estimate(store, larger).seconds == pytest.approx(2 + 52 * 0.5 + growth * 2 * 3.0)


def test_the_first_run_of_a_kind_has_the_time_of_its_multiply_adds(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "multiply_adds_per_second", lambda: 1e10)
    dino = replace(CONFIG, backbone="vit_small_patch14_dinov2.lvd142m", image_size=70)
    forward = forward_cost(dino.network)
    work = 4 * 800 * 2 * forward + 2 * 200 * forward  # forward and backward; evaluation
    result = rough_estimate(None, dino)
    assert result.seconds == pytest.approx(work / (REACHED * 1e10))
    assert "at the speed of this machine's matrix products" in result.reason
    linear = rough_estimate(None, replace(dino, method="linear"))
    assert linear.seconds == pytest.approx(1000 * forward / (REACHED * 1e10)), "the features of each image, once"
    full = rough_estimate(None, replace(dino, method="full"))
    assert full.seconds == pytest.approx((4 * 800 * 3 + 400) * forward / (REACHED * 1e10))
    run = timed(store)
    known = rough_estimate(store, dino)
    assert known.runs == (run.id,)
    assert known.seconds == pytest.approx(2 + work * 0.5 / (64 * 2 * forward_cost(CONFIG.network)))
    own = replace(dino, task="own:birds", data="/somewhere")
    assert rough_estimate(None, own).seconds is None
    assert rough_estimate(None, replace(own, data_label="own images, 800/200/2,000")).seconds == result.seconds
    assert rough_estimate(None, replace(dino, device="cuda")).seconds is None


def test_the_speed_of_matrix_products_is_measured() -> None:
    assert 1e8 < machine.multiply_adds_per_second() < 1e14
