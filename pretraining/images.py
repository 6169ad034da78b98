"""Procedural images for the pretraining of the bundled backbone.

Three banks are drawn once: glyphs (letters of some hundred scripts), silhouettes (random
outlines) and textures (noise spectra, gratings, cells, fractals). A batch then composes one
figure over one background on the fly, so no image is seen twice. Labels: which figure,
which texture. Nothing here tells position, count or orientation, and every figure that looks
like a digit, a square, an ellipse or a heart, however turned, is thrown out (`looks_forbidden`);
garments are excluded by name and are not among the scripts.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from mlae_lab.data import dsprites

BITMAP = 64  # side of a stored figure
TILE = 128  # side of a stored texture
FORBIDDEN_WORDS = (
    "DIGIT", "NUMBER", "NUMERAL", "FRACTION", "SQUARE", "CIRCLE", "ELLIPSE", "OVAL", "HEART", "RECTANGLE",
    "SHIRT", "DRESS", "TROUSER", "JEANS", "COAT", "SANDAL", "SHOE", "BOOT", "BAG", "HAT", "SOCK", "GLOVE", "SARI",
    "CLOTH", "GARMENT", "ROBE", "KIMONO",
)  # fmt: skip


@dataclass
class Banks:
    """figures: (n, 64, 64) uint8; figure_class: (n,) int64; textures: (m, 128, 128) uint8; texture_class: (m,)."""

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


# ---------------------------------------------------------------- figures


def _boxed(bitmap: np.ndarray, side: int = 24) -> np.ndarray:
    """The figure cut to its box and stretched to side x side, for comparing outlines."""
    ys, xs = np.nonzero(bitmap > 96)
    if len(ys) < 20:
        return np.zeros(side * side)
    cut = Image.fromarray(bitmap[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1])
    flat = np.asarray(cut.resize((side, side), Image.BILINEAR), dtype=np.float64).ravel()
    flat -= flat.mean()
    return flat / (np.linalg.norm(flat) + 1e-9)


def _forbidden_outlines(fonts: list[Path]) -> np.ndarray:
    """Digits in the given fonts and the three sprites at each of their 40 turns, as `_boxed` vectors: (k, 576)."""
    drawn = [_glyph(ImageFont.truetype(str(font), 52), str(digit)) for font in fonts for digit in range(10)]
    turned = [[shape, 5, turn, 16, 16] for shape in range(3) for turn in range(40)]
    drawn += list(dsprites.render(np.array(turned)) * np.uint8(255))
    vectors = [_boxed(bitmap) for bitmap in drawn if bitmap is not None]
    return np.stack(vectors)


def looks_forbidden(bitmap: np.ndarray, outlines: np.ndarray, limit: float = 0.8) -> bool:
    """Whether a figure resembles a digit or a sprite of dSprites, however turned, or fills its box."""
    ys, xs = np.nonzero(bitmap > 96)
    if len(ys) < 20:
        return True
    if len(ys) > 0.92 * (np.ptp(ys) + 1) * (np.ptp(xs) + 1):  # a filled box
        return True
    return bool((outlines @ _boxed(bitmap)).max() > limit)


def _glyph(font: ImageFont.FreeTypeFont, character: str) -> np.ndarray | None:
    """One character centred on a 64 x 64 canvas, its longer side 56 pixels; None if it draws nothing."""
    box = font.getbbox(character)
    width, height = box[2] - box[0], box[3] - box[1]
    if width < 4 or height < 4 or max(width, height) > 6 * min(width, height):
        return None
    canvas = Image.new("L", (width + 4, height + 4))
    ImageDraw.Draw(canvas).text((2 - box[0], 2 - box[1]), character, font=font, fill=255)
    scale = 56 / max(width, height)
    small = canvas.resize((max(1, round(canvas.width * scale)), max(1, round(canvas.height * scale))), Image.LANCZOS)
    bitmap = Image.new("L", (BITMAP, BITMAP))
    bitmap.paste(small, ((BITMAP - small.width) // 2, (BITMAP - small.height) // 2))
    return np.asarray(bitmap)


def _wanted(character: str) -> bool:
    if unicodedata.category(character) not in ("Lu", "Ll", "Lt", "Lo", "So"):
        return False
    if unicodedata.numeric(character, None) is not None:
        return False
    name = unicodedata.name(character, "")
    return bool(name) and not any(word in name for word in FORBIDDEN_WORDS)


def draw_glyphs(
    font_folder: Path, classes: int, variants: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Letters of Noto's scripts. Returns bitmaps (n, 64, 64) uint8 and their class (n,)."""
    from fontTools.ttLib import TTFont  # only this recipe needs it

    reference = [
        p
        for p in sorted(font_folder.glob("Noto*.ttf"))
        if p.stem
        in ("NotoSans-Regular", "NotoSerif-Regular", "NotoSans-Bold", "NotoSansMono-Regular", "NotoSansDisplay-Thin")
    ]
    if not reference:
        raise FileNotFoundError(f"{font_folder} holds no NotoSans-Regular.ttf: install the Noto fonts (core and extra)")
    outlines = _forbidden_outlines(reference)
    by_character: dict[str, list[Path]] = {}
    families: dict[str, list[str]] = {}
    for path in sorted(font_folder.glob("Noto*.ttf")):
        if any(word in path.stem for word in ("Emoji", "Numerals", "Siyaq", "Nastaliq", "UI-", "SignWriting")):
            continue
        for code in TTFont(path, lazy=True).getBestCmap():
            character = chr(code)
            if _wanted(character):
                if character not in by_character:
                    families.setdefault(path.stem.split("-")[0], []).append(character)
                by_character.setdefault(character, []).append(path)
    chosen: list[str] = []
    quota = 1
    for letters in families.values():
        rng.shuffle(letters)
    while len(chosen) < 4 * classes and quota < 400:  # round robin over the scripts, so that none dominates
        for letters in families.values():
            if len(letters) >= quota:
                chosen.append(letters[quota - 1])
        quota += 1
    loaded: dict[Path, ImageFont.FreeTypeFont] = {}
    bitmaps, labels, label = [], [], 0
    for character in chosen:
        if label == classes:
            break
        fonts = by_character[character]
        picks = [fonts[i] for i in rng.permutation(len(fonts))[:variants]]
        drawn = []
        for path in picks:
            if path not in loaded:
                loaded[path] = ImageFont.truetype(str(path), 52)
            drawn.append(_glyph(loaded[path], character))
        if any(b is None or looks_forbidden(b, outlines) for b in drawn):
            continue
        bitmaps += drawn
        labels += [label] * len(drawn)
        label += 1
    return np.stack(bitmaps), np.array(labels)


