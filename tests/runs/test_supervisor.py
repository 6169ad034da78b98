"""The supervisor, tick by tick in this process and as its own process."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlae_lab import locks
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import TrainStep
from mlae_lab.core.patterns import allocation
from mlae_lab.runs import commands, fork_client, liveness, paths, supervisor
from mlae_lab.runs.liveness import ExitRecord, derived, is_alive, reserve_exit_record, write_exit_record
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.runs.supervisor import Supervisor, ensure, is_supervised
from tests.lab import held, processes_of, under_way

Wait = Callable[..., None]

LONG = RunConfig(
    "digits", allocation((2,), drop_rate=0.5), backbone="lab_vit_12x128.random", epochs=10_000, evaluations=1,
    batch_size=16, device="cpu", precision="float32",
)  # fmt: skip
SHORT = dataclasses.replace(LONG, max_seconds=0.001)  # one step and an evaluation


@pytest.fixture
def supervised(lab_store: RunStore) -> Iterator[Supervisor]:
    """The store's supervisor, in this process: it acts only when `tick` is called."""
    lock = locks.take(paths.supervisor_lock(lab_store.folder))
    assert lock is not None
    yield Supervisor(lab_store, lock)
    os.close(lock)


@contextmanager
def busy_device(store: RunStore, pid: int | None = None) -> Iterator[Run]:
    """A run that trains according to the store: it is claimed, its lock is held, the device is busy."""
    run = store.enqueue(SHORT, "cpu").id
    with held(store, run):
        assert store.claim(run, "cpu")
        assert store.began(run, os.getpid() if pid is None else pid)
        store.move(run, Status.RUNNING)
        yield store.run(run)
        store.move(run, Status.FINISHED)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen]:
    """An unrelated process of the same user, in its own session."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def status(store: RunStore, run: str) -> Status:
    return store.run(run).status


# ---------------------------------------------------------------- tick by tick


def test_one_run_at_a_time_is_started_with_its_lock(supervised: Supervisor, lab_store: RunStore) -> None:
    first, second = (lab_store.enqueue(LONG, "cpu").id for _ in range(2))
    assert supervised.tick()
    assert status(lab_store, first) in (Status.STARTING, Status.RUNNING)
    assert status(lab_store, second) is Status.QUEUED
    assert is_alive(lab_store.paths(first))
    assert not is_alive(lab_store.paths(second))
    supervised.tick()
    assert status(lab_store, second) is Status.QUEUED
    supervised.processes[first].kill()
    supervised.processes[first].wait()
    supervised.tick()
    ended = lab_store.run(first)
    assert ended.status is Status.LOST
    assert "was killed by SIGKILL" in ended.reason
    assert status(lab_store, second) in (Status.STARTING, Status.RUNNING)  # a dead run does not block the queue


def test_a_run_whose_last_process_has_not_exited_stays_queued(supervised: Supervisor, lab_store: RunStore) -> None:
    run = lab_store.enqueue(LONG, "cpu").id
    with held(lab_store, run):
        supervised.tick()
        assert status(lab_store, run) is Status.QUEUED
        assert supervised.processes == {}


def test_nothing_starts_while_the_device_is_busy(supervised: Supervisor, lab_store: RunStore) -> None:
    with busy_device(lab_store):
        run = lab_store.enqueue(LONG, "cpu").id
        for _ in range(10):
            assert supervised.tick()
        assert status(lab_store, run) is Status.QUEUED


def test_a_run_whose_process_cannot_start_fails_and_the_next_one_starts(
    supervised: Supervisor, lab_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (lab_store.enqueue(SHORT, "cpu").id for _ in range(2))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    supervised.tick()
    for run in (first, second):
        failed = lab_store.run(run)
        assert failed.status is Status.FAILED
        assert "could not be started" in failed.reason
        assert "/nowhere/python" in failed.reason
        assert not is_alive(lab_store.paths(run))


def test_a_run_whose_folder_cannot_be_used_fails_and_the_next_one_starts(
    supervised: Supervisor, lab_store: RunStore
) -> None:
    first, second = (lab_store.enqueue(SHORT, "cpu").id for _ in range(2))
    lab_store.paths(first).folder.rmdir()
    lab_store.paths(first).folder.write_text("a file where its folder should be")
    supervised.tick()
    assert lab_store.run(first).status is Status.FAILED
    assert "the run's process could not be started" in lab_store.run(first).reason
    assert status(lab_store, second) is Status.STARTING


def test_an_active_run_whose_folder_cannot_be_read_blocks_no_other(
    supervised: Supervisor, lab_store: RunStore, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, dead = (under_way(lab_store, Status.RUNNING, slot=f"cuda:{n}").id for n in (0, 1))
    waits = lab_store.enqueue(SHORT, "cpu").id
    folder = lab_store.paths(bad).folder
    shutil.rmtree(folder)
    folder.symlink_to(folder)  # as a lost disk: whether its lock is held is unknown
    monkeypatch.setattr(supervisor, "is_worker", lambda pid, run: run == bad)  # and its process is alive
    for _ in range(3):
        supervised.tick()
    assert (status(lab_store, dead), status(lab_store, bad)) == (Status.LOST, Status.RUNNING)
    assert status(lab_store, waits) is not Status.QUEUED
    assert derived(lab_store, lab_store.run(bad)).status is Status.RUNNING
    assert capfd.readouterr().out.count(f"run {bad} cannot be supervised") == 1
    monkeypatch.undo()
    supervised.tick()  # its process has certainly exited and uses no device
    assert status(lab_store, bad) is Status.LOST
    assert "its folder cannot be read" in lab_store.run(bad).reason
    folder.unlink()


def test_a_dead_run_of_a_newer_version_frees_its_device(supervised: Supervisor, lab_store: RunStore) -> None:
    newer = under_way(lab_store, Status.RUNNING).id
    waits = lab_store.enqueue(SHORT, "cpu").id
    with lab_store._connection(write=True) as db:
        db.execute("UPDATE runs SET config = json_set(config, '$.dream', 1) WHERE id = ?", (newer,))
    with held(lab_store, newer):  # it is alive and uses the device
        supervised.tick()
        assert status(lab_store, waits) is Status.QUEUED
    supervised.tick()
    assert status(lab_store, waits) is Status.STARTING
    with lab_store._connection() as db:
        assert db.execute("SELECT status FROM runs WHERE id = ?", (newer,)).fetchone() == ("lost",)


def test_a_run_that_could_not_be_started_keeps_its_position(
    supervised: Supervisor, lab_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [lab_store.enqueue(SHORT, "cpu", owner=owner).id for owner in ("ada", "ada", "bob")]
    before = [run.id for run in lab_store.queue()]

    def none_left(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(supervisor, "spawn", none_left)
    for _ in range(3):
        with pytest.raises(OSError, match=os.strerror(errno.EAGAIN)):
            supervised.tick()
        supervised._account(next(run for run in lab_store.open_runs() if run.status is Status.STARTING))
        assert [run.id for run in lab_store.queue()] == before
    assert {lab_store.run(name).attempt for name in names} == {0}


@pytest.mark.parametrize("launched", [None, "", "1"])
def test_a_supervisor_started_by_a_run_has_the_environment_of_the_first_one(
    lab_store: RunStore, launched: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the device nor the data folder of that run is passed on."""
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.setenv("MLAE_LAB_DATA", "/first")
    if launched is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", launched)
    first, run = dict(os.environ), lab_store.enqueue(SHORT, "cpu", data_folder="/data of the run")
    for slot in ("cpu", "cuda:0", ""):
        passed = supervisor.environment(run, slot)
        assert passed["MLAE_LAB_DATA"] == "/data of the run"
        assert passed.get("CUDA_VISIBLE_DEVICES") == {"cpu": "", "": launched}.get(slot, "0")
        with monkeypatch.context() as environment:
            for name in first.keys() | passed.keys():
                if name in passed:
                    environment.setenv(name, passed[name])
                else:
                    environment.delenv(name)
            assert {**supervisor._as_launched(), "GOMP_SPINCOUNT": ""} == {**first, "GOMP_SPINCOUNT": ""}
            assert supervisor.environment(run, slot) == passed  # from run to run


