"""The supervisor: a detached process per store that starts queued runs and records the end of those that exit.

    python -m mlae_lab.runs.supervisor STORE LOCK_FD

Commands and pages that enqueue, stop or read runs call `ensure`, which starts it if there is work and none is alive.
It exits when no run is queued or active. It is the parent of the runs that it started, so it knows the signal or the
exit status of their processes. If it is killed, the runs continue and the next supervisor follows them by their locks.

It writes a heartbeat into the file of its lock, so that a supervisor that is alive and does nothing, as one that was
paused, is reported instead of leaving runs in the queue (`stalled`).

A run's lock is taken before its start is recorded and is passed to its process, so a starting run never looks dead and
no run is started twice.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlae_lab import locks
from mlae_lab.errors import LabError
from mlae_lab.locations import ROOT, data_folder, use_store
from mlae_lab.runs import archive_file, devices, fork_client, liveness, paths, pending_events
from mlae_lab.runs.alerts import Watch
from mlae_lab.runs.liveness import ExitRecord, is_alive
from mlae_lab.runs.paths import RunPaths
from mlae_lab.runs.status import ACTIVE, Status
from mlae_lab.runs.store import Run, RunStore, StoreError

TICK_SECONDS = 0.25
STALLED_SECONDS = 90.0  # without a heartbeat; one tick may wait 60 s for a locked store
_HEARTBEAT = struct.Struct("<dq")  # time by the monotonic clock, pid
STOP_SECONDS = 10.0  # a stopping run is killed after its longest step and this time
# Errors of the machine, not of one run: a full disk, too many files or processes, no memory.
_TRANSIENT = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)
_LAUNCHED, _CUDA = "MLAE_LAB_LAUNCHED", ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES")
Process = subprocess.Popen | fork_client.ForkedProcess
LINGER_SECONDS = 2.0  # idle time before it exits: a stop is often followed by a launch


# ---------------------------------------------------------------- functions for any process


def ensure(store: RunStore) -> None:
    """Start a supervisor if there are open runs or unsent alerts and none is alive. Fast, and safe to call often."""
    _forget_children()
    if store.is_read_only or not (store.open_runs() or paths.watched(store.folder).exists()):
        return
    try:
        lock = locks.take(paths.supervisor_lock(store.folder))
        if lock is None:
            return
        try:
            process = _spawn_afresh(
                "mlae_lab.runs.supervisor",
                [str(store.folder)],
                paths.supervisor_log(store.folder),
                store.folder,
                lock,
                _as_launched(),
            )
            _beat(lock, process.pid)
        finally:
            os.close(lock)  # the child holds the same lock through its own copy
    except OSError as error:  # full disk, too many processes: reading still works and the next call tries again
        with suppress(OSError, ValueError):
            print(f"mlae_lab: the supervisor of {store.folder} cannot be started ({error})", file=sys.stderr)


def is_supervised(store: RunStore) -> bool:
    """Whether a supervisor is alive."""
    return locks.held(paths.supervisor_lock(store.folder))


@dataclass(frozen=True)
class Stalled:
    """A supervisor that is alive and makes no progress. pid: of its process; seconds: since its last heartbeat."""

    pid: int
    seconds: float

    @property
    def state(self) -> str:
        """A clause."""
        return f"process {self.pid} is alive but has made no progress for {self.seconds:.0f} s, so no run starts"

    @property
    def cure(self) -> str:
        return (
            f"continue it with `kill -CONT {self.pid}`; if that does not help, end it with `kill -KILL {self.pid}`: "
            "the next command or page starts another one, and active runs continue"
        )


def stalled(store: RunStore) -> Stalled | None:
    """The supervisor if it is alive without progress, None if it makes progress, is not alive, or is not known."""
    try:
        at, pid = _HEARTBEAT.unpack(paths.supervisor_lock(store.folder).read_bytes())
        silent = time.monotonic() - at
        return Stalled(pid, silent) if silent > STALLED_SECONDS and is_supervised(store) else None
    except (OSError, struct.error):
        return None


def _beat(lock: int, pid: int) -> None:
    with suppress(OSError):  # a full disk
        os.pwrite(lock, _HEARTBEAT.pack(time.monotonic(), pid), 0)


def end_at_once(store: RunStore, run_id: str, timeout: float = 10.0) -> bool:
    """Kill a run's process group. Returns whether its process has exited.

    Nothing is signalled unless the stored pid still is a process of this run.
    """
    files, deadline = store.paths(run_id), time.monotonic() + timeout
    while is_alive(files) and time.monotonic() < deadline:
        run = store.run(run_id)
        if run.pid is not None and is_worker(run.pid, run_id):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(run.pid, signal.SIGKILL)
        time.sleep(0.05)
    return not is_alive(files)


def is_worker(pid: int, run_id: str) -> bool:
    """Whether a process is that of a run, by its command line."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        try:  # no /proc, as on macOS
            listing = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, timeout=5)
            arguments = listing.stdout.split()
        except (OSError, subprocess.TimeoutExpired):
            return False
    return b"mlae_lab.runs.worker" in arguments and run_id.encode() in arguments


