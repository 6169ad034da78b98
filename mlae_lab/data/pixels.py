"""Convert stored images to the input of a backbone."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from mlae_lab.core.config import MEAN_AND_DEVIATION

Three = tuple[float, float, float]

# (mean, standard deviation) by channel, of pixels from 0 to 1.
NORMALISATIONS: dict[str, tuple[Three, Three]] = MEAN_AND_DEVIATION


def normalised(images: np.ndarray, size: int, normalisation: str = "half") -> torch.Tensor:
    """Resize images to size x size (bicubic, antialiased, aspect ratio ignored) and normalise them.

    Args:
        images: (n, h, w) grey or (n, h, w, 3), uint8.
        size: image size that the backbone reads.
        normalisation: a name in NORMALISATIONS; "half" maps to [-1, 1].

    Returns:
        (n, 3, size, size) float32; grey is repeated over the channels.

    Raises:
        ValueError: the normalisation is unknown.
    """
    return standardised(resized(channels_first(images), size), normalisation)


def channels_first(images: np.ndarray) -> torch.Tensor:
    """(n, h, w) grey or (n, h, w, 3) uint8 to (n, 1 or 3, h, w) uint8, on the CPU; read-only images are copied."""
    if not images.flags.writeable:  # torch warns about tensors on read-only memory, such as a cache's
        images = np.array(images)
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)


def resized(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """(n, c, h, w) of 0..255 to (n, c, size, size) float32 of 0..255; images of that size are not changed."""
    pixels = pixels.float()
    if pixels.shape[-2:] != (size, size):
        pixels = F.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True).clamp(0, 255)
    return pixels


def standardised(pixels: torch.Tensor, normalisation: str | tuple[Three, Three] = "half") -> torch.Tensor:
    """Normalise (n, 1 or 3, h, w) of 0..255 on any device to (n, 3, h, w) float32.

    Args:
        pixels: the images.
        normalisation: a name in NORMALISATIONS, or mean and standard deviation per channel.

    Raises:
        ValueError: the normalisation is unknown.
    """
    if isinstance(normalisation, str):
        if normalisation not in NORMALISATIONS:
            raise ValueError(f"normalisation {normalisation!r} is unknown: choose {' or '.join(NORMALISATIONS)}")
        normalisation = NORMALISATIONS[normalisation]
    mean, deviation = torch.tensor(normalisation, dtype=torch.float64)[:, :, None, None]
    # written so that "half" is exactly pixels / 127.5 - 1
    slope, offset = (255 * deviation).float().to(pixels.device), (mean / deviation).float().to(pixels.device)
    return (pixels.float() / slope - offset).expand(-1, 3, -1, -1).contiguous()
