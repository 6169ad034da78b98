"""What the commands share: the store that is meant, the errors that are the user's, JSON on the last line."""

from __future__ import annotations

import argparse
import getpass
import json
from pathlib import Path

from mlae_lab.errors import LabError
from mlae_lab.locations import default_store
from mlae_lab.runs import paths
from mlae_lab.runs.store import RunStore


class UsageError(LabError):
    """A request that cannot be met; its text is the one sentence that the user reads."""


def folder_of(args: argparse.Namespace) -> Path:
    """The store's folder, whether it is there or not."""
    folder = args.store or default_store()
    try:
        return folder.expanduser().absolute()
    except RuntimeError as error:  # ~somebody who is not there
        raise UsageError(f"the store {folder} has no place ({error}): name a folder in full") from None


def store_of(args: argparse.Namespace) -> RunStore:
    """The store, made if it is missing."""
    return RunStore(folder_of(args))


def existing_store(args: argparse.Namespace) -> RunStore | None:
    """The store if there is one; a question makes none. Wrong if a run is asked for where there is no store."""
    store = store_if_there(args)
    if store is None and args.run is not None:
        raise UsageError(
            f"run {args.run[:60]!r} is not in {folder_of(args)}: there is no store yet; `mlae_lab runs --store DIR` "
            "lists another's"
        )
    return store


def store_if_there(args: argparse.Namespace) -> RunStore | None:
    """The store if there is one: looking makes none."""
    folder = folder_of(args)
    return store_of(args) if paths.database(folder).exists() or (folder.exists() and not folder.is_dir()) else None


def current_owner() -> str:
    """Whom a run belongs to that is started here: the user of this terminal."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a user without a name, as in some containers
        return "cli:"


def owner_name(store: RunStore, owner: str) -> str:
    """What the owner of a run or a mask is called; nothing for a browser without a nickname."""
    return store.nicknames().get(owner) or (owner[4:] if owner.startswith("cli:") else "")


def print_json(value: dict) -> int:
    """One JSON object on a line of its own; the exit status of a command that went well."""
    print(json.dumps(value), flush=True)
    return 0


def print_result(args: argparse.Namespace, value: dict, text: str) -> int:
    """The answer as JSON or as words, as it was asked for."""
    if args.json:
        return print_json(value)
    print(text, flush=True)
    return 0
