"""Sections of the GPU benchmark that go through the queue: a real store, its supervisor and a worker process."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks.timing import Measurement
from mlae_lab.core.config import RunConfig
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.events import Evaluation, Resumed, SampleImages, Saved, TrainStep
from mlae_lab.core.patterns import allocation
from mlae_lab.runs import commands, supervisor
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore

STEPS_BEFORE_STOP = 10
POLL_SECONDS = 0.2  # no measured time depends on it: the store has the moments
RELEASE_SECONDS = 10.0  # the driver frees a killed process's memory within a moment; waited for at most so long


class RunError(Exception):
    """A run that did not do what the benchmark expects."""


@contextmanager
def temporary_store() -> Iterator[RunStore]:
    """A store in a temporary folder; on leaving, its runs are killed and its supervisor has ended."""
    with tempfile.TemporaryDirectory(prefix="mlae-benchmark-", ignore_cleanup_errors=True) as folder:
        store = RunStore(Path(folder) / "store")
        try:
            yield store
        finally:
            deadline = time.monotonic() + 15
            for run in store.open_runs():
                commands.stop(store, run.id, now=True)
            while supervisor.is_supervised(store) and time.monotonic() < deadline:
                time.sleep(0.1)


@contextmanager
def _ending(store: RunStore, run: str) -> Iterator[None]:
    """On leaving, the run has ended: whatever goes wrong, it does not train while the next section measures."""
    try:
        yield
    finally:
        if not store.run(run).status.is_over:
            commands.stop(store, run, now=True)


def default_run(device: str, quick: bool) -> RunConfig:
    """The lab's first run; if quick, one epoch of it with experts in the last block alone, which makes steps cheap."""
    config = replace(FIRST_RUN, device=device)
    return replace(config, plan=allocation((0,) * 11 + (8,)), epochs=1, evaluations=1) if quick else config


def first_run(store: RunStore, device: str, quick: bool) -> Iterator[Measurement]:
    """The default run on the bundled backbone, from launch to end."""
    config = default_run(device, quick)
    launched = time.time()
    run = commands.launch(store, config)
    with _ending(store, run.id):
        _wait_for(store, run.id, lambda: store.run(run.id).status is Status.FINISHED)
    steps = [stored.event for stored in store.events(run.id, TrainStep)]
    ready = store.events(run.id, SampleImages)[0].time
    # a step is stored up to half a second late, so its own clock counts, which starts when the images are stored
    yield Measurement("launch to first step", ready + steps[0].seconds - launched, "s")
    step_seconds = statistics.median(later.seconds - earlier.seconds for earlier, later in pairwise(steps))
    yield Measurement(f"training, median of {len(steps)} steps", 1 / step_seconds, "steps/s")
    yield Measurement("launch to end", _ended(store, run.id) - launched, "s")
    evaluation = store.last(run.id, Evaluation)
    assert evaluation is not None
    yield Measurement(f"accuracy after {config.epochs} epochs", evaluation.accuracy, "%")


def stop_and_resume(store: RunStore, device: str, quick: bool) -> Iterator[Measurement]:
    """Stop a run, resume it, then *Stop now*, with the device memory in use before, during and after.

    The memory is all that is in use on the GPU, as its driver reports it; on a CPU, the resident size of the worker.
    """
    before = _memory_in_use(device)
    run = commands.launch(store, replace(default_run(device, quick), epochs=10_000, evaluations=1)).id
    with _ending(store, run):
        _wait_for(store, run, lambda: _last_step(store, run) >= STEPS_BEFORE_STOP)
        requested = time.time()
        commands.stop(store, run)
        _wait_for(store, run, lambda: store.run(run).status is Status.STOPPED)
        yield Measurement("Stop: request to stopped", _ended(store, run) - requested, "s")
        saved = store.last(run, Saved)
        assert saved is not None

        requested = time.time()
        commands.resume(store, run)
        _wait_for(store, run, lambda: _last_step(store, run) > saved.step)
        resumed, first = _resumed(store, run, saved)
        yield Measurement("Resume: request to next step", resumed + first.seconds - requested, "s")
        yield Measurement("first step after resuming", first.step, "")

        worker = store.run(run)
        during = _memory_in_use(device, worker)
        if during <= before:
            raise RunError(
                f"{during} bytes are in use while the run trains and {before} before: its memory is not visible"
            )
        began = time.monotonic()
        commands.stop(store, run, now=True)
        yield Measurement("Stop now: request to process ended", time.monotonic() - began, "s")
    while (after := _memory_in_use(device, worker)) > before + (during - before) / 50:
        if time.monotonic() - began > RELEASE_SECONDS:
            break
        time.sleep(0.01)
    yield Measurement("Stop now: request to memory freed", time.monotonic() - began, "s")
    for name, used in (("before the run", before), ("while training", during), ("after Stop now", after)):
        yield Measurement(f"memory in use {name}", used / 2**20, "MiB")
    yield Measurement("memory freed", 100 * (during - after) / (during - before), "%")


def _resumed(store: RunStore, run: str, saved: Saved) -> tuple[float, TrainStep]:
    """When the resumed run was ready, and its first step, timed from then.

    Raises:
        RunError: if the run skips a step or repeats one.
    """
    resumed = store.events(run, Resumed)[-1]
    first = next(stored.event for stored in store.events(run, TrainStep) if stored.event.step > saved.step)
    if (resumed.event.step, first.step) != (saved.step, saved.step + 1):
        raise RunError(
            f"the run was saved at step {saved.step}, resumed at step {resumed.event.step} "
            f"and continued with step {first.step}"
        )
    return resumed.time, replace(first, seconds=first.seconds - resumed.event.seconds)


def _ended(store: RunStore, run: str) -> float:
    ended = store.run(run).ended
    assert ended is not None
    return ended


def _last_step(store: RunStore, run: str) -> int:
    step = store.last(run, TrainStep)
    return step.step if step else 0


def _wait_for(store: RunStore, run: str, condition: Callable[[], bool]) -> None:
    """Wait until a condition holds. Raises RunError for a run that ends without it."""
    while not condition():
        ended = store.run(run)
        if ended.status.is_over and not condition():
            log = " ".join(commands.log_tail(store, run, 3))
            raise RunError(f"the run is {ended.status.value} ({ended.reason}): {log}")
        time.sleep(POLL_SECONDS)


def _memory_in_use(device: str, run: Run | None = None) -> int:
    """Bytes in use on the GPU; on a CPU, of the process of a run, 0 without one."""
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        return total - free
    try:
        pages = Path(f"/proc/{run.pid if run else None}/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
