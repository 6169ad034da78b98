"""Commands for existing runs: list, stop, resume, rerun, pair, compare, export, archive, delete."""

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
    add_location_options,
    check_owner,
    current_owner,
    find_store,
    folder_of,
    locate,
    print_json,
    print_result,
    run_command,
    store_of,
    store_with_run,
)
from mlae_lab.core.events import Evaluation, Resumed, Started
from mlae_lab.core.seed_statistics import sample_size
from mlae_lab.core.units import format_bytes
from mlae_lab.errors import LabError
from mlae_lab.files import require_free
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import archive_file, commands, pairs, supervisor
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.paths import LAST
from mlae_lab.runs.report import report, sentence_of_damage, state
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore

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
    pair = for_run("pair", _pair, "train the same run with another mask over several seeds and report the difference")
    add_mask_options(pair, required=True)
    pair.add_argument("--seeds", type=int, default=3, metavar="N", help="1 to 10 seeds, starting with the run's own")
    add_detach(pair)
    compare = for_run("compare", _compare, "report the difference between two runs, with its interval over seeds")
    compare.add_argument("other", metavar="OTHER")
    move = for_run("move", _move, "change a queued run's position in its owner's queue")
    move.add_argument("to", choices=("up", "down", "first", "last"))
    add_yes(move)
    add_yes(for_run("delete", _delete, "delete a run that is over or archived, with its files"))
    export = for_run("export", _export, "write a run to one file")
    export.add_argument("file", type=Path, metavar="FILE")
    export.add_argument("--force", action="store_true", help="replace FILE if it exists")
    import_ = command("import", _import, "read an exported run, also from another machine", store=True)
    import_.add_argument("file", type=Path, metavar="FILE")
    add_location_options(import_)
    add_yes(for_run("archive", _archive, "move a run out of the list into one file in the store"))
    for_run("restore", _restore, "move an archived run back into the list")


# ---------------------------------------------------------------- list


def _runs(args: argparse.Namespace) -> int:
    store = find_store(args) if args.run is None else store_with_run(args)
    if store is None:
        folder = folder_of(args)
        if args.archived:
            return print_result(args, {"archived": []}, _NONE_ARCHIVED.format(folder))
        return print_result(args, {"runs": []}, _NO_RUNS.format(folder))
    supervisor.ensure(store)
    if args.archived:
        return _archived(args, store)
    _report_supervisor(store)
    sizes = {name: use.total for name, use in commands.disk_use(store).items()}
    if args.run is not None:
        row = state(store, derived(store, store.run(args.run))) | {"bytes": sizes.get(args.run, 0)}
        if damaged := _damaged_events(store, args.run):
            row["damaged_events"] = damaged
        lines = [f"{name:<18}{json.dumps(value) if isinstance(value, dict) else value}" for name, value in row.items()]
        return print_result(args, row, "\n".join(lines))
    rows: list[dict[str, Any]] = [
        state(store, derived(store, run)) | {"bytes": sizes.get(run.id, 0)} for run in store.runs()
    ]
    if unread := store.unread():
        print(f"runs that cannot be read: {len(unread)}; `{PROGRAM} doctor` says why", file=sys.stderr)
    if args.json:
        return print_json({"runs": rows})
    if not rows:
        print(_NO_RUNS.format(store.folder))
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
            f"{row['run']}  {row['status']:<9} {row['config']['task']:<24}{row['config']['method']:<7}"
            f"{percent:>8}{format_bytes(row['bytes']):>10}  {note}"
        )
    if rows:
        free = format_bytes(commands.free_bytes(store))
        print(
            f"{len(rows)} run{'s' if len(rows) != 1 else ''}, {format_bytes(sum(sizes.values()))}; "
            f"{free} free on the disk"
        )
    return 0


def _report_supervisor(store: RunStore) -> bool:
    """Say on standard error that the supervisor is stalled, and what helps. Returns whether it is."""
    if (stalled := supervisor.stalled(store)) is None:
        return False
    print(f"the supervisor is stalled: {stalled.state}. To fix it, {stalled.cure}", file=sys.stderr)
    return True


def _damaged_events(store: RunStore, run_id: str) -> list[int]:
    """The ids of a run's damaged events, which are named on standard error."""
    damaged = store.damaged_events(run_id)
    if damaged:
        print(f"run {run_id}: {sentence_of_damage(damaged)}", file=sys.stderr)
    return [event.id for event in damaged]


