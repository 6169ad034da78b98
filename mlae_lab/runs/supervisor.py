"""Start, stop and account for runs. Each run is one detached process (`runs.worker`).

A run lives exactly as long as its lock: the launcher takes it before the process exists and hands
the open file over, the kernel lets go of it on any death. So no pid is ever believed, no moment
exists in which a starting run looks dead, and a restarted server knows the truth at once.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mlae_lab.core.config import RunConfig
from mlae_lab.places import ROOT, data_folder
from mlae_lab.runs.paths import RunPaths
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore, StoreError


def launch(store: RunStore, config: RunConfig) -> Run:
    """Enqueue a run and start its process, which waits for its turn, trains and outlives everyone.

    The device is settled here ("auto" asks the driver, without torch), so that the queue can be
    one per device. Returns the queued run.
    """
    name = store.reserve()
    files = store.paths(name)
    lock = os.open(files.lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # before anyone can see the run, so that it never looks dead
        run = store.enqueue(config, device=_device(config.device), run=name)
        # GNU OpenMP's threads spin while they wait; beside a browser on two cores that made steps 24 times slower
        # (LOG.md, 2026-11-23). A short spin costs 6 % alone and shares fairly.
        environment = {"GOMP_SPINCOUNT": "5000", **os.environ}
        environment["MLAE_LAB_DATA"] = str(data_folder().absolute())  # the run looks where its launcher looked
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
        with files.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlae_lab.runs.worker", str(store.folder), run.id, str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=files.folder,  # `python -m` imports from here first: never from wherever the launcher stood
                start_new_session=True,
                pass_fds=(lock,),
            )
    except OSError as error:
        store.move(name, Status.FAILED, f"the run's process could not be started ({error})")
        raise
    finally:
        os.close(lock)  # the child holds the same lock through its own copy
    _children.append(process)
    return run


_children: list[subprocess.Popen] = []


def is_alive(files: RunPaths) -> bool:
    """Whether the run's process holds its lock."""
    try:
        probe = os.open(files.lock, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(probe)


def reconcile(store: RunStore) -> None:
    """Give every run whose process is gone without a word its end: stopped if it was asked to, else lost."""
    _children[:] = [child for child in _children if child.poll() is None]  # leaves no zombies behind
    for seen in store.runs():
        if seen.status.is_over or is_alive(store.paths(seen.id)):
            continue
        try:
            run = store.run(seen.id)  # as it is now: since the first look it may have ended, been stopped or deleted
        except StoreError:
            continue
        if run.status.is_over:
            continue
        if run.status is Status.STOPPING:
            store.move(run.id, Status.STOPPED, "stopped at once", only_from=(Status.STOPPING,))
        else:
            when = "before its turn came" if run.status is Status.QUEUED else "while it was " + run.status.value
            store.move(run.id, Status.LOST, f"its process ended {when} without a word: the log shows its last lines")


def stop(store: RunStore, run_id: str, now: bool = False, patience: float = 10.0) -> Status:
    """End a run. Returns its status afterwards.

    now False: a queued run is cancelled; a running one finishes its step, measures itself and
    keeps its adapter. now True: its process group is killed and has ended on return.
    """
    if store.move(run_id, Status.STOPPED, "cancelled before its turn came", only_from=(Status.QUEUED,)):
        return Status.STOPPED
    store.move(run_id, Status.STOPPING, only_from=(Status.STARTING, Status.RUNNING))
    if now:
        _kill(store, run_id, patience)
        reconcile(store)
    return store.run(run_id).status


def _kill(store: RunStore, run_id: str, patience: float) -> None:
    run, files = store.run(run_id), store.paths(run_id)
    deadline = time.monotonic() + patience
    while is_alive(files) and time.monotonic() < deadline:
        # the pid is a hint only: it must still name a process of this very run
        if run.pid is not None and _is_worker(run.pid, run_id):
            os.killpg(run.pid, signal.SIGKILL)
        time.sleep(0.05)


def _is_worker(pid: int, run_id: str) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        try:  # no /proc, as on macOS
            listed = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, timeout=5)
            words = listed.stdout.split()
        except (OSError, subprocess.TimeoutExpired):
            return False
    return b"mlae_lab.runs.worker" in words and run_id.encode() in words


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if Path("/proc/driver/nvidia/version").exists() else "cpu"
    return name


def log_tail(store: RunStore, run_id: str, lines: int = 40) -> list[str]:
    """The last lines of a run's log."""
    try:
        with store.paths(run_id).log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 64_000))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []
