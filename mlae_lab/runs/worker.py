"""One run, one process: wait for the turn, train, write events, write the end.

    python -m mlae_lab.runs.worker STORE RUN LOCK_FD

Started by `runs.supervisor.launch`; LOCK_FD is the run's lock, already held. Everything printed
goes to the run's log. torch is imported only when the turn has come.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from mlae_lab.core.events import Evaluation, Event, Preparing, Saved, TrainStep
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore, StoreError
from mlae_lab.runs.supervisor import reconcile

POLL_SECONDS = 0.5  # waiting in the queue; also how often a training run looks whether it should stop
FLUSH_SECONDS = 0.5  # step events are written together, at most this late


def main(arguments: list[str]) -> int:
    store, run_id = RunStore(Path(arguments[0])), arguments[1]
    os.set_inheritable(int(arguments[2]), False)  # no child of ours may keep the lock alive
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not _wait(store, run_id, asked):
        return 0
    try:
        _train(store, store.run(run_id), asked)
    except BaseException as error:  # the end must be written whatever happened; the traceback goes to the log
        traceback.print_exc()
        store.move(run_id, Status.FAILED, reason_for(error))
        return 1
    return 0


def _wait(store: RunStore, run_id: str, asked: list[int]) -> bool:
    """Wait until the device is ours. Returns False if the run was cancelled or deleted meanwhile."""
    while True:
        if asked:
            store.move(run_id, Status.STOPPED, "cancelled before its turn came", only_from=(Status.QUEUED,))
            return False
        reconcile(store)
        if store.claim(run_id, os.getpid()):
            return True
        try:
            if store.run(run_id).status.is_over:
                return False
        except StoreError:
            return False
        time.sleep(POLL_SECONDS)


def _train(store: RunStore, run: Run, asked: list[int]) -> None:
    from mlae_lab.model.adapter_file import save_adapter
    from mlae_lab.training.trainer import fit, prepare

    print(f"run {run.id}: {run.config.command()}", flush=True)
    writer = _Writer(store, run.id)
    watch = _StopWatch(store, run.id, asked)
    try:
        setup = prepare(run.config, on_progress=_Preparation(writer, watch))
    except _StoppedEarly:
        store.move(run.id, Status.STOPPED, "stopped before its first step")
        return
    store.move(run.id, Status.RUNNING, only_from=(Status.STARTING,))
    files = store.paths(run.id)
    try:
        for event in fit(setup, should_stop=watch.should_stop):
            writer.add(event)
            if isinstance(event, Evaluation):
                size = save_adapter(files.adapter, setup.experts, setup.head, run.config.backbone, run.config.task)
                writer.add(Saved(event.epoch, event.step, size))
                print(f"epoch {event.epoch}: {event.split} accuracy {event.accuracy:.1f} %", flush=True)
    finally:
        writer.flush()
    if watch.stopped:
        store.move(run.id, Status.STOPPED, "stopped and kept")
    else:
        store.move(run.id, Status.FINISHED)


class _Writer:
    """Collects events and writes them together; everything but a step is written at once."""

    def __init__(self, store: RunStore, run_id: str) -> None:
        self.store, self.run_id = store, run_id
        self.waiting: list[Event] = []
        self.last = time.monotonic()

    def add(self, event: Event) -> None:
        self.waiting.append(event)
        if not isinstance(event, TrainStep) or time.monotonic() - self.last >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self.waiting:
            self.store.append(self.run_id, self.waiting)
            self.waiting = []
        self.last = time.monotonic()


class _StoppedEarly(Exception):
    """Somebody asked the run to stop while its pictures were being decoded."""


class _Preparation:
    """Told of every few pictures decoded: writes it down at most once a second, and leaves when asked to stop."""

    def __init__(self, writer: _Writer, watch: _StopWatch) -> None:
        self.writer, self.watch, self.last = writer, watch, 0.0

    def __call__(self, done: int, total: int) -> None:
        if self.watch.should_stop():
            raise _StoppedEarly
        if done == total or time.monotonic() - self.last >= 1:
            self.last = time.monotonic()
            self.writer.add(Preparing(done, total))


class _StopWatch:
    """Asks the store now and then whether somebody wants the run to end."""

    def __init__(self, store: RunStore, run_id: str, asked: list[int]) -> None:
        self.store, self.run_id, self.asked = store, run_id, asked
        self.last, self.stopped = time.monotonic(), False

    def should_stop(self) -> bool:
        if self.asked:
            self.stopped = True
        elif time.monotonic() - self.last >= POLL_SECONDS:
            self.last = time.monotonic()
            self.stopped = self.store.run(self.run_id).status is Status.STOPPING
        return self.stopped


def reason_for(error: BaseException) -> str:
    """Why a run failed, in one sentence for its owner."""
    name, text = type(error).__name__, " ".join(str(error).split())
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":
        return "out of memory: try a smaller batch size or fewer experts"
    full = ("No space left on device", "database or disk is full")  # as the system and SQLite word it
    if isinstance(error, OSError) and error.errno == errno.ENOSPC or any(words in text for words in full):
        return "the disk is full: free some space and start the run again"
    if name == "Diverged":
        return f"diverged: {text}"
    if isinstance(error, ValueError) and type(error).__module__.startswith("mlae_lab"):
        return text
    return f"code error, {name}: {text[:300]} (the log has the traceback)"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
