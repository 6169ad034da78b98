"""`pair` and `compare`: the difference between two runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from mlae_lab.cli.following import follow_all, print_failures
from mlae_lab.cli.masks import add_mask_options, plan_of
from mlae_lab.cli.output import UsageError, current_owner, existing_run, print_json, print_result, run_command
from mlae_lab.core.seed_statistics import sample_size
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import pairs
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.store import Run, RunStore


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the two commands. command: creates a subparser."""
    pair = run_command(
        command, "pair", _pair, "train the same run with another mask over several seeds and report the difference"
    )
    add_mask_options(pair, required=True)
    pair.add_argument("--seeds", type=int, default=3, metavar="N", help="1 to 10 seeds, starting with the run's own")
    pair.add_argument("--detach", action="store_true", help="return at once")
    compare = run_command(
        command, "compare", _compare, "report the difference between two runs, with its interval over seeds"
    )
    compare.add_argument("other", metavar="OTHER")


def _pair(args: argparse.Namespace) -> int:
    store, run = existing_run(args)
    plan = plan_of(args, run.config.backbone)
    runs = pairs.launch_pair(store, run.id, plan, args.seeds, current_owner())
    launched = {"runs": [r.id for r in runs]}
    if args.detach:
        return print_result(args, launched, "\n".join(launched["runs"]))
    try:
        follow_all(store, runs)
    except KeyboardInterrupt:
        print(f"\nthe runs continue without this terminal: `{PROGRAM} compare {runs[0].id} {runs[1].id}` compares them")
        return print_json(launched) if args.json else 0
    status = print_failures(store, runs)
    return max(status, _print_difference(args, store, runs[0], runs[1]))


def _compare(args: argparse.Namespace) -> int:
    store, a = existing_run(args)
    return _print_difference(args, store, a, derived(store, store.run(args.other)))


def _print_difference(args: argparse.Namespace, store: RunStore, a: Run, b: Run) -> int:
    why_not = pairs.unpaired_runs_because(store, a, b)
    difference = pairs.difference(pairs.family(store, a, b))
    if not pairs.sides(store, a, b) or (why_not and not difference.pairs):
        why_not = why_not or "neither has been evaluated yet"
        raise UsageError(f"runs {a.id} and {b.id} are not a pair: {why_not.rstrip('.')}")
    by_epoch = [
        {"epoch": s.epoch, "mean": s.mean, "low": s.low, "high": s.high, "pairs": s.n} for s in difference.over_epochs
    ]
    seeds = sample_size(difference.last) if difference.last else None
    result = {
        "a": a.id, "b": b.id, "pairs": len(difference.pairs), "difference": by_epoch, "verdict": difference.verdict,
        "pairs_to_clear_zero": seeds and seeds.excludes_zero, "pairs_for_80_percent_power": seeds and seeds.power_80,
        "settled_by": difference.seeds_needed, "not_a_pair": why_not,
    }  # fmt: skip
    note = (
        f"these two runs are not a pair ({why_not}): the difference is of the pairs in their family" if why_not else ""
    )
    lines = [
        f"epoch {s.epoch:>5}   {s.mean:+6.2f} points"
        + (f"   95 % {s.low:+.2f} to {s.high:+.2f}" if s.low is not None else "")
        for s in difference.over_epochs
    ]
    return print_result(
        args, result, "\n".join(filter(None, [*lines, difference.verdict, difference.seeds_needed, note]))
    )
