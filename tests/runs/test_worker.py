"""The process of a run, mostly called in this process: how it ends and what it leaves."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import signal
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import (
    Evaluation,
    ExpertStats,
    Resumed,
    SearchGeneration,
    SimilarityStats,
    Started,
    Statistics,
    TrainStep,
)
from mlae_lab.core.patterns import allocation
from mlae_lab.runs import commands, worker
from mlae_lab.runs.archive_file import export, import_run
from mlae_lab.runs.event_writer import EventWriter
from mlae_lab.runs.paths import RunPaths, database
from mlae_lab.runs.report import report
from mlae_lab.runs.run_start import environment_before, kept_precision
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore, StoreError
from mlae_lab.training.checkpoint import Checkpoint, TrainPosition, read_checkpoint, save_checkpoint
from mlae_lab.training.setup import prepare
from mlae_lab.training.statistics import Statistic
from mlae_lab.training.trainer import Training
from mlae_lab.ui import live_bench, queries
from tests.lab import few_images

SHORT = RunConfig(
    "own:few",
    allocation((2,)),
    backbone="lab_vit_12x128.random",
    epochs=1,
    batch_size=16,
    device="cpu",
    precision="float32",
    data=str(few_images()),
)


@pytest.fixture
def work(lab_store: RunStore) -> Iterator[Callable[[RunConfig], tuple[int, str]]]:
    """Claim a run and be its process: exit status and id of the run; restores signal handlers."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    locks = []

    def go(
        config: RunConfig, slot: str = "cpu", before: Callable[[RunPaths], object] = lambda files: None
    ) -> tuple[int, str]:
        run = lab_store.enqueue(config, slot.partition(":")[0]).id
        before(lab_store.paths(run))
        lab_store.claim(run, slot)
        locks.append(os.open(lab_store.paths(run).lock, os.O_RDWR | os.O_CREAT))
        fcntl.flock(locks[-1], fcntl.LOCK_EX)
        return worker.main([str(lab_store.folder), run, str(locks[-1])]), run

    yield go
    for number, handler in before.items():
        signal.signal(number, handler)
    for lock in locks:
        os.close(lock)


def test_a_diverging_run_fails_with_a_sentence_and_a_traceback(
    work: Callable[[RunConfig], tuple[int, str]], lab_store: RunStore, capfd: pytest.CaptureFixture[str]
) -> None:
    """With this decay every step multiplies the parameters by about -99, so they overflow soon."""
    status, name = work(dataclasses.replace(SHORT, learning_rate=10.0, weight_decay=10.0))
    run = lab_store.run(name)
    assert status == 1
    assert run.status is Status.FAILED
    assert run.reason.startswith("diverged: the ")
    assert "try a learning rate below 10" in run.reason
    assert "Traceback" in capfd.readouterr().err  # this process's standard error is the run's log
    steps = [stored.event for stored in lab_store.events(name, TrainStep)]
    assert [e.step for e in steps] == list(range(1, len(steps) + 1))
    assert f"at step {len(steps) + 1} " in run.reason  # every step before the end is recorded


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use this machine's GPU")
def test_a_run_on_a_gpu_that_torch_cannot_use_notes_that_it_trains_on_the_cpu(
    work: Callable[..., tuple[int, str]], lab_store: RunStore
) -> None:
    _, name = work(dataclasses.replace(SHORT, device="auto"), "cuda:0")
    started = lab_store.last(name, Started)
    assert started.device == "cpu"
    assert worker.NO_GPU in started.notes
    assert lab_store.run(name).status is Status.FINISHED
    _, name = work(SHORT)
    assert lab_store.last(name, Started).notes == ()


def test_a_run_without_data_fails_with_the_error_of_the_data(
    work: Callable[[RunConfig], tuple[int, str]], lab_store: RunStore, capfd: pytest.CaptureFixture[str]
) -> None:
    status, name = work(dataclasses.replace(SHORT, task="cifar"))
    run = lab_store.run(name)
    assert (status, run.status) == (1, Status.FAILED)
    assert run.reason.startswith("CIFAR-100 (cifar) has no data here")
    assert "Traceback" not in capfd.readouterr().err  # the images are wrong, not the code
    assert lab_store.events(name) == []


def test_a_run_that_was_cancelled_before_its_process_started(lab_store: RunStore, work: Callable) -> None:
    class Cancelled(RunStore):
        def claim(self, run: str, slot: str) -> bool:
            return self.move(run, Status.STOPPED, "cancelled")

    lab_store.__class__ = Cancelled
    status, name = work(SHORT)
    assert status == 0
    assert lab_store.run(name).reason == "cancelled"
    assert lab_store.events(name) == []


