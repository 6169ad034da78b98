"""The pretraining images: reproducible, and without what the bundled tasks ask for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from mlae_lab.core.catalog import TASKS
from mlae_lab.data import dsprites
from mlae_lab.data.bundled import load_bundled
from pretraining import images as p

PILLOWS_FONT = ImageFont.load_default(52)  # ships inside Pillow


@pytest.fixture(scope="module")
def outlines() -> np.ndarray:
    """Digits of Pillow's own font in place of Noto's, with the ellipses, squares and hearts."""
    drawn = [p._boxed(p._glyph(PILLOWS_FONT, str(digit))) for digit in range(10)]
    return np.concatenate([np.stack(drawn), p._forbidden_outlines([])])


@pytest.fixture(scope="module")
def banks(outlines: np.ndarray) -> p.Banks:
    rng = np.random.default_rng(0)
    figures, label = p.draw_silhouettes(6, 3, rng, outlines)
    textures = np.stack([p._texture(seed, 0) for seed in range(12)])
    return p.Banks(figures, label, textures, np.arange(12))


@pytest.mark.parametrize("digit", range(10))
def test_a_digit_is_forbidden(digit: int, outlines: np.ndarray) -> None:
    assert p.looks_forbidden(p._glyph(PILLOWS_FONT, str(digit)), outlines)


@pytest.mark.parametrize("turn", range(0, 40, 3))
@pytest.mark.parametrize("shape", range(3))
def test_a_sprite_is_forbidden_however_it_is_turned(shape: int, turn: int, outlines: np.ndarray) -> None:
    sprite = dsprites.render(np.array([[shape, 3, turn, 10, 20]]))[0]
    assert p.looks_forbidden(sprite * np.uint8(255), outlines)


@pytest.mark.parametrize("letter", "RKWAY")
def test_a_letter_is_not(letter: str, outlines: np.ndarray) -> None:
    assert not p.looks_forbidden(p._glyph(PILLOWS_FONT, letter), outlines)


def test_numbers_shapes_and_garments_are_not_wanted_by_name() -> None:
    for character in "0٣५③½Ⅳ〇■●♥👕👗":
        assert not p._wanted(character), character
    assert all(p._wanted(character) for character in "Aßجक한")


def test_no_silhouette_of_the_bank_is_forbidden(banks: p.Banks, outlines: np.ndarray) -> None:
    assert len(banks.figures) == 18
    assert banks.figure_classes == 6
    assert not any(p.looks_forbidden(figure, outlines) for figure in banks.figures)


def test_one_seed_one_batch(banks: p.Banks) -> None:
    one, two = (p.Composer(banks, 48, seed=5).batch(16) for _ in range(2))
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.figure, two.figure)
    assert not torch.equal(one.images, p.Composer(banks, 48, seed=6).batch(16).images)


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
def test_a_batch_has_images_in_range_and_labels_of_the_banks(banks: p.Banks, difficulty: float) -> None:
    batch = p.Composer(banks, 48, seed=1).batch(64, difficulty)
    assert batch.images.shape == batch.clean.shape == (64, 3, 48, 48)
    assert bool(batch.images.isfinite().all())
    assert batch.clean.min() >= -1
    assert batch.clean.max() <= 1
    assert set(batch.figure.tolist()) <= set(range(-1, 6))
    assert set(batch.texture.tolist()) <= set(range(-1, 12))


def test_a_label_says_nothing_of_the_place(banks: p.Banks) -> None:
    """What the figure's class could tell of where it stands: its centre of mass differs no more between
    classes than chance allows."""
    composer = p.Composer(banks, 48, seed=2)
    batch = composer.batch(512)
    seen = batch.figure >= 0
    ink = (batch.clean - batch.clean.amin((2, 3), keepdim=True)).mean(1)[seen]
    line = torch.arange(48.0)
    place = (ink.sum(1) * line).sum(1) / ink.sum((1, 2)).clamp_min(1e-6)
    means = torch.stack([place[batch.figure[seen] == c].mean() for c in range(6)])
    assert float(means.std()) < 3 * float(place.std()) / (512 / 6) ** 0.5


def test_textures_differ_between_classes_and_agree_with_themselves() -> None:
    assert np.array_equal(p._texture(3, 1), p._texture(3, 1))
    assert not np.array_equal(p._texture(3, 1), p._texture(4, 1))
    assert p._texture(3, 1).shape == (p.TILE, p.TILE)


def test_the_bundled_images_are_not_among_the_banks(banks: p.Banks) -> None:
    """The recipe reads no data set: what it draws can only meet one by accident, and does not."""
    for task in (t for t in TASKS if t.bundled):
        known = {Image.fromarray(x).resize((8, 8)).tobytes() for x in load_bundled(task.name).test.images[:300]}
        assert not known & {Image.fromarray(x).resize((8, 8)).tobytes() for x in banks.figures}
