"""The diversity experiment: its runs, which are reused and started, its verdict. Results are written by the tests."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from statistics import fmean, stdev

import pytest

from mlae_lab.core import events as ev
from mlae_lab.core import image_labels
from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.patterns import dense, uniform
from mlae_lab.runs import diversity
from mlae_lab.runs.diversity import Cell, Experiment
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, Run, RunStore

BASE = RunConfig("digits", epochs=2, evaluations=1, device="cpu")
pytestmark = pytest.mark.usefixtures("no_supervisor")  # runs stay queued, no process starts


def measured(store: RunStore, run: Run, accuracy: float, cosine: float, rank: float) -> None:
    """Write the final results of a run: two layers with almost the same numbers."""
    rows = run.config.plan.rows
    spread = [0.01 * (-1) ** i for i in range(rows)]
    store.append(run.id, [
        ev.Started(1, 1, 1, 800, 200, 26, "cpu", "float32", 0.1),
        ev.SimilarityStats(2, tuple(cosine / 2 for _ in spread), tuple(cosine + s for s in spread),
                           tuple(() for _ in spread), tuple(rank + s for s in spread), tuple(rank / 2 for _ in spread)),
        ev.Evaluation(2, 26, "val", accuracy, 1.0, 1.0),
    ])  # fmt: skip
    store.move(run.id, Status.FINISHED)


# ---------------------------------------------------------------- cells


def test_the_arms_differ_in_their_dropout_only() -> None:
    cells = diversity.experiment(BASE, (0.5,), seeds=2).cells()
    assert [*cells][:5] == [
        ("dense", 0.0, 0),
        ("lora", 0.0, 0),
        ("expert", 0.5, 0),
        ("token", 0.5, 0),
        ("lora", 0.5, 0),
    ]
    assert len(cells) == 10
    by_arm = {arm: cells[arm, 0.5, 1] for arm in ("expert", "token", "lora")}
    whole = replace(BASE, plan=dense(), seed=1)
    assert cells["dense", 0.0, 1] == whole
    assert by_arm["expert"] == replace(whole, plan=uniform(0.5))
    assert by_arm["token"] == replace(whole, plan=uniform(0.5), mask_per="token")
    lora = replace(dense(), train_coefficients=False)
    assert by_arm["lora"] == replace(whole, plan=lora, input_dropout=0.5)
    assert cells["lora", 0.0, 1] == replace(whole, plan=lora)


def test_the_default_experiment_has_51_runs() -> None:
    wanted = diversity.experiment(BASE)
    assert wanted.rates == (0, 0.1, 0.3, 0.5, 0.7, 0.9)
    assert wanted.seeds == (0, 1, 2)
    assert len(wanted.cells()) == 51
    assert len({config.hash for config in wanted.cells().values()}) == 51


def test_the_mask_is_fitted_to_the_layers_of_the_backbone() -> None:
    wanted = diversity.experiment(replace(BASE, backbone="vit_large_patch16_224.augreg_in21k"), (0.5,), 1, experts=4)
    assert wanted.config.plan.rows == 24
    assert set(wanted.config.plan.kept) == {4}


@pytest.mark.parametrize(
    ("config", "rates", "seeds", "message"),
    [
        (BASE, (0.95,), 3, "rates are 0.95: give 1 to 12, each from 0 to 0.9"),
        (BASE, (), 3, "give 1 to 12"),
        (BASE, (0.5,), 0, "seeds is 0: it must be a whole number from 1 to 10"),
        (replace(BASE, method="linear"), (0.5,), 3, "the method is linear and has no experts: choose mlae"),
        (replace(BASE, max_seconds=9.0), (0.5,), 3, "set no time limit"),
        (replace(BASE, mask_per="token"), (0.5,), 3, "the arms set mask-per, input-dropout, consistency and learned"),
        (replace(BASE, input_dropout=0.1), (0.5,), 3, "the arms set mask-per, input-dropout, consistency and learned"),
    ],
)
def test_an_invalid_experiment_is_one_sentence(config: RunConfig, rates: tuple, seeds: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        diversity.experiment(config, rates, seeds)


def test_the_equivalent_command() -> None:
    text = diversity.experiment(replace(BASE, seed=4), (0.5, 0.1), 2, experts=4).command()
    assert text.startswith("python -m mlae_lab diversity --task digits --experts 4 --epochs 2")
    assert "--seed 4" in text
    assert text.endswith("--seeds 2 --rates 0,0.1,0.5")
    assert "--mask" not in text


# ---------------------------------------------------------------- launch


def test_a_second_launch_reuses_the_runs(store: RunStore) -> None:
    wanted = diversity.experiment(BASE, (0.5,), 1)
    runs = diversity.launch(store, wanted, "ada")
    assert len(runs) == 5
    assert {run.relation for run in runs.values()} == {"diversity"}
    again = diversity.launch(store, wanted)
    assert {cell: run.id for cell, run in again.items()} == {cell: run.id for cell, run in runs.items()}
    more = diversity.launch(store, diversity.experiment(BASE, (0.5,), 2))
    assert len(store.runs()) == 10
    assert {run.id for run in runs.values()} < {run.id for run in more.values()}


def test_only_queued_runs_of_the_experiment_and_of_the_owner_are_cancelled(store: RunStore) -> None:
    wanted = diversity.experiment(BASE, (0.5,), 1)
    alone = store.enqueue(replace(BASE, plan=dense()), "cpu", "ada")
    ada = diversity.launch(store, wanted, "ada")
    bob = diversity.launch(store, diversity.experiment(replace(BASE, seed=7), (0.5,), 1), "bob")
    own = diversity.waiting([*ada.values(), *bob.values()], "ada")
    assert alone.id == ada["dense", 0.0, 0].id
    assert {run.id for run in own} == {run.id for run in ada.values()} - {alone.id}
    assert store.claim(own[0].id, "cpu")  # it starts before the click
    assert diversity.cancel(store, own) == 3
    assert diversity.cancel(store, own) == 0
    assert store.run(own[0].id).status is Status.STARTING
    assert {store.run(run.id).reason for run in own[1:]} == {"cancelled before it started"}
    assert {run.id for run in store.queue()} == {alone.id} | {run.id for run in bob.values()}
    assert len(diversity.launch(store, wanted, "ada")) == 5
    assert len(store.queue()) == 1 + 5 + 3


def test_an_existing_run_is_reused(store: RunStore) -> None:
    before = store.enqueue(replace(BASE, plan=uniform(0.5)), "cpu")
    runs = diversity.launch(store, diversity.experiment(BASE, (0.5,), 1))
    assert runs["expert", 0.5, 0].id == before.id
    assert len(store.runs()) == 5


def test_experiments_are_derived_from_their_runs(store: RunStore) -> None:
    first, second = (
        diversity.experiment(BASE, (0.5,), 2),
        diversity.experiment(replace(BASE, epochs=3, seed=5), (0.3, 0.9), 1),
    )
    diversity.launch(store, first)
    diversity.launch(store, second)
    store.enqueue(replace(BASE, plan=uniform(0.7)), "cpu")  # not of an experiment
    assert diversity.experiments(store.runs()) == [second, first]
    assert diversity.experiments([]) == []


def test_notes_do_not_divide_an_experiment_and_other_images_do(store: RunStore) -> None:
    images = replace(BASE, data_label="own images, 14/5/5", data_fingerprint="0" * 12)
    wanted = diversity.experiment(images, (0.5,), 2)
    runs = [store.enqueue(config, "cpu", origin=Origin("", "diversity")) for config in wanted.cells().values()]
    note = image_labels.change_note("own images, 13/5/5", images.data_label)
    noted = replace(runs[0].config, data_notes=(note, "24 images"))
    store.record_dataset(runs[0].id, noted)
    assert diversity.experiments(store.runs()) == [wanted]
    other = diversity.experiment(replace(images, data_fingerprint="1" * 12), (0.5,), 2)
    for config in other.cells().values():
        store.enqueue(config, "cpu", origin=Origin("", "diversity"))
    new, old = diversity.experiments(store.runs())
    assert (new, old) == (other, wanted)
    assert (new.config.data_fingerprint, old.config.data_fingerprint) == ("1" * 12, "0" * 12)


def test_missing_runs_use_the_folder_of_the_newest_run(store: RunStore) -> None:
    wanted = diversity.experiment(
        replace(BASE, task="caltech101", data="/images", data_label="folder, 3 classes"), (0.5,), 1
    )
    config = wanted.cells()["expert", 0.5, 0]
    store.enqueue(replace(config, data="/moved"), "cpu", origin=Origin("", diversity.RELATION))
    store.enqueue(replace(wanted.config, data=""), "cpu", origin=Origin("", diversity.RELATION))  # imported
    (found_experiment,) = diversity.experiments(store.runs())
    runs = diversity.launch(store, found_experiment)
    assert len(store.runs()) == 5
    assert {run.config.data for cell, run in runs.items() if cell[1]} == {"/moved"}


# ---------------------------------------------------------------- results


def filled(
    store: RunStore, table: dict[tuple[str, float], list[tuple[float, float, float]]], wanted: Experiment
) -> None:
    for (arm, rate, seed), run in diversity.launch(store, wanted).items():
        if (arm, rate) in table:
            measured(store, run, *table[arm, rate][wanted.seeds.index(seed)])


TABLE = {
    ("dense", 0.0): [(70.0, 0.20, 4.0), (72.0, 0.22, 4.4), (74.0, 0.21, 4.2)],
    ("expert", 0.5): [(75.0, 0.10, 5.0), (76.0, 0.13, 5.3), (78.0, 0.11, 5.2)],
    ("token", 0.5): [(71.0, 0.30, 4.1), (71.0, 0.31, 4.2), (75.0, 0.32, 4.3)],
    ("lora", 0.0): [(69.0, 0.20, 4.0), (71.0, 0.21, 4.1), (73.0, 0.22, 4.2)],
    ("lora", 0.5): [(68.0, 0.25, 3.0), (70.0, 0.16, 3.1), (72.5, 0.24, 3.2)],
}


def test_means_intervals_and_paired_differences(store: RunStore) -> None:
    wanted = diversity.experiment(BASE, (0.5,), 3)
    filled(store, TABLE, wanted)
    result = diversity.result(store, wanted)
    assert not result.missing
    point = next(p for p in result.points if (p.arm, p.rate) == ("expert", 0.5))
    gaps = [e[1] - d[1] for e, d in zip(TABLE["expert", 0.5], TABLE["dense", 0.0], strict=False)]
    gap = point.differences["absolute"]
    reach = 4.30265273 * stdev(gaps) / math.sqrt(3)
    assert (gap.mean, gap.low, gap.high) == pytest.approx((fmean(gaps), fmean(gaps) - reach, fmean(gaps) + reach))
    assert point.values["accuracy"].mean == pytest.approx(fmean([75, 76, 78]))
    assert point.values["effective_rank"].mean == pytest.approx(fmean([5.0, 5.3, 5.2]))
    assert point.values["signed"].mean == pytest.approx(fmean([0.05, 0.065, 0.055]))
    lora = {p.rate: p for p in result.curve("lora")}
    assert (lora[0.0].reference, lora[0.5].reference) == ("dense", "LoRA without dropout")
    assert lora[0.5].differences["accuracy"].mean == pytest.approx(-2.5 / 3)
    assert lora[0.0].differences["accuracy"].mean == pytest.approx(-1)
    assert [p.rate for p in result.curve("token")] == [0.0, 0.5]
    assert not result.curve("token")[0].differences
    assert result.baseline.mean == pytest.approx(0.00288, abs=1e-5)


def test_the_verdict_follows_the_rule(store: RunStore) -> None:
    wanted = diversity.experiment(BASE, (0.5,), 3)
    filled(store, TABLE, wanted)
    first, expert, token, lora = diversity.result(store, wanted).verdict
    assert (
        first
        == "On Digits, the claim that masking makes experts less similar is supported at p = 0.5 (3 seeds, 2 epochs)."
    )
    assert (
        expert
        == "Expert dropout, compared with dense: the effective rank of ΔW rises at p = 0.5; accuracy rises at p = 0.5."
    )
    assert "mean |cosine| rises at p = 0.5; the effective rank of ΔW is not settled at p = 0.5" in token
    assert lora == (
        "Dropout in LoRA, compared with LoRA without dropout: mean |cosine| is not settled at p = 0.5; "
        "the effective rank of ΔW falls at p = 0.5; accuracy falls at p = 0.5."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cosines", "claim"),
    [
        ([0.30, 0.33, 0.31], "contradicted"),
        ([0.10, 0.13, 0.11], "supported"),
        ([0.10, 0.40, 0.11], "not settled"),
        ([0.10], "open until there are two seeds"),
    ],
)
def test_the_claim_at_one_rate(store: RunStore, cosines: list[float], claim: str) -> None:
    wanted = diversity.experiment(BASE, (0.5,), len(cosines))
    table = {("dense", 0.0): TABLE["dense", 0.0], ("expert", 0.5): [(70.0, c, 4.0) for c in cosines]}
    filled(store, table, wanted)
    result = diversity.result(store, wanted)
    assert diversity.claim(result.curve("expert")[-1]) == claim
    assert f" {claim} at p = 0.5 ({len(cosines)} seed" in result.verdict[0]
    assert result.verdict[-1] == f"{3 * len(cosines)} of {5 * len(cosines)} runs are not evaluated yet."


def test_without_results_the_verdict_says_so(store: RunStore) -> None:
    wanted = diversity.experiment(BASE, (0.5,), 1)
    result = diversity.result(store, wanted)
    assert not result.points
    assert len(result.missing) == 5
    assert not result.runs
    assert result.verdict[0].startswith("There is no result for Digits yet")


def test_equal_results_of_several_rates_are_joined() -> None:
    words = {0.1: "rises", 0.3: "falls", 0.5: "rises", 0.9: "rises"}
    assert diversity._by_rate(words) == "rises at p = 0.1, 0.5 and 0.9, falls at p = 0.3"
    assert diversity._by_rate({0.1: "falls", 0.9: "falls"}) == "falls at every p"
    assert diversity._by_rate({0.9: "falls"}) == "falls at p = 0.9"


def test_the_report_is_json(store: RunStore) -> None:
    wanted = diversity.experiment(BASE, (0.5,), 3)
    filled(store, TABLE, wanted)
    report = json.loads(json.dumps(diversity.report(diversity.result(store, wanted))))
    assert report["missing"] == 0
    assert report["rates"] == [0, 0.5]
    assert len(report["points"]) == 7
    masked = next(p for p in report["points"] if (p["arm"], p["p"]) == ("expert", 0.5))
    assert masked["claim"] == "supported"
    assert masked["difference"]["absolute"]["n"] == 3


def test_a_run_of_an_earlier_version_without_ranks_counts(store: RunStore) -> None:
    wanted = diversity.experiment(BASE, (0.5,), 1)
    cell: Cell = ("dense", 0.0, 0)
    run = diversity.launch(store, wanted)[cell]
    rows = run.config.plan.rows
    store.append(run.id, [
        ev.Started(1, 1, 1, 800, 200, 26, "cpu", "float32", 0.1),
        ev.SimilarityStats(2, (0.1,) * rows, (0.2,) * rows, ((),) * rows),
        ev.Evaluation(2, 26, "val", 50.0, 1.0, 1.0),
    ])  # fmt: skip
    store.move(run.id, Status.FINISHED)
    assert diversity.measures(store, store.run(run.id)) == pytest.approx(
        {"accuracy": 50.0, "absolute": 0.2, "signed": 0.1}
    )
