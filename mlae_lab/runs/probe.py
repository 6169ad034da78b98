"""Queries about a finished run: `ask` sends one to the run's probe (`runs.probe_worker`), started if necessary.

Asking again returns the progress of the answer, so a page can be left and opened again. Answers of long queries are
cached in the run's folder and need no probe. They become invalid if a file changes that they were computed from: the
run's adapter (after a resume), its location (`runs.run_location`) or a file that the query names. The same holds for
`FORMAT`: a probe of an older format exits and a new one is started; a process of an older format is asked to restart.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlae_lab import locks
from mlae_lab.files import replacing, write_whole
from mlae_lab.runs import supervisor
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.paths import RunPaths
from mlae_lab.runs.store import RunStore

PROBES = 4  # alive at once in one store: each holds a network in memory
MAKE_ROOM_SECONDS = 5.0  # a probe that has been idle for this long exits if another one needs its slot
START_SECONDS = 30.0  # for a process to write its address
MAX_BYTES = 16 * 2**20  # of one query
# Of all answers, cached or sent by a probe. Raise FORMAT whenever the shape or meaning of any answer changes, even by
# one added key: otherwise a page would read answers of a process of an earlier version.
FORMAT = 4
_TOO_OFTEN, _TOO_OFTEN_SECONDS = 3, 120.0  # this many killed probes in this time: no further start
_begun: dict[
    Path, list[tuple[float, supervisor.Process]]
] = {}  # by run, the probes that this process started since the last answer
NAMING = ("file", "other")  # arguments that are paths of files from which the answer is computed


@dataclass(frozen=True)
class Answer:
    """The state of a query.

    Attributes:
        state: "done" with a value, "failed" with a reason, or still "waiting" for a free slot, "loading" the run, or
            "working".
        value: The answer.
        reason: One sentence.
        done: Completed pieces of work.
        total: All pieces of work.
    """

    state: str
    value: dict | None = None
    reason: str = ""
    done: int = 0
    total: int = 0

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "failed")


def ask(store: RunStore, run_id: str, query: str, arguments: Mapping[str, Any] = {}, timeout: float = 2.0) -> Answer:
    """Send a query to a run.

    Args:
        store: Of the run.
        run_id: A run that is over.
        query: Name of a query (`training.queries`).
        arguments: Of the query.
        timeout: Seconds to wait for the answer before "working" is returned.

    Raises:
        StoreError: The run is unknown.
    """
    run, arguments = derived(store, store.run(run_id)), dict(arguments)
    files = store.paths(run.id)
    if not run.status.is_over:
        return Answer("failed", reason=f"run {run.id} is {run.status.value}: it can be analysed when it is over")
    if not files.adapter.is_file():
        return Answer("failed", reason=f"run {run.id} has no adapter: train it until its first evaluation")
    if (value := _cached(files, query, arguments)) is not None:
        return Answer("done", value)
    began = time.monotonic()
    deadline = began + START_SECONDS
    while True:
        if locks.held(files.probe_lock) and _is_older(files):
            if not _release(files):
                if time.monotonic() > began + timeout:
                    return Answer("waiting", reason="a process of an older version uses this run until it is idle")
                time.sleep(0.2)
        elif locks.held(files.probe_lock):
            request = {"query": query, "arguments": arguments, "timeout": timeout}
            if (reply := _exchange(files, request, timeout + 10)) is not None:
                if reply["state"] in ("done", "failed"):
                    _begun.pop(files.folder, None)
                fields = {
                    name: reply[name] for name in ("value", "reason", "done", "total") if reply.get(name) is not None
                }
                return Answer("working" if reply["state"] == "abandoned" else str(reply["state"]), **fields)
            if time.monotonic() > deadline:
                return Answer(
                    "failed", reason=f"the analysis process of run {run.id} does not respond; {_log_end(files)}"
                )
            if timeout < 1:
                return Answer("loading")
            time.sleep(0.05)
        elif (answer := _start(store, files)) is not None:
            return answer


def wait(
    store: RunStore,
    run_id: str,
    query: str,
    arguments: Mapping[str, Any] = {},
    on_progress: Callable[[Answer], None] = lambda answer: None,
) -> Answer:
    """Like `ask`, but wait until the query is over. on_progress is called with the state about once a second."""
    while True:
        answer = ask(store, run_id, query, arguments, timeout=1.0)
        if answer.is_over:
            return answer
        on_progress(answer)
        if answer.state != "working":
            time.sleep(0.2)


def _start(store: RunStore, files: RunPaths) -> Answer | None:
    """Start the run's probe. None if it listens or another process starts it; else why it waits or failed."""
    others = [store.paths(name) for name in _probed(store) if name != files.run]
    if len(others) >= PROBES and not any(_release(other, when) for when in ("idle", "left") for other in others):
        return Answer("waiting", reason=f"{PROBES} runs are being analysed; this query starts when one of them is idle")
    try:
        lock = locks.take(files.probe_lock)
        if lock is None:
            return None
        begun = [
            (at, child)
            for at, child in _begun.get(files.folder, ())
            if time.monotonic() - at < _TOO_OFTEN_SECONDS and (child.poll() or 0) < 0
        ]
        try:
            if len(begun) >= _TOO_OFTEN:
                _begun.pop(files.folder, None)  # the next call tries again
                return Answer(
                    "failed",
                    reason=f"the analysis process of run {files.run} was killed {len(begun)} times before it could "
                    "answer, as the system does when memory runs out: close other programs and try again; "
                    f"{_log_end(files)}",
                )
            files.probe_address.unlink(missing_ok=True)
            child = supervisor.spawn(
                "mlae_lab.runs.probe_worker",
                [str(store.folder), files.run],
                files.probe_log,
                files.folder,
                lock,
                supervisor.environment(store.run(files.run)),
            )
            _begun[files.folder] = [*begun, (time.monotonic(), child)]
        finally:
            os.close(lock)  # the child holds the same lock through its own copy
    except OSError as error:
        return Answer("failed", reason=f"the analysis process of run {files.run} cannot be started ({error})")
    deadline = time.monotonic() + START_SECONDS
    while not files.probe_address.exists():
        if child.poll() is not None:
            return Answer(
                "failed", reason=f"the analysis process of run {files.run} exited at start; {_log_end(files)}"
            )
        if not locks.held(files.probe_lock):
            return None  # it has exited, or the fork server has: `ask` starts another one
        if time.monotonic() > deadline:
            return Answer("loading")
        time.sleep(0.02)
    return None


