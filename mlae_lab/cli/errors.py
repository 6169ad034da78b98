"""`errors`: what a run gets wrong, and what another run gets right on the same images."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from mlae_lab.cli.output import UsageError, print_result
from mlae_lab.cli.queries import asked, one, store_with_runs
from mlae_lab.core.paired_tests import PairedTest, PairedTestError, PairedTests, p_text, paired_tests

_LISTED = 20  # images named in words; --json has all


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command. command: makes one."""
    made = one(
        command,
        "errors",
        _errors,
        "confusion, accuracy by class, calibration; or what one of two runs alone gets right",
    )
    made.add_argument("other", nargs="?", metavar="OTHER", help="a second run, asked about the same images")
    made.add_argument(
        "--images", default="all", metavar="N|all", help="so many of the evaluation images, evenly spread"
    )


def _errors(args: argparse.Namespace) -> int:
    store = store_with_runs(args)
    words = args.images
    if words != "all" and not words.isdecimal():
        raise UsageError(f'--images is {words!r}: it must be "all" or a whole number from 1')
    arguments = {"images": words if words == "all" else int(words)}
    told = asked(store, args.run, "errors", arguments)
    if args.other is None:
        return print_result(args, {"run": args.run, **_without_images(told)}, "\n".join(_lines(told)))
    theirs = asked(store, args.other, "errors", arguments)
    try:
        found = paired_tests(told, theirs)
    except PairedTestError as error:
        raise UsageError(str(error)) from error
    return print_result(args, {"a": args.run, "b": args.other, **_as_data(found)}, "\n".join(_difference_lines(found)))


def _without_images(told: Mapping) -> dict:
    return {name: value for name, value in told.items() if name != "thumbnails"}


def _lines(told: Mapping) -> list[str]:
    names = told["names"]
    found = [
        f"{told['right']} of {told['images']} images are right: {told['accuracy']:.1f} % (95 % {told['low']:.1f} to {told['high']:.1f})",
        f"mean confidence {100 * told['confidence_mean']:.1f} %, ECE {told['ece']:.4f} in {len(told['bins'])} bins, Brier score "
        f"{told['brier']:.4f}, loss {told['loss']:.4f} nats",
        "",
        f"{'class':<24}{'right':>12}{'':>9}   95 %",
    ]
    for entry in told["classes"]:
        if entry["images"]:
            counted = f"{entry['right']}/{entry['images']}"
            share = 100 * entry["right"] / entry["images"]
            found.append(
                f"{entry['name']:<24}{counted:>12}{share:>7.1f} %   {100 * entry['low']:.1f} to {100 * entry['high']:.1f}"
            )
    if told["confused"]:
        found += ["", "most often confused"]
        found += [
            f"{names[truth]} taken for {names[predicted]}: {count}" for truth, predicted, count in told["confused"]
        ]
    at = {index: number for number, index in enumerate(told["indices"])}
    if told["extremes"]["wrong"]:
        found += ["", "wrong and most sure, by place in the split"]
        for index in told["extremes"]["wrong"]:
            number = at[index]
            truth, predicted = names[told["truth"][number]], names[told["predicted"][number]]
            found.append(f"{index:>6}  {truth} taken for {predicted}, {100 * told['confidence'][number]:.1f} % sure")
    return found


def _difference_lines(found: PairedTests) -> list[str]:
    lines = [f"{'class':<24}{'images':>9}{'A':>9}{'B':>9}{'only A':>8}{'only B':>8}{'mid-p':>9}{'Holm':>9}"]
    for entry in (*found.classes, found.whole):
        if entry.images:
            a, b = (100 * right / entry.images for right in (entry.correct_a, entry.correct_b))
            lines.append(
                f"{entry.name:<24}{entry.images:>9}{a:>7.1f} %{b:>7.1f} %{entry.only_a:>8}{entry.only_b:>8}"
                f"{p_text(entry.mid):>9}{p_text(entry.adjusted):>9}"
            )
    for name, indices in (("A", found.only_a), ("B", found.only_b)):
        more = f" and {len(indices) - _LISTED} more" if len(indices) > _LISTED else ""
        if indices:
            lines.append(f"only {name} is right, by place: {', '.join(map(str, indices[:_LISTED]))}{more}")
    return [*lines, found.verdict, found.of_classes]


def _as_data(found: PairedTests) -> dict:
    def plain(entry: PairedTest) -> dict:
        return {**vars(entry), "difference": entry.difference, "intervals": entry.intervals}

    return {
        "whole": plain(found.whole), "classes": [plain(entry) for entry in found.classes], "only_a": found.only_a,
        "only_b": found.only_b, "predictions": {str(index): both for index, both in found.predictions.items()},
        "verdict": found.verdict, "verdict_of_classes": found.of_classes,
    }  # fmt: skip
