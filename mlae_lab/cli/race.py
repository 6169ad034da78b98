"""`race`: several masks with equal settings, and which one leads."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from mlae_lab.cli.following import follow_all, print_failures
from mlae_lab.cli.masks import add_masks_options, plans_of
from mlae_lab.cli.output import current_owner, print_json, print_result, store_of
from mlae_lab.cli.settings import METHOD_OPTIONS, TASK_HELP, add_run_options, config_of
from mlae_lab.runs import race
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.race import Race
from mlae_lab.runs.store import Run, RunStore


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `race`. command: creates a subparser."""
    parser = command("race", _race, "train 2 to 8 masks with equal settings", store=True)
    parser.set_defaults(method="mlae", method_settings=None)
    parser.add_argument("--task", metavar="T", help=TASK_HELP)
    add_masks_options(parser)
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="1 to 3 seeds, starting with --seed")
    add_run_options(parser, without=METHOD_OPTIONS)
    parser.add_argument("--detach", action="store_true", help="print the runs' ids and return at once")


def _race(args: argparse.Namespace) -> int:
    plans = plans_of(args, args.backbone)
    config = config_of(args, plans[0])
    race.checked(config, plans, args.seeds)  # before a store is made for it
    store = store_of(args)
    runs = race.launch(store, config, plans, args.seeds, current_owner())
    link = f"/race?runs={','.join(run.id for run in runs)}"
    launched = {"runs": [run.id for run in runs], "link": link, "data_notes": list(config.data_notes)}
    if args.detach:
        return print_result(args, launched, "\n".join([*(run.id for run in runs), link]))
    try:
        follow_all(store, runs)
    except KeyboardInterrupt:
        print(f"\nthe race continues without this terminal: open {link} in the lab", flush=True)
        return print_json(launched) if args.json else 0
    return _print_summary(args, store, runs, link)


def _print_summary(args: argparse.Namespace, store: RunStore, runs: list[Run], link: str) -> int:
    status = print_failures(store, runs, log_lines=10)
    standings = race.race(store, [derived(store, store.run(run.id)) for run in runs])
    result = {
        "race": [run.id for run in runs], "link": link, "epoch": standings.epoch, "seeds": list(standings.seeds),
        "data_notes": list(runs[0].config.data_notes),
        "masks": _rows(standings), "verdict": standings.verdict,
    }  # fmt: skip
    lines = [
        f"{row['rank'] or '-':>2}  {row['name']:<32}"
        + ("" if row["accuracy"] is None else f"{row['accuracy']:5.1f} %   {row['distance']}")
        for row in sorted(result["masks"], key=lambda row: row["rank"] or len(runs) + 1)
    ]
    print_result(args, result, "\n".join([*lines, standings.verdict, link]))
    return status


def _rows(standings: Race) -> list[dict]:
    """One object for each mask, in the order of the command."""
    by_lane = {entry.lane: entry for entry in standings.standings}
    rows = []
    for number, lane in enumerate(standings.lanes):
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
                "distance": standings.distance(entry) if entry else "not placed",
            }
        )  # fmt: skip
    return rows
