"""`choose`: p, initial λ and learning rate for a task, from its train and val images within a budget."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from mlae_lab.cli.output import UsageError, check_owner, current_owner, find_store, print_result, store_of
from mlae_lab.cli.settings import TASK_HELP, add_run_options, config_of
from mlae_lab.cli.study import existing, follow, mask_text, print_plan, values_of_text
from mlae_lab.core.choice_study import (
    FACTORS,
    FINAL_SEEDS,
    LEAST_SAMPLED,
    SEEDS,
    Design,
    choice_study,
    repetitions,
    seeds_of,
    stages,
)
from mlae_lab.core.config import RunConfig
from mlae_lab.core.seed_statistics import points
from mlae_lab.core.settings import setting_of
from mlae_lab.core.study import Study, configured, named_plan
from mlae_lab.data.tasks import located
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import choosing, estimate, sampling, studies
from mlae_lab.runs.choosing import Report
from mlae_lab.runs.store import RunStore

_UNITS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_NOT_OFFERED = (
    "seed", "max_seconds", "early_stopping", "keep_best", "method", "method_settings", "protocol", "learning_rate",
)  # fmt: skip


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `choose`. command: creates a subparser."""
    parser = command(
        "choose", _choose, "choose p, initial λ and learning rate for a task from its train and val images", store=True
    )
    parser.add_argument(
        "study", nargs="?", metavar="STUDY", help="show what a study of `choose` has chosen, or test it with --final"
    )
    parser.add_argument("--task", metavar="T", help=TASK_HELP)
    parser.add_argument(
        "--budget", default="12", metavar="N|TIME",
        help="number of runs of the full length, of which shorter ones are fractions, or estimated time, such as 600s, "
        "30min or 2h (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=int, metavar="N",
        help=f"seeds of every setting (default {SEEDS}); with --folds K the number of divisions, each of K runs "
        "(default 1)",
    )  # fmt: skip
    parser.add_argument(
        "--sampler", choices=("grid", "optuna"), default="grid",
        help=f"optuna: for a budget of {LEAST_SAMPLED} settings and more, Optuna proposes them one by one, from the "
        "lowest to the highest of the given values (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--mask", default="uniform", metavar="M", help="pattern or mask code (default: %(default)s)")
    parser.add_argument("--drop-rate", dest="values_drop_rate", metavar="P,...", help="values of p, the default first")
    parser.add_argument(
        "--coefficient-init", dest="values_coefficient_init", metavar="X,...", help="values of λ, the default first"
    )
    parser.add_argument(
        "--lr", dest="values_learning_rate", metavar="X,...", help="learning rates, the default first; one: only that"
    )
    add_run_options(parser, _NOT_OFFERED)
    parser.set_defaults(**{name: setting_of(RunConfig, name).initial for name in _NOT_OFFERED})
    parser.add_argument("--dry-run", action="store_true", help="print settings, runs and time, and start nothing")
    parser.add_argument("--detach", action="store_true", help="print the study's id and return at once")
    parser.add_argument(
        "--final", action="store_true",
        help=f"with STUDY: train the chosen setting and the default on train and val, --seeds N times (default "
        f"{FINAL_SEEDS}), and evaluate on test",
    )  # fmt: skip
    parser.add_argument(
        "--all", action="store_true", help="with --final: also the other settings of the last stage, for the regret"
    )
    parser.add_argument("--yes", action="store_true", help="also for a study that somebody else owns")


def _choose(args: argparse.Namespace) -> int:
    if args.study is None:
        if args.final or args.all:
            raise UsageError(f"--final needs the study that chose: `{PROGRAM} choose STUDY --final`")
        return _new(args)
    given = [name for name in FACTORS if getattr(args, f"values_{name}") is not None]
    given += [name for name in ("task", *sorted(getattr(args, "given", ()))) if getattr(args, name)]
    if given:
        option = "lr" if given[0] == "learning_rate" else given[0].replace("_", "-")
        raise UsageError(f"--{option} and a study are both given: a study keeps its settings, so leave one of them out")
    return _final(args) if args.final else _show(args)


# ---------------------------------------------------------------- new


