"""Probes: real processes, on a real run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from mlae_lab import locks
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation
from mlae_lab.core.patterns import pattern
from mlae_lab.model.adapter_file import save_adapter
from mlae_lab.runs import probe, probe_worker
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from mlae_lab.training.setup import prepare
from tests.lab import end_probe, few_images, finished, probes_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunStore, str]]:
    """A store with one finished run of one epoch; no probe of it outlives the tests."""
    store = RunStore(tmp_path_factory.mktemp("probed"))
    config = RunConfig(
        "own:few", pattern("uniform", "stochastic", 0.5), backbone="lab_vit_12x128.random", epochs=1, device="cpu",
        data=str(few_images()),
    )  # fmt: skip
    yield store, finished(store, config)
    for other in store.runs():
        end_probe(store, other.id)


@pytest.fixture(autouse=True)
def no_kept_answer(trained: tuple[RunStore, str]) -> None:
    """On a busy machine even a short answer takes long enough to be kept, and would be given without a probe."""
    store, run = trained
    shutil.rmtree(store.paths(run).answers, ignore_errors=True)


def test_the_answer_equals_the_result_of_the_run(trained: tuple[RunStore, str]) -> None:
    store, run = trained
    answer = probe.wait(store, run, "about")
    assert answer.state == "done", answer.reason
    assert answer.value["accuracy"] == store.last(run, Evaluation).accuracy
    assert answer.value["images"] == 20


def test_concurrent_queries_share_one_process(trained: tuple[RunStore, str]) -> None:
    store, run = trained
    end_probe(store, run)
    answers: list[probe.Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(probe.wait(store, run, "about"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.state for answer in answers} == {"done"}
    assert len({json.dumps(a.value) for a in answers}) == 1
    assert len(probes_of(run)) == 1


def test_a_killed_probe_is_started_again(trained: tuple[RunStore, str]) -> None:
    store, run = trained
    probe.wait(store, run, "about")
    before = probes_of(run)
    os.kill(before[0], signal.SIGKILL)
    answer = probe.wait(store, run, "about")
    assert answer.state == "done"
    assert probes_of(run)
    assert probes_of(run) != before


def test_a_probe_that_is_killed_repeatedly_fails_with_a_reason(trained: tuple[RunStore, str]) -> None:
    """As when memory runs out: the system kills it before it answers."""
    store, run = trained
    end_probe(store, run)
    over, killed = threading.Event(), set()

    def out_of_memory() -> None:
        while not over.wait(0.02):
            for pid in probes_of(run):
                if store.paths(run).probe_address.exists() and pid not in killed:
                    killed.add(pid)
                    os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=out_of_memory)
    killer.start()
    try:
        answer = probe.wait(store, run, "about")
    finally:
        over.set()
        killer.join()
    assert answer.state == "failed"
    assert "was killed 3 times before it could answer" in answer.reason
    assert probe.wait(store, run, "about").state == "done"  # a second request tries again


@pytest.mark.parametrize(("program", "state"), [("true", "done"), ("false", "done"), ("kill -9 $$", "failed")])
def test_only_killed_probes_count_as_killed(program: str, state: str, trained: tuple[RunStore, str]) -> None:
    """Not those that exited for another run, nor those whose log has an error."""
    store, run = trained
    end_probe(store, run)
    children = [subprocess.Popen(["sh", "-c", program]) for _ in range(3)]
    for child in children:
        child.wait()
    probe._begun[store.paths(run).folder] = [(time.monotonic(), child) for child in children]
    assert probe.wait(store, run, "about").state == state


def test_a_changed_adapter_is_loaded_again(trained: tuple[RunStore, str]) -> None:
    store, run = trained
    first = probe.wait(store, run, "about").value
    files = store.paths(run)
    before = files.adapter.read_bytes()
    setup = prepare(store.run(run).config)  # as before the first step
    save_adapter(files.adapter, setup.experts, setup.head, "lab_vit_12x128.random", "own:few")
    try:
        second = probe.wait(store, run, "about").value
    finally:
        files.adapter.write_bytes(before)
    assert second["loss"] != first["loss"]
    assert probe.wait(store, run, "about").value == first


# Probes of earlier versions, whose answers lack newer fields; the first versions had no format.
OLDER = """
import sys
from mlae_lab.runs import probe, probe_worker
from mlae_lab.training import queries
queries.queries = lambda: {"about": lambda *_: {"of": "an older version"}}
probe.MAKE_ROOM_SECONDS = 0.2
"""
KNOWS_FORMATS = "probe.FORMAT -= 1\n"
KNOWS_NONE = """
import json
probe.FORMAT = 0
answer = probe_worker.Probe.ask
probe_worker.Probe.ask = lambda self, request: answer(self, {k: v for k, v in request.items() if k != "format"})
def announce(files, port, token):
    partial = files.probe_address.with_suffix(".part")
    partial.write_text(json.dumps({"port": port, "token": token}))
    partial.replace(files.probe_address)
