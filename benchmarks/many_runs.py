"""Server time of the pages with many runs.

    python -m benchmarks many_runs [--runs 3,40,1000] [--store DIR]

A store is filled with finished runs of 20 masks and methods on the bundled tasks, each with the events of a run of 8
epochs and 104 steps. Forty runs are a study of ten settings with four seeds; from 480 runs on, one study has twenty
settings with twelve seeds. Times are those of one process without the browser, by the clock and of the processor:

    first    the script of the page in a new session, after others have read the runs that are over
    again    the script as the page refreshes itself
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from mlae_lab.core import catalog
from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import paper_patterns, uniform
from mlae_lab.core.study_of_runs import study_of
from mlae_lab.runs import paths
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore

EPOCHS, STEPS = 8, 13  # 800 images in batches of 64
ARMS, SEEDS = 10, 4  # of a study
TASKS = tuple(task.name for task in catalog.TASKS if task.bundled)
TAGS = (("baseline",), ("checked", "paper"), (), ("lecture",))
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def settings() -> list[RunConfig]:
    """Twenty different settings."""
    masks = [pattern.plan for pattern in paper_patterns()][:12] + [uniform(rate) for rate in (0.1, 0.3, 0.5, 0.7)]
    base = RunConfig("digits", epochs=EPOCHS, learning_rate=5e-3, device="cpu")
    return [
        *(replace(base, plan=plan) for plan in masks),
        *(replace(base, method=name) for name in ("linear", "lora", "bitfit", "ssf")),
    ]


def run_configs(count: int) -> Iterator[RunConfig]:
    """The settings of so many runs: study by study, and in it seed by seed."""
    known = settings()
    for number in range(count):
        study, cell = divmod(number, ARMS * SEEDS)
        arm, seed = cell % ARMS, cell // ARMS + SEEDS * (study // (2 * len(TASKS)))
        yield replace(known[study % 2 * ARMS + arm], task=TASKS[study // 2 % len(TASKS)], seed=seed)


def run_events(config: RunConfig, generator: random.Random) -> list[tuple[float, ev.Event]]:
    """Steps, evaluations and statistics of a run, with accuracies that rise to a random value."""
    best, now = generator.uniform(60, 95), time.time()
    events: list[ev.Event] = [ev.Started(24_576, 1_290, 2_477_632, 800, 200, EPOCHS * STEPS, "cpu", "float32", 1.2)]
    for epoch in range(1, EPOCHS + 1):
        for step in range((epoch - 1) * STEPS + 1, epoch * STEPS + 1):
            events.append(ev.TrainStep(step, epoch, 2.0 / step, 50.0, 1e-3, 48, 0.12 * step))
        accuracy = round(best * epoch / EPOCHS, 1)
        events.append(ev.Evaluation(epoch, epoch * STEPS, "val", accuracy, 1.0, 0.12 * epoch * STEPS))
        if config.has_mask:
            canvas = tuple(tuple(0.5 if kept else None for kept in row) for row in config.plan.keep)
            events.append(ev.ExpertStats(epoch, canvas, canvas, canvas, canvas))
            rows = tuple(0.1 if sum(kept) > 1 else None for kept in config.plan.keep)
            matrices = tuple(((1.0,) * sum(kept),) * sum(kept) for kept in config.plan.keep)
            events.append(ev.SimilarityStats(epoch, rows, rows, matrices, rows, rows))
    return [(now, event) for event in events]


def fill(folder: Path, count: int) -> RunStore:
    """A new store with so many finished runs, and studies of them."""
    store, generator = RunStore(folder), random.Random(0)
    runs = []
    for number, config in enumerate(run_configs(count)):
        run_id = "".join(generator.choice(ALPHABET) for _ in range(8))
        started = time.time() - (count - number) * 90
        name = f"{config.task} sweep {number}" if number % 5 == 0 else ""
        run = Run(
            run_id, started, config, config.hash, Status.FINISHED, "", "cpu", None, started, started + 60,
            owner=f"cli:{'ada' if number % 3 else 'ben'}", name=name, tags=TAGS[number % len(TAGS)],
        )  # fmt: skip
        store.insert(run, run_events(config, generator))
        store.paths(run_id).folder.mkdir(parents=True)
        runs.append(run)
    groups = [runs[first : first + ARMS * SEEDS] for first in range(0, count, ARMS * SEEDS)]
    if count >= 12 * ARMS * SEEDS:
        groups.append([run for run in runs if run.config.task == TASKS[0] and run.config.seed < 12])
    for group in groups:
        add_study(store, group)
    with closing(sqlite3.connect(paths.database(folder))) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return store


def add_study(store: RunStore, runs: list[Run]) -> str:
    """Store the study that runs make; returns its id."""
    study = study_of([run.config for run in runs])
    stored = store.add_study(study, runs[0].owner)
    of_config = {run.config.hash: run.id for run in runs}
    store.set_study_cells(stored.id, {(cell.arm, cell.seed): of_config[cell.config.hash] for cell in study.cells()})
    return stored.id


@dataclass(frozen=True)
class Address:
    """A page with the parameters of its address. name: in the table."""

    name: str
    page: str
    query: dict[str, str]


def addresses(store: RunStore) -> list[Address]:
    """The pages that list runs, and those of one run, a pair and a study."""
    runs, studies = store.runs(), store.studies()
    known = [
        Address("Home", "home", {}),
        Address("Runs", "runs", {}),
        Address("Runs, filtered, in groups", "runs", {"where": "drop_rate>=0.3", "group": "mask", "sort": "-accuracy"}),
        Address("Studies", "studies", {}),
        Address("Race", "race", {}),
        Address("Compare, choose A", "compare", {}),
        Address("Compare, choose B", "compare", {"a": runs[-1].id}),
        Address("Compare", "compare", {"a": runs[-1].id, "b": runs[-2].id}),
        Address("Experts", "experts", {"run": runs[-1].id}),
        Address("Experts, seeds", "experts", {"run": runs[-1].id, "view": "seeds"}),
        Address("Train, one run", "train", {"run": runs[-1].id}),
    ]
    of_size = {stored.study.runs: stored for stored in studies}
    for size in sorted(of_size):
        known.append(Address(f"Study of {size}", "studies", {"study": of_size[size].id}))
    return known


def timed(do: Callable[[], object], times: int = 1) -> tuple[float, float]:
    """The median seconds that a call takes: by the clock, of the processor."""
    taken = []
    for _ in range(times):
        begin, cpu = time.perf_counter(), time.process_time()
        do()
        taken.append((time.perf_counter() - begin, time.process_time() - cpu))
    return median(clock for clock, _ in taken), median(cpu for _, cpu in taken)


def measure(store: RunStore) -> Iterator[tuple[str, tuple[float, float], tuple[float, float]]]:
    """The times of each page, first and again (`timed`)."""
    from streamlit import config as streamlit_config
    from streamlit.testing.v1 import AppTest

    from mlae_lab.locations import PACKAGE, PAGES
    from mlae_lab.ui import queries

    os.environ["MLAE_LAB_STORE"] = str(store.folder)
    streamlit_config.set_option("server.address", "127.0.0.1")
    AppTest.from_file(str(PACKAGE / "app.py"), default_timeout=120).run()  # imports

    for address in addresses(store):
        for warm in (True, False):  # what a process does once is no time of a session
            queries.refresh()
            test = AppTest.from_file(str(PACKAGE / "app.py"), default_timeout=120)
            test.switch_page(str(PAGES / f"{address.page}.py"))
            for name, value in address.query.items():
                test.query_params[name] = value
            first = timed(test.run)
            assert not test.exception, test.exception
            if warm:
                continue

            def again(test: AppTest = test) -> None:
                queries.refresh()
                test.run()
                assert not test.exception, test.exception

            yield address.name, first, timed(again, 5)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks many_runs")
    parser.add_argument("--runs", default="3,40,1000", help="sizes of the stores, separated by commas")
    parser.add_argument("--store", type=Path, default=None, help="a store to measure in their place; it is only read")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="many_runs_") as folder:
        if args.store is not None:
            stores = iter([RunStore(args.store)])
        else:
            stores = (fill(Path(folder) / count / "lab", int(count)) for count in args.runs.split(","))
        for store in stores:
            print(f"{len(store.runs()):,} runs, {paths.database(store.folder).stat().st_size / 1e6:.0f} MB")
            for name, first, again in measure(store):
                shown = "".join(f"{1000 * seconds:8.0f}" for seconds in (*first, *again))
                print(f"  {name:<28}{shown}   ms: first, again, each by the clock and of the processor", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
