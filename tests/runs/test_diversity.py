"""The central experiment: which runs it is, what it takes and starts, what it says. Runs are written by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from statistics import fmean, stdev

import pytest

from mlae_lab.core import events as ev
from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.patterns import dense, uniform
from mlae_lab.runs import diversity
from mlae_lab.runs.diversity import Cell, Experiment
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, Run, RunStore

BASE = RunConfig("digits", epochs=2, evaluations=1, device="cpu")
pytestmark = pytest.mark.usefixtures("no_supervisor")  # what is enqueued waits, and no process starts


def measured(store: RunStore, run: Run, accuracy: float, cosine: float, rank: float) -> None:
    """Write down what a run ended with: two layers with the same numbers but for a little."""
    rows = run.config.plan.rows
    spread = [0.01 * (-1) ** i for i in range(rows)]
    store.append(run.id, [
        ev.Started(1, 1, 1, 800, 200, 26, "cpu", "float32", 0.1),
        ev.SimilarityStats(2, tuple(cosine / 2 for _ in spread), tuple(cosine + s for s in spread),
                           tuple(() for _ in spread), tuple(rank + s for s in spread), tuple(rank / 2 for _ in spread)),
        ev.Evaluation(2, 26, "val", accuracy, 1.0, 1.0),
    ])  # fmt: skip
    store.move(run.id, Status.FINISHED)


# ---------------------------------------------------------------- which runs


def test_the_arms_differ_in_their_dropout_and_in_nothing_else() -> None:
    cells = diversity.experiment(BASE, (0.5,), seeds=2).cells()
    assert [*cells][:5] == [
        ("dense", 0.0, 0),
        ("lora", 0.0, 0),
        ("expert", 0.5, 0),
        ("token", 0.5, 0),
        ("lora", 0.5, 0),
    ]
    assert len(cells) == 10
    one = {arm: cells[arm, 0.5, 1] for arm in ("expert", "token", "lora")}
    whole = replace(BASE, plan=dense(), seed=1)
    assert cells["dense", 0.0, 1] == whole
    assert one["expert"] == replace(whole, plan=uniform(0.5))
    assert one["token"] == replace(whole, plan=uniform(0.5), mask_per="token")
    lora = replace(dense(), train_coefficients=False)
    assert one["lora"] == replace(whole, plan=lora, input_dropout=0.5)
    assert cells["lora", 0.0, 1] == replace(whole, plan=lora)


def test_the_usual_experiment_is_51_runs() -> None:
    asked = diversity.experiment(BASE)
    assert asked.rates == (0, 0.1, 0.3, 0.5, 0.7, 0.9)
    assert asked.seeds == (0, 1, 2)
    assert len(asked.cells()) == 51
    assert len({config.hash for config in asked.cells().values()}) == 51


def test_the_mask_is_laid_on_the_backbones_own_layers() -> None:
    asked = diversity.experiment(replace(BASE, backbone="vit_large_patch16_224.augreg_in21k"), (0.5,), 1, experts=4)
    assert asked.config.plan.rows == 24
    assert set(asked.config.plan.kept) == {4}


@pytest.mark.parametrize(
    ("config", "rates", "seeds", "words"),
    [
        (BASE, (0.95,), 3, "rates are 0.95: give 1 to 12, each from 0 to 0.9"),
        (BASE, (), 3, "give 1 to 12"),
        (BASE, (0.5,), 0, "seeds is 0: it must be a whole number from 1 to 10"),
        (replace(BASE, method="linear"), (0.5,), 3, "a linear probe has no experts"),
        (replace(BASE, max_seconds=9.0), (0.5,), 3, "set no time limit"),
        (replace(BASE, mask_per="token"), (0.5,), 3, "the arms set mask-per and input-dropout"),
        (replace(BASE, input_dropout=0.1), (0.5,), 3, "the arms set mask-per and input-dropout"),
    ],
)
def test_what_is_no_experiment_is_a_sentence(config: RunConfig, rates: tuple, seeds: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        diversity.experiment(config, rates, seeds)


def test_the_command_is_the_experiment() -> None:
    text = diversity.experiment(replace(BASE, seed=4), (0.5, 0.1), 2, experts=4).command()
    assert text.startswith("python -m mlae_lab diversity --task digits --experts 4 --epochs 2")
    assert "--seed 4" in text
    assert text.endswith("--seeds 2 --rates 0,0.1,0.5")
    assert "--mask" not in text


# ---------------------------------------------------------------- what is there


def test_a_second_call_finds_the_runs_again(store: RunStore) -> None:
    asked = diversity.experiment(BASE, (0.5,), 1)
    runs = diversity.launch(store, asked, "ada")
    assert len(runs) == 5
    assert {run.relation for run in runs.values()} == {"diversity"}
    again = diversity.launch(store, asked)
    assert {cell: run.id for cell, run in again.items()} == {cell: run.id for cell, run in runs.items()}
    more = diversity.launch(store, diversity.experiment(BASE, (0.5,), 2))
    assert len(store.runs()) == 10
    assert {run.id for run in runs.values()} < {run.id for run in more.values()}


def test_only_what_waits_for_it_and_is_ones_own_can_be_cancelled(store: RunStore) -> None:
    asked = diversity.experiment(BASE, (0.5,), 1)
    alone = store.enqueue(replace(BASE, plan=dense()), "cpu", "ada")
    ada = diversity.launch(store, asked, "ada")
    bob = diversity.launch(store, diversity.experiment(replace(BASE, seed=7), (0.5,), 1), "bob")
    own = diversity.waiting([*ada.values(), *bob.values()], "ada")
    assert alone.id == ada["dense", 0.0, 0].id
    assert {run.id for run in own} == {run.id for run in ada.values()} - {alone.id}
    assert store.claim(own[0].id, "cpu")  # its turn comes between the look and the click
    assert diversity.cancel(store, own) == 3
    assert diversity.cancel(store, own) == 0
    assert store.run(own[0].id).status is Status.STARTING
    assert {store.run(run.id).reason for run in own[1:]} == {"cancelled before it started"}
    assert {run.id for run in store.queue()} == {alone.id} | {run.id for run in bob.values()}
    assert len(diversity.launch(store, asked, "ada")) == 5
    assert len(store.queue()) == 1 + 5 + 3


def test_a_run_that_was_there_before_is_taken(store: RunStore) -> None:
    before = store.enqueue(replace(BASE, plan=uniform(0.5)), "cpu")
    runs = diversity.launch(store, diversity.experiment(BASE, (0.5,), 1))
    assert runs["expert", 0.5, 0].id == before.id
    assert len(store.runs()) == 5


def test_experiments_are_found_by_their_runs(store: RunStore) -> None:
    one, two = (
        diversity.experiment(BASE, (0.5,), 2),
        diversity.experiment(replace(BASE, epochs=3, seed=5), (0.3, 0.9), 1),
    )
    diversity.launch(store, one)
    diversity.launch(store, two)
    store.enqueue(replace(BASE, plan=uniform(0.7)), "cpu")  # not started for one
    assert diversity.experiments(store.runs()) == [two, one]
    assert diversity.experiments([]) == []


def test_what_is_missing_looks_where_the_others_found_their_images(store: RunStore) -> None:
    asked = diversity.experiment(
        replace(BASE, task="caltech101", data="/images", data_label="folder, 3 classes"), (0.5,), 1
    )
    config = asked.cells()["expert", 0.5, 0]
    store.enqueue(replace(config, data="/moved"), "cpu", origin=Origin("", diversity.RELATION))
    store.enqueue(replace(asked.config, data=""), "cpu", origin=Origin("", diversity.RELATION))  # came from elsewhere
    (found,) = diversity.experiments(store.runs())
    runs = diversity.launch(store, found)
    assert len(store.runs()) == 5
    assert {run.config.data for cell, run in runs.items() if cell[1]} == {"/moved"}


# ---------------------------------------------------------------- what it says


def filled(
    store: RunStore, table: dict[tuple[str, float], list[tuple[float, float, float]]], asked: Experiment
) -> None:
    for (arm, rate, seed), run in diversity.launch(store, asked).items():
        if (arm, rate) in table:
            measured(store, run, *table[arm, rate][asked.seeds.index(seed)])


TABLE = {
    ("dense", 0.0): [(70.0, 0.20, 4.0), (72.0, 0.22, 4.4), (74.0, 0.21, 4.2)],
    ("expert", 0.5): [(75.0, 0.10, 5.0), (76.0, 0.13, 5.3), (78.0, 0.11, 5.2)],
    ("token", 0.5): [(71.0, 0.30, 4.1), (71.0, 0.31, 4.2), (75.0, 0.32, 4.3)],
    ("lora", 0.0): [(69.0, 0.20, 4.0), (71.0, 0.21, 4.1), (73.0, 0.22, 4.2)],
    ("lora", 0.5): [(68.0, 0.25, 3.0), (70.0, 0.16, 3.1), (72.5, 0.24, 3.2)],
}


def test_means_intervals_and_paired_differences(store: RunStore) -> None:
    asked = diversity.experiment(BASE, (0.5,), 3)
    filled(store, TABLE, asked)
    now = diversity.result(store, asked)
    assert not now.missing
    point = next(p for p in now.points if (p.arm, p.rate) == ("expert", 0.5))
    gaps = [e[1] - d[1] for e, d in zip(TABLE["expert", 0.5], TABLE["dense", 0.0], strict=False)]
    gap = point.differences["absolute"]
    reach = 4.303 * stdev(gaps) / math.sqrt(3)
    assert (gap.mean, gap.low, gap.high) == pytest.approx((fmean(gaps), fmean(gaps) - reach, fmean(gaps) + reach))
    assert point.values["accuracy"].mean == pytest.approx(fmean([75, 76, 78]))
    assert point.values["effective_rank"].mean == pytest.approx(fmean([5.0, 5.3, 5.2]))
    assert point.values["signed"].mean == pytest.approx(fmean([0.05, 0.065, 0.055]))
    lora = {p.rate: p for p in now.curve("lora")}
    assert (lora[0.0].reference, lora[0.5].reference) == ("dense", "LoRA without dropout")
    assert lora[0.5].differences["accuracy"].mean == pytest.approx(-2.5 / 3)
    assert lora[0.0].differences["accuracy"].mean == pytest.approx(-1)
    assert [p.rate for p in now.curve("token")] == [0.0, 0.5]
    assert not now.curve("token")[0].differences
    assert now.baseline.mean == pytest.approx(0.00288, abs=1e-5)


def test_the_verdict_follows_the_rule(store: RunStore) -> None:
    asked = diversity.experiment(BASE, (0.5,), 3)
    filled(store, TABLE, asked)
    first, expert, token, lora = diversity.result(store, asked).verdict
    assert (
        first
        == "On Digits, the claim that masking makes experts less alike is supported at p = 0.5 (3 seeds, 2 epochs)."
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
    asked = diversity.experiment(BASE, (0.5,), len(cosines))
    table = {("dense", 0.0): TABLE["dense", 0.0], ("expert", 0.5): [(70.0, c, 4.0) for c in cosines]}
    filled(store, table, asked)
    now = diversity.result(store, asked)
    assert diversity.claim(now.curve("expert")[-1]) == claim
    assert f" {claim} at p = 0.5 ({len(cosines)} seed" in now.verdict[0]
    assert now.verdict[-1] == f"{3 * len(cosines)} of {5 * len(cosines)} runs are not evaluated yet."


def test_nothing_measured_is_said(store: RunStore) -> None:
    asked = diversity.experiment(BASE, (0.5,), 1)
    now = diversity.result(store, asked)
    assert not now.points
    assert len(now.missing) == 5
    assert not now.runs
    assert now.verdict[0].startswith("There is no result for Digits yet")


def test_several_rates_are_told_together() -> None:
    words = {0.1: "rises", 0.3: "falls", 0.5: "rises", 0.9: "rises"}
    assert diversity._by_rate(words) == "rises at p = 0.1, 0.5 and 0.9, falls at p = 0.3"
    assert diversity._by_rate({0.1: "falls", 0.9: "falls"}) == "falls at every p"
    assert diversity._by_rate({0.9: "falls"}) == "falls at p = 0.9"


def test_what_is_told_is_json(store: RunStore) -> None:
    asked = diversity.experiment(BASE, (0.5,), 3)
    filled(store, TABLE, asked)
    told = json.loads(json.dumps(diversity.report(diversity.result(store, asked))))
    assert told["missing"] == 0
    assert told["rates"] == [0, 0.5]
    assert len(told["points"]) == 7
    masked = next(p for p in told["points"] if (p["arm"], p["p"]) == ("expert", 0.5))
    assert masked["claim"] == "supported"
    assert masked["difference"]["absolute"]["n"] == 3


def test_a_run_of_an_older_lab_has_no_ranks_and_still_counts(store: RunStore) -> None:
    asked = diversity.experiment(BASE, (0.5,), 1)
    cell: Cell = ("dense", 0.0, 0)
    run = diversity.launch(store, asked)[cell]
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
