"""`similarity`: how alike the experts of a run are, alone or beside another run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import fmean

from mlae_lab.cli import queries
from mlae_lab.cli.output import UsageError, print_result
from mlae_lab.runs.paths import LAST
from mlae_lab.runs.store import RunStore


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command. command: makes one."""
    made = queries.one(command, "similarity", _similarity, "cosine, spectrum and rank of a run's experts, by layer")
    made.add_argument("other", nargs="?", metavar="OTHER", help="a run to set beside it: the overlap of their spaces")
    made.add_argument("--checkpoint", default="", metavar="EPOCH", help="at a kept checkpoint instead of the run's end")


def _similarity(args: argparse.Namespace) -> int:
    store = queries.store_with_runs(args)
    arguments = {"file": _checkpoint(store, args.run, args.checkpoint), "other": _end(store, args.other)}
    found = queries.asked(store, args.run, "similarity", arguments)
    told = {"run": args.run, "other_run": args.other, "checkpoint": args.checkpoint or None, **found}
    return print_result(args, told, "\n".join(_lines(found)))


def _checkpoint(store: RunStore, run: str, name: str) -> str:
    if not name:
        return ""
    kept = store.paths(store.run(run).id).checkpoints()
    if name not in kept:
        have = ", ".join(kept) or "none"
        raise UsageError(
            f"run {run} keeps no checkpoint {name!r}: it has {have}" + (f" ({LAST} is the newest)" if kept else "")
        )
    return str(kept[name])


def _end(store: RunStore, run: str | None) -> str:
    if run is None:
        return ""
    adapter = store.paths(store.run(run).id).adapter
    if not adapter.is_file():
        raise UsageError(f"run {run} has no adapter to compare with: train it to its first measured epoch")
    return str(adapter)


def _lines(found: dict) -> list[str]:
    """One line for each layer, the means over layers, and what random experts would show."""
    other = found.get("other")
    head = f"{'layer':<16}{'experts':>8}{'|cos|':>9}{'cos':>9}{'eff. rank':>11}{'stable':>8}"
    lines = [head + (f"{'other |cos|':>13}{'reads':>8}{'writes':>8}" if other else "")]
    at = {target: row for row, target in enumerate(other["targets"])} if other else {}
    for row, target in enumerate(found["targets"]):
        line = f"{found['labels'][row]:<16}{found['experts'][row]:>8}" + "".join(
            _number(found[name][row], width, digits)
            for name, width, digits in (("absolute", 9, 4), ("signed", 9, 4), ("effective_rank", 11, 2), ("stable_rank", 8, 2))
        )  # fmt: skip
        if other:
            its = at.get(target)
            line += "".join(
                _number(None if its is None else other[name][its], width, digits)
                for name, width, digits in (("absolute", 13, 4), ("same_reads", 8, 3), ("same_writes", 8, 3))
            )
        lines.append(line)
    baseline = found["baseline_over_rows"]
    means = ", ".join(f"{words} {_mean(found[name]):.{digits}f}" for words, name, digits in (
        ("|cos|", "absolute", 4), ("cos", "signed", 4), ("effective rank", "effective_rank", 2), ("stable rank", "stable_rank", 2),
    ) if _mean(found[name]) is not None)  # fmt: skip
    lines += ["", f"mean over layers: {means}"] if means else ["", "no layer has two experts that have learned"]
    if baseline:
        lines.append(f"random experts of these shapes: |cos| {baseline['mean']:.4f} ± {baseline['deviation']:.4f}")
    for words, name in (("read from", "reads"), ("written into", "writes")):
        pairs = [value for i, line in enumerate(found[name]) for value in line[:i] if value is not None]
        if pairs:
            lines.append(
                f"overlap of the spaces {words}, between layers: {fmean(pairs):.3f} (random {found[f'random_{name}']:.3f})"
            )
    return lines


def _number(value: float | None, width: int, digits: int) -> str:
    return f"{'–' if value is None else format(value, f'.{digits}f'):>{width}}"


def _mean(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return fmean(there) if there else None
