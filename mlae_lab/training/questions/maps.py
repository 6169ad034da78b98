"""Questions about pictures: what each expert adds to them, where, and what the network makes of one."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from mlae_lab.analysis import activation as contribution
from mlae_lab.analysis import attention as maps
from mlae_lab.analysis.predict import nearest, read_by_head, without_each_layer
from mlae_lab.core.plan import MaskPlan
from mlae_lab.data.bundled import DataError
from mlae_lab.data.decode import ResizeRule, decoded_bytes
from mlae_lab.model.inject import Experts
from mlae_lab.training import watched
from mlae_lab.training.evaluation import autocast
from mlae_lab.training.inputs import Inputs
from mlae_lab.training.subject import QuestionError, Subject, Tell

MOST_UPLOADED = 5 * 2**20  # bytes of one picture file
MOST_MAPPED = 12  # pictures in one question about maps
MOST_LISTED = 256  # pictures that are told one by one
PIECE = 32  # pictures between two calls of tell
IMAGE_SIDE = 224  # pixels of a picture that maps are laid over
TOP = 5
NEAREST = 6
WAYS = ("layer", "class", "image")


# ---------------------------------------------------------------- the questions


def activation(subject: Subject, arguments: Mapping[str, Any], tell: Tell) -> dict:
    """Contribution of each expert (`analysis.activation`) by layer, by class or by image.

    by: "layer", "class" or "image". pictures: how many evaluation pictures, from the first on, or a list of their
    places from 0; 256 by default, those of the grid that a run measures itself. Answer: canvas (rows, columns), the
    mean over these pictures, and for "class" values (classes, rows, columns), for "image" values (pictures, rows,
    columns), at most 256 of them. None where no expert exists and for a class without a picture.
    """
    by = arguments.get("by", "layer")
    if by not in WAYS:
        raise QuestionError(f"contribution by {str(by)[:40]!r} is not known: choose {', '.join(WAYS)}")
    experts, plan, inputs = _experts(subject), _plan(subject), subject.setup.evaluation
    places = _places(arguments.get("pictures", 256), inputs, MOST_LISTED if by == "image" else None)
    found = []
    for done in range(0, len(places), PIECE):
        tell(done, len(places))
        entering = inputs.take(torch.tensor(places[done : done + PIECE], device=subject.setup.device))
        with autocast(subject.setup):
            values = contribution.by_picture(subject.setup.behind, entering, experts.layers)
        found.append(contribution.on_canvas(plan, experts.layers, values))
    canvas = torch.cat(found)
    labels = inputs.labels.cpu()[places]
    answer = {"by": by, "pictures": len(places), "canvas": _numbers(canvas.mean(0))}
    if by == "class":
        count = len(subject.setup.classes)
        answer |= {"classes": list(subject.setup.classes), "counts": labels.bincount(minlength=count).tolist()}
        answer["values"] = _numbers(contribution.by_class(canvas, labels, count))
    if by == "image":
        answer |= {"places": places, "truth": labels.tolist(), "classes": list(subject.setup.classes)}
        answer["values"] = _numbers(canvas)
    return answer


def attention(subject: Subject, arguments: Mapping[str, Any], tell: Tell) -> dict:
    """Where the experts of a layer and the network look, as maps on the grid of patches (`analysis.attention`).

    pictures: 1 to 12, each the place of an evaluation picture from 0, or {"file": base64 of a picture file}. layer: row
    of the plan from 1, by default the last that keeps an expert. Answer: for each picture `image` (base64), `added`
    and `signed` (experts, height, width), `attention` and `rollout`; what a network does not have is None, and
    `no_maps` and `no_attention` and `no_alone` say why in a sentence.
    """
    setup, plan, experts = subject.setup, _plan(subject), _experts(subject)
    row = _row(plan, arguments.get("layer"))
    target = plan.targets[row]
    given = arguments.get("pictures")
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_MAPPED:
        raise QuestionError(f"maps are drawn for a list of 1 to {MOST_MAPPED} pictures: name places or files")
    stored = [_stored(subject, one) for one in given]
    answer: dict[str, Any] = {
        "layer": row + 1, "target": target, "experts": [column + 1 for column in experts.layers[target].columns],
        "tokens": maps.reader_in_words(setup.model), "classes": list(setup.classes), "grid": None,
        "no_maps": "", "no_attention": maps.why_no_attention(setup.model), "no_alone": "", "pictures": [],
    }  # fmt: skip
    for done, (pixels, place) in enumerate(stored):
        tell(done, len(stored))
        seen = setup.evaluation.normalised(pixels[None])
        picture = _named(subject, pixels, place) | {"added": None, "signed": None, "attention": None, "rollout": None}
        answer["pictures"].append(picture)
        with autocast(setup):
            logits = setup.model(seen).float()
        picture |= _guess(logits)
        try:
            with autocast(setup):
                found = maps.expert_maps(setup.model, target, seen)
            picture |= {
                "added": _numbers(found.added[0]),
                "signed": _numbers(None if found.signed is None else found.signed[0]),
            }
            answer["grid"] = list(found.added.shape[-2:])
        except maps.NoMap as error:
            answer["no_maps"] = str(error)
        if answer["no_attention"]:
            continue
        tell(done, len(stored))
        with autocast(setup):
            rolled = maps.rollout(setup.model, maps.attention_of(setup.model, seen))
        tell(done, len(stored))
        with autocast(setup), maps.only(experts.layers):
            bare = maps.rollout(setup.model, maps.attention_of(setup.model, seen))
        answer["grid"] = list(rolled.shape[-2:])
        picture["rollout"] = {"with": _numbers(rolled[0]), "without": _numbers(bare[0])}
        tell(done, len(stored))
        try:
            with autocast(setup):
                block = maps.block_attention(setup.model, experts.layers, target, seen)
            names = ("trained", "frozen", "none", "alone")
            picture["attention"] = {name: _numbers(getattr(block, name)[0]) for name in names}
        except maps.NoMap as error:
            answer["no_alone"] = str(error)
    return answer | _private(given)


def predict(subject: Subject, arguments: Mapping[str, Any], tell: Tell) -> dict:
    """What the run makes of a picture: the first five classes with their probabilities, the nearest training pictures
    (`analysis.predict`), what each expert adds, and the answer with each layer's experts off.

    picture: place of an evaluation picture from 0, or {"file": base64 of a picture file}.
    """
    setup, plan, experts = subject.setup, _plan(subject), _experts(subject)
    pixels, place = _stored(subject, arguments.get("picture"))
    entering = setup.evaluation.before(setup.evaluation.normalised(pixels[None]))
    known = _known(subject, tell)
    with autocast(setup):
        logits, read = read_by_head(setup.behind, setup.head, entering)
        values = contribution.by_picture(setup.behind, entering, experts.layers)
    probability = logits.softmax(1)[0].cpu()
    best = probability.topk(min(TOP, len(probability)))
    first = int(best.indices[0])
    layers = []
    network = _autocast(subject)
    for number, (target, changed) in enumerate(without_each_layer(network, experts.layers, entering)):
        tell(len(known) + number, len(known) + len(experts.layers))
        layers.append(_against(changed, first) | {"layer": plan.targets.index(target) + 1, "target": target})
    with maps.only(experts.layers):
        frozen = network(entering).float().softmax(1)
    cosines, places = nearest(read[0].cpu(), known, NEAREST)
    alike = [
        {
            "place": at, "truth": int(setup.train.labels[at]), "cosine": round(cosine, 4),
            "image": watched.picture(_seen(setup.train, setup.train.part.images[at]), IMAGE_SIDE),
        }
        for cosine, at in zip(cosines.tolist(), places.tolist())
    ]  # fmt: skip
    canvas = contribution.on_canvas(plan, experts.layers, values)[0]
    return {
        **_named(subject, pixels, place),
        "classes": list(setup.classes),
        "top": [{"class": int(c), "probability": round(p, 6)} for c, p in zip(best.indices, best.values.tolist())],
        "nearest": alike,
        "canvas": _numbers(canvas),
        "without_layer": layers,
        "without_all": _against(frozen, first),
    } | _private([arguments.get("picture")])


def pictures(subject: Subject, arguments: Mapping[str, Any], tell: Tell) -> dict:
    """Evaluation pictures to choose from. label: class number, or None for all; first: how many to pass over;
    count: 1 to 64."""
    inputs, label = subject.setup.evaluation, arguments.get("label")
    first, count = (_whole(arguments.get(name, value), name) for name, value in (("first", 0), ("count", 24)))
    if not 1 <= count <= 64:
        raise QuestionError(f"count is {count}: choose 1 to 64 pictures")
    labels = inputs.labels.cpu()
    of_class = range(len(labels)) if label is None else (labels == _whole(label, "label")).nonzero().flatten().tolist()
    shown = of_class[first : first + count]
    found = [_named(subject, inputs.part.images[at], at, watched.SIDE) for at in shown]
    return {"classes": list(subject.setup.classes), "total": len(of_class), "pictures": found}


QUESTIONS = {"activation": activation, "attention": attention, "predict": predict, "pictures": pictures}


# ---------------------------------------------------------------- what is asked


def _experts(subject: Subject) -> Experts:
    if subject.setup.experts is None or not subject.setup.experts.layers:
        raise QuestionError("this run trained no expert, only a head: ask a run with the method mlae")
    return subject.setup.experts


def _plan(subject: Subject) -> MaskPlan:
    return _experts(subject).plan


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise QuestionError(f"{name} is {str(value)[:40]!r}: give a whole number from 0")
    return value


def _row(plan: MaskPlan, layer: Any) -> int:
    kept = [row for row, count in enumerate(plan.kept) if count]
    if layer is None:
        return kept[-1]
    row = _whole(layer, "layer") - 1
    if row not in kept:
        names = ", ".join(str(r + 1) for r in kept)
        raise QuestionError(f"layer {layer} keeps no expert: choose one of {names}")
    return row


def _place(value: Any, inputs: Inputs) -> int:
    place = _whole(value, "picture")
    if place >= len(inputs):
        raise QuestionError(f"picture {place} does not exist: the evaluation pictures are 0 to {len(inputs) - 1}")
    return place


def _places(given: Any, inputs: Inputs, most: int | None) -> list[int]:
    if isinstance(given, list):
        places = [_place(one, inputs) for one in given]
    else:
        places = list(range(min(_whole(given, "pictures"), len(inputs))))
    if not places or (most and len(places) > most):
        limit = f"1 to {most}" if most else "at least one"
        raise QuestionError(f"{len(places)} pictures were asked for: choose {limit}")
    return places


def _stored(subject: Subject, given: Any) -> tuple[np.ndarray, int | None]:
    """A picture as the run's task keeps its own, and its place; a file is made grey and small where those are."""
    inputs = subject.setup.evaluation
    images = inputs.part.images
    if not isinstance(given, Mapping):
        place = _place(given, inputs)
        return np.array(images[place]), place
    text = given.get("file")
    if not isinstance(text, str) or len(text) > MOST_UPLOADED * 4 // 3 + 8:
        raise QuestionError(f"a picture file is sent as base64 of at most {MOST_UPLOADED // 2**20} MB")
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:
        raise QuestionError("a picture file is sent as base64, and this is none") from None
    try:
        pixels = decoded_bytes(content, ResizeRule("square", images.shape[1]))
    except DataError as error:
        raise QuestionError(str(error)) from None
    return (np.asarray(Image.fromarray(pixels).convert("L")) if images.ndim == 3 else pixels), None


