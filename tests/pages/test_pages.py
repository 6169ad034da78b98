"""Every page, opened through app.py, on an empty store and on a filled one."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import sqlite3
import zlib
from dataclasses import replace
from pathlib import Path
from threading import Timer

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab import locks
from mlae_lab.core.catalog import backbone, task
from mlae_lab.core.config import RunConfig
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.events import Evaluation, ExpertStats, Grid, SimilarityStats, Started, Statistics
from mlae_lab.core.patterns import allocation, fitted, pattern
from mlae_lab.core.plan import MaskPlan, block_targets
from mlae_lab.locations import PAGES
from mlae_lab.runs import archive_file, commands, paths
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, RunStore, StoreError
from mlae_lab.training.checkpoint import save_checkpoint
from mlae_lab.training.setup import prepare
from mlae_lab.training.trainer import Training
from mlae_lab.ui import bench as bench_view
from mlae_lab.ui import queries
from mlae_lab.ui.task_view import task_card
from tests.data.trees import make_vtab
from tests.lab import figures, html, measured, open_page

NAMES = sorted(path.stem for path in PAGES.glob("*.py"))


def opened(page: str, store: Path, monkeypatch: pytest.MonkeyPatch, **query: str) -> AppTest:
    monkeypatch.setenv("MLAE_LAB_STORE", str(store))
    return open_page(page, **query)


def copied(store: Path, to: Path) -> Path:
    """A separate copy of a store."""
    return Path(shutil.copytree(store, to))


def bench(at: AppTest) -> dict:
    """The message of the live bench."""
    (message,) = [e.proto.bytes for e in at.main.get("bidi_component") if e.proto.component_name.endswith("live_bench")]
    return json.loads(zlib.decompress(message))


def masked_run(store: Path) -> str:
    return next(run.id for run in RunStore(store).runs() if run.config.has_mask)


def test_there_is_a_page_for_every_file() -> None:
    assert NAMES == [
        "compare", "doctor", "experts", "glossary", "home", "learn", "masks", "methods", "paper", "race", "runs",
        "studies", "task", "tour", "train",
    ]  # fmt: skip


@pytest.mark.parametrize("page", NAMES)
def test_page_on_an_empty_store(page: str, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = opened(page, empty_store, monkeypatch)
    assert not at.exception
    assert not at.error
    assert "lab-title" in html(at)


@pytest.mark.parametrize(
    ("origin", "text"),
    [
        (Origin(), ""),
        (Origin(relation="study", source="abcd2345"), "Part of study abcd2345."),
        (Origin(relation="lesson", source="is-it-better"), "Trained for the lesson is-it-better."),
        (Origin("abcd2345", "retry"), "Retry of run abcd2345."),
        (Origin(relation="branched", source="epoch 3"), "Branched from a run of another store, checkpoint epoch 3."),
    ],
)
def test_the_page_of_a_run_names_its_origin(
    origin: Origin, text: str, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(empty_store)
    run = measured(store, store.enqueue(FIRST_RUN, "cpu", origin=origin), 50.0).id
    shown = html(opened("train", empty_store, monkeypatch, run=run))
    assert text in shown
    assert ("another store" in shown) == ("another store" in text)


def test_the_precision_of_an_accuracy_follows_from_the_number_of_its_images(
    empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(empty_store)
    runs = {}
    for config, images in (
        (FIRST_RUN, 200),
        (replace(FIRST_RUN, protocol="test"), 2_000),
        (replace(FIRST_RUN, method="linear"), 200),
    ):
        run = store.enqueue(config, "cpu").id
        store.append(run, [Started(1, 1, 1, 800, images, 52, "cpu", "float32", 0.1)])
        store.move(run, Status.FINISHED)
        runs[run] = (images, config.method)
    for run, (images, method) in runs.items():
        shown = html(opened("train", empty_store, monkeypatch, run=run))
        points = {200: "6.9", 2_000: "2.2"}[images]  # 1.96 √(0.25/n), a little less for Wilson's interval
        assert f"{images:,} images give the accuracy to ±{points} points or better (95 % interval)." in shown
        assert ("how a mask learns" in shown) == (method == "mlae")


def test_a_typed_backbone_has_its_title_in_the_form(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "vit_tiny_patch16_224.random"
    at = opened("train", empty_store, monkeypatch, task="digits", set=f"backbone:{name}")
    (field,) = [box for box in at.selectbox if box.label == "Backbone"]
    assert name not in field.options
    assert "vit_tiny_patch16_224, random weights · 224 px · 5.5 M parameters · weights here" in field.options


@pytest.mark.parametrize("page", NAMES)
def test_page_on_a_filled_store(page: str, filled_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = opened(page, filled_store, monkeypatch)
    assert not at.exception
    assert not at.error


def test_a_run_is_a_link(filled_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = opened("train", filled_store, monkeypatch, run=masked_run(filled_store))
    assert not at.exception
    assert "Digits, mixed mask" in html(at)
    assert "finished" in html(at)
    message = bench(at)
    assert message["run"] == masked_run(filled_store)
    assert not message["live"]
    assert message["steps"] > 0
    assert all(message["figures"][name] for name in ("accuracy", "loss", "similarity"))
    assert len(message["evaluations"]) == 2
    assert len(message["masks"]["hex"]) == message["steps"]
    assert len(message["truth"]) == 12
    assert len(message["evaluations"][-1]["contribution"]) == 12 * 14
    assert message["evaluations"][-1]["predicted"]
    assert dict(message["facts"])["Status"] == "finished"


@pytest.mark.parametrize("page", ["train", "experts"])
@pytest.mark.parametrize("name", ["aaaaaaaa", "../../etc/passwd", "<b>x</b>", ""])
def test_link_to_an_unknown_run_shows_one_sentence(
    page: str, name: str, filled_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = opened(page, filled_store, monkeypatch, run=name)
    assert not at.exception
    if name:
        assert len(at.warning) == 1
        assert "is not in" in at.warning[0].value or "is not a run id" in at.warning[0].value


def test_a_mask_is_a_link(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = pattern("protruding", "mixed", 0.3)
    at = opened("masks", empty_store, monkeypatch, mask=plan.code)
    assert not at.exception
    assert MaskPlan.from_code(at.code[0].value) == plan
    assert "Mixed" in html(at)


def test_the_editor_says_that_learned_rates_are_initial_values(
    empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "Drop rates are learned in this run, one for each layer: p is the initial value"
    at = opened("masks", empty_store, monkeypatch, set="learn-drop-rates:layer")
    assert text in html(at)
    assert text not in html(opened("masks", empty_store, monkeypatch, set="learn-drop-rates:off"))


@pytest.mark.parametrize("code", ["nonsense", "m1_12x8_zz*12_0*12", "m1_24x8_ff*24_0*24", "m1_12x8_ff*12_1.5*12"])
def test_a_broken_mask_link_is_one_sentence_and_loses_nothing(
    code: str, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = opened("masks", empty_store, monkeypatch, mask=code)
    assert not at.exception
    assert len(at.warning) == 1
    assert "could not be opened" in at.warning[0].value
    assert at.code[0].value.startswith("m1_12x8")


def test_a_broken_task_link_is_one_sentence(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = opened("task", empty_store, monkeypatch, task="imagenet")
    assert not at.exception
    assert len(at.warning) == 1
    assert "imagenet" in at.warning[0].value


def test_a_broken_task_link_stays_one_sentence(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for query in ({"task": "nonsense"}, {"look": "[x](http://e.co)"}):
        at = opened("task", empty_store, monkeypatch, **query)
        assert len(at.warning) == 1
        assert "could not be opened" in at.warning[0].value
        assert "[x](" not in at.warning[0].value
        at.run()
        assert not at.exception
        assert not at.warning


def test_card_without_images_opens_without_being_chosen(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = opened("task", empty_store, monkeypatch, look="cifar")
    assert at.session_state["draft"].task == FIRST_RUN.task
    assert "CIFAR-100" in html(at)
    at = opened("task", empty_store, monkeypatch, task="fashion")
    assert at.session_state["draft"].task == "fashion"


def test_branch_trains_the_mask_on_the_canvas(
    filled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, launched = RunStore(copied(filled_store, tmp_path / "copy")), []
    run = next(run for run in store.runs() if run.config.has_mask)
    save_checkpoint(store.paths(run.id).checkpoint, Training(prepare(run.config)).checkpoint())
    monkeypatch.setattr(commands, "launch", lambda store, config, *rest: launched.append(config.plan) or run)
    painted = replace(pattern("hourglass", "mixed"), targets=block_targets(12, "mlp.fc1"))
    swin = backbone("swin_base_patch4_window7_224.ms_in22k")
    deeper = fitted(painted, swin.default_targets)
    for draft, expected, notes in (
        (replace(FIRST_RUN, plan=painted), painted, 0),
        (replace(FIRST_RUN, plan=deeper, backbone=swin.name), fitted(deeper, block_targets(12)), 1),
    ):
        at = opened("train", store.folder, monkeypatch, run=run.id)
        at.session_state["draft"] = draft
        at.run()
        assert html(at).count("it is stretched over the layers that exist") == notes
        at.button(key=f"continue_start_{run.id}").click().run()
        assert not at.exception
        assert launched.pop() == expected


def test_equivalent_command_names_this_run_and_this_store(
    filled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(copied(filled_store, tmp_path / "my store"))
    run = next(run for run in store.runs() if run.config.has_mask)
    here = f" --store {shlex.quote(str(store.folder))}"
    at = opened("train", store.folder, monkeypatch, run=run.id)
    assert at.code[-1].value == run.config.command() + here
    with store._connection(write=True) as db:
        db.execute("UPDATE runs SET relation = 'branched', parent = 'aaaabbbb', source = '1' WHERE id = ?", (run.id,))
    queries.refresh()
    at = opened("train", store.folder, monkeypatch, run=run.id)
    assert at.code[-1].value == f"python -m mlae_lab rerun {run.id}" + here


def test_archived_runs_can_be_deleted_even_if_damaged(
    filled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(copied(filled_store, tmp_path / "copy"))
    whole, damaged = (run.id for run in store.runs())
    for run in (whole, damaged):
        archive_file.archive(store, run)
    paths.archived(store.folder, damaged).write_bytes(b"half")
    at = opened("runs", store.folder, monkeypatch)
    assert not [button for button in at.button if button.key == f"runs_restore_archived_{damaged}"]
    for run in (damaged, whole):
        at.button(key=f"runs_delete_archived_{run}").click().run()
        at.button(key=f"runs_delete_archived_{run}_yes").click().run()
        assert not at.exception
        assert not paths.archived(store.folder, run).exists()
        with pytest.raises(StoreError, match=f"run {run} was deleted on"):
            store.run(run)


def test_deleting_the_damaged_archived_run_of_another_person_asks_first(
    filled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(copied(filled_store, tmp_path / "copy"))
    run = store.runs()[0].id
    with store._connection(write=True) as db:
        db.execute("UPDATE runs SET owner = ? WHERE id = ?", ("ada-" * 5, run))
    archive_file.archive(store, run)
    file = paths.archived(store.folder, run)
    file.write_bytes(b"half")
    at = opened("runs", store.folder, monkeypatch)
    at.button(key=f"runs_delete_archived_{run}").click().run()
    (box,) = (box for box in at.expander if box.label.startswith("Archived"))
    (warning,) = box.warning  # next to the button, not at the top of the page
    assert file.exists()
    assert "belongs to somebody" in warning.value
    assert len(at.warning) == 1
    at.button(key=f"runs_delete_archived_{run}_yes").click().run()
    assert not file.exists()
    assert not at.exception


def test_import_error_names_the_uploaded_file(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = opened("runs", empty_store, monkeypatch)
    at.file_uploader(key="runs_import").upload("my [given].mlae", b"half", "application/zip").run()
    at.button(key="runs_import_go").click().run()
    assert not at.exception
    assert len(at.warning) == 1
    assert at.warning[0].value.startswith(r"My \[given\].mlae is not an archive file"), at.warning[0].value


def test_run_with_the_most_epochs_cannot_branch(
    filled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(copied(filled_store, tmp_path / "copy"))
    run = next(run for run in store.runs() if run.config.has_mask)
    store.paths(run.id).checkpoint.write_bytes(b"a checkpoint")
    monkeypatch.setattr(commands, "epoch_of", lambda *_: 10_000)
    at = opened("train", store.folder, monkeypatch, run=run.id)
    assert not at.exception
    assert "at epoch 10,000" in html(at)
    assert at.code[-1].value.startswith("python -m mlae_lab train")


def test_settings_of_the_form_reach_the_command(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = opened("train", empty_store, monkeypatch, task="fashion")
    at.number_input[0].set_value(7).run()
    assert "--task fashion" in at.code[0].value
    assert "--epochs 7" in at.code[0].value


def test_the_draft_survives_a_change_of_page(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = pattern("hourglass")
    at = opened("masks", empty_store, monkeypatch, mask=plan.code)
    at.switch_page(str(PAGES / "runs.py")).run()
    at.switch_page(str(PAGES / "train.py")).run()
    assert plan.code in at.code[0].value


@pytest.mark.parametrize(("page", "button"), [("home", "home_first_run"), ("train", "train_start")])
def test_store_error_at_a_start_shows_one_sentence(
    page: str, button: str, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(RunStore, "enqueue", full)
    at = opened(page, empty_store, monkeypatch)
    at.button(key=button).click().run()
    assert not at.exception
    assert [error.value for error in at.error] == [
        "The store cannot be used now (database or disk is full): free some disk space."
    ]


def test_store_error_at_a_rerun_shows_one_sentence(
    filled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    at = opened("runs", filled_store, monkeypatch, select=RunStore(filled_store).runs()[0].id)
    monkeypatch.setattr(RunStore, "enqueue", full)
    next(button for button in at.button if button.label == "Duplicate").click().run()
    assert not at.exception
    assert any("No space left on device: free some disk space." in warning.value for warning in at.warning)


def test_a_deleted_run_is_gone(filled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = copied(filled_store, tmp_path / "copy")
    deleted = masked_run(copy)
    at = opened("runs", copy, monkeypatch, select=deleted)
    at.button(key=f"runs_delete_{deleted}").click().run()
    at.button(key=f"runs_delete_{deleted}_yes").click().run()
    assert not at.exception
    assert deleted not in [run.id for run in RunStore(copy).runs()]


def test_a_run_that_is_deleted_in_another_tab_is_called_so(
    filled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(copied(filled_store, tmp_path / "copy"))
    deleted = masked_run(store.folder)
    state_of = bench_view.bench_state

    def state_after_deletion(run: str) -> tuple:
        commands.delete(store, run)
        queries.refresh()
        return state_of(run)

    monkeypatch.setattr(bench_view, "bench_state", state_after_deletion)
    at = opened("train", store.folder, monkeypatch, run=deleted)
    assert not at.error
    (warning,) = at.warning
    assert warning.value.startswith(f"Run {deleted} was deleted on")


def test_previous_address_undoes_nothing(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two quick strokes: the second comes with the address from before the first."""
    old, painted = pattern("dense"), pattern("hourglass")
    at = opened("masks", empty_store, monkeypatch, mask=old.code)
    at.session_state["draft"] = replace(at.session_state["draft"], plan=painted)
    at.run()
    assert at.query_params["mask"] in (painted.code, [painted.code])
    at.query_params["mask"] = old.code
    at.run()
    assert at.session_state["draft"].plan == painted
    assert at.query_params["mask"] in (painted.code, [painted.code])


