"""Exports of a run for other programs: `exports.worker`, a separate process, writes them; this starts and follows it.

A finished export stays in the run's folder as `exports/<format>.zip` and is reused until the run's adapter, its
location or the lab's version changes. It goes with the run.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlae_lab import locks
from mlae_lab.core.export_formats import FORMATS, ExportError, missing_packages, refusal
from mlae_lab.files import replacing, write_whole
from mlae_lab.locations import lab_version
from mlae_lab.runs import probe, supervisor
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.paths import RunPaths
from mlae_lab.runs.store import RunStore

FORMAT = 1  # of the result file; raise it when what an export holds changes within one version


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        signature: Of what it was made from.
        check: What the check at export found, a sentence.
        files: Name and bytes of each file.
        card: The model card.
    """

    signature: str
    check: str
    files: tuple[tuple[str, int], ...]
    card: str

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.files)


@dataclass(frozen=True)
class ExportState:
    """Where an export stands.

    Attributes:
        state: "none", "working", "done" or "failed".
        text: What is being done, or why it failed, one sentence without a full stop.
        result: Of a finished export.
    """

    state: str
    text: str = ""
    result: Exported | None = None


def signature(files: RunPaths) -> str:
    """Identifies what an export is made from: adapter, location, version of the lab."""
    return f"{FORMAT} {lab_version()} {probe.signature(files)}"


def zip_file(folder: Path, name: str) -> Path:
    """The zip of a format in a folder of exports."""
    return folder / f"{name}.zip"


def _state_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _lock(folder: Path, name: str) -> Path:
    return folder / f"{name}.lock"


# ---------------------------------------------------------------- written by the process


def report(folder: Path, name: str, text: str) -> None:
    """Record what is being done."""
    write_whole(_state_file(folder, name), json.dumps({"working": text}), sync=False)


def keep(folder: Path, name: str, exported: Exported) -> None:
    """Record a finished export."""
    write_whole(_state_file(folder, name), json.dumps(asdict(exported)))


def fail(folder: Path, name: str, reason: str) -> None:
    """Record why an export failed."""
    write_whole(_state_file(folder, name), json.dumps({"failed": reason}), sync=False)


# ---------------------------------------------------------------- for pages and commands


def look(store: RunStore, run_id: str, name: str, folder: Path | None = None) -> ExportState:
    """Where an export stands; starts nothing.

    Args:
        store: Of the run.
        run_id: The run.
        name: One of `FORMATS`.
        folder: Of the exports, by default that of the run.
    """
    files = store.paths(run_id)
    folder = folder or files.exports
    is_working = locks.held(_lock(folder, name))
    values = _read(_state_file(folder, name))
    if is_working:
        return ExportState("working", str(values.get("working", "finishing")))
    if "failed" in values:
        return ExportState("failed", str(values["failed"]))
    if "working" in values:  # its process died
        return ExportState("failed", "the process of the export ended before it was done: try again")
    try:
        result = Exported(
            values["signature"], values["check"], tuple((n, int(b)) for n, b in values["files"]), values["card"]
        )
    except (KeyError, TypeError, ValueError):
        return ExportState("none")
    if result.signature != signature(files) or not zip_file(folder, name).is_file():
        return ExportState("none")
    return ExportState("done", result=result)


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def start(store: RunStore, run_id: str, name: str, folder: Path | None = None) -> ExportState:
    """Start an export, unless it is being written or is there already.

    Args:
        store: Of the run.
        run_id: A run that is over.
        name: One of `FORMATS`.
        folder: Of the exports, by default that of the run.

    Raises:
        ExportError: The run cannot have this format.
        StoreError: The run is unknown.
        OSError: The folder cannot be written.
    """
    run, files = derived(store, store.run(run_id)), store.paths(run_id)
    require(store, run_id, name)
    folder = folder or files.exports
    current = look(store, run_id, name, folder)
    if current.state in ("working", "done"):
        return current
    folder.mkdir(parents=True, exist_ok=True)
    lock = locks.take(_lock(folder, name))
    if lock is None:
        return look(store, run_id, name, folder)
    try:
        report(folder, name, "starting")
        supervisor.spawn(
            "mlae_lab.exports.worker", [str(store.folder), run.id, name, str(folder)], folder / f"{name}.log", folder,
            lock, supervisor.environment(run),
        )  # fmt: skip
    finally:
        os.close(lock)  # the child holds the same lock through its own copy
    return ExportState("working", "starting")


def require(store: RunStore, run_id: str, name: str) -> None:
    """Raise ExportError if a run cannot be exported in a format, before anything is started."""
    if name not in FORMATS:
        raise ExportError(f"{name[:40]!r} is not a format: choose from {', '.join(FORMATS)}")
    run = derived(store, store.run(run_id))
    if not run.status.is_over:
        raise ExportError(f"run {run.id} is {run.status.value}: it can be exported when it is over")
    if not store.paths(run.id).adapter.is_file():
        raise ExportError(f"run {run.id} has no adapter: train it until its first evaluation")
    if why := refusal(name, run.config) or missing_packages(name):
        raise ExportError(why)


def wait(
    store: RunStore, run_id: str, name: str, folder: Path | None = None, on_progress: Callable[[str], None] = print
) -> Exported:
    """`start`, and wait for the result. on_progress is called with each new text.

    Raises:
        ExportError: The export failed; and what `start` raises.
    """
    state, shown = start(store, run_id, name, folder), ""
    while state.state == "working":
        if state.text != shown:
            shown = state.text
            on_progress(shown)
        time.sleep(0.1)
        state = look(store, run_id, name, folder)
    if state.result is None:
        raise ExportError(state.text or "the export is not there any more: try again")
    return state.result


@contextmanager
def unpacked(file: Path) -> Iterator[Path]:
    """The folder in a zip of an export, for as long as the block runs."""
    with tempfile.TemporaryDirectory() as temporary, zipfile.ZipFile(file) as packed:
        packed.extractall(temporary)  # written by this lab, with relative names
        yield next(Path(temporary).iterdir())


def copy_to(file: Path, destination: Path) -> None:
    """Copy an export to a `.zip` file, or unpack it as a new folder; it appears whole or not at all.

    Args:
        file: The zip of the export.
        destination: Ends in `.zip`, or a folder that does not exist.

    Raises:
        OSError: It cannot be written.
    """
    if destination.suffix == ".zip":
        with replacing(destination) as partial:
            shutil.copyfile(file, partial)
        return
    partial = destination.with_name(f"{destination.name}.{os.urandom(4).hex()}.part")
    try:
        with unpacked(file) as folder:
            shutil.copytree(folder, partial)
        partial.rename(destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
