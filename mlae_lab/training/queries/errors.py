"""Errors: which images a trained network gets wrong, how sure it was, and the images themselves."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mlae_lab.analysis import errors as analysis
from mlae_lab.core.proportions import wilson
from mlae_lab.training.evaluation import autocast
from mlae_lab.training.inputs import CHUNK
from mlae_lab.training.queries.images import spread_out
from mlae_lab.training.loaded_run import QuestionError, Subject, Tell
from mlae_lab.training.sample_images import encoded_image

SHOWN = 12  # images in each row of the best and the worst
MAX_IMAGES = 96  # of one call of `images_at`
PRINTED = 64  # images whose pixels go into the fingerprint
CONFUSED = 10


def errors(subject: Subject, arguments: Mapping[str, Any], tell: Tell) -> dict:
    """Confusion, accuracy by class, calibration, and the best and worst images; formulas in `analysis.errors`.

    arguments: images, "all" (the default) or how many of the evaluation images, 1 or more: every n-th of them, so
    that any two runs on one split are asked about the same ones. Per image the answer has place, class (truth), guess
    and confidence; two answers are compared by `core.paired_tests`. loss in nats, shares in [0, 1], accuracy in percent.
    """
    setup = subject.setup
    images = len(setup.evaluation)
    places = spread_out(_wanted(arguments.get("images", "all"), images), images)
    judged = _judged(subject, places, tell)
    names, right = list(setup.classes), int(judged.right.sum())
    counts = analysis.confusion(judged.truth, judged.guess, len(names))
    rows = analysis.extremes(judged, SHOWN)
    named = sorted({row for found in rows.values() for row in found})
    low, high = wilson(right, len(places))
    calibration = analysis.calibration(judged)
    return {
        "task": setup.config.task,
        "protocol": setup.config.protocol,
        "seed": setup.config.seed,
        "names": names,
        "images": len(places),
        "of": images,
        "print": _print(subject, places),
        "accuracy": 100 * right / len(places),
        "right": right,
        "low": _short(100 * low),
        "high": _short(100 * high),
        "loss": _short(calibration.loss),
        "brier": _short(calibration.brier),
        "ece": _short(calibration.ece),
        "confidence_mean": _short(calibration.confidence),
        "bins": [{name: _short(value) for name, value in vars(entry).items()} for entry in calibration.bins],
        "confusion": counts.tolist(),
        "shares": [[None if math.isnan(v) else _short(v) for v in row] for row in analysis.row_shares(counts).tolist()],
        "confused": analysis.confused(counts, CONFUSED),
        "classes": [
            {"name": name, "images": c.images, "right": c.right, "low": _short(c.low), "high": _short(c.high)}
            for name, c in zip(names, analysis.by_class(counts))
        ],
        "places": places,
        "truth": judged.truth.tolist(),
        "guess": judged.guess.tolist(),
        "confidence": [_short(value) for value in judged.confidence.tolist()],
        "extremes": {name: [places[row] for row in found] for name, found in rows.items()},
        "losses": {str(places[row]): _short(float(judged.loss[row])) for row in named},
        "thumbnails": {str(places[row]): encoded_image(setup.evaluation.part.images[places[row]]) for row in named},
    }


def images_at(subject: Subject, arguments: Mapping[str, Any], tell: Tell) -> dict:
    """Small images of the evaluation split, base64 by place. arguments: places, up to 96 of them."""
    part, places = subject.setup.evaluation.part, arguments.get("places")
    if not isinstance(places, Sequence) or isinstance(places, str) or len(places) > MAX_IMAGES:
        raise QuestionError(f"places is {str(places)[:60]}: it must be a list of at most {MAX_IMAGES} whole numbers")
    for place in places:
        if type(place) is not int or not 0 <= place < len(part):
            raise QuestionError(f"place is {str(place)[:60]}: it must be a whole number from 0 to {len(part) - 1}")
    return {"thumbnails": {str(place): encoded_image(part.images[place]) for place in places}}


def _wanted(value: object, images: int) -> int:
    if value == "all":
        return images
    if type(value) is not int or value < 1:
        raise QuestionError(f'images is {str(value)[:60]}: it must be "all" or a whole number from 1 to {images}')
    return min(value, images)


@torch.no_grad()
def _judged(subject: Subject, places: Sequence[int], tell: Tell) -> analysis.Judged:
    """The images at these places through the network, 256 at a time as in training's evaluation."""
    setup, found = subject.setup, []
    for at in range(0, len(places), CHUNK):
        chosen = torch.tensor(places[at : at + CHUNK], device=setup.device)
        with autocast(setup):
            logits = setup.behind(setup.evaluation.take(chosen)).float()
        found.append(analysis.judge(logits, setup.evaluation.labels[chosen]))
        tell(min(at + CHUNK, len(places)), len(places))
    return analysis.joined(found)


def _print(subject: Subject, places: Sequence[int]) -> str:
    """Twelve hex digits of what was asked about: all labels, and the pixels of up to 64 of the images."""
    part = subject.setup.evaluation.part
    found = hashlib.sha256(part.labels[list(places)].tobytes())
    for at in spread_out(min(PRINTED, len(places)), len(places)):
        found.update(part.images[places[at]].tobytes())
    return found.hexdigest()[:12]


def _short(value: float | None) -> float | None:
    return round(value, 6) if isinstance(value, float) else value


QUESTIONS = {"errors": errors, "images_at": images_at}
