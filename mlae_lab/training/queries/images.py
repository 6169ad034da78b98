"""The images of a query: evaluation images of the run, or an uploaded file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from mlae_lab.core.progress import ProgressCallback
from mlae_lab.data.bundled import DataError
from mlae_lab.data.decode import ResizeRule, decoded_bytes
from mlae_lab.training import sample_images
from mlae_lab.training.inputs import Inputs
from mlae_lab.training.loaded_run import LoadedRun, QueryError

MAX_UPLOADED = 5 * 2**20  # bytes of one image file
IMAGE_SIZE = 224  # pixels of an image that maps are laid over
PIECE = 32  # images between two calls of on_progress


def images(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """Evaluation images to choose from.

    Arguments: label, a class number, or None for all; first, how many images to skip; count, 1 to 64.
    """
    check_names(arguments, "label", "first", "count")
    inputs, label = loaded.setup.evaluation, arguments.get("label")
    first, count = (whole(arguments.get(name, value), name) for name, value in (("first", 0), ("count", 24)))
    if not 1 <= count <= 64:
        raise QueryError(f"count is {count}: choose 1 to 64 images")
    labels = inputs.labels.cpu()
    of_class = range(len(labels)) if label is None else (labels == whole(label, "label")).nonzero().flatten().tolist()
    shown = of_class[first : first + count]
    entries = [described(loaded, inputs.part.images[index], index, sample_images.SIZE) for index in shown]
    return {"classes": list(loaded.setup.classes), "total": len(of_class), "images": entries}


QUERIES = {"images": images}


# ---------------------------------------------------------------- arguments


def check_names(arguments: Mapping[str, Any], *names: str) -> None:
    """Raise QueryError for an argument that has none of these names."""
    for name in arguments:
        if name not in names:
            raise QueryError(f"{name!r} is not an argument of this query: it takes {', '.join(names)}")


def whole(value: Any, name: str, low: int = 0, high: int | None = None) -> int:
    """The value, if it is a whole number in this range. Raises QueryError for anything else."""
    if type(value) is not int or value < low or (high is not None and value > high):
        limit = "" if high is None else f" to {high}"
        raise QueryError(f"{name} is {repr(value)[:60]}: it must be a whole number from {low}{limit}")
    return value


def index_of(value: Any, inputs: Inputs) -> int:
    """The index of one of these images, from 0. Raises QueryError for an image that does not exist."""
    index = whole(value, "image")
    if index >= len(inputs):
        raise QueryError(f"image {index} does not exist: the evaluation images are 0 to {len(inputs) - 1}")
    return index


def spread_out(wanted: int, images: int) -> list[int]:
    """`wanted` indices of 0 ... images - 1, evenly spread and ascending: floor(i · images / wanted) for i from 0.

    The first `wanted` images would not do, as a list sorted by class starts with a few classes.
    """
    return [i * images // wanted for i in range(wanted)]


def indices_of(given: Any, inputs: Inputs, most: int | None) -> list[int]:
    """The indices in a list, or `given` of them, evenly spread. Raises QueryError for none and for more than `most`."""
    if isinstance(given, list):
        indices = [index_of(entry, inputs) for entry in given]
    else:
        indices = spread_out(min(whole(given, "images"), len(inputs)), len(inputs))
    if not indices or (most and len(indices) > most):
        limit = f"1 to {most}" if most else "at least one"
        raise QueryError(f"{len(indices)} images were requested: choose {limit}")
    return indices


def pixels_of(loaded: LoadedRun, given: Any) -> tuple[np.ndarray, int | None]:
    """An image in the format of the task's images (size, grey or colour), and its index, None for a file."""
    inputs = loaded.setup.evaluation
    if not isinstance(given, Mapping):
        index = index_of(given, inputs)
        return np.array(inputs.part.images[index]), index
    text = given.get("file")
    if not isinstance(text, str) or len(text) > MAX_UPLOADED * 4 // 3 + 8:
        raise QueryError(f"an image file is sent as base64 of at most {MAX_UPLOADED // 2**20} MB")
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:
        raise QueryError("the image file is not valid base64: send the bytes of the file, encoded as base64") from None
    try:
        pixels = decoded_bytes(content, rule_of(loaded))
    except DataError as error:
        raise QueryError(str(error)) from None
    return like_the_task(loaded, pixels), None


def rule_of(loaded: LoadedRun) -> ResizeRule:
    """How the run's images are stored, for other images."""
    record = loaded.setup.record
    size = loaded.setup.evaluation.part.images.shape[1]
    return ResizeRule("square", size, record.depth if record else None)


def like_the_task(loaded: LoadedRun, pixels: np.ndarray) -> np.ndarray:
    """Stored RGB pixels, as grey ones where the task's images are grey."""
    is_grey = loaded.setup.evaluation.part.images.ndim == 3
    return np.asarray(Image.fromarray(pixels).convert("L")) if is_grey else pixels


# ---------------------------------------------------------------- answers


def described(loaded: LoadedRun, pixels: np.ndarray, index: int | None, size: int = IMAGE_SIZE) -> dict:
    """Index and class number of an image, None where unknown, and the image as base64."""
    inputs = loaded.setup.evaluation
    truth = None if index is None else int(inputs.labels[index])
    return {"index": index, "truth": truth, "image": sample_images.encoded_image(as_seen(inputs, pixels), size)}


def as_seen(inputs: Inputs, pixels: np.ndarray) -> np.ndarray:
    """A stored image preprocessed as in evaluation, (size, size) or (size, size, 3) uint8."""
    shown = inputs.shown(np.array(pixels)[None])[0].round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return shown[..., 0] if shown.shape[-1] == 1 else shown


def private(given: Sequence[Any]) -> dict:
    """Marks an answer about an uploaded image, which is not written to disk."""
    return {"private": True} if any(isinstance(entry, Mapping) for entry in given) else {}
