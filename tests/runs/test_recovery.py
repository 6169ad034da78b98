"""A store whose database was lost: it is refused, and its runs are registered again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mlae_lab.cli import main
from mlae_lab.core import events as ev
from mlae_lab.doctor import examine
from mlae_lab.runs import commands
from mlae_lab.runs.liveness import ExitRecord, reserve_exit_record, write_exit_record
from mlae_lab.runs.paths import RunPaths, database
from mlae_lab.runs.recovery import recover
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore, StoreError
from tests.lab import held
from tests.runs.test_store import CONFIG


def with_checkpoint(files: RunPaths, config: object = CONFIG.to_dict(), status: Status | None = None) -> None:
    """Give a run's folder a checkpoint after the second epoch, and an exit record."""
    files.folder.mkdir(parents=True, exist_ok=True)
    position = {"epoch": 3, "batch": 0, "step": 26, "seconds": 1.5, "sampled_steps": 26}
    header = json.dumps({"format": 2, "config": config, "position": position})
    save_file({"head.weight": np.ones((2, 2), np.float32)}, files.checkpoint, {"mlae_lab_checkpoint": header})
    if status is not None:
        reserve_exit_record(files)
        write_exit_record(files, ExitRecord(status, "a reason"))


def lose_database(folder: Path, leave_empty: bool) -> None:
    for file in folder.glob("lab.sqlite*"):
        file.unlink()
    if leave_empty:
        database(folder).touch()


@pytest.mark.parametrize("leave_empty", [False, True])
def test_a_lost_database_is_not_replaced_by_an_empty_one(leave_empty: bool, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "lab")
    run = store.enqueue(CONFIG, "cpu").id
    with_checkpoint(store.paths(run))
    folder = store.folder
    del store
    lose_database(folder, leave_empty)
    with pytest.raises(StoreError, match=r"lab.sqlite is missing or empty.*doctor --recover"):
        RunStore(folder)
    troubles = [finding for finding in examine(folder).troubles if finding.name == "store"]
    assert ["doctor --recover" in finding.cure for finding in troubles] == [True]
    assert database(folder).exists() is leave_empty  # nothing was made


def test_a_new_store_next_to_other_files_is_made(tmp_path: Path) -> None:
    (tmp_path / "runs" / "aaaaaaaa").mkdir(parents=True)
    (tmp_path / "runs" / "my notes").mkdir()
    (tmp_path / "data").mkdir()
    assert RunStore(tmp_path).runs() == []


def test_runs_with_a_checkpoint_are_registered_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "lab"
    finished, lost, damaged, bare = (RunPaths(folder, name * 8) for name in "abcd")
    with_checkpoint(finished, status=Status.FINISHED)
    with_checkpoint(lost)
    with_checkpoint(damaged, config={"task": 7})
    damaged.checkpoint_after(2).parent.mkdir()
    damaged.checkpoint_after(2).write_bytes(b"\xff" * 100)
    bare.folder.mkdir()
    bare.adapter.write_bytes(bytes(100))
    main(["doctor", "--recover", "--store", str(folder), "--json"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["recovered"] == [finished.run, lost.run]
    assert set(report["not_recovered"]) == {damaged.run, bare.run}
    store = RunStore(folder)
    assert {run.id: (run.status, run.config, run.config_hash) for run in store.runs()} == {
        finished.run: (Status.FINISHED, CONFIG, CONFIG.hash),
        lost.run: (Status.LOST, CONFIG, CONFIG.hash),
    }
    assert store.last(lost.run, ev.Saved) == ev.Saved(2, 26, 0)
    assert commands.epoch_of(store, lost.run, "last") == 2
    assert recover(store).runs == ()  # a second time


def test_the_images_of_a_run_of_version_0_5_have_their_label_of_today(tmp_path: Path) -> None:
    """Its hash stays, as when its store is migrated."""
    old = replace(CONFIG, task="own:birds", data_label="own images, 24 pictures")
    store = RunStore(tmp_path / "lab")
    with_checkpoint(store.paths("aaaaaaaa"), config=old.to_dict())
    assert recover(store).runs == ("aaaaaaaa",)
    run = store.run("aaaaaaaa")
    assert (run.config.data_label, run.config_hash) == ("own images, 24 images", old.hash)


def test_a_folder_whose_process_is_alive_or_whose_run_was_deleted_is_left(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "lab")
    alive = store.paths("aaaaaaaa")
    with_checkpoint(alive)
    gone = store.enqueue(CONFIG, "cpu").id
    store.move(gone, Status.STOPPED)
    store.delete(gone)
    with_checkpoint(store.paths(gone))
    with held(store, alive.run):
        recovery = recover(store)
    assert recovery.runs == ()
    assert set(recovery.left) == {alive.run, gone}
