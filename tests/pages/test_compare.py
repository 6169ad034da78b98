"""The page that compares two runs, opened through app.py, on stores whose runs were written by hand."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from functools import partial

import pytest

from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense, pattern, uniform
from mlae_lab.core.study import Cell
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.ui.pair_view import other_masks, started_text
from tests.lab import figures, html, measured, open_page

opened = partial(open_page, "compare")

A = RunConfig("digits", uniform(0.5), epochs=4, evaluations=2, device="cpu")
B = replace(A, plan=dense())
pytestmark = pytest.mark.usefixtures("no_supervisor")  # what is enqueued waits, and no process starts


def enqueued_run(store: RunStore, config: RunConfig, *accuracies: float, status: Status = Status.FINISHED) -> Run:
    """A run evaluated after epoch 2 and, with a second number, after epoch 4."""
    run = store.enqueue(config, "cpu")
    return run if status is Status.QUEUED else measured(store, run, *accuracies, status=status)


def test_empty_store_explains_the_page(store: RunStore) -> None:
    at = opened()
    assert "No runs to compare yet" in html(at)
    assert not at.warning


def test_without_parameters_the_page_offers_runs(store: RunStore) -> None:
    enqueued_run(store, A, 50.0, 60.0)
    at = opened()
    assert "Choose A" in html(at)
    assert not figures(at)
    assert len(at.main.get("bidi_component")) == 1


def test_one_run_offers_to_choose_or_start_the_other(store: RunStore) -> None:
    a = enqueued_run(store, A, 50.0, 60.0)
    enqueued_run(store, B, 50.0, 60.0)
    at = opened(a=a.id)
    assert "Choose B" in html(at)
    assert "Rerun with another mask" in html(at)
    at.number_input(key=f"pair_seeds_{a.id}").set_value(2).run()
    assert "3 runs start, with seeds 0, 1; 1 of 4 exist already." in html(at)
    at.session_state[f"pair_mask_{a.id}"] = "dense.dense"
    at.run()
    assert "2 runs start, with seed 1; 2 of 4 exist already." in html(at)
    at.button(key=f"pair_start_{a.id}").click().run()
    assert not at.exception
    new = [run for run in store.runs() if run.config.seed == 1]
    assert {run.config.plan for run in new} == {A.plan, dense()}
    (stored,) = store.studies()
    assert {(run.source, run.relation, run.status, run.owner) for run in new} == {
        (stored.id, "study", Status.QUEUED, stored.owner)
    }
    assert "What does the mask change?" in html(at)  # this is the page of the study now


def test_one_pair(store: RunStore) -> None:
    a, b = enqueued_run(store, A, 50.0, 60.0), enqueued_run(store, B, 51.0, 62.5)
    at = opened(a=a.id, b=b.id)
    assert "B is 2.5 points above; one seed cannot distinguish that from noise." in html(at)
    shown = figures(at)
    assert set(shown) == {"mask-difference", "difference", "two-curves"}
    assert "B − A: +2.5 points, one pair" in shown["difference"]
    assert "96 with another drop rate" in shown["mask-difference"]
    assert ">Mask</td>" in html(at)
    assert A.plan.code in html(at)
    assert "nearly solved" not in html(at)
    assert not at.warning
    assert not at.error


def test_runs_at_the_ceiling_are_said_to_be(store: RunStore) -> None:
    a, b = enqueued_run(store, A, 50.0, 99.0), enqueued_run(store, B, 51.0, 98.5)
    assert "the task is nearly solved" in html(opened(a=a.id, b=b.id))


def test_three_seeds(store: RunStore) -> None:
    for seed, gain in enumerate((3.0, 3.5, 4.0)):
        a = enqueued_run(store, replace(A, seed=seed), 50.0, 60.0)
        b = enqueued_run(store, replace(B, seed=seed), 50.0, 60.0 + gain)
    at = opened(a=a.id, b=b.id)
    assert "B is better by 3.5 points (95 % interval +2.3 to +4.7)." in html(at)
    assert "seeds 0, 1, 2" in html(at)
    assert "standard deviation 0.5" in html(at)
    assert html(at).count("+3.0")
    assert html(at).count("+4.0")


def test_the_next_seed_is_one_click(store: RunStore) -> None:
    a, b = enqueued_run(store, A, 50.0, 60.0), enqueued_run(store, B, 51.0, 62.5)
    at = opened(a=a.id, b=b.id)
    assert "2 runs start, with seed 1; 2 of 4 exist already." in html(at)
    at.button(key="compare_next").click().run()
    assert not at.exception
    assert sorted(run.config.seed for run in store.open_runs()) == [1, 1]
    at = opened(a=a.id, b=b.id)
    assert "queued" in html(at)
    assert "2 runs start, with seed 2" in html(at)
    (stored,) = store.studies()
    assert (stored.study.seeds, stored.study.reference) == ((0, 1), "Uniform, p = 0.5")


@pytest.mark.parametrize("button", ["pair_start", "compare_next"])
def test_store_error_shows_one_sentence(button: str, store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = enqueued_run(store, A, 50.0, 60.0), enqueued_run(store, B, 51.0, 62.5)
    at = opened(a=a.id) if button == "pair_start" else opened(a=a.id, b=b.id)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(RunStore, "enqueue", full)
    at.button(key=f"pair_start_{a.id}" if button == "pair_start" else button).click().run()
    assert not at.exception
    assert [info.value for info in at.info] == [
        "The store cannot be used now (database or disk is full): free some disk space."
    ]


def test_pair_without_evaluations(store: RunStore) -> None:
    a, b = (enqueued_run(store, config, status=Status.STOPPED) for config in (A, B))
    at = opened(a=a.id, b=b.id)
    assert "neither run has an evaluation" in html(at)
    assert "are not a pair" not in html(at)
    at.button(key="compare_next").click().run()
    assert not at.exception
    assert [run.config.plan for run in store.open_runs()] == [A.plan, B.plan]  # again with the same seed


def test_pair_with_different_weights_is_rerun(store: RunStore) -> None:
    """As after the file of the weights was replaced: both are over, and no difference will ever come of them."""
    a, b = (enqueued_run(store, config, status=Status.QUEUED) for config in (A, B))
    for run, weights in ((a, "aaaaaaaaaaaa"), (b, "bbbbbbbbbbbb")):
        started = ev.Started(1, 1, 1, 800, 200, 52, "cpu", "float32", 0.1, weights=weights)
        store.append(run.id, [started, *(ev.Evaluation(2 * i, 26 * i, "val", 50.0, 1.0, 1.0) for i in (1, 2))])
        store.move(run.id, Status.FINISHED)
    at = opened(a=a.id, b=b.id)
    assert "Their weights differ" in html(at)
    assert "of the pairs below" not in html(at)
    assert "These two runs are not a pair." in html(at)
    assert "There is no difference to show yet" not in html(at)
    at.button(key="compare_next").click().run()
    assert [(run.config.plan, run.config.seed) for run in store.open_runs()] == [(A.plan, 0)], "B has the newer weights"
    opened(a=a.id, b=b.id).button(key="compare_next").click().run()
    assert len(store.open_runs()) == 1


def test_pair_before_its_first_step(store: RunStore) -> None:
    a, b = enqueued_run(store, A, 50.0, 60.0), enqueued_run(store, B, status=Status.QUEUED)
    at = opened(a=a.id, b=b.id)
    assert "no difference to show yet" in html(at)
    assert "queued" in html(at)
    assert "only A has been evaluated, 60.0 % after epoch 4" in figures(at)["two-curves"]
    assert "difference" not in figures(at)  # it would be empty


def test_pair_with_a_stopped_run(store: RunStore) -> None:
    a, b = enqueued_run(store, A, 50.0, 60.0), enqueued_run(store, B, 54.0, status=Status.STOPPED)
    at = opened(a=a.id, b=b.id)
    assert "A verdict needs both runs at their last epoch" in html(at)
    assert "54.0 %, epoch 2" in html(at)


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("name", ["aaaaaaaa", "../../etc/passwd", "[x](http://example.org)"])
def test_link_to_an_unknown_run_shows_one_sentence_and_a_choice(store: RunStore, side: str, name: str) -> None:
    other = enqueued_run(store, A, 50.0, 60.0)
    at = opened(**{side: name, "ba"[side == "b"]: other.id})
    assert len(at.warning) == 1
    assert f"{side.upper()} cannot be shown" in at.warning[0].value
    assert ("is not in" in at.warning[0].value) == (name == "aaaaaaaa")
    assert "http" not in at.warning[0].value
    assert f"Choose {side.upper()}" in html(at)


def test_a_deleted_run_is_one_sentence(store: RunStore) -> None:
    a, b = enqueued_run(store, A, 50.0, 60.0), enqueued_run(store, B, 50.0, 60.0)
    store.delete(b.id)
    at = opened(a=a.id, b=b.id)
    assert len(at.warning) == 1
    assert f"run {b.id} was deleted" in at.warning[0].value


def test_one_run_on_both_sides(store: RunStore) -> None:
    a = enqueued_run(store, A, 50.0, 60.0)
    at = opened(a=a.id, b=a.id)
    assert len(at.warning) == 1
    assert "both run" in at.warning[0].value


def test_a_linear_probe_is_no_pair_but_its_curve_is_shown(store: RunStore) -> None:
    a, b = enqueued_run(store, A, 50.0, 60.0), enqueued_run(store, replace(A, method="linear"), 40.0, 45.0)
    at = opened(a=a.id, b=b.id)
    assert "not a pair" in html(at)
    assert "B (linear probe) has no mask." in html(at)
    assert set(figures(at)) == {"two-curves"}
    assert not at.button
    at = opened(a=b.id)
    assert "(linear probe) has no mask" in at.info[0].value


def test_another_learning_rate_is_no_pair_and_no_difference_is_drawn(store: RunStore) -> None:
    a, b = enqueued_run(store, A, 50.0, 60.0), enqueued_run(store, replace(B, learning_rate=1e-3), 40.0, 45.0)
    at = opened(a=a.id, b=b.id)
    assert "Their learning rates differ: 0.0005 and 0.001." in html(at)
    assert set(figures(at)) == {"mask-difference", "two-curves"}


def test_runs_on_other_images_are_not_comparable(store: RunStore) -> None:
    a, b = (
        enqueued_run(store, A, 50.0, 60.0),
        enqueued_run(store, replace(B, task="fashion", protocol="test"), 40.0, 45.0),
    )
    at = opened(a=a.id, b=b.id)
    assert len(at.warning) == 1
    assert "differ in task, protocol" in at.warning[0].value
    assert "are not comparable" in at.warning[0].value
    assert set(figures(at)) == {"mask-difference"}


def test_other_seeds_show_the_pairs_that_the_store_has(store: RunStore) -> None:
    for seed in (0, 1):
        enqueued_run(store, replace(A, seed=seed), 50.0, 60.0)
        enqueued_run(store, replace(B, seed=seed), 50.0, 61.0 + seed)
    a = next(run for run in store.runs() if run.config == A)
    b = next(run for run in store.runs() if run.config == replace(B, seed=1))
    at = opened(a=a.id, b=b.id)
    assert "their seeds differ: 0 and 1" in html(at)
    assert "2 pairs of runs, seeds 0, 1." in html(at)


def test_other_masks_differ_and_fit_the_backbone() -> None:
    odd = replace(A, plan=replace(pattern("hourglass", "mixed", 0.25), coefficient_init=4.0))
    masks = other_masks(odd, dense(24))  # the canvas is of a deeper network
    assert next(iter(masks)) == "canvas"
    assert masks["canvas"][1].targets == odd.plan.targets
    assert len(masks) == 17
    assert all(plan != odd.plan for _, plan in masks.values())
    assert {plan.coefficient_init for name, (_, plan) in masks.items() if name != "canvas"} == {4.0}
    for _, plan in masks.values():
        replace(odd, plan=plan)
    assert "dense.dense" not in other_masks(B, uniform(0.5))
    assert len(other_masks(B, dense())) == 15


def test_started_text(store: RunStore) -> None:
    run = enqueued_run(store, A, 50.0, 60.0)
    here, first, second = Cell("A", 0, A), Cell("B", 0, B), Cell("B", 1, B)
    assert started_text([(here, run)]).startswith("All of these runs exist already")
    assert started_text([(here, run), (first, None)]) == "One run starts, with seed 0; 1 of 2 exist already."
    assert started_text([(first, None), (second, None)]) == "2 runs start, with seeds 0, 1."
