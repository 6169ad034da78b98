"""`dataset`: make datasets of own images, correct their labels, list, check and delete them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from mlae_lab.cli.fetching import ASK_ABOVE, ProgressLine, confirmed
from mlae_lab.cli.output import (
    UsageError,
    check_owner,
    current_owner,
    find_store,
    print_result,
)
from mlae_lab.core.catalog import Task
from mlae_lab.core.hosts import Remote
from mlae_lab.core.units import format_bytes
from mlae_lab.data import own_dataset, relabel, tasks
from mlae_lab.data.bundled import DataError
from mlae_lab.data.dataset_input import DatasetInput, of_dataset, opened
from mlae_lab.data.duplicates import examine
from mlae_lab.data.hub_dataset import opened_tables, tables_of
from mlae_lab.data.listing import SPLITS, counted, shown, some
from mlae_lab.data.own_dataset import DUPLICATES, RATIO, Changes, DatasetPlan
from mlae_lab.data.own_source import labels_by_file, read_labels
from mlae_lab.environment import expanded
from mlae_lab.locations import PROGRAM
from mlae_lab.runs.owners import owner_name

_LISTED = 20  # groups or pairs of duplicates in the text; --json has all that are kept


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `dataset`. command: creates a subparser."""
    parser = command(
        "dataset", _dataset, "make a dataset of own images; relabel, list, check or delete them", store=True
    )
    parser.add_argument(
        "do_what",
        choices=("new", "relabel", "list", "check", "delete"),
        metavar="new|relabel|list|check|delete",
    )
    parser.add_argument("name", nargs="?", metavar="NAME")
    parser.add_argument("given", nargs="?", metavar="FOLDER|ZIP|own:NAME", help="the images of a new dataset")
    parser.add_argument("--hub", metavar="OWNER/NAME", help="a dataset on the Hugging Face Hub as the source")
    parser.add_argument("--config", default="", metavar="C", help="its configuration (else the only one, or default)")
    parser.add_argument("--image-column", default="image", metavar="C", help="of the Hub's table (default: image)")
    parser.add_argument("--label-column", default="label", metavar="C", help="of the Hub's table (default: label)")
    parser.add_argument("--labels", type=Path, metavar="CSV", help="columns file,label and maybe split")
    parser.add_argument("--as", dest="new_name", metavar="NEW", help="name of a relabelled dataset (default: NAME v2)")
    parser.add_argument(
        "--ratio", metavar="TRAIN,VAL,TEST",
        help="split by these percentages (default: the splits that folders or CSV give, else 60,20,20)",
    )  # fmt: skip
    parser.add_argument("--split-seed", type=int, default=0, metavar="N", help="of a split by ratio")
    parser.add_argument(
        "--rename", action="append", default=[], metavar="OLD=NEW", help="rename or merge a class; may be repeated"
    )
    parser.add_argument("--leave-out", action="append", default=[], metavar="CLASS", help="may be repeated")
    parser.add_argument(
        "--duplicates", choices=DUPLICATES, default="exact",
        help="leave out of val and test what an earlier split has: exact copies (the default), or near ones too",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")
    parser.add_argument("--yes", action="store_true", help="delete, or download much, without a question")


def _dataset(args: argparse.Namespace) -> int:
    if args.do_what == "list":
        if args.name is not None:
            raise UsageError(f"`dataset list` takes no name: leave {args.name[:60]!r} out")
        return _list(args)
    if args.name is None:
        raise UsageError(f"`dataset {args.do_what}` needs the name of a dataset, such as birds")
    if args.do_what == "new" and args.hub is not None and (args.given is not None or args.labels is not None):
        raise UsageError("a source and --hub exclude each other, and --labels goes with a folder or a zip: give one")
    if (args.given is not None or args.hub is not None) != (args.do_what == "new"):
        raise UsageError("`dataset new` takes a name and a folder, a zip, own:NAME or --hub; the others a name")
    if args.new_name is not None and args.do_what != "relabel":
        raise UsageError("--as names the result of `dataset relabel`: leave it out")
    return {"new": _new, "relabel": _relabel, "check": _check, "delete": _delete}[args.do_what](args)


# ---------------------------------------------------------------- new


def _new(args: argparse.Namespace) -> int:
    own_dataset.new_task(args.name)  # before any image is read
    renamed = dict(_renaming(text) for text in args.rename)
    with _opened(args) as given:
        ratio = _ratio(args.ratio) if args.ratio else None if given.source.has_splits else RATIO
        changes = Changes(renamed, tuple(args.leave_out), ratio, args.split_seed, args.duplicates)
        facts = examine(given.source.folder, [image.path for image in given.source.images])
        plan = own_dataset.plan(given.source, facts, changes)
        task = None
        if not args.dry_run:
            task = own_dataset.write(plan, args.name, given.origin, current_owner(), link=given.linkable)
    return _print_plan(args, plan, task)


def _print_plan(args: argparse.Namespace, plan: DatasetPlan, task: Task | None) -> int:
    """Print what was planned and, with a task, written; return the exit status."""
    lines = [*_table(plan), *plan.notes, *own_dataset.left_out_lines(plan), *own_dataset.findings(plan), *plan.problems]
    if task is not None:
        lines += ["", f"{task.title} is the task {task.name}: `{PROGRAM} train --task {_quoted(task)}` trains on it"]
    result = {
        "task": task.name if task else None,
        "folder": str(tasks.folder_of(task)) if task else None,
        "written": task is not None,
        **_plan_data(plan),
    }
    print_result(args, result, "\n".join(lines))
    return 1 if plan.problems else 0


def _relabel(args: argparse.Namespace) -> int:
    if args.labels is None:
        raise UsageError("`dataset relabel` needs --labels CSV, with the columns file,label for the images to correct")
    if args.ratio or args.rename or args.leave_out:
        raise UsageError("`dataset relabel` changes only the labels of --labels: use `dataset new` for other changes")
    task = _task(args.name)
    content = read_labels(expanded(args.labels, "--labels", "file"))
    paths = [image.path for image in of_dataset(task.name).source.images]
    given, plan = relabel.corrected(task.name, labels_by_file(paths, content), csv_name=args.labels.name)
    written = None
    if not args.dry_run:
        name = args.new_name or own_dataset.next_version(task.title)
        written = own_dataset.write(plan, name, given.origin, current_owner(), link=given.linkable)
    return _print_plan(args, plan, written)


def _opened(args: argparse.Namespace) -> AbstractContextManager[DatasetInput]:
    """The images that the options name; the user is asked before a large download."""
    if args.hub is None:
        labels = expanded(args.labels, "--labels", "file") if args.labels is not None else None
        return opened(args.given, labels)
    remote = tables_of(args.hub, args.config)
    size = remote.size_bytes or 0
    if size > ASK_ABOVE and not args.yes:
        if not sys.stdin.isatty():
            raise UsageError(f"{args.hub} has {format_bytes(size)} to download: add --yes, as no terminal can ask")
        if not confirmed(f"Download {format_bytes(size)} of {args.hub}, under the licence on {remote.page}? [y/N] "):
            raise UsageError("nothing was downloaded")
    return _downloaded(remote, args.image_column, args.label_column)


@contextmanager
def _downloaded(remote: Remote, image_column: str, label_column: str) -> Iterator[DatasetInput]:
    """`opened_tables` with a line of progress on a terminal."""
    line = ProgressLine()
    show = line.show if sys.stdout.isatty() else lambda progress: None
    with opened_tables(remote, image_column, label_column, show) as given:
        line.end()
        yield given


def _renaming(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals or not old or not new.strip():
        raise UsageError(f"--rename is {text[:60]!r}: it must be a class and its new name, such as dog=hound")
    return old, new


def _ratio(text: str) -> tuple[float, float, float]:
    try:
        train, val, test = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"--ratio is {text[:60]!r}: it must be three numbers, such as 60,20,20") from None
    return train, val, test


def _quoted(task: Task) -> str:
    return f"'{task.name}'" if " " in task.name else task.name


def _table(plan: DatasetPlan) -> list[str]:
    lines = [f"{'class':<32}" + "".join(f"{split:>9}" for split in SPLITS)]
    for i, name in enumerate(plan.classes):
        lines.append(f"{shown(name)[:31]:<32}" + "".join(f"{plan.counts[split][i]:>9,}" for split in SPLITS))
    return [*lines, f"{'all':<32}" + "".join(f"{sum(plan.counts[split]):>9,}" for split in SPLITS), ""]


def _plan_data(plan: DatasetPlan) -> dict:
    return {
        "counts": {split: sum(plan.counts[split]) for split in SPLITS},
        "classes": {
            shown(name): {split: plan.counts[split][i] for split in SPLITS} for i, name in enumerate(plan.classes)
        },
        "imbalance": round(plan.imbalance, 3),
        "left_out": {shown(reason): [shown(path) for path in paths] for reason, paths in plan.left_out.items()},
        "notes": list(plan.notes),
        "problems": list(plan.problems),
        **_duplicates_data(plan),
    }


def _duplicates_data(plan: DatasetPlan) -> dict:
    return {
        "same_content": [
            [{"file": shown(image.path), "split": image.split, "class": shown(image.label)} for image in group]
            for group in plan.same
        ],
        "near": {
            "across_splits": plan.near.across,
            "within_a_split": plan.near.within,
            "pairs": [
                {"a": shown(plan.compared[a].path), "b": shown(plan.compared[b].path), "bits": bits}
                for a, b, bits in plan.near.pairs
            ],
        },
    }


# ---------------------------------------------------------------- list, check, delete


def _list(args: argparse.Namespace) -> int:
    rows = []
    store = find_store(args)
    names = store.nicknames() if store else {}
    for task in tasks.own_tasks():
        folder = tasks.folder_of(task)
        if folder is None:
            continue
        row: dict = {"name": folder.name, "task": task.name, "folder": str(folder)}
        try:
            listing = tasks.listed(task, folder)
            row |= {"classes": listing.classes, **listing.counts, "problem": ""}
        except DataError as error:
            row |= {"classes": None, **dict.fromkeys(SPLITS), "problem": str(error)}
        dataset = own_dataset.stored(folder)
        row |= {
            "made_by_the_lab": dataset is not None,
            "created": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(dataset.created)) if dataset else None,
            "owner": owner_name(dataset.owner, names) if dataset else "",
            "origin": vars(dataset.origin) if dataset else None,
        }
        rows.append(row)
    if not rows:
        text = f"no own datasets in {own_dataset.own_folder()} yet: `{PROGRAM} dataset new NAME FOLDER` makes one"
    else:
        text = "\n".join(
            f"{shown(row['name'])[:40]:<41}"
            + (
                f"{row['classes']:>4} classes  {row['train']:,} / {row['val']:,} / {row['test']:,}  "
                if row["classes"]
                else f"{row['problem']}  "
            )
            + (_origin_text(row["origin"]) if row["origin"] else "a folder")
            for row in rows
        )
    return print_result(args, {"datasets": rows}, text)


