"""`whatif`, `importance` and `robustness`: what a trained run says without some of its experts."""

from __future__ import annotations

import argparse
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlae_lab.cli import queries
from mlae_lab.cli.maps import image_argument
from mlae_lab.cli.masks import plan_of
from mlae_lab.cli.output import UsageError, current_owner, print_result
from mlae_lab.core.expert_state import checked, kept_plan
from mlae_lab.core.patterns import NAMES
from mlae_lab.core.robustness import verdict, words
from mlae_lab.files import write_whole
from mlae_lab.runs.library import plan_name
from mlae_lab.runs.store import Run, RunStore

IMAGES = 200
SHOWN = 10  # experts that are listed for one image


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands. command: makes one."""
    what = queries.one(command, "whatif", _whatif, "the accuracy of a trained run with some experts off or scaled")
    what.add_argument(
        "--off", default="", metavar="L3E2,L4", help="experts that are off: expert 2 of layer 3, all of layer 4"
    )
    what.add_argument("--scale", type=float, default=1.0, metavar="X", help="what every λ counts times")
    what.add_argument(
        "--mask", metavar="PATTERN|CODE|PLAN.json", help=f"only the experts that this mask keeps ({', '.join(NAMES)})"
    )
    what.add_argument("--kind", metavar="fixed|stochastic|mixed", help="which mask of that pattern")
    _images(what)
    what.add_argument("--save-plan", metavar="NAME", help="keep the mask of what is left in the library")
    what.add_argument("--export", type=Path, metavar="FILE", help="write what is left as a smaller adapter")
    which = queries.one(command, "importance", _importance, "which experts and layers of a trained run matter")
    which.add_argument(
        "--greedy",
        metavar="removal|addition|estimate",
        help="the curve of accuracy against experts kept: every expert tried at every step, which takes longer, or in the "
        "order of the first-order estimate",
    )
    which.add_argument(
        "--image", metavar="N|FILE", help="who decides this one: place of an evaluation image, or a file"
    )
    _images(which)
    stands = queries.one(command, "robustness", _robustness, "the accuracy of a trained run under random masks")
    stands.add_argument("other", nargs="?", metavar="OTHER", help="a second run, under the same masks")
    stands.add_argument("--drop-rate", type=float, default=0.5, metavar="P", help="chance that an expert is off (0.5)")
    stands.add_argument("--samples", type=int, default=200, metavar="N", help="random masks, 1 to 1000 (200)")
    stands.add_argument("--seed", type=int, default=0, metavar="S", help="of the random masks")
    stands.add_argument("--plain", action="store_true", help="survivors are not scaled by 1/(1-p)")
    _images(stands)


def _images(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--images", type=int, default=IMAGES, metavar="N", help=f"evaluation images, spread over the split ({IMAGES})"
    )


# ---------------------------------------------------------------- whatif


def _whatif(args: argparse.Namespace) -> int:
    store = queries.store_with_runs(args)
    run = store.run(args.run)
    state: dict[str, Any] = {"off": args.off, "scale": args.scale}
    if args.mask is not None:
        empty = {"drop_rate": None, "experts": None, "pattern_seed": 0}
        empty |= {"expert_rank": None, "coefficient_init": None, "freeze_coefficients": False}
        state["mask"] = plan_of(argparse.Namespace(**vars(args), **empty), run.config.backbone).code
    elif args.kind is not None:
        raise UsageError("--kind goes with --mask and a pattern: name one")
    if args.save_plan is not None:
        plan_name(args.save_plan)  # before anything is computed for it
    if args.export is not None and args.export.exists():
        raise UsageError(f"{args.export} exists already: name another file")
    found = queries.asked(store, run.id, "whatif", {**state, "images": args.images})
    told = {"run": run.id, **found}
    lines = _whatif_lines(run, found)
    if args.save_plan is not None:
        left = kept_plan(run.config.plan, checked(run.config.plan, found["factors"]))
        saved = store.save_plan(args.save_plan, left, current_owner())
        told["saved_plan"] = {"name": saved.name, "code": left.code}
        lines.append(f"saved in the library as {saved.name!r}: {left.code}")
    if args.export is not None:
        answer = queries.asked(store, run.id, "pruned", state)
        told["export"] = {"file": str(args.export), "bytes": _written(args.export, base64.b64decode(answer["file"]))}
        lines.append(f"{args.export}: an adapter of {answer['experts']} experts, {answer['bytes']:,} bytes")
    for flip in told["flips"]:
        del flip["image"]
    return print_result(args, told, "\n".join(lines))


def _whatif_lines(run: Run, found: dict) -> list[str]:
    before, now = found["before"], found["now"]
    change = now["accuracy"] - before["accuracy"]
    lines = [
        f"{now['accuracy']:.1f} % with {found['experts']} of {run.config.plan.experts} experts; as trained "
        f"{before['accuracy']:.1f} %: {change:+.1f} points; loss {before['loss']:.4f} to {now['loss']:.4f}",
        f"{found['flipped']} of {found['images']} images are answered otherwise",
    ]
    for name, was, is_now in zip(found["classes"], before["class_accuracy"], now["class_accuracy"], strict=False):
        if was is not None and was != is_now:
            lines.append(f"    {name:<28}{was:6.1f} % to {is_now:5.1f} %")
    if found["ignored"]:
        lines.append(f"not in this run and ignored: {'; '.join(found['ignored'])}")
    return lines


def _written(path: Path, content: bytes) -> int:
    """Write a file, whole or not at all; its size. Wrong where it cannot be written."""
    try:
        write_whole(path, content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error}): name a file in a folder that you may write to") from None
    return len(content)


# ---------------------------------------------------------------- matters


def _importance(args: argparse.Namespace) -> int:
    store = queries.store_with_runs(args)
    run = store.run(args.run)
    if args.greedy is not None and args.image is not None:
        raise UsageError("--greedy grows a curve over many images and --image asks about one: name one of them")
    if args.greedy is not None:
        found = queries.asked(store, run.id, "greedy", {"direction": args.greedy, "images": args.images})
        lines = [f"{'kept':>5} {'accuracy':>9} {'loss':>8}   {'added' if args.greedy == 'addition' else 'removed'}"]
        for step in found["steps"]:
            cell = (
                f"layer {run.config.plan.row_labels[step['cell'][0] - 1]}, expert {step['cell'][1]}"
                if step["cell"]
                else ""
            )
            lines.append(f"{step['kept']:>5} {step['accuracy']:>8.1f}% {step['loss']:>8.4f}   {cell}".rstrip())
        if found["agreement"] is not None:
            lines.append(
                f"Spearman correlation of this order with the first-order estimates: {found['agreement']:+.3f}"
            )
        return print_result(args, {"run": run.id, **found}, "\n".join(lines))
    if args.image is not None:
        found = queries.asked(store, run.id, "image_importance", {"image": image_argument(args.image)})
        found.pop("private", None)
        found.pop("image")
        return print_result(args, {"run": run.id, **found}, "\n".join(_image_importance_lines(run, found)))
    found = queries.asked(store, run.id, "importance", {"images": args.images})
    return print_result(args, {"run": run.id, **found}, "\n".join(_importance_lines(run, found)))


def _image_importance_lines(run: Run, found: dict) -> list[str]:
    labels, classes = run.config.plan.row_labels, found["classes"]
    cells = [(v, r, c) for r, row in enumerate(found["change"]) for c, v in enumerate(row) if v is not None]
    lines = [f"answered {classes[found['predicted']]}, {found['confidence']:.1%} sure, margin {found['margin']:.3f}; "
             f"true: {'not known' if found['truth'] is None else classes[found['truth']]}"]  # fmt: skip
    for change, row, column in sorted(cells)[:SHOWN]:
        flips = found["margin"] + change < 0
        instead = f", becomes {classes[found['instead'][row][column]]}" if flips else ""
        lines.append(f"without layer {labels[row]}, expert {column + 1}: margin {change:+.3f}{instead}")
    return lines


def _importance_lines(run: Run, found: dict) -> list[str]:
    labels, experts, layers = run.config.plan.row_labels, found["experts"], found["layers"]
    lines = [
        f"as trained {found['trained']['accuracy']:.1f} %, loss {found['trained']['loss']:.4f}, on {found['images']} images",
        "without a layer:       loss   accuracy   estimate",
    ]
    for label, loss, accuracy, predicted in zip(
        labels, layers["loss"], layers["accuracy"], layers["estimate"], strict=False
    ):
        if loss is not None:
            lines.append(f"    layer {label:<10} {loss:+8.4f} {accuracy:+8.1f}  {predicted:+9.4f}")
    cells = [
        (loss, f"layer {label}, expert {c + 1}", experts["accuracy"][r][c], experts["estimate"][r][c])
        for r, (label, row) in enumerate(zip(labels, experts["loss"], strict=False))
        for c, loss in enumerate(row)
        if loss is not None
    ]
    lines.append("without an expert, the ten that matter most:")
    for loss, name, accuracy, predicted in sorted(cells, key=lambda cell: -cell[0])[:10]:
        lines.append(f"    {name:<20} {loss:+8.4f} {accuracy:+8.1f}  {predicted:+9.4f}")
    if experts["pearson"] is not None:
        lines.append(
            f"first-order estimate against exact, over the experts: Pearson {experts['pearson']:.2f}, "
            f"Spearman {experts['spearman']:.2f}"
        )
    return lines


# ---------------------------------------------------------------- robust


def _robustness(args: argparse.Namespace) -> int:
    store = queries.store_with_runs(args)
    runs = [store.run(name) for name in (args.run, args.other) if name is not None]
    if len(runs) == 2 and runs[0].config.badge != runs[1].config.badge:
        raise UsageError(
            f"runs {runs[0].id} and {runs[1].id} were measured on different terms: their accuracies do not compare"
        )
    found = [_asked(args, store, run) for run in runs]
    lines = [words(answer, run.id) for run, answer in zip(runs, found, strict=False)]
    told: dict[str, Any] = {"runs": [{"run": run.id, **answer} for run, answer in zip(runs, found, strict=False)]}
    if len(runs) == 2:
        told["verdict"] = verdict(found[0], found[1], [run.id for run in runs])
        lines.append(told["verdict"])
    return print_result(args, told, "\n".join(lines))


def _asked(args: argparse.Namespace, store: RunStore, run: Run) -> dict:
    arguments = {
        "rate": args.drop_rate, "samples": args.samples, "seed": args.seed, "rescaled": not args.plain,
        "images": args.images,
    }  # fmt: skip
    return queries.asked(store, run.id, "robustness", arguments)
