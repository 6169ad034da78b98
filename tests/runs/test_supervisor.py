"""The supervisor, tick by tick in this process and as the process that it is."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlae_lab import locks
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import TrainStep
from mlae_lab.core.patterns import allocation
from mlae_lab.runs import commands, paths, supervisor
from mlae_lab.runs.liveness import ExitRecord, derived, is_alive, reserve_exit_record, write_exit_record
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.runs.supervisor import Supervisor, ensure, is_supervised
from tests.lab import held, under_way

Wait = Callable[..., None]

LONG = RunConfig(
    "digits", allocation((2,), drop_rate=0.5), backbone="lab_vit_12x128.random", epochs=10_000, evaluations=1,
    batch_size=16, device="cpu", precision="float32",
)  # fmt: skip
SHORT = dataclasses.replace(LONG, max_seconds=0.001)  # one step and an evaluation


@pytest.fixture
def here(lab_store: RunStore) -> Iterator[Supervisor]:
    """The store's supervisor, in this process: it does something only when it is told to tick."""
    lock = locks.take(paths.supervisor_lock(lab_store.folder))
    assert lock is not None
    yield Supervisor(lab_store, lock)
    os.close(lock)


@contextmanager
def busy_device(store: RunStore, pid: int | None = None) -> Iterator[Run]:
    """A run that trains, as far as the store knows: it has its turn, its lock is held, the device is busy."""
    run = store.enqueue(SHORT, "cpu").id
    with held(store, run):
        assert store.claim(run, "cpu")
        assert store.began(run, os.getpid() if pid is None else pid)
        store.move(run, Status.RUNNING)
        yield store.run(run)
        store.move(run, Status.FINISHED)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen]:
    """An unrelated process of the same user, a session of its own."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def status(store: RunStore, run: str) -> Status:
    return store.run(run).status


# ---------------------------------------------------------------- tick by tick


def test_one_run_at_a_time_gets_its_turn_with_its_lock(here: Supervisor, lab_store: RunStore) -> None:
    first, second = (lab_store.enqueue(LONG, "cpu").id for _ in range(2))
    assert here.tick()
    assert status(lab_store, first) in (Status.STARTING, Status.RUNNING)
    assert status(lab_store, second) is Status.QUEUED
    assert is_alive(lab_store.paths(first))
    assert not is_alive(lab_store.paths(second))
    here.tick()
    assert status(lab_store, second) is Status.QUEUED
    here.processes[first].kill()
    here.processes[first].wait()
    here.tick()
    found = lab_store.run(first)
    assert found.status is Status.LOST
    assert "was killed by SIGKILL" in found.reason
    assert status(lab_store, second) in (Status.STARTING, Status.RUNNING)  # a death does not hold up the queue


def test_a_run_whose_last_process_is_not_quite_gone_waits(here: Supervisor, lab_store: RunStore) -> None:
    run = lab_store.enqueue(LONG, "cpu").id
    with held(lab_store, run):
        here.tick()
        assert status(lab_store, run) is Status.QUEUED
        assert here.processes == {}


def test_nothing_starts_while_the_device_is_busy(here: Supervisor, lab_store: RunStore) -> None:
    with busy_device(lab_store):
        run = lab_store.enqueue(LONG, "cpu").id
        for _ in range(10):
            assert here.tick()
        assert status(lab_store, run) is Status.QUEUED


def test_a_run_whose_process_cannot_start_has_failed_and_the_next_one_comes(
    here: Supervisor, lab_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (lab_store.enqueue(SHORT, "cpu").id for _ in range(2))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    here.tick()
    for run in (first, second):
        found = lab_store.run(run)
        assert found.status is Status.FAILED
        assert "could not be started" in found.reason
        assert "/nowhere/python" in found.reason
        assert not is_alive(lab_store.paths(run))


def test_a_run_whose_folder_cannot_be_used_has_failed_and_the_next_one_comes(
    here: Supervisor, lab_store: RunStore
) -> None:
    first, second = (lab_store.enqueue(SHORT, "cpu").id for _ in range(2))
    lab_store.paths(first).folder.rmdir()
    lab_store.paths(first).folder.write_text("a file where its folder should be")
    here.tick()
    assert lab_store.run(first).status is Status.FAILED
    assert "the run's process could not be started" in lab_store.run(first).reason
    assert status(lab_store, second) is Status.STARTING


def test_a_run_under_way_whose_folder_cannot_be_looked_into_stops_no_other(
    here: Supervisor, lab_store: RunStore, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, dead = (under_way(lab_store, Status.RUNNING, slot=f"cuda:{n}").id for n in (0, 1))
    waits = lab_store.enqueue(SHORT, "cpu").id
    folder = lab_store.paths(bad).folder
    shutil.rmtree(folder)
    folder.symlink_to(folder)  # as a disk that went away: whether a process holds its lock, nobody can say
    monkeypatch.setattr(supervisor, "is_worker", lambda pid, run: run == bad)  # and its process is there
    for _ in range(3):
        here.tick()
    assert (status(lab_store, dead), status(lab_store, bad)) == (Status.LOST, Status.RUNNING)
    assert status(lab_store, waits) is not Status.QUEUED
    assert derived(lab_store, lab_store.run(bad)).status is Status.RUNNING
    assert capfd.readouterr().out.count(f"run {bad} cannot be supervised") == 1
    monkeypatch.undo()
    here.tick()  # its process is gone for certain: it does not keep its device
    assert status(lab_store, bad) is Status.LOST
    assert "its folder cannot be read" in lab_store.run(bad).reason
    folder.unlink()


def test_a_dead_run_that_only_a_newer_lab_can_read_does_not_keep_its_device(
    here: Supervisor, lab_store: RunStore
) -> None:
    newer = under_way(lab_store, Status.RUNNING).id
    waits = lab_store.enqueue(SHORT, "cpu").id
    with lab_store._connection(write=True) as db:
        db.execute("UPDATE runs SET config = json_set(config, '$.dream', 1) WHERE id = ?", (newer,))
    with held(lab_store, newer):  # it lives: the device is really taken
        here.tick()
        assert status(lab_store, waits) is Status.QUEUED
    here.tick()
    assert status(lab_store, waits) is Status.STARTING
    with lab_store._connection() as db:
        assert db.execute("SELECT status FROM runs WHERE id = ?", (newer,)).fetchone() == ("lost",)


def test_a_run_that_could_not_be_started_keeps_its_place(
    here: Supervisor, lab_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [lab_store.enqueue(SHORT, "cpu", owner=owner).id for owner in ("ada", "ada", "bob")]
    before = [run.id for run in lab_store.queue()]

    def none_left(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(supervisor, "spawn", none_left)
    for _ in range(3):
        with pytest.raises(OSError, match=os.strerror(errno.EAGAIN)):
            here.tick()
        here._account(next(run for run in lab_store.open_runs() if run.status is Status.STARTING))
        assert [run.id for run in lab_store.queue()] == before
    assert {lab_store.run(name).attempt for name in names} == {0}


@pytest.mark.parametrize("launched", [None, "", "1"])
def test_a_supervisor_that_a_run_starts_sees_what_the_first_one_saw(
    lab_store: RunStore, launched: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the device nor the images of that run are those of the next."""
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.setenv("MLAE_LAB_DATA", "/first")
    if launched is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", launched)
    first, run = dict(os.environ), lab_store.enqueue(SHORT, "cpu", data_folder="/its own")
    for slot in ("cpu", "cuda:0", ""):
        its = supervisor.environment(run, slot)
        assert its["MLAE_LAB_DATA"] == "/its own"
        assert its.get("CUDA_VISIBLE_DEVICES") == {"cpu": "", "": launched}.get(slot, "0")
        with monkeypatch.context() as environment:
            for name in first.keys() | its.keys():
                if name in its:
                    environment.setenv(name, its[name])
                else:
                    environment.delenv(name)
            assert {**supervisor._as_launched(), "GOMP_SPINCOUNT": ""} == {**first, "GOMP_SPINCOUNT": ""}
            assert supervisor.environment(run, slot) == its  # and so on, from run to run


