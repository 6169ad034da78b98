"""Faults around a run, caused to real processes: no event is lost and nothing is left behind."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.events import (
    Evaluation,
    Event,
    ExpertStats,
    Resumed,
    SimilarityStats,
    Started,
    Statistics,
    TrainStep,
)
from mlae_lab.core.patterns import allocation, dense
from mlae_lab.runs import commands, liveness, supervisor
from mlae_lab.runs.liveness import is_alive
from mlae_lab.runs.paths import database
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore, StoreError
from tests.lab import clear, few_images

Wait = Callable[..., None]

WHOLE = RunConfig(  # four epochs of 50 steps, two evaluations
    "own:few", allocation((0,) * 9 + (2, 0, 3), drop_rate=0.5), backbone="lab_vit_12x128.random", epochs=4,
    evaluations=2, batch_size=4, device="cpu", precision="float32", learning_rate=5e-3, data=str(few_images()),
)  # fmt: skip
LONG = dataclasses.replace(WHOLE, epochs=10_000, evaluations=1)


def status(store: RunStore, run: str) -> Status:
    return store.run(run).status


def describe(store: RunStore, run: str) -> Callable[[], object]:
    """What to print when a test times out."""
    return lambda: (store.run(run).status, store.run(run).reason, commands.log_tail(store, run))


def steps(store: RunStore, run: str) -> list[int]:
    return [stored.event.step for stored in store.events(run, TrainStep)]


def timeless(store: RunStore, run: str, kind: type[Event]) -> list[str]:
    events = [stored.event for stored in store.events(run, kind)]
    return [repr(dataclasses.replace(e, seconds=0.0) if hasattr(e, "seconds") else e) for e in events]


def wait_for_step(store: RunStore, run: str, number: int, wait_for: Wait) -> None:
    def reached() -> bool:
        last = store.last(run, TrainStep)
        return status(store, run).is_over or (last is not None and last.step >= number)

    wait_for(reached, describe(store, run))
    assert not status(store, run).is_over, describe(store, run)()


@pytest.fixture
def often_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this test save a checkpoint after every step, not every 30 s."""
    monkeypatch.setenv("MLAE_LAB_SAVE_SECONDS", "0")


# ---------------------------------------------------------------- killed, stopped, resumed


def test_a_killed_stopped_and_resumed_run_ends_like_an_uninterrupted_one(
    lab_store: RunStore, wait_for: Wait, often_saved: None
) -> None:
    undisturbed = commands.launch(lab_store, WHOLE).id
    run = commands.launch(lab_store, WHOLE).id
    wait_for_step(lab_store, run, 30, wait_for)
    seen = len(lab_store.events(run))
    os.kill(lab_store.run(run).pid, signal.SIGKILL)
    wait_for(lambda: status(lab_store, run) is Status.LOST, describe(lab_store, run))
    assert "was killed by SIGKILL" in lab_store.run(run).reason
    assert "its last checkpoint is kept, resume continues from it" in lab_store.run(run).reason
    assert len(lab_store.events(run)) >= seen

    assert commands.resume(lab_store, run).status in (Status.QUEUED, Status.STARTING)
    with pytest.raises(StoreError, match=f"run {run} is .* already: there is nothing to resume"):
        commands.resume(lab_store, run)
    wait_for_step(lab_store, run, 70, wait_for)
    assert commands.stop(lab_store, run) in (Status.STOPPING, Status.STOPPED)
    wait_for(lambda: status(lab_store, run).is_over, describe(lab_store, run))
    stopped = lab_store.run(run)
    last = lab_store.last(run, TrainStep).step
    assert (stopped.status, stopped.reason) == (Status.STOPPED, f"stopped and saved after step {last}")
    measured = lab_store.last(run, Evaluation)
    assert measured is not None
    assert measured.step == last < 100

    commands.resume(lab_store, run)
    wait_for(lambda: status(lab_store, run).is_over, describe(lab_store, run))
    assert status(lab_store, run) is Status.FINISHED, describe(lab_store, run)()
    assert lab_store.run(run).attempt == 3
    assert (
        steps(lab_store, run) == list(range(1, 201)) == steps(lab_store, undisturbed)
    )  # none is missing or duplicated
    for kind in (TrainStep, ExpertStats, SimilarityStats, Statistics, Evaluation):
        uninterrupted, other = (timeless(lab_store, r, kind) for r in (undisturbed, run))
        if kind is not TrainStep:  # the stop added an evaluation between the two scheduled ones
            del other[0 if last < 100 else 1]
        assert uninterrupted == other, kind
    adapters = [load_file(lab_store.paths(r).adapter) for r in (undisturbed, run)]
    assert {n: v.tobytes() for n, v in adapters[0].items()} == {n: v.tobytes() for n, v in adapters[1].items()}
    resumed = [s.event for s in lab_store.events(run, Resumed)]
    assert [isinstance(p, Resumed) for p in resumed] == [True, True]
    assert resumed[1].step == last
    assert len(lab_store.events(run, Started)) == 1
    with pytest.raises(StoreError, match=f"run {run} is finished: branch from it"):
        commands.resume(lab_store, run)
    wait_for(lambda: not is_alive(lab_store.paths(run)))


