"""The supervisor: one detached process per store that gives waiting runs their turn and accounts for those that end.

    python -m mlae_lab.runs.supervisor STORE LOCK_FD

Nobody has to start it: whoever enqueues, stops or merely looks calls `ensure`, which starts it where there is
something to do and none is alive. It leaves when nothing waits and nothing runs. It is the parent of the runs that it
started, so it knows the signal or the exit status of one that dies; killed, it leaves them running, and the next
supervisor takes them over by their locks.

A run's lock is taken before its turn is written down and handed to its process, so no moment exists in which a
starting run looks dead, and no run is started twice.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mlae_lab import locks
from mlae_lab.locations import ROOT, data_folder
from mlae_lab.runs import archive_file, devices, liveness, paths, pending_events
from mlae_lab.runs.liveness import ExitRecord, is_alive
from mlae_lab.runs.paths import RunPaths
from mlae_lab.runs.status import ACTIVE, Status
from mlae_lab.runs.store import Run, RunStore, StoreError

TICK_SECONDS = 0.25
STOP_SECONDS = 10.0  # a run that was asked to end may take its longest step and so long before it is ended
# trouble of the machine and not of one run: a full disk, too many files or processes, no memory
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)
_LAUNCHED, _CUDA = "MLAE_LAB_LAUNCHED", ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES")
LINGER_SECONDS = 2.0  # with nothing to do, before it leaves: most who stop a run start another


# ---------------------------------------------------------------- for everybody


def ensure(store: RunStore) -> None:
    """See to it that a supervisor is alive where a run waits or is under way. Quick and harmless to call often."""
    _forget_children()
    if not store.open_runs():
        return
    try:
        lock = locks.take(paths.supervisor_lock(store.folder))
        if lock is None:
            return
        try:
            spawn(
                ["mlae_lab.runs.supervisor", str(store.folder), str(lock)],
                paths.supervisor_log(store.folder),
                store.folder,
                lock,
                _as_launched(),
            )
        finally:
            os.close(lock)  # the child holds the same lock through its own copy
    except OSError as error:  # a full disk or no room for a process: reading goes on, the next look tries again
        with suppress(OSError, ValueError):
            print(f"mlae_lab: the supervisor of {store.folder} cannot be started ({error})", file=sys.stderr)


def is_supervised(store: RunStore) -> bool:
    """Whether a supervisor is alive."""
    return locks.held(paths.supervisor_lock(store.folder))


def end_at_once(store: RunStore, run_id: str, timeout: float = 10.0) -> bool:
    """Kill a run's process group. Returns whether it is gone.

    The pid is a hint only: it must still name a process of this very run, or nothing is signalled.
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
    """Whether this process is the one of this run, by its command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        try:  # no /proc, as on macOS
            listed = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, timeout=5)
            words = listed.stdout.split()
        except (OSError, subprocess.TimeoutExpired):
            return False
    return b"mlae_lab.runs.worker" in words and run_id.encode() in words


_children: list[subprocess.Popen] = []


def _forget_children() -> None:
    _children[:] = [child for child in _children if child.poll() is None]  # leaves no zombies behind


def spawn(words: list[str], log: Path, folder: Path, lock: int, environment: Mapping[str, str]) -> subprocess.Popen:
    """A detached process of ours that was born with a lock. environment: all of it."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**environment, "PYTHONPATH": path},
            cwd=folder,  # `python -m` imports from here first: never from wherever the launcher stood
            start_new_session=True,
            pass_fds=(lock,),
        )
    _children.append(process)
    return process


# ---------------------------------------------------------------- the process