def test_a_full_disk_fails_nobody_and_does_not_end_the_supervisor(
    here: Supervisor, lab_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lab_store.enqueue(SHORT, "cpu").id

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(supervisor.locks, "take", full)
    monkeypatch.setattr(supervisor.traceback, "print_exc", full)  # its log lies on the same disk
    monkeypatch.setattr(supervisor.time, "sleep", lambda seconds: None)
    assert here._safely()
    assert status(lab_store, run) is Status.QUEUED


def test_a_process_that_ended_by_itself_is_reaped_while_others_wait(
    here: Supervisor, lab_store: RunStore, wait_for: Wait
) -> None:
    run = lab_store.enqueue(SHORT, "cpu").id
    lab_store.enqueue(LONG, "cpu")  # so that the supervisor stays
    here.tick()
    pid = here.processes[run].pid
    wait_for(lambda: status(lab_store, run).is_over)

    def reaped() -> bool:
        here.tick()
        return not Path(f"/proc/{pid}").exists()

    wait_for(reaped)
    assert run not in here.processes


def test_a_turn_that_never_began_comes_again(here: Supervisor, lab_store: RunStore) -> None:
    """The supervisor before this one was killed between writing the turn down and starting the process."""
    run = under_way(lab_store, Status.STARTING, pid=None).id
    here._account(lab_store.run(run))
    assert status(lab_store, run) is Status.QUEUED


def test_a_process_that_dies_before_its_first_word_is_lost_with_its_exit_status(
    here: Supervisor, lab_store: RunStore, wait_for: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not come again and again."""
    monkeypatch.setattr(supervisor, "ROOT", Path("/nowhere"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    run = lab_store.enqueue(SHORT, "cpu").id
    here.tick()
    wait_for(lambda: not is_alive(lab_store.paths(run)))
    here.tick()
    found = lab_store.run(run)
    assert found.status is Status.LOST
    assert "exited before the first step without reporting a result (exit status 1)" in found.reason


def test_the_dead_are_accounted_for(here: Supervisor, lab_store: RunStore) -> None:
    running = under_way(lab_store).id
    here.tick()
    assert status(lab_store, running) is Status.LOST
    stopping = under_way(lab_store, Status.STOPPING).id
    here.tick()
    assert status(lab_store, stopping) is Status.STOPPED
    full = under_way(lab_store).id
    reserve_exit_record(lab_store.paths(full))
    write_exit_record(lab_store.paths(full), ExitRecord(Status.FAILED, "the disk is full"))
    here.tick()
    assert (status(lab_store, full), lab_store.run(full).reason) == (Status.FAILED, "the disk is full")


def test_a_live_pid_does_not_keep_a_dead_run_alive(
    here: Supervisor, lab_store: RunStore, sleeper: subprocess.Popen
) -> None:
    run = under_way(lab_store, pid=sleeper.pid).id
    here.tick()
    assert status(lab_store, run) is Status.LOST
    assert sleeper.poll() is None


def test_what_is_over_stays_as_it_is(here: Supervisor, lab_store: RunStore) -> None:
    runs = []
    for end in (Status.FINISHED, Status.STOPPED, Status.FAILED, Status.LOST):
        run = lab_store.enqueue(SHORT, "cpu").id
        lab_store.move(run, end, "as it was")
        runs.append(lab_store.run(run))
    assert not here.tick()
    assert lab_store.runs() == runs[::-1]


class Changing(RunStore):
    """A store in which something happens right after somebody listed the runs."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def open_runs(self) -> list[Run]:
        found = super().open_runs()
        self.meanwhile()
        return found


def test_a_run_that_is_stopped_while_the_supervisor_looks_is_stopped_not_lost(
    here: Supervisor, lab_store: RunStore
) -> None:
    run = under_way(lab_store).id
    here.store = Changing(lab_store.folder)
    here.store.meanwhile = lambda: lab_store.move(run, Status.STOPPING)
    here.tick()
    assert status(lab_store, run) is Status.STOPPED


def test_a_run_that_is_deleted_while_the_supervisor_looks_does_not_end_it(
    here: Supervisor, lab_store: RunStore
) -> None:
    run = under_way(lab_store).id
    other = lab_store.enqueue(SHORT, "cuda").id
    here.store = Changing(lab_store.folder)
    here.store.meanwhile = lambda: lab_store.move(run, Status.STOPPED) and lab_store.delete(run)
    here._safely()
    lab_store.move(other, Status.STOPPED)
    assert not here._safely()


def test_a_run_that_does_not_end_in_time_is_ended(
    here: Supervisor, lab_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is stopped (SIGSTOP) cannot hear that it was asked to end, nor can one in a read that hangs."""
    run = lab_store.enqueue(LONG, "cpu").id
    here.tick()
    process = here.processes[run]
    os.kill(process.pid, signal.SIGSTOP)
    lab_store.began(run, process.pid)
    assert commands.stop(lab_store, run) is Status.STOPPING
    here.tick()
    assert process.poll() is None  # it has its ten seconds
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.0)
    here.stopping_since[run] -= 0.01
    here.tick()
    here.tick()
    assert process.wait(timeout=20) == -signal.SIGKILL
    here.tick()
    assert status(lab_store, run) is Status.STOPPED


# ---------------------------------------------------------------- a pid is a hint only


def test_a_pid_that_now_names_another_process_is_never_signalled(
    lab_store: RunStore, sleeper: subprocess.Popen
) -> None:
    with busy_device(lab_store, pid=sleeper.pid) as run:
        assert commands.stop(lab_store, run.id, now=True, timeout=0.3) is Status.STOPPING  # something lives
        assert sleeper.poll() is None
    dead = under_way(lab_store, pid=sleeper.pid).id
    assert commands.stop(lab_store, dead, now=True) is Status.STOPPED  # the lock is free: nothing to kill
    assert sleeper.poll() is None


def test_a_pid_that_now_names_another_run_is_never_signalled(here: Supervisor, lab_store: RunStore) -> None:
    other = lab_store.enqueue(LONG, "cpu").id
    here.tick()
    process = here.processes[other]
    run = lab_store.enqueue(SHORT, "cuda").id
    with held(lab_store, run):
        assert lab_store.claim(run, "cuda:0")
        assert lab_store.began(run, process.pid)
        assert commands.stop(lab_store, run, now=True, timeout=0.3) is Status.STOPPING
    assert process.poll() is None
    assert is_alive(lab_store.paths(other))


# ---------------------------------------------------------------- the process


def supervisors(store: RunStore) -> list[int]:
    """The pids of this store's supervisors, by their command lines."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if b"mlae_lab.runs.supervisor" in words and str(store.folder).encode() in words and state != "Z":
            found.append(int(folder.name))
    return found


linux = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads /proc")


@linux
def test_there_is_one_supervisor_whoever_starts_it_and_it_leaves(lab_store: RunStore, wait_for: Wait) -> None:
    ensure(lab_store)
    assert supervisors(lab_store) == []  # nothing to do
    with busy_device(lab_store):
        for _ in range(5):
            ensure(lab_store)
        script = f"from mlae_lab.runs.store import RunStore; from mlae_lab.runs.supervisor import ensure; from pathlib import Path; ensure(RunStore(Path({str(lab_store.folder)!r})))"
        others = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(4)]
        assert [other.wait(timeout=60) for other in others] == [0] * 4
        (only,) = supervisors(lab_store)
        os.kill(only, signal.SIGINT)  # Ctrl-C in some terminal is not for it
        time.sleep(0.5)
        assert supervisors(lab_store) == [only]
        assert is_supervised(lab_store)
    wait_for(lambda: not is_supervised(lab_store), lambda: supervisors(lab_store))


@linux
def test_whoever_comes_while_it_leaves_is_served(lab_store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lets go of its lock and looks once more: what was enqueued until then it takes on."""
    lock = locks.take(paths.supervisor_lock(lab_store.folder))
    assert lock is not None
    leaving = Supervisor(lab_store, lock)
    assert leaving._leave()
    assert not is_supervised(lab_store)
    run = lab_store.enqueue(SHORT, "cpu").id
    assert not leaving._leave()  # somebody enqueued while the lock was held and went away content
    assert is_supervised(lab_store)
    lab_store.move(run, Status.STOPPED)
    os.close(lock)


@linux
def test_a_killed_supervisor_leaves_the_run_alone_and_another_takes_over(lab_store: RunStore, wait_for: Wait) -> None:
    first, second = (commands.launch(lab_store, LONG).id for _ in range(2))
    wait_for(lambda: status(lab_store, first) is Status.RUNNING, lambda: commands.log_tail(lab_store, first))
    (old,) = supervisors(lab_store)
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: not is_supervised(lab_store))
    steps = lab_store.last(first, TrainStep)
    assert is_alive(lab_store.paths(first))
    assert status(lab_store, second) is Status.QUEUED
    wait_for(lambda: lab_store.last(first, TrainStep) != steps)  # it trains on
    # nobody looks: the run itself sees to a supervisor when it ends
    os.kill(lab_store.run(first).pid, signal.SIGTERM)
    wait_for(lambda: status(lab_store, first).is_over)
    assert status(lab_store, first) is Status.STOPPED
    wait_for(lambda: status(lab_store, second) is Status.RUNNING, lambda: commands.log_tail(lab_store, second))
    (new,) = supervisors(lab_store)
    assert new != old
    # all at once: the supervisor and the run
    os.kill(new, signal.SIGKILL)
    os.kill(lab_store.run(second).pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(lab_store.paths(second)))
    ensure(lab_store)  # somebody looks
    wait_for(lambda: status(lab_store, second) is Status.LOST)
    reason = lab_store.run(second).reason
    assert reason.startswith("its process exited during training without reporting a result")  # nobody knows the signal
    assert len(lab_store.runs()) == 2
    wait_for(lambda: not is_supervised(lab_store) and supervisors(lab_store) == [])


def test_a_store_that_is_deleted_under_it_ends_it(lab_store: RunStore, wait_for: Wait) -> None:
    with busy_device(lab_store):
        ensure(lab_store)
        process = supervisor._children[-1]
        assert is_supervised(lab_store)
        moved = lab_store.folder.with_name("away")
        shutil.move(lab_store.folder, moved)
        wait_for(lambda: process.poll() is not None, seconds=60)
        shutil.move(moved, lab_store.folder)
