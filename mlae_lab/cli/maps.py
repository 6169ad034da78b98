"""`activation`, `attention` and `predict`: contribution of the experts, their feature maps, predictions for images."""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlae_lab.cli import classifying
from mlae_lab.cli.output import UsageError, add_location_options, folder_of, print_result, run_command, store_with_run
from mlae_lab.cli.queries import query_run
from mlae_lab.core.expert_state import row_named
from mlae_lab.data import overlay
from mlae_lab.data.overlay import Row
from mlae_lab.files import open_regular, replacing, require_free, write_whole

MAX_BYTES = 5 * 2**20  # of one image file
KINDS = (".png", ".svg", ".json")
_DIGITS = 18  # of an index; Python reads at most 4,300


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the three commands. command: creates a subparser."""
    parser = run_command(command, "activation", _activation, "contribution of each expert by layer, class or image")
    add_location_options(parser)
    parser.add_argument("--by", choices=("layer", "class", "image"), default="layer")
    parser.add_argument(
        "--images", type=int, default=256, metavar="N", help="evaluation images, spread evenly over the split (256)"
    )
    parser = run_command(command, "attention", _attention, "feature maps of experts, attention and attention rollout")
    add_location_options(parser)
    parser.add_argument(
        "--image",
        nargs="+",
        required=True,
        metavar="N|FILE",
        help="1 to 12 images: indices into the evaluation split from 0, or image files",
    )
    parser.add_argument("--layer", metavar="L", help="its label, such as 3 or 3.fc1 (default: the last with experts)")
    parser.add_argument(
        "--out", type=Path, default=None, metavar="FILE", help="write all maps as a .png or .svg sheet, or as .json"
    )
    parser.add_argument("--force", action="store_true", help="replace the file of --out if it exists")
    parser = run_command(
        command,
        "predict",
        _predict,
        "predicted classes, nearest training images, prediction without each layer's experts; a folder to a table",
    )
    add_location_options(parser)
    parser.add_argument("image", nargs="+", metavar="N|FILE|FOLDER|ZIP")
    classifying.add_options(parser)
    parser.add_argument(
        "--off", default="", metavar="L3E2,L4", help="also predict with these experts off, as in `whatif`"
    )
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="also predict with every λ scaled by X")


def _activation(args: argparse.Namespace) -> int:
    store = store_with_run(args)
    answer = query_run(store, args.run, "activation", {"by": args.by, "images": args.images})
    labels = store.run(args.run).config.plan.row_labels
    lines = [f"contribution, mean over {answer['images']} images: ‖λ b aᵀx‖ / ‖Wx + bias‖"]
    if args.by == "layer":
        width = max(map(len, labels))
        lines += [f"layer {label:>{width}}  {_cells(row)}" for label, row in zip(labels, answer["canvas"], strict=True)]
    else:
        names = answer["classes"]
        if args.by == "image":
            images = zip(answer["indices"], answer["truth"], strict=True)
            names = [f"image {index}, {answer['classes'][truth]}" for index, truth in images]
        for name, canvas in zip(names, answer["values"], strict=True):
            known = [(v, r, c) for r, row in enumerate(canvas) for c, v in enumerate(row) if v is not None]
            if known:
                value, row, column = max(known)
                lines.append(f"{name}: largest in layer {labels[row]}, expert {column + 1}, {value:.4f}")
    return print_result(args, {"run": args.run, **answer}, "\n".join(lines))


def _attention(args: argparse.Namespace) -> int:
    if args.out is not None and args.out.suffix.lower() not in KINDS:
        raise UsageError(f"--out is {args.out}: its name must end in {', '.join(KINDS)}")
    if args.out is not None:
        require_free(args.out, args.force, store=folder_of(args))
    images = [image_argument(word) for word in args.image]
    store = store_with_run(args)
    plan = store.run(args.run).config.plan
    row = None if args.layer is None else row_named(plan, args.layer, f"--layer {args.layer}")
    answer = query_run(store, args.run, "attention", {"images": images, "layer": row if row is None else row + 1})
    answer.pop("private", None)
    label = plan.row_labels[answer["layer"] - 1]
    lines = [f"layer {label}, {answer['target']}, {len(answer['experts'])} experts, patches {answer['grid']}"]
    lines += [answer[name] for name in ("no_maps", "no_attention", "no_alone") if answer[name]]
    for word, image in zip(args.image, answer["images"], strict=True):
        lines.append(f"{word}: {answer['classes'][image['predicted']]}, {100 * image['confidence']:.1f} %")
        for number, values in zip(answer["experts"], image["added"] or (), strict=False):
            row, column = np.unravel_index(np.argmax(values), np.shape(values))
            lines.append(
                f"  expert {number}: largest at patch row {row + 1}, column {column + 1}, {np.max(values):.4g}"
            )
    if args.out is not None:
        _write(args.out, answer, args.image)
        lines.append(f"written to {args.out}")
    return print_result(args, {"run": args.run, **answer}, "\n".join(lines))


def _predict(args: argparse.Namespace) -> int:
    if classifying.is_batch(args):
        return classifying.classify(args)
    images = [image_argument(word) for word in args.image]
    store, answers, lines = store_with_run(args), [], []
    labels = store.run(args.run).config.plan.row_labels
    for word, image in zip(args.image, images, strict=True):
        answer = query_run(store, args.run, "predict", {"image": image})
        answer.pop("private", None)
        answers.append({"input": word, **answer})
        classes = answer["classes"]
        lines.append(f"{word}: " + _top_classes(classes, [(t["probability"], t["class"]) for t in answer["top"]]))
        lines.append("  nearest: " + ", ".join(f"{classes[n['truth']]} {n['cosine']:.3f}" for n in answer["nearest"]))
        flips = [
            f"layer {labels[w['layer'] - 1]} → {classes[w['class']]}" for w in answer["without_layer"] if w["flips"]
        ]
        if answer["without_layer"]:
            lines.append("  flips without the experts of: " + (", ".join(flips) or "no layer"))
        if args.off or args.scale != 1.0:
            state = {"off": args.off, "scale": args.scale}
            other = query_run(store, args.run, "predict_without", {"image": image, **state})
            other.pop("private", None)
            answers[-1]["what_if"] = state | {"before": other["before"], "now": other["now"]}
            best = sorted(((p, k) for k, p in enumerate(other["now"])), key=lambda pair: (-pair[0], pair[1]))
            lines.append(f"  with {other['experts']} experts on: " + _top_classes(classes, best[: len(answer["top"])]))
    return print_result(args, {"run": args.run, "images": answers}, "\n".join(lines))


def _top_classes(classes: list[str], best: list[tuple[float, int]]) -> str:
    return ", ".join(f"{classes[number]} {100 * probability:.1f} %" for probability, number in best)


def image_argument(word: str) -> int | dict[str, str]:
    """An index, or the content of a file. Raises UsageError if it cannot be read or is too large."""
    if word.isascii() and word.isdigit() and len(word) <= _DIGITS:
        return int(word)
    try:
        with open_regular(word) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"{word} cannot be read ({error.strerror}): name an image file or the index of an evaluation image"
        ) from None
    if len(content) > MAX_BYTES:
        raise UsageError(f"{word} is larger than {MAX_BYTES // 2**20} MB: store it in a smaller file")
    return {"file": base64.b64encode(content).decode()}


def _write(path: Path, answer: dict, names: list[str]) -> None:
    kind = path.suffix.lower()
    if kind != ".json" and not answer["grid"]:
        raise UsageError("there is no map to draw: " + (answer["no_maps"] or answer["no_attention"]))
    try:
        if kind == ".json":
            write_whole(path, json.dumps(answer))
        elif kind == ".svg":
            write_whole(path, overlay.svg(*sheet_of(answer, names)))
        else:
            with replacing(path) as partial:
                overlay.sheet(*sheet_of(answer, names)).save(partial, "PNG")
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}): choose a writable folder") from None


def sheet_of(answer: dict, names: list[str]) -> tuple[list[Row], list[str]]:
    """The rows and column titles of a sheet of maps: rollout with and without the adapter, then the experts.

    Args:
        answer: Of the query `attention`.
        names: The images as they were named on the command line.
    """
    columns = ["rollout, with", "rollout, without"] if not answer["no_attention"] else []
    columns += [f"expert {number}" for number in answer["experts"]] if not answer["no_maps"] else []
    rows = []
    for name, image in zip(names, answer["images"], strict=True):
        title = Path(name).name if image["truth"] is None else answer["classes"][image["truth"]]
        maps = [image["rollout"]["with"], image["rollout"]["without"]] if image["rollout"] else []
        rows.append(Row(image["image"], title, tuple(np.array(m, float) for m in [*maps, *(image["added"] or ())])))
    return rows, columns


def _cells(row: list[float | None]) -> str:
    return " ".join("   –  " if value is None else f"{value:6.4f}" for value in row)