def _probed(store: RunStore) -> list[str]:
    """The runs whose probe is alive; folders that cannot be read are left out."""
    names = []
    for run in store.runs():
        with suppress(OSError):
            if locks.held(store.paths(run.id).probe_lock):
                names.append(run.id)
    return names


def _release(files: RunPaths, when: str = "idle") -> bool:
    """Ask a probe to exit. Returns whether it has.

    A probe of an older format always exits; one of the first versions, without formats, only when it is idle.

    Args:
        files: Of the run.
        when: "idle", or "left": also while it works on queries that nobody waits for.
    """
    reply = _exchange(files, {"leave": when}, 2.0)
    deadline = time.monotonic() + 3
    while reply is not None and (reply.get("value") or {}).get("leaving") and time.monotonic() < deadline:
        if not locks.held(files.probe_lock):
            return True
        time.sleep(0.05)
    return not locks.held(files.probe_lock)


def _log_end(files: RunPaths) -> str:
    try:
        lines = files.probe_log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"its log ends with: {lines[-1][:200]}" if lines else "its log is empty"


# ---------------------------------------------------------------- connection


def announce(files: RunPaths, port: int, token: str) -> None:
    """Write the address of a probe to a file that only the owner of the store can read."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with replacing(files.probe_address, sync=False) as partial, open(os.open(partial, flags, 0o600), "w") as file:
        json.dump({"port": port, "token": token, "format": FORMAT}, file)


def _is_older(files: RunPaths) -> bool:
    """Whether the probe that listens has an older FORMAT; the first versions stated none."""
    try:
        return json.loads(files.probe_address.read_text()).get("format", 0) < FORMAT
    except (OSError, ValueError, TypeError, AttributeError):
        return False  # it does not listen yet


def _exchange(files: RunPaths, request: dict, timeout: float) -> dict | None:
    """Send one line and return the reply; None without a reply."""
    try:
        address = json.loads(files.probe_address.read_text())
        with socket.create_connection(("127.0.0.1", address["port"]), timeout=timeout) as connection:
            connection.sendall(json.dumps({**request, "format": FORMAT, "token": address["token"]}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                reply = json.loads(lines.readline())
        return reply if isinstance(reply, dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


# ---------------------------------------------------------------- cached answers


def canonical(query: str, arguments: Mapping[str, Any]) -> str:
    """A text that identifies a query, whatever the order of its arguments."""
    return json.dumps([query, arguments], sort_keys=True, separators=(",", ":"))


def signature(files: RunPaths) -> str:
    """Identifies what a probe loads: size and time of the run's adapter file and, if it has one, its location file."""
    return _stamp(files.adapter) + _stamp(files.location)


def named(arguments: Mapping[str, Any]) -> str:
    """The same for the files that arguments name, "" for none. An answer belongs to their content, which may change
    under the same path."""
    paths = ((name, arguments.get(name)) for name in NAMING)
    return "".join(f" {name} {_stamp(Path(path))}" for name, path in paths if path and isinstance(path, str))


def _stamp(path: Path) -> str:
    try:
        file = path.stat()
    except (OSError, ValueError):  # ValueError: not a path; the query has a better message for it
        return ""
    return f"{file.st_size}.{file.st_mtime_ns}"


def keep(files: RunPaths, query: str, arguments: Mapping[str, Any], loaded: str, value: dict) -> None:
    """Cache an answer.

    Args:
        files: Of the run.
        query: Its name.
        arguments: Of the query.
        loaded: `signature` followed by `named`, as of the start of the computation.
        value: The answer.
    """
    path = _cache_path(files, query, arguments)
    path.parent.mkdir(exist_ok=True)
    write_whole(path, json.dumps({"format": FORMAT, "adapter": loaded, "value": value}))


def _cached(files: RunPaths, query: str, arguments: Mapping[str, Any]) -> dict | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        entry = json.loads(_cache_path(files, query, arguments).read_text())
        if entry["format"] == FORMAT and entry["adapter"] == signature(files) + named(arguments):
            return dict(entry["value"])
    return None


def _cache_path(files: RunPaths, query: str, arguments: Mapping[str, Any]) -> Path:
    key = hashlib.sha256(canonical(query, arguments).encode()).hexdigest()[:16]
    if not query.isidentifier():
        raise ValueError(f"{query!r} is not a valid name of a query")
    return files.answers / f"{query}-{key}.json"
