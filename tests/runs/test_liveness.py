"""What is true of a run: its row, its lock, its pulse and its last word."""

from __future__ import annotations

import time

import pytest

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Saved
from mlae_lab.core.patterns import uniform
from mlae_lab.runs import liveness, pending_events
from mlae_lab.runs.liveness import (
    ExitRecord,
    HeartbeatWriter,
    derived,
    end_of,
    is_alive,
    read_exit_record,
    reserve_exit_record,
    write_exit_record,
)
from mlae_lab.runs.status import ACTIVE, Status
from mlae_lab.runs.store import RunStore
from tests.lab import held, under_way

CONFIG = RunConfig("digits", uniform(0.5))


# ---------------------------------------------------------------- the pulse


def test_a_pulse_says_when_a_run_last_got_on(lab_store: RunStore) -> None:
    files = lab_store.paths(lab_store.enqueue(CONFIG, "cpu").id)
    assert liveness.heartbeat(files) is None
    writer = HeartbeatWriter(files)
    time.sleep(0.05)
    writer.beat(7)
    writer.beat()
    found = liveness.heartbeat(files)
    assert found is not None
    assert found.step == 7
    assert 0 <= time.monotonic() - found.at < 5
    assert 0.05 <= found.longest < 5
    assert files.heartbeat.stat().st_size == 24
    writer.close()
    files.heartbeat.write_bytes(b"half")
    assert liveness.heartbeat(files) is None


def test_a_run_that_lives_and_does_not_get_on_is_stalled(lab_store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run = under_way(lab_store)
    files = lab_store.paths(run.id)
    with held(lab_store, run.id):
        assert liveness.stalled_for(files) is None  # it has not even begun
        writer = HeartbeatWriter(files)
        assert liveness.stalled_for(files) is None
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + liveness.STALLED_SECONDS + 5)
        assert liveness.stalled_for(files) == pytest.approx(liveness.STALLED_SECONDS + 5, abs=2)
        monkeypatch.setattr(time, "time", lambda: 0.0)  # a wall clock that was set back changes nothing
        assert liveness.stalled_for(files) is not None
        writer.beat(1)
        assert liveness.stalled_for(files) is None
    monkeypatch.setattr(time, "monotonic", lambda: now + 10_000)
    assert liveness.stalled_for(files) is None  # it is gone, which is another thing


def test_a_run_with_long_steps_is_given_more_time(lab_store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run = under_way(lab_store)
    files = lab_store.paths(run.id)
    now = time.monotonic()
    with held(lab_store, run.id):
        writer = HeartbeatWriter(files)
        monkeypatch.setattr(time, "monotonic", lambda: now + 60)
        writer.beat(1)
        monkeypatch.setattr(time, "monotonic", lambda: now + 60 + 500)
        assert liveness.stalled_for(files) is None
        monkeypatch.setattr(time, "monotonic", lambda: now + 60 + 700)
        assert liveness.stalled_for(files) == pytest.approx(700, abs=1)
        writer.close()


# ---------------------------------------------------------------- the last word


def test_a_last_word_fits_into_the_room_that_was_made_for_it(lab_store: RunStore) -> None:
    files = lab_store.paths(lab_store.enqueue(CONFIG, "cpu").id)
    assert read_exit_record(files) is None
    reserve_exit_record(files)
    assert read_exit_record(files) is None
    room = files.exit_record.stat().st_size
    for reason in ("", "out of memory", "ä\n" * 20_000):
        write_exit_record(files, ExitRecord(Status.FAILED, reason))
        word = read_exit_record(files)
        assert word is not None
        assert word.status is Status.FAILED
        assert reason.startswith(word.reason)
        assert files.exit_record.stat().st_size == room
    reserve_exit_record(files)
    assert read_exit_record(files) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"status": "running", "reason": ""}', '{"status": "odd", "reason": ""}', "\xff"]
)
def test_half_a_word_is_none(lab_store: RunStore, text: str) -> None:
    files = lab_store.paths(lab_store.enqueue(CONFIG, "cpu").id)
    files.exit_record.write_text(text, encoding="latin-1")
    assert read_exit_record(files) is None


# ---------------------------------------------------------------- what follows


def test_the_status_is_the_row_while_the_process_lives(lab_store: RunStore) -> None:
    for status in ACTIVE:
        run = under_way(lab_store, status)
        with held(lab_store, run.id):
            assert is_alive(lab_store.paths(run.id))
            assert derived(lab_store, run) == run
        lab_store.move(run.id, Status.LOST)


@pytest.mark.parametrize(
    ("status", "exit_status", "checkpoint", "expected", "words"),
    [
        (Status.RUNNING, None, False, Status.LOST, "exited during training without reporting a result; it had no checkpoint yet, retry"),
        (Status.RUNNING, -9, True, Status.LOST, "was killed by SIGKILL during training, as the system does when memory runs out; "
         "its last checkpoint is kept, resume continues from it"),
        (Status.RUNNING, -11, True, Status.LOST, "was killed by SIGSEGV during training; its last checkpoint is kept"),
        (Status.STARTING, 3, False, Status.LOST, "exited before the first step without reporting a result (exit status 3); it had no"),
        (Status.STOPPING, -9, True, Status.STOPPED, "stopped at once; its last checkpoint is kept"),
        (Status.STOPPING, None, False, Status.STOPPED, "stopped at once; it had no checkpoint yet"),
    ],
)  # fmt: skip
def test_how_a_run_ended_whose_process_is_gone(
    lab_store: RunStore, status: Status, exit_status: int | None, checkpoint: bool, expected: Status, words: str
) -> None:
    run = under_way(lab_store, status)
    if checkpoint:
        lab_store.paths(run.id).checkpoint.write_bytes(b"something")
    word = end_of(lab_store, run, exit_status)
    assert word is not None
    assert word.status is expected
    assert words in word.reason
    if exit_status is None:
        seen = derived(lab_store, run)
        assert (seen.status, seen.reason) == (word.status, word.reason)
        assert lab_store.run(run.id).status is status  # who only looks writes nothing


def test_the_last_word_counts_more_than_any_guess(lab_store: RunStore) -> None:
    run = under_way(lab_store)
    reserve_exit_record(lab_store.paths(run.id))
    write_exit_record(lab_store.paths(run.id), ExitRecord(Status.FAILED, "the disk is full"))
    assert derived(lab_store, run).status is Status.FAILED
    assert end_of(lab_store, run, -9) == ExitRecord(Status.FAILED, "the disk is full")


def test_a_run_is_not_called_finished_before_its_numbers_are_in_the_store(lab_store: RunStore) -> None:
    """The store was locked for longer than its process waited."""
    run = under_way(lab_store)
    files = lab_store.paths(run.id)
    reserve_exit_record(files)
    write_exit_record(files, ExitRecord(Status.FINISHED))
    pending_events.keep(files, 0, [Saved(1, 1, 1)])
    assert derived(lab_store, run).status is Status.RUNNING
    pending_events.deliver(lab_store, run.id)
    assert derived(lab_store, run).status is Status.FINISHED


def test_a_run_that_was_given_its_turn_and_never_began_is_not_lost(lab_store: RunStore) -> None:
    run = under_way(lab_store, Status.STARTING, pid=None)
    assert end_of(lab_store, run) is None
    assert derived(lab_store, run).status is Status.STARTING


def test_a_run_that_ended_between_two_looks_is_what_it_says(lab_store: RunStore) -> None:
    run = under_way(lab_store)
    lab_store.move(run.id, Status.FINISHED)
    assert derived(lab_store, run).status is Status.FINISHED