def test_a_full_disk_fails_no_run_and_does_not_end_the_supervisor(
    supervised: Supervisor, lab_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lab_store.enqueue(SHORT, "cpu").id

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(supervisor.locks, "take", full)
    monkeypatch.setattr(supervisor.traceback, "print_exc", full)  # its log is on the same disk
    monkeypatch.setattr(supervisor.time, "sleep", lambda seconds: None)
    assert supervised._safely()
    assert status(lab_store, run) is Status.QUEUED


def test_an_exited_process_is_reaped_while_other_runs_are_queued(
    supervised: Supervisor, lab_store: RunStore, wait_for: Wait
) -> None:
    run = lab_store.enqueue(SHORT, "cpu").id
    lab_store.enqueue(LONG, "cpu")  # keeps the supervisor alive
    supervised.tick()
    pid = supervised.processes[run].pid
    wait_for(lambda: status(lab_store, run).is_over)

    def reaped() -> bool:
        supervised.tick()
        return not Path(f"/proc/{pid}").exists()

    wait_for(reaped)
    assert run not in supervised.processes


def test_a_claimed_run_whose_process_never_started_is_started_again(
    supervised: Supervisor, lab_store: RunStore
) -> None:
    """The previous supervisor was killed between the claim and the start of the process."""
    run = under_way(lab_store, Status.STARTING, pid=None).id
    supervised._account(lab_store.run(run))
    assert status(lab_store, run) is Status.QUEUED


def test_a_process_that_exits_at_once_is_lost_with_its_exit_status(
    supervised: Supervisor, lab_store: RunStore, wait_for: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not started again and again."""
    monkeypatch.setattr(supervisor, "ROOT", Path("/nowhere"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    run = lab_store.enqueue(SHORT, "cpu").id
    for _ in range(2):  # a fork, then a new process
        supervised.tick()
        wait_for(lambda: not is_alive(lab_store.paths(run)))
    wait_for(lambda: not supervised.tick(), seconds=20)
    lost = lab_store.run(run)
    assert lost.status is Status.LOST
    assert "exited before the first step without reporting a result (exit status 1)" in lost.reason


def test_the_end_of_dead_runs_is_recorded(supervised: Supervisor, lab_store: RunStore) -> None:
    running = under_way(lab_store).id
    supervised.tick()
    assert status(lab_store, running) is Status.LOST
    stopping = under_way(lab_store, Status.STOPPING).id
    supervised.tick()
    assert status(lab_store, stopping) is Status.STOPPED
    full = under_way(lab_store).id
    reserve_exit_record(lab_store.paths(full))
    write_exit_record(lab_store.paths(full), ExitRecord(Status.FAILED, "the disk is full"))
    supervised.tick()
    assert (status(lab_store, full), lab_store.run(full).reason) == (Status.FAILED, "the disk is full")


def test_a_live_pid_does_not_keep_a_dead_run_alive(
    supervised: Supervisor, lab_store: RunStore, sleeper: subprocess.Popen
) -> None:
    run = under_way(lab_store, pid=sleeper.pid).id
    supervised.tick()
    assert status(lab_store, run) is Status.LOST
    assert sleeper.poll() is None


def test_runs_that_are_over_are_not_changed(supervised: Supervisor, lab_store: RunStore) -> None:
    runs = []
    for end in (Status.FINISHED, Status.STOPPED, Status.FAILED, Status.LOST):
        run = lab_store.enqueue(SHORT, "cpu").id
        lab_store.move(run, end, "as it was")
        runs.append(lab_store.run(run))
    assert not supervised.tick()
    assert lab_store.runs() == runs[::-1]


class Changing(RunStore):
    """A store that changes right after its runs were listed."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def open_runs(self) -> list[Run]:
        runs = super().open_runs()
        self.meanwhile()
        return runs


def test_a_run_that_is_stopped_during_a_tick_is_stopped_not_lost(supervised: Supervisor, lab_store: RunStore) -> None:
    run = under_way(lab_store).id
    supervised.store = Changing(lab_store.folder)
    supervised.store.meanwhile = lambda: lab_store.move(run, Status.STOPPING)
    supervised.tick()
    assert status(lab_store, run) is Status.STOPPED


def test_a_run_that_is_deleted_during_a_tick_does_not_end_the_supervisor(
    supervised: Supervisor, lab_store: RunStore
) -> None:
    run = under_way(lab_store).id
    other = lab_store.enqueue(SHORT, "cuda").id
    supervised.store = Changing(lab_store.folder)
    supervised.store.meanwhile = lambda: lab_store.move(run, Status.STOPPED) and lab_store.delete(run)
    supervised._safely()
    lab_store.move(other, Status.STOPPED)
    assert not supervised._safely()


def test_a_run_that_does_not_stop_in_time_is_killed(
    supervised: Supervisor, lab_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process paused by SIGSTOP cannot react to the request, nor can one in a blocked read."""
    run = lab_store.enqueue(LONG, "cpu").id
    supervised.tick()
    process = supervised.processes[run]
    os.kill(process.pid, signal.SIGSTOP)
    lab_store.began(run, process.pid)
    assert commands.stop(lab_store, run) is Status.STOPPING
    supervised.tick()
    assert process.poll() is None  # it has its ten seconds
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.0)
    supervised.stopping_since[run] -= 0.01
    supervised.tick()
    supervised.tick()
    assert process.wait(timeout=20) == -signal.SIGKILL
    supervised.tick()
    assert status(lab_store, run) is Status.STOPPED


def test_a_run_is_started_afresh_if_the_fork_client_hangs(
    supervised: Supervisor, lab_store: RunStore, monkeypatch: pytest.MonkeyPatch, wait_for: Wait
) -> None:
    with tempfile.TemporaryDirectory(prefix="forks") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        monkeypatch.setattr(fork_client, "MODULES", ("quopri",))
        monkeypatch.setattr(fork_client, "START_SECONDS", 1.0)
        supervisor.warm()
        (lock,) = Path(short).rglob("*.lock")
        os.kill(int(lock.read_text()), signal.SIGSTOP)
        run = lab_store.enqueue(LONG, "cpu").id
        supervised.tick()
        assert isinstance(supervised.processes[run], fork_client.ForkedProcess)
        assert status(lab_store, run) is Status.STARTING
        wait_for(lambda: bool(supervised.tick()) and isinstance(supervised.processes.get(run), subprocess.Popen))
        wait_for(lambda: lab_store.run(run).pid is not None)


def false_worker(store: RunStore, run: str) -> subprocess.Popen:
    """A process that looks like that of a run and holds its lock, but does nothing."""
    lock = locks.take(store.paths(run).lock)
    assert lock is not None
    try:
        program = "import time; time.sleep(600)"
        return subprocess.Popen(
            [sys.executable, "-S", "-c", program, "mlae_lab.runs.worker", run], start_new_session=True, pass_fds=(lock,)
        )
    finally:
        os.close(lock)


def refuse_writes(patch: pytest.MonkeyPatch, store: RunStore, cause: str) -> None:
    """Make every write into a store fail; one that is locked waits first."""
    connect = store._connection

    @contextmanager
    def refused(write: bool = False, timeout: float = 30.0, **options: bool) -> Iterator[sqlite3.Connection]:
        if write:
            time.sleep(timeout if "locked" in cause else 0)
            raise sqlite3.OperationalError(cause)
        with connect(**options) as db:
            yield db

    patch.setattr(store, "_connection", refused)


@pytest.mark.parametrize("cause", ["database is locked", "database or disk is full"])
def test_stop_now_does_not_wait_for_a_store_that_cannot_be_written(
    cause: str, supervised: Supervisor, lab_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lab_store.enqueue(SHORT, "cpu").id
    liveness.reserve_exit_record(lab_store.paths(run))
    process = false_worker(lab_store, run)
    assert lab_store.claim(run, "cpu")
    assert lab_store.began(run, process.pid)
    lab_store.move(run, Status.RUNNING)
    began = time.monotonic()
    with monkeypatch.context() as patch:
        refuse_writes(patch, lab_store, cause)
        assert commands.stop(lab_store, run, now=True) is Status.STOPPED
        assert process.wait(timeout=5) == -signal.SIGKILL
        assert time.monotonic() - began < 5
        assert lab_store.run(run).status is Status.RUNNING  # nothing could be written
    supervised.tick()
    assert lab_store.run(run).status is Status.STOPPED
    assert lab_store.run(run).reason.startswith("stopped at once; ")


def test_stop_now_keeps_the_exit_record_of_a_run_that_waits_for_the_store(
    lab_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = liveness.ExitRecord(Status.FINISHED)
    with busy_device(lab_store) as run:  # its process cannot be killed: the stored pid is this one's
        files = lab_store.paths(run.id)
        liveness.reserve_exit_record(files)
        liveness.write_exit_record(files, finished)
        with monkeypatch.context() as patch:
            refuse_writes(patch, lab_store, "database is locked")
            commands.stop(lab_store, run.id, now=True, timeout=0.3)
        assert liveness.read_exit_record(files) == finished


def test_a_run_is_not_started_without_space_for_its_exit_record(
    supervised: Supervisor, lab_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lab_store.enqueue(SHORT, "cpu").id

    def full(files: paths.RunPaths) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(liveness, "reserve_exit_record", full)
    with pytest.raises(OSError, match="No space left"):
        supervised.tick()
    assert status(lab_store, run) is Status.QUEUED


# ---------------------------------------------------------------- reused pids


def test_a_pid_that_now_names_another_process_is_never_signalled(
    lab_store: RunStore, sleeper: subprocess.Popen
) -> None:
    with busy_device(lab_store, pid=sleeper.pid) as run:
        assert commands.stop(lab_store, run.id, now=True, timeout=0.3) is Status.STOPPING  # the lock is held
        assert sleeper.poll() is None
    dead = under_way(lab_store, pid=sleeper.pid).id
    assert commands.stop(lab_store, dead, now=True) is Status.STOPPED  # the lock is free: nothing to kill
    assert sleeper.poll() is None


def test_a_pid_that_now_names_another_run_is_never_signalled(supervised: Supervisor, lab_store: RunStore) -> None:
    other = lab_store.enqueue(LONG, "cpu").id
    supervised.tick()
    process = supervised.processes[other]
    run = lab_store.enqueue(SHORT, "cuda").id
    with held(lab_store, run):
        assert lab_store.claim(run, "cuda:0")
        assert lab_store.began(run, process.pid)
        assert commands.stop(lab_store, run, now=True, timeout=0.3) is Status.STOPPING
    assert process.poll() is None
    assert is_alive(lab_store.paths(other))


# ---------------------------------------------------------------- the process


def supervisors(store: RunStore) -> list[int]:
    """The pids of this store's supervisors."""
    return processes_of("mlae_lab.runs.supervisor", str(store.folder))


linux = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads /proc")


def test_a_paused_supervisor_is_stalled_until_it_continues(
    lab_store: RunStore, wait_for: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    with busy_device(lab_store):
        ensure(lab_store)
        assert supervisor.stalled(lab_store) is None
        monkeypatch.setattr(supervisor, "STALLED_SECONDS", 3.0)
        pid = supervisor._children[-1].pid
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: supervisor.stalled(lab_store) is not None)
        stalled = supervisor.stalled(lab_store)
        assert stalled is not None
        assert stalled.pid == pid
        assert f"kill -CONT {pid}" in stalled.cure
        os.kill(pid, signal.SIGCONT)
        wait_for(lambda: supervisor.stalled(lab_store) is None)


def test_a_supervisor_that_is_not_alive_or_writes_no_heartbeat_is_not_stalled(
    supervised: Supervisor, lab_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STALLED_SECONDS", -1.0)
    assert supervisor.stalled(lab_store) is None  # of an earlier version
    supervised.tick()
    assert supervisor.stalled(lab_store) is not None
    locks.release(supervised.lock)
    assert supervisor.stalled(lab_store) is None


@linux
def test_there_is_one_supervisor_and_it_exits_when_idle(lab_store: RunStore, wait_for: Wait) -> None:
    ensure(lab_store)
    assert supervisors(lab_store) == []  # nothing to do
    with busy_device(lab_store):
        for _ in range(5):
            ensure(lab_store)
        script = (
            "from mlae_lab.runs.store import RunStore; from mlae_lab.runs.supervisor import ensure; "
            f"from pathlib import Path; ensure(RunStore(Path({str(lab_store.folder)!r})))"
        )
        others = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(4)]
        assert [other.wait(timeout=60) for other in others] == [0] * 4
        (only,) = supervisors(lab_store)
        os.kill(only, signal.SIGINT)  # it ignores Ctrl-C in a terminal
        time.sleep(0.5)
        assert supervisors(lab_store) == [only]
        assert is_supervised(lab_store)
    wait_for(lambda: not is_supervised(lab_store), lambda: supervisors(lab_store))


@linux
def test_a_launch_during_the_exit_is_noticed(lab_store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It releases its lock and checks again for runs that were enqueued meanwhile."""
    lock = locks.take(paths.supervisor_lock(lab_store.folder))
    assert lock is not None
    leaving = Supervisor(lab_store, lock)
    assert leaving._leave()
    assert not is_supervised(lab_store)
    run = lab_store.enqueue(SHORT, "cpu").id
    assert not leaving._leave()  # the launch saw the lock held and started no supervisor
    assert is_supervised(lab_store)
    lab_store.move(run, Status.STOPPED)
    os.close(lock)


@linux
def test_a_killed_supervisor_leaves_the_run_and_another_takes_over(lab_store: RunStore, wait_for: Wait) -> None:
    first, second = (commands.launch(lab_store, LONG).id for _ in range(2))
    wait_for(lambda: status(lab_store, first) is Status.RUNNING, lambda: commands.log_tail(lab_store, first))
    (old,) = supervisors(lab_store)
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: not is_supervised(lab_store))
    steps = lab_store.last(first, TrainStep)
    assert is_alive(lab_store.paths(first))
    assert status(lab_store, second) is Status.QUEUED
    wait_for(lambda: lab_store.last(first, TrainStep) != steps)  # it continues to train
    # without readers, the run itself starts a supervisor when it ends
    os.kill(lab_store.run(first).pid, signal.SIGTERM)
    wait_for(lambda: status(lab_store, first).is_over)
    assert status(lab_store, first) is Status.STOPPED
    wait_for(lambda: status(lab_store, second) is Status.RUNNING, lambda: commands.log_tail(lab_store, second))
    (new,) = supervisors(lab_store)
    assert new != old
    # the supervisor and the run at the same time
    os.kill(new, signal.SIGKILL)
    os.kill(lab_store.run(second).pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(lab_store.paths(second)))
    ensure(lab_store)  # a reader
    wait_for(lambda: status(lab_store, second) is Status.LOST)
    reason = lab_store.run(second).reason
    assert reason.startswith("its process exited during training without reporting a result")  # the signal is unknown
    assert len(lab_store.runs()) == 2
    wait_for(lambda: not is_supervised(lab_store) and supervisors(lab_store) == [])


def test_the_supervisor_exits_if_its_store_is_deleted(lab_store: RunStore, wait_for: Wait) -> None:
    with busy_device(lab_store):
        ensure(lab_store)
        process = supervisor._children[-1]
        assert is_supervised(lab_store)
        moved = lab_store.folder.with_name("away")
        shutil.move(lab_store.folder, moved)
        wait_for(lambda: process.poll() is not None, seconds=60)
        shutil.move(moved, lab_store.folder)
