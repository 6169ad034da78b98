"""What the commands share: the store, the user's errors, commands about one run, JSON on the last line."""

from __future__ import annotations

import argparse
import getpass
import json
from collections.abc import Callable
from pathlib import Path

from mlae_lab.environment import expanded
from mlae_lab.errors import LabError
from mlae_lab.locations import PROGRAM, default_store
from mlae_lab.runs import paths
from mlae_lab.runs.owners import owner_name, terminal_owner
from mlae_lab.runs.store import RunStore


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
    """The store that holds `args.run`. Raises UsageError if there is no store."""
    store = find_store(args)
    if store is None:
        raise UsageError(
            f"run {args.run[:60]!r} is not in {folder_of(args)}: there is no store yet; `{PROGRAM} runs --store DIR` "
            "lists the runs of another store"
        )
    return store


def current_owner() -> str:
    """The owner of a run that is started here: the user of this terminal."""
    try:
        return terminal_owner(getpass.getuser())
    except (KeyError, OSError):  # a user without a name, as in some containers
        return terminal_owner("")


def check_owner(args: argparse.Namespace, store: RunStore, owner: str, name: str) -> None:
    """Raise UsageError before somebody else's run or mask is changed by accident; `--yes` allows it.

    A browser without a nickname may be the caller's own.

    Args:
        args: With `yes`.
        store: Knows the nicknames.
        owner: As it is stored.
        name: What the owner has, for the message.
    """
    person = owner_name(owner, store.nicknames())
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
