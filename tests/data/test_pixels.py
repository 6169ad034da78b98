"""Conversion of stored images to the input of a backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import normalize

from mlae_lab.data.pixels import NORMALISATIONS, channels_first, normalised, standardised


def test_black_and_white_are_the_ends_of_the_range() -> None:
    images = np.array([np.zeros((5, 5)), np.full((5, 5), 255), np.full((5, 5), 51)], dtype=np.uint8)
    for size in (5, 8, 3):
        result = normalised(images, size)
        assert result.shape == (3, 3, size, size)
        assert result.dtype is torch.float32
        torch.testing.assert_close(result[:, 0, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))
        torch.testing.assert_close(result, result[:, :1, :1, :1].expand_as(result))  # a uniform image stays uniform


def test_grey_is_repeated_and_colour_keeps_its_channels() -> None:
    grey = np.arange(4 * 6 * 6, dtype=np.uint8).reshape(4, 6, 6)
    result = normalised(grey, 6)
    assert torch.equal(result[:, 0], result[:, 1])
    assert torch.equal(result[:, 0], result[:, 2])
    colour = np.stack([grey, grey * 0, grey * 0 + 255], axis=-1).astype(np.uint8)
    result = normalised(colour, 6)
    assert torch.equal(result[:, 0], normalised(grey, 6)[:, 0])
    assert bool((result[:, 1] == -1).all())
    assert bool((result[:, 2] == 1).all())


def test_at_its_own_size_an_image_is_only_rescaled() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 7, 7), dtype=np.uint8)
    expected = torch.from_numpy(images.astype(np.float32)) / 127.5 - 1
    assert torch.equal(normalised(images, 7)[:, 0], expected)


@pytest.mark.parametrize("shape", [(2, 9, 9), (2, 20, 10), (2, 64, 64), (2, 9, 13, 3)])
@pytest.mark.parametrize("size", [8, 48])
def test_bicubic_overshoot_is_clipped(shape: tuple[int, ...], size: int) -> None:
    images = (np.random.default_rng(1).integers(0, 2, shape) * 255).astype(np.uint8)
    result = normalised(images, size)
    assert result.shape == (2, 3, size, size)
    assert float(result.min()) >= -1
    assert float(result.max()) <= 1
    assert result.is_contiguous()


def test_slice_of_a_larger_array_is_read_and_not_changed() -> None:
    images = np.random.default_rng(2).integers(0, 256, (6, 8, 8), dtype=np.uint8)
    copy = images.copy()
    assert torch.equal(normalised(images[::2], 8), normalised(copy[[0, 2, 4]], 8))
    assert np.array_equal(images, copy)


def test_empty_input() -> None:
    assert normalised(np.zeros((0, 8, 8), dtype=np.uint8), 8).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("shape", [(4, 9, 9), (4, 9, 9, 3)])
@pytest.mark.parametrize("size", [9, 6])
def test_half_is_the_default_to_the_last_bit(shape: tuple[int, ...], size: int) -> None:
    images = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    pixels = torch.from_numpy(images).float()
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    if size != 9:
        pixels = torch.nn.functional.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True)
    expected = (pixels.clamp(0, 255) / 127.5 - 1).expand(-1, 3, -1, -1)
    assert torch.equal(normalised(images, size), expected)
    assert torch.equal(normalised(images, size, "half"), expected)


@pytest.mark.parametrize("name", list(NORMALISATIONS))
@pytest.mark.parametrize("shape", [(2, 5, 5), (2, 5, 5, 3)])
def test_normalisations_are_torchvisions(name: str, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(4).integers(0, 256, shape, dtype=np.uint8)
    colour = images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=-1)
    expected = normalize(torch.from_numpy(colour).permute(0, 3, 1, 2) / 255, *map(list, NORMALISATIONS[name]))
    result = normalised(images, 5, name)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)
    assert result.is_contiguous()
    assert result.dtype is torch.float32
    assert torch.equal(standardised(channels_first(images), name), result)


def test_an_unknown_normalisation_is_refused() -> None:
    with pytest.raises(ValueError, match="normalisation 'inception' is unknown: choose half or imagenet"):
        normalised(np.zeros((1, 4, 4), dtype=np.uint8), 4, "inception")


def test_read_only_images_such_as_a_memory_map_are_read(tmp_path: Path) -> None:
    images = np.random.default_rng(5).integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)
    np.save(tmp_path / "pixels.npy", images)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    assert torch.equal(normalised(mapped, 6), normalised(images, 6))  # and without torch's warning
    assert torch.equal(channels_first(mapped[1:]), torch.from_numpy(images[1:]).permute(0, 3, 1, 2))
