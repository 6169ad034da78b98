"""What the bench and the Experts page show of what a method records by layer."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import allocation
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.ui import queries
from mlae_lab.ui.expert_views import reasons, views_of
from mlae_lab.ui.live_bench import BenchText, message
from tests.lab import step

SIZES = ev.Grid(("1", "2"), ("prompts", "LoRA"), "module", "Sizes.")


def recorded(store: RunStore, config: RunConfig, *statistics: ev.Statistics) -> Run:
    """A finished run with an evaluation after each statistics."""
    run = store.enqueue(config, "cpu").id
    for event in statistics:
        store.append(run, [step(event.step), event, ev.Evaluation(event.epoch, event.step, "val", 50.0, 1.5, 2.0)])
    store.move(run, Status.FINISHED)
    return store.run(run)


def sent(store: RunStore, run: Run, monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.setattr(queries, "store", lambda: store)
    queries.refresh()
    tail = queries.Tail(run.id)
    tail.update()
    return json.loads(zlib.decompress(message(run, tail, BenchText())))


def test_the_bench_gets_the_canvases_of_a_method_as_grids_and_the_rest_as_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(tmp_path)
    first, second = (
        ev.Statistics(
            n, n, {"sizes": ((1.0, None), (2.0, 4.0 * n)), "norm": (0.5, 0.25)}, {"sizes": ("Sizes", "")},
            {"sizes": SIZES},
        )
        for n in (1, 2)
    )  # fmt: skip
    data = sent(store, recorded(store, RunConfig("digits", method="noah"), first, second), monkeypatch)
    (grid,) = data["grids"]
    assert (grid["rows"], grid["columns"], grid["low"], grid["high"]) == (["1", "2"], ["prompts", "LoRA"], 0, 8)
    assert [now["grids"]["sizes"] for now in data["evaluations"]] == [[1, None, 2, 4], [1, None, 2, 8]]
    assert [figure["name"] for figure in data["statistics"]] == ["norm"]
    assert data["by_layer"]


def test_a_run_with_a_mask_sends_the_canvases_that_it_describes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As learned drop rates are; a canvas that says nothing about its cells stays a curve only."""
    config = RunConfig("digits", allocation((1, 2)), learned_drop_rates="expert")
    canvas = ((0.25, None), (0.5, 0.125))
    columns = ev.Grid(config.plan.row_labels, ("1", "2"), "expert", "Learned drop rate.")
    event = ev.Statistics(
        1, 1, {"drop_rate": canvas, "other": canvas}, {"drop_rate": ("Drop rate", "")}, {"drop_rate": columns}
    )
    event.require_valid(*config.canvas_size)
    data = sent(RunStore(tmp_path), recorded(RunStore(tmp_path), config, event), monkeypatch)
    assert [(grid["name"], grid["title"], grid["high"]) for grid in data["grids"]] == [("drop_rate", "Drop rate", 0.5)]
    assert data["evaluations"][0]["grids"] == {"drop_rate": [0.25, None, 0.5, 0.125]}
    assert not data["by_layer"]
    assert {figure["name"] for figure in data["statistics"]} == {"drop-rate", "other"}


@pytest.mark.parametrize(("method", "by_layer"), [("adalora", True), ("ssf", False), ("mlae", False)])
def test_the_bench_keeps_a_place_for_grids_until_the_first_evaluation(
    method: str, by_layer: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(tmp_path)
    data = sent(store, recorded(store, RunConfig("digits", method=method)), monkeypatch)
    assert (data["grids"], data["by_layer"]) == ([], by_layer)


def test_a_reference_of_a_run_may_have_settings_that_the_other_method_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(tmp_path)
    monkeypatch.setattr(queries, "store", lambda: store)
    recorded(store, RunConfig("digits", method="spt_lora", method_settings=("budget=60000",)))
    probe, run = (recorded(store, RunConfig("digits", method=name)) for name in ("linear", "mola"))
    queries.refresh()
    assert {name: reference.run for name, reference in queries.references(run).items()} == {"probe": probe.id}


@pytest.mark.parametrize(
    ("method", "missing", "sentences"),
    [
        ("mlae", set(), []),
        ("lora", {"whatif", "importance", "diversity", "activation", "attention"}, [
            "What if, Expert importance, Diversity, Activation and Attention show the experts of a mask, which LoRA "
            "does not have."
        ]),
        ("ssf", {"grids", "whatif", "importance", "similarity", "diversity", "activation", "attention"}, [
            "What if, Expert importance, Diversity, Activation and Attention show the experts of a mask, which SSF "
            "does not have.",
            "Similarity compares the experts of a mask or the ranks of a low-rank update, and SSF has neither.",
            "Grids shows what a method records by layer, and SSF records nothing.",
        ]),
    ],
)  # fmt: skip
def test_views_that_do_not_apply_say_why(method: str, missing: set[str], sentences: list[str], tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    run, masked = (recorded(store, RunConfig("digits", method=name)) for name in (method, "mlae"))
    assert set(views_of(masked)) - set(views_of(run)) == missing
    assert reasons(run) == sentences
