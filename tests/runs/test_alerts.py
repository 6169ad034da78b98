"""Alerts: settings, a real web server and real scripts, what is sent when, and what happens when sending fails."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import uniform
from mlae_lab.core.study import Arm, Study
from mlae_lab.environment import ALERT_COMMAND, ALERT_URL, ALERTS
from mlae_lab.runs import alerts, paths, studies, supervisor
from mlae_lab.runs.alerts import AlertError, Alerts, Watch, configured, last_failure, send
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from tests.lab import measured

MESSAGE = {"event": "test", "text": "Hello"}


class Server(HTTPServer):
    """Keeps what is posted; answers with `status`."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        self.status, self.delay = 200, 0.0
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook/secret-token"


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        self.server.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        time.sleep(self.server.delay)
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def nothing_is_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (ALERT_URL, ALERT_COMMAND, ALERTS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def script(tmp_path: Path, body: str) -> tuple[str, ...]:
    file = tmp_path / "notify.py"
    file.write_text(f"import sys, time\n{body}\n")
    return sys.executable, str(file)


# ---------------------------------------------------------------- settings


def test_settings_come_from_variables_and_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not configured().is_set
    file = tmp_path / "config" / "mlae_lab" / "alerts.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"url": "https://example.org/x", "command": ["a", "b c"], "on": ["failed"], "timeout": 3}')
    file.chmod(0o600)
    assert configured() == Alerts("https://example.org/x", ("a", "b c"), ("failed",), 3.0)
    monkeypatch.setenv(ALERT_COMMAND, "notify --title 'A run; rm -rf /'")
    assert configured().command == ("notify", "--title", "A run; rm -rf /")
    monkeypatch.setenv(ALERT_URL, "http://127.0.0.1:9/secret")
    assert configured().targets == ("web address at 127.0.0.1", "command notify")


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ('{"url": "file:///etc/passwd"}', 0o600, "must begin with http:// or https://"),
        ('{"url": "https://"}', 0o600, "must begin with http"),
        ('{"url": 3}', 0o600, "must begin with http"),
        ('{"command": "rm -rf /"}', 0o600, "must be a list of texts"),
        ('{"on": ["sometimes"]}', 0o600, "it must be a list of finished"),
        ('{"timeout": 0}', 0o600, "must be above 0 and at most 120 s"),
        ('{"colour": 1}', 0o600, "has 'colour': it may have url, command, on and timeout"),
        ("[]", 0o600, "it may have url"),
        ("{", 0o600, "it must be one JSON object"),
        ('{"command": ["x"]}', 0o666, "others can change"),
    ],
)
def test_settings_that_cannot_be_used(
    content: str, mode: int, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "alerts.json"
    file.write_text(content)
    file.chmod(mode)
    monkeypatch.setenv(ALERTS, str(file))
    with pytest.raises(AlertError, match=message):
        configured()


def test_a_named_file_that_is_missing_and_open_quotes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ALERTS, str(tmp_path / "none.json"))
    with pytest.raises(AlertError, match="names a file that cannot be read"):
        configured()
    monkeypatch.delenv(ALERTS)
    monkeypatch.setenv(ALERT_COMMAND, "notify 'open")
    with pytest.raises(AlertError, match="close every quote"):
        configured()


# ---------------------------------------------------------------- sending


def test_address_and_command_get_the_same_json(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "given; touch x"
    command = (*script(tmp_path, "open(sys.argv[1], 'w').write(sys.stdin.read())"), str(file))
    assert send(Alerts(server.url, command), MESSAGE) == []
    assert server.posted == [MESSAGE]
    assert json.loads(file.read_text()) == MESSAGE


@pytest.mark.parametrize(("status", "message"), [(500, "did not accept it (500 "), (302, "answered 302, another")])
def test_an_address_that_refuses(status: int, message: str, server: Server, tmp_path: Path) -> None:
    server.status = status
    file = tmp_path / "given"
    command = (*script(tmp_path, "open(sys.argv[1], 'w').write(sys.stdin.read())"), str(file))
    (error,) = send(Alerts(server.url, command), MESSAGE)
    assert message in error
    assert "secret-token" not in error
    assert file.exists()  # the other target got it


def test_a_slow_address_and_one_that_nobody_answers(server: Server) -> None:
    server.delay = 1.0
    (error,) = send(Alerts(server.url, timeout=0.2), MESSAGE)
    assert "timed out" in error
    (error,) = send(Alerts("http://127.0.0.1:9/secret-token", timeout=2.0), MESSAGE)
    assert error.startswith("127.0.0.1 did not accept it (")
    assert "secret-token" not in error


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit('no network')", "ended with exit status 1: no network"),
        ("time.sleep(30)", "did not end in 0.5 s and was killed"),
        ("import subprocess; subprocess.run(['sleep', '30'])", "did not end in 0.5 s and was killed"),
        ("import subprocess; subprocess.run(['setsid', '-w', 'sleep', '30'])", "did not end in 0.5 s and was killed"),
    ],
)
def test_a_command_that_fails(body: str, message: str, tmp_path: Path) -> None:
    begin = time.monotonic()
    (error,) = send(Alerts(command=script(tmp_path, body), timeout=5.0 if "exit" in body else 0.5), MESSAGE)
    assert message in error
    assert time.monotonic() - begin < 20


def test_a_command_that_does_not_exist() -> None:
    (error,) = send(Alerts(command=("/no/such/program",)), MESSAGE)
    assert "/no/such/program" in error


