"""`race`: several masks with equal settings, and which one leads."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from mlae_lab.cli.masks import add_masks_options, plans_of
from mlae_lab.cli.output import current_owner, print_result, store_of
from mlae_lab.cli.settings import METHOD_OPTIONS, TASK_HELP, add_run_options, config_of
from mlae_lab.cli.study import follow
from mlae_lab.core import study_presets
from mlae_lab.runs import presets, standings, study_results
from mlae_lab.runs.standings import Race
from mlae_lab.runs.store import RunStore
from mlae_lab.runs.studies import State


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `race`. command: creates a subparser."""
    parser = command("race", _race, "train 2 to 8 masks with equal settings, as a study", store=True)
    parser.set_defaults(method="mlae", method_settings=None)
    parser.add_argument("--task", metavar="T", help=TASK_HELP)
    add_masks_options(parser)
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="1 to 10 seeds, starting with --seed")
    parser.add_argument("--linear-probe", action="store_true", help="train the linear probe, too")
    add_run_options(parser, without=METHOD_OPTIONS)
    parser.add_argument("--detach", action="store_true", help="print the runs' ids and return at once")


def _race(args: argparse.Namespace) -> int:
    plans = plans_of(args, args.backbone)
    config = config_of(args, plans[0])
    study = study_presets.race(config, plans, args.seeds, probe=args.linear_probe)  # before a store is made for it
    store = store_of(args)
    name = presets.launch(store, study, current_owner()).id
    runs = [run.id for run in presets.runs_of(store, name, study)]
    link = f"/studies?study={name}"
    launched = {"study": name, "runs": runs, "link": link, "data_notes": list(config.data_notes)}
    if args.detach:
        return print_result(args, launched, "\n".join([*runs, link]))

    def show(args: argparse.Namespace, store: RunStore, state: State) -> int:
        result = _summary(store, state) | {"race": runs, "link": link, "data_notes": list(config.data_notes)}
        lines = [
            f"{row['rank'] or '-':>2}  {row['name']:<32}"
            + ("" if row["accuracy"] is None else f"{row['accuracy']:5.1f} %   {row['distance']}")
            for row in sorted(result["masks"], key=lambda row: row["rank"] or len(runs) + 1)
        ]
        return print_result(args, result, "\n".join([*lines, result["verdict"], link]))

    return follow(args, store, name, show, launched)


def _summary(store: RunStore, state: State) -> dict:
    """What a race says, for `--json`."""
    race = standings.race(store, state)
    assert race is not None  # the preset has several masks
    verdict = study_results.results(store, state).verdict
    return {
        "study": state.stored.id, "epoch": race.epoch, "seeds": list(race.seeds), "masks": _rows(race),
        "verdict": " ".join(filter(None, [race.headline, race.missing, verdict])),
    }  # fmt: skip


def _rows(race: Race) -> list[dict]:
    """One object for each mask, in the order of the command."""
    by_lane = {entry.lane: entry for entry in race.standings}
    rows = []
    for number, lane in enumerate(race.lanes):
        entry = by_lane.get(number)
        behind = entry.behind if entry else None
        behind_fields = None
        if behind is not None:
            behind_fields = {"mean": behind.mean, "low": behind.low, "high": behind.high, "seeds": behind.n}
        rows.append(
            {
                "name": lane.name, "code": lane.plan.code, "plan_hash": lane.plan.hash,
                "runs": {str(seed): run.id for seed, run in sorted(lane.runs.items())},
                "rank": entry.rank if entry else None, "accuracy": entry.accuracy if entry else None,
                "behind": behind_fields,
                "distance": race.distance(entry) if entry else "not placed",
            }
        )  # fmt: skip
    return rows
