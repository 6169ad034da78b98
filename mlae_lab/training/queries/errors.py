"""Errors: the misclassified images, their confidence and the images themselves."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mlae_lab.analysis import errors as analysis
from mlae_lab.core.progress import ProgressCallback
from mlae_lab.core.proportions import balanced_accuracy, wilson
from mlae_lab.training.evaluation import autocast
from mlae_lab.training.loaded_run import LoadedRun, QueryError
from mlae_lab.training.queries.images import IMAGE_SIZE, check_names, spread_out, whole
from mlae_lab.training.sample_images import SIZE, encoded_image

SHOWN = 12  # images in each row of best and worst predictions
MAX_IMAGES = 96  # of one call of `images_at`
HASHED = 64  # images whose pixels enter the fingerprint
CONFUSED = 10


def errors(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """Confusion matrix, accuracy by class, calibration, and best and worst images; formulas in `analysis.errors`.

    Arguments: images, "all" (the default) or how many of the evaluation images, 1 or more: every n-th of them, so that
    two runs on one split are queried about the same images. For each image, the answer has its index, class (truth),
    predicted class and confidence; `core.paired_tests` compares two answers. Loss in nats, shares in [0, 1], accuracy
    in percent.
    """
    check_names(arguments, "images")
    setup = loaded.setup
    images = len(setup.evaluation)
    indices = spread_out(_wanted(arguments.get("images", "all"), images), images)
    predictions = _predictions(loaded, indices, on_progress)
    names, correct = list(setup.classes), int(predictions.correct.sum())
    counts = analysis.confusion(predictions.truth, predictions.predicted, len(names))
    rows = analysis.extremes(predictions, SHOWN)
    named = sorted({row for group in rows.values() for row in group})
    low, high = wilson(correct, len(indices))
    calibration = analysis.calibration(predictions)
    return {
        "task": setup.config.task,
        "protocol": setup.config.protocol,
        "seed": setup.config.seed,
        "names": names,
        "images": len(indices),
        "of": images,
        "fingerprint": _fingerprint(loaded, indices),
        "accuracy": 100 * correct / len(indices),
        "balanced_accuracy": _rounded(100 * balanced_accuracy(counts.diagonal().tolist(), counts.sum(1).tolist())),
        "correct": correct,
        "low": _rounded(100 * low),
        "high": _rounded(100 * high),
        "loss": _rounded(calibration.loss),
        "brier": _rounded(calibration.brier),
        "ece": _rounded(calibration.ece),
        "confidence_mean": _rounded(calibration.confidence),
        "bins": [{name: _rounded(value) for name, value in vars(entry).items()} for entry in calibration.bins],
        "confusion": counts.tolist(),
        "shares": [
            [None if math.isnan(v) else _rounded(v) for v in row] for row in analysis.row_shares(counts).tolist()
        ],
        "confused": analysis.confused(counts, CONFUSED),
        "classes": [
            {"name": name, "images": c.images, "correct": c.correct, "low": _rounded(c.low), "high": _rounded(c.high)}
            for name, c in zip(names, analysis.by_class(counts), strict=True)
        ],
        "indices": indices,
        "truth": predictions.truth.tolist(),
        "predicted": predictions.predicted.tolist(),
        "confidence": [_rounded(value) for value in predictions.confidence.tolist()],
        "extremes": {name: [indices[row] for row in group] for name, group in rows.items()},
        "losses": {str(indices[row]): _rounded(float(predictions.loss[row])) for row in named},
        "thumbnails": {str(indices[row]): encoded_image(setup.evaluation.part.images[indices[row]]) for row in named},
    }


def images_at(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """Thumbnails of evaluation images, base64 by index. Arguments: indices, up to 96; size in pixels, at most."""
    check_names(arguments, "indices", "size")
    size = whole(arguments.get("size", SIZE), "size", 1, IMAGE_SIZE)
    part, indices = loaded.setup.evaluation.part, arguments.get("indices")
    if not isinstance(indices, Sequence) or isinstance(indices, str) or len(indices) > MAX_IMAGES:
        raise QueryError(f"indices is {str(indices)[:60]}: it must be a list of at most {MAX_IMAGES} whole numbers")
    for index in indices:
        whole(index, "index", 0, len(part) - 1)
    return {"thumbnails": {str(index): encoded_image(part.images[index], size) for index in indices}}


def _wanted(value: object, images: int) -> int:
    if value == "all":
        return images
    if type(value) is not int or value < 1:
        raise QueryError(f'images is {str(value)[:60]}: it must be "all" or a whole number from 1 to {images}')
    return min(value, images)


@torch.no_grad()
def _predictions(
    loaded: LoadedRun, indices: Sequence[int], on_progress: ProgressCallback
) -> analysis.LabelledPredictions:
    """Predictions for the images at these indices, as many at a time as in a training's evaluation."""
    setup, chunks, at_once = loaded.setup, [], loaded.setup.evaluation.at_once
    for start in range(0, len(indices), at_once):
        chosen = torch.tensor(indices[start : start + at_once], device=setup.device)
        with autocast(setup):
            logits = setup.behind(setup.evaluation.take(chosen)).float()
        chunks.append(analysis.compare(logits, setup.evaluation.labels[chosen]))
        on_progress(min(start + at_once, len(indices)), len(indices))
    return analysis.concatenated(chunks)


def _fingerprint(loaded: LoadedRun, indices: Sequence[int]) -> str:
    """Fingerprint of the images, twelve hex digits: all labels, and the pixels of up to 64 images."""
    part = loaded.setup.evaluation.part
    digest = hashlib.sha256(part.labels[list(indices)].tobytes())
    for position in spread_out(min(HASHED, len(indices)), len(indices)):
        digest.update(part.images[indices[position]].tobytes())
    return digest.hexdigest()[:12]


def _rounded(value: float | None) -> float | None:
    return round(value, 6) if isinstance(value, float) else value


QUERIES = {"errors": errors, "images_at": images_at}