# ---------------------------------------------------------------- watching


def settled(watch: Watch) -> None:
    """Wait until all alerts are sent."""
    deadline = time.monotonic() + 30
    while watch.is_sending:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def update(watch: Watch) -> None:
    watch.update([run.id for run in watch.store.open_runs()])
    settled(watch)


def test_the_end_of_a_run_is_sent_once(
    store: RunStore, no_supervisor: None, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALERT_URL, server.url)
    watch = Watch(store)
    done, stopped, failed = (store.enqueue(RunConfig("digits", seed=seed), "cpu") for seed in range(3))
    update(watch)
    assert set(json.loads(paths.watched(store.folder).read_text())) == {done.id, stopped.id, failed.id}
    measured(store, done, 91.5)
    store.annotate(done.id, "The good one")
    store.move(stopped.id, Status.STOPPED)  # by a person, who knows
    store.move(failed.id, Status.FAILED, "it diverged at step 3")
    update(watch)
    update(watch)
    by_run = {message["run"]: message for message in server.posted}
    assert len(server.posted) == 2
    assert by_run[done.id]["text"] == (f"Run The good one ({done.id}), Digits, dense mask: finished, 91.5 % on val")
    assert (by_run[done.id]["event"], by_run[done.id]["accuracy"]) == ("run", 91.5)
    assert by_run[failed.id]["text"].endswith("failed: it diverged at step 3")
    assert not paths.watched(store.folder).exists()


def test_a_study_is_sent_once_and_its_finished_runs_are_not(
    store: RunStore, no_supervisor: None, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALERT_URL, server.url)
    arms = tuple(
        Arm(f"p = {p}", (("drop_rate", str(p)),), RunConfig("digits", uniform(p), epochs=2)) for p in (0.2, 0.5)
    )
    stored = studies.new(store, Study("Which p?", arms, (0, 1)))
    watch = Watch(store)
    update(watch)
    runs = store.open_runs()
    for number, run in enumerate(runs):
        measured(store, run, 50.0 + number, status=Status.FINISHED if number else Status.FAILED)
        update(watch)
    assert [(message["event"], message.get("status")) for message in server.posted] == [
        ("run", "failed"), ("study", None),
    ]  # fmt: skip
    sent = server.posted[1]
    assert (sent["study"], sent["title"], sent["done"], sent["runs"]) == (stored.id, "Which p?", 4, 4)
    assert sent["verdict"] in sent["text"]


def test_a_study_whose_runs_are_still_being_enqueued_has_not_ended(
    store: RunStore, no_supervisor: None, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALERT_URL, server.url)
    config = RunConfig("digits", uniform(0.5), epochs=2)
    stored = store.add_study(Study("Two seeds", (Arm("one", (), config),), (0, 1)))
    watch = Watch(store)
    for seed in (0, 1):
        run = store.enqueue(RunConfig("digits", uniform(0.5), epochs=2, seed=seed), "cpu")
        store.set_study_cells(stored.id, {("one", seed): run.id})
        update(watch)
        measured(store, run, 50.0)
        update(watch)
        assert len(server.posted) == seed


def test_an_end_while_no_supervisor_was_alive_is_sent_later(
    store: RunStore, no_supervisor: None, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALERT_URL, server.url)
    run = store.enqueue(RunConfig("digits"), "cpu")
    update(Watch(store))  # then it is killed
    measured(store, run, 60.0)
    assert server.posted == []
    update(Watch(store))
    assert [message["run"] for message in server.posted] == [run.id]


def test_a_failure_is_kept_until_an_alert_is_sent(
    store: RunStore, no_supervisor: None, server: Server, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv(ALERT_URL, server.url)
    server.status = 500
    watch = Watch(store)
    for seed in range(2):
        run = store.enqueue(RunConfig("digits", seed=seed), "cpu")
        update(watch)
        measured(store, run, 60.0)
        update(watch)
        failure = last_failure(store)
        if seed == 0:
            assert failure is not None
            assert failure.text.startswith(f"The alert for run {run.id} could not be sent: 127.0.0.1 did not accept it")
            assert failure.text in capsys.readouterr().out
            server.status = 200
        else:
            assert failure is None


def test_settings_that_cannot_be_used_are_reported_once_and_stop_nothing(
    store: RunStore, no_supervisor: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ALERT_URL, "gopher://x")
    watch = Watch(store)
    for seed in range(3):
        store.enqueue(RunConfig("digits", seed=seed), "cpu")
        update(watch)
    assert capsys.readouterr().out.count("No alerts are sent: the url of alerts must begin with") == 1
    failure = last_failure(store)
    assert failure is not None
    assert "No alerts are sent" in failure.text
    assert not paths.watched(store.folder).exists()


def test_a_supervisor_process_sends_the_alerts(
    lab_store: RunStore, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its own process, which `ensure` starts although no run is open any more."""
    monkeypatch.setenv(ALERT_URL, server.url)
    run = lab_store.enqueue(RunConfig("digits"), "cpu")
    update(Watch(lab_store))
    measured(lab_store, run, 60.0)
    supervisor.ensure(lab_store)
    deadline = time.monotonic() + 60
    while not server.posted or paths.watched(lab_store.folder).exists():
        assert time.monotonic() < deadline, paths.supervisor_log(lab_store.folder).read_text()
        time.sleep(0.05)
    assert [message["run"] for message in server.posted] == [run.id]
    assert alerts.last_failure(lab_store) is None
