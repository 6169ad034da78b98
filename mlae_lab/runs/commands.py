"""What people do with runs: start, stop, resume, repeat. Pages and the command line call the same functions.

Each is safe to call twice and at the same time as any other: the store decides which of two came first.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.epochs import steps_per_epoch
from mlae_lab.core.events import Saved, Started
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.sanitize import printable
from mlae_lab.locations import data_folder
from mlae_lab.runs import devices, supervisor
from mlae_lab.runs.liveness import derived, is_alive
from mlae_lab.runs.paths import LAST, RunPaths
from mlae_lab.runs.status import RESUMABLE, Status
from mlae_lab.runs.store import NO_ORIGIN, Origin, Run, RunStore, StoreError

_ACCOUNT_SECONDS = 5.0  # a supervisor that is started writes within them what became of a run that died


def launch(
    store: RunStore, config: RunConfig, owner: str = "", origin: Origin = NO_ORIGIN, start: Path | None = None
) -> Run:
    """Enqueue a run; its process waits for nobody, trains and outlives everyone.

    The device is settled here ("auto" asks the driver, without torch), so that there can be one queue per device.
    start: a checkpoint to go on from, copied, so that its run may be deleted.
    """
    device = devices.kind(config.device)
    name = store.reserve()
    try:
        if start is not None:
            shutil.copyfile(start, store.paths(name).start)
        run = store.enqueue(config, device, owner, origin, str(data_folder().absolute()), name)
    except BaseException:
        shutil.rmtree(store.paths(name).folder, ignore_errors=True)
        raise
    supervisor.ensure(store)
    return run


def rerun(store: RunStore, run_id: str, owner: str = "") -> Run:
    """The same run once more, from its first step, as a run of its own: a retry of one that did not reach its end, a
    duplicate of any other. One that went on from a checkpoint begins there again, and names the same parent.

    Raises StoreError where that checkpoint is not here.
    """
    run = store.run(run_id)
    if run.relation == "branched":
        files = store.paths(run_id)
        require_start(run, files)
        return launch(store, run.config, owner, Origin(run.parent, "branched", run.source), files.start)
    relation = "retry" if run.status in RESUMABLE else "duplicate"
    return launch(store, run.config, owner, Origin(run.id, relation))


def require_start(run: Run, files: RunPaths) -> None:
    """Raise StoreError if a run went on from a checkpoint of another one that is not here, as of one that was imported."""
    if run.relation == "branched" and not files.start.is_file():
        raise StoreError(
            f"run {run.id} went on from a checkpoint of run {run.parent or 'another lab'} that is not here: go on from "
            "a checkpoint that is"
        )


def stop(store: RunStore, run_id: str, now: bool = False, timeout: float = 10.0) -> Status:
    """End a run. Returns its status afterwards.

    now False: a waiting run is cancelled; a running one finishes its step, keeps what it has and measures it if that
    is quick. It may take its longest step and ten seconds, then it is ended. now True: its process group is killed
    and has ended on return.
    """
    if cancel(store, run_id):
        return Status.STOPPED
    store.move(run_id, Status.STOPPING, only_from=(Status.STARTING, Status.RUNNING))
    if now:
        supervisor.end_at_once(store, run_id, timeout)
    supervisor.ensure(store)
    return derived(store, store.run(run_id)).status


def cancel(store: RunStore, run_id: str) -> bool:
    """Cancel a run that still waits. False, and nothing changes, where its turn has come or it is over."""
    return store.move(run_id, Status.STOPPED, "cancelled before its turn came", only_from=(Status.QUEUED,))


def resume(store: RunStore, run_id: str) -> Run:
    """Let a stopped, failed or lost run go on from its last checkpoint, or from its beginning where it has none.

    Raises StoreError for a run that is under way or finished, and for one that went on from a checkpoint of another
    run, where neither that nor one of its own is here.
    """
    _settle(store, run_id)
    files = store.paths(run_id)
    if not files.checkpoints():
        require_start(store.run(run_id), files)
    if not store.requeue(run_id):
        run = store.run(run_id)
        if run.status is Status.FINISHED:
            raise StoreError(f"run {run.id} is finished: continue it with another mask or more epochs, as a new run")
        if not run.status.is_over:
            raise StoreError(f"run {run.id} is {run.status.value} already: there is nothing to resume")
    supervisor.ensure(store)
    return store.run(run_id)


def _settle(store: RunStore, run_id: str) -> None:
    """Where a run's process has died and nobody has written that down yet, wait until a supervisor has."""
    deadline = time.monotonic() + _ACCOUNT_SECONDS
    while (run := store.run(run_id)).status.is_active and derived(store, run).status.is_over:
        if time.monotonic() > deadline:
            raise StoreError(f"how run {run_id} ended is not in the store yet: try again in a moment")
        supervisor.ensure(store)
        time.sleep(0.05)


