"""Commands for existing runs: list, annotate, stop, resume, rerun, import, archive, delete."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlae_lab.cli.following import follow_to_end, report_supervisor
from mlae_lab.cli.masks import add_mask_options, plan_of
from mlae_lab.cli.output import (
    UsageError,
    add_location_options,
    check_owner,
    current_owner,
    existing_run,
    find_store,
    folder_of,
    locate,
    print_json,
    print_result,
    run_command,
    store_of,
    store_with_run,
)
from mlae_lab.core.events import Evaluation
from mlae_lab.core.units import format_bytes
from mlae_lab.core.where import parse
from mlae_lab.data.listing import counted
from mlae_lab.errors import LabError
from mlae_lab.files import require_free, write_whole
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import archive_file, commands, run_table, supervisor
from mlae_lab.runs.class_recall import class_recall
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.paths import LAST
from mlae_lab.runs.report import sentence_of_damage, state
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore

_NO_RUNS = f"no runs in {{}} yet: `{PROGRAM} train --task digits` starts one"
_NONE_ARCHIVED = "no archived runs in {}"


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands. command: creates a subparser."""

    def for_run(name: str, do: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        return run_command(command, name, do, help)

    def add_yes(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--yes", action="store_true", help="also for a run that somebody else owns")

    def add_detach(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--detach", action="store_true", help="return at once")

    listing = command("runs", _runs, "list all runs, show one, or list archived runs", store=True)
    listing.add_argument("run", nargs="?", metavar="RUN")
    listing.add_argument("--archived", action="store_true", help="list archived runs")
    listing.add_argument(
        "--where", metavar="CONDITION", help='only runs that meet it, such as "task=digits and drop_rate>0.3"'
    )
    listing.add_argument("--fields", action="store_true", help="list the fields that a condition may name")
    listing.add_argument("--csv", type=Path, metavar="FILE", help="write the runs with all fields to a file")
    listing.add_argument("--force", action="store_true", help="replace FILE if it exists")
    annotate = for_run("annotate", _annotate, "set the name, notes and tags of a run")
    annotate.add_argument("--name", metavar="TEXT", help='one line; "" removes it')
    annotate.add_argument("--notes", metavar="TEXT", help='"" removes them')
    annotate.add_argument("--tag", action="append", default=[], metavar="TAG", help="add a tag; may be repeated")
    annotate.add_argument("--untag", action="append", default=[], metavar="TAG", help="remove a tag; may be repeated")
    add_yes(annotate)
    stop = for_run("stop", _stop, "stop a run and keep what it has learned, or end it at once")
    stop.add_argument("--now", action="store_true", help="kill it at once")
    add_yes(stop)
    resume = for_run(
        "resume", _resume, "resume a run from its last checkpoint, or branch from a checkpoint with another mask"
    )
    add_location_options(resume)
    add_mask_options(resume)
    resume.add_argument(
        "--checkpoint", default=LAST, metavar="last|EPOCH", help="checkpoint to branch from, with --mask"
    )
    resume.add_argument("--epochs", type=int, metavar="N", help="of the new run, counted from the parent's first epoch")
    add_detach(resume)
    rerun = for_run("rerun", _rerun, "start the same run again from its first step")
    add_location_options(rerun)
    add_detach(rerun)
    move = for_run("move", _move, "change a queued run's position in its owner's queue")
    move.add_argument("to", choices=("up", "down", "first", "last"))
    add_yes(move)
    add_yes(for_run("delete", _delete, "delete a run that is over or archived, with its files"))
    import_ = command("import", _import, "read an exported run, also from another machine", store=True)
    import_.add_argument("file", type=Path, metavar="FILE")
    add_location_options(import_)
    add_yes(for_run("archive", _archive, "move a run out of the list into one file in the store"))
    for_run("restore", _restore, "move an archived run back into the list")


# ---------------------------------------------------------------- list


def _runs(args: argparse.Namespace) -> int:
    _check_listing(args)
    if args.fields:
        return _fields(args)
    store = find_store(args) if args.run is None else store_with_run(args)
    if store is None:
        folder = folder_of(args)
        if args.archived:
            return print_result(args, {"archived": []}, _NONE_ARCHIVED.format(folder))
        return print_result(args, {"runs": []}, _NO_RUNS.format(folder))
    supervisor.ensure(store)
    if args.archived:
        return _archived(args, store)
    report_supervisor(store)
    if args.run is not None:
        run = derived(store, store.run(args.run))
        (row,) = _states(store, run_table.rows(store, [run]))
        recall = class_recall(store.paths(run.id).images, store.last(run.id, Evaluation))
        if recall is not None:
            row["balanced_accuracy"] = round(recall.balanced, 2)
            row["class_recall"] = {
                name: round(100 * hits / total, 2)
                for name, hits, total in zip(recall.names, recall.correct, recall.images, strict=True)
                if total
            }
        if damaged := _damaged_events(store, args.run):
            row["damaged_events"] = damaged
        lines = [f"{name:<18}{json.dumps(value) if isinstance(value, dict) else value}" for name, value in row.items()]
        return print_result(args, row, "\n".join(lines))
    runs = _chosen(store, args.where)
    if args.csv is not None:
        write_whole(args.csv, run_table.as_csv(runs).encode())
        result = {"file": str(args.csv), "runs": [row.run.id for row in runs]}
        return print_result(args, result, f"{counted(len(runs), 'run')} written to {args.csv}")
    rows = _states(store, runs)
    if unread := store.unread():
        print(f"runs that cannot be read: {len(unread)}; `{PROGRAM} doctor` says why", file=sys.stderr)
    if args.json:
        return print_json({"runs": rows})
    if not rows:
        print(f"no run meets {args.where!r}" if args.where else _NO_RUNS.format(store.folder))
    queue_positions = store.queue_positions()
    for row in rows:
        accuracy = row.get("val_accuracy", row.get("test_accuracy"))
        note = (
            f"position {queue_positions[row['run']][0]} in the queue"
            if row["run"] in queue_positions
            else row["reason"] or ""
        )
        if row["stalled_seconds"]:
            note = f"stalled: no progress for {row['stalled_seconds']:.0f} s"
        percent = "" if accuracy is None else f"{accuracy:5.1f} %"
        print(
            f"{row['run']}  {row['status']:<9} {row['config']['task']:<24}{row['config']['method']:<13}"
            f"{percent:>8}{format_bytes(row['bytes']):>10}  {note}"
        )
    if rows:
        free = format_bytes(commands.free_bytes(store))
        print(
            f"{len(rows)} run{'s' if len(rows) != 1 else ''}, {format_bytes(sum(row['bytes'] for row in rows))}; "
            f"{free} free on the disk"
        )
    return 0


def _check_listing(args: argparse.Namespace) -> None:
    """Raise UsageError for options of `runs` that exclude each other, WhereError for a wrong condition."""
    alone = [
        name
        for name, given in (
            ("RUN", args.run is not None), ("--archived", args.archived), ("--fields", args.fields),
            ("--where or --csv", args.where is not None or args.csv is not None),
        )
        if given
    ]  # fmt: skip
    if len(alone) > 1:
        raise UsageError(f"`runs` takes only one of {' and '.join(alone)}: leave the others out")
    parse(args.where or "", run_table.fields())
    if args.csv is not None:
        require_free(args.csv, args.force, store=folder_of(args))


def _fields(args: argparse.Namespace) -> int:
    rows = [{"name": field.name, "kind": field.kind, "help": field.help} for field in run_table.fields()]
    return print_result(
        args, {"fields": rows}, "\n".join(f"{row['name']:<20}{row['kind']:<8}{row['help']}" for row in rows)
    )


def _chosen(store: RunStore, where: str | None) -> list[run_table.Row]:
    runs = [derived(store, run) for run in store.runs()]
    return run_table.matching(run_table.rows(store, runs), where or "")


def _states(store: RunStore, rows: Sequence[run_table.Row]) -> list[dict[str, Any]]:
    sizes = commands.disk_use(store, [row.run for row in rows])
    names = ("accuracy", "parameters", "duration")
    return [
        state(store, row.run) | {"bytes": sizes[row.run.id].total} | {name: row.values[name] for name in names}
        for row in rows
    ]


def _annotate(args: argparse.Namespace) -> int:
    store, run = existing_run(args)
    if args.name is None and args.notes is None and not args.tag and not args.untag:
        raise UsageError("`annotate` needs --name, --notes, --tag or --untag: nothing is to be changed")
    check_owner(args, store, run.owner, f"run {run.id}")
    store.annotate(run.id, args.name, args.notes, args.tag, args.untag)
    run = store.run(run.id)
    result = {"run": run.id, "name": run.name or None, "tags": list(run.tags), "notes": run.notes or None}
    return print_result(args, result, "  ".join(filter(None, (run.id, run.name, ", ".join(run.tags)))))


def _damaged_events(store: RunStore, run_id: str) -> list[int]:
    """The ids of a run's damaged events, which are named on standard error."""
    damaged = store.damaged_events(run_id)
    if damaged:
        print(f"run {run_id}: {sentence_of_damage(damaged)}", file=sys.stderr)
    return [event.id for event in damaged]


def _archived(args: argparse.Namespace, store: RunStore) -> int:
    rows = [
        {
            "run": entry.id, "archived": entry.time, "bytes": entry.bytes, "owner": entry.owner or None,
            "task": entry.task or None, "status": entry.status and entry.status.value, "trouble": entry.trouble or None,
        }
        for entry in archive_file.archived(store)
    ]  # fmt: skip
    lines = [
        f"{row['run']}  {row['trouble'] or (row['status'] + ', ' + row['task'])}  {format_bytes(row['bytes'])}"
        for row in rows
    ]
    return print_result(args, {"archived": rows}, "\n".join(lines) or _NONE_ARCHIVED.format(store.folder))


# ---------------------------------------------------------------- stop, resume, rerun


def _stop(args: argparse.Namespace) -> int:
    store, run = existing_run(args)
    if run.status.is_over:
        raise UsageError(f"run {run.id} is already {run.status.value}: there is nothing to stop")
    check_owner(args, store, run.owner, f"run {run.id}")
    status = commands.stop(store, run.id, now=args.now)
    deadline = time.monotonic() + 120
    while not status.is_over and time.monotonic() < deadline:
        time.sleep(0.1)
        supervisor.ensure(store)
        status = derived(store, store.run(run.id)).status
    return print_result(args, {"run": run.id, "status": status.value}, f"{run.id} {status.value}")


def _resume(args: argparse.Namespace) -> int:
    store, run = existing_run(args)
    if args.mask is None:
        if args.epochs is not None or args.checkpoint != LAST:
            raise UsageError(
                "--epochs and --checkpoint need --mask: without it a run resumes unchanged from its last checkpoint"
            )
        return follow_to_end(args, store, commands.resume(store, run.id))
    plan = plan_of(args, run.config.backbone)
    branched = commands.branch(store, run.id, plan, args.checkpoint, args.epochs, current_owner())
    return follow_to_end(args, store, branched)


def _rerun(args: argparse.Namespace) -> int:
    store, run = existing_run(args)
    return follow_to_end(args, store, commands.rerun(store, run.id, current_owner()))


def _move(args: argparse.Namespace) -> int:
    store, run = existing_run(args)
    if run.status is not Status.QUEUED:
        raise UsageError(f"run {run.id} is {run.status.value}: only a queued run has a position in the queue")
    check_owner(args, store, run.owner, f"run {run.id}")
    store.reorder(run.id, args.to)
    order = [queued.id for queued in store.queue()]
    return print_result(args, {"queue": order}, "\n".join(f"{i}. {name}" for i, name in enumerate(order, 1)))


# ---------------------------------------------------------------- files


def _delete(args: argparse.Namespace) -> int:
    store = store_with_run(args)
    archived = next((entry for entry in archive_file.archived(store) if entry.id == args.run), None)
    if archived is not None:
        check_owner(args, store, archived.owner, f"run {archived.id}")
        archive_file.discard(store, archived.id)
    else:
        store, run = existing_run(args)
        check_owner(args, store, run.owner, f"run {run.id}")
        commands.delete(store, args.run)
    return print_result(args, {"run": args.run, "deleted": True}, f"{args.run} deleted")


def _import(args: argparse.Namespace) -> int:
    archive_file.inspect(args.file)  # before a store is made for it
    store = store_of(args)
    run = archive_file.import_run(store, args.file, current_owner())
    try:
        locate(args, store, run.id)
    except LabError as error:
        raise UsageError(f"run {run.id} is imported, but {error}") from None
    return print_result(args, {"run": run.id, "status": run.status.value}, f"{run.id} imported into {folder_of(args)}")


def _archive(args: argparse.Namespace) -> int:
    store, run = existing_run(args)
    check_owner(args, store, run.owner, f"run {run.id}")
    damaged = _damaged_events(store, run.id)  # before its events are moved
    file = archive_file.archive(store, run.id)
    result = {"run": run.id, "file": str(file), "damaged_events": damaged}
    return print_result(args, result, f"{run.id} archived in {file}")


def _restore(args: argparse.Namespace) -> int:
    store = store_with_run(args)
    run = archive_file.restore(store, args.run)
    return print_result(args, {"run": run.id, "status": run.status.value}, f"{run.id} restored")
