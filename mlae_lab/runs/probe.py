"""Ask a finished run something: `ask` finds the run's probe, or starts it (`runs.probe_worker` is the process).

Whoever asks the same again is told how far the answer is, so a page can be left and come back to. Answers that took
long lie in the run's folder and need no probe. A file that changes (a resumed run) makes all answers that came from
it void: the run's adapter, and what a question names. So does a lab that answers in another shape (`FORMAT`): a probe
of an older one leaves and a new one is started; a probe tells a process older than itself to be started again.
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
from subprocess import Popen
from typing import Any

from mlae_lab import locks
from mlae_lab.files import replacing, write_whole
from mlae_lab.runs import supervisor
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.paths import RunPaths
from mlae_lab.runs.store import RunStore

PROBES = 4  # alive at once in one store: each holds a network
MAKE_ROOM_SECONDS = 5.0  # a probe that has been idle for so long makes room for another
START_SECONDS = 30.0  # for a process to say where it listens
MAX_BYTES = 16 * 2**20  # of one question
# Of all answers, kept on disk or told by a living probe. Raise FORMAT whenever the shape or meaning of any answer
# changes, be it by one key more: a page would else read what a process of yesterday's lab wrote.
FORMAT = 3
_TOO_OFTEN, _TOO_OFTEN_SECONDS = 3, 120.0  # so many starts without an answer in so many seconds are a probe that dies
_begun: dict[Path, list[tuple[float, Popen]]] = {}  # a run's probes that were started from here, since its last answer
NAMING = ("file", "other")  # arguments that are the path of a file which the answer is computed from too


@dataclass(frozen=True)
class Answer:
    """state: "done" with a value, "failed" with a reason, or not yet: "waiting" for room, "loading", "working" with
    done of total pieces."""

    state: str
    value: dict | None = None
    reason: str = ""
    done: int = 0
    total: int = 0

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "failed")


def ask(store: RunStore, run_id: str, query: str, arguments: Mapping[str, Any] = {}, timeout: float = 2.0) -> Answer:
    """Ask a run a question, see `training.queries`. patience: seconds to wait for an answer before "working" is one.

    Raises StoreError for an unknown run.
    """
    run, arguments = derived(store, store.run(run_id)), dict(arguments)
    files = store.paths(run.id)
    if not run.status.is_over:
        return Answer("failed", reason=f"run {run.id} is {run.status.value}: it can be looked into once it is over")
    if not files.adapter.is_file():
        return Answer(
            "failed", reason=f"run {run.id} has no adapter to look into: train it to its first measured epoch"
        )
    if (value := _kept(files, query, arguments)) is not None:
        return Answer("done", value)
    began = time.monotonic()
    deadline = began + START_SECONDS
    while True:
        if locks.held(files.probe_lock) and _is_older(files):
            if not _leaves(files):
                if time.monotonic() > began + timeout:
                    return Answer("waiting", reason="a process of an older lab looks into this run until it is idle")
                time.sleep(0.2)
        elif locks.held(files.probe_lock):
            request = {"query": query, "arguments": arguments, "timeout": timeout}
            if (told := _exchange(files, request, timeout + 10)) is not None:
                if told["state"] in ("done", "failed"):
                    _begun.pop(files.folder, None)
                known = {
                    name: told[name] for name in ("value", "reason", "done", "total") if told.get(name) is not None
                }
                return Answer("working" if told["state"] == "abandoned" else str(told["state"]), **known)
            if time.monotonic() > deadline:
                return Answer(
                    "failed", reason=f"the process that looks into run {run.id} does not answer; {_log(files)}"
                )
            if timeout < 1:
                return Answer("loading")
            time.sleep(0.05)
        elif (waits := _started(store, files)) is not None:
            return waits


def wait(
    store: RunStore,
    run_id: str,
    query: str,
    arguments: Mapping[str, Any] = {},
    on_progress: Callable[[Answer], None] = lambda answer: None,
) -> Answer:
    """Like `ask`, but comes back with the end of it. tell: told now and then how far it is."""
    while True:
        answer = ask(store, run_id, query, arguments, timeout=1.0)
        if answer.is_over:
            return answer
        on_progress(answer)
        if answer.state != "working":
            time.sleep(0.2)


def _started(store: RunStore, files: RunPaths) -> Answer | None:
    """Start the run's probe. None if it is up or somebody else starts it; an answer where that has to wait or fails."""
    others = [store.paths(name) for name in _probed(store) if name != files.run]
    if len(others) >= PROBES and not any(_leaves(other, when) for when in ("idle", "left") for other in others):
        return Answer("waiting", reason=f"{PROBES} runs are being looked into; the first that is idle makes room")
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
                _begun.pop(files.folder, None)  # whoever asks again tries again
                return Answer(
                    "failed",
                    reason=f"the process that looks into run {files.run} was ended {len(begun)} times before it could answer, "
                    f"as the system does when memory runs out: end other programs and ask again; {_log(files)}",
                )
            files.probe_address.unlink(missing_ok=True)
            child = supervisor.spawn(
                ["mlae_lab.runs.probe_worker", str(store.folder), files.run, str(lock)],
                files.probe_log,
                files.folder,
                lock,
                supervisor.environment(store.run(files.run)),
            )
            _begun[files.folder] = [*begun, (time.monotonic(), child)]
        finally:
            os.close(lock)  # the child holds the same lock through its own copy
    except OSError as error:
        return Answer("failed", reason=f"the process that looks into run {files.run} cannot be started ({error})")
    deadline = time.monotonic() + START_SECONDS
    while not files.probe_address.exists():
        if child.poll() is not None:
            return Answer("failed", reason=f"the process that looks into run {files.run} ended at once; {_log(files)}")
        if time.monotonic() > deadline:
            return Answer("loading")
        time.sleep(0.02)
    return None


