"""Registers the folders of runs that a store's database does not know, as after the database was lost.

A checkpoint holds the settings of its run, so a run with one is complete again, except for its events.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from mlae_lab import locks
from mlae_lab.core import bounded_json, image_labels
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Saved
from mlae_lab.errors import LabError
from mlae_lab.runs import devices, paths
from mlae_lab.runs.database import trained_runs
from mlae_lab.runs.liveness import ExitRecord, read_exit_record
from mlae_lab.runs.paths import RunPaths
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore, StoreError

_LOST = ExitRecord(
    Status.LOST, "its record was lost with the database of the store; resume continues from its checkpoint"
)


@dataclass(frozen=True)
class Recovery:
    """The result of `recover`.

    Attributes:
        runs: The ids of the runs that are registered again.
        left: Id of each other folder to why it was left alone, a clause.
    """

    runs: tuple[str, ...]
    left: dict[str, str]


def recover(store: RunStore) -> Recovery:
    """Register every folder of an unknown run that has a checkpoint. Changes no file of a run."""
    runs, left = [], {}
    for name in trained_runs(store.folder):
        if store.holds(name):
            continue
        try:
            _register(store, name)
            runs.append(name)
        except (LabError, OSError) as error:
            left[name] = " ".join(str(error).split())[:300]
    return Recovery(tuple(runs), left)


def _register(store: RunStore, name: str) -> None:
    files = store.paths(name)
    if store.is_gone(name) or paths.archived(store.folder, name).exists():
        raise StoreError("it was deleted or archived, and its folder could not be removed: delete or restore it")
    lock = locks.take(files.lock)
    if lock is None:
        raise StoreError("its process is alive: try again when it has ended")
    try:
        checkpoint, header = _newest_header(files)
        trained = RunConfig.from_dict(header["config"])
        config = replace(trained, data_label=image_labels.current(trained.data_label))  # may be of version 0.5
        record = read_exit_record(files) or _LOST
        written = checkpoint.stat().st_mtime
        run = Run(
            name, written, config, trained.hash, record.status, record.reason, devices.kind(config.device), None, None,
            written, relation="branched" if files.start.is_file() else "",
        )  # fmt: skip
        store.insert(run, [(written, _saved(files, header))])
    finally:
        os.close(lock)


def _newest_header(files: RunPaths) -> tuple[Path, dict]:
    """The newest checkpoint whose header can be read. Raises StoreError if there is none."""
    named = files.checkpoints()
    for path in (named.pop(paths.LAST, None), *reversed(named.values())):
        if path is not None and (header := _header(path)) is not None:
            return path, header
    raise StoreError("it has no checkpoint that can be read, which would hold its settings")


def _header(checkpoint: Path) -> dict | None:
    """The lab's header of a checkpoint (`training.checkpoint`), read without torch; None if it is damaged."""
    try:
        with checkpoint.open("rb") as file:
            metadata = bounded_json.safetensors_header(file)[0]["__metadata__"]
        header = bounded_json.parsed(metadata["mlae_lab_checkpoint"])
        position = header.get("position", header.get("place"))  # version 0.5 has "place"
        whole = all(type(position[name]) is int and position[name] >= 0 for name in ("epoch", "batch", "step"))
        return {"config": header["config"], "position": position} if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _saved(files: RunPaths, header: dict) -> Saved:
    """The event of the checkpoint, from which a branch knows its epoch."""
    position = header["position"]
    finished = position["epoch"] - (position["batch"] == 0 and position["epoch"] > 1)
    return Saved(finished, position["step"], files.adapter.stat().st_size if files.adapter.is_file() else 0)