def test_steps_are_written_in_batches_and_other_events_at_once(lab_store: RunStore) -> None:
    run = lab_store.enqueue(SHORT, "cpu").id
    writer = EventWriter(lab_store, run)
    step = TrainStep(1, 1, 2.3, 10.0, 1e-3, 0, 0.0)
    writer.last = float("inf")  # as if the last write was a moment ago, during the whole test
    writer.add(step)
    assert lab_store.events(run) == []
    writer.add(Evaluation(1, 1, "val", 10.0, 2.3, 0.1))
    assert [stored.event.kind for stored in lab_store.events(run)] == ["step", "evaluation"]
    writer.last = float("-inf")  # long ago
    writer.add(dataclasses.replace(step, step=2))
    assert [stored.event.kind for stored in lab_store.events(run)] == ["step", "evaluation", "step"]
    writer.flush()
    assert len(lab_store.events(run)) == 3


def test_a_branched_run_without_its_checkpoint_does_not_start_from_scratch(
    work: Callable[..., tuple[int, str]], lab_store: RunStore
) -> None:
    """As an imported run, whose file does not contain the parent's checkpoint."""
    with lab_store._connection(write=True) as db:
        db.execute(
            "CREATE TRIGGER branched AFTER INSERT ON runs BEGIN UPDATE runs SET relation = 'branched', parent = "
            "'aaaabbbb'; END"
        )
    status, name = work(SHORT)
    run = lab_store.run(name)
    assert (status, run.status) == (1, Status.FAILED)
    message = (
        "was branched from a checkpoint of run aaaabbbb, which is missing here: branch from a checkpoint in this store"
    )
    assert run.reason == f"run {name} {message}"
    assert lab_store.last(name, TrainStep) is None
    with pytest.raises(StoreError, match=message):
        commands.resume(lab_store, name)
    assert lab_store.run(name).status is Status.FAILED


TWO_EPOCHS = dataclasses.replace(  # of two steps each; only the last block trains
    SHORT, plan=allocation((0,) * 11 + (2,)), epochs=2, batch_size=100, precision="auto"
)


@pytest.fixture(scope="module")
def after_one_epoch() -> Checkpoint:
    """The checkpoint of `TWO_EPOCHS` after its first epoch."""
    training = Training(prepare(TWO_EPOCHS))
    for event in training.run():
        if isinstance(event, Evaluation):
            break
    return training.checkpoint()


def test_a_run_that_resumes_on_another_cpu_keeps_its_precision_and_has_a_note(
    work: Callable[..., tuple[int, str]], lab_store: RunStore, after_one_epoch: Checkpoint
) -> None:
    here = after_one_epoch.environment
    other = "float32" if here["precision"] == "bfloat16" else "bfloat16"
    environment = {**here, "cpu": "another kind", "precision": other}
    elsewhere = dataclasses.replace(after_one_epoch, environment=environment)
    status, name = work(TWO_EPOCHS, before=lambda files: save_checkpoint(files.checkpoint, elsewhere))
    assert (status, lab_store.run(name).status) == (0, Status.FINISHED), lab_store.run(name).reason
    (started,), (resumed,) = lab_store.events(name, Started), lab_store.events(name, Resumed)
    assert started.event.precision == other
    (note,) = resumed.event.notes
    assert "(before: another kind)" in note
    assert f"The precision {other} is kept" in note
    assert report(lab_store, lab_store.run(name))["notes"] == [note]
    newest = read_checkpoint(lab_store.paths(name).checkpoint)
    assert newest.environment["precision"] == other


def test_a_checkpoint_of_an_earlier_version_has_the_precision_of_the_first_start(lab_store: RunStore) -> None:
    run = lab_store.enqueue(TWO_EPOCHS, "cpu")
    start = Checkpoint(TWO_EPOCHS, TrainPosition(1, 1, 1, 0.1, 1), {})
    lab_store.append(run.id, [Started(1, 1, 1, 800, 200, 4, "cuda:0", "bfloat16", 0.1)])
    before = environment_before(lab_store, run, start, "")
    assert before == {"device": "cuda", "precision": "bfloat16"}
    assert kept_precision(TWO_EPOCHS, before) == "bfloat16"
    assert kept_precision(SHORT, before) == ""  # it names its precision
    assert environment_before(lab_store, run, start, "aaaabbbb") == {}  # a branch is a new run


def test_a_last_checkpoint_that_does_not_fit_is_skipped(
    work: Callable[..., tuple[int, str]], lab_store: RunStore, after_one_epoch: Checkpoint
) -> None:
    other = dataclasses.replace(after_one_epoch, config=dataclasses.replace(TWO_EPOCHS, batch_size=16))

    def place(files: RunPaths) -> None:
        save_checkpoint(files.checkpoint, other)
        files.checkpoint_after(1).parent.mkdir()
        save_checkpoint(files.checkpoint_after(1), after_one_epoch)

    status, name = work(TWO_EPOCHS, before=place)
    assert (status, lab_store.run(name).status) == (0, Status.FINISHED), lab_store.run(name).reason
    (resumed,) = lab_store.events(name, Resumed)
    assert resumed.event.step == 2
    assert resumed.event.notes == ("Checkpoint checkpoint.safetensors was skipped: it does not fit the run.",)
    status, name = work(TWO_EPOCHS, before=lambda files: save_checkpoint(files.checkpoint, other))
    assert lab_store.run(name).reason.startswith("the checkpoint does not fit: its batch size is 16")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (sqlite3.OperationalError("database or disk is full"), "the disk is full: free some space and resume the run"),
        (sqlite3.OperationalError("database is locked"), "the store was locked by another program for too long"),
    ],
)
def test_a_run_that_fails_before_loading_has_a_reason(
    error: Exception,
    message: str,
    work: Callable[..., tuple[int, str]],
    lab_store: RunStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object) -> None:
        raise error

    monkeypatch.setattr(worker.pending_events, "deliver", refused)
    status, name = work(SHORT)
    run = lab_store.run(name)
    assert (status, run.status) == (1, Status.FAILED)
    assert run.reason.startswith(message)
    assert lab_store.events(name) == []  # a new event would make pending events look delivered


