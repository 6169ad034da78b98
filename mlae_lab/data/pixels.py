"""From stored images to the numbers a backbone reads."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from mlae_lab.core.config import MEAN_AND_DEVIATION

Three = tuple[float, float, float]

# (mean, standard deviation) by channel, of pixels from 0 to 1.
NORMALISATIONS: dict[str, tuple[Three, Three]] = MEAN_AND_DEVIATION


def normalised(images: np.ndarray, size: int, normalisation: str = "half") -> torch.Tensor:
    """Resize to side x side (bicubic, antialiased, aspect ignored) and normalise.

    images: (n, h, w) grey or (n, h, w, 3), uint8. normalisation: a name in NORMALISATIONS; "half" maps
    to [-1, 1]. Returns (n, 3, side, side) float32; grey is repeated. Raises ValueError for an unknown name.
    """
    return standardised(resized(channels_first(images), size), normalisation)


def channels_first(images: np.ndarray) -> torch.Tensor:
    """(n, h, w) grey or (n, h, w, 3) uint8 to (n, 1 or 3, h, w) uint8, on the CPU; read-only images are copied."""
    if not images.flags.writeable:  # torch warns of tensors on memory that must not be written, such as a cache's
        images = np.array(images)
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)


def resized(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """(n, c, h, w) of 0..255 to (n, c, side, side) float32 of 0..255; at its own size an image is left alone."""
    pixels = pixels.float()
    if pixels.shape[-2:] != (size, size):
        pixels = F.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True).clamp(0, 255)
    return pixels


def standardised(pixels: torch.Tensor, normalisation: str | tuple[Three, Three] = "half") -> torch.Tensor:
    """(n, 1 or 3, h, w) of 0..255 on any device to (n, 3, h, w) float32.

    normalisation: a name in NORMALISATIONS, or mean and standard deviation. Raises ValueError for an unknown name.
    """
    if isinstance(normalisation, str):
        if normalisation not in NORMALISATIONS:
            raise ValueError(f"normalisation {normalisation!r} is unknown: choose {' or '.join(NORMALISATIONS)}")
        normalisation = NORMALISATIONS[normalisation]
    mean, deviation = torch.tensor(normalisation, dtype=torch.float64)[:, :, None, None]
    # written so that "half" is exactly pixels / 127.5 - 1
    slope, offset = (255 * deviation).float().to(pixels.device), (mean / deviation).float().to(pixels.device)
    found = pixels.float() / slope - offset
    return found.expand(-1, 3, -1, -1).contiguous()
