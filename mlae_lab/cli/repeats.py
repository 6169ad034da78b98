"""`repeats`: a run over several seeds, with mean and interval."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from mlae_lab.cli.following import follow_all, print_failures
from mlae_lab.cli.output import current_owner, print_json, print_result, run_command, store_with_run
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import repeats
from mlae_lab.runs.store import Run, RunStore


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `repeats`. command: creates a subparser."""
    parser = run_command(command, "repeats", _repeats, "train the same run with more seeds; report mean and interval")
    parser.add_argument("--seeds", type=int, metavar="N", help="1 to 30 in total; without it nothing is started")
    parser.add_argument("--detach", action="store_true", help="print the runs' ids and return at once")


def _repeats(args: argparse.Namespace) -> int:
    store = store_with_run(args)
    run = store.run(args.run)
    runs: list[Run] = []
    if args.seeds is not None:
        runs = repeats.launch_repeats(store, run.id, args.seeds, current_owner())
        launched = {"runs": [r.id for r in runs]}
        if args.detach:
            return print_result(args, launched, "\n".join(launched["runs"]))
        try:
            follow_all(store, runs)
        except KeyboardInterrupt:
            print(
                f"\nthe runs continue without this terminal: `{PROGRAM} repeats {run.id}` reports their result",
                flush=True,
            )
            return print_json(launched) if args.json else 0
    return _print_summary(args, store, run, runs)


def _print_summary(args: argparse.Namespace, store: RunStore, run: Run, launched: list[Run]) -> int:
    status = print_failures(store, launched)
    summary = repeats.repeats(store, run)
    seen = summary.statistics
    result = {
        "run": run.id,
        "seeds": [
            {"seed": entry.seed, "run": entry.run.id, "status": entry.run.status.value, "accuracy": entry.accuracy}
            for entry in summary.seeds
        ],
        "not_counted": [
            {"run": other.id, "seed": other.config.seed, "reason": reason} for other, reason in summary.excluded
        ],
        "n": len(summary.done), "mean": seen and seen.mean, "low": seen and seen.low, "high": seen and seen.high,
        "deviation": seen and seen.deviation, "verdict": summary.summary, "noise": summary.noise,
    }  # fmt: skip
    lines = [
        f"seed {entry.seed:>5}   {entry.run.id}   {entry.run.status.value:<9}"
        + ("" if entry.accuracy is None else f"{entry.accuracy:6.1f} %")
        for entry in summary.seeds
    ]
    print_result(args, result, "\n".join(filter(None, [*lines, summary.summary, summary.noise])))
    return status
