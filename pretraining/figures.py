"""Figures for the pretraining images: letters of some hundred scripts, and random silhouettes.

No label tells position, count or orientation. Every figure that resembles a digit, a square, an ellipse or a heart at
any rotation is rejected (`looks_forbidden`). Garments are excluded by name.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mlae_lab.data import dsprites

BITMAP = 64  # side of a figure in pixels
LONG_SIDE = 56  # of the figure on its bitmap
FORBIDDEN_WORDS = (
    "DIGIT", "NUMBER", "NUMERAL", "FRACTION", "SQUARE", "CIRCLE", "ELLIPSE", "OVAL", "HEART", "RECTANGLE",
    "SHIRT", "DRESS", "TROUSER", "JEANS", "COAT", "SANDAL", "SHOE", "BOOT", "BAG", "HAT", "SOCK", "GLOVE", "SARI",
    "CLOTH", "GARMENT", "ROBE", "KIMONO",
)  # fmt: skip
REFERENCE_FONTS = (
    "NotoSans-Regular", "NotoSerif-Regular", "NotoSans-Bold", "NotoSansMono-Regular", "NotoSansDisplay-Thin",
)  # fmt: skip
SKIPPED_FONTS = ("Emoji", "Numerals", "Siyaq", "Nastaliq", "UI-", "SignWriting")


# ---------------------------------------------------------------- the filter


def outline(bitmap: np.ndarray, side: int = 24) -> np.ndarray:
    """Crop a figure to its bounding box and stretch it to side x side, to compare outlines.

    Returns:
        A vector (side²,) with mean 0 and norm 1; zeros for a figure of fewer than 20 pixels.
    """
    ys, xs = np.nonzero(bitmap > 96)
    if len(ys) < 20:
        return np.zeros(side * side)
    cropped = Image.fromarray(bitmap[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1])
    flat = np.asarray(cropped.resize((side, side), Image.Resampling.BILINEAR), dtype=np.float64).ravel()
    flat -= flat.mean()
    return flat / (np.linalg.norm(flat) + 1e-9)


def forbidden_outlines(fonts: list[Path]) -> np.ndarray:
    """Outlines of the ten digits in the given fonts and of the three sprites at each of 40 rotations: (k, 576)."""
    bitmaps = [glyph(ImageFont.truetype(str(font), 52), str(digit)) for font in fonts for digit in range(10)]
    sprites = [[shape, 5, rotation, 16, 16] for shape in range(3) for rotation in range(40)]
    bitmaps += list(dsprites.render(np.array(sprites)) * np.uint8(255))
    return np.stack([outline(bitmap) for bitmap in bitmaps if bitmap is not None])


def looks_forbidden(bitmap: np.ndarray, outlines: np.ndarray, limit: float = 0.8) -> bool:
    """Whether a figure resembles a digit or a sprite of dSprites at any rotation, fills its box, or is nearly empty.

    Args:
        bitmap: (64, 64) uint8.
        outlines: from `forbidden_outlines`.
        limit: the correlation of outlines above which two figures count as alike.
    """
    ys, xs = np.nonzero(bitmap > 96)
    if len(ys) < 20:
        return True
    if len(ys) > 0.92 * (np.ptp(ys) + 1) * (np.ptp(xs) + 1):  # a filled box
        return True
    return bool((outlines @ outline(bitmap)).max() > limit)


def is_allowed(character: str) -> bool:
    """Whether a character is a letter or symbol without a numeric value and without a forbidden word in its name."""
    if unicodedata.category(character) not in ("Lu", "Ll", "Lt", "Lo", "So"):
        return False
    if unicodedata.numeric(character, None) is not None:
        return False
    name = unicodedata.name(character, "")
    return bool(name) and not any(word in name for word in FORBIDDEN_WORDS)


# ---------------------------------------------------------------- glyphs


def glyph(font: ImageFont.FreeTypeFont, character: str) -> np.ndarray | None:
    """One character, centred: (64, 64) uint8, its longer side 56 pixels. None if it is empty or a thin line."""
    box = font.getbbox(character)
    width, height = box[2] - box[0], box[3] - box[1]
    if width < 4 or height < 4 or max(width, height) > 6 * min(width, height):
        return None
    canvas = Image.new("L", (int(width) + 4, int(height) + 4))
    ImageDraw.Draw(canvas).text((2 - box[0], 2 - box[1]), character, font=font, fill=255)
    return _centred(canvas, LONG_SIDE / max(width, height), shortest=1)


def _centred(canvas: Image.Image, scale: float, shortest: int) -> np.ndarray:
    """Scale a drawing and paste it into the middle of a bitmap; no side becomes shorter than `shortest` pixels."""
    size = (max(shortest, round(canvas.width * scale)), max(shortest, round(canvas.height * scale)))
    small = canvas.resize(size, Image.Resampling.LANCZOS)
    bitmap = Image.new("L", (BITMAP, BITMAP))
    bitmap.paste(small, ((BITMAP - small.width) // 2, (BITMAP - small.height) // 2))
    return np.asarray(bitmap)


def draw_glyphs(
    font_folder: Path, classes: int, variants: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw letters of Noto's scripts.

    Args:
        font_folder: holds the Noto fonts.
        classes: at most so many characters.
        variants: at most so many fonts per character.
        rng: chooses characters and fonts.

    Returns:
        Bitmaps (n, 64, 64) uint8 and their class (n,).

    Raises:
        FileNotFoundError: if the folder holds none of the reference fonts.
    """
    from fontTools.ttLib import TTFont  # pyright: ignore[reportMissingImports]  # only this recipe needs it

    reference = [path for path in sorted(font_folder.glob("Noto*.ttf")) if path.stem in REFERENCE_FONTS]
    if not reference:
        raise FileNotFoundError(f"{font_folder} holds no NotoSans-Regular.ttf: install the Noto fonts (core and extra)")
    outlines = forbidden_outlines(reference)
    by_character: dict[str, list[Path]] = {}
    families: dict[str, list[str]] = {}
    for path in sorted(font_folder.glob("Noto*.ttf")):
        if any(word in path.stem for word in SKIPPED_FONTS):
            continue
        for code in TTFont(path, lazy=True).getBestCmap():
            character = chr(code)
            if is_allowed(character):
                if character not in by_character:
                    families.setdefault(path.stem.split("-")[0], []).append(character)
                by_character.setdefault(character, []).append(path)
    candidates: list[str] = []
    quota = 1
    for letters in families.values():
        rng.shuffle(letters)
    while len(candidates) < 4 * classes and quota < 400:  # round robin over the scripts, so that none dominates
        for letters in families.values():
            if len(letters) >= quota:
                candidates.append(letters[quota - 1])
        quota += 1
    loaded: dict[Path, ImageFont.FreeTypeFont] = {}
    bitmaps: list[np.ndarray] = []
    labels: list[int] = []
    label = 0
    for character in candidates:
        if label == classes:
            break
        fonts = by_character[character]
        picks = [fonts[i] for i in rng.permutation(len(fonts))[:variants]]
        loaded |= {path: ImageFont.truetype(str(path), 52) for path in picks if path not in loaded}
        drawn = [glyph(loaded[path], character) for path in picks]
        accepted = [bitmap for bitmap in drawn if bitmap is not None and not looks_forbidden(bitmap, outlines)]
        if len(accepted) < len(drawn):  # one font's drawing rejects the whole character
            continue
        bitmaps += accepted
        labels += [label] * len(accepted)
        label += 1
    return np.stack(bitmaps), np.array(labels)


