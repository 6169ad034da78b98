"""The process that looks into a run: real ones, on a real run."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping

import pytest

from mlae_lab import locks
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import pattern
from mlae_lab.model.adapter_file import save_adapter
from mlae_lab.runs import probe, probe_worker
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from mlae_lab.training.setup import prepare
from tests.inside import end_probe, finished, probes_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunStore, str]]:
    """A store with one finished run of one epoch; no probe of it outlives the tests."""
    store = RunStore(tmp_path_factory.mktemp("probed"))
    config = RunConfig(
        "digits", pattern("uniform", "stochastic", 0.5), backbone="lab_vit_12x128.random", epochs=1, device="cpu"
    )
    yield store, finished(store, config)
    for other in store.runs():
        end_probe(store, other.id)


def test_the_answer_is_the_number_that_the_run_ended_with(trained: tuple[RunStore, str]) -> None:
    store, run = trained
    answer = probe.wait(store, run, "about")
    assert answer.state == "done", answer.reason
    assert answer.value["accuracy"] == store.last(run, "evaluation").accuracy
    assert answer.value["pictures"] == 200


def test_many_who_ask_at_once_share_one_process(trained: tuple[RunStore, str]) -> None:
    store, run = trained
    end_probe(store, run)
    answers: list[probe.Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(probe.wait(store, run, "about"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.state for answer in answers} == {"done"} and len({json.dumps(a.value) for a in answers}) == 1
    assert len(probes_of(run)) == 1


def test_a_killed_probe_is_started_again(trained: tuple[RunStore, str]) -> None:
    store, run = trained
    probe.wait(store, run, "about")
    before = probes_of(run)
    os.kill(before[0], signal.SIGKILL)
    answer = probe.wait(store, run, "about")
    assert answer.state == "done"
    assert probes_of(run) and probes_of(run) != before


def test_another_adapter_is_loaded_again(trained: tuple[RunStore, str]) -> None:
    store, run = trained
    first = probe.wait(store, run, "about").value
    files = store.paths(run)
    before = files.adapter.read_bytes()
    setup = prepare(store.run(run).config)  # as it was before its first step
    save_adapter(files.adapter, setup.experts, setup.head, "lab_vit_12x128.random", "digits")
    try:
        second = probe.wait(store, run, "about").value
    finally:
        files.adapter.write_bytes(before)
    assert second["loss"] != first["loss"]
    assert probe.wait(store, run, "about").value == first


@pytest.mark.parametrize("name", ["no_such", "../about", ""])
def test_an_unknown_question_is_one_sentence(name: str, trained: tuple[RunStore, str]) -> None:
    store, run = trained
    answer = probe.wait(store, run, name)
    assert answer.state == "failed" and "is no question: choose from about" in answer.reason


def test_who_has_no_token_learns_nothing(trained: tuple[RunStore, str]) -> None:
    store, run = trained
    probe.wait(store, run, "about")
    files = store.paths(run)
    assert files.probe_address.stat().st_mode & 0o077 == 0
    port = json.loads(files.probe_address.read_text())["port"]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
        wire.sendall(b'{"token": "x", "question": "about", "arguments": {}}\n')
        told = json.loads(wire.makefile("rb").readline())
    assert told["state"] == "failed" and "value" not in told
    with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
        wire.sendall(b"\xff not json\n")
        assert wire.makefile("rb").readline() == b""
    assert probe.wait(store, run, "about").state == "done"


def test_a_run_that_cannot_be_asked_says_why(lab_store: RunStore) -> None:
    run = lab_store.enqueue(RunConfig("digits"), device="cpu")
    assert "can be looked into once it is over" in probe.ask(lab_store, run.id, "about").reason
    lab_store.move(run.id, Status.STOPPED, "cancelled")
    assert "has no adapter" in probe.ask(lab_store, run.id, "about").reason
    files = lab_store.paths(run.id)
    files.folder.mkdir(parents=True, exist_ok=True)
    files.adapter.write_bytes(b"half a file")
    answer = probe.wait(lab_store, run.id, "about")
    assert answer.state == "failed" and "is not a readable safetensors file" in answer.reason
    end_probe(lab_store, run.id)


def test_an_idle_probe_leaves(trained: tuple[RunStore, str], monkeypatch: pytest.MonkeyPatch, wait_for: Callable) -> None:
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
    assert probe.ask(store, other.id, "about", patience=0.1).state == "waiting"
    answer = probe.wait(store, other.id, "about")  # the first has been idle for MAKE_ROOM_SECONDS by then
    assert answer.state == "done" and not locks.held(store.paths(run).probe_lock)


# ---------------------------------------------------------------- the order of the work, without a process


class Asked:
    """A probe in this process whose questions are those of the test."""

    def __init__(self, store: RunStore, run: str, known: Mapping[str, Callable]) -> None:
        self.probe = probe_worker.Probe(store, run)
        self.probe.known, self.probe.subject = dict(known), object()
        self.thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        while not self.probe.leaving:
            with self.probe.changed:
                job = self.probe.waiting.pop() if self.probe.waiting else None
                if job is None:
                    self.probe.changed.wait(0.05)
            if job is not None:
                self.probe._answer(job)

    def ask(self, name: str, patience: float = 10.0, **arguments: object) -> dict:
        request = {"token": self.probe.token, "question": name, "arguments": arguments, "patience": patience}
        return self.probe.ask(request)


@pytest.fixture
def asked(trained: tuple[RunStore, str]) -> Iterator[Asked]:
    gate = threading.Event()

    def long(subject: object, arguments: Mapping, tell: Callable[[int, int], None]) -> dict:
        for done in range(1_000_000):
            tell(done, 1_000_000)
            if gate.wait(0.001):
                return {"done": True}
        return {}

    def quick(subject: object, arguments: Mapping, tell: Callable[[int, int], None]) -> dict:
        return {"twice": 2 * arguments["n"]}

    def wrong(subject: object, arguments: Mapping, tell: Callable[[int, int], None]) -> dict:
        raise KeyError("n")

    made = Asked(*trained, known={"long": long, "quick": quick, "wrong": wrong})
    made.gate = gate
    made.thread.start()
    yield made
    made.probe.leaving = True
    made.thread.join()


def test_a_click_is_answered_while_a_long_question_goes_on(asked: Asked) -> None:
    assert asked.ask("long", patience=0.1)["state"] == "working"
    assert asked.ask("quick", n=21)["value"] == {"twice": 42}
    far = asked.ask("long", patience=0.0)
    assert far["state"] == "working" and far["total"] == 1_000_000
    asked.gate.set()
    assert asked.ask("long")["value"] == {"done": True}


def test_what_nobody_waits_for_is_given_up_and_may_be_asked_again(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, wait_for: Callable
) -> None:
    monkeypatch.setattr(probe_worker, "ASKER_SECONDS", 0.1)
    asked.ask("long", patience=0.0)
    job = next(iter(asked.probe.jobs.values()))
    wait_for(lambda: job.state == "abandoned")
    monkeypatch.setattr(probe_worker, "ASKER_SECONDS", 15.0)
    asked.gate.set()
    assert asked.ask("long")["value"] == {"done": True}


def test_a_mistake_in_a_question_hurts_no_other(asked: Asked) -> None:
    assert "code error, KeyError" in asked.ask("wrong")["reason"]
    assert asked.ask("quick", n=1)["value"] == {"twice": 2}


def test_answers_that_took_long_are_kept_for_this_adapter_alone(
    trained: tuple[RunStore, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run = trained
    files = store.paths(run)
    probe.keep(files, "slow", {"b": 1, "a": 2}, probe.signature(files), {"found": 7})
    kept = probe.ask(store, run, "slow", {"a": 2, "b": 1})
    assert kept.state == "done" and kept.value == {"found": 7}
    assert probe._kept(files, "slow", {"a": 2, "b": 2}) is None
    before = files.adapter.stat()
    os.utime(files.adapter, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert probe._kept(files, "slow", {"a": 2, "b": 1}) is None
    os.utime(files.adapter, ns=(before.st_atime_ns, before.st_mtime_ns))
    path = next(files.answers.iterdir())
    path.write_text(path.read_text()[:20])
    assert probe._kept(files, "slow", {"a": 2, "b": 1}) is None