def draw_silhouettes(
    classes: int, variants: int, rng: np.random.Generator, outlines: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Random outlines, half of them mirror-symmetric: Fourier contours and unions of polygons."""
    bitmaps, labels, label = [], [], 0
    while label < classes:
        symmetric, kind = rng.random() < 0.5, rng.integers(2)
        seed = int(rng.integers(2**31))
        drawn = []
        for variant in range(variants):
            base, jitter = np.random.default_rng(seed), np.random.default_rng(seed + 1 + variant)
            canvas = Image.new("L", (4 * BITMAP, 4 * BITMAP))
            pen = ImageDraw.Draw(canvas)
            for _ in range(1 if kind == 0 else int(base.integers(2, 5))):
                if kind == 0:
                    t = np.linspace(0, 2 * np.pi, 200, endpoint=False)
                    radius = np.ones_like(t)
                    for k in range(2, 8):
                        amount, phase = base.normal() * 0.9 / k, base.random() * 2 * np.pi
                        radius += amount * (1 + 0.15 * jitter.normal()) * np.cos(k * t + phase + 0.1 * jitter.normal())
                    points = np.abs(radius)[:, None] * np.stack([np.cos(t), np.sin(t)], 1)
                else:
                    corners = int(base.integers(3, 6))
                    points = base.normal(size=(corners, 2)) * 0.9 + 0.06 * jitter.normal(size=(corners, 2))
                    middle = points.mean(0)
                    points = points[np.argsort(np.arctan2(*(points - middle).T))]
                points = points / 3.2
                for mirror in (1, -1) if symmetric else (1,):
                    pen.polygon([(128 + 128 * mirror * x, 128 + 128 * y) for x, y in points], fill=255)
            raw = np.asarray(canvas)
            ys, xs = np.nonzero(raw)
            if len(ys) < 600:
                break
            cut = Image.fromarray(raw[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1])
            scale = 56 / max(cut.size)
            small = cut.resize((max(8, round(cut.width * scale)), max(8, round(cut.height * scale))), Image.LANCZOS)
            bitmap = Image.new("L", (BITMAP, BITMAP))
            bitmap.paste(small, ((BITMAP - small.width) // 2, (BITMAP - small.height) // 2))
            drawn.append(np.asarray(bitmap))
        if len(drawn) < variants or any(looks_forbidden(b, outlines) for b in drawn):
            continue
        bitmaps += drawn
        labels += [label] * variants
        label += 1
    return np.stack(bitmaps), np.array(labels)


# ---------------------------------------------------------------- textures


def _normalised(field: np.ndarray) -> np.ndarray:
    low, high = np.percentile(field, (2, 98))
    return (np.clip((field - low) / (high - low + 1e-9), 0, 1) * 255).astype(np.uint8)


def _texture(seed: int, variant: int) -> np.ndarray:
    """One 128 x 128 tile; the class's seed fixes its family and statistics, the variant its noise."""
    base, noise = np.random.default_rng(seed), np.random.default_rng((seed, variant))
    family = int(base.integers(6))
    grid = np.fft.fftfreq(TILE)
    fx, fy = np.meshgrid(grid, grid)
    y, x = np.mgrid[0:TILE, 0:TILE] / TILE
    warp = base.random() * 0.06
    bend = [np.fft.ifft2(np.fft.fft2(noise.normal(size=(TILE, TILE))) * np.exp(-(fx**2 + fy**2) * 8000)).real
            for _ in range(2)]  # fmt: skip
    x, y = (p + warp * b / (np.abs(b).max() + 1e-9) for p, b in zip((x, y), bend, strict=False))
    if family == 0:  # power-law noise, stretched
        stretch, power = np.exp(base.normal() * 0.7), base.uniform(0.6, 2.6)
        spectrum = np.hypot(fx * stretch, fy / stretch) + 1 / TILE
        return _normalised(np.fft.ifft2(np.fft.fft2(noise.normal(size=(TILE, TILE))) / spectrum**power).real)
    if family == 1:  # band-passed noise, hard or soft edges
        centre, width = base.uniform(0.03, 0.25), base.uniform(0.01, 0.05)
        stretch = np.exp(base.normal() * 0.5)
        band = np.exp(-((np.hypot(fx * stretch, fy / stretch) - centre) ** 2) / (2 * width**2))
        field = np.fft.ifft2(np.fft.fft2(noise.normal(size=(TILE, TILE))) * band).real
        return _normalised(np.tanh(field / field.std() * base.choice([0.5, 4.0])))
    if family == 2:  # gratings
        field = np.zeros((TILE, TILE))
        for _ in range(int(base.integers(1, 4))):
            angle, frequency = base.random() * np.pi, base.uniform(3, 24)
            field += np.sin(2 * np.pi * frequency * (np.cos(angle) * x + np.sin(angle) * y) + noise.random() * 6.28)
        return _normalised(np.tanh(field * base.choice([0.6, 5.0])))
    if family == 3:  # cells (distance to the nearest or second nearest of scattered points)
        points = noise.random((int(base.integers(12, 160)), 2))
        delta = np.stack([x.ravel(), y.ravel()], 1)[:, None] - points[None]
        near = np.sort((delta**2).sum(-1), axis=1)[:, :2] ** 0.5
        field = near[:, 0] if base.random() < 0.5 else near[:, 1] - near[:, 0]
        return _normalised(field.reshape(TILE, TILE) ** base.uniform(0.4, 1.2))
    if family == 4:  # iterated function system, points splatted into a density (Kataoka et al. 2020)
        maps = base.uniform(-1, 1, size=(int(base.integers(2, 5)), 2, 3))
        maps[:, :, :2] *= 0.85 / np.maximum(np.linalg.norm(maps[:, :, :2], ord=2, axis=(1, 2))[:, None, None], 0.85)
        point = noise.normal(size=(400, 2))
        density = np.zeros((TILE, TILE))
        for step in range(80):
            pick = maps[noise.integers(len(maps), size=400)]
            point = np.einsum("nij,nj->ni", pick[:, :, :2], point) + pick[:, :, 2]
            if step > 10:
                spot = ((point * 0.22 + 0.5) % 1.0 * TILE).astype(int)
                np.add.at(density, (spot[:, 1], spot[:, 0]), 1)
        blur = np.exp(-(fx**2 + fy**2) * 30)
        return _normalised(np.log1p(np.fft.ifft2(np.fft.fft2(density) * blur).real.clip(0)))
    # family 5: tiling of strokes
    canvas = Image.new("L", (TILE, TILE), 30)
    pen = ImageDraw.Draw(canvas)
    length, spread, width = base.uniform(4, 24), base.random(), int(base.integers(1, 5))
    for _ in range(int(base.integers(60, 260))):
        cx, cy = noise.random(2) * TILE
        angle = noise.normal() * spread * 1.6
        dx, dy = length * np.cos(angle) / 2, length * np.sin(angle) / 2
        pen.line((cx - dx, cy - dy, cx + dx, cy + dy), fill=int(noise.integers(80, 256)), width=width)
    return np.asarray(canvas)


def build_banks(font_folder: Path, seed: int, glyph_classes: int = 2000, silhouette_classes: int = 600,
                texture_classes: int = 400) -> Banks:  # fmt: skip
    """Draw all three banks; the same seed and fonts give the same banks."""
    rng = np.random.default_rng(seed)
    glyphs, glyph_label = draw_glyphs(font_folder, glyph_classes, 10, rng)
    outlines = _forbidden_outlines([font_folder / "NotoSans-Regular.ttf"])
    shapes, shape_label = draw_silhouettes(silhouette_classes, 8, rng, outlines)
    tiles = np.stack([_texture(int(seed * 100_003 + c), v) for c in range(texture_classes) for v in range(4)])
    return Banks(
        np.concatenate([glyphs, shapes]),
        np.concatenate([glyph_label, shape_label + glyph_label.max() + 1]),
        tiles,
        np.repeat(np.arange(texture_classes), 4),
    )


# ---------------------------------------------------------------- batches


@dataclass
class Batch:
    """images, clean: (n, 3, s, s) in [-1, 1]; figure, texture: (n,) class or -1 where there is none."""

    images: torch.Tensor
    clean: torch.Tensor
    figure: torch.Tensor
    texture: torch.Tensor


class Composer:
    """Draws batches from banks; all randomness comes from one torch generator."""

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

    def _chance(self, n: int, p: float) -> torch.Tensor:
        return torch.rand(n, generator=self.generator) < p

    def _warp(self, n: int, scale: tuple[float, float], turn: float, shift: float, elastic: float) -> torch.Tensor:
        """Sampling grids (n, s, s, 2): random affine maps plus a smooth random displacement."""
        size = self._uniform(n, low=scale[0], high=scale[1])
        aspect = torch.exp(torch.randn(n, generator=self.generator) * 0.15)
        angle = torch.randn(n, generator=self.generator) * turn
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
        """Compose n new images. difficulty in [0, 1]: 0 shows upright, clean, centred figures, mostly on black."""
        g, d = self.generator, difficulty
        # figure: uniform over classes, then over the drawings of the class
        order, starts = self.by_class
        figure = torch.randint(len(starts) - 1, (n,), generator=g)
        count = starts[figure + 1] - starts[figure]
        which = order[starts[figure] + (torch.rand(n, generator=g) * count).long()]
        bitmap = self.figures[which][:, None].float() / 255
        mask = F.grid_sample(
            bitmap, self._warp(n, (0.85 - 0.4 * d, 1.05), 0.3 * d, 0.3 * d, 0.06 * d), align_corners=False
        )
        absent = self._chance(n, 0.08 + 0.3 * (1 - d))
        mask = mask * (~absent)[:, None, None, None]
        figure = torch.where(absent, -1, figure)
        # texture: behind the figure, on the figure, or nowhere
        tile = torch.randint(len(self.textures), (n,), generator=g)
        grain = self.textures[tile][:, None].float() / 255
        grain = F.grid_sample(grain, self._warp(n, (0.9, 3.0), 3.0, 0.3, 0.03), padding_mode="reflection",
                              align_corners=False)  # fmt: skip
        role = torch.rand(n, generator=g)
        behind = (role < 0.45 * d) | absent
        on_figure = (role > 1 - 0.3 * d) & ~absent
        texture = torch.where(behind | on_figure, self.texture_class[tile], -1)
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
        # a figure must stay visible: turn its colour away from a background too much like it
        alike = ((front_a - back_a).abs().mean((1, 2, 3), keepdim=True) < 0.25) & ~use_back & ~use_front
        foreground = torch.where(alike, (foreground + 0.5) % 1.0, foreground)
        images = clean = background + (foreground - background) * mask
        # low resolution, as small real data sets have it
        parts = list(images.chunk(8))
        for i, size in enumerate(torch.randint(8, 33, (8,), generator=g).tolist()):
            if i < 3 * d:
                low = F.interpolate(parts[i], size=size, mode="area")
                parts[i] = F.interpolate(low, size=self.side, mode="bicubic", align_corners=False).clamp(0, 1)
        images = torch.cat(parts)
        shuffle = torch.randperm(n, generator=g)
        images, clean, figure, texture = images[shuffle], clean[shuffle], figure[shuffle], texture[shuffle]
        noisy = self._chance(n, 0.3 * d)[:, None, None, None] * self._uniform(n, 1, 1, 1, high=0.15)
        images = images + torch.randn(images.shape, generator=g) * noisy
        # hide some 8 x 8 patches; the model is asked to paint them in
        cells = self.side // 8
        hidden = torch.rand(n, 1, cells, cells, generator=g) < self._uniform(n, 1, 1, 1, high=0.4)
        hidden &= self._chance(n, 0.5 * d)[:, None, None, None]
        hidden = hidden.repeat_interleave(8, 2).repeat_interleave(8, 3)
        images = torch.where(hidden, torch.full((), 0.5), images)
        return Batch(images * 2 - 1, clean * 2 - 1, figure, texture)
