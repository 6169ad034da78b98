"""Helpers of the tests: make stores and runs, open the app, start processes. torch is imported where it is used."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlae_lab import locks
from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import allocation, uniform
from mlae_lab.locations import PACKAGE, PAGES
from mlae_lab.runs import devices, paths, probe, probe_worker, supervisor, worker
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, Run, RunStore

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

_TERM = re.compile(
    r'<span class="lab-kept"><button type="button" class="lab-term"[^>]*>(.*?)</button>([^<]*)</span>'
    r'|<button type="button" class="lab-term"[^>]*>(.*?)</button>'
)

# ---------------------------------------------------------------- runs that are only records


def step(number: int, loss: float = 1.0) -> ev.TrainStep:
    """A training step of epoch 1."""
    return ev.TrainStep(number, 1, loss, 50.0, 1e-3, 48, 0.1)


def under_way(store: RunStore, status: Status = Status.RUNNING, pid: int | None = 1, slot: str = "cpu") -> Run:
    """A run with this status on a device, without a process."""
    run = store.enqueue(RunConfig("digits", uniform(0.5)), slot.partition(":")[0]).id
    assert store.claim(run, slot)
    if pid is not None:
        store.began(run, pid)
    store.move(run, status)
    return store.run(run)


def to_schema_5(db: sqlite3.Connection) -> None:
    """Undo the changes of schemas 6 to 9 to the tables, not to the names of events."""
    for name in ("name", "notes", "tags", "mask_name"):
        db.execute(f"ALTER TABLE runs DROP COLUMN {name}")
    for name in ("study_runs", "study_versions", "studies", "lesson_predictions"):
        db.execute(f"DROP TABLE {name}")
    db.execute("ALTER TABLE runs RENAME COLUMN position TO place")
    db.execute("ALTER TABLE runs DROP COLUMN dataset")


@contextmanager
def held(store: RunStore, run: str) -> Iterator[int]:
    """Hold a run's lock, as its process would; yields the file descriptor."""
    lock = locks.take(store.paths(run).lock)
    assert lock is not None
    try:
        yield lock
    finally:
        os.close(lock)


def measured(store: RunStore, run: Run, *accuracies: float, status: Status = Status.FINISHED, weights: str = "") -> Run:
    """Give a queued run on 800 images these accuracies after epochs 2, 4, ..., and this status."""
    started = ev.Started(1, 1, 1, 800, 200, 52, "cpu", "float32", 0.1, weights=weights)
    evaluations = [ev.Evaluation(2 * i, 26 * i, run.config.protocol, a, 1.0, 1.0) for i, a in enumerate(accuracies, 1)]
    store.append(run.id, [started, *evaluations])
    store.move(run.id, status)
    return store.run(run.id)


# ---------------------------------------------------------------- runs that are trained


