"""What is done with runs that exist: list, stop, resume, repeat, compare, put away."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlae_lab.cli.masks import add_mask_options, plan_of
from mlae_lab.cli.output import (
    UsageError,
    current_owner,
    existing_store,
    folder_of,
    owner_name,
    print_json,
    print_result,
    store_of,
)
from mlae_lab.core.events import Evaluation, Resumed, Started
from mlae_lab.core.seed_statistics import sample_size
from mlae_lab.core.units import format_bytes
from mlae_lab.runs import archive_file, commands, pairs, supervisor
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.paths import LAST
from mlae_lab.runs.report import report, state
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore

_NO_RUNS = "no runs in {} yet: `mlae_lab train --task digits` starts one"


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands. command: makes one."""

    def one(name: str, do: Callable, help: str) -> argparse.ArgumentParser:
        made = command(name, do, help, store=True)
        made.add_argument("run", metavar="RUN")
        return made

    def anybodys(made: argparse.ArgumentParser) -> None:
        made.add_argument("--yes", action="store_true", help="also if it is somebody else's")

    listing = command("runs", _runs, "list all runs, or show one", store=True)
    listing.add_argument("run", nargs="?", metavar="RUN")
    listing.add_argument("--archived", action="store_true", help="those that are put away")
    stop = one("stop", _stop, "end a run and keep what it has learned")
    stop.add_argument("--now", action="store_true", help="kill it at once")
    anybodys(stop)
    resume = one(
        "resume", _resume, "let a stopped, failed or lost run go on; with --mask as a new run with another mask"
    )
    add_mask_options(resume)
    resume.add_argument("--checkpoint", default=LAST, metavar="last|EPOCH", help="which one, for --mask")
    resume.add_argument("--epochs", type=int, metavar="N", help="of the new run, counted from the parent's beginning")
    resume.add_argument("--detach", action="store_true", help="return at once")
    rerun = one("rerun", _rerun, "the same run once more, from where it began")
    rerun.add_argument("--detach", action="store_true", help="return at once")
    pair = one("pair", _pair, "the same run with another mask, over several seeds, and the difference")
    add_mask_options(pair, required=True)
    pair.add_argument("--seeds", type=int, default=3, metavar="N", help="1 to 10, from the run's own on")
    pair.add_argument("--detach", action="store_true", help="return at once")
    compare = one("compare", _compare, "the difference of two runs, with its spread over seeds")
    compare.add_argument("other", metavar="OTHER")
    move = one("move", _move, "change the place of a waiting run in its owner's queue")
    move.add_argument("to", choices=("up", "down", "first", "last"))
    anybodys(move)
    delete = one("delete", _delete, "forget a run that is over or put away, with its files")
    anybodys(delete)
    export = one("export", _export, "write a run as one file")
    export.add_argument("file", type=Path, metavar="FILE")
    take_in = command("import", _import, "take in a run that was exported", store=True)
    take_in.add_argument("file", type=Path, metavar="FILE")
    archive = one("archive", _archive, "put a run away as one file in the store")
    anybodys(archive)
    one("restore", _restore, "bring back a run that was put away")


# ---------------------------------------------------------------- looking


def _runs(args: argparse.Namespace) -> int:
    store = existing_store(args)
    if store is None:
        return print_result(args, {"runs": []}, _NO_RUNS.format(folder_of(args)))
    supervisor.ensure(store)
    if args.archived:
        return _archived(args, store)
    sizes = {name: use.total for name, use in commands.disk_use(store).items()}
    if args.run is not None:
        row = state(store, derived(store, store.run(args.run))) | {"bytes": sizes.get(args.run, 0)}
        words = [f"{name:<18}{json.dumps(value) if isinstance(value, dict) else value}" for name, value in row.items()]
        return print_result(args, row, "\n".join(words))
    rows: list[dict[str, Any]] = [state(store, derived(store, run)) | {"bytes": sizes.get(run.id, 0)} for run in store.runs()]
    if unread := store.unread():
        print(f"runs of a newer lab that are not shown: {len(unread)}; update this lab to see them", file=sys.stderr)
    if args.json:
        return print_json({"runs": rows})
    if not rows:
        print(_NO_RUNS.format(store.folder))
    queue_positions = store.queue_positions()
    for row in rows:
        accuracy = row.get("val_accuracy", row.get("test_accuracy"))
        note = (
            f"{queue_positions[row['run']][0]}. in the queue" if row["run"] in queue_positions else row["reason"] or ""
        )
        if row["stalled_seconds"]:
            note = f"stalled: no progress for {row['stalled_seconds']:.0f} s"
        print(f"{row['run']}  {row['status']:<9} {row['config']['task']:<24}{row['config']['method']:<7}"
              f"{'' if accuracy is None else format(accuracy, '5.1f') + ' %':>8}{format_bytes(row['bytes']):>10}  {note}")  # fmt: skip
    if rows:
        free = format_bytes(commands.free_bytes(store))
        print(
            f"{len(rows)} run{'s' if len(rows) != 1 else ''}, {format_bytes(sum(sizes.values()))}; the disk has {free} free"
        )
    return 0


