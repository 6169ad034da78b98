"""The actual state of a run: row, lock, heartbeat and exit record."""

from __future__ import annotations

import os
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


# ---------------------------------------------------------------- heartbeat


def test_the_heartbeat_has_time_step_and_longest_interval(lab_store: RunStore) -> None:
    files = lab_store.paths(lab_store.enqueue(CONFIG, "cpu").id)
    assert liveness.heartbeat(files) is None
    writer = HeartbeatWriter(files)
    time.sleep(0.05)
    writer.beat(7)
    writer.beat()
    beat = liveness.heartbeat(files)
    assert beat is not None
    assert beat.step == 7
    assert 0 <= time.monotonic() - beat.at < 5
    assert 0.05 <= beat.longest < 5
    assert files.heartbeat.stat().st_size == 24
    writer.close()
    files.heartbeat.write_bytes(b"half")
    assert liveness.heartbeat(files) is None


def test_a_run_that_is_alive_without_progress_is_stalled(lab_store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run = under_way(lab_store)
    files = lab_store.paths(run.id)
    with held(lab_store, run.id):
        assert liveness.stalled_for(files) is None  # it has no heartbeat yet
        writer = HeartbeatWriter(files)
        assert liveness.stalled_for(files) is None
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + liveness.STALLED_SECONDS + 5)
        assert liveness.stalled_for(files) == pytest.approx(liveness.STALLED_SECONDS + 5, abs=2)
        monkeypatch.setattr(time, "time", lambda: 0.0)  # the wall clock does not matter
        assert liveness.stalled_for(files) is not None
        writer.beat(1)
        assert liveness.stalled_for(files) is None
    monkeypatch.setattr(time, "monotonic", lambda: now + 10_000)
    assert liveness.stalled_for(files) is None  # it is not alive


def test_a_run_with_long_steps_has_a_longer_timeout(lab_store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
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


# ---------------------------------------------------------------- exit record


def test_the_exit_record_fits_into_its_reserved_space(lab_store: RunStore) -> None:
    files = lab_store.paths(lab_store.enqueue(CONFIG, "cpu").id)
    assert read_exit_record(files) is None
    reserve_exit_record(files)
    assert read_exit_record(files) is None
    room = files.exit_record.stat().st_size
    for reason in ("", "out of memory", "ä\n" * 20_000):
        write_exit_record(files, ExitRecord(Status.FAILED, reason))
        record = read_exit_record(files)
        assert record is not None
        assert record.status is Status.FAILED
        assert reason.startswith(record.reason)
        assert files.exit_record.stat().st_size == room
    reserve_exit_record(files)
    assert read_exit_record(files) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"status": "running", "reason": ""}', '{"status": "odd", "reason": ""}', "\xff"]
)
def test_an_invalid_exit_record_is_none(lab_store: RunStore, text: str) -> None:
    files = lab_store.paths(lab_store.enqueue(CONFIG, "cpu").id)
    files.exit_record.write_text(text, encoding="latin-1")
    assert read_exit_record(files) is None


# ---------------------------------------------------------------- derived state


def test_the_status_is_that_of_the_row_while_the_process_is_alive(lab_store: RunStore) -> None:
    for status in ACTIVE:
        run = under_way(lab_store, status)
        with held(lab_store, run.id):
            assert is_alive(lab_store.paths(run.id))
            assert derived(lab_store, run) == run
        lab_store.move(run.id, Status.LOST)