@pytest.mark.parametrize("then", ["resumed", "deleted"])
def test_a_dead_run_whose_end_is_not_recorded_is_resumed_or_deleted_at_once(lab_store: RunStore, then: str) -> None:
    """Its supervisor died, too, so its row still says starting."""
    run = lab_store.enqueue(LONG, "cpu").id
    assert lab_store.claim(run, "cpu")
    assert lab_store.began(run, 2**22 + 1)
    assert lab_store.run(run).status is Status.STARTING
    assert liveness.derived(lab_store, lab_store.run(run)).status is Status.LOST
    if then == "resumed":
        assert commands.resume(lab_store, run).status in (Status.QUEUED, Status.STARTING)
        commands.stop(lab_store, run, now=True)
    else:
        commands.delete(lab_store, run)
        with pytest.raises(StoreError, match="was deleted on"):
            lab_store.run(run)


def test_a_truncated_checkpoint_is_skipped(lab_store: RunStore, wait_for: Wait) -> None:
    run = commands.launch(lab_store, dataclasses.replace(WHOLE, evaluations=16, epochs=16)).id
    wait_for(
        lambda: len(lab_store.paths(run).checkpoints()) >= 2 or status(lab_store, run).is_over, describe(lab_store, run)
    )
    os.kill(lab_store.run(run).pid, signal.SIGKILL)
    wait_for(lambda: status(lab_store, run) is Status.LOST, describe(lab_store, run))
    files = lab_store.paths(run)
    kept = max(int(name) for name in files.checkpoints() if name.isdigit())
    whole = files.checkpoint.read_bytes()
    files.checkpoint.unlink()  # it shares its bytes with the kept one
    files.checkpoint.write_bytes(whole[:1000])
    (files.folder / "checkpoint.safetensors.part").write_bytes(b"half")
    files.answers.mkdir(exist_ok=True)
    (files.answers / "errors-0.json.part").write_bytes(b"half")
    commands.resume(lab_store, run)
    wait_for(
        lambda: lab_store.last(run, Resumed) is not None or status(lab_store, run).is_over, describe(lab_store, run)
    )
    resumed = lab_store.last(run, Resumed)
    assert isinstance(resumed, Resumed)
    assert (resumed.step, resumed.source) == (kept * 50, "")
    assert any("checkpoint skipped: " in line for line in commands.log_tail(lab_store, run))
    assert not list(files.folder.rglob("*.part"))