def _new(args: argparse.Namespace) -> int:
    amount, unit = budget(args.budget)
    store = find_store(args)
    values = {name: values_of_text(value) for name in FACTORS if (value := getattr(args, f"values_{name}")) is not None}
    base = config_of(args, named_plan(mask_text(args.mask, args.backbone), args.backbone))
    if rates := values.get("learning_rate"):
        base, _ = configured(base, {"learning_rate": rates[0]})
    count = (1 if base.folds else SEEDS) if args.seeds is None else args.seeds
    if not 1 <= count <= 20:
        raise UsageError(f"--seeds is {count}: it must be 1 to 20")
    is_sampled, seeds = args.sampler == "optuna", seeds_of(base, count)
    if is_sampled and (problem := sampling.missing()):
        raise UsageError(problem)
    study, design = choice_study(
        base, amount, unit, lambda config: seconds_of(store, config), values, seeds, is_sampled=is_sampled
    )
    for note in (notes := _notes(study, design)):
        print(f"note: {note}", file=sys.stderr)
    if args.dry_run:
        plan = studies.plan(store, study)
        more = {
            "budget": amount, "unit": unit, "cost": design.cost,
            "stages": [{"epochs": epochs, "arms": arms} for epochs, arms in design.rungs],
            "all_runs": len(seeds) * sum(arms for _, arms in design.rungs), "folds": base.folds,
        }  # fmt: skip
        return print_plan(args, study, plan, notes, more)
    store = store_of(args)
    stored = studies.new(store, study, current_owner())
    if args.detach:
        return print_result(args, {"study": stored.id, "runs": study.runs}, stored.id)
    print(f"study {stored.id}; Ctrl-C leaves it running", flush=True)
    return follow(args, store, stored.id, lambda args, store, _: _print_report(args, store, stored.id))


def _notes(study: Study, design: Design) -> list[str]:
    assert study.choice is not None
    is_runs = study.choice.unit == "runs"
    cost = f"{design.cost:g} runs of the full length" if is_runs else f"about {design.cost:.0f} seconds"
    return [
        f"{'; then '.join(stages(study))}; {repetitions(study)} of each: {cost}",
        f"the final runs, at most 2 settings × {FINAL_SEEDS} seeds, come on top (`{PROGRAM} choose STUDY --final`)",
    ]


def budget(text: str) -> tuple[float, str]:
    """The amount and the unit of a budget. Raises UsageError for anything but a number, or a number and s, min or h."""
    number = text.strip().rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = text.strip()[len(number) :].strip()
    try:
        amount = float(number)
        factor = _UNITS[unit] if unit else 1.0
    except (ValueError, KeyError):
        raise UsageError(
            f"--budget is {text[:40]!r}: it must be a number of runs, such as 12, or a time, such as 600s or 30min"
        ) from None
    return amount * factor, "seconds" if unit else "runs"


def seconds_of(store: RunStore | None, config: RunConfig) -> float:
    """The estimated seconds of a run. Raises UsageError without an estimate."""
    known = estimate.estimate(store, config).seconds if store else None
    if known is None:
        raise UsageError(
            "a budget in seconds needs the time of a run, and no similar run was timed on this machine: give the "
            "budget as a number of runs"
        )
    return known


# ---------------------------------------------------------------- show and final


def _show(args: argparse.Namespace) -> int:
    return _print_report(args, existing(args), args.study)


def _print_report(args: argparse.Namespace, store: RunStore, name: str) -> int:
    state = studies.state(store, name)
    known = _report(store, name)
    data = {"study": name, "done": state.done, "runs": len(state.cells), **choosing.as_data(known)}
    return print_result(args, data, text_of(known, name))


def _report(store: RunStore, name: str) -> Report:
    known = choosing.report(store, studies.state(store, name))
    if known is None:
        raise UsageError(f"study {name} only compares its arms: `{PROGRAM} study show {name}` shows what it says")
    return known


def text_of(known: Report, name: str) -> str:
    """A report as text."""
    lines = list(known.sentences)
    if known.choice is not None:
        width = max(len(entry.arm) for entry in known.choice.candidates)
        lines += [
            f"  {'*' if entry.arm == known.choice.chosen else ' '} {entry.arm:<{width}}  {entry.mean:5.1f} %"
            + (f"  {points(entry.behind)} behind (standard error {points(entry.error)})" if entry.behind else "")
            for entry in known.choice.candidates
        ]
        lines.append(f"`{PROGRAM} choose {name} --final` tests it; `{PROGRAM} study show {name}` shows all runs")
    return "\n".join(lines)


def _final(args: argparse.Namespace) -> int:
    if args.seeds is not None and not 1 <= args.seeds <= 100:
        raise UsageError(f"--seeds is {args.seeds}: it must be 1 to 100")
    store = existing(args)
    chosen = store.study(args.study)
    check_owner(args, store, chosen.owner, f"study {args.study}")
    study = choosing.final(chosen, _report(store, args.study), args.seeds or FINAL_SEEDS, args.all, located)
    if args.dry_run:
        return print_plan(args, study, studies.plan(store, study), ())
    stored = studies.new(store, study, current_owner())
    if args.detach:
        return print_result(args, {"study": stored.id, "runs": study.runs}, stored.id)
    print(f"study {stored.id}: {study.runs} runs; Ctrl-C leaves it running", flush=True)
    return follow(args, store, stored.id, lambda args, store, _: _print_report(args, store, args.study))