# ---------------------------------------------------------------- silhouettes


def draw_silhouettes(
    classes: int, variants: int, rng: np.random.Generator, outlines: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw random outlines, half of them mirror-symmetric: Fourier contours and unions of polygons.

    Args:
        classes: how many shapes.
        variants: drawings of each shape, which differ by a small jitter.
        rng: draws each shape's seed.
        outlines: what no drawing may resemble, from `forbidden_outlines`.

    Returns:
        Bitmaps (classes x variants, 64, 64) uint8 and their class.
    """
    bitmaps: list[np.ndarray] = []
    labels: list[int] = []
    label = 0
    while label < classes:
        symmetric, contour = rng.random() < 0.5, rng.integers(2) == 0
        seed = int(rng.integers(2**31))
        drawn = [_silhouette(seed, variant, symmetric, contour) for variant in range(variants)]
        accepted = [bitmap for bitmap in drawn if bitmap is not None and not looks_forbidden(bitmap, outlines)]
        if len(accepted) < variants:
            continue
        bitmaps += accepted
        labels += [label] * variants
        label += 1
    return np.stack(bitmaps), np.array(labels)


def _silhouette(seed: int, variant: int, symmetric: bool, contour: bool) -> np.ndarray | None:
    """One drawing of a shape: (64, 64) uint8, None for a shape that covers almost nothing."""
    base, jitter = np.random.default_rng(seed), np.random.default_rng(seed + 1 + variant)
    canvas = Image.new("L", (4 * BITMAP, 4 * BITMAP))
    pen = ImageDraw.Draw(canvas)
    for _ in range(1 if contour else int(base.integers(2, 5))):
        if contour:
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
        return None
    cropped = Image.fromarray(raw[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1])
    return _centred(cropped, LONG_SIDE / max(cropped.size), shortest=8)