def test_link_from_a_run_counts_even_if_its_address_is_recent(
    filled_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, painted = pattern("dense"), pattern("hourglass")
    at = opened("masks", filled_store, monkeypatch, mask=old.code)
    at.session_state["draft"] = replace(at.session_state["draft"], plan=painted)
    at.run()
    monkeypatch.setattr("mlae_lab.ui.draft._ARRIVAL_SECONDS", 0.0)  # as if three seconds had gone by
    at.switch_page(str(PAGES / "train.py"))
    at.query_params["run"] = masked_run(filled_store)
    at.run()
    del at.query_params["run"]
    at.query_params["mask"] = old.code
    at.run()
    assert at.session_state["draft"].plan == old


@pytest.mark.parametrize("page", ["task", "train"])
def test_the_papers_setting_for_a_task_is_one_click(
    page: str, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = opened(page, empty_store, monkeypatch, task="svhn")
    at.button(key="task_tuned").click().run()
    assert not at.exception
    plan = at.session_state["draft"].plan
    assert plan.row_rates() == (0.5,) * 12
    assert plan.coefficient_init == 4.0


def test_card_is_ready_only_with_complete_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path))
    make_vtab(tmp_path / "vtab-1k", "svhn")
    lost = make_vtab(tmp_path / "vtab-1k", "dtd")
    next((lost / "images" / "val200").iterdir()).unlink()
    words = {name: task_card(task(name), chosen=False).word for name in ("digits", "svhn", "dtd", "cifar")}
    assert words == {"digits": "ready", "svhn": "ready", "dtd": "partial", "cifar": "no data"}


