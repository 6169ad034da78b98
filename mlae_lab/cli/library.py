"""`library`: the masks that people of this store saved by name."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from mlae_lab.cli.masks import add_mask_options, plan_of
from mlae_lab.cli.output import UsageError, current_owner, folder_of, owner_name, print_result, store_if_there, store_of
from mlae_lab.core import catalog
from mlae_lab.runs.library import SavedPlan, plan_name
from mlae_lab.runs.store import RunStore, StoreError


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command. command: makes one."""
    made = command("library", _library, "the saved masks: list them, save, rename or delete one", store=True)
    made.add_argument(
        "do_what", nargs="?", choices=("list", "save", "rename", "delete"), default="list", metavar="save|rename|delete"
    )
    made.add_argument("name", nargs="?", metavar="NAME")
    made.add_argument("new", nargs="?", metavar="NEW", help="the other name, for rename")
    add_mask_options(made)
    made.add_argument(
        "--backbone", default=catalog.DEFAULT_BACKBONE, metavar="B", help="whose layers a pattern is laid on"
    )
    made.add_argument("--yes", action="store_true", help="also if it is somebody else's")


def _library(args: argparse.Namespace) -> int:
    if args.do_what == "list":
        if args.name is not None:
            raise UsageError(f"`library list` takes no name, and {args.name[:60]!r} is one: leave it out")
        return _list(args)
    if args.name is None:
        raise UsageError(f'`library {args.do_what}` needs the name of a mask, such as "hourglass, heavier at the end"')
    if (args.new is not None) != (args.do_what == "rename"):
        raise UsageError(
            "`library rename` takes two names, the one that a mask has and its new one; the others take one"
        )
    return {"save": _save, "rename": _rename, "delete": _delete}[args.do_what](args)


def _list(args: argparse.Namespace) -> int:
    store = store_if_there(args)
    rows = [_row(store, entry) for entry in store.plans()] if store else []
    if not rows:
        words = f"no saved mask in {folder_of(args)} yet: `mlae_lab library save NAME --mask hourglass` saves one"
    else:
        words = "\n".join(
            f"{row['name']:<48}  {row['kind']:<10}  {row['experts']:>4} experts  {row['code']}" for row in rows
        )  # fmt: skip
    return print_result(args, {"library": rows}, words)


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
    renamed = next(each for each in store.plans() if each.id == entry.id)
    return print_result(args, _row(store, renamed), f"{entry.name} is called {renamed.name} now")


def _named(args: argparse.Namespace) -> tuple[RunStore, SavedPlan]:
    """The mask of that name, which is the caller's or which they mean all the same."""
    store, name = store_if_there(args), plan_name(args.name)
    entry = next((e for e in (store.plans() if store else []) if e.name.lower() == name.lower()), None)
    if store is None or entry is None:
        raise UsageError(f"no saved mask is called {name!r}: `mlae_lab library` lists them")
    owner = owner_name(store, entry.owner)
    if owner and entry.owner != current_owner() and not args.yes:
        raise UsageError(f"the mask {entry.name!r} is {owner}'s: add --yes if you mean it all the same")
    return store, entry


def _delete(args: argparse.Namespace) -> int:
    store, entry = _named(args)
    name, row = entry.name, _row(store, entry)
    if not store.delete_plan(entry.id):
        raise StoreError(f"no saved mask is called {name!r} any more: somebody deleted it a moment ago")
    return print_result(args, {"deleted": row}, f"deleted {entry.name}; runs that were made with it keep their mask")


def _row(store: RunStore, entry: SavedPlan) -> dict:
    plan = entry.plan
    return {
        "name": entry.name, "owner": owner_name(store, entry.owner), "created": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(entry.created)),
        "kind": plan.kind.value, "experts": plan.experts, "rows": plan.rows, "columns": plan.columns,
        "code": plan.code, "hash": plan.hash, "plan": plan.to_dict(),
    }  # fmt: skip
