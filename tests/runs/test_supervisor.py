"""Runs as real processes: they queue, train, stop, die and are accounted for."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation, ExpertStats, Saved, SimilarityStats, Started, TrainStep
from mlae_lab.core.patterns import allocation
from mlae_lab.runs import supervisor
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.runs.supervisor import is_alive, launch, log_tail, reconcile, stop

Wait = Callable[..., None]

LONG = RunConfig(
    "digits", allocation((2,), drop_rate=0.5), backbone="lab_vit_12x128.random", epochs=10_000, evaluations=1,
    batch_size=16, device="cpu", precision="float32",
)  # fmt: skip
SHORT = dataclasses.replace(LONG, max_seconds=0.001)  # one step and an evaluation


@contextmanager
def held(store: RunStore, run: str) -> Iterator[None]:
    """Hold a run's lock, as its process would."""
    lock = os.open(store.paths(run).lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def busy_device(store: RunStore, pid: int | None = None) -> Iterator[Run]:
    """A run that trains, as far as the store knows: it is claimed, its lock is held, the device is busy."""
    run = store.enqueue(SHORT, "cpu").id
    with held(store, run):
        assert store.claim(run, os.getpid() if pid is None else pid)
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


def launched(store: RunStore, config: RunConfig) -> tuple[str, subprocess.Popen]:
    """Launch a run; its name and its process."""
    run = launch(store, config)
    return run.id, supervisor._children[-1]


def over(store: RunStore, run: str) -> bool:
    """Whether a run has come to an end, be it in silence."""
    reconcile(store)
    return store.run(run).status.is_over


def told(store: RunStore, run: str) -> Callable[[], object]:
    """What a test that waits in vain should show."""
    return lambda: (store.run(run).status, store.run(run).reason, log_tail(store, run))


# ---------------------------------------------------------------- runs that train


def test_a_run_goes_to_its_end(lab_store: RunStore, wait_for: Wait) -> None:
    queued = launch(lab_store, SHORT)
    process = supervisor._children[-1]
    assert queued.status is Status.QUEUED and queued.device == "cpu"
    wait_for(lambda: over(lab_store, queued.id), told(lab_store, queued.id))
    run = lab_store.run(queued.id)
    assert (run.status, run.reason) == (Status.FINISHED, ""), log_tail(lab_store, run.id)
    assert run.pid == process.pid
    assert run.created <= run.started <= run.ended
    assert process.wait(timeout=60) == 0
    assert not is_alive(lab_store.paths(run.id))

    events = [stored.event for stored in lab_store.events(run.id)]
    assert [type(e) for e in events] == [Started, TrainStep, Evaluation, Saved, ExpertStats, SimilarityStats]
    assert SHORT.command() in lab_store.paths(run.id).log.read_text()
    reconcile(lab_store)
    assert lab_store.run(run.id) == run
    assert_adapter_gives(lab_store, run.id, events[2])


def assert_adapter_gives(store: RunStore, run: str, evaluation: Evaluation) -> None:
    """The file alone, in a fresh network, reaches the accuracy that the run reported."""
    import torch

    from mlae_lab.data.bundled import load_bundled
    from mlae_lab.data.pixels import normalised
    from mlae_lab.model.adapter_file import load_adapter, read_adapter
    from mlae_lab.model.backbones import build
    from mlae_lab.model.inject import inject

    path = store.paths(run).adapter
    assert not list(path.parent.glob("*.part"))
    adapter, config = read_adapter(path), store.run(run).config
    assert (adapter.backbone, adapter.task, adapter.classes) == (config.backbone, config.task, 10)
    model = build(adapter.backbone, adapter.classes, config.seed)
    experts = inject(model, adapter.plan, seed=123) if adapter.plan else None
    load_adapter(adapter, experts, model.head)
    part = load_bundled("digits").val
    with torch.no_grad():
        right = model.eval()(normalised(part.images, 48)).argmax(1) == torch.from_numpy(part.labels)
    assert 100 * right.double().mean().item() == pytest.approx(
        evaluation.accuracy, abs=0.6
    )  # one picture of 200 may tip over


def test_stop_and_keep_then_the_next_run_starts_by_itself(lab_store: RunStore, wait_for: Wait) -> None:
    first = launch(lab_store, LONG).id
    second = launch(lab_store, SHORT).id
    wait_for(lambda: lab_store.last(first, "step") is not None or over(lab_store, first), told(lab_store, first))
    assert lab_store.run(first).status is Status.RUNNING
    reconcile(lab_store)
    assert lab_store.run(second).status is Status.QUEUED
    assert is_alive(lab_store.paths(first)) and is_alive(lab_store.paths(second))

    assert stop(lab_store, first) in (Status.STOPPING, Status.STOPPED)
    wait_for(lambda: over(lab_store, first), told(lab_store, first))
    stopped = lab_store.run(first)
    assert (stopped.status, stopped.reason) == (Status.STOPPED, "stopped and kept")
    kinds = [stored.event.kind for stored in lab_store.events(first)]
    assert kinds[-4:] == ["evaluation", "saved", "experts", "similarity"]  # measured once, when it was asked to stop
    assert kinds.count("evaluation") == 1
    step, evaluation = lab_store.last(first, "step"), lab_store.last(first, "evaluation")
    assert evaluation.step == step.step < 10_000 * 50
    assert_adapter_gives(lab_store, first, evaluation)

    wait_for(lambda: over(lab_store, second), told(lab_store, second))
    run = lab_store.run(second)
    assert run.status is Status.FINISHED and run.started >= stopped.ended


def test_a_killed_run_is_lost_and_the_next_one_gets_its_turn(lab_store: RunStore, wait_for: Wait) -> None:
    first, process = launched(lab_store, LONG)
    second, waiting = launched(lab_store, LONG)
    wait_for(lambda: lab_store.run(first).status is Status.RUNNING or over(lab_store, first), told(lab_store, first))
    assert lab_store.run(first).pid == process.pid
    process.kill()
    process.wait(timeout=60)
    reconcile(lab_store)
    run = lab_store.run(first)
    assert run.status is Status.LOST
    assert run.reason == "its process ended while it was running without a word: the log shows its last lines"

    wait_for(lambda: lab_store.run(second).status is not Status.QUEUED, told(lab_store, second))
    assert lab_store.run(second).status in (Status.STARTING, Status.RUNNING)
    assert stop(lab_store, second, now=True) is Status.STOPPED  # killed, most likely while it loads
    assert lab_store.run(second).reason == "stopped at once"
    assert waiting.wait(timeout=60) == -signal.SIGKILL
    assert not is_alive(lab_store.paths(second))


def test_a_run_does_not_depend_on_the_folder_it_was_launched_from(
    lab_store: RunStore, wait_for: Wait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file there that is named like a module must not be imported in its place."""
    trap = tmp_path / "work"
    trap.mkdir()
    (trap / "sqlite3.py").write_text("raise ImportError('this is not the module that the lab means')")
    monkeypatch.chdir(trap)
    run, process = launched(lab_store, SHORT)
    wait_for(lambda: lab_store.run(run).status is not Status.QUEUED or process.poll() is not None, told(lab_store, run))
    assert lab_store.run(run).status is not Status.QUEUED, log_tail(lab_store, run)


# ---------------------------------------------------------------- runs that wait


def test_a_run_waits_while_the_device_is_busy(lab_store: RunStore, wait_for: Wait) -> None:
    with busy_device(lab_store):
        run = launch(lab_store, SHORT).id
        for _ in range(20):
            reconcile(lab_store)
            assert lab_store.run(run).status is Status.QUEUED
            assert is_alive(lab_store.paths(run))
        assert lab_store.run(run).pid is None
    wait_for(lambda: lab_store.run(run).status is not Status.QUEUED, told(lab_store, run))


def test_a_cancelled_run_never_starts(lab_store: RunStore) -> None:
    with busy_device(lab_store):
        run, process = launched(lab_store, SHORT)
        assert stop(lab_store, run) is Status.STOPPED
    assert process.wait(timeout=60) == 0  # the device is free now, and it goes all the same
    found = lab_store.run(run)
    assert (found.status, found.reason) == (Status.STOPPED, "cancelled before its turn came")
    assert found.started is None and found.pid is None
    assert lab_store.events(run) == [] and not lab_store.paths(run).adapter.exists()


def test_a_waiting_run_that_is_killed_is_lost(lab_store: RunStore) -> None:
    with busy_device(lab_store):
        run, process = launched(lab_store, SHORT)
        process.kill()
        process.wait(timeout=60)
        reconcile(lab_store)
        found = lab_store.run(run)
        assert found.status is Status.LOST
        assert found.reason.startswith("its process ended before its turn came")


def test_a_lost_run_does_not_hold_up_the_queue(lab_store: RunStore, wait_for: Wait) -> None:
    """The one that waits behind it finds out by itself; nobody else looks."""
    with busy_device(lab_store):
        first, process = launched(lab_store, SHORT)
        process.kill()
        process.wait(timeout=60)
        second = launch(lab_store, SHORT).id
    wait_for(lambda: lab_store.run(second).status is not Status.QUEUED, told(lab_store, second))
    assert lab_store.run(first).status is Status.LOST


def test_a_deleted_run_is_forgotten_by_its_process(lab_store: RunStore) -> None:
    with busy_device(lab_store):
        run, process = launched(lab_store, SHORT)
        stop(lab_store, run)
        lab_store.delete(run)
        assert process.wait(timeout=60) == 0
    assert not lab_store.paths(run).folder.exists()


def test_asked_to_end_by_the_system_a_waiting_run_says_so(lab_store: RunStore, wait_for: Wait) -> None:
    with busy_device(lab_store) as busy:
        run, waiting = launched(lab_store, SHORT)
        # its signal handlers stand once it has looked around: it is the one that finds this run lost
        probe = lab_store.enqueue(SHORT, "cuda").id
        wait_for(lambda: lab_store.run(probe).status is Status.LOST, told(lab_store, run))
        waiting.send_signal(signal.SIGINT)  # not for it: somebody pressed Ctrl-C in some terminal
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(timeout=60) == 0
        assert lab_store.run(busy.id).status is Status.RUNNING
    assert (lab_store.run(run).status, lab_store.run(run).reason) == (Status.STOPPED, "cancelled before its turn came")


def test_no_moment_in_which_a_starting_run_looks_dead(lab_store: RunStore) -> None:
    """Between the row in the store and the process somebody else may look, here in the worst moment."""

    class Watched(RunStore):
        def enqueue(self, *arguments: object, **named: object) -> Run:
            run = super().enqueue(*arguments, **named)  # type: ignore[arg-type]
            reconcile(self)
            return run

    with busy_device(lab_store):
        run = launch(Watched(lab_store.folder), SHORT).id
        assert lab_store.run(run).status is Status.QUEUED
        stop(lab_store, run)


def test_a_run_whose_process_cannot_start_has_failed(lab_store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(OSError):
        launch(lab_store, SHORT)
    (run,) = lab_store.runs()
    assert run.status is Status.FAILED
    assert "could not be started" in run.reason and "/nowhere/python" in run.reason


# ---------------------------------------------------------------- a pid is a hint only


def test_a_pid_that_now_names_another_process_is_never_signalled(
    lab_store: RunStore, sleeper: subprocess.Popen
) -> None:
    with busy_device(lab_store, pid=sleeper.pid) as run:
        assert stop(lab_store, run.id, now=True, patience=0.3) is Status.STOPPING  # the lock is held: something lives
        assert sleeper.poll() is None
    dead = lab_store.enqueue(SHORT, "cpu").id
    assert lab_store.claim(dead, sleeper.pid)
    assert stop(lab_store, dead, now=True) is Status.STOPPED  # the lock is free: nothing to kill
    assert sleeper.poll() is None


def test_a_pid_that_now_names_another_run_is_never_signalled(lab_store: RunStore) -> None:
    with busy_device(lab_store) as busy:
        other, process = launched(lab_store, SHORT)
        run = lab_store.enqueue(SHORT, "cuda").id
        with held(lab_store, run):
            assert lab_store.claim(run, process.pid)
            assert stop(lab_store, run, now=True, patience=0.3) is Status.STOPPING
        assert process.poll() is None and is_alive(lab_store.paths(other))
        stop(lab_store, other)
        assert lab_store.run(busy.id).status is Status.RUNNING


def test_a_live_pid_does_not_keep_a_dead_run_alive(lab_store: RunStore, sleeper: subprocess.Popen) -> None:
    run = lab_store.enqueue(SHORT, "cpu").id
    assert lab_store.claim(run, sleeper.pid)
    lab_store.move(run, Status.RUNNING)
    assert not is_alive(lab_store.paths(run))
    reconcile(lab_store)
    assert lab_store.run(run).status is Status.LOST
    assert sleeper.poll() is None


# ---------------------------------------------------------------- looking


def test_a_run_that_was_asked_to_stop_and_is_gone_is_stopped_not_lost(lab_store: RunStore) -> None:
    run = lab_store.enqueue(SHORT, "cpu").id
    assert lab_store.claim(run, 1)
    lab_store.move(run, Status.STOPPING)
    reconcile(lab_store)
    assert (lab_store.run(run).status, lab_store.run(run).reason) == (Status.STOPPED, "stopped at once")


class Changing(RunStore):
    """A store in which something happens right after somebody listed the runs."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def runs(self) -> list[Run]:
        found = super().runs()
        self.meanwhile()
        return found


def test_a_run_that_is_stopped_at_once_while_somebody_looks_is_stopped_not_lost(lab_store: RunStore) -> None:
    run = lab_store.enqueue(SHORT, "cpu").id
    assert lab_store.claim(run, 1)
    lab_store.move(run, Status.RUNNING)
    changing = Changing(lab_store.folder)
    changing.meanwhile = lambda: lab_store.move(run, Status.STOPPING)
    reconcile(changing)
    assert lab_store.run(run).status is Status.STOPPED


def test_a_run_that_is_deleted_while_somebody_looks_is_no_error(lab_store: RunStore) -> None:
    """A run that waits looks all the time: it must not die of another one's end."""
    run = lab_store.enqueue(SHORT, "cpu").id
    changing = Changing(lab_store.folder)
    changing.meanwhile = lambda: (lab_store.move(run, Status.STOPPED), lab_store.delete(run))
    reconcile(changing)
    assert lab_store.runs() == []


def test_looking_whether_a_run_lives_does_not_disturb_it(lab_store: RunStore) -> None:
    run = lab_store.enqueue(SHORT, "cpu").id
    files = lab_store.paths(run)
    assert not is_alive(files)
    with held(lab_store, run):
        assert all(is_alive(files) for _ in range(100))
    assert not is_alive(files)


def test_what_is_over_stays_as_it_is(lab_store: RunStore) -> None:
    runs = []
    for status in (Status.FINISHED, Status.STOPPED, Status.FAILED, Status.LOST):
        run = lab_store.enqueue(SHORT, "cpu").id
        lab_store.move(run, status, "as it was")
        runs.append(lab_store.run(run))
    reconcile(lab_store)
    for run in runs:
        assert lab_store.run(run.id) == run
        assert stop(lab_store, run.id) is run.status and stop(lab_store, run.id, now=True) is run.status


def test_the_tail_of_a_log(lab_store: RunStore) -> None:
    run = lab_store.enqueue(SHORT, "cpu").id
    assert log_tail(lab_store, run) == []
    lab_store.paths(run).log.write_bytes(b"".join(b"line %d \xff\n" % i for i in range(20_000)))
    assert log_tail(lab_store, run, 2) == ["line 19998 \ufffd", "line 19999 \ufffd"]
    assert len(log_tail(lab_store, run)) == 40