def test_the_experts_page_names_its_run_in_the_address(store: RunStore, no_supervisor: None) -> None:
    """Else a reload shows another run with the switches of this one."""
    run = store.enqueue(RunConfig("digits", allocation((0,) * 10 + (1, 2))), "cpu").id
    canvas = tuple(tuple(0.5 if kept else None for kept in row) for row in store.run(run).config.plan.keep)
    store.append(run, [ExpertStats(1, canvas, canvas, canvas, canvas)])
    at = open_page("experts", off="11.1", view="seeds")
    assert at.query_params == {"run": run, "view": "seeds"}


def test_the_experts_page_shows_learned_drop_rates(store: RunStore, no_supervisor: None) -> None:
    plan = allocation((0,) * 10 + (1, 2))
    run = store.enqueue(RunConfig("digits", plan, learned_drop_rates="expert"), "cpu").id
    canvas = tuple(tuple(0.25 if kept else None for kept in row) for row in plan.keep)
    grid = Grid(plan.row_labels, ("1", "2"), "expert", "Learned drop rate.")
    store.append(
        run,
        [
            ExpertStats(1, canvas, canvas, canvas, canvas),
            SimilarityStats(1, (None,) * 12, (None,) * 12, tuple(((1.0,) * n,) * n for n in plan.kept)),
            Statistics(1, 13, {"drop_rate": canvas}, {"drop_rate": ("Drop rate", "")}, {"drop_rate": grid}),
            Evaluation(1, 13, "val", 50.0, 1.5, 2.0),
        ],
    )
    store.move(run, Status.FINISHED)
    at = open_page("experts", run=run, view="grids")
    assert not at.exception
    assert figures(at)["drop-rate"].startswith("Heat map, 12 layers by 2 columns. Drop rate: 0.25 everywhere.")
    assert "Learned drop rate." in html(at)


