"""`similarity`: how similar the experts of a run are, alone or compared with another run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import fmean

from mlae_lab.cli.output import UsageError, add_location_options, print_result, run_command, store_with_run
from mlae_lab.cli.queries import query_run
from mlae_lab.runs.paths import LAST
from mlae_lab.runs.store import RunStore


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `similarity`. command: creates a subparser."""
    parser = run_command(
        command, "similarity", _similarity, "cosine similarity, spectrum and rank of the experts; overlap of two runs"
    )
    add_location_options(parser)
    parser.add_argument("other", nargs="?", metavar="OTHER", help="a run to compare with: overlap of their subspaces")
    parser.add_argument(
        "--checkpoint", default="", metavar="EPOCH", help="a kept checkpoint (default: the final state)"
    )


def _similarity(args: argparse.Namespace) -> int:
    store = store_with_run(args)
    arguments = {"file": _checkpoint(store, args.run, args.checkpoint), "other": _adapter(store, args.other)}
    answer = query_run(store, args.run, "similarity", arguments)
    result = {"run": args.run, "other_run": args.other, "checkpoint": args.checkpoint or None, **answer}
    return print_result(args, result, "\n".join(_lines(answer)))


def _checkpoint(store: RunStore, run: str, name: str) -> str:
    if not name:
        return ""
    kept = store.paths(store.run(run).id).checkpoints()
    if name not in kept:
        names = ", ".join(kept) or "none"
        raise UsageError(
            f"run {run} has no checkpoint {name!r}: it has {names}" + (f" ({LAST} is the newest)" if kept else "")
        )
    return str(kept[name])


def _adapter(store: RunStore, run: str | None) -> str:
    if run is None:
        return ""
    adapter = store.paths(store.run(run).id).adapter
    if not adapter.is_file():
        raise UsageError(f"run {run} has no adapter to compare with: train it until its first evaluation")
    return str(adapter)


def _lines(answer: dict) -> list[str]:
    """One line for each layer, the means over layers, and the random baseline."""
    other = answer.get("other")
    head = f"{'layer':<16}{'experts':>8}{'|cos|':>9}{'cos':>9}{'eff. rank':>11}{'stable':>8}"
    lines = [head + (f"{'other |cos|':>13}{'reads':>8}{'writes':>8}" if other else "")]
    other_rows = {target: row for row, target in enumerate(other["targets"])} if other else {}
    for row, target in enumerate(answer["targets"]):
        line = f"{answer['labels'][row]:<16}{answer['experts'][row]:>8}"
        for name, width, digits in (
            ("absolute", 9, 4), ("signed", 9, 4), ("effective_rank", 11, 2), ("stable_rank", 8, 2),
        ):  # fmt: skip
            line += _number(answer[name][row], width, digits)
        if other:
            other_row = other_rows.get(target)
            for name, width, digits in (("absolute", 13, 4), ("same_reads", 8, 3), ("same_writes", 8, 3)):
                line += _number(None if other_row is None else other[name][other_row], width, digits)
        lines.append(line)
    baseline = answer["baseline_over_rows"]
    means = [
        f"{title} {mean:.{digits}f}"
        for title, name, digits in (
            ("|cos|", "absolute", 4), ("cos", "signed", 4), ("effective rank", "effective_rank", 2),
            ("stable rank", "stable_rank", 2),
        )
        if (mean := _mean(answer[name])) is not None
    ]  # fmt: skip
    lines += ["", f"mean over layers: {', '.join(means)}" if means else "no layer has two trained experts"]
    if baseline:
        lines.append(f"random experts of these shapes: |cos| {baseline['mean']:.4f} ± {baseline['deviation']:.4f}")
    for title, name in (("input (read) spaces", "reads"), ("output (write) spaces", "writes")):
        pairs = [value for i, row in enumerate(answer[name]) for value in row[:i] if value is not None]
        if pairs:
            lines.append(
                f"overlap of the {title} between layers: {fmean(pairs):.3f} (random {answer[f'random_{name}']:.3f})"
            )
    return lines


def _number(value: float | None, width: int, digits: int) -> str:
    return f"{'–' if value is None else format(value, f'.{digits}f'):>{width}}"


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
