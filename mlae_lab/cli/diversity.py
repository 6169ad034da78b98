"""`diversity`: the central experiment, whether masking makes experts less similar, in one command."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from mlae_lab.cli.output import UsageError, current_owner, print_result, store_of
from mlae_lab.cli.settings import METHOD_OPTIONS, TASK_HELP, add_run_options, config_of
from mlae_lab.cli.study import follow
from mlae_lab.core import study_presets
from mlae_lab.core.patterns import EXPERTS, dense
from mlae_lab.core.seed_statistics import mean_text
from mlae_lab.core.study import Study
from mlae_lab.runs import presets, similarity_results
from mlae_lab.runs.similarity_results import SimilarityResults
from mlae_lab.runs.store import RunStore
from mlae_lab.runs.studies import State

TASK = "dsprites_loc_rendered"
_DIGITS = {"accuracy": 1, "absolute": 4, "signed": 4, "effective_rank": 2, "stable_rank": 2}


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `diversity`. command: creates a subparser."""
    parser = command(
        "diversity", _diversity, 'run the study "does masking make experts less similar?"', store=True
    )  # fmt: skip
    parser.add_argument("--task", metavar="T", help=f"{TASK_HELP} (default: {TASK})")
    parser.add_argument("--experts", type=int, default=EXPERTS, metavar="E", help="experts per layer")
    rates = ",".join(f"{rate:g}" for rate in study_presets.RATES)
    parser.add_argument("--rates", default=rates, metavar="P,P,…", help="drop probabilities, each from 0 to 0.9")
    parser.add_argument(
        "--seeds",
        type=int,
        default=study_presets.ENOUGH_SEEDS,
        metavar="N",
        help="1 to 10 seeds, starting with --seed",
    )
    add_run_options(parser, without=METHOD_OPTIONS)
    parser.set_defaults(
        method="mlae", method_settings=None, epochs=study_presets.EPOCHS, evaluations=1
    )  # only the last epoch counts
    parser.add_argument("--report", action="store_true", help="start nothing and report what is known")
    parser.add_argument("--detach", action="store_true", help="start the missing runs and return at once")


def _diversity(args: argparse.Namespace) -> int:
    study = _study(args)
    store = store_of(args)
    if args.report:
        stored = presets.stored_like(store, study, current_owner())
        return _report(args, store, presets.as_found(store, study), stored.id if stored else "")
    name = presets.launch(store, study, current_owner()).id
    runs = presets.runs_of(store, name, study)
    notes = list(dict.fromkeys(note for run in runs for note in run.config.data_notes))
    launched = {
        "study": name, "runs": [run.id for run in runs], "command": study_presets.diversity_command(study),
        "data_notes": notes,
    }  # fmt: skip
    if args.detach:
        return print_result(args, launched, f"{len(runs)} runs")

    def show(args: argparse.Namespace, store: RunStore, state: State) -> int:
        return _report(args, store, state, name)

    return follow(args, store, name, show, launched)


def _study(args: argparse.Namespace) -> Study:
    try:
        rates = [float(word) for word in args.rates.split(",")]
    except ValueError:
        raise UsageError(f"--rates is {args.rates!r}: write numbers separated by commas, such as 0,0.5,0.9") from None
    args.task = args.task or ("" if args.data else TASK)
    config = config_of(args, dense())
    return study_presets.diversity(config, rates, args.seeds, args.experts)


def _report(args: argparse.Namespace, store: RunStore, state: State, name: str) -> int:
    results = similarity_results.similarity_results(store, state)
    assert results is not None  # the preset has all arms
    data = similarity_results.as_data(results) | {"study": name or None}
    return print_result(args, data, "\n".join([*table(results), "", *results.verdict]))


def table(results: SimilarityResults) -> list[str]:
    """One line for each arm and p: mean and half of its 95 % interval over seeds, of every measure."""
    lines = [f"{'':<24}{'p':>4}  n" + "".join(f"{title:>24}" for title in similarity_results.MEASURES.values())]
    for point in results.points:
        cells = []
        for name, digits in _DIGITS.items():
            value = point.values.get(name)
            if value is None:
                cells.append(f"{'–':>24}")
                continue
            cells.append(f"{mean_text(value, digits):>24}")
        lines.append(
            f"{study_presets.DROPOUTS[point.dropout]:<24}{point.rate:>4g}{len(point.seeds):>3}{''.join(cells)}"
        )
    return lines