def test_a_run_of_a_method_that_is_not_installed_is_on_every_page_and_can_be_deleted(
    store: RunStore, no_supervisor: None
) -> None:
    run = measured(store, store.enqueue(RunConfig("digits", method="linear"), "cpu"), 50.0).id
    with store._connection(write=True) as db:
        db.execute("UPDATE runs SET config = json_set(config, '$.method', 'gone') WHERE id = ?", (run,))
    for name in ("train", "experts"):
        at = open_page(name, run=run)
        assert any("its method 'gone' is not installed here" in warning.value for warning in at.warning)
    at = open_page("runs", select=run)
    assert "gone (not installed)" in html(at)
    at.button(key=f"runs_delete_{run}").click().run()
    at.button(key=f"runs_delete_{run}_yes").click().run()
    assert store.runs() == []


@pytest.mark.parametrize(("status", "button"), [(Status.FINISHED, "delete"), (Status.RUNNING, "stop_now")])
def test_what_cannot_be_undone_asks_first(store: RunStore, no_supervisor: None, status: Status, button: str) -> None:
    """Also for an own run, next to the button, which is in a popover in the case of Delete."""
    run = store.enqueue(RunConfig("digits"), "cpu").id
    lock = -1
    if status is Status.RUNNING:
        assert store.claim(run, "cpu")
        lock = locks.take(store.paths(run).lock) or -1  # as its process would
    store.move(run, status)
    key = f"runs_{button}_{run}"
    at = open_page("runs", **({"select": run} if button == "delete" else {}))
    at.button(key=key).click().run()
    at.button(key=key).click().run()  # as in a double click
    assert store.run(run).status is status
    container = at.get("popover")[-1] if button == "delete" else at.main
    assert len([warning for warning in container.warning if "?" in warning.value]) == 1
    at.button(key=f"{key}_no").click().run()
    assert not [warning for warning in at.warning if "?" in warning.value]
    at.button(key=key).click().run()
    if lock >= 0:
        Timer(1.0, os.close, [lock]).start()  # the process exits while the page waits for it
    at.button(key=f"{key}_yes").click().run()
    assert not at.exception
    assert not store.holds(run) or store.run(run).status in (Status.STOPPING, Status.STOPPED)
