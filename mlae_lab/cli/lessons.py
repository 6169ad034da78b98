"""`lessons`: the lessons of the page Learn, the state of their recordings, and `lessons record`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from mlae_lab.cli.following import follow_all
from mlae_lab.cli.output import UsageError, current_owner, print_result, store_of
from mlae_lab.files import write_whole
from mlae_lab.lessons import LESSONS, lesson
from mlae_lab.lessons import recording as recordings
from mlae_lab.lessons.lesson import SEEDS, Lesson
from mlae_lab.runs import lesson_runs


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `lessons`. command: creates a subparser."""
    parser = command("lessons", _lessons, "list the lessons; record one by training its runs", store=True)
    parser.add_argument("action", nargs="?", choices=("record",), help="train the runs of a lesson and keep the result")
    parser.add_argument("name", nargs="?", metavar="NAME|all", help="the lesson")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), metavar="N", help="of each run: 3 to 10 (3)")


def _lessons(args: argparse.Namespace) -> int:
    if args.action is None:
        return _list(args)
    if args.name is None:
        raise UsageError(f"no lesson is named: choose all or one of {', '.join(entry.name for entry in LESSONS)}")
    if not len(SEEDS) <= args.seeds <= 10:
        raise UsageError(f"--seeds is {args.seeds}: it must be a whole number from {len(SEEDS)} to 10")
    chosen = LESSONS if args.name == "all" else (lesson(args.name),)
    written = [_record(args, entry) for entry in chosen]
    lines = [f"{row['lesson']}: {row['runs']} runs, {row['file']}" for row in written]
    return print_result(args, {"recordings": written}, "\n".join(lines))


def _record(args: argparse.Namespace, entry: Lesson) -> dict[str, Any]:
    store = store_of(args)
    print(f"{entry.name}: {len(entry.arms) * args.seeds} runs", file=sys.stderr, flush=True)
    recording = lesson_runs.record(
        store, entry, range(args.seeds), current_owner(), lambda runs: follow_all(store, runs)
    )
    file = recordings.path(entry.name)
    file.parent.mkdir(exist_ok=True)
    write_whole(file, recording.to_json().encode())
    return {"lesson": entry.name, "runs": len(recording.runs), "file": str(file)}


def _list(args: argparse.Namespace) -> int:
    rows = [_row(entry) for entry in LESSONS]
    lines = [
        f"{row['lesson']:<22}{row['minutes']:>3} min   {row['recording']:<10}{row['title']}"
        + (f" ({row['reason']})" if row["reason"] else "")
        for row in rows
    ]
    return print_result(args, {"lessons": rows}, "\n".join(lines))


def _row(entry: Lesson) -> dict[str, Any]:
    state = recordings.state(entry)
    recording = state.recording
    return {
        "lesson": entry.name, "title": entry.title, "minutes": entry.minutes, "guess": entry.guess.kind,
        "tasks": list(entry.tasks), "link": f"/learn?lesson={entry.name}", "recording": state.word,
        "reason": state.reason,
        "created": recording.created if recording else None, "commit": recording.commit if recording else None,
        "machine": recording.machine if recording else None, "versions": recording.versions if recording else None,
        "seeds": sorted({run.seed for run in recording.runs}) if recording else [],
        "runs": [
            {"arm": arm.name, "task": arm.task, "config_hash": arm.config.hash} for arm in entry.arms
        ],
    }  # fmt: skip
