"""What-if, expert importance and robustness to random masks.

A *state* in the arguments is {"factors": rows x columns} or any of {"mask": code of a plan, "off": [[layer, expert],
[layer], ...] or "L3E2,L4", "scale": x}, applied in that order; layers and experts count from 1. "images": how many
evaluation images, spread evenly over the split (default 200).
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from mlae_lab.analysis import importance as importance_analysis
from mlae_lab.analysis import robustness as robustness_analysis
from mlae_lab.analysis.whatif import CHUNK, GRADIENT_CHUNK, Outcome, WhatIf
from mlae_lab.core import memory
from mlae_lab.core.data_url import data_url
from mlae_lab.core.expert_state import (
    MAX_FACTOR,
    Cell,
    Factors,
    all_on,
    cells_on,
    checked,
    existing,
    kept_plan,
    off_text,
    read_off,
    scaled,
    through_mask,
    with_cells,
)
from mlae_lab.core.plan import MaskPlan, PlanError
from mlae_lab.core.progress import ProgressCallback
from mlae_lab.model.adapter_file import pruned, read_adapter, write_adapter
from mlae_lab.training.evaluation import autocast
from mlae_lab.training.loaded_run import LoadedRun, QueryError, experts_of
from mlae_lab.training.queries.images import check_names, described, pixels_of, private, spread_out, whole
from mlae_lab.training.sample_images import encoded_image

IMAGES = 200
MAX_IMAGES = 2_000
MAX_FLIPS = 60  # images that are shown
MAX_SAMPLES = 1_000


def whatif(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """Accuracy, loss, accuracy of each class and changed predictions in a state, compared with the trained run."""
    plan = experts_of(loaded).plan
    factors, ignored = state_of(plan, arguments, "images")
    whatif, indices = _whatif(loaded, _count(arguments))
    before, now = whatif.trained, whatif.outcome(factors)
    labels, was, is_now = whatif.labels.tolist(), before.predicted.tolist(), now.predicted.tolist()
    flips = [i for i in range(len(labels)) if was[i] != is_now[i]]
    on = cells_on(factors)
    confidence = before.confidence.tolist(), now.confidence.tolist()
    return {
        "images": len(labels),
        "of": len(loaded.setup.evaluation),
        "classes": list(loaded.setup.classes),
        "before": _numbers(before),
        "now": _numbers(now),
        "class_images": torch.bincount(whatif.labels, minlength=len(loaded.setup.classes)).tolist(),
        "factors": [list(row) for row in factors],
        "experts": len(on),
        "off": off_text(plan, [cell for cell in existing(plan) if cell not in set(on)]),
        "ignored": list(ignored),
        "flipped": len(flips),
        "flips": [
            {
                "index": indices[i], "image": _image(loaded, indices[i]), "truth": labels[i],
                "before": was[i], "now": is_now[i],
                "confidence_before": round(confidence[0][i], 4), "confidence_now": round(confidence[1][i], 4),
            }
            for i in sorted(flips, key=lambda i: (was[i] != labels[i], i))[:MAX_FLIPS]
        ],
        "predicted": is_now,
        "confidence": [round(value, 4) for value in confidence[1]],
    }  # fmt: skip


def importance(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """Change of loss and accuracy without each expert and without each layer, exact and by first-order estimate."""
    plan = experts_of(loaded).plan
    check_names(arguments, "images")
    whatif, _ = _whatif(loaded, _count(arguments))
    cells = existing(plan)
    layers = importance_analysis.layers_of(cells)
    on = whatif.trained
    outcomes = importance_analysis.each_off(whatif, [*([cell] for cell in cells), *layers], on_progress)
    predicted = importance_analysis.first_order(whatif)
    of_cells, of_layers = outcomes[: len(cells)], outcomes[len(cells) :]
    estimates = [predicted[cell] for cell in cells], [sum(predicted[cell] for cell in layer) for layer in layers]
    rows = [layer[0][0] for layer in layers]

    def canvas(values: Sequence[float]) -> list[list[float | None]]:
        by_cell = dict(zip(cells, values, strict=True))
        return [[_significant(by_cell.get((r, c))) for c in range(plan.columns)] for r in range(plan.rows)]

    def column(values: Sequence[float]) -> list[float | None]:
        by_row = dict(zip(rows, values, strict=True))
        return [_significant(by_row.get(row)) for row in range(plan.rows)]

    def changes(outcomes: Sequence[Outcome]) -> tuple[list[float], list[float]]:
        return [o.loss - on.loss for o in outcomes], [o.accuracy - on.accuracy for o in outcomes]

    loss, accuracy = changes(of_cells)
    layer_loss, layer_accuracy = changes(of_layers)
    return {
        "images": len(whatif.labels),
        "trained": _numbers(on),
        "experts": {
            "loss": canvas(loss), "accuracy": canvas(accuracy), "estimate": canvas(estimates[0]),
            "pearson": _significant(importance_analysis.pearson(loss, estimates[0])),
            "spearman": _significant(importance_analysis.spearman(loss, estimates[0])),
        },
        "layers": {
            "loss": column(layer_loss), "accuracy": column(layer_accuracy), "estimate": column(estimates[1]),
            "pearson": _significant(importance_analysis.pearson(layer_loss, estimates[1])),
            "spearman": _significant(importance_analysis.spearman(layer_loss, estimates[1])),
        },
    }  # fmt: skip


def greedy(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """Accuracy by number of kept experts, while experts are removed or added one at a time.

    Arguments: direction, "removal" of the least useful expert, "addition" of the most useful one, or "estimate",
    removal in the order of the first-order estimate, which is quick. Answer: steps; agreement, Spearman's correlation
    of the order of a removal with the estimates, None for other directions.
    """
    experts_of(loaded)
    check_names(arguments, "images", "direction")
    direction = arguments.get("direction", "removal")
    if direction not in ("removal", "addition", "estimate"):
        raise QueryError(f"direction is {direction!r}: choose removal, addition or estimate")
    whatif, _ = _whatif(loaded, _count(arguments))
    estimate = direction == "estimate"
    steps = (
        importance_analysis.by_estimate(whatif, on_progress)
        if estimate
        else importance_analysis.greedy(whatif, direction == "removal", on_progress)
    )
    agreement = (
        importance_analysis.agreement(steps, importance_analysis.first_order(whatif))
        if direction == "removal"
        else None
    )
    return {
        "images": len(whatif.labels),
        "direction": direction,
        "agreement": _significant(agreement),
        "steps": [
            {"cell": None if step.cell is None else [step.cell[0] + 1, step.cell[1] + 1], "kept": step.kept,
             "accuracy": step.accuracy, "loss": _significant(step.loss)}
            for step in steps
        ],
    }  # fmt: skip


def image_importance(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """Expert importance for one image: the margin of the predicted class without each expert.

    Arguments: image, index of an evaluation image from 0 (the default), or {"file": base64 of an image file}, whose
    truth is None.
    """
    plan = experts_of(loaded).plan
    check_names(arguments, "image")
    given = arguments.get("image", 0)
    whatif, pixels, index = one_image(loaded, given)
    result = importance_analysis.image_importance(whatif, on_progress)

    def canvas(value: Callable[[Cell], float | int | None]) -> list[list[float | int | None]]:
        return [[value((r, c)) if plan.keep[r][c] else None for c in range(plan.columns)] for r in range(plan.rows)]

    return {
        **described(loaded, pixels, index),
        "classes": list(loaded.setup.classes),
        "predicted": int(result.predicted[0]),
        "confidence": _significant(float(whatif.trained.confidence[0])),
        "margin": _significant(float(result.margin[0])),
        "change": canvas(lambda cell: _significant(float(result.without[cell][0] - result.margin[0]))),
        "instead": canvas(lambda cell: int(result.instead[cell][0])),
    } | private([given])


def robustness(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """Accuracy under random masks.

    Arguments: rate, p of every expert (default 0.5); samples, 1 to 1,000 (default 200); seed; rescaled, whether active
    experts are rescaled by 1/(1-p) as in training (default true).
    """
    experts_of(loaded)
    check_names(arguments, "images", "rate", "samples", "seed", "rescaled")
    rate = arguments.get("rate", 0.5)
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
        raise QueryError(f"rate is {rate!r}: it must be a number from 0 to below 1")
    samples = whole(arguments.get("samples", 200), "samples", 1, MAX_SAMPLES)
    seed = whole(arguments.get("seed", 0), "seed", 0, 2**31 - 1)
    rescaled = arguments.get("rescaled", True)
    if not isinstance(rescaled, bool):
        raise QueryError(f"rescaled is {rescaled!r}: it must be true or false")
    whatif, _ = _whatif(loaded, _count(arguments))
    accuracies = robustness_analysis.accuracies(whatif, float(rate), samples, seed, rescaled, on_progress)
    return {
        "images": len(whatif.labels), "rate": float(rate), "samples": samples, "seed": seed, "rescaled": rescaled,
        "trained": _numbers(whatif.trained), "accuracies": accuracies,
        "mean": _significant(mean(accuracies)), "deviation": _significant(stdev(accuracies)) if samples > 1 else None,
        "lowest": min(accuracies), "highest": max(accuracies),
    }  # fmt: skip


def pruned_file(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """An adapter file with only the experts that a state leaves on, its factors in λ; as base64 text."""
    factors, _ = state_of(experts_of(loaded).plan, arguments)
    smaller = pruned(read_adapter(loaded.adapter), factors)
    assert smaller.plan is not None  # the run has experts
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pruned.safetensors"
        write_adapter(file, smaller)
        content = file.read_bytes()
    return {
        "file": base64.b64encode(content).decode(), "bytes": len(content), "experts": smaller.plan.experts,
        "plan": kept_plan(loaded.setup.config.plan, factors).code,
    }  # fmt: skip


QUERIES = {
    "whatif": whatif, "importance": importance, "greedy": greedy, "image_importance": image_importance,
    "robustness": robustness, "pruned": pruned_file,
}  # fmt: skip


# ---------------------------------------------------------------- the network with its images


def _whatif(loaded: LoadedRun, count: int) -> tuple[WhatIf, list[int]]:
    """The network on `count` images, with the caches of earlier queries, and the indices of the images."""
    total = len(loaded.setup.evaluation)
    count = min(count, total)
    indices = spread_out(count, total)
    whatif = loaded.kept.get("whatif")
    if whatif is None or len(whatif.labels) != count:
        loaded.kept["whatif"] = None  # frees its caches before the new ones are filled
        whatif = loaded.kept["whatif"] = _built(loaded, indices)
    return whatif, indices


def one_image(loaded: LoadedRun, given: Any) -> tuple[WhatIf, np.ndarray, int | None]:
    """The network on one image (`images.pixels_of`), the image and its index."""
    setup, (pixels, index) = loaded.setup, pixels_of(loaded, given)
    inputs = setup.evaluation
    truth = inputs.labels[:1] if index is None else inputs.labels[index : index + 1]  # its loss is not used
    entering = inputs.before(inputs.normalised(pixels[None]))
    return WhatIf(setup.model, experts_of(loaded), entering, truth, lambda: autocast(setup)), pixels, index


def _built(loaded: LoadedRun, indices: Sequence[int]) -> WhatIf:
    setup = loaded.setup
    chosen = torch.tensor(indices, device=setup.device)
    with torch.no_grad():
        inputs = torch.cat([setup.evaluation.take(part) for part in chosen.split(setup.evaluation.at_once)])
    labels, at_once = setup.evaluation.labels[chosen], min(CHUNK, setup.evaluation.at_once)
    backbone = setup.config.network
    fused = memory.attention_is_fused(backbone, setup.device.type)
    backward = memory.training_bytes(backbone, setup.config.tuning.first_block(backbone.layers), fused)
    return WhatIf(
        setup.model, experts_of(loaded), inputs, labels, lambda: autocast(setup), at_once,
        gradient_chunk=memory.images_at_once(backward, GRADIENT_CHUNK),
    )  # fmt: skip


def _image(loaded: LoadedRun, index: int) -> str:
    return data_url(encoded_image(loaded.setup.evaluation.part.images[index]))


def _numbers(outcome: Outcome) -> dict:
    return {
        "accuracy": outcome.accuracy, "loss": _significant(outcome.loss),
        "class_accuracy": [_significant(value) for value in outcome.class_accuracy()],
    }  # fmt: skip


def _significant(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.7g}")


# ---------------------------------------------------------------- arguments


def state_of(plan: MaskPlan, arguments: Mapping[str, Any], *more: str) -> tuple[Factors, tuple[str, ...]]:
    """The state that the arguments describe, and the experts of their mask that the run does not have."""
    check_names(arguments, "factors", "off", "scale", "mask", *more)
    try:
        if "factors" in arguments:
            if {"off", "scale", "mask"} & set(arguments):
                raise QueryError("factors describes the whole state: leave out off, scale and mask, or factors")
            return checked(plan, arguments["factors"]), ()
        factors, ignored = all_on(plan), ()
        if (mask := arguments.get("mask")) is not None:
            if not isinstance(mask, str):
                raise QueryError(f"mask is {mask!r}: it must be the code of a mask, such as m1_12x8_ff*12_0*12")
            factors, ignored = through_mask(plan, MaskPlan.from_code(mask))
        factors = with_cells(factors, _off(plan, arguments.get("off", ())), 0.0)
        scale = arguments.get("scale", 1.0)
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not abs(scale) <= MAX_FACTOR:
            raise QueryError(f"scale is {scale!r}: it must be a number from -{MAX_FACTOR:g} to {MAX_FACTOR:g}")
        return scaled(factors, float(scale)), ignored
    except PlanError as error:
        raise QueryError(str(error)) from None


def _off(plan: MaskPlan, off: object) -> tuple[Cell, ...]:
    if isinstance(off, str):
        return read_off(plan, off)
    texts = []
    for entry in off if isinstance(off, (list, tuple)) else [off]:
        numbers = list(entry) if isinstance(entry, (list, tuple)) else []
        if len(numbers) not in (1, 2) or any(type(number) is not int for number in numbers):
            raise QueryError(f"off has {entry!r}: write [layer, expert] or [layer], counted from 1")
        texts.append(f"L{numbers[0]}" + (f"E{numbers[1]}" if len(numbers) == 2 else ""))
    return read_off(plan, ",".join(texts))


def _count(arguments: Mapping[str, Any]) -> int:
    return whole(arguments.get("images", IMAGES), "images", 1, MAX_IMAGES)