def test_a_resumed_run_writes_no_event_twice(lab_store: RunStore) -> None:
    run = lab_store.enqueue(SHORT, "cpu").id
    started = Started(1, 2, 3, 4, 5, 6, "cpu", "float32", 0.5)
    canvas = ((0.5,),)
    stats = [
        ExpertStats(1, canvas, canvas, canvas, canvas),
        SimilarityStats(1, (None,), (None,), (((1.0,),),)),
        Statistics(1, 2, {"one": 0.5}),
    ]
    steps = [TrainStep(n, 1, 2.3, 10.0, 1e-3, 0, 0.0) for n in range(1, 5)]
    first = EventWriter(lab_store, run)
    for event in (started, *steps[:2], *stats, Evaluation(1, 2, "val", 10.0, 2.3, 0.1), steps[2]):
        first.add(event)
    first.flush()
    recorded = [stored.event for stored in lab_store.events(run)]
    second = EventWriter(lab_store, run)  # from the checkpoint after step 1
    for event in (started, Resumed(1, 1, 0.1), steps[1], *stats, Evaluation(1, 2, "val", 10.0, 2.3, 9.0), *steps[2:]):
        second.add(event)
    second.add(stats[0])  # held back until its evaluation
    second.flush()
    assert [stored.event for stored in lab_store.events(run)] == [*recorded, Resumed(1, 1, 0.1), steps[3]]


def test_a_generation_is_recorded_once(lab_store: RunStore) -> None:
    run = lab_store.enqueue(SHORT, "cpu").id
    generations = [
        SearchGeneration(1, 4, n, 3, 4 * n, 10, 60.0, 50.0, 9, 1.0, ("A",), (("1",),), ((1.0,),)) for n in (1, 2, 3)
    ]
    for events in (generations[:2], generations[1:]):  # the second process starts before the second generation
        writer = EventWriter(lab_store, run)
        for event in events:
            writer.add(event)
        writer.flush()
    assert [stored.event for stored in lab_store.events(run)] == generations


def test_training_does_not_wait_for_a_locked_store(lab_store: RunStore) -> None:
    run = lab_store.enqueue(SHORT, "cpu").id
    writer = EventWriter(lab_store, run)
    db = sqlite3.connect(database(lab_store.folder), isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    for number in range(1, 4):
        writer.last = float("-inf")
        writer.add(TrainStep(number, 1, 2.3, 10.0, 1e-3, 0, 0.0))
    assert lab_store.events(run) == []
    assert len(writer.waiting) == 3
    db.execute("COMMIT")
    db.close()
    writer.flush()
    assert [stored.event.step for stored in lab_store.events(run)] == [1, 2, 3]
    assert writer.waiting == []


def test_a_new_statistic_reaches_store_bench_report_and_archive(
    work: Callable[..., tuple[int, str]], lab_store: RunStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    statistic = Statistic("seeds_eaten", lambda setup: [0.5] * setup.config.plan.rows, "Seeds eaten", "grams")
    monkeypatch.setattr("mlae_lab.training.trainer.STATISTICS", (statistic,))
    status, name = work(SHORT)
    assert status == 0
    event = lab_store.last(name, Statistics)
    assert event is not None
    assert event.values == {"seeds_eaten": (0.5,) * SHORT.plan.rows}
    run = lab_store.run(name)
    assert report(lab_store, run)["statistics"] == dict(event.values)

    monkeypatch.setattr(queries, "store", lambda: lab_store)
    tail = queries.Tail(name)
    tail.update()
    (sent,) = json.loads(zlib.decompress(live_bench.message(run, tail, live_bench.BenchText())))["statistics"]
    assert sent["name"] == "seeds-eaten"
    assert "Seeds eaten: mean 0.5" in sent["alt"]
    assert sent["figure"]["layout"]["yaxis"]["title"]["text"] == "grams"

    other = RunStore(tmp_path / "other")
    export(lab_store, name, tmp_path / "run.mlae")
    imported = import_run(other, tmp_path / "run.mlae")
    assert other.last(imported.id, Statistics) == event
