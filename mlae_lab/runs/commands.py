"""Actions on runs: launch, stop, resume, rerun, branch, delete. Pages and the command line call the same functions.

Each is safe to call twice and concurrently with any other: the store decides which call came first.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.epochs import steps_per_epoch
from mlae_lab.core.events import Saved, Started
from mlae_lab.core.image_labels import for_new_run
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.sanitize import printable
from mlae_lab.core.weight_fit import require_weights
from mlae_lab.locations import PROGRAM, data_folder
from mlae_lab.runs import devices, liveness, supervisor
from mlae_lab.runs.liveness import derived, is_alive
from mlae_lab.runs.paths import LAST, RunPaths, images_of_checkpoint
from mlae_lab.runs.run_location import RunLocation, keep_location, read_location
from mlae_lab.runs.status import RESUMABLE, Status
from mlae_lab.runs.store import NO_ORIGIN, Origin, Run, RunStore, StoreError

CONFIGURED = RunLocation()
_MARK_SECONDS = 0.2  # that "stop now" waits for another writer before it kills
_ACCOUNT_SECONDS = 5.0  # within which a new supervisor records how a run ended whose process died
_EXIT_SECONDS = 20.0  # within which a process exits after its end is recorded, on a busy machine


def launch(
    store: RunStore,
    config: RunConfig,
    owner: str = "",
    origin: Origin = NO_ORIGIN,
    start: Path | None = None,
    location: RunLocation = CONFIGURED,
) -> Run:
    """Enqueue a run, which its own process trains in the background.

    The device is resolved here ("auto" asks the driver, without torch), so that there is one queue per device.

    Args:
        store: Of the run.
        config: Its settings.
        owner: As in `Run`.
        origin: Where it comes from.
        start: A checkpoint to continue from. It is copied, so that its run may be deleted.
        location: Where its images and weights are, if not where the config says.

    Raises:
        BackboneError: The weights cannot be used.
    """
    if start is None:  # nothing that happened to the images of another run concerns this one
        config = for_new_run(config)
    if not location.weights:  # a file that was named for the run is checked against its fingerprint
        require_weights(config)
    device = devices.kind(config.device)
    name = store.reserve()
    try:
        if start is not None:
            shutil.copyfile(start, store.paths(name).start)
            with suppress(FileNotFoundError):  # a bundled task has none
                shutil.copyfile(images_of_checkpoint(start), store.paths(name).images)
        if location != CONFIGURED:
            keep_location(store.paths(name), location)
        run = store.enqueue(config, device, owner, origin, str(data_folder().absolute()), name)
    except BaseException:
        shutil.rmtree(store.paths(name).folder, ignore_errors=True)
        raise
    supervisor.ensure(store)
    return run


def rerun(store: RunStore, run_id: str, owner: str = "") -> Run:
    """Launch the same run again, from its first step: a retry of one that did not finish, a duplicate of any other.

    A run that was branched from a checkpoint starts from that checkpoint again and has the same parent. The new run
    finds images and weights where they were last named for this one. Raises StoreError if that checkpoint is missing,
    or its method is not installed here.
    """
    run, location = store.run(run_id), _same_weights(store, run_id)
    _require_method(f"run {run_id} cannot be repeated", run.config)
    config = location.applied(run.config)
    if run.relation == "branched":
        files = store.paths(run_id)
        require_start(run, files)
        return launch(store, config, owner, Origin(run.parent, "branched", run.source), files.start, location)
    relation = "retry" if run.status in RESUMABLE else "duplicate"
    return launch(store, config, owner, Origin(run.id, relation), location=location)


def launch_like(store: RunStore, run_id: str, config: RunConfig, owner: str, origin: Origin) -> Run:
    """Launch a run on the images and frozen weights of another one, wherever they are now."""
    location = _same_weights(store, run_id)
    return launch(store, location.applied(config), owner, origin, location=location)


def _same_weights(store: RunStore, run_id: str) -> RunLocation:
    """The location of a run for one that must have the same frozen weights, if a file was named for them."""
    location = read_location(store.paths(run_id))
    if not location.weights:
        return location
    started = store.last(run_id, Started)
    return replace(location, fingerprint=started.weights if started else location.fingerprint)


def require_start(run: Run, files: RunPaths) -> None:
    """Raise StoreError if a run was branched from a checkpoint that is missing, as it is for an imported run."""
    if run.relation == "branched" and not files.start.is_file():
        parent = f"run {run.parent}" if run.parent else "a run of another store"
        raise StoreError(
            f"run {run.id} was branched from a checkpoint of {parent}, which is missing here: branch from a checkpoint "
            "in this store"
        )


def stop(store: RunStore, run_id: str, now: bool = False, timeout: float = 10.0) -> Status:
    """Stop a run; a queued one is cancelled.

    Args:
        store: Of the run.
        run_id: Its id.
        now: False: a running run finishes its step, saves a checkpoint and evaluates it if that is quick; it is killed
            if it takes more than its longest step and ten seconds. True: its process group is killed and has ended on
            return.
        timeout: Seconds to wait for a killed process to end.

    Returns:
        Its status afterwards.
    """
    if not (now and store.run(run_id).status.is_active):
        if cancel(store, run_id):
            return Status.STOPPED
        store.move(run_id, Status.STOPPING, only_from=(Status.STARTING, Status.RUNNING))
    if now:
        _stop_now(store, run_id, timeout)
    supervisor.ensure(store)
    return derived(store, store.run(run_id)).status


def _stop_now(store: RunStore, run_id: str, timeout: float) -> None:
    """Kill an active run, without waiting for a store that is locked or for a full disk.

    The store says that it is stopping, so that a supervisor does not take it for lost. If that cannot be written, the
    exit record says so, in the space that is reserved for it.
    """
    try:
        store.move(run_id, Status.STOPPING, only_from=(Status.STARTING, Status.RUNNING), timeout=_MARK_SECONDS)
        supervisor.end_at_once(store, run_id, timeout)
        return
    except sqlite3.Error:
        run = store.run(run_id)
    if not run.status.is_active:
        return  # it has ended meanwhile
    files = store.paths(run_id)
    if liveness.read_exit_record(files) is not None:  # its own: it has ended and waits for the store
        supervisor.end_at_once(store, run_id, timeout)
        return
    stopped = liveness.end_of(store, replace(run, status=Status.STOPPING))
    assert stopped is not None  # a run that is stopping is not queued again
    with suppress(OSError):
        liveness.write_exit_record(files, stopped)
    if not supervisor.end_at_once(store, run_id, timeout):
        with suppress(OSError):
            liveness.withdraw_exit_record(files, stopped)
    elif liveness.read_exit_record(files) is None:  # its process had just reserved the space for its own
        with suppress(OSError):
            liveness.write_exit_record(files, stopped)


def _require_method(what: str, config: RunConfig) -> None:
    if config.unavailable:
        raise StoreError(f"{what}: {' '.join(config.unavailable.split())[:300]}")


def cancel(store: RunStore, run_id: str) -> bool:
    """Cancel a queued run. Returns False and changes nothing if it has started or is over."""
    return store.move(run_id, Status.STOPPED, "cancelled before it started", only_from=(Status.QUEUED,))


def resume(store: RunStore, run_id: str) -> Run:
    """Resume a stopped, failed or lost run from its last checkpoint, or from the start if it has none.

    Raises StoreError for a run that is queued, active or finished, whose method is not installed here, and for a
    branched run that has no checkpoint and whose parent's checkpoint is missing.
    """
    _require_method(f"run {run_id} cannot be resumed", store.run(run_id).config)
    _await_recorded_end(store, run_id)
    files = store.paths(run_id)
    if not files.checkpoints():
        require_start(store.run(run_id), files)
    if not store.requeue(run_id):
        run = store.run(run_id)
        if run.status is Status.FINISHED:
            raise StoreError(f"run {run.id} is finished: branch from it with another mask or more epochs, as a new run")
        if not run.status.is_over:
            raise StoreError(f"run {run.id} is {run.status.value} already: there is nothing to resume")
    supervisor.ensure(store)
    return store.run(run_id)


def _await_recorded_end(store: RunStore, run_id: str) -> None:
    """If a run's process has died and the store does not say so yet, wait until a supervisor has recorded it."""
    deadline = time.monotonic() + _ACCOUNT_SECONDS
    while (run := store.run(run_id)).status.is_active and derived(store, run).status.is_over:
        if time.monotonic() > deadline:
            raise StoreError(f"the end of run {run_id} is not recorded yet: try again in a moment")
        supervisor.ensure(store)
        time.sleep(0.05)