_children: list[subprocess.Popen] = []


def _forget_children() -> None:
    _children[:] = [child for child in _children if child.poll() is None]  # `poll` reaps zombies


def spawn(
    module: str, arguments: list[str], log: Path, folder: Path, lock: int, environment: Mapping[str, str]
) -> Process:
    """Start a detached Python process that inherits a lock, as a fork of a process that has torch loaded where it can.

    Args:
        module: Its name.
        arguments: Its arguments; one is added, the number of its descriptor of the lock.
        log: File for its output.
        folder: Its working directory.
        lock: Descriptor of the lock.
        environment: All of it.
    """
    if devices.kind("auto") == "cpu":
        with log.open("ab") as file:
            process = fork_client.spawn(module, arguments, file.fileno(), folder, lock, _importable(environment))
        if process is not None:
            return process
    return _spawn_afresh(module, arguments, log, folder, lock, environment)


def warm() -> None:
    """Load torch now, in a process that starts the next runs: a page on which a run may be launched calls this."""
    if devices.kind("auto") == "cpu":
        fork_client.warm(_importable(_for_runs()))


def _importable(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which Python finds this package."""
    path = dict.fromkeys((str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))))
    return {**environment, "PYTHONPATH": os.pathsep.join(path)}


def _spawn_afresh(
    module: str, arguments: list[str], log: Path, folder: Path, lock: int, environment: Mapping[str, str]
) -> subprocess.Popen:
    """`spawn` without the fork server."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, str(lock)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=_importable(environment),
            cwd=folder,  # `python -m` imports from here first, so never from the launcher's directory
            start_new_session=True,
            pass_fds=(lock,),
        )
    _children.append(process)
    return process


# ---------------------------------------------------------------- the process