@pytest.mark.parametrize(
    ("status", "exit_status", "checkpoint", "expected", "reason"),
    [
        (Status.RUNNING, None, False, Status.LOST,
         "exited during training without reporting a result; it had no checkpoint yet, retry starts from"),
        (Status.RUNNING, -9, True, Status.LOST, "was killed by SIGKILL during training, as the system does when "
         "memory runs out; its last checkpoint is kept, resume continues from it"),
        (Status.RUNNING, -11, True, Status.LOST, "was killed by SIGSEGV during training; its last checkpoint is kept"),
        (Status.STARTING, 3, False, Status.LOST,
         "exited before the first step without reporting a result (exit status 3); it had no checkpoint yet"),
        (Status.STOPPING, -9, True, Status.STOPPED, "stopped at once; its last checkpoint is kept"),
        (Status.STOPPING, None, False, Status.STOPPED, "stopped at once; it had no checkpoint yet"),
    ],
)  # fmt: skip
def test_how_a_run_ended_whose_process_has_exited(
    lab_store: RunStore, status: Status, exit_status: int | None, checkpoint: bool, expected: Status, reason: str
) -> None:
    run = under_way(lab_store, status)
    if checkpoint:
        lab_store.paths(run.id).checkpoint.write_bytes(b"something")
    record = end_of(lab_store, run, exit_status)
    assert record is not None
    assert record.status is expected
    assert reason in record.reason
    if exit_status is None:
        seen = derived(lab_store, run)
        assert (seen.status, seen.reason) == (record.status, record.reason)
        assert lab_store.run(run.id).status is status  # reading writes nothing


def test_the_exit_record_overrides_the_exit_status(lab_store: RunStore) -> None:
    run = under_way(lab_store)
    reserve_exit_record(lab_store.paths(run.id))
    write_exit_record(lab_store.paths(run.id), ExitRecord(Status.FAILED, "the disk is full"))
    assert derived(lab_store, run).status is Status.FAILED
    assert end_of(lab_store, run, -9) == ExitRecord(Status.FAILED, "the disk is full")


def test_a_run_is_not_finished_before_its_events_are_in_the_store(lab_store: RunStore) -> None:
    """As when the store was locked for longer than the process waited."""
    run = under_way(lab_store)
    files = lab_store.paths(run.id)
    reserve_exit_record(files)
    write_exit_record(files, ExitRecord(Status.FINISHED))
    pending_events.keep(files, 0, [Saved(1, 1, 1)])
    seen = derived(lab_store, run)
    assert seen.status is Status.STOPPING
    assert seen.reason == "it has finished; its last events wait until the store can be written"
    pending_events.deliver(lab_store, run.id)
    assert derived(lab_store, run).status is Status.FINISHED


@pytest.mark.parametrize(
    ("status", "expected"),
    [(Status.FAILED, Status.FAILED), (Status.STOPPED, Status.STOPPED), (Status.FINISHED, Status.STOPPING)],
)
def test_a_run_that_has_ended_and_cannot_write_that_is_not_running(
    lab_store: RunStore, status: Status, expected: Status
) -> None:
    """Its process lives on and tries to write to a locked store or a full disk."""
    run = under_way(lab_store, Status.STARTING, pid=None)
    files = lab_store.paths(run.id)
    reserve_exit_record(files)
    with held(lab_store, run.id):
        assert derived(lab_store, run).status is Status.STARTING
        write_exit_record(files, ExitRecord(status, "a reason"))
        assert derived(lab_store, run).status is Status.STARTING  # it may be about to write its last events
        os.utime(files.exit_record, (time.time() - 3,) * 2)
        assert derived(lab_store, run).status is expected
    assert lab_store.run(run.id).status is Status.STARTING  # reading writes nothing


def test_an_exit_record_is_reserved_again_without_new_space(lab_store: RunStore) -> None:
    files = lab_store.paths(under_way(lab_store).id)
    reserve_exit_record(files)
    write_exit_record(files, ExitRecord(Status.FAILED, "a reason"))
    before = files.exit_record.stat().st_ino
    reserve_exit_record(files)
    assert read_exit_record(files) is None
    assert (files.exit_record.stat().st_ino, files.exit_record.stat().st_size) == (before, 4000)


def test_a_claimed_run_whose_process_never_started_is_queued(lab_store: RunStore) -> None:
    run = under_way(lab_store, Status.STARTING, pid=None)
    assert end_of(lab_store, run) is None
    with held(lab_store, run.id):
        assert derived(lab_store, run).status is Status.STARTING
    assert derived(lab_store, run).status is Status.QUEUED


def test_a_run_that_ends_between_two_reads_has_its_recorded_status(lab_store: RunStore) -> None:
    run = under_way(lab_store)
    lab_store.move(run.id, Status.FINISHED)
    assert derived(lab_store, run).status is Status.FINISHED
