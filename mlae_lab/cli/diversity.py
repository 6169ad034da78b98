"""`diversity`: the central experiment, whether masking makes experts less similar, in one command."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from mlae_lab.cli.following import follow, print_failures
from mlae_lab.cli.output import UsageError, current_owner, print_json, print_result, store_of
from mlae_lab.cli.settings import METHOD_OPTIONS, TASK_HELP, add_run_options, config_of
from mlae_lab.core.patterns import EXPERTS, dense
from mlae_lab.core.seed_statistics import mean_text
from mlae_lab.runs import diversity
from mlae_lab.runs.diversity import Experiment, Result
from mlae_lab.runs.store import RunStore

TASK, EPOCHS = "dsprites_loc_rendered", diversity.EPOCHS
_DIGITS = {"accuracy": 1, "absolute": 4, "signed": 4, "effective_rank": 2, "stable_rank": 2}


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `diversity`. command: creates a subparser."""
    parser = command(
        "diversity", _diversity, 'run the experiment "does masking make experts less similar?"', store=True
    )
    parser.add_argument("--task", metavar="T", help=f"{TASK_HELP} (default: {TASK})")
    parser.add_argument("--experts", type=int, default=EXPERTS, metavar="E", help="experts per layer")
    rates = ",".join(f"{rate:g}" for rate in diversity.RATES)
    parser.add_argument("--rates", default=rates, metavar="P,P,…", help="drop probabilities, each from 0 to 0.9")
    parser.add_argument(
        "--seeds", type=int, default=diversity.SEEDS, metavar="N", help="1 to 10 seeds, starting with --seed"
    )
    add_run_options(parser, without=METHOD_OPTIONS)
    parser.set_defaults(method="mlae", method_settings=None, epochs=EPOCHS, evaluations=1)  # only the last epoch counts
    parser.add_argument("--report", action="store_true", help="start nothing and report what is known")
    parser.add_argument("--detach", action="store_true", help="start the missing runs and return at once")


def _diversity(args: argparse.Namespace) -> int:
    experiment = _experiment(args)
    store = store_of(args)
    if args.report:
        return _report(args, store, experiment)
    runs = diversity.launch(store, experiment, current_owner())
    notes = list(dict.fromkeys(note for run in runs.values() for note in run.config.data_notes))
    launched = {"runs": [run.id for run in runs.values()], "command": experiment.command(), "data_notes": notes}
    if args.detach:
        return print_result(args, launched, f"{len(runs)} runs")
    try:
        for number, ((arm, rate, seed), run) in enumerate(runs.items(), 1):
            print(
                f"{number} of {len(runs)}   {diversity.ARMS[arm]}, p = {rate:g}, seed {seed}: run {run.id}", flush=True
            )
            follow(store, run)
    except KeyboardInterrupt:
        print(
            "\nthe runs continue without this terminal; the same command with --report reports what is known",
            flush=True,
        )
        return print_json(launched) if args.json else 0
    status = print_failures(store, list(runs.values()), log_lines=10)
    _report(args, store, experiment)
    return status


def _experiment(args: argparse.Namespace) -> Experiment:
    try:
        rates = [float(word) for word in args.rates.split(",")]
    except ValueError:
        raise UsageError(f"--rates is {args.rates!r}: write numbers separated by commas, such as 0,0.5,0.9") from None
    args.task = args.task or ("" if args.data else TASK)
    config = config_of(args, dense())
    return diversity.experiment(config, rates, args.seeds, args.experts)


def _report(args: argparse.Namespace, store: RunStore, experiment: Experiment) -> int:
    results = diversity.result(store, experiment)
    return print_result(args, diversity.report(results), "\n".join([*table(results), "", *results.verdict]))


def table(results: Result) -> list[str]:
    """One line for each arm and p: mean and half of its 95 % interval over seeds, of every measure."""
    lines = [f"{'':<24}{'p':>4}  n" + "".join(f"{title:>24}" for title in diversity.MEASURES.values())]
    for point in results.points:
        cells = []
        for name, digits in _DIGITS.items():
            value = point.values.get(name)
            if value is None:
                cells.append(f"{'–':>24}")
                continue
            cells.append(f"{mean_text(value, digits):>24}")
        lines.append(f"{diversity.ARMS[point.arm]:<24}{point.rate:>4g}{len(point.seeds):>3}{''.join(cells)}")
    return lines
