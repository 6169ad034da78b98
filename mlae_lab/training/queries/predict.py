"""Prediction for one image: the classes, the nearest training images, and the prediction with some experts off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from mlae_lab.analysis import activation as contribution
from mlae_lab.analysis.predict import nearest, read_by_head, without_each_layer
from mlae_lab.core.expert_state import cells_on, existing, off_text
from mlae_lab.core.progress import ProgressCallback
from mlae_lab.model.experts import experts_off
from mlae_lab.training import sample_images
from mlae_lab.training.evaluation import autocast
from mlae_lab.training.loaded_run import LoadedRun, experts_of
from mlae_lab.training.queries.images import IMAGE_SIZE, PIECE, as_seen, check_names, described, pixels_of, private
from mlae_lab.training.queries.maps import numbers
from mlae_lab.training.queries.whatif import one_image, state_of

TOP = 5
NEAREST = 6


def predict(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """Prediction for an image: the top five classes with their probabilities, the nearest training images
    (`analysis.predict`), the contribution of each expert, and the prediction without each layer's experts.

    Arguments: image, index of an evaluation image from 0, or {"file": base64 of an image file}. For a run without
    experts, such as a linear probe, canvas and without_all are None and without_layer is empty.
    """
    check_names(arguments, "image")
    setup = loaded.setup
    experts = setup.experts
    layers = experts.layers if experts else {}
    pixels, index = pixels_of(loaded, arguments.get("image"))
    entering = setup.evaluation.before(setup.evaluation.normalised(pixels[None]))
    known = _known(loaded, on_progress)
    with autocast(setup):
        logits, read = read_by_head(setup.behind, setup.head, entering)
    probability = logits.softmax(1)[0].cpu()
    best = probability.topk(min(TOP, len(probability)))
    first = int(best.indices[0])
    canvas, without_all, without_layer = None, None, []
    if experts and layers:
        plan, network = experts.plan, _autocast(loaded)
        with autocast(setup):
            canvas = contribution.on_canvas(plan, layers, contribution.by_image(setup.behind, entering, layers))[0]
        for number, (target, changed) in enumerate(without_each_layer(network, layers, entering)):
            on_progress(len(known) + number, len(known) + len(layers))
            row = plan.targets.index(target) + 1
            without_layer.append(_against(changed, first) | {"layer": row, "target": target})
        with experts_off(layers):
            without_all = _against(network(entering).float().softmax(1), first)
    cosines, indices = nearest(read[0].cpu(), known, NEAREST)
    alike = [
        {
            "index": i, "truth": int(setup.train.labels[i]), "cosine": round(cosine, 4),
            "image": sample_images.encoded_image(as_seen(setup.train, setup.train.part.images[i]), IMAGE_SIZE),
        }
        for cosine, i in zip(cosines.tolist(), indices.tolist(), strict=True)
    ]  # fmt: skip
    return {
        **described(loaded, pixels, index),
        "classes": list(setup.classes),
        "top": [
            {"class": int(c), "probability": round(p, 6)}
            for c, p in zip(best.indices, best.values.tolist(), strict=True)
        ],
        "nearest": alike,
        "canvas": numbers(canvas),
        "without_layer": without_layer,
        "without_all": without_all,
    } | private([arguments.get("image")])


def predict_without(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """Prediction for one image in a state (`queries.whatif`), compared with the run's own.

    Arguments: image as in `predict`; factors, or any of mask, off and scale. Answer: before and now, the probability of
    every class; the state's factors, the number of experts that are on, off as text, and what its mask ignored.
    """
    plan = experts_of(loaded).plan
    factors, ignored = state_of(plan, arguments, "image")
    whatif, _, index = one_image(loaded, arguments.get("image"))
    before, now = (
        [round(p, 6) for p in outcome.logits.softmax(1)[0].tolist()]
        for outcome in (whatif.trained, whatif.outcome(factors))
    )
    on = set(cells_on(factors))
    return {
        "index": index, "classes": list(loaded.setup.classes), "before": before, "now": now,
        "factors": [list(row) for row in factors], "experts": len(on),
        "off": off_text(plan, [cell for cell in existing(plan) if cell not in on]), "ignored": list(ignored),
    } | private([arguments.get("image")])  # fmt: skip


QUERIES = {"predict": predict, "predict_without": predict_without}


def _against(probability: torch.Tensor, first: int) -> dict:
    """A changed prediction: its class, the probability of the original class, and whether the class changed."""
    winner = int(probability[0].argmax())
    return {"class": winner, "probability": round(float(probability[0, first]), 6), "flips": winner != first}


def _known(loaded: LoadedRun, on_progress: ProgressCallback) -> torch.Tensor:
    """The head's inputs for every training image, (n, width), computed once for a loaded run."""
    setup, name = loaded.setup, "inputs of the head"
    if name not in loaded.kept:
        total = len(setup.train) + (len(setup.experts.layers) if setup.experts else 0)
        loaded.kept[name] = torch.cat([torch.zeros(0, setup.head.in_features), *_read(loaded, on_progress, total)])
    return loaded.kept[name]


def _read(loaded: LoadedRun, on_progress: ProgressCallback, total: int) -> Iterator[torch.Tensor]:
    setup = loaded.setup
    for done in range(0, len(setup.train), PIECE):
        on_progress(done, total)
        chosen = torch.arange(done, min(done + PIECE, len(setup.train)), device=setup.device)
        entering = setup.train.as_tested(chosen)
        with autocast(setup):
            _, read = read_by_head(setup.behind, setup.head, entering)
        yield read.cpu()


def _autocast(loaded: LoadedRun) -> Callable[[torch.Tensor], torch.Tensor]:
    def network(entering: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), autocast(loaded.setup):
            return loaded.setup.behind(entering)

    return network
