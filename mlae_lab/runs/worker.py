"""The process of a run: it loads, trains, writes events and checkpoints, and records how the run ended.

    python -m mlae_lab.runs.worker STORE RUN LOCK_FD

`runs.supervisor` starts it; LOCK_FD is the run's lock, already held. Output goes to the run's log.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlae_lab import environment
from mlae_lab.core import image_labels
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import (
    OF_EVALUATION,
    Evaluation,
    Event,
    Preparing,
    Resumed,
    SampleImages,
    Saved,
    Started,
    TrainStep,
)
from mlae_lab.locations import PROGRAM, use_store
from mlae_lab.runs import commands, pending_events, supervisor
from mlae_lab.runs.error_messages import failure_reason
from mlae_lab.runs.liveness import ExitRecord, HeartbeatWriter, reserve_exit_record, write_exit_record
from mlae_lab.runs.paths import RunPaths
from mlae_lab.runs.run_location import read_location
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore

if TYPE_CHECKING:
    from mlae_lab.training.checkpoint import Checkpoint, CheckpointError
    from mlae_lab.training.setup import Setup
    from mlae_lab.training.trainer import Training

POLL_SECONDS = 0.5  # interval at which a run checks whether it should stop
FLUSH_SECONDS = 0.5  # step events are written in batches, delayed by at most this time
SAVE_SECONDS = environment.SAVE.value()
NO_GPU = (
    "The driver lists a GPU but torch cannot use it: this run trains on the CPU. Run "
    f"`{PROGRAM} doctor --deep` for the cause."
)
KEPT = 8  # checkpoints kept per run, besides the newest
END_SECONDS = environment.END.value()


def main(arguments: list[str]) -> int:
    store, run_id = RunStore(Path(arguments[0])), arguments[1]
    use_store(store.folder)
    os.set_inheritable(int(arguments[2]), False)  # no child process may hold the lock
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status, writer = 0, None
    try:
        if not store.began(run_id, os.getpid()):
            return 0
        pending_events.deliver(store, run_id)
        writer = _Writer(store, run_id)
        reserve_exit_record(store.paths(run_id))
        record = _train(store, store.run(run_id), signals, writer)
    except BaseException as error:  # the end must be recorded in any case; the traceback goes to the log
        from mlae_lab.data.bundled import DataError

        with suppress(OSError):
            if not isinstance(error, DataError):  # which says all: the images are wrong, not the code
                traceback.print_exc()
        record, status = ExitRecord(Status.FAILED, failure_reason(error)), 1
    _record_end(store, run_id, record, writer)
    with suppress(Exception):
        supervisor.ensure(store)  # for the next queued run, if the supervisor was killed
    return status


def _record_end(store: RunStore, run_id: str, record: ExitRecord, writer: _Writer | None) -> None:
    """Write the exit record, which needs no disk space and no lock, then the end in the store.

    Args:
        store: Of the run.
        run_id: Its id.
        record: How it ended.
        writer: With events to write, None for a run that failed before it had any.
    """
    with suppress(OSError):
        write_exit_record(store.paths(run_id), record)
    with suppress(OSError, sqlite3.Error):
        if writer:
            writer.keep()  # in case the store stays locked for longer than END_SECONDS
    deadline = time.monotonic() + END_SECONDS
    while True:
        try:
            if writer:
                writer.flush(timeout=5.0)
            if not (writer and writer.waiting):
                store.move(run_id, record.status, record.reason, timeout=5.0)  # False: it is over already
                return
        except sqlite3.Error as error:
            if time.monotonic() > deadline:
                with suppress(OSError):
                    print(f"the end of the run could not be written to the store ({error})", flush=True)
                return
        if time.monotonic() > deadline:
            return
        time.sleep(0.5)


def _train(store: RunStore, run: Run, signals: list[int], writer: _Writer) -> ExitRecord:
    from mlae_lab.data.image_record import read_record
    from mlae_lab.training.checkpoint import CheckpointError
    from mlae_lab.training.environment import change_note, environment_of
    from mlae_lab.training.setup import prepare
    from mlae_lab.training.trainer import Training

    print(f"run {run.id}, attempt {run.attempt}: {run.config.command()}", flush=True)
    files = store.paths(run.id)
    for pattern in ("*.part", "checkpoints/*.part", "answers/*.part"):
        for leftover in files.folder.glob(pattern):
            leftover.unlink(missing_ok=True)
    watch = _Watch(store, run.id, signals, HeartbeatWriter(files))
    notes: list[str] = []
    misfit: CheckpointError | None = None
    for start, source, path in _starts(files, run, notes):
        before = _environment(store, run, start, source)
        try:
            watch.on_chunk()
            record, location = read_record(files.images), read_location(files)
            setup = prepare(
                location.applied(run.config), location.weights_file, on_progress=_Preparation(writer, watch),
                on_chunk=watch.on_chunk, record=record, trained_by_0_5=start is not None and record is None,
                precision=_kept_precision(run.config, before),
            )  # fmt: skip
            watch.on_chunk()
        except _StoppedEarly:
            return ExitRecord(Status.STOPPED, "stopped before the first step")
        if (run.slot or "").startswith("cuda") and setup.device.type == "cpu":  # "auto" and, say, a too old driver
            setup = replace(setup, notes=(*setup.notes, NO_GPU))
        location.require(setup.weights, _trained_weights(store, run))
        setup = _record_images(store, run, setup, start, record is None)
        try:
            training = Training(setup, start)
            break
        except CheckpointError as error:  # the setup holds a part of it: the next one gets a new setup
            misfit = misfit or error
            _skip(path, error, notes)
    else:
        assert misfit is not None  # a start without a checkpoint fits
        raise misfit
    if note := change_note(before, environment_of(setup.device, setup.precision)):
        notes.append(note)
    store.move(run.id, Status.RUNNING, only_from=(Status.STARTING,))
    saver = _Saver(files, run.config, setup, training, writer)
    for event in training.run(should_stop=watch.should_stop):
        writer.add(replace(event, source=source, notes=tuple(notes)) if isinstance(event, Resumed) else event)
        watch.step = getattr(event, "step", watch.step)
        if isinstance(event, Evaluation):
            print(f"epoch {event.epoch}: {event.split} accuracy {event.accuracy:.1f} %", flush=True)
            saver.save(event.epoch)
        elif isinstance(event, TrainStep):
            saver.save_if_due(event.epoch)
    step = training.position.step
    if step > saver.saved_step:
        saver.save(training.position.epoch, evaluated=False)
    if watch.stopped and not training.is_through:
        skipped = "" if saver.evaluated_step == step else ", without an evaluation, which would have taken too long"
        return ExitRecord(Status.STOPPED, f"stopped and saved after step {step}{skipped}")
    return ExitRecord(Status.FINISHED)


def _trained_weights(store: RunStore, run: Run) -> str:
    """Fingerprint of the frozen weights that a run, or the run it branched from, was trained on; "" if unknown."""
    for name in (run.id, run.parent if run.relation == "branched" else ""):
        started = store.last(name, Started) if name else None
        if started is not None and started.weights:
            return started.weights
    return ""


def _record_images(store: RunStore, run: Run, setup: Setup, start: Checkpoint | None, is_new: bool) -> Setup:
    """Keep the list of the run's images, and record label and notes where they differ from those of the launch.

    Args:
        store: Of the run.
        run: As it was launched.
        setup: With its images.
        start: The checkpoint to continue from, None for a run from the first step.
        is_new: Whether the run had no list of its images yet.

    Raises:
        DataError: Images that earlier steps were trained on are missing.
    """
    from mlae_lab.data.bundled import DataError
    from mlae_lab.data.image_record import duplicates, write_record
    from mlae_lab.data.listing import counted, some

    before, config, record = run.config, setup.config, setup.record
    if record is None:
        return setup
    if is_new:
        if start is not None and config.data_fingerprint != before.data_fingerprint:  # of version 0.5
            config = replace(config, data_label=image_labels.mixed(before.data_label, config.data_label))
        if repeated := duplicates(record):
            note = image_labels.repeated_note(counted(len(repeated)), some(repeated))
            config = replace(config, data_notes=(*config.data_notes, note))
        write_record(store.paths(run.id).images, record)
    elif setup.missing:
        raise DataError(f"{setup.missing}: restore them to resume, or rerun on the images that are there now")
    config = replace(config, data_notes=tuple(dict.fromkeys(config.data_notes)))
    if (config.data_label, config.data_notes, config.data_fingerprint) != (
        before.data_label, before.data_notes, before.data_fingerprint
    ):  # fmt: skip
        print(f"images: {config.data_label}. {' '.join(config.data_notes)}", flush=True)
        store.record_dataset(run.id, config)
    return replace(setup, config=config)


def _starts(files: RunPaths, run: Run, notes: list[str]) -> Iterator[tuple[Checkpoint | None, str, Path]]:
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
            _skip(path, error, notes)
            continue
        is_trained = True
        yield checkpoint, "", path
    if files.start.exists():
        yield read_checkpoint(files.start), run.parent, files.start
    elif not is_trained:
        commands.require_start(run, files)
        yield None, "", files.checkpoint


def _skip(path: Path, error: CheckpointError, notes: list[str]) -> None:
    print(f"checkpoint skipped: {path.name}: {error}", flush=True)
    cause = "it does not fit the run" if "does not fit" in str(error) else "it cannot be read"
    notes.append(f"Checkpoint {path.name} was skipped: {cause}.")


def _environment(store: RunStore, run: Run, start: Checkpoint | None, source: str) -> Mapping[str, str]:
    """The environment of the steps before a run's own checkpoint, {} for a run from its first step."""
    if start is None or source:
        return {}
    started = store.last(run.id, Started)  # all that is known if an earlier version wrote the checkpoint
    known = {"device": started.device.partition(":")[0], "precision": started.precision} if started else {}
    return known | dict(start.environment)