def _archived(args: argparse.Namespace, store: RunStore) -> int:
    if args.run is not None:
        raise UsageError("`runs --archived` lists all archived runs and takes no RUN: leave one of the two out")
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


def follow(store: RunStore, run: Run) -> Run:
    """Print the start, the evaluations and the resumption of a run until it is over; return it as it is then."""
    earlier, known = store.events(run.id)[-1:], run.config.data_notes
    last = earlier[0].id if earlier else 0
    is_reported = False
    while True:
        supervisor.ensure(store)
        run = derived(store, store.run(run.id))
        is_reported = is_reported or (run.status is Status.QUEUED and _report_supervisor(store))
        for stored in store.events(run.id, Started, Resumed, Evaluation, after=last):
            last, event = stored.id, stored.event
            if isinstance(event, Started):
                print(
                    f"{event.train_images} images, {event.parameters:,} expert and {event.head_parameters:,} head "
                    f"parameters, {event.steps} steps on {event.device} in {event.precision}",
                    flush=True,
                )
            elif isinstance(event, Resumed):
                print("  ".join([f"resumed after step {event.step}", *event.notes]), flush=True)
            else:
                print(
                    f"epoch {event.epoch:>4}   {event.split} accuracy {event.accuracy:5.1f} %   loss {event.loss:.3f}"
                    f"   {event.seconds:6.1f} s",
                    flush=True,
                )
        if run.status.is_over:
            for note in run.config.data_notes:  # the images may have changed in the queue
                if note not in known:
                    print(f"note: {note}", file=sys.stderr)
            return run
        time.sleep(0.2)


def follow_all(store: RunStore, runs: Sequence[Run]) -> None:
    """Follow several runs to their end, one after the other."""
    for run in runs:
        print(f"run {run.id}: {run.config.what}, seed {run.config.seed}", flush=True)
        follow(store, run)


def print_failures(store: RunStore, runs: Sequence[Run], log_lines: int = 0) -> int:
    """Print the reason of each run that failed or was lost to standard error.

    Args:
        store: Holds the runs.
        runs: Runs that are over.
        log_lines: How many lines of the end of its log to print for each.

    Returns:
        The exit status: 1 if any failed or was lost, else 0.
    """
    status = 0
    for run in [derived(store, store.run(run.id)) for run in runs]:
        if run.status in (Status.FAILED, Status.LOST):
            status = 1
            print(f"run {run.id} {run.status.value}: {run.reason}", file=sys.stderr)
            for line in commands.log_tail(store, run.id, log_lines) if log_lines else ():
                print(f"    {line}", file=sys.stderr)
    return status


def follow_to_end(args: argparse.Namespace, store: RunStore, run: Run) -> int:
    """Follow a run that was enqueued here, or leave it with --detach; return the exit status of the command."""
    if args.detach:
        result = {
            "run": run.id, "status": run.status.value, "config_hash": run.config_hash,
            "data_notes": list(run.config.data_notes),
        }  # fmt: skip
        return print_result(args, result, run.id)
    try:
        print(f"run {run.id} is {run.status.value} on {run.device}; Ctrl-C leaves it running", flush=True)
        run = follow(store, run)
    except KeyboardInterrupt:
        print(
            f"\nrun {run.id} continues without this terminal: `{PROGRAM} runs {run.id}` shows it, "
            f"`{PROGRAM} stop {run.id}` stops it"
        )
        return print_json({"run": run.id, "status": store.run(run.id).status.value}) if args.json else 0
    result = report(store, run)
    status = print_failures(store, [run], log_lines=40)
    if args.json:
        print_json(result)
    return status


def _existing_run(args: argparse.Namespace) -> tuple[RunStore, Run]:
    store = store_with_run(args)
    supervisor.ensure(store)
    return store, derived(store, store.run(args.run))


# ---------------------------------------------------------------- stop, resume, rerun


def _stop(args: argparse.Namespace) -> int:
    store, run = _existing_run(args)
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
    store, run = _existing_run(args)
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
    store, run = _existing_run(args)
    return follow_to_end(args, store, commands.rerun(store, run.id, current_owner()))


