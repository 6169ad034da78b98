"""`race`: several masks on equal terms, and who leads."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from mlae_lab.cli.masks import add_masks_options, plans_of
from mlae_lab.cli.output import current_owner, print_result, store_of
from mlae_lab.cli.runs import follow
from mlae_lab.cli.settings import add_run_options, config_of
from mlae_lab.runs import commands, race
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.race import Race
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command. command: makes one."""
    made = command("race", _race, "several masks on equal terms: the same everything, another mask each", store=True)
    made.set_defaults(method="mlae")
    made.add_argument("--task", required=True, metavar="T")
    add_masks_options(made)
    made.add_argument("--seeds", type=int, default=1, metavar="N", help="1 to 3, from --seed on")
    add_run_options(made, without=("method",))
    made.add_argument("--detach", action="store_true", help="print the runs' names and return at once")


def _race(args: argparse.Namespace) -> int:
    plans = plans_of(args, args.backbone)
    config = config_of(args, plans[0])
    race.checked(config, plans, args.seeds)  # before a store is made for it
    store = store_of(args)
    runs = race.launch(store, config, plans, args.seeds, current_owner())
    link = f"/race?runs={','.join(run.id for run in runs)}"
    if args.detach:
        return print_result(
            args, {"runs": [run.id for run in runs], "link": link}, "\n".join([*(run.id for run in runs), link])
        )
    try:
        for run in runs:
            print(f"run {run.id}: {run.config.what}, seed {run.config.seed}", flush=True)
            follow(store, run)
    except KeyboardInterrupt:
        print(f"\nthe race goes on without this terminal: {link} shows it in the lab", flush=True)
        return print_result(args, {"runs": [run.id for run in runs], "link": link}, "") if args.json else 0
    return _tell(args, store, runs, link)


def _tell(args: argparse.Namespace, store: RunStore, runs: list[Run], link: str) -> int:
    runs = [derived(store, store.run(run.id)) for run in runs]
    failed = [run for run in runs if run.status in (Status.FAILED, Status.LOST)]
    for run in failed:
        print(f"run {run.id} {run.status.value}: {run.reason}", file=sys.stderr)
        for line in commands.log_tail(store, run.id, 10):
            print(f"    {line}", file=sys.stderr)
    found = race.race(store, runs)
    told = {
        "race": [run.id for run in runs], "link": link, "epoch": found.epoch, "seeds": list(found.seeds),
        "masks": _rows(found), "verdict": found.verdict,
    }  # fmt: skip
    words = [
        f"{row['index'] or '-':>2}  {row['name']:<32}"
        + ("" if row["accuracy"] is None else f"{row['accuracy']:5.1f} %   {row['words']}")
        for row in sorted(told["masks"], key=lambda row: row["index"] or len(runs) + 1)
    ]
    print_result(args, told, "\n".join([*words, found.verdict, link]))
    return 1 if failed else 0


def _rows(found: Race) -> list[dict]:
    """One object for each mask, in the order of the command."""
    places = {entry.lane: entry for entry in found.standings}
    rows = []
    for number, lane in enumerate(found.lanes):
        entry = places.get(number)
        behind = entry.behind if entry else None
        rows.append(
            {
                "name": lane.name, "code": lane.plan.code, "plan_hash": lane.plan.hash,
                "runs": {str(seed): run.id for seed, run in sorted(lane.runs.items())},
                "index": entry.rank if entry else None, "accuracy": entry.accuracy if entry else None,
                "behind": None if behind is None else {"mean": behind.mean, "low": behind.low, "high": behind.high, "seeds": behind.n},
                "words": found.told(entry) if entry else "not placed",
            }
        )  # fmt: skip
    return rows