def branch(
    store: RunStore, run_id: str, plan: MaskPlan, checkpoint: str = LAST, epochs: int | None = None, owner: str = ""
) -> Run:
    """Launch a new run that continues from a checkpoint of another run with another mask.

    Args:
        store: Of both runs.
        run_id: The parent.
        plan: Mask of the new run.
        checkpoint: One of `RunPaths.checkpoints`.
        epochs: Of the new run, counted from the parent's first; by default the parent's.
        owner: As in `Run`.

    Raises:
        StoreError: The parent has no such checkpoint, or no experts.
        ConfigError: The mask or the number of epochs does not fit the parent.
    """
    parent = store.run(run_id)
    known = store.paths(run_id).checkpoints()
    if checkpoint not in known:
        have = ", ".join(known) or "none"
        raise StoreError(f"run {run_id} has no checkpoint {checkpoint!r}: it has {have}")
    if not parent.config.has_mask:
        raise StoreError(f"run {run_id} ({parent.config.what}) has no mask: branch from a run with experts")
    if plan.expert_rank != parent.config.plan.expert_rank:
        raise ConfigError(
            f"the experts of the new mask have rank {plan.expert_rank} and those of run {run_id} have rank "
            f"{parent.config.plan.expert_rank}: they must be equal"
        )
    location = _same_weights(store, run_id)
    config = replace(
        location.applied(parent.config), plan=plan, epochs=parent.config.epochs if epochs is None else epochs
    )
    reached = epoch_of(store, run_id, checkpoint)
    if reached >= config.epochs:
        raise ConfigError(
            f"epochs is {config.epochs} and the checkpoint is after epoch {reached}: choose more epochs or an earlier "
            "checkpoint"
        )
    return launch(store, config, owner, Origin(parent.id, "branched", checkpoint), known[checkpoint], location)


