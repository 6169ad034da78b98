"""Where the process of a run starts: the checkpoint that it continues from, and what must be the same as before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Started
from mlae_lab.runs import commands
from mlae_lab.runs.paths import RunPaths
from mlae_lab.runs.store import Run, RunStore

if TYPE_CHECKING:
    from mlae_lab.training.checkpoint import Checkpoint, CheckpointError


def starts(files: RunPaths, run: Run, notes: list[str]) -> Iterator[tuple[Checkpoint | None, str, Path]]:
    """The checkpoints to continue from that can be read, the best first.

    They are the run's own, the newest first, then its parent's. Without any of them, the run starts from its first
    step.

    Args:
        files: Of the run.
        run: The run.
        notes: Takes a note for each of its checkpoints that cannot be read.

    Yields:
        The checkpoint, None for the first step; the run that it is of, "" for this one; its file.

    Raises:
        StoreError: It is a branched run that has none.
    """
    from mlae_lab.training.checkpoint import CheckpointError, read_checkpoint

    kept = [path for name, path in files.checkpoints().items() if name.isdigit()]
    own = [path for path in (files.checkpoint, *reversed(kept)) if path.exists()]
    is_trained = False
    for path in own:
        try:
            checkpoint = read_checkpoint(path)
        except CheckpointError as error:
            skip(path, "it cannot be read", error, notes)
            continue
        is_trained = True
        yield checkpoint, "", path
    if files.start.exists():
        yield read_checkpoint(files.start), run.parent, files.start
    elif not is_trained:
        commands.require_start(run, files)
        yield None, "", files.checkpoint


def skip(path: Path, cause: str, error: CheckpointError, notes: list[str]) -> None:
    """Add a note of a checkpoint that is not used; the log has the error. cause: a clause."""
    print(f"checkpoint skipped: {path.name}: {error}", flush=True)
    notes.append(f"Checkpoint {path.name} was skipped: {cause}.")


def environment_before(store: RunStore, run: Run, start: Checkpoint | None, source: str) -> Mapping[str, str]:
    """The environment of the steps before a run's own checkpoint, {} for a run from its first step."""
    if start is None or source:
        return {}
    started = store.last(run.id, Started)  # all that is known if an earlier version wrote the checkpoint
    known = {"device": started.device.partition(":")[0], "precision": started.precision} if started else {}
    return known | dict(start.environment)


def kept_precision(config: RunConfig, before: Mapping[str, str]) -> str:
    """The precision with which a run resumes: "auto" is resolved only once, as its numbers are one series."""
    known = before.get("precision", "")
    return known if config.precision == "auto" and known in ("float32", "bfloat16") else ""


def trained_weights(store: RunStore, run: Run) -> str:
    """Fingerprint of the frozen weights that a run, or the run it branched from, was trained on; "" if unknown."""
    for name in (run.id, run.parent if run.relation == "branched" else ""):
        started = store.last(name, Started) if name else None
        if started is not None and started.weights:
            return started.weights
    return ""