def test_branching_with_another_mask_is_a_new_run(lab_store: RunStore, wait_for: Wait, often_saved: None) -> None:
    parent = commands.launch(lab_store, WHOLE).id
    wait_for(lambda: status(lab_store, parent).is_over, describe(lab_store, parent))
    assert set(lab_store.paths(parent).checkpoints()) == {"last", "2", "4"}
    other = allocation((0,) * 9 + (2, 1, 3))
    with pytest.raises(
        ConfigError, match="epochs is 4 and the checkpoint is after epoch 4: choose more epochs or an earlier"
    ):
        commands.branch(lab_store, parent, other)
    with pytest.raises(StoreError, match=f"run {parent} has no checkpoint '3': it has last, 2, 4"):
        commands.branch(lab_store, parent, other, "3")
    with pytest.raises(ConfigError, match=r"have rank 2 and those of run .* have rank 1"):
        commands.branch(lab_store, parent, dataclasses.replace(other, expert_rank=2), "2")
    child = commands.branch(lab_store, parent, other, "2", owner="ada").id
    commands.delete(lab_store, parent)  # the child has its own copy of the checkpoint
    wait_for(lambda: status(lab_store, child).is_over, describe(lab_store, child))
    run = lab_store.run(child)
    assert run.status is Status.FINISHED, describe(lab_store, child)()
    assert (run.parent, run.relation, run.source, run.config.plan) == (parent, "branched", "2", other)
    assert steps(lab_store, child) == list(range(101, 201))
    resumed = lab_store.last(child, Resumed)
    assert (resumed.step, resumed.source) == (100, parent)
    assert lab_store.last(child, Evaluation).epoch == 4

    twin = commands.rerun(lab_store, child)  # from the same checkpoint, not from its first step
    assert (twin.parent, twin.relation, twin.source, twin.config) == (parent, "branched", "2", run.config)
    assert lab_store.paths(twin.id).start.read_bytes() == lab_store.paths(child).start.read_bytes()
    commands.stop(lab_store, twin.id, now=True)
    lab_store.paths(child).start.unlink()
    with pytest.raises(StoreError, match=r"was branched from a checkpoint .* is missing here"):
        commands.rerun(lab_store, child)


# ---------------------------------------------------------------- stopping


def test_a_run_that_hangs_while_it_loads_is_ended_and_the_next_one_starts(lab_store: RunStore, wait_for: Wait) -> None:
    """Paused by SIGSTOP it cannot react, as in a read from a lost network disk."""
    run = commands.launch(lab_store, LONG).id
    after = commands.launch(lab_store, LONG).id
    wait_for(lambda: lab_store.run(run).pid is not None, describe(lab_store, run))
    os.kill(lab_store.run(run).pid, signal.SIGSTOP)
    began = time.monotonic()
    assert commands.stop(lab_store, run) is Status.STOPPING
    wait_for(lambda: status(lab_store, run).is_over, describe(lab_store, run))
    assert lab_store.run(run).status is Status.STOPPED
    assert lab_store.run(run).reason.startswith("stopped at once; it had no checkpoint yet")
    assert supervisor.STOP_SECONDS <= time.monotonic() - began < supervisor.STOP_SECONDS + 10
    wait_for(lambda: status(lab_store, after) is not Status.QUEUED, describe(lab_store, after))
    assert not is_alive(lab_store.paths(run))


