"""`library`: the masks that users of this store saved under a name."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from mlae_lab.cli.masks import add_mask_options, plan_of
from mlae_lab.cli.output import (
    UsageError,
    check_owner,
    current_owner,
    find_store,
    folder_of,
    print_result,
    store_of,
)
from mlae_lab.core import catalog
from mlae_lab.locations import PROGRAM
from mlae_lab.runs.library import SavedPlan, plan_name
from mlae_lab.runs.owners import owner_name
from mlae_lab.runs.store import RunStore, StoreError


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `library`. command: creates a subparser."""
    parser = command("library", _library, "list, save, rename or delete saved masks", store=True)
    parser.add_argument(
        "do_what", nargs="?", choices=("list", "save", "rename", "delete"), default="list", metavar="save|rename|delete"
    )
    parser.add_argument("name", nargs="?", metavar="NAME")
    parser.add_argument("new", nargs="?", metavar="NEW", help="the new name, for rename")
    add_mask_options(parser)
    parser.add_argument(
        "--backbone",
        default=catalog.DEFAULT_BACKBONE,
        metavar="B",
        help="the backbone whose layers a pattern is placed on",
    )
    parser.add_argument("--yes", action="store_true", help="also for a mask that somebody else owns")


def _library(args: argparse.Namespace) -> int:
    if args.do_what == "list":
        if args.name is not None:
            raise UsageError(f"`library list` takes no name: leave {args.name[:60]!r} out")
        return _list(args)
    if args.name is None:
        raise UsageError(f'`library {args.do_what}` needs the name of a mask, such as "hourglass, heavier at the end"')
    if (args.new is not None) != (args.do_what == "rename"):
        raise UsageError("`library rename` takes two names, the current and the new one; `save` and `delete` take one")
    return {"save": _save, "rename": _rename, "delete": _delete}[args.do_what](args)


def _list(args: argparse.Namespace) -> int:
    store = find_store(args)
    rows = [_row(store, entry) for entry in store.plans()] if store else []
    if not rows:
        text = f"no saved mask in {folder_of(args)} yet: `{PROGRAM} library save NAME --mask hourglass` saves one"
    else:
        text = "\n".join(
            f"{row['name']:<48}  {row['kind']:<10}  {row['experts']:>4} experts  {row['code']}" for row in rows
        )
    return print_result(args, {"library": rows}, text)


def _save(args: argparse.Namespace) -> int:
    if args.mask is None:
        raise UsageError("`library save` needs --mask: a pattern, a mask code or a plan file")
    plan_name(args.name)  # before a store is made for it
    plan = plan_of(args, args.backbone)
    store = store_of(args)
    entry = store.save_plan(args.name, plan, current_owner())
    return print_result(args, _row(store, entry), f"{entry.name}: {plan.code}")


def _rename(args: argparse.Namespace) -> int:
    store, entry = _named(args)
    store.rename_plan(entry.id, args.new)
    renamed = next(plan for plan in store.plans() if plan.id == entry.id)
    return print_result(args, _row(store, renamed), f"{entry.name} renamed to {renamed.name}")


def _named(args: argparse.Namespace) -> tuple[RunStore, SavedPlan]:
    """The mask of that name, after a check that the caller may change it."""
    store, name = find_store(args), plan_name(args.name)
    entry = next((e for e in (store.plans() if store else []) if e.name.lower() == name.lower()), None)
    if store is None or entry is None:
        raise UsageError(f"no saved mask is called {name!r}: `{PROGRAM} library` lists them")
    check_owner(args, store, entry.owner, f"the mask {entry.name!r}")
    return store, entry


def _delete(args: argparse.Namespace) -> int:
    store, entry = _named(args)
    name, row = entry.name, _row(store, entry)
    if not store.delete_plan(entry.id):
        raise StoreError(f"no saved mask is called {name!r} any more: somebody has just deleted it")
    return print_result(args, {"deleted": row}, f"deleted {entry.name}; runs that use it keep their mask")


def _row(store: RunStore, entry: SavedPlan) -> dict:
    plan = entry.plan
    return {
        "name": entry.name, "owner": owner_name(entry.owner, store.nicknames()),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(entry.created)),
        "kind": plan.kind.value, "experts": plan.experts, "rows": plan.rows, "columns": plan.columns,
        "code": plan.code, "hash": plan.hash, "plan": plan.to_dict(),
    }  # fmt: skip
