"""`diversity`: the central experiment, whether masking makes experts less alike, in one command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from mlae_lab.cli.output import UsageError, current_owner, print_result, store_of
from mlae_lab.cli.runs import follow
from mlae_lab.cli.settings import add_run_options, config_of
from mlae_lab.core.patterns import EXPERTS, dense
from mlae_lab.runs import commands, diversity
from mlae_lab.runs.diversity import Experiment, Found
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore

TASK, EPOCHS = "dsprites_loc_rendered", diversity.EPOCHS
_DIGITS = {"accuracy": 1, "absolute": 4, "signed": 4, "effective_rank": 2, "stable_rank": 2}


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command. command: makes one."""
    made = command(
        "diversity", _diversity, "does masking make experts less alike: train what is missing, and tell", store=True
    )
    made.add_argument("--task", default=TASK, metavar="T", help="default: %(default)s")
    made.add_argument("--experts", type=int, default=EXPERTS, metavar="E", help="in each layer")
    made.add_argument(
        "--rates", default=",".join(f"{rate:g}" for rate in diversity.RATES), metavar="P,P,…", help="each from 0 to 0.9"
    )
    made.add_argument("--seeds", type=int, default=diversity.SEEDS, metavar="N", help="1 to 10, from --seed on")
    add_run_options(made, without=("method",))
    made.set_defaults(method="mlae", epochs=EPOCHS, evaluations=1)  # what counts is measured at the end
    made.add_argument("--report", action="store_true", help="start nothing: say what is known so far")
    made.add_argument("--detach", action="store_true", help="start what is missing and return at once")


def _diversity(args: argparse.Namespace) -> int:
    asked = _asked(args)
    store = store_of(args)
    if args.report:
        return _report(args, store, asked)
    runs = diversity.launch(store, asked, current_owner())
    if args.detach:
        return print_result(
            args, {"runs": [run.id for run in runs.values()], "command": asked.command()}, f"{len(runs)} runs"
        )
    try:
        for number, ((arm, rate, seed), run) in enumerate(runs.items(), 1):
            print(
                f"{number} of {len(runs)}   {diversity.ARMS[arm]}, p = {rate:g}, seed {seed}: run {run.id}", flush=True
            )
            follow(store, run)
    except KeyboardInterrupt:
        print("\nthe runs go on without this terminal; the same command with --report says what is known", flush=True)
        return 0
    failed = [run for run in (derived(store, store.run(run.id)) for run in runs.values())
              if run.status in (Status.FAILED, Status.LOST)]  # fmt: skip
    for run in failed:
        print(f"run {run.id} {run.status.value}: {run.reason}", file=sys.stderr)
        for line in commands.log_tail(store, run.id, 10):
            print(f"    {line}", file=sys.stderr)
    _report(args, store, asked)
    return 1 if failed else 0


def _asked(args: argparse.Namespace) -> Experiment:
    try:
        rates = [float(word) for word in args.rates.split(",")]
    except ValueError:
        raise UsageError(f"--rates {args.rates!r}: write numbers with commas between them, such as 0,0.5,0.9") from None
    config = config_of(args, dense())
    return diversity.experiment(config, rates, args.seeds, args.experts)


def _report(args: argparse.Namespace, store: RunStore, asked: Experiment) -> int:
    now = diversity.found(store, asked)
    return print_result(args, diversity.told(now), "\n".join([*table(now), "", *now.verdict]))


def table(now: Found) -> list[str]:
    """One line for each arm and p: mean and half of its 95 % interval over seeds, of every measure."""
    lines = [f"{'':<24}{'p':>4}  n" + "".join(f"{title:>24}" for title in diversity.MEASURES.values())]
    for point in now.points:
        cells = []
        for name, digits in _DIGITS.items():
            found = point.values.get(name)
            if found is None:
                cells.append(f"{'–':>24}")
                continue
            reach = "" if found.low is None or found.high is None else f" ± {(found.high - found.low) / 2:.{digits}f}"
            cells.append(f"{f'{found.mean:.{digits}f}{reach}':>24}")
        lines.append(f"{diversity.ARMS[point.arm]:<24}{point.rate:>4g}{len(point.seeds):>3}{''.join(cells)}")
    return lines
