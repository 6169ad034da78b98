"""Procedural images for the pretraining of the bundled backbone.

Three banks are drawn once: glyphs, silhouettes (`pretraining.figures`) and textures (`pretraining.textures`). A batch
composes one figure over one background on the fly, so no image is seen twice. Labels: the class of the figure and the
class of the texture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from pretraining.figures import draw_glyphs, draw_silhouettes, forbidden_outlines
from pretraining.textures import texture


@dataclass
class Banks:
    """Everything that a batch is composed of.

    Attributes:
        figures: (n, 64, 64) uint8.
        figure_class: (n,) int64.
        textures: (m, 128, 128) uint8.
        texture_class: (m,) int64.
    """

    figures: np.ndarray
    figure_class: np.ndarray
    textures: np.ndarray
    texture_class: np.ndarray

    @property
    def figure_classes(self) -> int:
        return int(self.figure_class.max()) + 1

    @property
    def texture_classes(self) -> int:
        return int(self.texture_class.max()) + 1


def build_banks(
    font_folder: Path,
    seed: int,
    glyph_classes: int = 2000,
    silhouette_classes: int = 600,
    texture_classes: int = 400,
) -> Banks:
    """Draw all three banks; the same seed and fonts give the same banks."""
    rng = np.random.default_rng(seed)
    glyphs, glyph_label = draw_glyphs(font_folder, glyph_classes, 10, rng)
    outlines = forbidden_outlines([font_folder / "NotoSans-Regular.ttf"])
    shapes, shape_label = draw_silhouettes(silhouette_classes, 8, rng, outlines)
    tiles = np.stack([texture(int(seed * 100_003 + c), v) for c in range(texture_classes) for v in range(4)])
    return Banks(
        np.concatenate([glyphs, shapes]),
        np.concatenate([glyph_label, shape_label + glyph_label.max() + 1]),
        tiles,
        np.repeat(np.arange(texture_classes), 4),
    )


# ---------------------------------------------------------------- batches


@dataclass
class Batch:
    """Images and what the network is trained to tell about them.

    Attributes:
        images: (n, 3, s, s) in [-1, 1].
        clean: the same images without noise and holes.
        figure: (n,) class of the figure, -1 where there is none.
        texture: (n,) class of the texture, -1 where there is none.
    """

    images: torch.Tensor
    clean: torch.Tensor
    figure: torch.Tensor
    texture: torch.Tensor


class Composer:
    """Composes batches from banks; all randomness comes from one torch generator.

    Args:
        banks: figures and textures.
        side: of the images in pixels.
        seed: of the generator.
    """

    def __init__(self, banks: Banks, side: int, seed: int) -> None:
        self.figures = torch.from_numpy(banks.figures)
        self.figure_class = torch.from_numpy(banks.figure_class)
        self.textures = torch.from_numpy(banks.textures)
        self.texture_class = torch.from_numpy(banks.texture_class)
        order = np.argsort(banks.figure_class, kind="stable")
        starts = np.searchsorted(banks.figure_class[order], np.arange(banks.figure_classes + 1))
        self.by_class = torch.from_numpy(order), torch.from_numpy(starts)
        self.side = side
        self.generator = torch.Generator().manual_seed(seed)
        line = (torch.arange(side) + 0.5) / side * 2 - 1
        self.grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)  # (s, s, 2) as x, y

    def _uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        return torch.rand(*shape, generator=self.generator) * (high - low) + low

    def _bernoulli(self, n: int, p: float) -> torch.Tensor:
        return torch.rand(n, generator=self.generator) < p

    def _warp(self, n: int, scale: tuple[float, float], rotation: float, shift: float, elastic: float) -> torch.Tensor:
        """Sampling grids (n, s, s, 2): random affine maps plus a smooth random displacement.

        Args:
            n: how many grids.
            scale: bounds of the size, 1 fills the image.
            rotation: standard deviation in radians.
            shift: largest offset along each axis; the image spans [-1, 1].
            elastic: strength of the displacement, 0 for none.
        """
        size = self._uniform(n, low=scale[0], high=scale[1])
        aspect = torch.exp(torch.randn(n, generator=self.generator) * 0.15)
        angle = torch.randn(n, generator=self.generator) * rotation
        shear = torch.randn(n, generator=self.generator) * 0.12
        cos, sin = angle.cos(), angle.sin()
        rotate = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
        slant = torch.stack([torch.stack([1 / (size * aspect), shear], -1),
                             torch.stack([torch.zeros(n), aspect / size], -1)], -2)  # fmt: skip
        offset = self._uniform(n, 1, 1, 2, low=-shift, high=shift)
        grid = (self.grid[None] - offset).reshape(n, -1, 2) @ (rotate @ slant).transpose(1, 2)
        grid = grid.reshape(n, self.side, self.side, 2)
        if elastic:
            coarse = torch.randn(n, 2, 4, 4, generator=self.generator) * self._uniform(n, 1, 1, 1) * elastic
            fine = F.interpolate(coarse, size=self.side, mode="bicubic", align_corners=True)
            grid = grid + fine.permute(0, 2, 3, 1)
        return grid

    def batch(self, n: int, difficulty: float = 1.0) -> Batch:
        """Compose new images.

        Args:
            n: how many.
            difficulty: from 0 (upright, clean, centred figures, mostly on black) to 1.
        """
        g, d = self.generator, difficulty
        # the figure: uniform over classes, then over the drawings of the class
        order, starts = self.by_class
        figure = torch.randint(len(starts) - 1, (n,), generator=g)
        count = starts[figure + 1] - starts[figure]
        drawing = order[starts[figure] + (torch.rand(n, generator=g) * count).long()]
        bitmap = self.figures[drawing][:, None].float() / 255
        mask = F.grid_sample(
            bitmap, self._warp(n, (0.85 - 0.4 * d, 1.05), 0.3 * d, 0.3 * d, 0.06 * d), align_corners=False
        )
        absent = self._bernoulli(n, 0.08 + 0.3 * (1 - d))
        mask = mask * (~absent)[:, None, None, None]
        figure = torch.where(absent, -1, figure)
        # the texture: behind the figure, on the figure, or nowhere
        tile = torch.randint(len(self.textures), (n,), generator=g)
        grain = self.textures[tile][:, None].float() / 255
        grain = F.grid_sample(grain, self._warp(n, (0.9, 3.0), 3.0, 0.3, 0.03), padding_mode="reflection",
                              align_corners=False)  # fmt: skip
        role = torch.rand(n, generator=g)
        behind = (role < 0.45 * d) | absent
        on_figure = (role > 1 - 0.3 * d) & ~absent
        texture_number = torch.where(behind | on_figure, self.texture_class[tile], -1)
        # colours: a third grey on black, a tenth dark on light, the rest free
        style = torch.rand(n, generator=g)[:, None, None, None]
        colours = self._uniform(n, 4, 3, 1, 1)
        grey = self._uniform(n, 4, 1, 1, 1).expand(n, 4, 3, 1, 1)
        colours = torch.where(style[:, None] < 0.6, grey, colours)
        front_a, front_b, back_a, back_b = colours.unbind(1)
        dark = 0.35 + 0.45 * (1 - d)
        plain_dark, plain_light = style < dark, (style >= dark) & (style < dark + 0.1)
        front_a = torch.where(plain_dark, 0.45 + 0.55 * front_a, torch.where(plain_light, 0.5 * front_a, front_a))
        back_a = torch.where(plain_dark, torch.zeros(()), torch.where(plain_light, torch.ones(()), back_a))
        use_back, use_front = behind[:, None, None, None], on_figure[:, None, None, None]
        background = torch.where(use_back, back_a + (back_b - back_a) * grain, back_a.expand(n, 3, 1, 1))
        foreground = torch.where(use_front, front_a + (front_b - front_a) * grain, front_a.expand(n, 3, 1, 1))
        # keep the figure visible: move its colour away from a similar background
        similar = ((front_a - back_a).abs().mean((1, 2, 3), keepdim=True) < 0.25) & ~use_back & ~use_front
        foreground = torch.where(similar, (foreground + 0.5) % 1.0, foreground)
        images = clean = background + (foreground - background) * mask
        # low resolution, as in small real datasets
        parts = list(images.chunk(8))
        for i, size in enumerate(torch.randint(8, 33, (8,), generator=g).tolist()):
            if i < 3 * d:
                low = F.interpolate(parts[i], size=size, mode="area")
                parts[i] = F.interpolate(low, size=self.side, mode="bicubic", align_corners=False).clamp(0, 1)
        images = torch.cat(parts)
        shuffle = torch.randperm(n, generator=g)
        images, clean, figure = images[shuffle], clean[shuffle], figure[shuffle]
        texture_number = texture_number[shuffle]
        noisy = self._bernoulli(n, 0.3 * d)[:, None, None, None] * self._uniform(n, 1, 1, 1, high=0.15)
        images = images + torch.randn(images.shape, generator=g) * noisy
        # hide some 8 x 8 patches, which the network learns to reconstruct
        cells = self.side // 8
        hidden = torch.rand(n, 1, cells, cells, generator=g) < self._uniform(n, 1, 1, 1, high=0.4)
        hidden &= self._bernoulli(n, 0.5 * d)[:, None, None, None]
        hidden = hidden.repeat_interleave(8, 2).repeat_interleave(8, 3)
        images = torch.where(hidden, torch.full((), 0.5), images)
        return Batch(images * 2 - 1, clean * 2 - 1, figure, texture_number)
