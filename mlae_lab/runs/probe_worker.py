"""The probe: one process that loads a finished run once and answers questions about it.

    python -m mlae_lab.runs.probe_worker STORE RUN LOCK_FD

Started by `runs.probe` for whoever asks first; LOCK_FD is the run's probe lock, already held, so there is one probe a
run. It listens on the loopback, behind a token that stands in a file only its owner can read, and takes a line of
JSON for a line of JSON. One thread computes: the newest question first, inside a long one whenever that calls `on_progress`,
so a click is answered while a curve of minutes grows.

A question that nobody waits for any more is soon given up where little work has gone into it. A long one goes on for
LEFT_SECONDS, so that whoever comes back finds it answered or further on; but not while somebody waits for a question
that it interrupted, and of many that were left only the newest LEFT_KEPT do. The probe leaves when nobody has asked for
a while and nothing is under way, when the run's adapter is another one than it loaded, or when somebody of a newer lab
asks (`probe.FORMAT`). Where room is needed for another run's, what was left is no reason to stay.
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

from mlae_lab.runs import probe
from mlae_lab.runs.error_messages import failure_reason
from mlae_lab.runs.store import RunStore

if TYPE_CHECKING:
    from mlae_lab.training.loaded_run import LoadedRun

IDLE_SECONDS = float(os.environ.get("MLAE_LAB_PROBE_IDLE", "300"))
ASKER_SECONDS = 15.0  # a question into which little work has gone is given up so long after its last asker
TAB_SECONDS = 90.0  # a long one counts as waited for until then: a tab in the background asks once a minute
# A long question goes on for so long after its last asker: the longest take minutes, and who has looked at something
# else meanwhile should find them done. What nobody comes back for must end all the same.
LEFT_SECONDS = 600.0
LEFT_KEPT = 3  # long questions that go on with nobody waiting, the newest: each holds caches and takes its time
NESTED = 12  # questions inside each other from which on no left one goes on: each takes a piece of Python's stack
ANSWERS_KEPT = 64
KEEP_SECONDS = 2.0  # an answer that took longer is kept on disk; a question that has taken longer is a long one


class _Abandoned(Exception):
    """Nobody waits for this answer any more."""


@dataclass
class Job:
    """A question under way or answered. named: see `probe.named`; done, total: as it last told; asked: when somebody
    last wanted to know; spent: seconds of work in it, without those of questions that interrupted it; surplus: newer
    ones that were left go on in its place."""

    name: str
    arguments: dict[str, Any]
    named: str = ""
    state: str = "waiting"
    value: dict | None = None
    reason: str = ""
    done: int = 0
    total: int = 0
    asked: float = field(default_factory=time.monotonic)
    spent: float = 0.0
    surplus: bool = False

    def is_asked(self) -> None:
        self.asked, self.surplus = time.monotonic(), False

    @property
    def is_waited_for(self) -> bool:
        return time.monotonic() - self.asked <= TAB_SECONDS

    def told(self) -> dict:
        return {"state": self.state, "value": self.value, "reason": self.reason, "done": self.done, "total": self.total}


class Probe:
    """Jobs, and the one thread that works on them."""

    def __init__(self, store: RunStore, run_id: str) -> None:
        self.store, self.run_id, self.files = store, run_id, store.paths(run_id)
        self.token = secrets.token_hex(16)
        self.signature = probe.signature(self.files)
        self.jobs: OrderedDict[str, Job] = OrderedDict()
        self.waiting: list[Job] = []  # the newest last
        self.under_way: list[Job] = []  # each inside the one before it; only the thread that computes touches it
        self.resumed = 0.0  # since when the last of them computes
        self.changed = threading.Condition()
        self.loaded: LoadedRun | None = None
        self.failure = ""
        self.last = time.monotonic()
        self.leaving = False

    # ------------------------------------------------------------ the thread that computes

    def work(self) -> None:
        """Load, then answer until it is time to leave."""
        try:
            from mlae_lab.training.loaded_run import load_run
            from mlae_lab.training.queries import queries

            self.known = queries()
            config = self.store.run(self.run_id).config
            self.loaded = load_run(config, self.files.adapter, self.run_id, on_chunk=self._must_stay)
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
                or (self.failure and time.monotonic() - self.last > 5)
            ):
                self.leaving = True

    def _must_stay(self) -> None:
        if self.leaving:
            raise _Abandoned

    def _answer(self, job: Job) -> None:
        if self.failure:
            job.state, job.reason = "failed", self.failure
        else:
            job.state = "working"
            began = self.resumed = time.monotonic()
            self.under_way.append(job)
            try:
                self._tell(job, 0, 0)
                assert self.loaded is not None  # else `failure` says why
                value = self.known[job.name](
                    self.loaded, job.arguments, lambda done, total: self._tell(job, done, total)
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
                self.under_way.pop()
        with self.changed:
            self.changed.notify_all()

    def _tell(self, job: Job, done: int, total: int) -> None:
        job.done, job.total = done, total
        job.spent += time.monotonic() - self.resumed
        while True:
            if self.leaving or self._is_given_up(job):
                raise _Abandoned
            with self.changed:
                other = self.waiting.pop() if self.waiting else None
            if other is None:
                break
            self._answer(other)
        self.resumed = time.monotonic()

    def _is_given_up(self, job: Job) -> bool:
        """Whether the last question under way is worth no more work, by the rule at the head of this file."""
        left = sorted((other for other in self.under_way if not other.is_waited_for), key=lambda other: other.asked)
        for old in left[:-LEFT_KEPT]:  # these end when their turn comes, though there may be fewer by then
            old.surplus = True
        away = time.monotonic() - job.asked
        if job.spent < KEEP_SECONDS or len(self.under_way) > NESTED:
            return away > ASKER_SECONDS
        return job in left and (away > LEFT_SECONDS or job.surplus or len(left) < len(self.under_way))

    # ------------------------------------------------------------ the threads that listen

    def ask(self, request: dict) -> dict:
        """The answer to one line."""
        if not secrets.compare_digest(str(request.get("token", "")).encode(), self.token.encode()):
            return {"state": "failed", "reason": "this is not the token of this probe"}
        asked_in = int(request.get("format", 0))
        if asked_in > probe.FORMAT:
            self.leaving = True
        if when := request.get("leave"):
            with self.changed:
                under_way = [job for job in self.jobs.values() if job.state in ("waiting", "working")]
                busy = any(job.is_waited_for or when != "left" for job in under_way)
                self.leaving = self.leaving or (not busy and time.monotonic() - self.last > probe.MAKE_ROOM_SECONDS)
            return {"state": "done", "value": {"leaving": self.leaving}}
        if asked_in < probe.FORMAT:
            # Were it to leave, the older process would start another one that is as new, for ever.
            return {"state": "failed", "reason": "the lab was updated after this page or command started: restart it"}
        if probe.signature(self.files) != self.signature:
            self.leaving = True
        if self.leaving:
            return {"state": "loading", "reason": "the run has changed and is loaded again"}
        self.last = time.monotonic()
        if self.loaded is None and not self.failure:
            return {"state": "loading"}
        name, arguments = str(request["query"]), dict(request["arguments"])
        if not self.failure and name not in self.known:
            return {
                "state": "failed",
                "reason": f"{name!r} is no question: choose from {', '.join(sorted(self.known))}",
            }
        timeout = min(10.0, float(request.get("timeout", 0.0)))
        with self.changed:
            job = self._job(name, arguments)
            self.changed.wait_for(lambda: job.state not in ("waiting", "working") or self.leaving, timeout)
            job.is_asked()
            return job.told()

    def _job(self, name: str, arguments: dict) -> Job:
        named = probe.named(arguments)
        key = probe.canonical(name, arguments) + named
        job = self.jobs.pop(key, None)
        if job is None or job.state in ("failed", "abandoned"):
            job = Job(name, arguments, named)
            self.waiting.append(job)
            self.changed.notify_all()
        job.is_asked()
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

    def __init__(self, asked: Probe) -> None:
        self.probe = asked
        super().__init__(("127.0.0.1", 0), _Line)


def main(arguments: list[str]) -> int:
    store, run_id = RunStore(Path(arguments[0])), arguments[1]
    os.set_inheritable(int(arguments[2]), False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked = Probe(store, run_id)
    with _Server(asked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        probe.announce(asked.files, server.server_address[1], asked.token)
        try:
            asked.work()
        finally:
            with suppress(OSError):
                asked.files.probe_address.unlink()
            server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
