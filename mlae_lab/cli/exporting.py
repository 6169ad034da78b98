"""The command `export`: a run as an archive, or its network for other programs, on disk or on the Hub."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from mlae_lab.cli.output import UsageError, add_location_options, existing_run, folder_of, print_result, run_command
from mlae_lab.core.export_formats import ARCHIVE, FORMATS, NAMES
from mlae_lab.core.units import format_bytes
from mlae_lab.files import FileTakenError, require_free
from mlae_lab.runs import archive_file, exporting, hub_upload
from mlae_lab.runs.report import sentence_of_damage
from mlae_lab.runs.store import Run, RunStore

_LISTED = 200  # files that are named before an upload


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command. command: creates a subparser."""
    export = run_command(command, "export", _export, "write a run to one file, or its network for other programs")
    export.add_argument("file", type=Path, nargs="?", metavar="DEST", help="a file, or with --to a folder or .zip file")
    export.add_argument(
        "--to", choices=NAMES, default=ARCHIVE, metavar="FORMAT",
        help="archive: the run itself, for another lab (the default); "
        + "; ".join(f"{entry.name}: {entry.purpose}" for entry in FORMATS.values()),
    )  # fmt: skip
    export.add_argument("--force", action="store_true", help="replace the file DEST if it exists")
    export.add_argument(
        "--push", metavar="USER/NAME", help="upload it to a repository of the Hub, after a list of what is sent"
    )
    export.add_argument("--public", action="store_true", help="make a new repository public; it is private otherwise")
    export.add_argument("--yes", action="store_true", help="upload without asking")
    add_location_options(export)


def _export(args: argparse.Namespace) -> int:
    _check(args)
    store, run = existing_run(args)
    return _archive(args, store, run) if args.to == ARCHIVE else _network(args, store, run)


def _check(args: argparse.Namespace) -> None:
    """Raise UsageError or FileTakenError for a request that cannot be met, before anything is started."""
    if args.file is None and args.push is None:
        raise UsageError("`export` needs DEST, a file or folder to write, or --push USER/NAME")
    if args.public and args.push is None:
        raise UsageError("--public is of an upload: add --push USER/NAME or leave it out")
    if args.push is not None:
        if args.to == ARCHIVE:
            raise UsageError(f"an archive is not for the Hub: add --to {', '.join(FORMATS)}")
        hub_upload.require_repository(args.push)
    if args.file is None:
        return
    if args.to == ARCHIVE or args.file.suffix == ".zip":
        require_free(args.file, args.force, store=folder_of(args))
    elif os.path.lexists(args.file):
        raise FileTakenError(f"{args.file} exists: name a new folder, or a file that ends in .zip")
    elif args.file.absolute().resolve().is_relative_to(folder_of(args).resolve()):
        raise FileTakenError(f"{args.file} is in the store: name a folder elsewhere")


def _archive(args: argparse.Namespace, store: RunStore, run: Run) -> int:
    size = archive_file.export(store, run.id, args.file)
    damaged = store.damaged_events(run.id)
    if damaged:
        print(f"run {run.id}: {sentence_of_damage(damaged)}", file=sys.stderr)
    return print_result(
        args,
        {"run": run.id, "file": str(args.file), "bytes": size, "damaged_events": [event.id for event in damaged]},
        f"{run.id} exported to {args.file}, {size:,} bytes",
    )


def _network(args: argparse.Namespace, store: RunStore, run: Run) -> int:
    with ExitStack() as stack:
        folder = store.paths(run.id).exports
        if not os.access(store.paths(run.id).folder, os.W_OK):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))  # a store that can only be read
        exported = exporting.wait(
            store, run.id, args.to, folder, lambda text: print(f"{args.to}: {text}", file=sys.stderr)
        )
        result = {
            "run": run.id, "format": args.to, "check": exported.check, "bytes": exported.bytes,
            "files": [name for name, _ in exported.files],
        }  # fmt: skip
        lines = [exported.check]
        file = exporting.zip_file(folder, args.to)
        if args.file is not None:
            exporting.copy_to(file, args.file)
            result["file"] = str(args.file)
            lines.append(f"{run.id} exported to {args.file}, {len(exported.files)} files, {exported.bytes:,} bytes")
        if args.push is not None:
            result["pushed"] = address = _pushed(args, run, exported, file)
            lines.append(f"{run.id} uploaded to {address}")
    return print_result(args, result, "\n".join(lines))


def _pushed(args: argparse.Namespace, run: Run, exported: exporting.Exported, file: Path) -> str:
    """Show what would be sent, ask, and send it. Returns the address."""
    kind = "public" if args.public else "private"
    print(f"To {args.push} ({kind}, if it is new):", file=sys.stderr)
    for name, size in exported.files[:_LISTED]:
        print(f"  {name.partition('/')[2]:<48}{format_bytes(size):>10}", file=sys.stderr)
    print(f"{len(exported.files)} files, {format_bytes(exported.bytes)}", file=sys.stderr)
    if not args.yes:
        if not sys.stdin.isatty():
            raise UsageError("nothing was sent: no terminal can ask for a confirmation, add --yes to upload")
        print("Upload? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise UsageError("nothing was sent: the upload was not confirmed")
    with exporting.unpacked(file) as folder:
        return hub_upload.upload(
            folder, args.push, not args.public, f"Run {run.id} of MLAE Lab as {FORMATS[args.to].title}"
        )