@cache
def few_images() -> Path:
    """A folder with 200 images to train on and 20 each of val and test, in two classes; removed at exit.

    An epoch on it takes a quarter of the time of one on the digits.
    """
    from tests.data.trees import make_own

    folder = Path(tempfile.mkdtemp(prefix="few"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for split, count in (("train", 100), ("val", 10), ("test", 10)):
        make_own(folder / split, {"owl": count, "wren": count}, (".png",))
    return folder


def small_config() -> RunConfig:
    """One epoch on the digits. The lower ten blocks have no experts, so it takes a second."""
    return RunConfig(
        "digits", allocation((0,) * 10 + (3, 2), drop_rate=0.3), backbone="lab_vit_12x128.random", epochs=1,
        device="cpu", precision="float32", learning_rate=5e-3,
    )  # fmt: skip


def finished_run(folder: Path) -> tuple[RunStore, str]:
    """A new store with one small finished run; the store and the id of the run."""
    store = RunStore(folder)
    return store, finished(store, small_config())


def finished(store: RunStore, config: RunConfig, origin: Origin | None = None) -> str:
    """Train a run in this process and add it to a store as finished, with its adapter; return its id."""
    from mlae_lab.model.adapter_file import save_adapter
    from mlae_lab.training.setup import prepare
    from mlae_lab.training.trainer import fit

    setup = prepare(config)
    events = list(fit(setup))  # before it is queued, where a supervisor might start it
    run = store.enqueue(config, device="cpu", origin=origin or Origin())
    store.append(run.id, events)
    store.move(run.id, Status.FINISHED)
    files = store.paths(run.id)
    files.folder.mkdir(parents=True, exist_ok=True)
    save_adapter(files.adapter, setup.experts, setup.head, config.backbone, config.task)
    return run.id


def train_queued(store: RunStore) -> None:
    """Train every queued run to its end, as the supervisor does, but in this process: others would load torch first."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        while queue := store.queue():
            run = queue[0]
            assert store.claim(run.id, next(iter(devices.slots(run.device))))
            log = store.paths(run.id).log
            with held(store, run.id) as lock, log.open("a") as file, redirect_stdout(file), redirect_stderr(file):
                worker.main([str(store.folder), run.id, str(lock)])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def processes_of(module: str, part: str) -> list[int]:
    """The ids of the processes of a module that are not zombies. part: of one of their arguments."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if module.encode() in arguments and any(part.encode() in argument for argument in arguments) and state != "Z":
            pids.append(int(entry.name))
    return pids


def probes_of(run_id: str) -> list[int]:
    """The process ids of the probes of a run, also of those that are starting."""
    return processes_of("mlae_lab.runs.probe_worker", run_id)


_local_probes: dict[Path, tuple[probe_worker.Probe, threading.Thread]] = {}  # by the folder of their run


def start_probe_here(store: RunStore, files: paths.RunPaths) -> None:
    """Start the probe of a run in threads of this process, which has torch loaded; else like `probe._start`."""
    lock = locks.take(files.probe_lock)
    assert lock is not None
    process = probe_worker.Probe(store, files.run)
    server = probe_worker._Server(process)

    def work() -> None:
        process.work()
        files.probe_address.unlink(missing_ok=True)
        server.shutdown()
        server.server_close()
        os.close(lock)

    files.probe_address.unlink(missing_ok=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    probe.announce(files, server.server_address[1], process.token)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    _local_probes[files.folder] = process, thread


def end_probe(store: RunStore, run_id: str) -> None:
    """End the probe of a run, if there is one: kill its process, or wait for its threads."""
    if local := _local_probes.pop(store.paths(run_id).folder, None):
        process, thread = local
        with process.changed:
            process.leaving = True
            process.changed.notify_all()
        thread.join(timeout=60)
    for pid in probes_of(run_id):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while locks.held(store.paths(run_id).probe_lock):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def make_read_only(folder: Path) -> None:
    """Remove the write permission of a folder and of everything in it."""
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    folder.chmod(0o555)


def clear(store: RunStore) -> None:
    """Kill every active run of a store and its supervisor."""
    deadline = time.monotonic() + 60
    while True:
        for run in store.open_runs():
            supervisor.end_at_once(store, run.id)
            store.move(run.id, Status.STOPPED, "the test is over")
        for child in supervisor._children:
            child.kill()
            child.wait(timeout=30)
        if not supervisor.is_supervised(store) and not store.open_runs():
            return
        assert time.monotonic() < deadline, paths.supervisor_log(store.folder).read_text()
        time.sleep(0.1)


# ---------------------------------------------------------------- the app and the command line


@cache
def _scan_packages_once() -> None:
    """Streamlit looks through all installed packages for components whenever a test opens the app: 90 % of its time."""
    from streamlit.components.v2 import manifest_scanner

    manifest_scanner.scan_component_manifests = cache(manifest_scanner.scan_component_manifests)


def _session(state: Mapping[str, object], secrets: Mapping[str, object]) -> AppTest:
    from streamlit.testing.v1 import AppTest

    _scan_packages_once()
    at = AppTest.from_file(str(PACKAGE / "app.py"), default_timeout=60)
    for name, value in state.items():
        at.session_state[name] = value
    for name, value in secrets.items():
        at.secrets[name] = value
    return at.run()


def open_app(state: Mapping[str, object] = {}, secrets: Mapping[str, object] = {}) -> AppTest:
    """The home page in a new session. state: initial session state; its visitor_id identifies the browser."""
    at = _session(state, secrets)
    assert not at.exception
    return at


def open_page(page: str, state: Mapping[str, object] = {}, **query: str) -> AppTest:
    """A page in a new session without cached queries. query: parameters of its address."""
    from mlae_lab.ui import queries

    queries.refresh()
    at = _session(state, {})  # some pages open where the home page cannot
    at.switch_page(str(PAGES / f"{page}.py"))
    for name, value in query.items():
        at.query_params[name] = value
    at.run()
    assert not at.exception
    return at


def html(at: AppTest) -> str:
    """The HTML of a page and of the sidebar, without the buttons and the definitions of technical words."""
    bodies = (element.proto.body for element in at.get("html"))
    return " ".join(
        _TERM.sub(lambda m: (m[1] or m[3]) + (m[2] or ""), body)
        for body in bodies
        if 'class="lab-definition"' not in body
    )


def figures(at: AppTest) -> dict[str, str]:
    """The figures on a page: name and alternative text."""
    data = [json.loads(element.proto.json or "{}") for element in at.main.get("bidi_component")]
    return {entry["name"]: entry["alt"] for entry in data if "alt" in entry}


def printed_json(capsys: pytest.CaptureFixture[str]) -> dict:
    """The JSON object on the last line of standard output."""
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return json.loads(out.splitlines()[-1])


def processes(root: Path, script: str, arguments: list[list[str]]) -> list[str]:
    """Run a script in several processes at once and return their outputs; fails if any of them fails.

    Args:
        root: The repository.
        script: Python code.
        arguments: One list for each process.
    """
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, *words],
            env={**os.environ, "PYTHONPATH": str(root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for words in arguments
    ]
    try:
        outputs = [process.communicate(timeout=60) for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()
    for process, (_, error) in zip(started, outputs, strict=True):
        assert process.returncode == 0, error
    return [out for out, _ in outputs]
