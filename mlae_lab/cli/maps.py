"""`activation`, `attention` and `predict`: what the experts of a run add, where they look, and what it makes of an image."""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlae_lab.cli.output import UsageError, print_result
from mlae_lab.cli.queries import asked, one, store_with_runs
from mlae_lab.data import overlay
from mlae_lab.data.overlay import Row
from mlae_lab.files import replacing, write_whole

MAX_BYTES = 5 * 2**20  # of one image file
KINDS = (".png", ".svg", ".json")


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands. command: makes one."""
    made = one(command, "activation", _activation, "what each expert of a run adds, by layer, class or image")
    made.add_argument("--by", choices=("layer", "class", "image"), default="layer")
    made.add_argument(
        "--images", type=int, default=256, metavar="N", help="evaluation images, spread over the split (256)"
    )
    made = one(command, "attention", _attention, "where the experts of a layer look, and the attention rollout")
    made.add_argument(
        "--image",
        nargs="+",
        required=True,
        metavar="N|FILE",
        help="1 to 12: places of evaluation images from 0, or files",
    )
    made.add_argument("--layer", type=int, default=None, metavar="L", help="from 1; by default the last with experts")
    made.add_argument(
        "--out", type=Path, default=None, metavar="FILE", help="a sheet of all maps as .png or .svg, or .json"
    )
    made = one(
        command,
        "predict",
        _predict,
        "top classes, nearest training images and the answer without each layer's experts",
    )
    made.add_argument("image", nargs="+", metavar="N|FILE")
    made.add_argument(
        "--off", default="", metavar="L3E2,L4", help="also the answer with these experts off, as in whatif"
    )
    made.add_argument("--scale", type=float, default=1.0, metavar="X", help="and with every λ counting times X")


def _activation(args: argparse.Namespace) -> int:
    found = asked(store_with_runs(args), args.run, "activation", {"by": args.by, "images": args.images})
    lines = [f"contribution, mean over {found['images']} images: ‖λ b aᵀx‖ / ‖Wx + bias‖"]
    if args.by == "layer":
        lines += [f"layer {number:2d}  {_cells(row)}" for number, row in enumerate(found["canvas"], 1)]
    else:
        names = found["classes"] if args.by == "class" else [
            f"image {index}, {found['classes'][truth]}" for index, truth in zip(found["indices"], found["truth"], strict=False)
        ]  # fmt: skip
        for name, canvas in zip(names, found["values"], strict=False):
            known = [(v, r, c) for r, row in enumerate(canvas) for c, v in enumerate(row) if v is not None]
            if known:
                value, row, column = max(known)
                lines.append(f"{name}: most by layer {row + 1}, expert {column + 1}, {value:.4f}")
    return print_result(args, {"run": args.run, **found}, "\n".join(lines))


def _attention(args: argparse.Namespace) -> int:
    if args.out is not None and args.out.suffix.lower() not in KINDS:
        raise UsageError(f"{args.out} has no ending that the lab writes: choose {', '.join(KINDS)}")
    images = [image_argument(word) for word in args.image]
    store = store_with_runs(args)
    found = asked(store, args.run, "attention", {"images": images, "layer": args.layer})
    found.pop("private", None)
    lines = [f"layer {found['layer']}, {found['target']}, {len(found['experts'])} experts, patches {found['grid']}"]
    lines += [found[name] for name in ("no_maps", "no_attention", "no_alone") if found[name]]
    for word, shown in zip(args.image, found["images"], strict=False):
        lines.append(f"{word}: {found['classes'][shown['predicted']]}, {100 * shown['confidence']:.1f} %")
        for number, values in zip(found["experts"], shown["added"] or (), strict=False):
            row, column = np.unravel_index(np.argmax(values), np.shape(values))
            lines.append(f"  expert {number}: most at patch row {row + 1}, column {column + 1}, {np.max(values):.4g}")
    if args.out is not None:
        _write(args.out, found, args.image)
        lines.append(f"written to {args.out}")
    return print_result(args, {"run": args.run, **found}, "\n".join(lines))


def _predict(args: argparse.Namespace) -> int:
    given = [image_argument(word) for word in args.image]
    store, answers, lines = store_with_runs(args), [], []
    for word, image in zip(args.image, given, strict=False):
        found = asked(store, args.run, "predict", {"image": image})
        found.pop("private", None)
        answers.append({"input": word, **found})
        classes = found["classes"]
        lines.append(f"{word}: " + _most(classes, [(t["probability"], t["class"]) for t in found["top"]]))
        lines.append("  nearest: " + ", ".join(f"{classes[n['truth']]} {n['cosine']:.3f}" for n in found["nearest"]))
        flips = [f"layer {w['layer']} → {classes[w['class']]}" for w in found["without_layer"] if w["flips"]]
        if found["without_layer"]:
            lines.append("  flips without the experts of: " + (", ".join(flips) or "no layer"))
        if args.off or args.scale != 1.0:
            state = {"off": args.off, "scale": args.scale}
            other = asked(store, args.run, "predict_without", {"image": image, **state})
            other.pop("private", None)
            answers[-1]["what_if"] = state | {"before": other["before"], "now": other["now"]}
            best = sorted(((p, k) for k, p in enumerate(other["now"])), key=lambda pair: (-pair[0], pair[1]))
            lines.append(f"  with {other['experts']} experts on: " + _most(classes, best[: len(found["top"])]))
    return print_result(args, {"run": args.run, "images": answers}, "\n".join(lines))


def _most(classes: list[str], best: list[tuple[float, int]]) -> str:
    return ", ".join(f"{classes[number]} {100 * probability:.1f} %" for probability, number in best)


def image_argument(word: str) -> int | dict[str, str]:
    """A place, or a file's content. Wrong for a file that cannot be read or is too large."""
    if word.isascii() and word.isdigit():
        return int(word)
    try:
        with open(word, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"{word} cannot be read ({error.strerror}): name an image file or the place of an evaluation image"
        ) from None
    if len(content) > MAX_BYTES:
        raise UsageError(f"{word} is larger than {MAX_BYTES // 2**20} MB: store it smaller")
    return {"file": base64.b64encode(content).decode()}


def _write(path: Path, found: dict, words: list[str]) -> None:
    kind = path.suffix.lower()
    if kind != ".json" and not found["grid"]:
        raise UsageError("there is no map to draw: " + (found["no_maps"] or found["no_attention"]))
    try:
        if kind == ".json":
            write_whole(path, json.dumps(found))
        elif kind == ".svg":
            write_whole(path, overlay.svg(*sheet_of(found, words)))
        else:
            with replacing(path) as partial:
                overlay.sheet(*sheet_of(found, words)).save(partial, "PNG")
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}): choose another place") from None


def sheet_of(found: dict, words: list[str]) -> tuple[list[Row], list[str]]:
    """An answer about maps as a sheet: rollout with and without the adapter, then the experts."""
    columns = ["rollout, with", "rollout, without"] if not found["no_attention"] else []
    columns += [f"expert {number}" for number in found["experts"]] if not found["no_maps"] else []
    rows = []
    for word, shown in zip(words, found["images"], strict=False):
        name = Path(word).name if shown["truth"] is None else found["classes"][shown["truth"]]
        maps = [shown["rollout"]["with"], shown["rollout"]["without"]] if shown["rollout"] else []
        rows.append(Row(shown["image"], name, tuple(np.array(m, float) for m in [*maps, *(shown["added"] or ())])))
    return rows, columns


def _cells(row: list[float | None]) -> str:
    return " ".join("   –  " if value is None else f"{value:6.4f}" for value in row)
