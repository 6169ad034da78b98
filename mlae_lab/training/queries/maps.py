"""Contribution and attention maps of the experts on single images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mlae_lab.analysis import activation as contribution
from mlae_lab.analysis import attention as maps
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.progress import ProgressCallback
from mlae_lab.model.experts import experts_off
from mlae_lab.training.evaluation import autocast
from mlae_lab.training.loaded_run import LoadedRun, QueryError, experts_of
from mlae_lab.training.queries.images import PIECE, check_names, described, indices_of, pixels_of, private, whole

MAX_MAPPED = 12  # images in one query of maps
MAX_LISTED = 256  # images whose values are listed one by one
WAYS = ("layer", "class", "image")


# ---------------------------------------------------------------- queries


def activation(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """Contribution of each expert (`analysis.activation`) by layer, by class or by image.

    Arguments: by, "layer", "class" or "image"; images, how many evaluation images, spread evenly over the split, or a
    list of their indices from 0; 256 by default. (The grid that a run records itself is of the first 256.) Answer:
    canvas (rows, columns), the mean over these images, and for "class" values (classes, rows, columns), for "image"
    values (images, rows, columns), at most 256 of them. None where no expert exists and for a class without images.
    """
    check_names(arguments, "by", "images")
    by = arguments.get("by", "layer")
    if by not in WAYS:
        raise QueryError(f"contribution by {str(by)[:40]!r} is not known: choose {', '.join(WAYS)}")
    experts, inputs = experts_of(loaded), loaded.setup.evaluation
    plan = experts.plan
    indices = indices_of(arguments.get("images", 256), inputs, MAX_LISTED if by == "image" else None)
    parts = []
    for done in range(0, len(indices), PIECE):
        on_progress(done, len(indices))
        entering = inputs.take(torch.tensor(indices[done : done + PIECE], device=loaded.setup.device))
        with autocast(loaded.setup):
            values = contribution.by_image(loaded.setup.behind, entering, experts.layers)
        parts.append(contribution.on_canvas(plan, experts.layers, values))
    canvas = torch.cat(parts)
    labels = inputs.labels.cpu()[indices]
    answer = {"by": by, "images": len(indices), "canvas": numbers(canvas.mean(0))}
    if by == "class":
        count = len(loaded.setup.classes)
        answer |= {"classes": list(loaded.setup.classes), "counts": labels.bincount(minlength=count).tolist()}
        answer["values"] = numbers(contribution.by_class(canvas, labels, count))
    if by == "image":
        answer |= {"indices": indices, "truth": labels.tolist(), "classes": list(loaded.setup.classes)}
        answer["values"] = numbers(canvas)
    return answer


def attention(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """Where the experts of a layer and the network look, as maps on the grid of patches (`analysis.attention`).

    Arguments: images, 1 to 12, each the index of an evaluation image from 0, or {"file": base64 of an image file};
    layer, row of the plan from 1, by default the last that keeps an expert. Answer: for each image `image` (base64),
    `added` and `signed` (experts, height, width), `attention` and `rollout`; what a network does not have is None, and
    `no_maps`, `no_attention` and `no_alone` give the reason in a sentence.
    """
    check_names(arguments, "images", "layer")
    setup, experts = loaded.setup, experts_of(loaded)
    plan = experts.plan
    row = _row(plan, arguments.get("layer"))
    target = plan.targets[row]
    given = arguments.get("images")
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_MAPPED:
        raise QueryError(f"maps are computed for a list of 1 to {MAX_MAPPED} images: give indices or files")
    stored = [pixels_of(loaded, entry) for entry in given]
    answer: dict[str, Any] = {
        "layer": row + 1, "target": target, "experts": [column + 1 for column in experts.layers[target].columns],
        "tokens": maps.reader_in_words(setup.model), "classes": list(setup.classes), "grid": None,
        "no_maps": "", "no_attention": maps.why_no_attention(setup.model), "no_alone": "", "images": [],
    }  # fmt: skip
    for done, (pixels, index) in enumerate(stored):
        on_progress(done, len(stored))
        seen = setup.evaluation.normalised(pixels[None])
        image = described(loaded, pixels, index) | {"added": None, "signed": None, "attention": None, "rollout": None}
        answer["images"].append(image)
        with autocast(setup):
            logits = setup.model(seen).float()
        image |= _prediction(logits)
        try:
            with autocast(setup):
                expert = maps.expert_maps(setup.model, target, seen)
            image |= {
                "added": numbers(expert.added[0]),
                "signed": numbers(None if expert.signed is None else expert.signed[0]),
            }
            answer["grid"] = list(expert.added.shape[-2:])
        except maps.NoMap as error:
            answer["no_maps"] = str(error)
        if answer["no_attention"]:
            continue
        on_progress(done, len(stored))
        with autocast(setup):
            rolled = maps.rollout(setup.model, maps.attention_of(setup.model, seen))
        on_progress(done, len(stored))
        with autocast(setup), experts_off(experts.layers):
            bare = maps.rollout(setup.model, maps.attention_of(setup.model, seen))
        answer["grid"] = list(rolled.shape[-2:])
        image["rollout"] = {"with": numbers(rolled[0]), "without": numbers(bare[0])}
        on_progress(done, len(stored))
        try:
            with autocast(setup):
                block = maps.block_attention(setup.model, experts.layers, target, seen)
            names = ("trained", "frozen", "none", "alone")
            image["attention"] = {name: numbers(getattr(block, name)[0]) for name in names}
        except maps.NoMap as error:
            answer["no_alone"] = str(error)
    return answer | private(given)


QUERIES = {"activation": activation, "attention": attention}


# ---------------------------------------------------------------- arguments


def _row(plan: MaskPlan, layer: Any) -> int:
    kept = [row for row, count in enumerate(plan.kept) if count]
    if layer is None:
        return kept[-1]
    row = whole(layer, "layer") - 1
    if row not in kept:
        names = ", ".join(plan.row_labels[r] for r in kept)
        name = plan.row_labels[row] if 0 <= row < plan.rows else layer
        raise QueryError(f"layer {name} keeps no expert: choose one of {names}")
    return row


# ---------------------------------------------------------------- answers


def _prediction(logits: torch.Tensor) -> dict:
    best = logits.softmax(1)[0].max(0)
    return {"predicted": int(best.indices), "confidence": round(float(best.values), 4)}


def numbers(values: torch.Tensor | None) -> list | None:
    """Nested lists, six significant digits, None for nan."""
    if values is None:
        return None
    flat = [None if math.isnan(v) else float(f"{v:.6g}") for v in values.double().flatten().tolist()]
    return np.array(flat, dtype=object).reshape(values.shape).tolist()