def branch(
    store: RunStore, run_id: str, plan: MaskPlan, checkpoint: str = LAST, epochs: int | None = None, owner: str = ""
) -> Run:
    """A new run that goes on from a checkpoint of another one with another mask; it names its parent.

    checkpoint: one of `RunPaths.checkpoints`. epochs: of the new run, counted from the parent's beginning; the
    parent's by default. Raises StoreError or ConfigError with what would work.
    """
    parent = store.run(run_id)
    known = store.paths(run_id).checkpoints()
    if checkpoint not in known:
        have = ", ".join(known) or "none"
        raise StoreError(f"run {run_id} has no checkpoint {checkpoint!r}: it has {have}")
    if parent.config.method != "mlae":
        raise StoreError(f"run {run_id} is a {parent.config.what}: only a run with experts can go on with another mask")
    if plan.expert_rank != parent.config.plan.expert_rank:
        raise ConfigError(
            f"the new mask has experts of rank {plan.expert_rank} and run {run_id} has rank "
            f"{parent.config.plan.expert_rank}: they must be equal"
        )
    config = replace(parent.config, plan=plan, epochs=parent.config.epochs if epochs is None else epochs)
    reached = epoch_of(store, run_id, checkpoint)
    if reached >= config.epochs:
        raise ConfigError(
            f"epochs is {config.epochs} and the checkpoint is of epoch {reached}: choose more epochs or an earlier checkpoint"
        )
    return launch(store, config, owner, Origin(parent.id, "branched", checkpoint), known[checkpoint])


def command_of(run: Run) -> str:
    """The command line that starts the same run, from where it began."""
    return f"python -m mlae_lab rerun {run.id}" if run.relation == "branched" else run.config.command()


def epoch_of(store: RunStore, run_id: str, checkpoint: str) -> int:
    """The whole epochs that a checkpoint has behind it."""
    if checkpoint != LAST:
        return int(checkpoint)
    run, saved, started = store.run(run_id), store.last(run_id, Saved), store.last(run_id, Started)
    if saved is None:
        return 0
    if started is None:
        return saved.epoch
    return saved.step // steps_per_epoch(started.train_images, run.config.batch_size)


# ---------------------------------------------------------------- room on the disk


@dataclass(frozen=True)
class DiskUse:
    """Bytes that a run takes. files: of its folder; events: in the database."""

    files: int
    events: int

    @property
    def total(self) -> int:
        return self.files + self.events


def disk_use(store: RunStore) -> dict[str, DiskUse]:
    """What each run takes."""
    events = store.event_bytes()
    return {run.id: DiskUse(_bytes_in(store.paths(run.id).folder), events.get(run.id, 0)) for run in store.runs()}


def _bytes_in(folder: os.PathLike) -> int:
    total = 0
    for here, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(here, name), follow_symlinks=False).st_size
            except OSError:
                continue
    return total


def free_bytes(store: RunStore) -> int:
    """Room left on the disk of the store."""
    return shutil.disk_usage(store.folder).free


def delete(store: RunStore, run_id: str) -> None:
    """Forget a run that is over. Raises StoreError if it is not over, or its process is still there."""
    _settle(store, run_id)
    deadline = time.monotonic() + 5
    while store.run(run_id).status.is_over and is_alive(store.paths(run_id)) and time.monotonic() < deadline:
        time.sleep(0.05)  # it wrote its end and is leaving
    if store.run(run_id).status.is_over and is_alive(store.paths(run_id)):
        raise StoreError(f"the process of run {run_id} is still there: stop it before you delete it")
    store.delete(run_id)


def log_tail(store: RunStore, run_id: str, lines: int = 40) -> list[str]:
    """The last lines of a run's log, without what a terminal would obey: the run may come from a stranger."""
    try:
        with store.paths(run_id).log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 64_000))
            return [printable(line) for line in file.read().decode(errors="replace").splitlines()[-lines:]]
    except FileNotFoundError:
        return []