def _move(args: argparse.Namespace) -> int:
    store, run = _existing_run(args)
    if run.status is not Status.QUEUED:
        raise UsageError(f"run {run.id} is {run.status.value}: only a queued run has a position in the queue")
    check_owner(args, store, run.owner, f"run {run.id}")
    store.reorder(run.id, args.to)
    order = [queued.id for queued in store.queue()]
    return print_result(args, {"queue": order}, "\n".join(f"{i}. {name}" for i, name in enumerate(order, 1)))


# ---------------------------------------------------------------- pairs


def _pair(args: argparse.Namespace) -> int:
    store, run = _existing_run(args)
    plan = plan_of(args, run.config.backbone)
    runs = pairs.launch_pair(store, run.id, plan, args.seeds, current_owner())
    launched = {"runs": [r.id for r in runs]}
    if args.detach:
        return print_result(args, launched, "\n".join(launched["runs"]))
    try:
        follow_all(store, runs)
    except KeyboardInterrupt:
        print(f"\nthe runs continue without this terminal: `{PROGRAM} compare {runs[0].id} {runs[1].id}` compares them")
        return print_json(launched) if args.json else 0
    status = print_failures(store, runs)
    return max(status, _print_difference(args, store, runs[0], runs[1]))


def _compare(args: argparse.Namespace) -> int:
    store, a = _existing_run(args)
    return _print_difference(args, store, a, derived(store, store.run(args.other)))


def _print_difference(args: argparse.Namespace, store: RunStore, a: Run, b: Run) -> int:
    why_not = pairs.unpaired_runs_because(store, a, b)
    difference = pairs.difference(pairs.family(store, a, b))
    if not pairs.sides(store, a, b) or (why_not and not difference.pairs):
        why_not = why_not or "neither has been evaluated yet"
        raise UsageError(f"runs {a.id} and {b.id} are not a pair: {why_not.rstrip('.')}")
    by_epoch = [
        {"epoch": s.epoch, "mean": s.mean, "low": s.low, "high": s.high, "pairs": s.n} for s in difference.over_epochs
    ]
    seeds = sample_size(difference.last) if difference.last else None
    result = {
        "a": a.id, "b": b.id, "pairs": len(difference.pairs), "difference": by_epoch, "verdict": difference.verdict,
        "pairs_to_clear_zero": seeds and seeds.excludes_zero, "pairs_for_80_percent_power": seeds and seeds.power_80,
        "settled_by": difference.seeds_needed, "not_a_pair": why_not,
    }  # fmt: skip
    note = (
        f"these two runs are not a pair ({why_not}): the difference is of the pairs in their family" if why_not else ""
    )
    lines = [
        f"epoch {s.epoch:>5}   {s.mean:+6.2f} points"
        + (f"   95 % {s.low:+.2f} to {s.high:+.2f}" if s.low is not None else "")
        for s in difference.over_epochs
    ]
    return print_result(
        args, result, "\n".join(filter(None, [*lines, difference.verdict, difference.seeds_needed, note]))
    )


# ---------------------------------------------------------------- files


def _delete(args: argparse.Namespace) -> int:
    store = store_with_run(args)
    archived = next((entry for entry in archive_file.archived(store) if entry.id == args.run), None)
    if archived is not None:
        check_owner(args, store, archived.owner, f"run {archived.id}")
        archive_file.discard(store, archived.id)
    else:
        store, run = _existing_run(args)
        check_owner(args, store, run.owner, f"run {run.id}")
        commands.delete(store, args.run)
    return print_result(args, {"run": args.run, "deleted": True}, f"{args.run} deleted")


def _export(args: argparse.Namespace) -> int:
    require_free(args.file, args.force, store=folder_of(args))
    store, run = _existing_run(args)
    size = archive_file.export(store, run.id, args.file)
    damaged = _damaged_events(store, run.id)
    return print_result(
        args,
        {"run": run.id, "file": str(args.file), "bytes": size, "damaged_events": damaged},
        f"{run.id} exported to {args.file}, {size:,} bytes",
    )


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
    store, run = _existing_run(args)
    check_owner(args, store, run.owner, f"run {run.id}")
    damaged = _damaged_events(store, run.id)  # before its events are moved
    file = archive_file.archive(store, run.id)
    result = {"run": run.id, "file": str(file), "damaged_events": damaged}
    return print_result(args, result, f"{run.id} archived in {file}")


def _restore(args: argparse.Namespace) -> int:
    store = store_with_run(args)
    run = archive_file.restore(store, args.run)
    return print_result(args, {"run": run.id, "status": run.status.value}, f"{run.id} restored")
