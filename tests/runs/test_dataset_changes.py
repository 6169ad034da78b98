"""Images that change while a run is queued or interrupted: the run is labelled by those it was trained on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mlae_lab import locks
from mlae_lab.core import image_labels
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import allocation
from mlae_lab.data import tasks
from mlae_lab.runs import commands, outcomes
from mlae_lab.runs.archive_file import export, import_run
from mlae_lab.runs.report import report, state
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore
from tests.data.trees import make_own, make_vtab, write_image
from tests.lab import to_schema_5

SHORT = RunConfig(
    "dtd", allocation((0,) * 11 + (1,)), backbone="lab_vit_12x128.random", epochs=1, device="cpu", precision="float32"
)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def train(store: RunStore, run_id: str) -> Run:
    """Claim a queued run and train it in a separate process, as the supervisor does."""
    assert store.claim(run_id, "cpu")
    lock = locks.take(store.paths(run_id).lock)
    assert lock is not None
    subprocess.run(
        [sys.executable, "-m", "mlae_lab.runs.worker", str(store.folder), run_id, str(lock)],
        pass_fds=[lock],
        capture_output=True,
    )
    os.close(lock)
    run = store.run(run_id)
    assert run.status is Status.FINISHED, run.reason
    return run


def remove_last_line(file: Path) -> None:
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-2]))


def test_a_dataset_that_shrinks_in_the_queue_loses_its_vtab_label(
    data: Path, tmp_path: Path, lab_store: RunStore
) -> None:
    folder = make_vtab(data / "vtab-1k", "dtd", train=800, val=200, test=1880)
    config = tasks.located(SHORT)
    queued = lab_store.enqueue(config, "cpu")
    assert queued.config.badge.data == "VTAB-1k"
    remove_last_line(folder / "test.txt")
    run = train(lab_store, queued.id)

    label = "not VTAB-1k: its layout with 800/200/1,878 images"
    note = f"The images changed after the launch: they were “VTAB-1k” and are “{label}” now."
    assert (run.config.badge.data, run.config.data_notes[0]) == (label, note)
    assert run.config_hash == config.hash, "the config stays as it was enqueued"
    assert run.config.hash != config.hash
    assert outcomes.reusable(lab_store, [config]) == [config], "not reused for the images of before"
    assert report(lab_store, run)["badge"]["data"] == label
    assert note in report(lab_store, run)["data_notes"]
    assert note in state(lab_store, run)["config"]["data_notes"]
    assert state(lab_store, run)["dataset_changed"]

    export(lab_store, run.id, tmp_path / "run.mlae")
    imported = import_run(RunStore(tmp_path / "other"), tmp_path / "run.mlae")
    assert (imported.config.badge.data, imported.config.data_notes[0]) == (label, note)
    assert imported.config_hash == config.hash


def test_unchanged_images_keep_label_and_notes_without_a_second_census(
    data: Path, lab_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_own(data / "own" / "birds", {"wren": 12, "owl": 12, "crow": 2})
    calls = []
    real = tasks.census
    monkeypatch.setattr(tasks, "census", lambda *args: calls.append(args) or real(*args))
    config = tasks.located(replace(SHORT, task="own:birds"))
    assert len(calls) == 1
    assert config.data_notes, "crow is too small for three splits"
    tasks.load_protocol(config)
    assert len(calls) == 1
    run = train(lab_store, lab_store.enqueue(config, "cpu").id)
    assert run.config == config
    assert run.config.data_notes == config.data_notes
    assert run.config.hash == run.config_hash
    assert run.dataset == ""
    assert not state(lab_store, run)["dataset_changed"]


def test_a_queued_run_of_0_5_1_on_unchanged_images_has_no_note_of_a_change(
    data: Path, tmp_path: Path, lab_store: RunStore
) -> None:
    """0.5.1 recorded another label and no fingerprint."""
    make_own(data / "own" / "birds", {"wren": 12, "owl": 12})
    config = tasks.located(replace(SHORT, task="own:birds"))
    queued = lab_store.enqueue(config, "cpu")
    old = config.to_dict() | {"data_label": config.data_label.replace("images", "pictures")}
    old = {name: value for name, value in old.items() if name not in ("data_notes", "data_fingerprint")}
    with lab_store._connection(write=True) as db:
        to_schema_5(db)
        db.execute("UPDATE runs SET config = ?, config_hash = ?", (json.dumps(old), RunConfig.from_dict(old).hash))
        db.execute("PRAGMA user_version = 5")
    run = train(RunStore(lab_store.folder), queued.id)
    assert (run.config.data_label, run.config.data_notes) == (config.data_label, config.data_notes)
    assert run.config_hash == RunConfig.from_dict(old).hash != config.hash
    assert not state(lab_store, run)["dataset_changed"]
    assert outcomes.reusable(lab_store, [config]) == [run]


def test_other_images_in_equal_numbers_are_noted(data: Path, lab_store: RunStore) -> None:
    folder = make_own(data / "own" / "birds", {"wren": 12, "owl": 12})
    queued = lab_store.enqueue(tasks.located(replace(SHORT, task="own:birds")), "cpu")
    write_image(sorted((folder / "owl").iterdir())[0], 99)
    run = train(lab_store, queued.id)
    assert run.config.data_label == queued.config.data_label
    assert run.config.data_notes[0] == (
        "The image files were written again after the launch (sizes or times differ); their label is still "
        f"“{run.config.data_label}”."
    )


def test_a_run_that_resumes_on_other_images_is_labelled_as_mixed(data: Path, lab_store: RunStore) -> None:
    folder = make_own(data / "own" / "birds", {"wren": 12, "owl": 12})
    config = replace(tasks.located(replace(SHORT, task="own:birds")), epochs=2)
    queued = lab_store.enqueue(config, "cpu")
    train(lab_store, queued.id)
    with lab_store._connection(write=True) as db:  # as if it had been stopped at its end
        db.execute("UPDATE runs SET status = 'stopped' WHERE id = ?", (queued.id,))
    write_image(folder / "owl" / "new.jpg", 7)
    assert lab_store.requeue(queued.id)
    run = train(lab_store, queued.id)
    new = tasks.located(replace(SHORT, task="own:birds")).data_label
    assert run.config.data_label == f"mixed images: {config.data_label}, then {new}" == run.config.badge.data


def test_a_rerun_is_labelled_by_what_the_folder_holds_now(data: Path, lab_store: RunStore) -> None:
    folder = make_own(data / "own" / "birds", {"wren": 12, "owl": 12})
    config = tasks.located(replace(SHORT, task="own:birds"))
    first = lab_store.enqueue(config, "cpu")
    lab_store.move(first.id, Status.FINISHED)
    write_image(folder / "owl" / "new.jpg", 7)
    second = commands.rerun(lab_store, first.id)
    end = time.monotonic() + 120
    while not lab_store.run(second.id).status.is_over:
        assert time.monotonic() < end
        time.sleep(0.1)
    run = lab_store.run(second.id)
    assert (run.status, run.config.data_label) == (
        Status.FINISHED,
        tasks.located(replace(SHORT, task="own:birds")).data_label,
    )
    assert run.config.data_label != config.data_label


@pytest.mark.parametrize(
    ("old", "new", "label"),
    [
        ("", "B", "B"),
        ("A", "A", "A"),
        ("A", "B", "mixed images: A, then B"),
        ("mixed images: A, then B", "B", "mixed images: A, then B"),
        ("mixed images: A, then B", "A", "mixed images: A, then B, then A"),
    ],
)
def test_mixed_label(old: str, new: str, label: str) -> None:
    assert image_labels.mixed(old, new) == label