class Supervisor:
    """The work of the process, in ticks. lock: of the store's supervisor, already held."""

    def __init__(self, store: RunStore, lock: int) -> None:
        self.store, self.lock = store, lock
        self.processes: dict[str, Process] = {}
        self.stopping_since: dict[str, float] = {}  # by the monotonic clock
        self.waiting_since: dict[str, float] = {}  # for their process, by the monotonic clock
        self.troubles: dict[str, str] = {}  # by run, the last error printed
        self.idle_since: float | None = None
        self.watch = Watch(store)
        self.open: set[str] | None = None  # ids of the runs that were not over at the last tick

    def tick(self) -> bool:
        """Check every run that is not over. Returns whether there was one, or an alert is being sent."""
        self._beat()
        runs = self.store.open_runs()
        _forget_children()
        active = {run.id for run in runs if run.status.is_active}
        for name in [
            name for name, process in self.processes.items() if name not in active and process.poll() is not None
        ]:
            del self.processes[name]  # it recorded its end itself
        for run in runs:
            if not run.status.is_active:
                continue
            self._beat()
            try:
                self._account(run)
                self.troubles.pop(run.id, None)
            except (OSError, StoreError) as error:  # concerns this run only
                if self.troubles.get(run.id) != str(error):
                    self.troubles[run.id] = str(error)
                    with suppress(OSError):
                        print(f"run {run.id} cannot be supervised ({error})", flush=True)
        if any(run.status is Status.QUEUED for run in runs):
            self._start_queued()
        is_next_stage = self._advance_studies({run.id for run in runs})
        self.watch.update([run.id for run in runs])  # a study with a next stage is not over
        return bool(runs) or is_next_stage or self.watch.is_sending

    def _advance_studies(self, now: set[str]) -> bool:
        """Start the next stage of studies whose runs have ended since the last tick. Returns whether there was one.

        Args:
            now: Ids of the runs that are not over.
        """
        ended = self.open - now if self.open is not None else None
        self.open = now
        if ended is not None and not ended:
            return False
        from mlae_lab.runs import studies  # it starts runs, for which it needs this module

        if ended is None:  # the supervisor before this one may have exited between two stages
            names = [stored.id for stored in self.store.studies() if stored.study.choice is not None]
        else:
            names = sorted({name for run in ended for name in self.store.studies_of(run)})
        advanced = False
        for name in names:
            try:
                advanced |= bool(studies.advance(self.store, [name]))
            except (LabError, OSError, sqlite3.Error) as error:  # concerns this study only; the next start tries again
                with suppress(OSError):
                    print(f"the next stage of study {name} cannot be started ({error})", flush=True)
        return advanced

    def _beat(self) -> None:
        _beat(self.lock, os.getpid())

    def serve(self) -> None:
        """Tick until there has been no work for `LINGER_SECONDS`."""
        while True:
            if self._safely():
                self.idle_since = None
            else:
                self.idle_since = self.idle_since or time.monotonic()
                if time.monotonic() - self.idle_since > LINGER_SECONDS and self._leave():
                    return
            time.sleep(TICK_SECONDS)

    def _safely(self) -> bool:
        """Tick; after a locked store, a full disk or a deleted file the next tick tries again."""
        try:
            return self.tick()
        except (sqlite3.Error, OSError, LabError):
            if not self.store.folder.exists():
                return False
            with suppress(OSError):  # the log may be on the same full disk
                traceback.print_exc()
            time.sleep(1)
            return True

    def _leave(self) -> bool:
        """Release the lock, then check again: a launch meanwhile saw it held and started no supervisor."""
        locks.release(self.lock)
        try:
            has_work = bool(self.store.open_runs()) if self.store.folder.exists() else False
        except sqlite3.Error:
            has_work = False
        return not has_work or not locks.acquire(self.lock)

    # ------------------------------------------------------------ active runs

    def _account(self, run: Run) -> None:
        files = self.store.paths(run.id)
        process = self.processes.get(run.id)
        exit_status = process.poll() if process else None
        try:
            alive = is_alive(files)
        except OSError as error:  # its lock is unknown; a process that has certainly exited uses no device
            if is_worker(run.pid, run.id) if run.pid is not None else process is not None and exit_status is None:
                raise
            self.store.move(run.id, Status.LOST, f"its process has exited and its folder cannot be read ({error})")
            return
        if alive:
            if run.pid is None:
                self._give_up_if_overdue(run)
            elif run.status is Status.STOPPING:
                self._kill_if_overdue(run, files)
            return
        run = self.store.run(run.id)
        if process is not None and exit_status is None:
            with suppress(subprocess.TimeoutExpired):  # the lock is free a moment before the exit status is known
                exit_status = process.wait(timeout=5)
        self.processes.pop(run.id, None)
        self.stopping_since.pop(run.id, None)
        self.waiting_since.pop(run.id, None)
        if not run.status.is_active:
            return
        record = liveness.end_of(self.store, run, exit_status)
        if record is None:
            self.store.unclaim(run.id)
        else:
            pending_events.deliver(self.store, run.id)
            self.store.move(run.id, record.status, record.reason, only_from=(run.status,))

    def _account_unread(self) -> None:
        """Record the end of dead runs that only a newer version can read: their devices would stay occupied."""
        for name in self.store.unread(ACTIVE):
            files = self.store.paths(name)
            self._beat()
            with suppress(OSError):
                if not is_alive(files):
                    lost = ExitRecord(
                        Status.LOST,
                        "its process exited without reporting a result; the version that launched it can resume it",
                    )
                    record = liveness.read_exit_record(files) or lost
                    self.store.move(name, record.status, record.reason, only_from=ACTIVE)

    def _give_up_if_overdue(self, run: Run) -> None:
        """Kill the fork server if a run waits for it for too long: its lock is held by a request that is not read."""
        since = self.waiting_since.setdefault(run.id, time.monotonic())
        if time.monotonic() - since > fork_client.START_SECONDS:
            self.waiting_since[run.id] = float("inf")  # once
            if fork_client.give_up(_importable(environment(run, run.slot or ""))):
                with suppress(OSError):
                    print(f"run {run.id} was not started by the fork server, which is killed", flush=True)

    def _kill_if_overdue(self, run: Run, files: RunPaths) -> None:
        """Kill a stopping run that does not stop in time, as one that is blocked in a read."""
        if liveness.read_exit_record(files) is not None:
            return  # it has ended and only waits for a locked store
        since = self.stopping_since.setdefault(run.id, time.monotonic())
        beat = liveness.heartbeat(files)
        if time.monotonic() - since > STOP_SECONDS + (beat.longest if beat else 0.0):
            with suppress(OSError):
                print(f"run {run.id} did not stop in time and is killed", flush=True)
            end_at_once(self.store, run.id, timeout=2.0)

    # ------------------------------------------------------------ queued runs

    def _start_queued(self) -> None:
        """Start the first queued run of every free device."""
        self._account_unread()
        busy = {run.slot for run in self.store.open_runs() if run.status.is_active}
        for run in self.store.queue():
            self._beat()
            slot = next((slot for slot in devices.slots(run.device) if slot not in busy), None)
            if slot is not None and self._start(run, slot):
                busy.add(slot)

    def _start(self, run: Run, slot: str) -> bool:
        """Start a queued run on a device. Returns whether the device is occupied now."""
        files, lock = self.store.paths(run.id), None
        try:
            files.folder.mkdir(parents=True, exist_ok=True)
            lock = locks.take(files.lock)
            if lock is None:
                return False  # its last process has not quite exited
            liveness.reserve_exit_record(files)  # while there is space for it, in place of that of an earlier attempt
            files.heartbeat.unlink(missing_ok=True)
            if not self.store.claim(run.id, slot):
                return False
            self.processes[run.id] = spawn(
                "mlae_lab.runs.worker",
                [str(self.store.folder), run.id],
                files.log,
                files.folder,
                lock,
                environment(run, slot),
            )
        except OSError as error:
            if error.errno in _TRANSIENT:
                raise  # the next tick tries again
            self.store.move(run.id, Status.FAILED, f"the run's process could not be started ({error})")
            return False
        finally:
            if lock is not None:
                os.close(lock)  # the child holds the same lock through its own copy
        return True