def _origin_text(origin: dict) -> str:
    if origin["parent"]:
        return f"a version of {shown(origin['parent'])}"
    return f"from the {origin['kind']} {shown(origin['name'])}"


def _check(args: argparse.Namespace) -> int:
    given = of_dataset(_task(args.name).name)
    source = given.source
    facts = examine(source.folder, [image.path for image in source.images])
    ratio = None if source.has_splits else RATIO
    plan = own_dataset.plan(source, facts, Changes(ratio=ratio, duplicates="keep"))
    lines = [*_table(plan), *own_dataset.left_out_lines(plan), *(own_dataset.findings(plan) or ["No duplicates."])]
    if not source.has_splits:
        lines.append("The folder names no splits, so only duplicates within it are certain.")
    for group in sorted(plan.same, key=lambda group: len({image.split for image in group}), reverse=True)[:_LISTED]:
        lines.append("same content: " + ", ".join(shown(image.path) for image in group))
    for a, b, bits in plan.near.pairs[:_LISTED]:
        lines.append(f"nearly alike ({bits} of 64 bits differ): {shown(plan.compared[a].path)}, "
                     f"{shown(plan.compared[b].path)}")  # fmt: skip
    return print_result(args, {"task": _task(args.name).name, **_plan_data(plan)}, "\n".join(lines))


