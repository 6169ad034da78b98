"""Alerts: a web address or a command receives a message when a run or a study ends. The store's supervisor sends them.

Configured on the machine only, by environment variables or a file of the user; no browser and no store can set them:

    MLAE_LAB_ALERT_URL      receives a POST with JSON
    MLAE_LAB_ALERT_COMMAND  words as in a shell, but no shell reads them; the JSON is its standard input
    MLAE_LAB_ALERTS         a settings file, by default ~/.config/mlae_lab/alerts.json, with any of
                            {"url": "https://...", "command": ["notify", "--quiet"], "timeout": 10,
                             "on": ["finished", "failed", "lost", "study"]}

A variable takes precedence over the file. What is watched and not yet sent is kept in a file of the store, so an alert
survives the end of the supervisor; it may then be sent twice.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from mlae_lab.core import bounded_json, catalog
from mlae_lab.core.sanitize import one_line, readable
from mlae_lab.environment import ALERT_COMMAND, ALERT_URL, ALERTS, expanded, folder
from mlae_lab.errors import LabError
from mlae_lab.files import write_whole
from mlae_lab.runs import outcomes, paths
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore

TIMEOUT, LONGEST = 10.0, 120.0  # seconds for one request or command
ENDS = tuple(status.value for status in Status if status.is_over)
STUDY = "study"
DEFAULT_ON = ("finished", "failed", "lost", STUDY)
_OUTPUT = 2_000  # bytes of a command's output that a failure quotes
_SHOWN_SECONDS = 7 * 86_400.0  # a failure is shown for so long


class AlertError(LabError):
    """Settings of alerts that cannot be used, or an alert that could not be sent."""


# ---------------------------------------------------------------- settings


@dataclass(frozen=True)
class Alerts:
    """Where alerts go.

    Attributes:
        url: Of a web address, "" for none.
        command: Program and arguments, () for none.
        on: Final statuses of runs, and "study".
        timeout: Seconds for one request or command.
    """

    url: str = ""
    command: tuple[str, ...] = ()
    on: tuple[str, ...] = DEFAULT_ON
    timeout: float = TIMEOUT

    @property
    def is_set(self) -> bool:
        return bool(self.url or self.command)

    @property
    def targets(self) -> tuple[str, ...]:
        """Where alerts go, without what may be secret: the host of the address, the name of the program."""
        address = (f"web address at {urlsplit(self.url).hostname}",) if self.url else ()
        return (*address, *((f"command {self.command[0]}",) if self.command else ()))


def settings_file() -> Path:
    """The settings file, whether it exists or not. Raises LabError for `~name` of an unknown user."""
    if named := os.environ.get(ALERTS):
        return expanded(Path(named), ALERTS, "file")
    base = folder("XDG_CONFIG_HOME")
    return (base or Path.home() / ".config") / "mlae_lab" / "alerts.json"


def configured() -> Alerts:
    """The settings of this machine. Raises AlertError for settings that cannot be used."""
    data = _from_file()
    if url := os.environ.get(ALERT_URL, "").strip():
        data["url"] = url
    if words := os.environ.get(ALERT_COMMAND, "").strip():
        try:
            data["command"] = shlex.split(words)
        except ValueError as error:
            raise AlertError(f"{ALERT_COMMAND} cannot be split into words ({error}): close every quote") from None
    return _checked(data)


def _from_file() -> dict[str, Any]:
    try:
        file = settings_file()
        state = file.stat()
    except (OSError, RuntimeError) as error:  # no such file, or no home folder
        if os.environ.get(ALERTS):
            raise AlertError(f"{ALERTS} names a file that cannot be read ({error}): name the settings file") from None
        return {}
    if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or state.st_uid not in (0, os.geteuid()):
        raise AlertError(f"others can change {file}, which names a program to start: make it yours, with mode 600")
    try:
        data = bounded_json.parsed(file.read_bytes())
    except (OSError, ValueError) as error:
        raise AlertError(f"{file} cannot be read ({str(error)[:200]}): it must be one JSON object") from None
    unknown = set(data) - {"url", "command", "on", "timeout"} if isinstance(data, dict) else {"no object"}
    if unknown:
        raise AlertError(f"{file} has {min(map(str, unknown))[:60]!r}: it may have url, command, on and timeout")
    return data


def _checked(data: dict[str, Any]) -> Alerts:
    url, command = data.get("url", ""), data.get("command", [])
    on, timeout = data.get("on", list(DEFAULT_ON)), data.get("timeout", TIMEOUT)
    if not isinstance(url, str) or (url and not _is_address(url)):
        raise AlertError("the url of alerts must begin with http:// or https:// and name a host")
    if not isinstance(command, list) or not all(isinstance(word, str) and "\0" not in word for word in command):
        raise AlertError('the command of alerts must be a list of texts, such as ["notify", "--quiet"]')
    if not isinstance(on, list) or not set(map(str, on)) <= {*ENDS, STUDY}:
        raise AlertError(f"on is {str(on)[:60]}: it must be a list of {', '.join(ENDS)} and {STUDY}")
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or not 0 < timeout <= LONGEST:
        raise AlertError(f"the timeout of alerts is {str(timeout)[:60]}: it must be above 0 and at most {LONGEST:g} s")
    return Alerts(url, tuple(command), tuple(map(str, on)), float(timeout))


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable() and " " not in url
    except ValueError:
        return False


# ---------------------------------------------------------------- what an alert says


def message_of_run(store: RunStore, run: Run) -> dict[str, Any]:
    """What is sent when a run has ended; `text` is a sentence, which chat services show."""
    accuracy, config = outcomes.accuracy(store, run), run.config
    reached = f", {accuracy:.1f} % on {config.protocol}" if accuracy is not None else ""
    why = f": {run.reason}" if run.reason and run.status is not Status.FINISHED else ""
    name = f"{run.name} ({run.id})" if run.name else run.id
    text = f"Run {name}, {catalog.task(config.task).title}, {config.what}: {run.status.value}{reached}{why}"
    return {
        "event": "run", "text": one_line(text), "run": run.id, "name": run.name or None, "status": run.status.value,
        "reason": run.reason or None, "task": config.task, "method": config.method, "seed": config.seed,
        "accuracy": accuracy, "protocol": config.protocol, "tags": list(run.tags),
        "studies": store.studies_of(run.id), "started": run.started, "ended": run.ended, "store": str(store.folder),
    }  # fmt: skip


def message_of_study(store: RunStore, name: str) -> dict[str, Any]:
    """What is sent when the last run of a study has ended."""
    from mlae_lab.runs import studies, study_results  # import scipy, which takes a second, and the supervisor

    state = studies.state(store, name)
    verdict = study_results.results(store, state).verdict
    title, total = state.stored.study.title, len(state.cells)
    text = f"Study {title}: {state.done} of {total} runs are done. {verdict}"
    return {
        "event": STUDY, "text": one_line(text), "study": name, "title": title, "done": state.done, "runs": total,
        "counts": state.counts, "verdict": verdict, "store": str(store.folder),
    }  # fmt: skip


# ---------------------------------------------------------------- sending


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET without the message."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> NoReturn:
        raise AlertError(f"the address answered {code}, another address: configure that one")


def send(alerts: Alerts, message: dict[str, Any]) -> list[str]:
    """Send a message to each target. Returns what went wrong, a clause for each target that failed."""
    errors = []
    targets: tuple[tuple[bool, Callable[[Alerts, bytes], None]], ...] = (
        (bool(alerts.url), _post), (bool(alerts.command), _run),
    )  # fmt: skip
    content = json.dumps(message).encode()
    for wanted, deliver in targets:
        if not wanted:
            continue
        try:
            deliver(alerts, content)
        except (OSError, ValueError, LabError, subprocess.SubprocessError) as error:
            errors.append(readable(str(error) or type(error).__name__))
    return errors


def _post(alerts: Alerts, content: bytes) -> None:
    request = urllib.request.Request(
        alerts.url, content, {"Content-Type": "application/json", "User-Agent": "mlae-lab"}, method="POST"
    )
    host = urlsplit(alerts.url).hostname  # never the whole address, which may hold a token
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=alerts.timeout):
            pass
    except AlertError:
        raise
    except OSError as error:  # URLError and HTTPError are
        reason = getattr(error, "reason", None) or error
        code = f"{error.code} " if isinstance(getattr(error, "code", None), int) else ""  # pyright: ignore[reportAttributeAccessIssue]
        raise AlertError(f"{host} did not accept it ({code}{reason})") from None


def _run(alerts: Alerts, content: bytes) -> None:
    # files, not pipes: a process that it leaves behind would keep a pipe open
    with tempfile.TemporaryFile() as message, tempfile.TemporaryFile() as written:
        message.write(content)
        message.seek(0)
        process = subprocess.Popen(
            alerts.command, stdin=message, stdout=written, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(timeout=alerts.timeout)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)  # with the processes that it started
            process.wait()
            raise AlertError(f"{alerts.command[0]} did not end in {alerts.timeout:g} s and was killed") from None
        written.seek(max(0, written.seek(0, os.SEEK_END) - _OUTPUT))
        output = written.read()
    if process.returncode:
        text = output.decode(errors="replace").strip()
        raise AlertError(f"{alerts.command[0]} ended with exit status {process.returncode}: {text or 'no output'}")


# ---------------------------------------------------------------- failures


@dataclass(frozen=True)
class Failure:
    """The last alert that could not be sent. time: seconds since 1970; text: a sentence."""

    time: float
    text: str


def last_failure(store: RunStore) -> Failure | None:
    """The last failure that no later alert has followed, None if there is none of the last days."""
    try:
        data = json.loads(paths.alert_failure(store.folder).read_bytes()[:20_000])
        failure = Failure(float(data["time"]), readable(str(data["text"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return failure if time.time() - failure.time < _SHOWN_SECONDS else None


def _record(store: RunStore, text: str) -> None:
    """Keep a failure for the pages and print it into the log of the supervisor; "" removes the last one."""
    with suppress(OSError):
        if text:
            print(text, flush=True)
            write_whole(paths.alert_failure(store.folder), json.dumps({"time": time.time(), "text": text}), sync=False)
        else:
            paths.alert_failure(store.folder).unlink(missing_ok=True)


# ---------------------------------------------------------------- watching


class Watch:
    """Which runs and studies are open, and the thread that sends alerts of those that have ended.

    The thread sends one after the other, so that a slow address delays no run. `update` is called by the supervisor.
    """

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self.runs: frozenset[str] | None = None  # that are not over
        self.open: frozenset[str] = frozenset()  # these, and the studies with one of them
        self.pending: dict[str, bool] = {}  # ids that are watched or not yet sent; True for a study
        self.queue: list[str] = []
        self.changed = threading.Condition()
        self.thread: threading.Thread | None = None
        self.problem = ""

    def update(self, open_runs: Collection[str]) -> None:
        """Take note of the runs that are not over; those that are over since the last call have ended."""
        runs = frozenset(open_runs)
        if runs == self.runs:
            return
        alerts = self._settings()
        with self.changed:
            if alerts is None:
                self.pending, self.queue = {}, []
            else:
                self._take(runs)
            self.runs = runs
            self._write()

    @property
    def is_sending(self) -> bool:
        """Whether an alert is still to be sent."""
        return self.thread is not None and self.thread.is_alive()

    def _take(self, runs: frozenset[str]) -> None:
        if self.runs is None:
            self.pending = self._read()  # of a supervisor that was killed
        studies = {name for run, names in self.store.studies_by_run().items() if run in runs for name in names}
        self.open = runs | studies
        for name in [name for name in self.pending if name not in self.open and name not in self.queue]:
            if self.pending[name] and not self._is_complete(name):
                del self.pending[name]  # it is watched again with its next run
            else:
                self.queue.append(name)
        self.pending |= dict.fromkeys(runs, False) | dict.fromkeys(studies, True)
        if self.queue and not self.is_sending:
            self.thread = threading.Thread(target=self._send_all, daemon=True)
            self.thread.start()

    def _settings(self) -> Alerts | None:
        """The settings, None without any; settings that cannot be used are reported once."""
        try:
            alerts, problem = configured(), ""
        except LabError as error:
            alerts, problem = Alerts(), f"No alerts are sent: {error}."
        if problem and problem != self.problem:
            _record(self.store, problem)
        self.problem = problem
        return alerts if alerts.is_set else None

    def _is_complete(self, study: str) -> bool:
        """Whether a study has all its runs, or was stopped: its first run may end before its last is enqueued."""
        try:
            stored = self.store.study(study)
        except LabError:  # deleted, or damaged
            return True
        return stored.halted or len(self.store.study_cells(study)) >= stored.study.runs

    def _send_all(self) -> None:
        while True:
            with self.changed:
                if not self.queue:
                    self.thread = None  # under the lock: `update` starts another one
                    return
                name = self.queue[0]
            try:
                text = self._send(name, self.pending.get(name, False))
            except Exception as error:  # whatever a damaged run or study raises must not end the thread
                text = f"The alert for {name} could not be made: {readable(str(error) or type(error).__name__)}."
            if text is not None:
                _record(self.store, text)
            with self.changed:
                self.queue = self.queue[1:]
                if name not in self.open:
                    self.pending.pop(name, None)
                self._write()

    def _send(self, name: str, is_study: bool) -> str | None:
        """Send the alert for a run or a study. Returns a sentence if it failed, "" if not, None if none was due."""
        alerts = configured()
        if is_study:
            wanted = STUDY in alerts.on and name in {stored.id for stored in self.store.studies()}
            message = message_of_study(self.store, name) if wanted else None
        else:
            message = None
            if self.store.holds(name):
                run = self.store.run(name)
                is_part = run.status is Status.FINISHED and bool(self.store.studies_of(name))  # its study alerts
                if run.status.value in alerts.on and not (is_part and STUDY in alerts.on):
                    message = message_of_run(self.store, run)
        if message is None:
            return None
        errors = send(alerts, message)
        what = f"{'study' if is_study else 'run'} {name}"
        return f"The alert for {what} could not be sent: {'; '.join(errors)}." if errors else ""

    def _read(self) -> dict[str, bool]:
        try:
            data = json.loads(paths.watched(self.store.folder).read_bytes())
            return {str(name): kind == STUDY for name, kind in data.items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def _write(self) -> None:
        content = {name: STUDY if is_study else "run" for name, is_study in self.pending.items()}
        with suppress(OSError):  # a full disk: alerts of this supervisor are still sent
            if content:
                write_whole(paths.watched(self.store.folder), json.dumps(content), sync=False)
            else:
                paths.watched(self.store.folder).unlink(missing_ok=True)
