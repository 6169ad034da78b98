"""One run, one process: load, train, write events and checkpoints, write the end.

    python -m mlae_lab.runs.worker STORE RUN LOCK_FD

Started by `runs.supervisor` when the run's turn has come; LOCK_FD is the run's lock, already held. Everything printed
goes to the run's log.
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

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import OF_EVALUATION, Evaluation, Event, Preparing, SampleImages, Saved, Started, TrainStep
from mlae_lab.runs import commands, pending_events, supervisor
from mlae_lab.runs.error_messages import failure_reason
from mlae_lab.runs.liveness import ExitRecord, HeartbeatWriter, reserve_exit_record, write_exit_record
from mlae_lab.runs.paths import RunPaths
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore

if TYPE_CHECKING:
    from mlae_lab.training.checkpoint import Checkpoint
    from mlae_lab.training.setup import Setup
    from mlae_lab.training.trainer import Training

POLL_SECONDS = 0.5  # how often a training run looks whether it should stop
FLUSH_SECONDS = 0.5  # step events are written together, at most this late
SAVE_SECONDS = float(
    os.environ.get("MLAE_LAB_SAVE_SECONDS", "30")
)  # so much training is lost with a run that is killed
NO_GPU = (
    "The driver lists a GPU and torch cannot use it: this run trains on the CPU. `mlae_lab doctor --deep` says why."
)
KEPT = 8  # checkpoints kept per run, besides the newest
END_SECONDS = float(
    os.environ.get("MLAE_LAB_END_SECONDS", "60")
)  # tried so long to get the end into a store that is locked or full; the last word stands beside it


def main(arguments: list[str]) -> int:
    store, run_id = RunStore(Path(arguments[0])), arguments[1]
    os.set_inheritable(int(arguments[2]), False)  # no child of ours may keep the lock alive
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status, writer = 0, None
    try:
        if not store.began(run_id, os.getpid()):
            return 0
        pending_events.tell(store, run_id)
        writer = _Writer(store, run_id)
        reserve_exit_record(store.paths(run_id))
        word = _train(store, store.run(run_id), asked, writer)
    except BaseException as error:  # the end must be written whatever happened; the traceback goes to the log
        with suppress(OSError):
            traceback.print_exc()
        word, status = ExitRecord(Status.FAILED, failure_reason(error)), 1
    _end(store, run_id, word, writer)
    with suppress(Exception):
        supervisor.ensure(store)  # the next one's turn, should the supervisor have been killed
    return status


def _end(store: RunStore, run_id: str, word: ExitRecord, writer: _Writer | None) -> None:
    """Say how it ended: in the reserved place first, which needs no room and no lock, then in the store. writer: None
    for a run that failed before it had anything to tell."""
    with suppress(OSError):
        write_exit_record(store.paths(run_id), word)
    with suppress(OSError, sqlite3.Error):
        if writer:
            writer.keep()  # should the store stay locked for longer than this process waits for it
    deadline = time.monotonic() + END_SECONDS
    while True:
        try:
            if writer:
                writer.flush(timeout=5.0)
            if not (writer and writer.waiting):
                store.move(run_id, word.status, word.reason, timeout=5.0)  # False: somebody else gave it an end
                return
        except sqlite3.Error as error:
            if time.monotonic() > deadline:
                with suppress(OSError):
                    print(f"the end could not be written into the store ({error})", flush=True)
                return
        if time.monotonic() > deadline:
            return
        time.sleep(0.5)


def _train(store: RunStore, run: Run, asked: list[int], writer: _Writer) -> ExitRecord:
    from mlae_lab.training.setup import prepare
    from mlae_lab.training.trainer import Training

    print(f"run {run.id}, attempt {run.attempt}: {run.config.command()}", flush=True)
    files = store.paths(run.id)
    for leftover in [*files.folder.glob("*.part"), *files.folder.glob("checkpoints/*.part")]:
        leftover.unlink(missing_ok=True)
    watch = _Watch(store, run.id, asked, HeartbeatWriter(files))
    try:
        watch.on_chunk()
        start = _start_of(files, run)
        setup = prepare(run.config, on_progress=_Preparation(writer, watch), on_chunk=watch.on_chunk)
        watch.on_chunk()
    except _StoppedEarly:
        return ExitRecord(Status.STOPPED, "stopped before its first step")
    if (run.slot or "").startswith("cuda") and setup.device.type == "cpu":  # auto, and the driver is too old, say
        setup = replace(setup, notes=(*setup.notes, NO_GPU))
    setup = _record_dataset(store, run, setup, start)
    training = Training(setup, start)
    store.move(run.id, Status.RUNNING, only_from=(Status.STARTING,))
    saver = _Saver(files, run.config, setup, training, writer)
    for event in training.run(should_stop=watch.should_stop):
        writer.add(event)
        watch.step = getattr(event, "step", watch.step)
        if isinstance(event, Evaluation):
            print(f"epoch {event.epoch}: {event.split} accuracy {event.accuracy:.1f} %", flush=True)
            saver.save(event.epoch)
        elif isinstance(event, TrainStep):
            saver.save_now_and_then(event.epoch)
    if training.position.step > saver.saved_step:
        saver.save(training.position.epoch, measured=False)
    if watch.stopped and not training.is_through:
        measured = (
            "" if saver.measured_step == training.position.step else ", not measured: that would have taken too long"
        )
        return ExitRecord(Status.STOPPED, f"stopped and kept after step {training.position.step}{measured}")
    return ExitRecord(Status.FINISHED)


def _record_dataset(store: RunStore, run: Run, setup: Setup, start: Checkpoint | None) -> Setup:
    """Give a run whose images changed after the launch the label and the notes of what its folder holds now."""
    from mlae_lab.data.tasks import mixed_label

    before, config = run.config, setup.config
    if config.data_fingerprint == before.data_fingerprint:
        return setup
    if start is not None:  # steps were trained on the images of before
        config = replace(config, data_label=mixed_label(before.data_label, config.data_label))
    print(f"images: {config.data_label}. {' '.join(config.data_notes)}", flush=True)
    store.record_dataset(run.id, config)
    return replace(setup, config=config)


def _start_of(files: RunPaths, run: Run) -> Checkpoint | None:
    """What the run goes on from: its own newest checkpoint that can be read, its parent's, or None for the beginning.

    Raises StoreError for one that went on from another run and has neither.
    """
    from mlae_lab.training.checkpoint import CheckpointError, read_checkpoint

    kept = [path for name, path in files.checkpoints().items() if name.isdigit()]
    own = [path for path in (files.checkpoint, *reversed(kept)) if path.exists()]
    for path in own:
        try:
            return read_checkpoint(path)
        except CheckpointError as error:
            print(f"passed over: {error}", flush=True)
    commands.require_start(run, files)
    return read_checkpoint(files.start) if files.start.exists() else None


class _Saver:
    """Writes adapter and checkpoint: after every evaluation, after some time, and when the run is asked to stop."""

    def __init__(self, files: RunPaths, config: RunConfig, setup: Setup, training: Training, writer: _Writer) -> None:
        self.files, self.config, self.setup, self.training, self.writer = files, config, setup, training, writer
        self.last, self.saved_step, self.measured_step = time.monotonic(), -1, -1
        epochs = config.evaluated_epochs
        self.kept = (
            {epochs[-(-len(epochs) * i // KEPT) - 1] for i in range(1, KEPT + 1)} if len(epochs) > KEPT else set(epochs)
        )

    def save_now_and_then(self, epoch: int) -> None:
        if time.monotonic() - self.last >= SAVE_SECONDS:
            self.save(epoch, measured=False)

    def save(self, epoch: int, measured: bool = True) -> None:
        from mlae_lab.model.adapter_file import save_adapter
        from mlae_lab.training.checkpoint import save_checkpoint

        position, setup = self.training.position, self.setup
        self.writer.keep()  # a resumed run tells nothing again of what lies before its checkpoint
        size = save_adapter(self.files.adapter, setup.experts, setup.head, self.config.backbone, self.config.task)
        save_checkpoint(self.files.checkpoint, self.training.checkpoint())
        if measured and position.batch == 0 and epoch in self.kept:
            kept = self.files.checkpoint_after(epoch)
            kept.parent.mkdir(exist_ok=True)
            kept.unlink(missing_ok=True)
            os.link(self.files.checkpoint, kept)  # the newest is replaced, never changed, so both may share its bytes
        self.writer.add(Saved(epoch, position.step, size))
        self.last, self.saved_step = time.monotonic(), position.step
        if measured:
            self.measured_step = position.step


class _Writer:
    """Collects events and writes them together, an evaluation as one.

    What a resumed run tells again is left out: events once written stay as they are. A store that is locked by
    another process makes nobody wait here: what could not be written is written with the next.
    """

    def __init__(self, store: RunStore, run_id: str) -> None:
        self.store, self.run_id = store, run_id
        self.waiting: list[Event] = []
        self.is_kept = False  # whether some of it lies beside the checkpoint
        self.held_back: list[Event] = []  # what belongs to an evaluation, until that itself comes
        self.last = time.monotonic()
        step = store.last(run_id, TrainStep)
        self.told_step = step.step if step else 0
        self.told_evaluations = {stored.event.step for stored in store.events(run_id, Evaluation)}
        self.told_start = store.last(run_id, Started) is not None

    def add(self, event: Event) -> None:
        if isinstance(event, OF_EVALUATION):
            self.held_back.append(event)
            return
        if isinstance(event, Evaluation):
            fresh = event.step not in self.told_evaluations
            self.waiting += [*self.held_back, event] if fresh else []
            self.held_back = []
        elif not (
            (isinstance(event, (Started, SampleImages)) and self.told_start)
            or (isinstance(event, TrainStep) and event.step <= self.told_step)
        ):
            self.waiting.append(event)
        if not isinstance(event, TrainStep) or time.monotonic() - self.last >= FLUSH_SECONDS:
            self.flush()

    def flush(self, timeout: float = 0.2) -> None:
        """Write what waits. patience: seconds to wait for a locked store; what does not get in by then waits on. Any
        other trouble, such as a full disk, is raised."""
        self.last = time.monotonic()
        if not self.waiting:
            return
        try:
            self.store.append(self.run_id, self.waiting, timeout)
            self.waiting = []
            if self.is_kept:
                self.store.sync()  # until then the note is all that outlives a power cut
                self.store.paths(self.run_id).pending_events.unlink(missing_ok=True)
                self.is_kept = False
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise

    def keep(self) -> None:
        """Write what waits, to the disk itself; what a locked store does not take is kept beside the checkpoint until
        it does."""
        self.flush()
        self.store.sync()
        if self.waiting:
            pending_events.keep(self.store.paths(self.run_id), self.store.event_ids(self.run_id)[1], self.waiting)
            self.is_kept = True


class _StoppedEarly(Exception):
    """Somebody asked the run to stop before its first step."""


class _Preparation:
    """Told of every few images decoded: writes it down at most once a second, and leaves when asked to stop."""

    def __init__(self, writer: _Writer, watch: _Watch) -> None:
        self.writer, self.watch, self.last = writer, watch, 0.0

    def __call__(self, done: int, total: int) -> None:
        self.watch.on_chunk()
        if done == total or time.monotonic() - self.last >= 1:
            self.last = time.monotonic()
            self.writer.add(Preparing(done, total))


class _Watch:
    """Asks the store now and then whether somebody wants the run to end, and beats the pulse while at it."""

    def __init__(self, store: RunStore, run_id: str, asked: list[int], heartbeat: HeartbeatWriter) -> None:
        self.store, self.run_id, self.asked, self.heartbeat = store, run_id, asked, heartbeat
        self.last, self.stopped, self.step = float("-inf"), False, 0

    def should_stop(self) -> bool:
        self.heartbeat.beat(self.step)
        if self.asked:
            self.stopped = True
        elif time.monotonic() - self.last >= POLL_SECONDS:
            self.last = time.monotonic()
            with suppress(sqlite3.OperationalError):  # locked by somebody: the next look tells
                self.stopped = self.store.run(self.run_id).status is Status.STOPPING
        return self.stopped

    def on_chunk(self) -> None:
        if self.should_stop():
            raise _StoppedEarly


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
