"""`repeats`: a run over several seeds, with mean and interval."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from mlae_lab.cli.output import current_owner, print_result
from mlae_lab.cli.queries import one, store_with_runs
from mlae_lab.cli.runs import follow, tell_failures
from mlae_lab.runs import repeats
from mlae_lab.runs.store import Run, RunStore


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command. command: makes one."""
    made = one(
        command, "repeats", _repeats, "the same run over several seeds: what is missing starts; mean and interval"
    )
    made.add_argument("--seeds", type=int, metavar="N", help="1 to 30 in all; without it nothing starts")
    made.add_argument("--detach", action="store_true", help="print the runs' names and return at once")


def _repeats(args: argparse.Namespace) -> int:
    store = store_with_runs(args)
    run = store.run(args.run)
    runs: list[Run] = []
    if args.seeds is not None:
        runs = repeats.launch_repeats(store, run.id, args.seeds, current_owner())
        if args.detach:
            return print_result(args, {"runs": [r.id for r in runs]}, "\n".join(r.id for r in runs))
        try:
            for entry in runs:
                print(f"run {entry.id}: {entry.config.what}, seed {entry.config.seed}", flush=True)
                follow(store, entry)
        except KeyboardInterrupt:
            print(
                f"\nthe runs go on without this terminal: `mlae_lab repeats {run.id}` tells what they say", flush=True
            )
            return 0
    return _tell(args, store, run, runs)


def _tell(args: argparse.Namespace, store: RunStore, run: Run, started: list[Run]) -> int:
    failed = tell_failures(store, started)
    found = repeats.repeats(store, run)
    seen = found.statistics
    told = {
        "run": run.id,
        "seeds": [
            {"seed": entry.seed, "run": entry.run.id, "status": entry.run.status.value, "accuracy": entry.accuracy}
            for entry in found.seeds
        ],
        "not_counted": [{"run": other.id, "seed": other.config.seed, "reason": reason} for other, reason in found.apart],
        "n": len(found.done), "mean": seen and seen.mean, "low": seen and seen.low, "high": seen and seen.high,
        "deviation": seen and seen.deviation, "verdict": found.words, "noise": found.noise,
    }  # fmt: skip
    words = [
        f"seed {entry.seed:>5}   {entry.run.id}   {entry.run.status.value:<9}"
        + ("" if entry.accuracy is None else f"{entry.accuracy:6.1f} %")
        for entry in found.seeds
    ]
    print_result(args, told, "\n".join(filter(None, [*words, found.words, found.noise])))
    return failed
