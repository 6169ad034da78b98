"""The sample images: the same for every run on a split, from as many classes as possible."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from mlae_lab.training.sample_images import SAMPLES, chosen, encoded_image


def test_the_first_of_each_class_then_the_second_of_each() -> None:
    assert chosen([4, 4, 4, 1, 0, 1, 0], 3) == [0, 3, 4]
    assert chosen([4, 4, 4, 1, 0, 1, 0], 5) == [0, 1, 3, 4, 5]
    assert chosen([4, 4], 12) == [0, 1]
    assert chosen([], 12) == []


def test_hundreds_of_classes_give_twelve_images() -> None:
    indices = chosen([i % 397 for i in range(100_000)])
    assert indices == list(range(SAMPLES))


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (64, 48, 3), (300, 200, 3)])
def test_an_image_is_small_and_keeps_its_shape(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    text = encoded_image(pixels)
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    assert max(image.size) <= 64
    assert len(text) < 12_000
    assert image.width / image.height == pytest.approx(shape[1] / shape[0], rel=0.05)
    if max(shape[:2]) <= 32:  # a tiny image is not resized
        assert np.array_equal(np.asarray(image), pixels)