def _probed(store: RunStore) -> list[str]:
    """Runs whose probe is alive, as far as one can see."""
    found = []
    for run in store.runs():
        with suppress(OSError):
            if locks.held(store.paths(run.id).probe_lock):
                found.append(run.id)
    return found


def _leaves(files: RunPaths, when: str = "idle") -> bool:
    """Ask a probe to make room; whether it is gone. when: "idle", or "left": also from what nobody waits for now.

    A probe of an older lab leaves whatever it does; one of the first, which know no formats, only when it is idle.
    """
    told = _exchange(files, {"leave": when}, 2.0)
    deadline = time.monotonic() + 3
    while told is not None and (told.get("value") or {}).get("leaving") and time.monotonic() < deadline:
        if not locks.held(files.probe_lock):
            return True
        time.sleep(0.05)
    return not locks.held(files.probe_lock)


def _log(files: RunPaths) -> str:
    try:
        lines = files.probe_log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"its log ends with: {lines[-1][:200]}" if lines else "its log is empty"


# ---------------------------------------------------------------- the wire


def announce(files: RunPaths, port: int, token: str) -> None:
    """Say where a probe listens, to the owner of the store alone."""
    with replacing(files.probe_address, sync=False) as partial:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"port": port, "token": token, "format": FORMAT}, file)


def _is_older(files: RunPaths) -> bool:
    """Whether the probe that listens is one of a lab with an older FORMAT. The first labs' said none."""
    try:
        return json.loads(files.probe_address.read_text()).get("format", 0) < FORMAT
    except (OSError, ValueError, TypeError, AttributeError):
        return False  # it does not listen yet


def _exchange(files: RunPaths, request: dict, timeout: float) -> dict | None:
    """One line there, one line back; None where nobody answers."""
    try:
        address = json.loads(files.probe_address.read_text())
        with socket.create_connection(("127.0.0.1", address["port"]), timeout=timeout) as wire:
            wire.sendall(json.dumps({**request, "format": FORMAT, "token": address["token"]}).encode() + b"\n")
            with wire.makefile("rb") as lines:
                told = json.loads(lines.readline())
        return told if isinstance(told, dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


# ---------------------------------------------------------------- answers on disk


def canonical(query: str, arguments: Mapping[str, Any]) -> str:
    """One text for one question, however its arguments are ordered."""
    return json.dumps([query, arguments], sort_keys=True, separators=(",", ":"))


def signature(files: RunPaths) -> str:
    """Names what a run has learned, cheaply: size and time of its adapter file, "" where there is none."""
    return _stamp(files.adapter)


def named(arguments: Mapping[str, Any]) -> str:
    """The same of the files that arguments name. It is a part of what an answer, under way or kept, was computed from:
    a path alone says nothing of what lies there now. "" where none is named."""
    paths = ((name, arguments.get(name)) for name in NAMING)
    return "".join(f" {name} {_stamp(Path(path))}" for name, path in paths if path and isinstance(path, str))


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: no path at all, which the question says better
        return ""
    return f"{found.st_size}.{found.st_mtime_ns}"


def keep(files: RunPaths, query: str, arguments: Mapping[str, Any], loaded: str, value: dict) -> None:
    """Keep an answer on disk. loaded: signature of what it was computed from, and after it what `named` gave before."""
    path = _kept_at(files, query, arguments)
    path.parent.mkdir(exist_ok=True)
    write_whole(path, json.dumps({"format": FORMAT, "adapter": loaded, "value": value}))


def _kept(files: RunPaths, query: str, arguments: Mapping[str, Any]) -> dict | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(_kept_at(files, query, arguments).read_text())
        if found["format"] == FORMAT and found["adapter"] == signature(files) + named(arguments):
            return dict(found["value"])
    return None


def _kept_at(files: RunPaths, query: str, arguments: Mapping[str, Any]):
    name = hashlib.sha256(canonical(query, arguments).encode()).hexdigest()[:16]
    if not query.isidentifier():
        raise ValueError(f"{query!r} cannot be the name of a question")
    return files.answers / f"{query}-{name}.json"
