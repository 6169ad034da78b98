"""A study whose processes are killed at random ends with the numbers of an undisturbed one.

    python -m benchmarks study_kills [--arms 10] [--seeds 4] [--kills 10] [--seed 0]

Both studies train the same short runs on Digits on the CPU, each in a new store. In the second, at random moments the
process of the active run, the supervisor or both at once get SIGKILL; after each kill the study is started again, as
`study resume` does. Compared are every accuracy, the validation loss of every evaluation and the numbers of all steps.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import struct
import time
from collections import Counter
from contextlib import suppress

from benchmarks.gpu_runs import temporary_store
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation, TrainStep
from mlae_lab.core.patterns import allocation
from mlae_lab.core.study import Study, product
from mlae_lab.runs import paths, studies, supervisor
from mlae_lab.runs.store import RunStore

# Only the last block has experts, so that a step is cheap.
BASE = RunConfig(
    "digits", allocation((0,) * 11 + (4,), drop_rate=0.5), epochs=1, evaluations=1, batch_size=16, device="cpu",
    precision="float32",
)  # fmt: skip
STEPS = 50  # of each run: 800 images in batches of 16
VICTIMS = ("run", "supervisor", "run and supervisor")
Numbers = dict[tuple[str, int], tuple[float, tuple[float, ...], tuple[int, ...]]]


def planned(arms: int, seeds: int) -> Study:
    """A study with `arms` drop rates and `seeds` seeds."""
    rates = [f"{number / arms:g}" for number in range(arms)]
    return Study("Killed at random", product(BASE, {"drop_rate": rates})[0], tuple(range(seeds)))


def trained(store: RunStore, study: Study, kills: int = 0, seed: int = 0) -> tuple[Numbers, Counter[str]]:
    """Train a study to its end.

    Args:
        store: An empty store.
        study: The study.
        kills: How many times processes are killed.
        seed: Of the moments and the victims.

    Returns:
        (arm, seed) to accuracy, losses and steps; and what was killed how many times.
    """
    chosen, killed = random.Random(seed), Counter[str]()
    name = studies.new(store, study).id
    os.environ["MLAE_LAB_SAVE_SECONDS"] = "0.5"  # a run resumes from within an epoch
    moments = sorted(chosen.uniform(0.02, 0.9) for _ in range(kills))  # as shares of all steps
    while True:
        supervisor.ensure(store)
        state = studies.state(store, name)
        if state.done == len(state.cells):
            break
        if moments and _progress(store, state) >= moments[0]:
            victim = chosen.choice(VICTIMS)
            if _kill(store, victim):
                killed[victim] += 1
                del moments[0]
        if state.is_over or killed:
            with suppress(studies.StoreError):  # it is still stopping
                studies.start(store, name)
        time.sleep(0.1)
    return {
        (cell.arm, cell.seed): (
            cell.accuracy or 0.0,
            tuple(stored.event.loss for stored in store.events(cell.run.id, Evaluation)),
            tuple(stored.event.step for stored in store.events(cell.run.id, TrainStep)),
        )
        for cell in state.cells
        if cell.run is not None
    }, killed


def _progress(store: RunStore, state: studies.State) -> float:
    """The share of a study's steps that are made."""
    active = [cell.run.id for cell in state.cells if cell.accuracy is None and cell.run is not None]
    steps = [last.step for name in active if isinstance(last := store.last(name, TrainStep), TrainStep)]
    return (state.done + sum(steps) / STEPS) / len(state.cells)


def _kill(store: RunStore, victim: str) -> bool:
    """Kill processes at once. Returns whether there were any."""
    pids = []
    if "supervisor" in victim and supervisor.is_supervised(store):
        with suppress(OSError, struct.error):
            pids.append(struct.unpack("<dq", paths.supervisor_lock(store.folder).read_bytes())[1])
    if "run" in victim.split():
        pids += [run.pid for run in store.open_runs() if run.pid and supervisor.is_worker(run.pid, run.id)]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(pids)


def main() -> int:
    """Print both studies' times and what differs. Returns 1 if anything does."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--arms", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    options = parser.parse_args()
    study = planned(options.arms, options.seeds)
    results = []
    for kills in (0, options.kills):
        began = time.monotonic()
        with temporary_store() as store:
            numbers, killed = trained(store, study, kills, options.seed)
        what = ", ".join(f"{count} × {name}" for name, count in sorted(killed.items())) or "nothing"
        print(f"{len(numbers)} runs in {time.monotonic() - began:.0f} s, killed: {what}", flush=True)
        results.append(numbers)
    differ = [cell for cell in results[0] if results[0][cell] != results[1].get(cell)]
    print(f"{len(results[0]) - len(differ)} of {len(results[0])} runs ended with equal accuracy, losses and steps")
    for arm, seed in differ:
        print(f"differs: {arm}, seed {seed}")
    return 1 if differ else 0
