"""What the commands share: the store, the user's errors, commands about one run, JSON on the last line."""

from __future__ import annotations

import argparse
import getpass
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mlae_lab.data.image_record import read_record
from mlae_lab.data.run_images import checked_folder
from mlae_lab.environment import expanded
from mlae_lab.errors import LabError
from mlae_lab.locations import PROGRAM, default_store
from mlae_lab.runs import paths, supervisor
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.owners import owner_name, terminal_owner
from mlae_lab.runs.run_location import checked_weights, keep_location, read_location
from mlae_lab.runs.store import Run, RunStore


class UsageError(LabError):
    """A request that cannot be met; its text is the one sentence that the user reads."""


def run_command(
    command: Callable[..., argparse.ArgumentParser], name: str, do: Callable[[argparse.Namespace], int], help: str
) -> argparse.ArgumentParser:
    """Add a command that takes a RUN.

    Args:
        command: Creates a subparser.
        name: What is typed.
        do: Runs the command and returns the exit status.
        help: One line.
    """
    parser = command(name, do, help, store=True)
    parser.add_argument("run", metavar="RUN")
    return parser


def add_location_options(parser: argparse.ArgumentParser) -> None:
    """Add --data and --weights, which say where the run's images and weights are on this machine."""
    parser.add_argument(
        "--data", dest="run_data", metavar="DIR", help="folder that holds the run's images now; kept for later commands"
    )
    parser.add_argument(
        "--weights", dest="run_weights", metavar="FILE", help="file of its frozen weights; kept for later commands"
    )


def locate(args: argparse.Namespace, store: RunStore, run_id: str) -> None:
    """Keep what --data and --weights name for a run.

    Raises:
        DataError: The folder lacks images of the run. Nothing is kept.
        LocationError: The weights are not a file.
    """
    if args.run_data is None and args.run_weights is None:
        return
    run, files = store.run(run_id), store.paths(run_id)
    location = read_location(files)
    if args.run_data is not None:
        location = replace(location, data=checked_folder(run.config, read_record(files.images), args.run_data))
    if args.run_weights is not None:
        location = replace(location, weights=checked_weights(args.run_weights))
    keep_location(files, location)


def _locate_like(args: argparse.Namespace, store: RunStore, other: str) -> None:
    """`locate` for a second run: the folder if it has the same task, the weights if it has the same backbone."""
    a, b = store.run(args.run).config, store.run(other).config
    shared = argparse.Namespace(
        run_data=args.run_data if a.task == b.task else None,
        run_weights=args.run_weights if a.backbone == b.backbone else None,
    )
    locate(shared, store, other)


def folder_of(args: argparse.Namespace) -> Path:
    """The store's folder, whether it exists or not."""
    return expanded(args.store or default_store(), "--store").absolute()


def store_of(args: argparse.Namespace) -> RunStore:
    """The store, created if it is missing."""
    return RunStore(folder_of(args))


def find_store(args: argparse.Namespace) -> RunStore | None:
    """The store if it exists: a query creates none."""
    folder = folder_of(args)
    return store_of(args) if paths.database(folder).exists() or (folder.exists() and not folder.is_dir()) else None


def store_with_run(args: argparse.Namespace) -> RunStore:
    """The store that holds `args.run`, after `locate`. Raises UsageError if there is no store."""
    store = find_store(args)
    if store is None:
        raise UsageError(
            f"run {args.run[:60]!r} is not in {folder_of(args)}: there is no store yet; `{PROGRAM} runs --store DIR` "
            "lists the runs of another store"
        )
    if "run_data" in args:
        locate(args, store, args.run)
        if (other := getattr(args, "other", None)) is not None:
            _locate_like(args, store, other)
    return store


def existing_run(args: argparse.Namespace) -> tuple[RunStore, Run]:
    """The store and the run of `args.run`, with its actual status."""
    store = store_with_run(args)
    supervisor.ensure(store)
    return store, derived(store, store.run(args.run))


def current_owner() -> str:
    """The owner of a run that is started here: the user of this terminal."""
    try:
        return terminal_owner(getpass.getuser())
    except (KeyError, OSError):  # a user without a name, as in some containers
        return terminal_owner("")


def check_owner(args: argparse.Namespace, store: RunStore | None, owner: str, name: str) -> None:
    """Raise UsageError before somebody else's run, mask or dataset is changed by accident; `--yes` allows it.

    A browser without a nickname may be the caller's own.

    Args:
        args: With `yes`.
        store: Knows the nicknames; None if there is none.
        owner: As it is stored.
        name: What the owner has, for the message.
    """
    person = owner_name(owner, store.nicknames() if store else {})
    if person and owner != current_owner() and not args.yes:
        raise UsageError(f"{name} belongs to {person}: add --yes to change it anyway")


def print_json(value: dict) -> int:
    """Print one JSON object on a line; return the exit status of a command that succeeded."""
    print(json.dumps(value), flush=True)
    return 0


def print_result(args: argparse.Namespace, value: dict, text: str) -> int:
    """Print the result, as JSON with `--json` and as text without; return exit status 0."""
    if args.json:
        return print_json(value)
    print(text, flush=True)
    return 0
