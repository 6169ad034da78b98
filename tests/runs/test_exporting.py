"""Exports as jobs: started once, followed, reused, invalid after a change, removed with the run."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mlae_lab import locks
from mlae_lab.core.export_formats import ExportError
from mlae_lab.runs import commands, exporting
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from tests.lab import finished_run, small_config


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunStore, str]:
    return finished_run(tmp_path_factory.mktemp("exporting") / "lab")


def test_a_separate_process_writes_an_export_once(exported: tuple[RunStore, str]) -> None:
    store, run = exported
    assert exporting.look(store, run, "safetensors").state == "none"
    texts: list[str] = []
    result = exporting.wait(store, run, "safetensors", on_progress=texts.append)
    assert "comparing the logits with" in " ".join(texts) or texts[0] == "starting"
    file = exporting.zip_file(store.paths(run).exports, "safetensors")
    before = file.stat().st_mtime_ns
    again = exporting.wait(store, run, "safetensors", on_progress=texts.append)
    assert (again, file.stat().st_mtime_ns) == (result, before)
    assert result.check.startswith("Loaded with safetensors")
    assert "8 evaluation images differ from the lab's by" in result.check
    assert f"{run}-safetensors/README.md" in dict(result.files)
    assert "# Digits" in result.card
    # the run changes: what was exported is no longer offered
    adapter = store.paths(run).adapter
    os.utime(adapter, (time.time(), time.time() + 5))
    assert exporting.look(store, run, "safetensors").state == "none"
    commands.delete(store, run)
    assert not file.exists()


def test_a_process_that_died_and_one_that_failed(store: RunStore, tmp_path: Path) -> None:
    run = store.enqueue(small_config(), device="cpu").id
    store.move(run, Status.FINISHED)
    folder = tmp_path / "exports"
    folder.mkdir()
    lock = locks.take(folder / "torch.lock")
    assert lock is not None
    exporting.report(folder, "torch", "tracing the network")
    assert exporting.look(store, run, "torch", folder) == exporting.ExportState("working", "tracing the network")
    os.close(lock)
    assert "ended before it was done: try again" in exporting.look(store, run, "torch", folder).text
    exporting.fail(folder, "torch", "the disk is full")
    assert exporting.look(store, run, "torch", folder) == exporting.ExportState("failed", "the disk is full")


def test_what_cannot_be_exported_is_refused_before_a_process_starts(store: RunStore, no_supervisor: None) -> None:
    run = store.enqueue(small_config(), device="cpu").id
    with pytest.raises(ExportError, match="is queued: it can be exported when it is over"):
        exporting.start(store, run, "onnx")
    store.move(run, Status.FINISHED)
    with pytest.raises(ExportError, match="has no adapter: train it until its first evaluation"):
        exporting.start(store, run, "onnx")
    with pytest.raises(ExportError, match="'jax' is not a format: choose from peft, timm"):
        exporting.start(store, run, "jax")
    files = store.paths(run)
    files.folder.mkdir(parents=True, exist_ok=True)
    files.adapter.touch()
    with pytest.raises(ExportError, match="the convolutional stem of the bundled backbone: use peft, safetensors"):
        exporting.start(store, run, "timm")
    assert not files.exports.exists()
