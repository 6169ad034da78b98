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
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlae_lab import environment
from mlae_lab.core.events import Evaluation, Preparing, Resumed, SearchGeneration, Started, TrainStep
from mlae_lab.locations import PROGRAM, use_store
from mlae_lab.runs import pending_events, supervisor
from mlae_lab.runs.error_messages import failure_reason
from mlae_lab.runs.event_writer import EventWriter
from mlae_lab.runs.liveness import ExitRecord, HeartbeatWriter, reserve_exit_record, write_exit_record
from mlae_lab.runs.run_files import Saver, record_images
from mlae_lab.runs.run_location import read_location
from mlae_lab.runs.run_start import environment_before, kept_precision, skip, starts, trained_weights
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore

if TYPE_CHECKING:
    from mlae_lab.training.checkpoint import CheckpointError

POLL_SECONDS = 0.5  # interval at which a run checks whether it should stop
NO_GPU = (
    "The driver lists a GPU but torch cannot use it: this run trains on the CPU. Run "
    f"`{PROGRAM} doctor --deep` for the cause."
)
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
        writer = EventWriter(store, run_id)
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


def _record_end(store: RunStore, run_id: str, record: ExitRecord, writer: EventWriter | None) -> None:
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


def _train(store: RunStore, run: Run, signals: list[int], writer: EventWriter) -> ExitRecord:
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
    for start, source, path in starts(files, run, notes):
        before = environment_before(store, run, start, source)
        try:
            watch.on_chunk()
            record, location = read_record(files.images), read_location(files)
            has_begun = start is not None or store.last(run.id, Started) is not None
            setup = prepare(
                location.applied(run.config), location.weights_file, on_progress=_Preparation(writer, watch),
                on_chunk=watch.on_chunk, record=record, trained_by_0_5=record is None and has_begun,
                precision=kept_precision(run.config, before), starts_new=start is None,
            )  # fmt: skip
            watch.on_chunk()
        except _StoppedEarly:
            return ExitRecord(Status.STOPPED, "stopped before the first step")
        if (run.slot or "").startswith("cuda") and setup.device.type == "cpu":  # "auto" and, say, a too old driver
            setup = replace(setup, notes=(*setup.notes, NO_GPU))
        location.require(setup.weights, trained_weights(store, run))
        setup = record_images(store, run, setup, start, record is None)
        try:
            training = Training(setup, start)
            break
        except CheckpointError as error:  # the setup holds a part of it: the next one gets a new setup
            misfit = misfit or error
            skip(path, "it does not fit the run", error, notes)
            run = store.run(run.id)  # with what was recorded of its images
    else:
        assert misfit is not None  # a start without a checkpoint fits
        raise misfit
    if note := change_note(before, environment_of(setup.device, setup.precision)):
        notes.append(note)
    store.move(run.id, Status.RUNNING, only_from=(Status.STARTING,))
    saver = Saver(files, run.config, setup, training, writer)
    for event in training.run(should_stop=watch.should_stop):
        writer.add(replace(event, source=source, notes=tuple(notes)) if isinstance(event, Resumed) else event)
        watch.step = getattr(event, "step", watch.step)
        if isinstance(event, Evaluation):
            print(f"epoch {event.epoch}: {event.split} accuracy {event.accuracy:.1f} %", flush=True)
            saver.save(event.epoch)
        elif isinstance(event, SearchGeneration):
            print(f"search generation {event.generation}: best {event.best:.1f} %, mean {event.mean:.1f} %", flush=True)
            saver.save(event.epoch, evaluated=False)  # a generation takes long
        elif isinstance(event, TrainStep):
            saver.save_if_due(event.epoch)
    step = training.position.step
    if saver.is_behind:
        saver.save(training.position.epoch, evaluated=False)
    if watch.stopped and training.is_searching:
        return ExitRecord(
            Status.STOPPED, f"stopped and saved in the search, after {training.position.searched} candidates"
        )
    if watch.stopped and not training.is_through:
        skipped = "" if saver.evaluated_step == step else ", without an evaluation, which would have taken too long"
        return ExitRecord(Status.STOPPED, f"stopped and saved after step {step}{skipped}")
    if training.stopped_early and training.position.epoch <= run.config.epochs:
        best = training.best
        return ExitRecord(
            Status.FINISHED,
            f"stopped early: the accuracy on val has not risen above {best.accuracy:.1f} % since epoch {best.epoch}, "
            f"in {best.since} evaluations",
        )
    return ExitRecord(Status.FINISHED)


class _StoppedEarly(Exception):
    """The run was asked to stop before the first step."""


class _Preparation:
    """Callback for the progress of decoding: records it at most once a second. Raises _StoppedEarly."""

    def __init__(self, writer: EventWriter, watch: _Watch) -> None:
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
