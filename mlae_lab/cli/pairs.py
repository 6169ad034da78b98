"""`pair` and `compare`: the difference between two runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from mlae_lab.cli.masks import add_mask_options, plan_of
from mlae_lab.cli.output import UsageError, current_owner, existing_run, print_result, run_command
from mlae_lab.cli.study import follow
from mlae_lab.core.seed_statistics import sample_size
from mlae_lab.core.study_presets import ENOUGH_SEEDS
from mlae_lab.runs import paired_curves, presets, study_results
from mlae_lab.runs.comparability import unpaired_runs_because
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.runs.studies import State


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the two commands. command: creates a subparser."""
    pair = run_command(
        command,
        "pair",
        _pair,
        "train the same run with another mask over several seeds, as a study, and report the difference",
    )
    add_mask_options(pair)
    pair.add_argument("--linear-probe", action="store_true", help="train the linear probe, too")
    pair.add_argument(
        "--seeds", type=int, default=ENOUGH_SEEDS, metavar="N", help="1 to 10 seeds, starting with the run's own"
    )
    pair.add_argument("--detach", action="store_true", help="return at once")
    compare = run_command(
        command, "compare", _compare, "report the difference between two runs, with its interval over seeds"
    )
    compare.add_argument("other", metavar="OTHER")


def _pair(args: argparse.Namespace) -> int:
    store, run = existing_run(args)
    args.mask = args.mask or "dense"
    study = presets.pair(store, run, plan_of(args, run.config.backbone), args.seeds, args.linear_probe)
    name = presets.launch(store, study, current_owner()).id
    runs = presets.runs_of(store, name, study)
    launched = {"study": name, "runs": [r.id for r in runs]}
    if args.detach:
        return print_result(args, launched, "\n".join(launched["runs"]))

    def show(args: argparse.Namespace, store: RunStore, state: State) -> int:
        a, b = (derived(store, store.run(side.id)) for side in runs[:2])
        return _print_difference(args, store, a, b, name)

    return follow(args, store, name, show, launched)


def _compare(args: argparse.Namespace) -> int:
    store, a = existing_run(args)
    return _print_difference(args, store, a, derived(store, store.run(args.other)))


def _print_difference(args: argparse.Namespace, store: RunStore, a: Run, b: Run, study: str = "") -> int:
    why_not = unpaired_runs_because(store, a, b)
    seeds = presets.compared(store, a, b)
    state = seeds.state if seeds else None
    difference = paired_curves.difference(paired_curves.pairs_of(store, state, "A", "B") if state else [])
    if seeds is None or state is None or not seeds.runs or (why_not and not difference.pairs):
        why_not = why_not or "neither has been evaluated yet"
        raise UsageError(f"runs {a.id} and {b.id} are not a pair: {why_not.rstrip('.')}")
    verdict = paired_curves.verdict(study_results.results(store, state), difference, "B")
    by_epoch = [
        {"epoch": s.epoch, "mean": s.mean, "low": s.low, "high": s.high, "pairs": s.n} for s in difference.over_epochs
    ]
    needed = sample_size(difference.last) if difference.last else None
    result = {
        "a": a.id, "b": b.id, "study": study or None, "pairs": len(difference.pairs), "difference": by_epoch,
        "verdict": verdict, "pairs_to_clear_zero": needed and needed.excludes_zero,
        "pairs_for_80_percent_power": needed and needed.power_80, "settled_by": difference.seeds_needed,
        "not_a_pair": why_not,
    }  # fmt: skip
    note = (
        f"these two runs are not a pair ({why_not}): the difference is of the pairs in their family" if why_not else ""
    )
    lines = [
        f"epoch {s.epoch:>5}   {s.mean:+6.2f} points"
        + (f"   95 % {s.low:+.2f} to {s.high:+.2f}" if s.low is not None else "")
        for s in difference.over_epochs
    ]
    return print_result(args, result, "\n".join(filter(None, [*lines, verdict, difference.seeds_needed, note])))
