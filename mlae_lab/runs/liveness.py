"""The actual state of a run, derived from its row, its lock, its heartbeat and its exit record.

A run is alive as long as its lock is held (`locks`). A run that is alive but makes no progress is stalled. A run that
has exited has the status of its exit record; without one it is lost. The status needs no write: it is the same while
the store is locked or the disk is full.
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
_STALLED_STEPS = 10  # a run is stalled after the time of this many of its longest steps
_HEARTBEAT = struct.Struct("<3d")
_RECORD_BYTES = 4000
_END_SECONDS = 2.0  # for a run that has ended to write its last events and its status
_UNWRITTEN = "it has finished; its last events wait until the store can be written"


def is_alive(files: RunPaths) -> bool:
    """Whether the run's process holds its lock. Raises OSError for a folder that cannot be read."""
    return locks.held(files.lock)


# ---------------------------------------------------------------- heartbeat


@dataclass(frozen=True)
class Heartbeat:
    """The last sign of progress.

    Attributes:
        at: Its time, by the monotonic clock that all processes of a machine share (a wall clock may be set back).
        step: The last completed step.
        longest: The longest time between two heartbeats so far, in seconds.
    """

    at: float
    step: int
    longest: float


class HeartbeatWriter:
    """Records progress: call `beat` after every step, image or chunk. Each is one write of 24 bytes, in place."""

    def __init__(self, files: RunPaths) -> None:
        self._file = os.open(files.heartbeat, os.O_RDWR | os.O_CREAT, 0o644)
        self._last, self._longest, self._step = time.monotonic(), 0.0, 0
        self.beat(0)

    def beat(self, step: int | None = None) -> None:
        """Record progress. step: the completed one, None for progress within a step."""
        now = time.monotonic()
        self._longest = max(self._longest, now - self._last)
        self._last = now
        self._step = self._step if step is None else step
        with suppress(OSError):
            os.pwrite(self._file, _HEARTBEAT.pack(now, self._step, self._longest), 0)

    def close(self) -> None:
        os.close(self._file)


def heartbeat(files: RunPaths) -> Heartbeat | None:
    """The last heartbeat of a run, None if there is none."""
    try:
        return Heartbeat(*_HEARTBEAT.unpack(files.heartbeat.read_bytes()))
    except (OSError, struct.error):
        return None


def stalled_for(files: RunPaths) -> float | None:
    """Seconds without progress of a stalled run; None for a run that makes progress or is not alive."""
    beat = heartbeat(files)
    try:
        if beat is None or not is_alive(files):
            return None
    except OSError:
        return None
    silent = time.monotonic() - beat.at
    return silent if silent > max(STALLED_SECONDS, _STALLED_STEPS * beat.longest) else None


# ---------------------------------------------------------------- exit record


@dataclass(frozen=True)
class ExitRecord:
    """How a run ended, as its process recorded it. status: finished, stopped or failed; reason: one sentence."""

    status: Status
    reason: str = ""


def reserve_exit_record(files: RunPaths) -> None:
    """Reserve space for the exit record, so that it can be written on a full disk; overwrites an earlier one."""
    try:
        _write_in_place(files, b"")
    except FileNotFoundError:
        files.exit_record.write_bytes(b" " * _RECORD_BYTES)


def write_exit_record(files: RunPaths, record: ExitRecord) -> None:
    """Write the exit record into the space that `reserve_exit_record` reserved."""
    reason = record.reason
    while len(text := json.dumps({"status": record.status.value, "reason": reason}).encode()) > _RECORD_BYTES:
        reason = reason[: len(reason) // 2]
    _write_in_place(files, text)


def _write_in_place(files: RunPaths, text: bytes) -> None:
    with files.exit_record.open("r+b") as file:
        file.write(text.ljust(_RECORD_BYTES))


def withdraw_exit_record(files: RunPaths, record: ExitRecord) -> None:
    """Erase this exit record in place, unless the run's process has written its own meanwhile."""
    if read_exit_record(files) == record:
        _write_in_place(files, b"")


def read_exit_record(files: RunPaths) -> ExitRecord | None:
    """The exit record of a run, None if there is none that can be read."""
    try:
        content = json.loads(files.exit_record.read_bytes()[:_RECORD_BYTES])
        record = ExitRecord(Status(content["status"]), str(content["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if record.status.is_over else None


# ---------------------------------------------------------------- derived state


def end_of(store: RunStore, run: Run, exit_status: int | None = None) -> ExitRecord | None:
    """How an active run ended whose process has exited.

    Args:
        store: Of the run.
        run: The run.
        exit_status: Of the process as in `subprocess`, negative for a signal; None if unknown.

    Returns:
        Its exit record, or one derived from its row and the exit status; None for a run whose process never started
        and that has to be queued again.
    """
    files = store.paths(run.id)
    if record := read_exit_record(files):
        return record
    kept = "its last checkpoint is kept" if files.checkpoint.is_file() else "it had no checkpoint yet"
    if run.status is Status.STOPPING:
        return ExitRecord(Status.STOPPED, f"stopped at once; {kept}")
    if run.pid is None and exit_status is None:
        return None
    when = "before the first step" if run.status is Status.STARTING else "during training"
    how = f"exited {when} without reporting a result"
    if exit_status is not None and exit_status < 0:
        name = signal.Signals(-exit_status).name if -exit_status in set(signal.Signals) else f"signal {-exit_status}"
        memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        how = f"was killed by {name} {when}{memory}"
    elif exit_status is not None:
        how += f" (exit status {exit_status})"
    remedy = "resume continues from it" if files.checkpoint.is_file() else "retry starts from the beginning"
    return ExitRecord(Status.LOST, f"its process {how}; {kept}, {remedy}")


def derived(store: RunStore, run: Run) -> Run:
    """The run with its actual status, which its row may not show yet. Writes nothing.

    A run whose folder cannot be read keeps the status of its row. A finished run is stopping while some of its events
    are not in the store, and a starting run whose process never ran is queued: the supervisor starts it again.
    """
    if not run.status.is_active:
        return run
    files = store.paths(run.id)
    try:
        alive = is_alive(files)
        if alive and not _waits_for_the_store(files):
            return run
    except OSError:
        return run
    run = store.run(run.id)  # read again: it may have ended between reading its row and its lock
    if not run.status.is_active:
        return run
    record = end_of(store, run)
    if record is None:
        return replace(run, status=Status.QUEUED, reason="its process ended before it began: it is started again")
    if record.status is Status.FINISHED and (alive or files.pending_events.exists()):
        return replace(run, status=Status.STOPPING, reason=_UNWRITTEN)
    return replace(run, status=record.status, reason=record.reason)


def _waits_for_the_store(files: RunPaths) -> bool:
    """Whether a run that is alive has ended, and cannot write that to the store."""
    if read_exit_record(files) is None:
        return False
    with suppress(OSError):
        return time.time() - files.exit_record.stat().st_mtime > _END_SECONDS
    return False
