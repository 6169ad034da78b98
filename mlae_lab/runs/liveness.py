"""What is true of a run, derived: its row, its lock, its pulse and its last word.

A run lives exactly as long as its lock (`locks`). A run that lives and does not get on is stalled. A run that is
gone is what its last word says; without one it is lost.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, replace

from mlae_lab import locks
from mlae_lab.runs.paths import RunPaths
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore

STALLED_SECONDS = 120.0  # without progress; longer where one step of the run takes long
_STEPS_TIMEOUT = 10  # a run is stalled after so many of its longest steps
_HEARTBEAT = struct.Struct("<3d")
_RECORD_BYTES = 4000


def is_alive(files: RunPaths) -> bool:
    """Whether the run's process holds its lock. Raises OSError for a folder that cannot be looked into."""
    return locks.held(files.lock)


# ---------------------------------------------------------------- the pulse


@dataclass(frozen=True)
class Heartbeat:
    """at: when the run last got on, by the monotonic clock that all processes of a machine share (a wall clock
    may be set back); step: the last finished one; longest: the longest time between two beats so far, in seconds."""

    at: float
    step: int
    longest: float


class HeartbeatWriter:
    """Says that a run gets on: `beat` after every step, image or chunk. It costs one write of 24 bytes, in place."""

    def __init__(self, files: RunPaths) -> None:
        self._file = os.open(files.heartbeat, os.O_RDWR | os.O_CREAT, 0o644)
        self._last, self._longest, self._step = time.monotonic(), 0.0, 0
        self.beat(0)

    def beat(self, step: int | None = None) -> None:
        """step: the one that is finished, None where the run got on within one."""
        now = time.monotonic()
        self._longest = max(self._longest, now - self._last)
        self._last = now
        self._step = self._step if step is None else step
        with suppress(OSError):
            os.pwrite(self._file, _HEARTBEAT.pack(now, self._step, self._longest), 0)

    def close(self) -> None:
        os.close(self._file)


def heartbeat(files: RunPaths) -> Heartbeat | None:
    """The last beat of a run, None where there is none."""
    try:
        return Heartbeat(*_HEARTBEAT.unpack(files.heartbeat.read_bytes()))
    except (OSError, struct.error):
        return None


def stalled_for(files: RunPaths) -> float | None:
    """Seconds without progress of a run that lives, None as long as they are nothing to speak of."""
    beat = heartbeat(files)
    try:
        if beat is None or not is_alive(files):
            return None
    except OSError:
        return None
    silent = time.monotonic() - beat.at
    return silent if silent > max(STALLED_SECONDS, _STEPS_TIMEOUT * beat.longest) else None


# ---------------------------------------------------------------- the last word


@dataclass(frozen=True)
class ExitRecord:
    """How a run's process says that it ended. status: finished, stopped or failed; reason: one sentence."""

    status: Status
    reason: str = ""


def reserve_exit_record(files: RunPaths) -> None:
    """Make room for the last word, so that it can be written on a full disk; an earlier one is wiped."""
    files.exit_record.write_bytes(b" " * _RECORD_BYTES)


def write_exit_record(files: RunPaths, word: ExitRecord) -> None:
    """Write the last word where `reserve_exit_record` made room for it."""
    reason = word.reason
    while len(text := json.dumps({"status": word.status.value, "reason": reason}).encode()) > _RECORD_BYTES:
        reason = reason[: len(reason) // 2]
    with files.exit_record.open("r+b") as file:
        file.write(text.ljust(_RECORD_BYTES))


def read_exit_record(files: RunPaths) -> ExitRecord | None:
    """The last word of a run, None where there is none that can be read."""
    try:
        told = json.loads(files.exit_record.read_bytes()[:_RECORD_BYTES])
        word = ExitRecord(Status(told["status"]), str(told["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return word if word.status.is_over else None


# ---------------------------------------------------------------- what follows


def end_of(store: RunStore, run: Run, exit_status: int | None = None) -> ExitRecord | None:
    """How an active run whose process is gone ended; None for one that never began, whose turn has to come again.

    exit_status: of the process as `subprocess` gives it, below 0 a signal; None where nobody could know.
    """
    files = store.paths(run.id)
    if word := read_exit_record(files):
        return word
    kept = "its last checkpoint is kept" if files.checkpoint.is_file() else "it had no checkpoint yet"
    if run.status is Status.STOPPING:
        return ExitRecord(Status.STOPPED, f"stopped at once; {kept}")
    if run.pid is None and exit_status is None:
        return None
    how = "ended without a word"
    if exit_status is not None and exit_status < 0:
        name = signal.Signals(-exit_status).name if -exit_status in set(signal.Signals) else f"signal {-exit_status}"
        memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        how = f"was killed by {name}{memory},"
    elif exit_status is not None:
        how = f"ended without a word, exit status {exit_status},"
    went_on = "resume goes on from there" if files.checkpoint.is_file() else "retry starts it again"
    when = "before its first step" if run.status is Status.STARTING else "while it was running"
    return ExitRecord(Status.LOST, f"its process {how} {when}; {kept}, {went_on}")


def derived(store: RunStore, run: Run) -> Run:
    """The run with the status that is true now, whatever its row still says. Writes nothing.

    A run whose folder cannot be looked into keeps what its row says, and so does one that is finished as long as some
    of its numbers are not in the store.
    """
    if not run.status.is_active:
        return run
    files = store.paths(run.id)
    try:
        if is_alive(files):
            return run
    except OSError:
        return run
    run = store.run(run.id)  # as it is now: it may have ended between the look at its row and the look at its lock
    if not run.status.is_active:
        return run
    word = end_of(store, run)
    if word is None or (word.status is Status.FINISHED and files.pending_events.exists()):
        return run
    return replace(run, status=word.status, reason=word.reason)
