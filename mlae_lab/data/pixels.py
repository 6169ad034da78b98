"""From stored pictures to the numbers a backbone reads."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F


def normalised(images: np.ndarray, side: int) -> torch.Tensor:
    """Resize to side x side (bicubic, antialiased, aspect ignored) and map to [-1, 1] (mean = std = 0.5).

    images: (n, h, w) grey or (n, h, w, 3), uint8. Returns (n, 3, side, side) float32; grey is repeated.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(images)).float()
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    if pixels.shape[-2:] != (side, side):
        pixels = F.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True).clamp(0, 255)
    return (pixels / 127.5 - 1).expand(-1, 3, -1, -1).contiguous()
