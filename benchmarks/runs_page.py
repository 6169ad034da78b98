"""Server time of the Runs page with many runs.

    python -m benchmarks runs_page [--runs 1000] [--store DIR] [--keep]

A store is filled with finished runs of 24 masks and methods on the bundled tasks, each with the events of a run of 8
epochs and 104 steps. Times are those of one process without the browser, by the clock and of the processor:

    rows, first         reading all rows with their fields
    rows, again         the same when the runs that are over are known
    page, first         the script of the page in a new session, nothing cached
    page, again         the script as the page refreshes itself
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlae_lab.core import catalog
from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import paper_patterns, uniform
from mlae_lab.runs import paths
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore

EPOCHS, STEPS = 8, 13  # 800 images in batches of 64
TASKS = tuple(task.name for task in catalog.TASKS if task.bundled)
TAGS = (("baseline",), ("checked", "paper"), (), ("lecture",))


def configs() -> list[RunConfig]:
    """24 different settings."""
    masks = [pattern.plan for pattern in paper_patterns()] + [uniform(rate) for rate in (0.1, 0.3, 0.5, 0.7)]
    base = RunConfig("digits", epochs=EPOCHS, learning_rate=5e-3)
    chosen = [replace(base, plan=plan) for plan in masks[:20]]
    return [*chosen, *(replace(base, method=name) for name in ("linear", "lora", "bitfit", "ssf"))]


def run_events(generator: random.Random) -> list[tuple[float, ev.Event]]:
    """Steps and evaluations of a run, with accuracies that rise to a random value."""
    best, now = generator.uniform(60, 95), time.time()
    events: list[ev.Event] = [ev.Started(24_576, 1_290, 2_477_632, 800, 200, EPOCHS * STEPS, "cpu", "float32", 1.2)]
    for epoch in range(1, EPOCHS + 1):
        for step in range((epoch - 1) * STEPS + 1, epoch * STEPS + 1):
            events.append(ev.TrainStep(step, epoch, 2.0 / step, 50.0, 1e-3, 48, 0.12 * step))
        accuracy = round(best * epoch / EPOCHS, 1)
        events.append(ev.Evaluation(epoch, epoch * STEPS, "val", accuracy, 1.0, 0.12 * epoch * STEPS))
    return [(now, event) for event in events]


def fill(folder: Path, count: int) -> RunStore:
    """A new store with so many finished runs."""
    store, generator = RunStore(folder), random.Random(0)
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    settings = configs()
    for number, config in enumerate(islice(cycle(settings), count)):
        run_id = "".join(generator.choice(alphabet) for _ in range(8))
        started = time.time() - (count - number) * 90
        changed = replace(config, task=TASKS[number // len(settings) % len(TASKS)], seed=number // 96)
        name = f"{changed.task} sweep {number}" if number % 5 == 0 else ""
        run = Run(
            run_id, started, changed, changed.hash, Status.FINISHED, "", "cpu", None, started, started + 60,
            owner=f"cli:{'ada' if number % 3 else 'ben'}", name=name, tags=TAGS[number % len(TAGS)],
        )  # fmt: skip
        store.insert(run, run_events(generator))
        store.paths(run_id).folder.mkdir(parents=True)
    with closing(sqlite3.connect(paths.database(folder))) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return store


def timed(do: Callable[[], object], times: int = 1) -> tuple[float, float]:
    """The median seconds that a call takes: by the clock, of the processor."""
    taken = []
    for _ in range(times):
        begin, cpu = time.perf_counter(), time.process_time()
        do()
        taken.append((time.perf_counter() - begin, time.process_time() - cpu))
    return median(clock for clock, _ in taken), median(cpu for _, cpu in taken)


def measure(store: RunStore) -> dict[str, tuple[float, float]]:
    """The times by name (`timed`)."""
    from streamlit import config as streamlit_config
    from streamlit.testing.v1 import AppTest

    from mlae_lab.locations import PACKAGE, PAGES
    from mlae_lab.runs import run_table
    from mlae_lab.ui import queries

    known: run_table.Known = {}
    times = {"rows, first": timed(lambda: run_table.rows(store, store.runs(), known))}
    times["rows, again"] = timed(lambda: run_table.rows(store, store.runs(), known), 5)
    os.environ["MLAE_LAB_STORE"] = str(store.folder)
    streamlit_config.set_option("server.address", "127.0.0.1")
    test = AppTest.from_file(str(PACKAGE / "app.py"), default_timeout=120).run()
    script = str(PAGES / "runs.py")
    other = str(PAGES / "methods.py")

    def opened() -> None:
        test.switch_page(script).run()
        assert not test.exception, test.exception

    queries.refresh()
    times["page, first"] = timed(opened)

    def again() -> None:
        queries.refresh()
        test.run()
        assert not test.exception, test.exception

    times["page, again"] = timed(again, 7)
    test.switch_page(other).run()
    return times


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks runs_page")
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument(
        "--store", type=Path, default=None, help="the folder of the store, which is filled if it is missing"
    )
    parser.add_argument("--keep", action="store_true", help="do not delete the store")
    args = parser.parse_args()
    folder = args.store or Path(tempfile.mkdtemp(prefix="runs_page_")) / "lab"
    try:
        store = RunStore(folder) if paths.database(folder).exists() else fill(folder, args.runs)
        print(f"{len(store.runs()):,} runs, {paths.database(folder).stat().st_size / 1e6:.0f} MB")
        for name, (clock, cpu) in measure(store).items():
            print(f"  {name:<14}{1000 * clock:8.0f} ms by the clock{1000 * cpu:8.0f} ms of the processor", flush=True)
    finally:
        if not args.keep and args.store is None:
            shutil.rmtree(folder.parent, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