def environment(run: Run, slot: str = "") -> dict[str, str]:
    """The environment of a process that loads a run. slot: the only device that it may use, "" for any."""
    chosen = _for_runs()
    chosen[_LAUNCHED] = json.dumps({name: chosen.get(name) for name in ("MLAE_LAB_DATA", *_CUDA)})
    chosen["MLAE_LAB_DATA"] = run.data_folder or str(data_folder().absolute())  # as at its launch
    if slot.startswith("cuda:"):
        chosen |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": slot.partition(":")[2]}
    elif slot:
        chosen["CUDA_VISIBLE_DEVICES"] = ""  # a run on the CPU must not use a GPU
    return chosen


def _for_runs() -> dict[str, str]:
    """What the environments of all runs have in common."""
    # GNU OpenMP's threads spin while they wait; next to a browser on two cores that made steps 24 times slower
    # (LOG.md, 2026-11-23). A short spin costs 6 % without other load and shares the cores.
    return {"GOMP_SPINCOUNT": "5000"} | _as_launched()


def _as_launched() -> dict[str, str]:
    """This process's environment without the changes of `environment`: a run that starts a supervisor must not pass its
    device and data folder on."""
    original = dict(os.environ)
    for name, value in json.loads(original.pop(_LAUNCHED, "{}")).items():
        original.pop(name, None)
        if value is not None:
            original[name] = value
    return original


def main(arguments: list[str]) -> int:
    lock = int(arguments[1])
    os.set_inheritable(lock, False)  # a run must not hold the supervisor's lock
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the launcher's terminal is not for this process
    folder = Path(arguments[0])
    log = paths.supervisor_log(folder)
    if log.stat().st_size > 1_000_000:
        os.truncate(log, 0)
    store = RunStore(folder)
    use_store(store.folder)
    with suppress(sqlite3.Error, OSError, StoreError):
        archive_file.sweep(store)
    Supervisor(store, lock).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