def _task(name: str) -> Task:
    """The task of an own dataset by its name or by its task's. Raises UsageError."""
    own = tasks.own_tasks()
    task = next((t for t in own if name in (t.name, t.title)), None)
    if task is None:
        raise UsageError(f"no own dataset is called {name[:60]!r}: there are {some([t.title for t in own]) or 'none'}")
    return task


def _delete(args: argparse.Namespace) -> int:
    task = _task(args.name)
    folder = tasks.folder_of(task)
    dataset = own_dataset.stored(folder) if folder else None
    if dataset is None:
        raise UsageError(f"{task.title} was not made by the lab: delete its folder {folder} yourself")
    store = find_store(args)
    runs = [run for run in store.runs() if run.config.task == task.name] if store else []
    check_owner(args, store, dataset.owner, f"the dataset {task.title!r}")
    if waiting := [run.id for run in runs if not run.status.is_over]:
        raise UsageError(f"run {waiting[0]} needs the images of {task.title} and is not over: stop it first")
    ask = f"Delete {task.title} with its {counted(dataset.record['images'])}"
    ask += f", on which {counted(len(runs), 'run')} of this store were made? " if runs else "? "
    if not args.yes:
        if not sys.stdin.isatty():
            raise UsageError(f"add --yes to delete {task.title}, since there is no terminal to ask")
        if input(f"{ask}[y/N] ").strip().lower() not in ("y", "yes"):
            return print_result(args, {"deleted": None}, "nothing was deleted")
    own_dataset.delete(dataset)
    return print_result(
        args,
        {"deleted": task.name, "runs": [run.id for run in runs]},
        f"deleted {task.title}" + (f"; {counted(len(runs), 'run')} keep their results" if runs else ""),
    )