def _archived(args: argparse.Namespace, store: RunStore) -> int:
    if args.run is not None:
        raise UsageError("`runs --archived` lists all that are put away and takes no RUN: leave one of the two out")
    found = archive_file.archived(store)
    rows = [
        {
            "run": entry.id, "put_away": entry.time, "bytes": entry.bytes, "owner": entry.owner or None,
            "task": entry.task or None, "status": entry.status and entry.status.value, "trouble": entry.trouble or None,
        }
        for entry in found
    ]  # fmt: skip
    words = [
        f"{row['run']}  {row['trouble'] or (row['status'] + ', ' + row['task'])}  {format_bytes(row['bytes'])}"
        for row in rows
    ]
    return print_result(args, {"archived": rows}, "\n".join(words) or f"no run is put away in {store.folder}")


def follow(store: RunStore, run: Run) -> Run:
    """Print what the run does until it is over."""
    seen = store.events(run.id)[-1:]
    last = seen[0].id if seen else 0
    while True:
        supervisor.ensure(store)
        run = derived(store, store.run(run.id))
        for stored in store.events(run.id, Started, Resumed, Evaluation, after=last):
            last, event = stored.id, stored.event
            if isinstance(event, Started):
                print(f"{event.train_images} images, {event.parameters:,} expert and {event.head_parameters:,} head "
                      f"parameters, {event.steps} steps on {event.device} in {event.precision}", flush=True)  # fmt: skip
            elif isinstance(event, Resumed):
                print(f"goes on after step {event.step}", flush=True)
            else:
                print(f"epoch {event.epoch:>4}   {event.split} accuracy {event.accuracy:5.1f} %   loss {event.loss:.3f}"
                      f"   {event.seconds:6.1f} s", flush=True)  # fmt: skip
        if run.status.is_over:
            return run
        time.sleep(0.2)


def tell_failures(store: RunStore, runs: Sequence[Run]) -> int:
    """Say of each run that failed or was lost why; the exit status that this makes."""
    failed = [
        now
        for now in (derived(store, store.run(entry.id)) for entry in runs)
        if now.status in (Status.FAILED, Status.LOST)
    ]
    for entry in failed:
        print(f"run {entry.id} {entry.status.value}: {entry.reason}", file=sys.stderr)
    return 1 if failed else 0


def follow_to_end(args: argparse.Namespace, store: RunStore, run: Run) -> int:
    """Follow a run that was enqueued here, or leave it with --detach; the exit status of the command."""
    if args.detach:
        told = {"run": run.id, "status": run.status.value, "config_hash": run.config_hash}
        return print_result(args, told, run.id)
    try:
        print(f"run {run.id} is {run.status.value} on {run.device}; Ctrl-C leaves it running", flush=True)
        run = follow(store, run)
    except KeyboardInterrupt:
        print(
            f"\nrun {run.id} goes on without this terminal: `mlae_lab runs {run.id}` shows it, `mlae_lab stop {run.id}` ends it"
        )
        return print_json({"run": run.id, "status": store.run(run.id).status.value}) if args.json else 0
    told = report(store, run)
    went_well = run.status in (Status.FINISHED, Status.STOPPED)
    if not went_well:
        print(f"run {run.id} {run.status.value}: {run.reason}", file=sys.stderr)
        for line in commands.log_tail(store, run.id, 40):
            print(f"    {line}", file=sys.stderr)
    if args.json:
        print_json(told)
    return 0 if went_well else 1


def _existing(args: argparse.Namespace) -> tuple[RunStore, Run]:
    store = existing_store(args)
    assert store is not None  # a run was named
    supervisor.ensure(store)
    return store, derived(store, store.run(args.run))


def _mind(args: argparse.Namespace, store: RunStore, run: Run | archive_file.Archived) -> None:
    """Nobody stops or deletes another's run by accident. A browser without a name may be one's own."""
    name = owner_name(store, run.owner)
    if name and run.owner != current_owner() and not args.yes:
        raise UsageError(f"run {run.id} is {name}'s: add --yes if you mean it all the same")


# ---------------------------------------------------------------- stopping, resuming, repeating


def _stop(args: argparse.Namespace) -> int:
    store, before = _existing(args)
    if before.status.is_over:
        raise UsageError(f"run {before.id} is already {before.status.value}: there is nothing to stop")
    _mind(args, store, before)
    status = commands.stop(store, before.id, now=args.now)
    deadline = time.monotonic() + 120
    while not status.is_over and time.monotonic() < deadline:
        time.sleep(0.1)
        supervisor.ensure(store)
        status = derived(store, store.run(before.id)).status
    return print_result(args, {"run": before.id, "status": status.value}, f"{before.id} {status.value}")


def _resume(args: argparse.Namespace) -> int:
    store, before = _existing(args)
    if args.mask is None:
        if args.epochs is not None or args.checkpoint != LAST:
            raise UsageError(
                "--epochs and --checkpoint go with --mask: without it a run goes on as it was, from its last one"
            )
        return follow_to_end(args, store, commands.resume(store, before.id))
    plan = plan_of(args, before.config.backbone)
    run = commands.branch(store, before.id, plan, args.checkpoint, args.epochs, current_owner())
    return follow_to_end(args, store, run)


