"""`whatif`, `importance` and `robustness`: a trained run evaluated without some of its experts."""

from __future__ import annotations

import argparse
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlae_lab.cli.maps import image_argument
from mlae_lab.cli.masks import plan_of
from mlae_lab.cli.output import (
    UsageError,
    add_location_options,
    current_owner,
    print_result,
    run_command,
    store_with_run,
)
from mlae_lab.cli.queries import query_run
from mlae_lab.core.expert_state import checked, kept_plan
from mlae_lab.core.patterns import NAMES
from mlae_lab.core.robustness import summary, verdict
from mlae_lab.files import require_free, write_whole
from mlae_lab.runs.library import plan_name
from mlae_lab.runs.store import Run, RunStore

IMAGES = 200
SHOWN = 10  # experts that are listed


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the three commands. command: creates a subparser."""
    what = run_command(command, "whatif", _whatif, "evaluate a trained run with experts off, λ scaled or another mask")
    what.add_argument(
        "--off", default="", metavar="L3E2,L4", help="experts to switch off: expert 2 of layer 3, all of layer 4"
    )
    what.add_argument("--scale", type=float, default=1.0, metavar="X", help="factor for every λ")
    what.add_argument(
        "--mask", metavar="PATTERN|CODE|PLAN.json", help=f"keep only the experts of this mask ({', '.join(NAMES)})"
    )
    what.add_argument("--kind", metavar="fixed|stochastic|mixed", help="which mask of the pattern")
    _images(what)
    what.add_argument("--save-plan", metavar="NAME", help="save the remaining mask to the library")
    what.add_argument("--export", type=Path, metavar="FILE", help="write the remaining experts as a smaller adapter")
    what.add_argument("--force", action="store_true", help="replace the file of --export if it exists")
    importance = run_command(
        command, "importance", _importance, "leave out each expert and layer; greedy curves; importance for one image"
    )
    importance.add_argument(
        "--greedy",
        metavar="removal|addition|estimate",
        help="accuracy as a function of the experts kept: `removal` and `addition` try every expert at every step, "
        "`estimate` follows the order of the first-order estimate and is faster",
    )
    importance.add_argument(
        "--image", metavar="N|FILE", help="importance for one image: index of an evaluation image, or a file"
    )
    _images(importance)
    robustness = run_command(
        command, "robustness", _robustness, "evaluate under random masks, one run or two on the same masks"
    )
    robustness.add_argument("other", nargs="?", metavar="OTHER", help="a second run, on the same masks")
    robustness.add_argument(
        "--drop-rate", type=float, default=0.5, metavar="P", help="drop probability p of an expert (0.5)"
    )
    robustness.add_argument(
        "--samples", type=int, default=200, metavar="N", help="number of random masks, 1 to 1000 (200)"
    )
    robustness.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the random masks")
    robustness.add_argument("--plain", action="store_true", help="do not rescale active experts by 1/(1-p)")
    _images(robustness)


def _images(command: argparse.ArgumentParser) -> None:
    add_location_options(command)
    command.add_argument(
        "--images",
        type=int,
        default=IMAGES,
        metavar="N",
        help=f"evaluation images, spread evenly over the split ({IMAGES})",
    )


# ---------------------------------------------------------------- whatif


def _whatif(args: argparse.Namespace) -> int:
    store = store_with_run(args)
    run = store.run(args.run)
    state: dict[str, Any] = {"off": args.off, "scale": args.scale}
    if args.mask is not None:
        unset = {"drop_rate": None, "experts": None, "pattern_seed": 0}
        unset |= {"expert_rank": None, "coefficient_init": None, "freeze_coefficients": False}
        state["mask"] = plan_of(argparse.Namespace(**vars(args), **unset), run.config.backbone).code
    elif args.kind is not None:
        raise UsageError("--kind needs --mask with a pattern: add one")
    if args.save_plan is not None:
        plan_name(args.save_plan)  # refuses a bad name before anything is computed
    if args.export is not None:
        require_free(args.export, args.force, store=store.folder)
    answer = query_run(store, run.id, "whatif", {**state, "images": args.images})
    result = {"run": run.id, **answer}
    lines = _whatif_lines(run, answer)
    if args.save_plan is not None:
        remaining = kept_plan(run.config.plan, checked(run.config.plan, answer["factors"]))
        saved = store.save_plan(args.save_plan, remaining, current_owner())
        result["saved_plan"] = {"name": saved.name, "code": remaining.code}
        lines.append(f"saved in the library as {saved.name!r}: {remaining.code}")
    if args.export is not None:
        pruned = query_run(store, run.id, "pruned", state)
        result["export"] = {"file": str(args.export), "bytes": _write(args.export, base64.b64decode(pruned["file"]))}
        lines.append(f"{args.export}: an adapter of {pruned['experts']} experts, {pruned['bytes']:,} bytes")
    for flip in result["flips"]:
        del flip["image"]
    return print_result(args, result, "\n".join(lines))


def _whatif_lines(run: Run, answer: dict) -> list[str]:
    before, after = answer["before"], answer["now"]
    change = after["accuracy"] - before["accuracy"]
    lines = [
        f"accuracy {after['accuracy']:.1f} % with {answer['experts']} of {run.config.plan.experts} experts, "
        f"{before['accuracy']:.1f} % as trained ({change:+.1f} points); "
        f"loss {before['loss']:.4f} to {after['loss']:.4f}",
        f"the prediction changes for {answer['flipped']} of {answer['images']} images",
    ]
    for name, old, new in zip(answer["classes"], before["class_accuracy"], after["class_accuracy"], strict=True):
        if old is not None and old != new:
            lines.append(f"    {name:<28}{old:6.1f} % to {new:5.1f} %")
    if answer["ignored"]:
        lines.append(f"ignored, as this run does not have them: {'; '.join(answer['ignored'])}")
    return lines


def _write(path: Path, content: bytes) -> int:
    """Write a file atomically and return its size. Raises UsageError if it cannot be written."""
    try:
        write_whole(path, content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error}): choose a writable folder") from None
    return len(content)


# ---------------------------------------------------------------- importance


def _importance(args: argparse.Namespace) -> int:
    store = store_with_run(args)
    run = store.run(args.run)
    if args.greedy is not None and args.image is not None:
        raise UsageError(
            "--greedy and --image exclude each other, as --greedy evaluates many images: leave one of them out"
        )
    if args.greedy is not None:
        answer = query_run(store, run.id, "greedy", {"direction": args.greedy, "images": args.images})
        lines = [f"{'kept':>5} {'accuracy':>9} {'loss':>8}   {'added' if args.greedy == 'addition' else 'removed'}"]
        for step in answer["steps"]:
            cell = (
                f"layer {run.config.plan.row_labels[step['cell'][0] - 1]}, expert {step['cell'][1]}"
                if step["cell"]
                else ""
            )
            lines.append(f"{step['kept']:>5} {step['accuracy']:>8.1f}% {step['loss']:>8.4f}   {cell}".rstrip())
        if answer["agreement"] is not None:
            lines.append(
                f"Spearman correlation of this order with the first-order estimates: {answer['agreement']:+.3f}"
            )
        return print_result(args, {"run": run.id, **answer}, "\n".join(lines))
    if args.image is not None:
        answer = query_run(store, run.id, "image_importance", {"image": image_argument(args.image)})
        answer.pop("private", None)
        answer.pop("image")
        return print_result(args, {"run": run.id, **answer}, "\n".join(_image_importance_lines(run, answer)))
    answer = query_run(store, run.id, "importance", {"images": args.images})
    return print_result(args, {"run": run.id, **answer}, "\n".join(_importance_lines(run, answer)))


def _image_importance_lines(run: Run, answer: dict) -> list[str]:
    labels, classes = run.config.plan.row_labels, answer["classes"]
    cells = [(v, r, c) for r, row in enumerate(answer["change"]) for c, v in enumerate(row) if v is not None]
    label = "unknown" if answer["truth"] is None else classes[answer["truth"]]
    lines = [
        f"predicted {classes[answer['predicted']]}, confidence {answer['confidence']:.1%}, margin "
        f"{answer['margin']:.3f}; label: {label}"
    ]
    for change, row, column in sorted(cells)[:SHOWN]:
        flips = answer["margin"] + change < 0
        flip = f", predicted {classes[answer['instead'][row][column]]}" if flips else ""
        lines.append(f"without layer {labels[row]}, expert {column + 1}: margin {change:+.3f}{flip}")
    return lines


def _importance_lines(run: Run, answer: dict) -> list[str]:
    labels, experts, layers = run.config.plan.row_labels, answer["experts"], answer["layers"]
    trained = answer["trained"]
    lines = [
        f"accuracy as trained {trained['accuracy']:.1f} %, loss {trained['loss']:.4f}, on {answer['images']} images",
        "without a layer:       loss   accuracy   estimate",
    ]
    for label, loss, accuracy, predicted in zip(
        labels, layers["loss"], layers["accuracy"], layers["estimate"], strict=True
    ):
        if loss is not None:
            lines.append(f"    layer {label:<10} {loss:+8.4f} {accuracy:+8.1f}  {predicted:+9.4f}")
    cells = [
        (loss, f"layer {label}, expert {c + 1}", experts["accuracy"][r][c], experts["estimate"][r][c])
        for r, (label, row) in enumerate(zip(labels, experts["loss"], strict=True))
        for c, loss in enumerate(row)
        if loss is not None
    ]
    lines.append("without an expert, the ten most important:")
    for loss, name, accuracy, predicted in sorted(cells, key=lambda cell: -cell[0])[:SHOWN]:
        lines.append(f"    {name:<20} {loss:+8.4f} {accuracy:+8.1f}  {predicted:+9.4f}")
    if experts["pearson"] is not None:
        lines.append(
            f"correlation of first-order estimate and exact change over the experts: Pearson {experts['pearson']:.2f}, "
            f"Spearman {experts['spearman']:.2f}"
        )
    return lines


# ---------------------------------------------------------------- robustness


def _robustness(args: argparse.Namespace) -> int:
    store = store_with_run(args)
    runs = [store.run(name) for name in (args.run, args.other) if name is not None]
    if len(runs) == 2 and runs[0].config.badge != runs[1].config.badge:
        raise UsageError(
            f"runs {runs[0].id} and {runs[1].id} have different badges, so their accuracies are not comparable: choose "
            "two runs with equal badges"
        )
    answers = [_query_robustness(args, store, run) for run in runs]
    lines = [summary(answer, run.id) for run, answer in zip(runs, answers, strict=True)]
    result: dict[str, Any] = {"runs": [{"run": run.id, **answer} for run, answer in zip(runs, answers, strict=True)]}
    if len(runs) == 2:
        result["verdict"] = verdict(answers[0], answers[1], [run.id for run in runs])
        lines.append(result["verdict"])
    return print_result(args, result, "\n".join(lines))


def _query_robustness(args: argparse.Namespace, store: RunStore, run: Run) -> dict:
    arguments = {
        "rate": args.drop_rate, "samples": args.samples, "seed": args.seed, "rescaled": not args.plain,
        "images": args.images,
    }  # fmt: skip
    return query_run(store, run.id, "robustness", arguments)
