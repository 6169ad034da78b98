"""Maps drawn over images: high values are bright, low values dark."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from mlae_lab.data import overlay
from mlae_lab.data.overlay import BOTH_WAYS, GLOW, Row


def image(size: int = 24, grey: int = 128) -> str:
    held = io.BytesIO()
    Image.new("RGB", (size, size), (grey,) * 3).save(held, "PNG")
    return base64.b64encode(held.getvalue()).decode()


def test_a_map_is_scaled_by_its_largest_value() -> None:
    values = np.array([[0.0, 1.0], [2.0, 4.0]])
    assert overlay.scaled(values).tolist() == [[0, 0.25], [0.5, 1]]
    assert overlay.scaled(values, 8.0).tolist() == [[0, 0.125], [0.25, 0.5]]
    assert overlay.scaled(values, smallest=2.0).tolist() == [[-1, -0.5], [0, 1]]
    assert overlay.scaled(np.array([[-4.0, 2.0]])).tolist() == [[-1, 0.5]]
    assert overlay.scaled(np.zeros((2, 2))).tolist() == [[0, 0], [0, 0]]


def test_colours_pass_through_their_stops() -> None:
    assert overlay.coloured(np.array([[0.0, 0.5, 1.0]])).tolist() == [list(map(list, GLOW))]
    assert overlay.coloured(np.array([[-1.0, 0.0, 1.0]]), signed=True).tolist() == [list(map(list, BOTH_WAYS))]
    light = overlay.coloured(np.linspace(0, 1, 50)[None]).sum(2)[0]
    assert (np.diff(light.astype(int)) >= 0).all()


def test_orange_is_above_zero_and_blue_below() -> None:
    below, middle, above = overlay.coloured(np.array([[-1.0, 0.0, 1.0]]), signed=True)[0].astype(int)
    assert above[0] > above[1] > above[2]
    assert below[2] > below[1] > below[0]
    assert middle.sum() < min(above.sum(), below.sum()) / 5


@pytest.mark.parametrize("opacity", [0.0, 0.4, 1.0])
def test_map_is_blended_patch_by_patch(opacity: float) -> None:
    plain = Image.new("RGB", (8, 8), (128, 128, 128))
    result = np.asarray(overlay.over(plain, np.array([[1.0, 0.0], [0.0, 0.0]]), opacity)).astype(int)
    for own, colour in ((result[:4, :4], GLOW[-1]), (result[4:, 4:], GLOW[0])):
        expected = [128 * (1 - opacity) + c * opacity for c in colour]
        assert np.abs(own - expected).max() <= 1


def test_a_sheet_has_a_row_for_each_image_and_a_column_for_each_map() -> None:
    map_values = np.array([[0.0, 1.0], [0.5, 0.25]])
    rows = [Row(image(), "a <b>", (map_values, None)), Row(image(48, 0), "second", (map_values, -map_values))]
    page = np.asarray(overlay.sheet(rows, ["rollout", "expert 1"], 1.0, (False, True)))
    assert page.shape == (34 + 2 * 138, 120 + 3 * 138, 3)
    assert page[34 + 5, 120 + 5].tolist() == [128] * 3
    assert page[34 + 138 + 5, 120 + 5].tolist() == [0] * 3
    assert page[34 + 5, 120 + 138 + 5].tolist() == list(GLOW[0])
    assert page[34 + 5, 120 + 138 + 120].tolist() == list(GLOW[-1])
    assert page[34 + 5, 120 + 2 * 138 + 5].tolist() == [250, 250, 247]  # no map
    assert page[34 + 138 + 5, 120 + 2 * 138 + 120].tolist() == list(BOTH_WAYS[0])
    text = overlay.svg(rows, ["rollout", "expert 1"], 0.5, (False, True))
    assert text.count("<image") == 5
    assert text.count('fill-opacity="0.5"') == 3 * 4
    assert "a &lt;b&gt;" in text
