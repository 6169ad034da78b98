"""`errors`: what a run misclassifies, and the images that only one of two runs classifies correctly."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from mlae_lab.cli.output import UsageError, add_location_options, print_result, run_command, store_with_run
from mlae_lab.cli.queries import query_run
from mlae_lab.core.paired_tests import PairedTest, PairedTestError, PairedTests, p_text, paired_tests

_LISTED = 20  # images that are listed in the text; --json has all


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `errors`. command: creates a subparser."""
    parser = run_command(
        command, "errors", _errors, "confusion matrix, per-class accuracy, calibration; two runs by McNemar's test"
    )
    add_location_options(parser)
    parser.add_argument("other", nargs="?", metavar="OTHER", help="a second run, evaluated on the same images")
    parser.add_argument(
        "--images", default="all", metavar="N|all", help="evaluate N images spread evenly over the evaluation split"
    )


def _errors(args: argparse.Namespace) -> int:
    store = store_with_run(args)
    images = args.images
    if images != "all" and not images.isdecimal():
        raise UsageError(f'--images is {images!r}: it must be "all" or a whole number from 1')
    arguments = {"images": images if images == "all" else int(images)}
    answer = query_run(store, args.run, "errors", arguments)
    if args.other is None:
        data = {name: value for name, value in answer.items() if name != "thumbnails"}
        return print_result(args, {"run": args.run, **data}, "\n".join(_lines(answer)))
    other_answer = query_run(store, args.other, "errors", arguments)
    try:
        tests = paired_tests(answer, other_answer)
    except PairedTestError as error:
        raise UsageError(str(error)) from error
    return print_result(args, {"a": args.run, "b": args.other, **_as_data(tests)}, "\n".join(_difference_lines(tests)))


def _lines(answer: Mapping) -> list[str]:
    names = answer["names"]
    lines = [
        f"{answer['correct']} of {answer['images']} images correct: accuracy {answer['accuracy']:.1f} % "
        f"(95 % {answer['low']:.1f} to {answer['high']:.1f})",
        f"balanced accuracy {answer['balanced_accuracy']:.1f} % (mean recall of the classes)",
        f"mean confidence {100 * answer['confidence_mean']:.1f} %, ECE {answer['ece']:.4f} in {len(answer['bins'])} "
        f"bins, Brier score {answer['brier']:.4f}, loss {answer['loss']:.4f} nats",
        "",
        f"{'class':<24}{'correct':>12}{'':>9}   95 %",
    ]
    for entry in answer["classes"]:
        if entry["images"]:
            correct = f"{entry['correct']}/{entry['images']}"
            share = 100 * entry["correct"] / entry["images"]
            lines.append(
                f"{entry['name']:<24}{correct:>12}{share:>7.1f} %   "
                f"{100 * entry['low']:.1f} to {100 * entry['high']:.1f}"
            )
    if answer["confused"]:
        lines += ["", "most frequent confusions"]
        lines += [
            f"{names[truth]} misclassified as {names[predicted]}: {count}"
            for truth, predicted, count in answer["confused"]
        ]
    positions = {index: position for position, index in enumerate(answer["indices"])}
    if answer["extremes"]["wrong"]:
        lines += ["", "most confident errors, by index in the split"]
        for index in answer["extremes"]["wrong"]:
            position = positions[index]
            truth, predicted = names[answer["truth"][position]], names[answer["predicted"][position]]
            confidence = 100 * answer["confidence"][position]
            lines.append(f"{index:>6}  {truth} misclassified as {predicted}, confidence {confidence:.1f} %")
    return lines


def _difference_lines(tests: PairedTests) -> list[str]:
    lines = [f"{'class':<24}{'images':>9}{'A':>9}{'B':>9}{'only A':>8}{'only B':>8}{'mid-p':>9}{'Holm':>9}"]
    for entry in (*tests.classes, tests.whole):
        if entry.images:
            a, b = (100 * correct / entry.images for correct in (entry.correct_a, entry.correct_b))
            lines.append(
                f"{entry.name:<24}{entry.images:>9}{a:>7.1f} %{b:>7.1f} %{entry.only_a:>8}{entry.only_b:>8}"
                f"{p_text(entry.mid):>9}{p_text(entry.adjusted):>9}"
            )
    for name, indices in (("A", tests.only_a), ("B", tests.only_b)):
        more = f" and {len(indices) - _LISTED} more" if len(indices) > _LISTED else ""
        if indices:
            lines.append(f"only {name} correct, by index: {', '.join(map(str, indices[:_LISTED]))}{more}")
    return [*lines, tests.verdict, tests.of_classes]


def _as_data(tests: PairedTests) -> dict:
    def fields(entry: PairedTest) -> dict:
        return {**vars(entry), "difference": entry.difference, "intervals": entry.intervals}

    return {
        "whole": fields(tests.whole), "classes": [fields(entry) for entry in tests.classes], "only_a": tests.only_a,
        "only_b": tests.only_b, "predictions": {str(index): pair for index, pair in tests.predictions.items()},
        "verdict": tests.verdict, "verdict_of_classes": tests.of_classes,
    }  # fmt: skip
