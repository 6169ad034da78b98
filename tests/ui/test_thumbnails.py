"""Small images."""

from __future__ import annotations

import base64
import io
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from mlae_lab.core.patterns import paper_patterns, pattern
from mlae_lab.ui.thumbnails import gain_image, image_address, mask_image


def svg(address: str) -> ElementTree.Element:
    return ElementTree.fromstring(base64.b64decode(address.split(",", 1)[1]))


def test_a_mask_has_one_cell_for_each_cell() -> None:
    present, absent = svg(mask_image(pattern("incremental")))
    assert present.get("d").count("z") == 96
    assert present.get("fill") != "none"
    assert absent.get("d").count("z") == 12 * 14 - 96
    assert absent.get("fill") == "none"


def test_a_dropped_expert_is_paler() -> None:
    opacity = {float(c.get("fill-opacity")) for c in svg(mask_image(pattern("decremental", "stochastic")))}
    assert max(opacity) == 1.0
    assert min(opacity) == 0.2


def test_an_image_is_small() -> None:
    """A page of masks sends two dozen of them whenever the mark of the chosen one moves."""
    assert max(len(mask_image(entry.plan)) for entry in paper_patterns()) < 5000


def test_the_bar_runs_from_probe_to_adapted() -> None:
    low, gain = svg(gain_image(40.0, 90.0))[1:]
    assert float(low.get("width")) == 80
    assert float(gain.get("x")) == 80
    assert float(gain.get("width")) == 100


def test_an_image_survives_the_address() -> None:
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    address = image_address(image)
    assert address.startswith("data:image/png;")  # the pages show its pixels
    data = base64.b64decode(address.split(",", 1)[1])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), image)


def test_a_photo_is_a_small_jpeg() -> None:
    address = image_address(np.zeros((200, 300, 3), np.uint8))
    assert address.startswith("data:image/jpeg;")  # the pages smooth it
    assert Image.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1]))).size == (96, 96)
