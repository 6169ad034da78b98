"""The views Similarity and Diversity of the page Experts, opened through app.py on small runs, and their commands."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab.cli import main
from mlae_lab.core import events as ev
from mlae_lab.core import study_presets
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense, uniform
from mlae_lab.model.adapter_file import save_adapter
from mlae_lab.runs import presets
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore, StoreError
from mlae_lab.training.checkpoint import save_checkpoint
from mlae_lab.training.setup import prepare
from mlae_lab.training.trainer import Training
from mlae_lab.ui import visitor
from mlae_lab.ui.page import seconds_text
from tests.lab import end_probe, few_images, figures, finished, html, open_page, small_config

BASE = RunConfig("digits", dense(), backbone="lab_vit_12x128.random", epochs=2, evaluations=2, device="cpu")


@pytest.fixture(scope="module")
def real_store(probes_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunStore]:
    """A dense run and a masked one, trained, with adapter and a kept checkpoint; no probe outlives the tests."""
    store = RunStore(tmp_path_factory.mktemp("alike"))
    for plan in (dense(), uniform(0.5)):
        training = Training(prepare(replace(BASE, plan=plan, task="own:few", data=str(few_images()))))
        run = store.enqueue(training.setup.config, device="cpu")
        files = store.paths(run.id)
        files.folder.mkdir(parents=True, exist_ok=True)
        kept = files.checkpoint_after(1)
        for event in training.run():
            store.append(run.id, [event])
            if isinstance(event, ev.Evaluation) and event.epoch == 1:
                save_checkpoint(kept, training.checkpoint())
        store.move(run.id, Status.FINISHED)
        save_adapter(files.adapter, training.setup.experts, training.setup.head, BASE.backbone, "own:few")
    yield store
    for run in store.runs():
        end_probe(store, run.id)


@pytest.fixture
def handmade(store: RunStore, no_supervisor: None) -> RunStore:
    """An empty store in which nothing starts."""
    return store


def opened(store: RunStore, monkeypatch: pytest.MonkeyPatch, **query: str) -> AppTest:
    monkeypatch.setenv("MLAE_LAB_STORE", str(store.folder))
    return open_page("experts", **query)


def answered(at: AppTest) -> AppTest:
    """The page once the run has answered."""
    deadline, pause = time.monotonic() + 120, 0.3
    while "spectrum" not in figures(at):
        assert time.monotonic() < deadline, html(at)
        assert not at.warning, html(at)
        time.sleep(pause)
        pause *= 1.5  # each run of the page takes time from the probe, which is a thread of this process
        at.run()
    return at


# ---------------------------------------------------------------- similarity


def test_run_compared_with_the_dense_run(real_store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    masked, whole = real_store.runs()
    at = answered(opened(real_store, monkeypatch, run=masked.id, view="similarity"))
    shown = figures(at)
    assert {
        "similarity-by-layer",
        "similarity-over-epochs",
        "similarity-layers",
        "spectrum",
        "ranks",
        "overlap-row",
        "overlap-column",
        "overlap-runs",
        "effective-rank-over-epochs",
        "stable-rank-over-epochs",
    } <= set(shown)
    last = real_store.last(masked.id, ev.SimilarityStats)
    assert f"{ev.mean_of(last.effective_rank):.2f} (max. 8), other run" in shown["effective-rank-over-epochs"]
    assert "Both runs have the same seed" in html(at)
    assert at.selectbox[1].value == whole.id
    assert "in the other run" in shown["similarity-over-epochs"]
    assert "of at most 8" in shown["ranks"]
    assert "(random 0.06)" in shown["overlap-row"]
    assert "Mean |cosine|, other run" in html(at)
    assert "paper, A.4" in html(at)


def test_dense_run_has_the_same_expert_settings() -> None:
    from mlae_lab.ui.queries import _is_dense_of

    mine = uniform(0.5)
    assert _is_dense_of(dense(), mine)
    assert _is_dense_of(dense(experts=4), uniform(0.5, experts=4))
    for other in (
        replace(dense(), coefficient_init=1.0, train_coefficients=False),  # LoRA
        replace(dense(), expert_rank=2),
        mine,
    ):
        assert not _is_dense_of(other, mine)


def test_alone_at_a_checkpoint(real_store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    masked, _ = real_store.runs()
    at = answered(opened(real_store, monkeypatch, run=masked.id, view="similarity", other=""))
    end = figures(at)
    assert "overlap-runs" not in end
    assert "in the other run" not in end["similarity-over-epochs"]
    assert "Compare with a run of another seed to see" in html(at)
    at.select_slider[0].set_value("1").run()
    assert figures(answered(at))["spectrum"] != end["spectrum"]


def test_random_baseline_of_experts_of_a_higher_rank(
    probes_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(tmp_path)
    run = finished(store, replace(small_config(), plan=replace(small_config().plan, expert_rank=2)))
    try:
        at = answered(opened(store, monkeypatch, run=run, view="similarity")).run()
        assert "times that of random experts" in figures(at)["similarity-layers"]
        assert "24 layers of rank-2 experts" in html(at)
        assert "of at most 5" in figures(at)["ranks"]
    finally:
        end_probe(store, run)


@pytest.mark.parametrize(("kind", "drawn"), [("attn.qkv", True), ("attn.proj", False)])
def test_layers_of_another_kind_are_not_compared_by_layer(
    real_store: RunStore, handmade: RunStore, monkeypatch: pytest.MonkeyPatch, kind: str, drawn: bool
) -> None:
    plan = dense()
    (experts, *_) = real_store.events(real_store.runs()[0].id, ev.ExpertStats)
    runs = []
    for targets in (plan.targets, tuple(target.replace("attn.qkv", kind) for target in plan.targets)):
        run = handmade.enqueue(replace(BASE, plan=replace(plan, targets=targets)), "cpu")
        handmade.append(
            run.id,
            [
                ev.Started(1, 1, 1, 800, 200, 26, "cpu", "float32", 0.1),
                ev.Evaluation(2, 26, "val", 70.0, 1.0, 1.0),
                experts.event,
                ev.SimilarityStats(2, (0.1,) * 12, (0.1,) * 12, (((1.0, 0.1), (0.1, 1.0)),) * 12),
            ],
        )
        handmade.move(run.id, Status.FINISHED)
        runs.append(run.id)
    at = opened(handmade, monkeypatch, run=runs[0], view="similarity", other=runs[1])
    assert not at.exception
    data = [json.loads(element.proto.json or "{}") for element in at.main.get("bidi_component")]
    (figure,) = [entry for entry in data if entry.get("name") == "similarity-layers"]
    names = {trace["name"] for trace in json.loads(figure["spec"])["data"]}
    assert ("this run" in names, "other" in names) == (True, drawn)


@pytest.mark.parametrize("named", ["aaaaaaaa", "<b>x</b>", "../../etc"])
def test_link_to_an_unknown_other_run_shows_one_sentence(
    real_store: RunStore, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    at = opened(real_store, monkeypatch, run=real_store.runs()[0].id, view="similarity", other=named)
    assert len(at.warning) == 1
    assert "<b>" not in at.warning[0].value.replace(r"\<", "")
    assert "similarity-by-layer" in figures(at)


def test_command_gives_the_same_result(real_store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    masked, whole = (run.id for run in real_store.runs())
    folder = ["--store", str(real_store.folder)]
    assert main(["similarity", masked, whole, "--json", *folder]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    stats = real_store.last(masked, ev.SimilarityStats)
    assert result["absolute"] == pytest.approx(stats.absolute)
    assert result["effective_rank"] == pytest.approx(stats.effective_rank, abs=1e-4)
    assert result["other_run"] == whole
    assert len(result["other"]["same_reads"]) == 12
    assert main(["similarity", masked, "--checkpoint", "1", *folder]) == 0
    assert "random experts of these shapes" in capsys.readouterr().out
    assert main(["similarity", masked, "--checkpoint", "7", *folder]) == 2
    assert f"run {masked} has no checkpoint '7': it has 1" in capsys.readouterr().err


def test_changed_adapter_of_the_other_run_is_read_again(
    real_store: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    masked, whole = (run.id for run in real_store.runs())
    arguments = ["similarity", masked, whole, "--json", "--store", str(real_store.folder)]

    def result() -> dict:
        assert main(arguments) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    first, file = result(), real_store.paths(whole).adapter
    before, setup = file.read_bytes(), prepare(real_store.run(whole).config)  # as it was before its first step
    save_adapter(file, setup.experts, setup.head, BASE.backbone, "own:few")
    try:
        second = result()
    finally:
        file.write_bytes(before)
    assert second["other"]["effective_rank"] != first["other"]["effective_rank"]
    assert second["absolute"] == first["absolute"]
    assert result() == first


# ---------------------------------------------------------------- the central experiment


@pytest.fixture
def untried(real_store: RunStore, handmade: RunStore) -> Run:
    """A finished run of two epochs, in a store where nobody has tried the experiment."""
    run = handmade.enqueue(replace(BASE, plan=uniform(0.5)), "cpu")
    handmade.append(run.id, [s.event for s in real_store.events(real_store.runs()[0].id)])
    handmade.move(run.id, Status.FINISHED)
    return handmade.run(run.id)


def timed(store: RunStore, step: float) -> None:
    """A run that took two seconds to load and so many for a step, which this machine can be judged by."""
    run = store.enqueue(replace(BASE, task="fashion"), "cpu")
    store.claim(run.id, "cpu")
    steps = [ev.TrainStep(n, 1, 1.0, 50.0, 1e-3, 48, step * n) for n in range(1, 14)]
    store.append(run.id, [ev.Started(1, 1, 1, 800, 200, 52, "cpu", "float32", 2.0), *steps])
    store.move(run.id, Status.FINISHED)


def test_default_experiment_is_proposed(untried: Run, handmade: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    at = opened(handmade, monkeypatch, run=untried.id, view="diversity")
    assert "Repeat it on this task" in html(at)
    assert list(figures(at)) == ["recorded-experiment"], "the recorded answer comes first"
    assert at.code[0].value.startswith("python -m mlae_lab diversity --task digits")
    assert untried.config.epochs == 2
    assert "--epochs 8" in at.code[0].value
    assert "No time estimate yet. No run with" in html(at)
    assert "in total" not in html(at)
    assert "51 runs will be queued" in html(at)
    assert len(handmade.queue()) == 0
    at.button(key="diversity_start").click().run()
    assert not at.exception
    assert len(handmade.queue()) == 51
    assert {run.config.epochs for run in handmade.queue()} == {study_presets.EPOCHS}
    (stored,) = handmade.studies()
    assert "Does masking make experts less similar?" in html(at)  # this is the page of the study now
    assert "There is no result for Digits yet" in html(at)
    at = opened(handmade, monkeypatch, run=untried.id, view="diversity")
    assert "Without a result: 51 runs." in html(at)
    assert not [button for button in at.button if button.key == "diversity_start"]
    assert handmade.studies() == [stored]


def test_estimated_time_is_shown_after_earlier_runs(
    untried: Run, handmade: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(handmade, 0.5)
    at = opened(handmade, monkeypatch, run=untried.id, view="diversity")
    steps = study_presets.EPOCHS * -(-800 // BASE.batch_size)
    each = 2 + 0.5 * steps
    estimate = f"51 runs of about {seconds_text(each)}, about {seconds_text(51 * each)} in total, one after another."
    assert estimate in html(at)
    assert "From the last run with this backbone" in html(at)


@pytest.mark.parametrize(
    "error", [sqlite3.OperationalError("database is locked"), OSError("no space left"), StoreError("no *room*")]
)
def test_store_error_shows_one_sentence(
    untried: Run, handmade: RunStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object) -> None:
        raise error

    at = opened(handmade, monkeypatch, run=untried.id, view="diversity")
    with monkeypatch.context() as broken:
        broken.setattr(presets, "launch", fails)
        at.button(key="diversity_start").click().run()
    then = "Queued runs stay in the queue; the same button starts the rest."
    assert [w.value for w in at.warning] == [f"{visitor.sentence(error)} {then}"]
    at.button(key="diversity_start").click().run()
    assert len(handmade.queue()) == 51
    assert not at.warning


def test_an_experiment_is_drawn_with_its_verdict(
    real_store: RunStore, handmade: RunStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_presets.diversity(replace(BASE, evaluations=1), (0.5,), 3)
    name = presets.launch(handmade, study).id
    rows = 12
    for cell, run in zip(study.cells(), presets.runs_of(handmade, name, study), strict=True):
        arm, seed = dict(study.arm(cell.arm).values)["dropout"], cell.seed
        cosine = {"dense": 0.2, "expert": 0.1, "token": 0.3, "lora": 0.2}[arm] + 0.01 * seed
        handmade.append(
            run.id,
            [
                *[
                    ev.Started(1, 1, 1, 800, 200, 26, "cpu", "float32", 0.1),
                    *(s.event for s in real_store.events(real_store.runs()[0].id, ev.ExpertStats)),
                ][:2],
                ev.SimilarityStats(
                    2,
                    (cosine,) * rows,
                    (cosine + 0.001 * seed * (arm == "expert"),) * rows,
                    tuple(((1.0, cosine), (cosine, 1.0)) for _ in range(rows)),
                    (5.0 + seed,) * rows,
                    (2.0,) * rows,
                ),
                ev.Evaluation(2, 26, "val", 70.0 + seed, 1.0, 1.0),
            ],
        )
        handmade.move(run.id, Status.FINISHED)
    at = opened(handmade, monkeypatch, view="diversity")
    verdict = "the claim that masking makes experts less similar is supported at p = 0.5 (3 seeds, 2 epochs)"
    assert verdict in html(at)
    assert "lies below 0" in html(at)
    assert {f"diversity-{name}" for name in ("absolute", "effective_rank", "accuracy", "stable_rank")} == set(
        figures(at)
    )
    assert not [button for button in at.button if button.key == "diversity_start"]
    arguments = [
        "diversity",
        "--task",
        "digits",
        "--backbone",
        BASE.backbone,
        "--epochs",
        "2",
        "--rates",
        "0.5",
        "--device",
        "cpu",
        "--lr",
        "5e-4",
        "--warmup",
        "0",
        "--report",
        "--store",
        str(handmade.folder),
    ]
    assert main(arguments) == 0
    assert verdict in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["missing"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rates", "a,b"], "write numbers separated by commas"),
        (["--rates", "0.99"], "each from 0 to 0.9"),
        (["--seeds", "11"], "whole number from 1 to 10"),
        (["--mask-per", "token"], "the arms set mask-per, input-dropout, consistency and learned"),
    ],
)
def test_wrong_argument_shows_one_sentence_and_creates_no_store(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diversity", "--task", "digits", *arguments, "--store", str(tmp_path / "none")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