class Supervisor:
    """What the process does, tick by tick. lock: of the store's supervisor, already held."""

    def __init__(self, store: RunStore, lock: int) -> None:
        self.store, self.lock = store, lock
        self.processes: dict[str, subprocess.Popen] = {}
        self.asked: dict[str, float] = {}  # since when a run is stopping, by the monotonic clock
        self.troubles: dict[str, str] = {}  # what is wrong with a run's folder, said once
        self.idle_since: float | None = None

    def tick(self) -> bool:
        """Look once at every run that is not over. Returns whether there was one."""
        runs = self.store.open_runs()
        _forget_children()
        active = {run.id for run in runs if run.status.is_active}
        for name in [
            name for name, process in self.processes.items() if name not in active and process.poll() is not None
        ]:
            del self.processes[name]  # it wrote its end itself
        for run in runs:
            if not run.status.is_active:
                continue
            try:
                self._account(run)
                self.troubles.pop(run.id, None)
            except (OSError, StoreError) as error:  # this run's own: the others go on
                if self.troubles.get(run.id) != str(error):
                    self.troubles[run.id] = str(error)
                    with suppress(OSError):
                        print(f"run {run.id} cannot be looked after ({error})", flush=True)
        if any(run.status is Status.QUEUED for run in runs):
            self._start_waiting()
        return bool(runs)

    def serve(self) -> None:
        """Tick until there is nothing to do and nobody has come with something new."""
        while True:
            if self._safely():
                self.idle_since = None
            else:
                self.idle_since = self.idle_since or time.monotonic()
                if time.monotonic() - self.idle_since > LINGER_SECONDS and self._leave():
                    return
            time.sleep(TICK_SECONDS)

    def _safely(self) -> bool:
        """A tick that survives a locked store, a full disk or a deleted file; the next one tries again."""
        try:
            return self.tick()
        except (sqlite3.Error, OSError, StoreError):
            if not self.store.folder.exists():
                return False
            with suppress(OSError):  # the log may lie on the same full disk
                traceback.print_exc()
            time.sleep(1)
            return True

    def _leave(self) -> bool:
        """Let go of the lock, then look again: who enqueued meanwhile saw it held and counts on us."""
        locks.let_go(self.lock)
        try:
            waiting = bool(self.store.open_runs()) if self.store.folder.exists() else False
        except sqlite3.Error:
            waiting = False
        return not waiting or not locks.lock_again(self.lock)

    # ------------------------------------------------------------ runs under way

    def _account(self, run: Run) -> None:
        files = self.store.paths(run.id)
        process = self.processes.get(run.id)
        exit_status = process.poll() if process else None
        try:
            alive = is_alive(files)
        except OSError as error:  # nobody can say by its lock; a process that is gone for certain holds no device
            if is_worker(run.pid, run.id) if run.pid is not None else process is not None and exit_status is None:
                raise
            self.store.move(run.id, Status.LOST, f"its process is gone and its folder cannot be read ({error})")
            return
        if alive:
            if run.status is Status.STOPPING:
                self._hurry(run, files)
            return
        run = self.store.run(run.id)
        if process is not None and exit_status is None:
            with suppress(subprocess.TimeoutExpired):  # the lock is free a moment before the exit status is known
                exit_status = process.wait(timeout=5)
        self.processes.pop(run.id, None)
        self.asked.pop(run.id, None)
        if not run.status.is_active:
            return
        word = liveness.end_of(self.store, run, exit_status)
        if word is None:
            self.store.unclaim(run.id)
        else:
            pending_events.tell(self.store, run.id)
            self.store.move(run.id, word.status, word.reason, only_from=(run.status,))

    def _account_unread(self) -> None:
        """Close the dead runs that only a newer lab can read: their devices would stay taken."""
        for name in self.store.unread(ACTIVE):
            files = self.store.paths(name)
            with suppress(OSError):
                if not is_alive(files):
                    lost = ExitRecord(
                        Status.LOST, "its process ended without a word; the lab that made it can resume it"
                    )
                    word = liveness.read_exit_record(files) or lost
                    self.store.move(name, word.status, word.reason, only_from=ACTIVE)

    def _hurry(self, run: Run, files: RunPaths) -> None:
        """End a run that was asked to end and does not: it sits in a read that never comes back, say."""
        if liveness.read_exit_record(files) is not None:
            return  # it has ended and only waits for a store that somebody has locked
        since = self.asked.setdefault(run.id, time.monotonic())
        beat = liveness.heartbeat(files)
        if time.monotonic() - since > STOP_SECONDS + (beat.longest if beat else 0.0):
            with suppress(OSError):
                print(f"run {run.id} did not end in time: it is killed", flush=True)
            end_at_once(self.store, run.id, timeout=2.0)

    # ------------------------------------------------------------ runs that wait

    def _start_waiting(self) -> None:
        """Give every free device to the first that waits for it."""
        self._account_unread()
        busy = {run.slot for run in self.store.open_runs() if run.status.is_active}
        for run in self.store.queue():
            slot = next((slot for slot in devices.slots(run.device) if slot not in busy), None)
            if slot is not None and self._start(run, slot):
                busy.add(slot)

    def _start(self, run: Run, slot: str) -> bool:
        """Start a waiting run on a device; whether the device is taken now."""
        files, lock = self.store.paths(run.id), None
        try:
            files.folder.mkdir(parents=True, exist_ok=True)
            lock = locks.take(files.lock)
            if lock is None:
                return False  # its last process is not quite gone
            for left in (
                files.exit_record,
                files.heartbeat,
            ):  # word and pulse of an earlier attempt: nobody may believe them
                left.unlink(missing_ok=True)
            if not self.store.claim(run.id, slot):
                return False
            self.processes[run.id] = spawn(
                ["mlae_lab.runs.worker", str(self.store.folder), run.id, str(lock)],
                files.log,
                files.folder,
                lock,
                environment(run, slot),
            )
        except OSError as error:
            if error.errno in _PASSING:
                raise  # the next look tries again
            self.store.move(run.id, Status.FAILED, f"the run's process could not be started ({error})")
            return False
        finally:
            if lock is not None:
                os.close(lock)  # the child holds the same lock through its own copy
        return True