def _kept_precision(config: RunConfig, before: Mapping[str, str]) -> str:
    """The precision with which a run resumes: "auto" is resolved only once, as its numbers are one series."""
    known = before.get("precision", "")
    return known if config.precision == "auto" and known in ("float32", "bfloat16") else ""


class _Saver:
    """Writes adapter and checkpoint: after every evaluation, every `SAVE_SECONDS`, and at a stop."""

    def __init__(self, files: RunPaths, config: RunConfig, setup: Setup, training: Training, writer: _Writer) -> None:
        self.files, self.config, self.setup, self.training, self.writer = files, config, setup, training, writer
        self.last, self.saved_step, self.evaluated_step = time.monotonic(), -1, -1
        epochs = config.evaluated_epochs
        self.kept = (
            {epochs[-(-len(epochs) * i // KEPT) - 1] for i in range(1, KEPT + 1)} if len(epochs) > KEPT else set(epochs)
        )

    def save_if_due(self, epoch: int) -> None:
        if time.monotonic() - self.last >= SAVE_SECONDS:
            self.save(epoch, evaluated=False)

    def save(self, epoch: int, evaluated: bool = True) -> None:
        from mlae_lab.model.adapter_file import save_adapter
        from mlae_lab.training.checkpoint import save_checkpoint

        position, setup = self.training.position, self.setup
        self.writer.keep()  # a resumed run does not report events before its checkpoint again
        size = save_adapter(
            self.files.adapter, setup.experts, setup.head, self.config.backbone, self.config.task, setup.expected
        )
        save_checkpoint(self.files.checkpoint, self.training.checkpoint())
        if evaluated and position.batch == 0 and epoch in self.kept:
            kept = self.files.checkpoint_after(epoch)
            kept.parent.mkdir(exist_ok=True)
            kept.unlink(missing_ok=True)
            os.link(self.files.checkpoint, kept)  # the newest is replaced, never modified, so they may share its bytes
        self.writer.add(Saved(epoch, position.step, size))
        self.last, self.saved_step = time.monotonic(), position.step
        if evaluated:
            self.evaluated_step = position.step


class _Writer:
    """Collects events and writes them in batches, those of an evaluation together.

    Events that a resumed run reports again are skipped. Training does not wait for a store that another process has
    locked: the events are written with the next batch.
    """

    def __init__(self, store: RunStore, run_id: str) -> None:
        self.store, self.run_id = store, run_id
        self.waiting: list[Event] = []
        self.is_kept = False  # whether there is a file of pending events
        self.held_back: list[Event] = []  # events of an evaluation, until the Evaluation itself
        self.last = time.monotonic()
        step = store.last(run_id, TrainStep)
        self.recorded_step = step.step if step else 0
        self.recorded_evaluations = {stored.event.step for stored in store.events(run_id, Evaluation)}
        self.recorded_start = store.last(run_id, Started) is not None

    def add(self, event: Event) -> None:
        if isinstance(event, OF_EVALUATION):
            self.held_back.append(event)
            return
        if isinstance(event, Evaluation):
            is_new = event.step not in self.recorded_evaluations
            self.waiting += [*self.held_back, event] if is_new else []
            self.held_back = []
        elif not (
            (isinstance(event, (Started, SampleImages)) and self.recorded_start)
            or (isinstance(event, TrainStep) and event.step <= self.recorded_step)
        ):
            self.waiting.append(event)
        if not isinstance(event, TrainStep) or time.monotonic() - self.last >= FLUSH_SECONDS:
            self.flush()

    def flush(self, timeout: float = 0.2) -> None:
        """Write the collected events.

        Args:
            timeout: Seconds to wait for a locked store, after which the events stay collected. Other errors, such as a
                full disk, are raised.
        """
        self.last = time.monotonic()
        if not self.waiting:
            return
        try:
            self.store.append(self.run_id, self.waiting, timeout)
            self.waiting = []
            if self.is_kept:
                self.store.sync()  # until then only the file survives a power failure
                self.store.paths(self.run_id).pending_events.unlink(missing_ok=True)
                self.is_kept = False
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise

    def keep(self) -> None:
        """Write the collected events durably; those that a locked store does not take go to `pending_events`."""
        self.flush()
        self.store.sync()
        if self.waiting:
            pending_events.keep(self.store.paths(self.run_id), self.store.event_ids(self.run_id)[1], self.waiting)
            self.is_kept = True


class _StoppedEarly(Exception):
    """The run was asked to stop before the first step."""


class _Preparation:
    """Callback for the progress of decoding: records it at most once a second. Raises _StoppedEarly."""

    def __init__(self, writer: _Writer, watch: _Watch) -> None:
        self.writer, self.watch, self.last = writer, watch, 0.0

    def __call__(self, done: int, total: int) -> None:
        self.watch.on_chunk()
        if done == total or time.monotonic() - self.last >= 1:
            self.last = time.monotonic()
            self.writer.add(Preparing(done, total))


class _Watch:
    """Checks every `POLL_SECONDS` whether the run should stop, and updates the heartbeat."""

    def __init__(self, store: RunStore, run_id: str, signals: list[int], heartbeat: HeartbeatWriter) -> None:
        self.store, self.run_id, self.signals, self.heartbeat = store, run_id, signals, heartbeat
        self.last, self.stopped, self.step = float("-inf"), False, 0

    def should_stop(self) -> bool:
        self.heartbeat.beat(self.step)
        if self.signals:
            self.stopped = True
        elif time.monotonic() - self.last >= POLL_SECONDS:
            self.last = time.monotonic()
            with suppress(sqlite3.OperationalError):  # locked: the next check will show
                self.stopped = self.store.run(self.run_id).status is Status.STOPPING
        return self.stopped

    def on_chunk(self) -> None:
        if self.should_stop():
            raise _StoppedEarly


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