def test_a_stalled_run_is_detected_and_stop_now_ends_it(
    lab_store: RunStore, wait_for: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = commands.launch(lab_store, LONG).id
    wait_for_step(lab_store, run, 3, wait_for)
    files = lab_store.paths(run)
    os.kill(lab_store.run(run).pid, signal.SIGSTOP)
    assert liveness.stalled_for(files) is None
    beat = liveness.heartbeat(files)
    monkeypatch.setattr(liveness, "STALLED_SECONDS", 0.5)
    monkeypatch.setattr(liveness, "_STALLED_STEPS", 0.0)
    wait_for(lambda: liveness.stalled_for(files) is not None)
    assert beat is not None
    assert beat.step >= 3
    assert status(lab_store, run) is Status.RUNNING  # it is alive, so it is not lost
    assert commands.stop(lab_store, run, now=True) is Status.STOPPED
    assert not is_alive(files)
    assert commands.stop(lab_store, run, now=True) is Status.STOPPED  # a second click


# ---------------------------------------------------------------- the store


def test_a_run_trains_on_while_the_store_is_locked(lab_store: RunStore, wait_for: Wait) -> None:
    run = commands.launch(lab_store, LONG).id
    wait_for_step(lab_store, run, 3, wait_for)
    heartbeat = liveness.heartbeat(lab_store.paths(run))
    with locked(lab_store):
        seen = len(lab_store.events(run))
        time.sleep(6)
        beat = liveness.heartbeat(lab_store.paths(run))
        assert heartbeat is not None
        assert beat is not None
        assert beat.step > heartbeat.step + 5
        assert len(lab_store.events(run)) == seen  # its events are pending
        assert status(lab_store, run) is Status.RUNNING
        assert supervisor.is_supervised(lab_store)
    wait_for_step(lab_store, run, int(beat.step), wait_for)
    recorded = steps(lab_store, run)
    assert recorded == list(range(1, len(recorded) + 1))  # none is missing or duplicated
    commands.stop(lab_store, run, now=True)


def test_the_end_of_a_run_is_recorded_after_a_lock(lab_store: RunStore, wait_for: Wait) -> None:
    run = commands.launch(lab_store, LONG).id
    wait_for_step(lab_store, run, 3, wait_for)
    commands.stop(lab_store, run)
    with locked(lab_store):
        wait_for(
            lambda: liveness.read_exit_record(lab_store.paths(run)) is not None, describe(lab_store, run), seconds=90
        )
        time.sleep(1)
    wait_for(lambda: status(lab_store, run).is_over, describe(lab_store, run))
    assert status(lab_store, run) is Status.STOPPED
    recorded = steps(lab_store, run)
    assert recorded == list(range(1, len(recorded) + 1))
    assert lab_store.last(run, Evaluation).step == recorded[-1]


@contextmanager
def locked(store: RunStore) -> Iterator[None]:
    """Lock the store as another process would."""
    db = sqlite3.connect(database(store.folder), isolation_level=None, timeout=30)
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        db.execute("ROLLBACK")
        db.close()


def test_pending_events_survive_a_kill_and_a_resume(lab_store: RunStore, wait_for: Wait, often_saved: None) -> None:
    """A resumed run does not report events before its checkpoint again, so they must be kept."""
    run = commands.launch(lab_store, WHOLE).id
    files = lab_store.paths(run)
    wait_for_step(lab_store, run, 10, wait_for)
    with locked(lab_store):
        wait_for(lambda: files.checkpoint_after(2).exists(), describe(lab_store, run))
        os.kill(lab_store.run(run).pid, signal.SIGKILL)
        wait_for(lambda: not is_alive(files))
        assert lab_store.last(run, Evaluation) is None
    wait_for(lambda: status(lab_store, run) is Status.LOST, describe(lab_store, run))
    assert lab_store.last(run, Evaluation).epoch == 2
    assert not files.pending_events.exists()
    commands.resume(lab_store, run)
    wait_for(lambda: status(lab_store, run).is_over, describe(lab_store, run))
    assert status(lab_store, run) is Status.FINISHED, describe(lab_store, run)()
    assert steps(lab_store, run) == list(range(1, 201))  # none is missing or duplicated
    assert [s.event.epoch for s in lab_store.events(run, Evaluation)] == [2, 4]


def test_a_store_locked_beyond_the_end_gets_all_events_later(
    lab_store: RunStore, wait_for: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAE_LAB_END_SECONDS", "0.5")
    run = commands.launch(lab_store, dataclasses.replace(WHOLE, epochs=1, evaluations=1)).id
    files = lab_store.paths(run)
    wait_for_step(lab_store, run, 3, wait_for)
    with locked(lab_store):
        wait_for(lambda: not is_alive(files), describe(lab_store, run))
        assert liveness.read_exit_record(files).status is Status.FINISHED
        assert lab_store.last(run, Evaluation) is None
    wait_for(lambda: status(lab_store, run) is Status.FINISHED, describe(lab_store, run))
    assert steps(lab_store, run) == list(range(1, 51))
    assert lab_store.last(run, Evaluation).epoch == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill the free space."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        file.writelines(itertools.repeat(b"x" * 4096))
    return ballast


def test_a_full_disk_fails_the_run_with_that_reason_and_loses_nothing(
    small_disk: Path, wait_for: Wait, often_saved: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAE_LAB_END_SECONDS", "5")
    store = RunStore(small_disk / "lab")
    try:
        run = commands.launch(store, LONG).id
        wait_for_step(store, run, 20, wait_for)
        seen = [s.event for s in store.events(run)]
        ballast = fill(small_disk)
        wait_for(lambda: not is_alive(store.paths(run)), describe(store, run))
        # the store could not be written, but there is an exit record
        actual = liveness.derived(store, store.run(run))
        assert (actual.status, actual.reason) == (Status.FAILED, "the disk is full: free some space and resume the run")
        assert [s.event for s in store.events(run)][: len(seen)] == seen
        ballast.unlink()
        supervisor.ensure(store)
        wait_for(lambda: status(store, run) is Status.FAILED, describe(store, run))
        commands.resume(store, run)
        wait_for(lambda: store.last(run, Resumed) is not None or status(store, run).is_over, describe(store, run))
        assert status(store, run) is Status.RUNNING, describe(store, run)()
        wait_for_step(store, run, len(seen) + 20, wait_for)
        recorded = steps(store, run)
        assert recorded == list(range(1, len(recorded) + 1))
    finally:
        clear(store)


def test_launching_on_a_full_disk_is_an_error_and_leaves_no_partial_run(small_disk: Path) -> None:
    store = RunStore(small_disk / "lab")
    kept = store.enqueue(LONG, "cuda").id
    store.move(kept, Status.STOPPED)
    ballast = fill(small_disk)

    def launch_many() -> None:
        for _ in range(50):
            commands.launch(store, LONG)

    with pytest.raises((sqlite3.Error, OSError, StoreError)):
        launch_many()
    ballast.unlink()
    after = RunStore(small_disk / "lab")
    assert after.trouble() is None
    assert kept in [run.id for run in after.runs()]
    clear(after)


# ---------------------------------------------------------------- concurrent users


def test_concurrent_actions_of_two_people(lab_store: RunStore, wait_for: Wait) -> None:
    """In any order: at most one process per run, no run twice, and the store works afterwards."""
    runs = [commands.launch(lab_store, LONG).id for _ in range(3)]
    problems: list[BaseException] = []
    began = threading.Barrier(4)

    def press(number: int) -> None:
        buttons = [commands.resume, commands.stop, lambda s, r: commands.stop(s, r, now=True),
                   lambda s, r: s.reorder(r, "first"), commands.delete, lambda s, r: supervisor.ensure(s)]  # fmt: skip
        began.wait()
        for i in range(24):
            button, run = buttons[(i * (number + 1) + number) % len(buttons)], runs[i % 3]
            try:
                button(lab_store, run)
            except StoreError:
                pass  # one sentence for the later call
            except BaseException as error:
                problems.append(error)

    people = [threading.Thread(target=press, args=(number,)) for number in range(4)]
    for person in people:
        person.start()
    for person in people:
        person.join(timeout=120)
    assert problems == []
    left = [run.id for run in lab_store.runs()]
    assert len(left) == len(set(left))
    assert set(left) <= set(runs)
    for run in left:
        commands.stop(lab_store, run, now=True)
    wait_for(lambda: not lab_store.open_runs(), lambda: lab_store.runs())
    assert not any(is_alive(lab_store.paths(run)) for run in runs)
    last = commands.launch(lab_store, dataclasses.replace(LONG, plan=dense(1), max_seconds=0.001)).id
    wait_for(lambda: status(lab_store, last).is_over, describe(lab_store, last))
    assert status(lab_store, last) is Status.FINISHED
    wait_for(lambda: not is_alive(lab_store.paths(last)))


LAUNCHER = """
import sys, time
from pathlib import Path
from mlae_lab.runs import commands
from mlae_lab.runs.store import RunStore
from tests.runs.test_faults import LONG
print(commands.launch(RunStore(Path(sys.argv[1])), LONG).id, flush=True)
time.sleep(600)
"""


def test_a_run_outlives_the_server_that_started_it(lab_store: RunStore, wait_for: Wait, root: Path) -> None:
    """Ctrl-C reaches the whole process group of a terminal, SIGKILL the server alone; neither reaches the run."""
    server = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(lab_store.folder)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert server.stdout is not None
    run = server.stdout.readline().strip()
    wait_for_step(lab_store, run, 3, wait_for)
    os.killpg(server.pid, signal.SIGINT)
    os.killpg(server.pid, signal.SIGKILL)
    server.communicate()
    seen = lab_store.last(run, TrainStep).step
    wait_for_step(lab_store, run, seen + 5, wait_for)
    assert supervisor.is_supervised(lab_store)
    assert status(lab_store, run) is Status.RUNNING
    assert commands.stop(lab_store, run, now=True) is Status.STOPPED
