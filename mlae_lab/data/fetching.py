"""A fetch that a page can start, watch and cancel: a detached process and a few small files.

<data folder>/.fetch/<name>/lock           held by the fetching process while it lives
<data folder>/.fetch/<name>/progress.json  its state, replaced at most four times a second
<data folder>/.fetch/<name>/cancel         created to ask it to stop
<data folder>/.fetch/<name>/log.txt        its output, with the traceback if the program failed
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from mlae_lab import locks
from mlae_lab.core.hosts import Remote, remote
from mlae_lab.data.fetch import fetch, ready_folder
from mlae_lab.data.progress import Cancelled, FetchError, Progress
from mlae_lab.files import write_whole
from mlae_lab.locations import ROOT

Status = Literal["idle", "running", "done", "failed", "cancelled", "lost"]
_CHECK_SECONDS = 0.2  # between two checks for the cancel file


@dataclass(frozen=True)
class FetchState:
    """The state of a fetch.

    Attributes:
        status: "idle" was never started; "lost" exited without reporting a result (killed, or the machine went down).
        progress: the last report, None before the first.
        reason: one sentence for "failed" and "lost".
        folder: of the fetched files, for "done".
    """

    status: Status
    progress: Progress | None = None
    reason: str | None = None
    folder: Path | None = None


def start(name: str, into: Path) -> FetchState:
    """Start a process that fetches, unless one is running or the files are complete. Returns the state afterwards.

    Raises:
        HostError: there is nothing to fetch under this name.
        FetchError: no file can be written or no process started.
    """
    wanted, into = remote(name), into.expanduser().absolute()
    if ready_folder(wanted, into) is not None:
        return watch(name, into)
    _children[:] = [child for child in _children if child.poll() is None]  # leaves no zombies behind
    lock = _take(wanted, into)
    if lock is None:
        return watch(name, into)
    try:
        folder = _folder(wanted, into)
        _write(folder, "running")
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
        with (folder / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlae_lab.data.fetching", wanted.name, str(into), str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,  # `python -m` imports from here first: never from the folder of the caller
                start_new_session=True,
                pass_fds=(lock,),
            )
        _children.append(process)
    except OSError as error:
        raise FetchError(f"the fetch of {name} cannot be started ({error}): check {into} and the free memory") from None
    finally:
        os.close(lock)  # the child holds the same lock through its own copy
    return watch(name, into)


_children: list[subprocess.Popen] = []


def watch(name: str, into: Path) -> FetchState:
    """The state of a fetch, from two file reads. Raises HostError if there is nothing to fetch under this name."""
    wanted, into = remote(name), into.expanduser().absolute()
    folder = _folder(wanted, into)
    alive = locks.held(folder / "lock")  # before the state is read: a process may end in between and is not lost
    status, progress, reason = _read(folder)
    if alive:
        return FetchState("running", progress if status == "running" else None)
    ready = ready_folder(wanted, into)
    if ready is not None:
        return FetchState("done", progress, None, ready)
    if status == "running":
        return FetchState("lost", progress, "its process exited without reporting a result: fetch again to continue")
    if status == "done":
        return FetchState("idle")  # the fetched files have been deleted since
    return FetchState(status, progress, reason)


def cancel(name: str, into: Path) -> None:
    """Ask a running fetch to stop, which takes about a second; the downloaded bytes are kept."""
    folder = _folder(remote(name), into.expanduser().absolute())
    if locks.held(folder / "lock"):
        (folder / "cancel").touch()


def run(name: str, into: Path, on_progress: Callable[[Progress], None] = lambda progress: None) -> Path:
    """Fetch in this process; `watch` and `cancel` work as for a started one. Returns the folder.

    Raises HostError, FetchError, Cancelled or KeyboardInterrupt; the same call then continues the fetch.
    """
    wanted, into = remote(name), into.expanduser().absolute()
    if (ready := ready_folder(wanted, into)) is not None:
        return ready
    lock = _take(wanted, into)
    if lock is None:
        raise FetchError(
            f"{wanted.name} is being fetched into {into} by another process: wait for it or cancel it there"
        )
    try:
        return _run(wanted, into, on_progress)
    finally:
        os.close(lock)


def _run(wanted: Remote, into: Path, on_progress: Callable[[Progress], None]) -> Path:
    """Fetch and record the state. The caller holds the lock."""
    folder = _folder(wanted, into)
    checked, cancelled = 0.0, False

    def report(progress: Progress) -> None:
        _write(folder, "running", progress)
        on_progress(progress)

    def should_stop() -> bool:
        nonlocal checked, cancelled
        now = time.monotonic()
        if now - checked > _CHECK_SECONDS:
            checked, cancelled = now, (folder / "cancel").exists()
        return cancelled

    try:
        _write(folder, "running")
        ready = fetch(wanted, into, report, should_stop)
        _write(folder, "done", _read(folder)[1])
        return ready
    except FetchError as error:
        _write(folder, "failed", _read(folder)[1], str(error))
        raise
    except (Cancelled, KeyboardInterrupt):
        _write(folder, "cancelled", _read(folder)[1])
        raise
    except Exception:
        _write(folder, "failed", None, f"the lab itself failed: {folder / 'log.txt'} has the traceback")
        raise


def _folder(wanted: Remote, into: Path) -> Path:
    return into / ".fetch" / wanted.name


def _take(wanted: Remote, into: Path) -> int | None:
    """The open, locked file of a fetch, None if another process holds it. Removes leftovers of an earlier one."""
    folder = _folder(wanted, into)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = locks.take(folder / "lock")
    except OSError as error:
        raise FetchError(
            f"{into} cannot be written ({error.strerror}): choose another folder with --into or MLAE_LAB_DATA"
        ) from None
    if lock is not None:
        for leftover in (folder / "cancel", *folder.glob("progress.json.*.part")):  # the latter of a killed process
            leftover.unlink(missing_ok=True)
    return lock


def _write(folder: Path, status: Status, progress: Progress | None = None, reason: str | None = None) -> None:
    state = {"status": status, "reason": reason, "progress": asdict(progress) if progress else None}
    text = json.dumps(state).encode().ljust(1000)  # so that every state fits where the last one lay
    file = folder / "progress.json"
    try:
        write_whole(file, text, sync=False)  # several times a second, and worthless after a power cut
    except OSError:  # a full disk must not hide what the fetch itself has to say
        with suppress(OSError), file.open("r+b") as old:
            old.write(text)
            old.truncate()


def _read(folder: Path) -> tuple[Status, Progress | None, str | None]:
    try:
        state = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        return state["status"], Progress(**state["progress"]) if state["progress"] else None, state["reason"]
    except (OSError, ValueError, KeyError, TypeError):
        return "idle", None, None


def main(name: str, into: str) -> int:
    """The detached process, which inherits the lock. Returns the exit status."""

    def terminate(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    try:
        _run(remote(name), Path(into), lambda progress: None)
        return 0
    except (FetchError, Cancelled, KeyboardInterrupt) as error:
        print(error or "cancelled", flush=True)
    except Exception:
        traceback.print_exc()
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