# ---------------------------------------------------------------- what is answered


def _named(subject: Subject, pixels: np.ndarray, place: int | None, side: int = IMAGE_SIDE) -> dict:
    inputs = subject.setup.evaluation
    truth = None if place is None else int(inputs.labels[place])
    return {"place": place, "truth": truth, "image": watched.picture(_seen(inputs, pixels), side)}


def _seen(inputs: Inputs, pixels: np.ndarray) -> np.ndarray:
    """A stored picture as the network sees it in a test, (side, side) or (side, side, 3) uint8."""
    shown = inputs.shown(np.array(pixels)[None])[0].round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return shown[..., 0] if shown.shape[-1] == 1 else shown


def _guess(logits: torch.Tensor) -> dict:
    best = logits.softmax(1)[0].max(0)
    return {"guess": int(best.indices), "confidence": round(float(best.values), 4)}


def _against(probability: torch.Tensor, first: int) -> dict:
    """An answer beside the one that was given: the class that wins now, and what is left of the first."""
    won = int(probability[0].argmax())
    return {"class": won, "probability": round(float(probability[0, first]), 6), "flips": won != first}


def _known(subject: Subject, tell: Tell) -> torch.Tensor:
    """What the head reads of every training picture, (n, width), computed once for a subject."""
    setup, name = subject.setup, "what the head reads of the training pictures"
    if name not in subject.kept:
        total = len(setup.train) + len(_experts(subject).layers)
        subject.kept[name] = torch.cat(list(_read(subject, tell, total)))
    return subject.kept[name]


def _read(subject: Subject, tell: Tell, total: int) -> Iterator[torch.Tensor]:
    setup = subject.setup
    for done in range(0, len(setup.train), PIECE):
        tell(done, total)
        chosen = torch.arange(done, min(done + PIECE, len(setup.train)), device=setup.device)
        entering = setup.train.as_tested(chosen)
        with autocast(setup):
            _, read = read_by_head(setup.behind, setup.head, entering)
        yield read.cpu()


def _autocast(subject: Subject):
    def network(entering: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), autocast(subject.setup):
            return subject.setup.behind(entering)

    return network


def _private(given: Sequence[Any]) -> dict:
    """A mark on answers about a visitor's own picture: they are not written to disk."""
    return {"private": True} if any(isinstance(one, Mapping) for one in given) else {}


def _numbers(values: torch.Tensor | None) -> list | None:
    """Nested lists, six significant digits, None for nan."""
    if values is None:
        return None
    flat = [None if math.isnan(v) else float(f"{v:.6g}") for v in values.double().flatten().tolist()]
    return np.array(flat, dtype=object).reshape(values.shape).tolist()
