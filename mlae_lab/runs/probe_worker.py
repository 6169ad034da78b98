"""The probe: a process that loads a finished run once and answers queries about it.

    python -m mlae_lab.runs.probe_worker STORE RUN LOCK_FD

`runs.probe` starts it for the first query; LOCK_FD is the run's probe lock, already held, so a run has one probe. It
listens on the loopback interface, protected by a token in a file that only its owner can read; requests and replies
are lines of JSON. One thread computes, the newest query first: whenever a query calls `on_progress`, newer ones run
inside it, so a click is answered while a computation of minutes continues.

A query that nobody waits for any more is abandoned soon if little work has gone into it. A long one continues for
LEFT_SECONDS, so that the answer is ready or further along when somebody returns; but not while somebody waits for a
query that it interrupted, and of several such queries only the newest LEFT_KEPT continue. The probe exits when there
was no request for a while and no query is active, when the run's adapter or location has changed, or on a request of a
newer version (`probe.FORMAT`). If another run needs its slot, queries that nobody waits for do not keep it alive.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socketserver
import sys
import threading
import time
import traceback
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlae_lab import environment
from mlae_lab.locations import use_store
from mlae_lab.runs import probe
from mlae_lab.runs.error_messages import failure_reason
from mlae_lab.runs.run_location import read_location
from mlae_lab.runs.store import RunStore

if TYPE_CHECKING:
    from mlae_lab.training.loaded_run import LoadedRun

IDLE_SECONDS = environment.PROBE_IDLE.value()
REQUEST_SECONDS = 15.0  # a short query is abandoned this long after its last request
TAB_SECONDS = 90.0  # somebody waits for a long query until then: a tab in the background sends one request a minute
# A long query continues for this long after its last request: the longest take minutes, and should be done when their
# page is opened again.
LEFT_SECONDS = 600.0
LEFT_KEPT = 3  # long queries that continue without anybody waiting: each holds caches and takes time
NESTED = 12  # depth from which on no such query continues: each level uses some of Python's stack
ANSWERS_KEPT = 64
KEEP_SECONDS = 2.0  # answers that took longer are cached on disk; queries that have taken longer are long ones


class _Abandoned(Exception):
    """Nobody waits for this answer any more."""


@dataclass
class Job:
    """A query, active or over.

    Attributes:
        name: Of the query.
        arguments: Of the query.
        named: See `probe.named`.
        state: As in `probe.Answer`, or "abandoned".
        value: The answer.
        reason: As in `probe.Answer`.
        done: As last reported.
        total: As last reported.
        requested: Time of the last request, by the monotonic clock.
        spent: Seconds of work, without that of the queries that interrupted it.
        surplus: Whether it has to end because enough newer queries without anybody waiting continue.
    """

    name: str
    arguments: dict[str, Any]
    named: str = ""
    state: str = "waiting"
    value: dict | None = None
    reason: str = ""
    done: int = 0
    total: int = 0
    requested: float = field(default_factory=time.monotonic)
    spent: float = 0.0
    surplus: bool = False

    def touch(self) -> None:
        """Record a request."""
        self.requested, self.surplus = time.monotonic(), False

    @property
    def is_waited_for(self) -> bool:
        return time.monotonic() - self.requested <= TAB_SECONDS

    def reply(self) -> dict:
        return {"state": self.state, "value": self.value, "reason": self.reason, "done": self.done, "total": self.total}


class Probe:
    """The jobs and the thread that works on them."""

    def __init__(self, store: RunStore, run_id: str) -> None:
        self.store, self.run_id, self.files = store, run_id, store.paths(run_id)
        self.token = secrets.token_hex(16)
        self.signature = probe.signature(self.files)
        self.jobs: OrderedDict[str, Job] = OrderedDict()
        self.waiting: list[Job] = []  # the newest last
        self.active: list[Job] = []  # each inside the one before; used by the computing thread only
        self.resumed = 0.0  # since when the last of them computes
        self.changed = threading.Condition()
        self.loaded: LoadedRun | None = None
        self.failure = ""
        self.last = time.monotonic()
        self.leaving = False

    # ------------------------------------------------------------ computing thread

    def work(self) -> None:
        """Load the run, then answer queries until it is time to exit."""
        try:
            from mlae_lab.data.image_record import read_record
            from mlae_lab.training.loaded_run import load_run
            from mlae_lab.training.queries import queries

            self.known = queries()
            location = read_location(self.files)
            self.loaded = load_run(
                self.store.run(self.run_id).config, self.files.adapter, self.run_id, on_chunk=self._must_stay,
                record=read_record(self.files.images), data=location.data_folder, weights=location.weights_file,
            )  # fmt: skip
        except BaseException as error:
            with suppress(OSError):
                traceback.print_exc()
            self.failure = failure_reason(error)
        with self.changed:
            self.changed.notify_all()
        while not self.leaving:
            with self.changed:
                job = self.waiting.pop() if self.waiting else None
                if job is None:
                    self.changed.wait(0.5)
            if job is not None:
                self._answer(job)
            elif (
                time.monotonic() - self.last > IDLE_SECONDS
                or not self.files.folder.exists()
                or (self._may_recover() and time.monotonic() - self.last > 5)
            ):
                self.leaving = True

    def _may_recover(self) -> bool:
        """Whether a probe that loads the run later may do better: if it failed, or images were missing."""
        return bool(self.failure) or (self.loaded is not None and bool(self.loaded.setup.missing))

    def _must_stay(self) -> None:
        if self.leaving:
            raise _Abandoned

    def _answer(self, job: Job) -> None:
        if self.failure:
            job.state, job.reason = "failed", self.failure
        else:
            job.state = "working"
            began = self.resumed = time.monotonic()
            self.active.append(job)
            try:
                self._report(job, 0, 0)
                assert self.loaded is not None  # `failure` is set otherwise
                value = self.known[job.name](
                    self.loaded, job.arguments, lambda done, total: self._report(job, done, total)
                )
                if time.monotonic() - began > KEEP_SECONDS and not value.get("private"):  # a visitor's own image
                    with suppress(OSError):
                        probe.keep(self.files, job.name, job.arguments, self.signature + job.named, value)
                job.value, job.state = value, "done"
            except _Abandoned:
                job.state, job.reason = "abandoned", "nobody waited for it"
            except BaseException as error:
                with suppress(OSError):
                    traceback.print_exc()
                job.state, job.reason = "failed", failure_reason(error)
            finally:
                self.active.pop()
        with self.changed:
            self.changed.notify_all()

    def _report(self, job: Job, done: int, total: int) -> None:
        """Record progress, and answer newer queries first. Raises _Abandoned."""
        job.done, job.total = done, total
        job.spent += time.monotonic() - self.resumed
        while True:
            if self.leaving or self._is_abandoned(job):
                raise _Abandoned
            with self.changed:
                newer = self.waiting.pop() if self.waiting else None
            if newer is None:
                break
            self._answer(newer)
        self.resumed = time.monotonic()

    def _is_abandoned(self, job: Job) -> bool:
        """Whether to end the innermost active query, by the rule in the module docstring."""
        left = sorted((other for other in self.active if not other.is_waited_for), key=lambda other: other.requested)
        for old in left[:-LEFT_KEPT]:  # these end when they are innermost, even if there are fewer by then
            old.surplus = True
        away = time.monotonic() - job.requested
        if job.spent < KEEP_SECONDS or len(self.active) > NESTED:
            return away > REQUEST_SECONDS
        return job in left and (away > LEFT_SECONDS or job.surplus or len(left) < len(self.active))

    # ------------------------------------------------------------ listening threads

    def ask(self, request: dict) -> dict:
        """The reply to a request."""
        if not secrets.compare_digest(str(request.get("token", "")).encode(), self.token.encode()):
            return {"state": "failed", "reason": "this is not the token of this probe"}
        request_format = int(request.get("format", 0))
        if request_format > probe.FORMAT:
            self.leaving = True
        if when := request.get("leave"):
            with self.changed:
                unfinished = [job for job in self.jobs.values() if job.state in ("waiting", "working")]
                busy = any(job.is_waited_for or when != "left" for job in unfinished)
                self.leaving = self.leaving or (not busy and time.monotonic() - self.last > probe.MAKE_ROOM_SECONDS)
            return {"state": "done", "value": {"leaving": self.leaving}}
        if request_format < probe.FORMAT:
            # If it exited, the older process would start another probe of this format, endlessly.
            return {
                "state": "failed",
                "reason": "MLAE Lab was updated after this page or command started: restart it",
            }
        if probe.signature(self.files) != self.signature:
            self.leaving = True
        if self.leaving:
            return {"state": "loading", "reason": "the run has changed and is being loaded again"}
        self.last = time.monotonic()
        if self.loaded is None and not self.failure:
            return {"state": "loading"}
        name, arguments = str(request["query"]), dict(request["arguments"])
        if not self.failure and name not in self.known:
            return {
                "state": "failed",
                "reason": f"{name!r} is not a query: choose from {', '.join(sorted(self.known))}",
            }
        timeout = min(10.0, float(request.get("timeout", 0.0)))
        with self.changed:
            job = self._job(name, arguments)
            self.changed.wait_for(lambda: job.state not in ("waiting", "working") or self.leaving, timeout)
            job.touch()
            return job.reply()

    def _job(self, name: str, arguments: dict) -> Job:
        named = probe.named(arguments)
        key = probe.canonical(name, arguments) + named
        job = self.jobs.pop(key, None)
        if job is None or job.state in ("failed", "abandoned"):
            job = Job(name, arguments, named)
            self.waiting.append(job)
            self.changed.notify_all()
        job.touch()
        self.jobs[key] = job
        for old in [k for k, j in self.jobs.items() if j.state not in ("waiting", "working")][:-ANSWERS_KEPT]:
            del self.jobs[old]
        return job


class _Line(socketserver.StreamRequestHandler):
    timeout = 70

    def handle(self) -> None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            line = self.rfile.readline(probe.MAX_BYTES)
            assert isinstance(self.server, _Server)
            answer = self.server.probe.ask(json.loads(line))
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, process: Probe) -> None:
        self.probe = process
        super().__init__(("127.0.0.1", 0), _Line)


def main(arguments: list[str]) -> int:
    store, run_id = RunStore(Path(arguments[0])), arguments[1]
    use_store(store.folder)
    os.set_inheritable(int(arguments[2]), False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = Probe(store, run_id)
    with _Server(process) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        probe.announce(process.files, server.server_address[1], process.token)
        try:
            process.work()
        finally:
            with suppress(OSError):
                process.files.probe_address.unlink()
            server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
