"""`predict RUN FOLDER --csv FILE`: classify every image of a folder or a zip."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mlae_lab.cli.output import UsageError, folder_of, print_result, store_with_run
from mlae_lab.cli.queries import query_run
from mlae_lab.core.abstention import Abstention
from mlae_lab.data.image_batch import ImageBatch, opened_batch
from mlae_lab.data.listing import counted, shown, some
from mlae_lab.files import require_free, write_whole
from mlae_lab.runs import batch_prediction
from mlae_lab.runs.batch_prediction import MAX_TOP, TOP, Classified
from mlae_lab.runs.store import RunStore


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a folder or a zip to `predict`."""
    parser.add_argument("--csv", type=Path, metavar="FILE", help="classify a folder or a zip into this table")
    parser.add_argument("--top", type=int, default=TOP, metavar="K", help=f"classes of each image in it ({TOP})")
    parser.add_argument(
        "--abstain-below", type=float, metavar="P", help="mark predictions with a probability below this, 0 to 1"
    )
    parser.add_argument(
        "--accuracy", type=float, metavar="A",
        help="choose that probability on the val images: the smallest with A %% of the kept predictions correct",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace the file of --csv if it exists")


def is_batch(args: argparse.Namespace) -> bool:
    """Whether the words of `predict` name a folder or a zip. Raises UsageError for options that do not fit."""
    batches = [word for word in args.image if _is_batch(word, args.csv is not None)]
    if not batches:
        for option, value in (
            ("--csv", args.csv),
            ("--abstain-below", args.abstain_below),
            ("--accuracy", args.accuracy),
        ):
            if value is not None:
                raise UsageError(
                    f"{option} goes with a folder or a zip of images, and {args.image[0][:100]!r} is neither"
                )
        return False
    if len(args.image) > 1:
        raise UsageError(f"a folder or a zip is classified alone: give {batches[0][:100]!r} without other images")
    if args.csv is None:
        raise UsageError(f"{batches[0][:100]!r} holds several images: add --csv FILE, the table to write")
    if args.off or args.scale != 1.0:
        raise UsageError("--off and --scale are for single images: leave them out for a folder or a zip")
    if not 1 <= args.top <= MAX_TOP:
        raise UsageError(f"--top is {args.top}: it must be 1 to {MAX_TOP}")
    if args.abstain_below is not None and not 0 <= args.abstain_below <= 1:
        raise UsageError(f"--abstain-below is {args.abstain_below:g}: it must be a probability, 0 to 1")
    if args.abstain_below is not None and args.accuracy is not None:
        raise UsageError("--abstain-below and --accuracy exclude each other: give one of them")
    return True


def _is_batch(word: str, with_table: bool) -> bool:
    """Whether a word names a folder or a zip; without --csv a number is an index of an evaluation image."""
    if word.isdigit() and not with_table:
        return False
    path = Path(word)
    return path.is_dir() or (path.suffix.lower() == ".zip" and path.is_file())


def classify(args: argparse.Namespace) -> int:
    """Write the table and print what it holds."""
    require_free(args.csv, args.force, store=folder_of(args))
    if not os.access(args.csv.absolute().parent, os.W_OK):  # before hours of work
        raise UsageError(f"{args.csv} cannot be written: name a file in a folder that exists and is writable")
    store = store_with_run(args)
    chosen = _chosen(store, args) if args.accuracy is not None else None
    threshold = chosen.threshold if chosen else args.abstain_below
    with opened_batch(Path(args.image[0])) as batch:
        rows = _rows(store, args.run, batch)
        write_whole(args.csv, batch_prediction.as_csv(rows, args.top, threshold))
        unreadable = {shown(row.path): row.problem for row in rows if row.problem}
        abstained = sum(row.abstains(threshold) for row in rows)
        ignored = {reason: [shown(path) for path in paths] for reason, paths in batch.ignored.items()}
    classes = batch_prediction.counts(rows, threshold)
    lines = [f"{counted(len(rows) - len(unreadable))} classified into {args.csv}"]
    lines += [f"  {shown(name)[:40]:<41}{number:>8,}" for name, number in classes.items()]
    if threshold is not None:
        lines.append(f"  {'(abstained)':<41}{abstained:>8,}")
    if chosen:
        lines.append(chosen.sentence)
    if unreadable:
        lines.append(f"{counted(len(unreadable), 'file')} cannot be read: {some(list(unreadable), 10)}")
    lines += [f"ignored, {reason}: {len(paths):,} ({some(paths, 3)})" for reason, paths in ignored.items()]
    result = {
        "run": args.run, "csv": str(args.csv), "classified": len(rows) - len(unreadable), "classes": classes,
        "unreadable": unreadable, "ignored": ignored, "threshold": threshold,
        "abstained": abstained, "chosen": vars(chosen) if chosen else None,
    }  # fmt: skip
    return print_result(args, result, "\n".join(lines))


def _chosen(store: RunStore, args: argparse.Namespace) -> Abstention:
    run = store.run(args.run)
    if why := batch_prediction.no_threshold(run.config):
        raise UsageError(f"{why} with --abstain-below")
    return batch_prediction.threshold_of(run, query_run(store, run.id, "errors", {"images": "all"}), args.accuracy)


def _rows(store: RunStore, run_id: str, batch: ImageBatch) -> list[Classified]:
    """The predictions, with a line of progress on a terminal."""
    rows: list[Classified] = []
    interactive = sys.stderr.isatty()
    for piece in batch_prediction.classified(store, run_id, batch):
        rows += piece
        if interactive:
            print(f"\r{len(rows):,} of {len(batch.paths):,} images ", end="", file=sys.stderr, flush=True)
    if interactive:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return rows