def environment(run: Run, slot: str = "") -> dict[str, str]:
    """The environment of a process that loads a run. slot: the device that it alone may use, "" for any."""
    # GNU OpenMP's threads spin while they wait; beside a browser on two cores that made steps 24 times slower
    # (LOG.md, 2026-11-23). A short spin costs 6 % alone and shares fairly.
    chosen = {"GOMP_SPINCOUNT": "5000"} | _as_launched()
    chosen[_LAUNCHED] = json.dumps({name: chosen.get(name) for name in ("MLAE_LAB_DATA", *_CUDA)})
    chosen["MLAE_LAB_DATA"] = run.data_folder or str(data_folder().absolute())  # where its launcher looked
    if slot.startswith("cuda:"):
        chosen |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": slot.partition(":")[2]}
    elif slot:
        chosen["CUDA_VISIBLE_DEVICES"] = ""  # whoever has the cores alone uses nothing else
    return chosen


def _as_launched() -> dict[str, str]:
    """This process's environment without what `environment` put into it for one run: a run that starts a supervisor
    hands on neither its device nor its images."""
    found = dict(os.environ)
    for name, value in json.loads(found.pop(_LAUNCHED, "{}")).items():
        found.pop(name, None)
        if value is not None:
            found[name] = value
    return found


def main(arguments: list[str]) -> int:
    lock = int(arguments[1])
    os.set_inheritable(lock, False)  # a run must not keep the supervisor's lock alive
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # somebody pressed Ctrl-C in some terminal
    folder = Path(arguments[0])
    log = paths.supervisor_log(folder)
    if log.stat().st_size > 1_000_000:
        os.truncate(log, 0)
    store = RunStore(folder)
    with suppress(sqlite3.Error, OSError, StoreError):
        archive_file.sweep(store)
    Supervisor(store, lock).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