def command_of(run: Run) -> str:
    """The equivalent command: it starts the same run, from the same checkpoint if it was branched."""
    return f"{PROGRAM} rerun {run.id}" if run.relation == "branched" else run.config.command()


def epoch_of(store: RunStore, run_id: str, checkpoint: str) -> int:
    """The number of complete epochs before a checkpoint."""
    if checkpoint != LAST:
        return int(checkpoint)
    run, saved, started = store.run(run_id), store.last(run_id, Saved), store.last(run_id, Started)
    if saved is None:
        return 0
    if started is None:
        return saved.epoch
    return saved.step // steps_per_epoch(started.train_images, run.config.batch_size)


# ---------------------------------------------------------------- disk space


@dataclass(frozen=True)
class DiskUse:
    """Bytes that a run takes in its folder (files) and in the database (events)."""

    files: int
    events: int

    @property
    def total(self) -> int:
        return self.files + self.events


def disk_use(store: RunStore, runs: Sequence[Run] | None = None) -> dict[str, DiskUse]:
    """The disk use of runs, by default of all. Reads their events and their folders."""
    runs = store.runs() if runs is None else runs
    events = store.event_bytes([run.id for run in runs])
    return {run.id: DiskUse(_bytes_in(store.paths(run.id).folder), events.get(run.id, 0)) for run in runs}


def _bytes_in(folder: os.PathLike) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name), follow_symlinks=False).st_size
            except OSError:
                continue
    return total


def free_bytes(store: RunStore) -> int:
    """Free space on the disk of the store."""
    return shutil.disk_usage(store.folder).free


def delete(store: RunStore, run_id: str) -> None:
    """Delete a run that is over. Raises StoreError if it is not over, or its process still runs."""
    _await_recorded_end(store, run_id)
    deadline = time.monotonic() + _EXIT_SECONDS
    while store.run(run_id).status.is_over and is_alive(store.paths(run_id)) and time.monotonic() < deadline:
        time.sleep(0.05)  # its end is recorded and the process is about to exit
    if store.run(run_id).status.is_over and is_alive(store.paths(run_id)):
        raise StoreError(f"the process of run {run_id} still runs: stop it before you delete it")
    store.delete(run_id)


def log_tail(store: RunStore, run_id: str, lines: int = 40) -> list[str]:
    """The last lines of a run's log, without control characters: the run may be imported."""
    try:
        with store.paths(run_id).log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 64_000))
            return [printable(line) for line in file.read().decode(errors="replace").splitlines()[-lines:]]
    except FileNotFoundError:
        return []
