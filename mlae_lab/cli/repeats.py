"""`repeats`: a run over several seeds, with mean and interval."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from mlae_lab.cli.output import current_owner, print_result, run_command, store_with_run
from mlae_lab.cli.study import follow
from mlae_lab.runs import presets, study_results
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.runs.studies import State


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `repeats`. command: creates a subparser."""
    parser = run_command(
        command, "repeats", _repeats, "train the same run with more seeds, as a study; report mean and interval"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="1 to 30 in total; without it nothing is started")
    parser.add_argument("--detach", action="store_true", help="print the runs' ids and return at once")


def _repeats(args: argparse.Namespace) -> int:
    store = store_with_run(args)
    run = store.run(args.run)
    if args.seeds is None:
        return _print_summary(args, store, run, "")
    study = presets.repeats(store, run, args.seeds)
    name = presets.launch(store, study, current_owner()).id
    launched = {"study": name, "runs": [r.id for r in presets.runs_of(store, name, study)]}
    if args.detach:
        return print_result(args, launched, "\n".join(launched["runs"]))

    def show(args: argparse.Namespace, store: RunStore, state: State) -> int:
        return _print_summary(args, store, run, name)

    return follow(args, store, name, show, launched)


def _print_summary(args: argparse.Namespace, store: RunStore, run: Run, name: str) -> int:
    seeds = presets.alone(store, run)
    results = study_results.results(store, seeds.state)
    seen = results.arms[0].statistics
    cells = [(cell, cell.run) for cell in seeds.state.cells if cell.run is not None]
    noise = study_results.noise(seen)
    result = {
        "run": run.id, "study": name or None,
        "seeds": [
            {"seed": cell.seed, "run": of_seed.id, "status": of_seed.status.value, "accuracy": cell.accuracy}
            for cell, of_seed in cells
        ],
        "not_counted": [
            {"run": other.id, "seed": other.config.seed, "reason": reason} for other, reason in seeds.excluded
        ],
        "n": results.done, "mean": seen and seen.mean, "low": seen and seen.low, "high": seen and seen.high,
        "deviation": seen and seen.deviation, "verdict": results.verdict, "noise": noise,
    }  # fmt: skip
    lines = [
        f"seed {cell.seed:>5}   {of_seed.id}   {of_seed.status.value:<9}"
        + ("" if cell.accuracy is None else f"{cell.accuracy:6.1f} %")
        for cell, of_seed in cells
    ]
    return print_result(args, result, "\n".join(filter(None, [*lines, results.verdict, noise])))
