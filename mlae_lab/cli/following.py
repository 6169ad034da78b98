"""Following runs in the terminal until they are over."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from mlae_lab.cli.output import print_json, print_result
from mlae_lab.core.events import Evaluation, Resumed, SearchGeneration, Started
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import commands, supervisor
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.report import report
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore


def follow(store: RunStore, run: Run) -> Run:
    """Print start, evaluations, search and resumption of a run until it is over; return it as it is then."""
    earlier, known = store.events(run.id)[-1:], run.config.data_notes
    last = earlier[0].id if earlier else 0
    is_reported = False
    while True:
        supervisor.ensure(store)
        run = derived(store, store.run(run.id))
        is_reported = is_reported or (run.status is Status.QUEUED and report_supervisor(store))
        for stored in store.events(run.id, Started, Resumed, SearchGeneration, Evaluation, after=last):
            last, event = stored.id, stored.event
            if isinstance(event, Started):
                owner = "expert" if run.config.has_mask else "method"
                print(
                    f"{event.train_images} images, {event.parameters:,} {owner} and {event.head_parameters:,} head "
                    f"parameters, {event.steps} steps on {event.device} in {event.precision}",
                    flush=True,
                )
                for note in event.notes:
                    print(f"note: {note}", file=sys.stderr)
            elif isinstance(event, Resumed):
                print("  ".join([f"resumed after step {event.step}", *event.notes]), flush=True)
            elif isinstance(event, SearchGeneration):
                print(
                    f"search generation {event.generation:>3} of {event.generations}   best {event.best:5.1f} %   mean "
                    f"{event.mean:5.1f} %   {event.candidates} candidates on {event.images} images   best has "
                    f"{event.parameters:,} parameters   {event.seconds:6.1f} s",
                    flush=True,
                )
            else:
                print(
                    f"epoch {event.epoch:>4}   {event.split} accuracy {event.accuracy:5.1f} %   loss {event.loss:.3f}"
                    f"   {event.seconds:6.1f} s",
                    flush=True,
                )
        if run.status.is_over:
            for note in run.config.data_notes:  # the images may have changed in the queue
                if note not in known:
                    print(f"note: {note}", file=sys.stderr)
            return run
        time.sleep(0.2)


def follow_all(store: RunStore, runs: Sequence[Run]) -> None:
    """Follow several runs to their end, one after the other."""
    for run in runs:
        print(f"run {run.id}: {run.config.what}, seed {run.config.seed}", flush=True)
        follow(store, run)


def print_failures(store: RunStore, runs: Sequence[Run], log_lines: int = 0) -> int:
    """Print the reason of each run that failed or was lost to standard error.

    Args:
        store: Holds the runs.
        runs: Runs that are over.
        log_lines: How many lines of the end of its log to print for each.

    Returns:
        The exit status: 1 if any failed or was lost, else 0.
    """
    status = 0
    for run in [derived(store, store.run(run.id)) for run in runs]:
        if run.status in (Status.FAILED, Status.LOST):
            status = 1
            print(f"run {run.id} {run.status.value}: {run.reason}", file=sys.stderr)
            for line in commands.log_tail(store, run.id, log_lines) if log_lines else ():
                print(f"    {line}", file=sys.stderr)
    return status


def follow_to_end(args: argparse.Namespace, store: RunStore, run: Run, cost: str = "") -> int:
    """Follow a run that was enqueued here, or leave it with --detach; return the exit status of the command.

    Args:
        args: Of the command.
        store: Of the run.
        run: As it was enqueued.
        cost: What it is estimated to take, printed first.
    """
    if args.detach:
        result = {
            "run": run.id, "status": run.status.value, "config_hash": run.config_hash,
            "data_notes": list(run.config.data_notes),
        }  # fmt: skip
        return print_result(args, result, run.id)
    try:
        print(f"run {run.id} is {run.status.value} on {run.device}; Ctrl-C leaves it running", flush=True)
        if cost:
            print(cost, flush=True)
        run = follow(store, run)
    except KeyboardInterrupt:
        print(
            f"\nrun {run.id} continues without this terminal: `{PROGRAM} runs {run.id}` shows it, "
            f"`{PROGRAM} stop {run.id}` stops it"
        )
        return print_json({"run": run.id, "status": store.run(run.id).status.value}) if args.json else 0
    result = report(store, run)
    status = print_failures(store, [run], log_lines=40)
    if args.json:
        print_json(result)
    return status


def report_supervisor(store: RunStore) -> bool:
    """Say on standard error that the supervisor is stalled, and what helps. Returns whether it is."""
    if (stalled := supervisor.stalled(store)) is None:
        return False
    print(f"the supervisor is stalled: {stalled.state}. To fix it, {stalled.cure}", file=sys.stderr)
    return True