def _rerun(args: argparse.Namespace) -> int:
    store, before = _existing(args)
    return follow_to_end(args, store, commands.rerun(store, before.id, current_owner()))


def _move(args: argparse.Namespace) -> int:
    store, run = _existing(args)
    if run.status is not Status.QUEUED:
        raise UsageError(f"run {run.id} is {run.status.value}: only a waiting run has a place in the queue")
    _mind(args, store, run)
    store.reorder(run.id, args.to)
    order = [waiting.id for waiting in store.queue()]
    return print_result(args, {"queue": order}, "\n".join(f"{i}. {name}" for i, name in enumerate(order, 1)))


# ---------------------------------------------------------------- pairs


def _pair(args: argparse.Namespace) -> int:
    store, run = _existing(args)
    plan = plan_of(args, run.config.backbone)
    runs = pairs.launch_pair(store, run.id, plan, args.seeds, current_owner())
    if args.detach:
        return print_result(args, {"runs": [r.id for r in runs]}, "\n".join(r.id for r in runs))
    try:
        for entry in runs:
            print(f"run {entry.id}: {entry.config.what}, seed {entry.config.seed}", flush=True)
            follow(store, entry)
    except KeyboardInterrupt:
        print(f"\nthe runs go on without this terminal: `mlae_lab compare {runs[0].id} {runs[1].id}` compares them")
        return 0
    failed = tell_failures(store, runs)
    return max(failed, _tell_difference(args, store, runs[0], runs[1]))


def _compare(args: argparse.Namespace) -> int:
    store, a = _existing(args)
    return _tell_difference(args, store, a, derived(store, store.run(args.other)))


def _tell_difference(args: argparse.Namespace, store: RunStore, a: Run, b: Run) -> int:
    why_not = pairs.unpaired_runs_because(store, a, b)
    found = pairs.difference(pairs.family(store, a, b))
    if not pairs.sides(store, a, b) or (why_not and not found.pairs):
        why_not = why_not or "neither has measured an epoch yet"
        raise UsageError(f"runs {a.id} and {b.id} are no pair: {why_not.rstrip('.')}")
    by_epoch = [
        {"epoch": s.epoch, "mean": s.mean, "low": s.low, "high": s.high, "pairs": s.n} for s in found.over_epochs
    ]
    seeds = sample_size(found.last) if found.last else None
    told = {
        "a": a.id, "b": b.id, "pairs": len(found.pairs), "difference": by_epoch, "verdict": found.verdict,
        "pairs_to_clear_zero": seeds and seeds.clear, "pairs_for_80_percent_power": seeds and seeds.likely,
        "settled_by": found.seeds_needed, "not_a_pair": why_not,
    }  # fmt: skip
    apart = (
        f"the two runs themselves are not a pair ({why_not}): this is about those of their family that are"
        if why_not
        else ""
    )
    words = [f"epoch {s.epoch:>5}   {s.mean:+6.2f} points" + (f"   95 % {s.low:+.2f} to {s.high:+.2f}" if s.low is not None else "")
             for s in found.over_epochs]  # fmt: skip
    return print_result(args, told, "\n".join(filter(None, [*words, found.verdict, found.seeds_needed, apart])))


# ---------------------------------------------------------------- files


def _delete(args: argparse.Namespace) -> int:
    store = existing_store(args)
    away = next((entry for entry in (archive_file.archived(store) if store else []) if entry.id == args.run), None)
    if store is not None and away is not None:
        _mind(args, store, away)
        archive_file.discard(store, away.id)
    else:
        store, run = _existing(args)
        _mind(args, store, run)
        commands.delete(store, args.run)
    return print_result(args, {"run": args.run, "deleted": True}, f"{args.run} deleted")


def _export(args: argparse.Namespace) -> int:
    store, run = _existing(args)
    size = archive_file.export(store, run.id, args.file)
    return print_result(
        args,
        {"run": run.id, "file": str(args.file), "bytes": size},
        f"{run.id} is in {args.file}, {size:,} bytes",
    )


def _import(args: argparse.Namespace) -> int:
    archive_file.inspect(args.file)  # before a store is made for it
    run = archive_file.import_run(store_of(args), args.file, current_owner())
    return print_result(args, {"run": run.id, "status": run.status.value}, f"{run.id} is in {folder_of(args)}")


def _archive(args: argparse.Namespace) -> int:
    store, run = _existing(args)
    _mind(args, store, run)
    file = archive_file.archive(store, run.id)
    return print_result(args, {"run": run.id, "file": str(file)}, f"{run.id} is put away in {file}")


def _restore(args: argparse.Namespace) -> int:
    store = existing_store(args)
    assert store is not None
    run = archive_file.restore(store, args.run)
    return print_result(args, {"run": run.id, "status": run.status.value}, f"{run.id} is back")
