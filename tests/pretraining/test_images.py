"""The pretraining images: reproducible, and without what the bundled tasks ask for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from mlae_lab.core.catalog import TASKS
from mlae_lab.data import dsprites
from mlae_lab.data.bundled import load_bundled
from pretraining.figures import draw_silhouettes, forbidden_outlines, glyph, is_allowed, looks_forbidden, outline
from pretraining.images import Banks, Composer
from pretraining.textures import TILE, texture


def drawn(character: str) -> np.ndarray:
    """A character in the font that ships inside Pillow."""
    font = ImageFont.load_default(52)
    assert isinstance(font, ImageFont.FreeTypeFont)
    bitmap = glyph(font, character)
    assert bitmap is not None
    return bitmap


@pytest.fixture(scope="module")
def outlines() -> np.ndarray:
    """Digits of Pillow's own font in place of Noto's, with the ellipses, squares and hearts."""
    return np.concatenate([np.stack([outline(drawn(str(digit))) for digit in range(10)]), forbidden_outlines([])])


@pytest.fixture(scope="module")
def banks(outlines: np.ndarray) -> Banks:
    figures, figure_class = draw_silhouettes(6, 3, np.random.default_rng(0), outlines)
    textures = np.stack([texture(seed, 0) for seed in range(12)])
    return Banks(figures, figure_class, textures, np.arange(12))


@pytest.mark.parametrize("digit", range(10))
def test_a_digit_is_forbidden(digit: int, outlines: np.ndarray) -> None:
    assert looks_forbidden(drawn(str(digit)), outlines)


@pytest.mark.parametrize("rotation", range(0, 40, 3))
@pytest.mark.parametrize("shape", range(3))
def test_a_sprite_is_forbidden_at_any_rotation(shape: int, rotation: int, outlines: np.ndarray) -> None:
    sprite = dsprites.render(np.array([[shape, 3, rotation, 10, 20]]))[0]
    assert looks_forbidden(sprite * np.uint8(255), outlines)


@pytest.mark.parametrize("letter", "RKWAY")
def test_a_letter_is_not_forbidden(letter: str, outlines: np.ndarray) -> None:
    assert not looks_forbidden(drawn(letter), outlines)


def test_numbers_shapes_and_garments_are_rejected_by_name() -> None:
    for character in "0٣५③½Ⅳ〇■●♥👕👗":
        assert not is_allowed(character), character
    assert all(is_allowed(character) for character in "Aßجक한")


def test_no_silhouette_of_the_bank_is_forbidden(banks: Banks, outlines: np.ndarray) -> None:
    assert len(banks.figures) == 18
    assert banks.figure_classes == 6
    assert not any(looks_forbidden(figure, outlines) for figure in banks.figures)


def test_the_same_seed_gives_the_same_batch(banks: Banks) -> None:
    first, second = (Composer(banks, 48, seed=5).batch(16) for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.figure, second.figure)
    assert not torch.equal(first.images, Composer(banks, 48, seed=6).batch(16).images)


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
def test_a_batch_has_images_in_range_and_labels_of_the_banks(banks: Banks, difficulty: float) -> None:
    batch = Composer(banks, 48, seed=1).batch(64, difficulty)
    assert batch.images.shape == batch.clean.shape == (64, 3, 48, 48)
    assert bool(batch.images.isfinite().all())
    assert batch.clean.min() >= -1
    assert batch.clean.max() <= 1
    assert set(batch.figure.tolist()) <= set(range(-1, 6))
    assert set(batch.texture.tolist()) <= set(range(-1, 12))


def test_a_label_does_not_depend_on_the_position(banks: Banks) -> None:
    """The mean position of a figure's centre of mass differs between classes no more than by chance."""
    batch = Composer(banks, 48, seed=2).batch(512)
    present = batch.figure >= 0
    ink = (batch.clean - batch.clean.amin((2, 3), keepdim=True)).mean(1)[present]
    line = torch.arange(48.0)
    position = (ink.sum(1) * line).sum(1) / ink.sum((1, 2)).clamp_min(1e-6)
    means = torch.stack([position[batch.figure[present] == c].mean() for c in range(6)])
    assert float(means.std()) < 3 * float(position.std()) / (512 / 6) ** 0.5


def test_a_texture_is_reproducible_and_differs_between_classes() -> None:
    assert np.array_equal(texture(3, 1), texture(3, 1))
    assert not np.array_equal(texture(3, 1), texture(4, 1))
    assert texture(3, 1).shape == (TILE, TILE)


def test_the_bundled_images_are_not_in_the_banks(banks: Banks) -> None:
    """The recipe reads no dataset: a drawing can match a bundled image only by accident, and none does."""
    for task in (t for t in TASKS if t.bundled):
        bundled = {Image.fromarray(x).resize((8, 8)).tobytes() for x in load_bundled(task.name).test.images[:300]}
        assert not bundled & {Image.fromarray(x).resize((8, 8)).tobytes() for x in banks.figures}
