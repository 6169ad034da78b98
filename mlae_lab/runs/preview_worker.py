"""The process of `runs.previews`: `python -m mlae_lab.runs.preview_worker rates|augmentation STORE`, the config on
stdin.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mlae_lab.core.config import RunConfig
from mlae_lab.data.augment import augmented
from mlae_lab.data.pixels import channels_first
from mlae_lab.data.tasks import load_protocol
from mlae_lab.errors import LabError
from mlae_lab.locations import use_store
from mlae_lab.model.experts import stream
from mlae_lab.runs.error_messages import error_message
from mlae_lab.training.rate_finder import rate_curve
from mlae_lab.training.sample_images import chosen, encoded_image
from mlae_lab.training.setup import prepare

IMAGES, VERSIONS = 6, 5


def rates(config: RunConfig) -> Iterator[dict[str, Any]]:
    """The points of the learning-rate finder."""
    for point in rate_curve(prepare(config)):
        yield asdict(point)


def augmentation(config: RunConfig) -> Iterator[dict[str, Any]]:
    """Some training images, each with its augmented versions."""
    part = load_protocol(config).train
    indices = chosen(part.labels.tolist(), IMAGES)
    pixels = channels_first(part.images[indices])
    generator = stream(config.seed, "augment")
    versions = [pixels, *(augmented(pixels, config.augmentation, generator) for _ in range(VERSIONS))]
    size = config.network.image_size
    for number in range(len(indices)):
        yield {"versions": [encoded_image(_rows_last(version[number]), size) for version in versions]}


def _rows_last(image: torch.Tensor) -> Any:
    """(c, h, w) to (h, w[, 3]), as Pillow reads it."""
    return (image[0] if len(image) == 1 else image.permute(1, 2, 0)).numpy()


def main() -> int:
    """Print the lines of one preview. Returns 2 for a wrong request."""
    use_store(Path(sys.argv[2]) if sys.argv[2] else None)
    try:
        config = RunConfig.from_dict(json.load(sys.stdin))
        for line in {"rates": rates, "augmentation": augmentation}[sys.argv[1]](config):
            print(json.dumps(line), flush=True)
    except (LabError, OSError) as error:
        print(error_message(error), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
