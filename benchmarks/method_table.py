"""Every method on the bundled tasks, on the bundled backbone, with one budget (assets/method_table.jsonl).

    python -m benchmarks method_table [--workers 2] [--recipe common|own] [--tasks digits,fashion] [--seeds 0,1,2]
    python -m benchmarks method_table --figure assets/method_table.svg

Protocol test: trained on all 1,000 images, evaluated once, after the last epoch, on the test set. A run follows its
recipe in everything but epochs and batch size, which are the same for all. Finished runs are kept one by one: Ctrl-C or
a power cut loses only the runs under way, and the same command continues with the others. --figure trains nothing and
draws the results.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from benchmarks.gpu import commit, versions
from benchmarks.method_table_figure import drawn
from benchmarks.training import trained
from mlae_lab.core.machine import processor
from mlae_lab.errors import LabError
from mlae_lab.files import write_whole
from mlae_lab.runs.method_table import (
    BUDGET,
    FILE,
    METHODS,
    RECIPES,
    SEEDS,
    TASKS,
    Budget,
    Cell,
    Result,
    Start,
    TableError,
    append,
    cells,
    missing,
    read,
)
from mlae_lab.training.setup import prepare


def train(cell: Cell) -> Result:
    """Train one run to its end and evaluate it."""
    began, cpu = time.monotonic(), time.process_time()
    config = cell.config
    started, evaluation = trained(prepare(config))
    return Result(
        cell.recipe, config.method, config.task, config.seed, config.hash, round(evaluation.accuracy, 3),
        started.evaluation_images, started.parameters, started.head_parameters, started.steps,
        round(time.monotonic() - began, 1), round(time.process_time() - cpu, 1), config.command(),
    )  # fmt: skip


def start_of(name: str, arguments: Sequence[str], budget: Budget) -> Start:
    """This start of a benchmark on the CPU. name: of the benchmark."""
    return Start(
        shlex.join(["python", "-m", "benchmarks", name, *arguments]),
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), commit(), f"{processor()[0]}, {os.cpu_count()} cores",
        versions(torch.device("cpu")), budget.epochs, budget.batch_size,
    )  # fmt: skip


def complete(
    path: Path, start: Start, planned: Sequence[Cell], workers: int, work: Callable[[Cell], Result] | None = None
) -> None:
    """Train the planned runs that a file lacks and append their results.

    Args:
        path: The file.
        start: What this start of the command is.
        planned: The runs.
        workers: Processes with one thread each; 1: train in this process, with torch's threads.
        work: Trains one run, by default `train`.

    Raises:
        TableError: The file holds runs with another budget.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the file holds all runs that were finished.
    """
    table = read(path)
    other = next((entry for entry in table.starts if entry.budget != start.budget), None)
    if other is not None:
        raise TableError(
            f"{path} holds runs of {other.epochs} epochs in batches of {other.batch_size}: name another file with "
            f"--out, or add --epochs {other.epochs} --batch-size {other.batch_size}"
        )
    present = {(result.key, result.hash) for result in table.results}
    waiting = [cell for cell in planned if (cell.key, cell.config.hash) not in present]
    print(f"{len(planned) - len(waiting)} of {len(planned)} runs are in {path}", flush=True)
    if not waiting:
        return
    append(path, start)
    began = time.monotonic()
    for done, result in enumerate(_results(waiting, workers, work or train), 1):
        append(path, result)
        left = (time.monotonic() - began) / done * (len(waiting) - done)
        print(
            f"{len(planned) - len(waiting) + done:>4} / {len(planned)}  {result.task:<24}{result.method:<14}"
            f"{result.recipe:<8}seed {result.seed}  {result.accuracy:5.1f} %  {result.cpu_seconds:5.1f} s CPU, "
            f"{left / 60:.0f} minutes left",
            flush=True,
        )


def _results(waiting: Sequence[Cell], workers: int, work: Callable[[Cell], Result]) -> Iterator[Result]:
    """The results of runs as they are finished."""
    if workers == 1:
        yield from map(work, waiting)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        # a terminal sends Ctrl-C to the whole group: the workers ignore it, and this process ends them
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        futures = [pool.submit(work, cell) for cell in waiting]
        signal.signal(signal.SIGINT, handler)
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.kill()  # workers write nothing: only their runs under way are lost
            raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options, then train or draw."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes, with one thread each")
    parser.add_argument("--recipe", choices=RECIPES, help="only this one")
    for name, values in (("methods", METHODS), ("tasks", TASKS), ("seeds", SEEDS)):
        text = ",".join(map(str, values))
        parser.add_argument(f"--{name}", default=text, help=f"of {text}" if name != "seeds" else f"by default {text}")
    parser.add_argument("--epochs", type=int, default=BUDGET.epochs, help=f"of every run, by default {BUDGET.epochs}")
    parser.add_argument("--batch-size", type=int, default=BUDGET.batch_size, help=f"by default {BUDGET.batch_size}")
    parser.add_argument("--out", type=Path, default=FILE, help="the file of the results")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the results as an SVG file, train nothing")
    options = parser.parse_args(arguments)
    budget = Budget(options.epochs, options.batch_size)
    planned = cells(
        budget, options.methods.split(","), options.tasks.split(","), [int(seed) for seed in options.seeds.split(",")],
        (options.recipe,) if options.recipe else tuple(RECIPES),
    )  # fmt: skip
    start = start_of("method_table", arguments, budget)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.figure:
            write_whole(options.figure, drawn(read(options.out)))
            print(f"written to {options.figure}")
            return 0
        complete(options.out, start, list(planned), options.workers)
    except LabError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped: {options.out} holds the runs that were finished, and the same command continues", flush=True)
        return 130
    absent, of = missing(read(options.out))
    print(f"{options.out} lacks {absent} of {of} runs" if absent else f"all {of} runs are in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
