"""Images that a question names: those that a run is measured on, or a file of somebody's own."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from mlae_lab.data.bundled import DataError
from mlae_lab.data.decode import ResizeRule, decoded_bytes
from mlae_lab.training import sample_images
from mlae_lab.training.inputs import Inputs
from mlae_lab.training.loaded_run import LoadedRun, ProgressCallback, QueryError

MAX_UPLOADED = 5 * 2**20  # bytes of one image file
IMAGE_SIZE = 224  # pixels of an image that maps are laid over


def images(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """Evaluation images to choose from. label: class number, or None for all; first: how many to pass over;
    count: 1 to 64."""
    inputs, label = loaded.setup.evaluation, arguments.get("label")
    first, count = (whole(arguments.get(name, value), name) for name, value in (("first", 0), ("count", 24)))
    if not 1 <= count <= 64:
        raise QueryError(f"count is {count}: choose 1 to 64 images")
    labels = inputs.labels.cpu()
    of_class = range(len(labels)) if label is None else (labels == whole(label, "label")).nonzero().flatten().tolist()
    shown = of_class[first : first + count]
    found = [named(loaded, inputs.part.images[at], at, sample_images.SIZE) for at in shown]
    return {"classes": list(loaded.setup.classes), "total": len(of_class), "images": found}


QUERIES = {"images": images}


# ---------------------------------------------------------------- what is asked


def whole(value: Any, name: str) -> int:
    """A whole number from 0, as it is; QuestionError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise QueryError(f"{name} is {str(value)[:40]!r}: give a whole number from 0")
    return value


def index_of(value: Any, inputs: Inputs) -> int:
    """The place of one of these images, from 0; QuestionError for one that does not exist."""
    index = whole(value, "image")
    if index >= len(inputs):
        raise QueryError(f"image {index} does not exist: the evaluation images are 0 to {len(inputs) - 1}")
    return index


def spread_out(wanted: int, images: int) -> list[int]:
    """`wanted` places of 0 ... images - 1, evenly spread and rising: floor(i · images / wanted) for i from 0.

    The first `wanted` would not do: a list sorted by class begins with a few classes.
    """
    return [i * images // wanted for i in range(wanted)]


def indices_of(given: Any, inputs: Inputs, most: int | None) -> list[int]:
    """The places of a list, or so many spread evenly; QuestionError for none and for more than `most`."""
    if isinstance(given, list):
        indices = [index_of(one, inputs) for one in given]
    else:
        indices = spread_out(min(whole(given, "images"), len(inputs)), len(inputs))
    if not indices or (most and len(indices) > most):
        limit = f"1 to {most}" if most else "at least one"
        raise QueryError(f"{len(indices)} images were asked for: choose {limit}")
    return indices


def pixels_of(loaded: LoadedRun, given: Any) -> tuple[np.ndarray, int | None]:
    """An image as the run's task keeps its own, and its place; a file is made grey and small where those are."""
    inputs = loaded.setup.evaluation
    images = inputs.part.images
    if not isinstance(given, Mapping):
        index = index_of(given, inputs)
        return np.array(images[index]), index
    text = given.get("file")
    if not isinstance(text, str) or len(text) > MAX_UPLOADED * 4 // 3 + 8:
        raise QueryError(f"an image file is sent as base64 of at most {MAX_UPLOADED // 2**20} MB")
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:
        raise QueryError("an image file is sent as base64, and this is none") from None
    try:
        pixels = decoded_bytes(content, ResizeRule("square", images.shape[1]))
    except DataError as error:
        raise QueryError(str(error)) from None
    return (np.asarray(Image.fromarray(pixels).convert("L")) if images.ndim == 3 else pixels), None


# ---------------------------------------------------------------- what is answered


def named(loaded: LoadedRun, pixels: np.ndarray, index: int | None, size: int = IMAGE_SIZE) -> dict:
    """The place of an image, its class number where one is known, and itself as base64."""
    inputs = loaded.setup.evaluation
    truth = None if index is None else int(inputs.labels[index])
    return {"index": index, "truth": truth, "image": sample_images.encoded_image(as_seen(inputs, pixels), size)}


def as_seen(inputs: Inputs, pixels: np.ndarray) -> np.ndarray:
    """A stored image as the network sees it in a test, (side, side) or (side, side, 3) uint8."""
    shown = inputs.shown(np.array(pixels)[None])[0].round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return shown[..., 0] if shown.shape[-1] == 1 else shown


def private(given: Sequence[Any]) -> dict:
    """A mark on answers about a visitor's own image: they are not written to disk."""
    return {"private": True} if any(isinstance(one, Mapping) for one in given) else {}
