"""How an image becomes the input of a trained network, as plain data and as pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mlae_lab.data.bundled import DataError
from mlae_lab.data.decode import ResizeRule, decoded, decoded_image
from mlae_lab.data.pixels import Three
from mlae_lab.data.preprocessing import preprocessing


@dataclass(frozen=True)
class InputSteps:
    """The steps from an image file to the input: RGB, resize to a square, grey, crop or resize, normalise.

    Attributes:
        name: A protocol of `data.preprocessing`.
        stored_size: Size of the square, whose aspect ratio is ignored (bicubic, antialiased).
        image_size: Of the network's input: the centre of the square where the protocol has a margin, else resized.
        grey: Whether the task's images are grey.
        mean: Per channel, of pixels from 0 to 1.
        deviation: Likewise, the standard deviation.
        depth: As of `data.decode.ResizeRule`.
    """

    name: str
    stored_size: int
    image_size: int
    grey: bool
    mean: Three
    deviation: Three
    depth: int | None = None

    @property
    def crops(self) -> bool:
        """Whether the input is the centre of the square."""
        return preprocessing(self.name).margin

    @property
    def crop_fraction(self) -> float:
        """Share of the square's side that is seen, timm's crop_pct."""
        return self.image_size / self.stored_size if self.crops else 1.0

    def stored(self, image: object) -> np.ndarray:
        """An image as the lab stores it, (size, size) or (size, size, 3) uint8.

        Args:
            image: The path of a file, a PIL image, or an array (h, w) or (h, w, 3) of uint8.

        Raises:
            DataError: It cannot be read, or it is none of these.
        """
        rule = ResizeRule("square", self.stored_size, self.depth)
        if isinstance(image, str):
            image = Path(image)
        if isinstance(image, Path):
            pixels = decoded(image, rule)
        elif isinstance(image, Image.Image):
            pixels = decoded_image(image, rule)
        else:
            values = np.asarray(image)
            if values.dtype != np.uint8 or values.ndim not in (2, 3) or values.shape[2:] not in ((), (3,)):
                raise DataError(
                    f"the image is {type(image).__name__} of {values.dtype} and shape {values.shape}: give a path, a "
                    "PIL image, or an array of uint8 with shape (height, width) or (height, width, 3)"
                )
            pixels = decoded_image(Image.fromarray(values), rule)
        return np.asarray(Image.fromarray(pixels).convert("L")) if self.grey else pixels

    def as_data(self, classes: tuple[str, ...]) -> dict:
        """The steps and the classes as JSON, which the exported scripts read."""
        return {
            "classes": list(classes), "image_size": self.image_size, "resize": self.stored_size, "crop": self.crops,
            "grey": self.grey, "mean": list(self.mean), "std": list(self.deviation), "interpolation": "bicubic",
            "crop_pct": self.crop_fraction, "crop_mode": "squash", "layout": "NCHW, RGB, float32",
        }  # fmt: skip