probe.announce = announce
"""


@pytest.mark.parametrize("lab", [KNOWS_FORMATS, KNOWS_NONE])
def test_a_probe_of_an_older_version_exits_and_a_new_one_answers(
    lab: str, trained: tuple[RunStore, str], wait_for: Callable
) -> None:
    store, run = trained
    files = store.paths(run)
    end_probe(store, run)
    files.probe_address.unlink(missing_ok=True)
    shutil.rmtree(files.answers, ignore_errors=True)  # on a slow machine this one may be cached
    lock = locks.take(files.probe_lock)
    code = OLDER + lab + "probe_worker.main(sys.argv[2:])"
    words = [sys.executable, "-c", code, "mlae_lab.runs.probe_worker", str(store.folder), run, str(lock)]
    older = subprocess.Popen(words, pass_fds=(lock,), cwd=Path(__file__).parents[2])
    os.close(lock)
    wait_for(files.probe_address.exists)
    answer = probe.wait(store, run, "about")
    assert answer.state == "done"
    assert answer.value["accuracy"] == store.last(run, Evaluation).accuracy
    assert older.wait(10) == 0
    assert len(probes_of(run)) == 1


@pytest.mark.parametrize("name", ["no_such", "../about", ""])
def test_an_unknown_query_is_one_sentence(name: str, trained: tuple[RunStore, str]) -> None:
    store, run = trained
    answer = probe.wait(store, run, name)
    assert answer.state == "failed"
    assert "is not a query: choose from about" in answer.reason


def test_a_request_without_the_token_is_refused(trained: tuple[RunStore, str]) -> None:
    store, run = trained
    probe.wait(store, run, "about")
    files = store.paths(run)
    assert files.probe_address.stat().st_mode & 0o077 == 0
    port = json.loads(files.probe_address.read_text())["port"]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
        wire.sendall(b'{"token": "x", "query": "about", "arguments": {}}\n')
        reply = json.loads(wire.makefile("rb").readline())
    assert reply["state"] == "failed"
    assert "value" not in reply
    with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
        wire.sendall(b"\xff not json\n")
        assert wire.makefile("rb").readline() == b""
    assert probe.wait(store, run, "about").state == "done"


def test_a_run_that_cannot_be_queried_gives_the_reason(lab_store: RunStore) -> None:
    run = lab_store.enqueue(RunConfig("digits"), device="cpu")
    assert "can be analysed when it is over" in probe.ask(lab_store, run.id, "about").reason
    lab_store.move(run.id, Status.STOPPED, "cancelled")
    assert "has no adapter" in probe.ask(lab_store, run.id, "about").reason
    files = lab_store.paths(run.id)
    files.folder.mkdir(parents=True, exist_ok=True)
    files.adapter.write_bytes(b"half a file")
    answer = probe.wait(lab_store, run.id, "about")
    assert answer.state == "failed"
    assert "is not a readable safetensors file" in answer.reason
    end_probe(lab_store, run.id)


def test_an_idle_probe_exits(
    trained: tuple[RunStore, str], monkeypatch: pytest.MonkeyPatch, wait_for: Callable
) -> None:
    store, run = trained
    end_probe(store, run)
    monkeypatch.setenv("MLAE_LAB_PROBE_IDLE", "0.5")
    probe.wait(store, run, "about")
    wait_for(lambda: not locks.held(store.paths(run).probe_lock))
    assert not store.paths(run).probe_address.exists()


def test_a_fifth_probe_waits_until_one_is_idle(
    trained: tuple[RunStore, str], monkeypatch: pytest.MonkeyPatch, wait_for: Callable
) -> None:
    store, run = trained
    probe.wait(store, run, "about")
    monkeypatch.setattr(probe, "PROBES", 1)
    other = store.enqueue(store.run(run).config, device="cpu")
    store.move(other.id, Status.FINISHED)
    store.paths(other.id).folder.mkdir(parents=True, exist_ok=True)
    store.paths(other.id).adapter.write_bytes(store.paths(run).adapter.read_bytes())
    probe.ask(store, run, "about")
    assert probe.ask(store, other.id, "about", timeout=0.1).state == "waiting"
    answer = probe.wait(store, other.id, "about")  # the first has been idle for MAKE_ROOM_SECONDS by then
    assert answer.state == "done"
    assert not locks.held(store.paths(run).probe_lock)


# ---------------------------------------------------------------- order of the work, without a process


class LocalProbe:
    """A probe in this process with queries of the test."""

    def __init__(self, store: RunStore, run: str, known: Mapping[str, Callable]) -> None:
        self.probe = probe_worker.Probe(store, run)
        self.probe.known, self.probe.loaded = dict(known), object()
        self.thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        while not self.probe.leaving:
            with self.probe.changed:
                job = self.probe.waiting.pop() if self.probe.waiting else None
                if job is None:
                    self.probe.changed.wait(0.05)
            if job is not None:
                self.probe._answer(job)

    def ask(self, name: str, timeout: float = 10.0, **arguments: object) -> dict:
        return self.send(query=name, arguments=arguments, timeout=timeout)

    def send(self, **request: object) -> dict:
        return self.probe.ask({"token": self.probe.token, "format": probe.FORMAT, **request})

    def job(self, worked: float = 0.0, **arguments: object) -> probe_worker.Job:
        """The job of the long query, after so many seconds of work."""
        self.ask("long", timeout=0.0, **arguments)
        job = self.probe.jobs[probe.canonical("long", arguments)]
        deadline = time.monotonic() + 10
        while job.spent <= worked:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return job


@pytest.fixture
def local_probe(trained: tuple[RunStore, str]) -> Iterator[LocalProbe]:
    finish = threading.Event()

    def long(loaded: object, arguments: Mapping, on_progress: Callable[[int, int], None]) -> dict:
        for done in range(1_000_000):
            on_progress(done, 1_000_000)
            if finish.wait(0.001):
                return {"done": True}
        return {}

    def quick(loaded: object, arguments: Mapping, on_progress: Callable[[int, int], None]) -> dict:
        return {"twice": 2 * arguments["n"]}

    def wrong(loaded: object, arguments: Mapping, on_progress: Callable[[int, int], None]) -> dict:
        raise KeyError("n")

    process = LocalProbe(*trained, known={"long": long, "quick": quick, "wrong": wrong})
    process.gate = finish
    process.thread.start()
    yield process
    process.probe.leaving = True
    process.thread.join()


def test_a_short_query_is_answered_during_a_long_one(local_probe: LocalProbe) -> None:
    assert local_probe.ask("long", timeout=0.1)["state"] == "working"
    assert local_probe.ask("quick", n=21)["value"] == {"twice": 42}
    far = local_probe.ask("long", timeout=0.0)
    assert far["state"] == "working"
    assert far["total"] == 1_000_000
    local_probe.gate.set()
    assert local_probe.ask("long")["value"] == {"done": True}


def test_a_short_query_that_nobody_waits_for_is_abandoned_and_can_be_repeated(
    local_probe: LocalProbe, monkeypatch: pytest.MonkeyPatch, wait_for: Callable
) -> None:
    monkeypatch.setattr(probe_worker, "REQUEST_SECONDS", 0.1)
    local_probe.ask("long", timeout=0.0)
    job = next(iter(local_probe.probe.jobs.values()))
    wait_for(lambda: job.state == "abandoned")
    monkeypatch.setattr(probe_worker, "REQUEST_SECONDS", 15.0)
    local_probe.gate.set()
    assert local_probe.ask("long")["value"] == {"done": True}


@pytest.fixture
def impatient(local_probe: LocalProbe, monkeypatch: pytest.MonkeyPatch) -> LocalProbe:
    """The same with short timeouts: a query is a long one after 20 ms."""
    for name, seconds in (("KEEP", 0.02), ("REQUEST", 0.1), ("TAB", 0.3), ("LEFT", 30.0)):
        monkeypatch.setattr(probe_worker, f"{name}_SECONDS", seconds)
    return local_probe


def test_a_long_query_continues_until_somebody_returns(
    local_probe: LocalProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_worker, "REQUEST_SECONDS", 0.1)
    monkeypatch.setattr(probe_worker, "KEEP_SECONDS", 0.02)
    local_probe.ask("long", timeout=0.2)
    before = next(iter(local_probe.probe.jobs.values()))
    time.sleep(0.4)
    assert before.state == "working"
    local_probe.gate.set()
    assert local_probe.ask("long")["value"] == {"done": True}
    assert before.state == "done"


def test_a_long_query_continues_for_a_limited_time(
    impatient: LocalProbe, monkeypatch: pytest.MonkeyPatch, wait_for: Callable
) -> None:
    job = impatient.job(0.02)
    time.sleep(0.6)
    before = job.done
    assert job.state == "working"
    assert not job.is_waited_for
    assert impatient.ask("quick", n=21)["value"] == {"twice": 42}  # newer queries still interrupt it
    wait_for(lambda: job.done > before)
    monkeypatch.setattr(probe_worker, "LEFT_SECONDS", 0.5)
    wait_for(lambda: job.state == "abandoned")
    job = impatient.job()
    impatient.gate.set()
    wait_for(lambda: job.state == "done")


def test_a_query_that_never_started_is_dropped_when_nobody_waits(
    impatient: LocalProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient.probe.leaving = True  # its thread ends
    impatient.thread.join()
    impatient.probe.leaving = False
    impatient.ask("quick", timeout=0.0, n=1)
    time.sleep(0.2)
    job = impatient.probe.waiting.pop()
    impatient.probe._answer(job)
    assert job.state == "abandoned"


def test_a_query_without_anybody_waiting_yields_to_one_with(impatient: LocalProbe, wait_for: Callable) -> None:
    impatient.job(0.02, n=1)
    second = impatient.job(0.02, n=2)  # inside the first
    first = impatient.job(n=1)
    wait_for(lambda: impatient.ask("long", timeout=0.0, n=1)["state"] == "working" and second.state == "abandoned")
    before = first.done
    wait_for(lambda: first.done > before)
    assert first.state == "working"


def test_only_the_newest_queries_without_anybody_waiting_continue(impatient: LocalProbe, wait_for: Callable) -> None:
    jobs = [impatient.job(0.02, n=n) for n in range(probe_worker.LEFT_KEPT + 2)]
    wait_for(lambda: jobs[1].surplus)
    assert [job.state for job in jobs] == ["working"] * len(jobs)
    assert not jobs[2].surplus
    impatient.gate.set()
    wait_for(lambda: not impatient.probe.active)
    assert [job.state for job in jobs] == ["abandoned"] * 2 + ["done"] * probe_worker.LEFT_KEPT


def test_the_depth_of_nested_queries_is_limited(
    impatient: LocalProbe, monkeypatch: pytest.MonkeyPatch, wait_for: Callable
) -> None:
    monkeypatch.setattr(probe_worker, "TAB_SECONDS", 30.0)
    monkeypatch.setattr(probe_worker, "NESTED", 2)
    jobs = [impatient.job(0.02, n=n) for n in range(4)]
    wait_for(lambda: [job.state for job in jobs[2:]] == ["abandoned"] * 2)
    time.sleep(0.2)
    assert len(impatient.probe.active) == 2


def test_a_probe_without_anybody_waiting_exits_for_another_run(
    impatient: LocalProbe, monkeypatch: pytest.MonkeyPatch, wait_for: Callable
) -> None:
    monkeypatch.setattr(probe, "MAKE_ROOM_SECONDS", 0.0)
    job = impatient.job(0.02)
    assert not impatient.send(leave="left")["value"]["leaving"]  # somebody is waiting
    wait_for(lambda: not job.is_waited_for)
    assert not impatient.send(leave="idle")["value"]["leaving"]
    assert impatient.send(leave="left")["value"]["leaving"]
    wait_for(lambda: job.state == "abandoned")


def test_a_newer_version_makes_a_probe_exit_and_an_older_one_must_restart(
    local_probe: LocalProbe, wait_for: Callable
) -> None:
    job = local_probe.job()
    for older in ({"format": probe.FORMAT - 1}, {"format": 0}):
        assert "restart it" in local_probe.send(query="about", arguments={}, **older)["reason"]
    assert job.state == "working"
    assert local_probe.send(leave="idle", format=probe.FORMAT + 1)["value"]["leaving"]
    wait_for(lambda: job.state == "abandoned")


def test_the_content_of_a_named_file_is_part_of_the_query(local_probe: LocalProbe, tmp_path: Path) -> None:
    file = tmp_path / "other"
    local_probe.probe.known["size"] = lambda loaded, arguments, on_progress: {
        "bytes": Path(arguments["other"]).stat().st_size
    }
    for size in (3, 5):
        file.write_bytes(bytes(size))
        assert local_probe.ask("size", other=str(file))["value"] == {"bytes": size}
    for odd in ("\0", "x" * 5000, str(tmp_path / "none")):
        assert local_probe.ask("size", other=odd)["state"] == "failed"


def test_an_error_in_a_query_affects_no_other(local_probe: LocalProbe) -> None:
    assert "code error, KeyError" in local_probe.ask("wrong")["reason"]
    assert local_probe.ask("quick", n=1)["value"] == {"twice": 2}


def test_long_answers_are_cached_for_this_adapter_only(
    trained: tuple[RunStore, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run = trained
    files = store.paths(run)
    probe.keep(files, "slow", {"b": 1, "a": 2}, probe.signature(files), {"found": 7})
    kept = probe.ask(store, run, "slow", {"a": 2, "b": 1})
    assert kept.state == "done"
    assert kept.value == {"found": 7}
    assert probe._cached(files, "slow", {"a": 2, "b": 2}) is None
    before = files.adapter.stat()
    os.utime(files.adapter, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert probe._cached(files, "slow", {"a": 2, "b": 1}) is None
    os.utime(files.adapter, ns=(before.st_atime_ns, before.st_mtime_ns))
    path = next(files.answers.glob("slow-*"))  # on a slow machine others may be cached
    path.write_text(path.read_text()[:20])
    assert probe._cached(files, "slow", {"a": 2, "b": 1}) is None


def test_cached_answers_of_another_format_or_a_changed_file_are_not_used(
    trained: tuple[RunStore, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, run = trained
    files, other = store.paths(run), tmp_path / "other"
    for name in probe.NAMING:
        other.write_bytes(b"one")
        arguments = {name: str(other)}
        probe.keep(files, "slow", arguments, probe.signature(files) + probe.named(arguments), {"found": 7})
        assert probe.ask(store, run, "slow", arguments).value == {"found": 7}
        with monkeypatch.context() as newer:
            newer.setattr(probe, "FORMAT", probe.FORMAT + 1)
            assert probe._cached(files, "slow", arguments) is None
        other.write_bytes(b"another")
        assert probe._cached(files, "slow", arguments) is None
