"""The learning-rate finder and the preview of the augmentation, each in its real process."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mlae_lab import cli
from mlae_lab.core.config import RunConfig
from mlae_lab.core.rate_curve import STEPS, RatePoint, bounds, rates, suggested
from mlae_lab.runs.previews import PreviewError, augmented_images, rate_points
from tests.lab import printed_json


def test_rates_rise_by_equal_factors() -> None:
    planned = rates("adamw")
    assert len(planned) == STEPS
    assert (planned[0], planned[-1]) == pytest.approx(bounds("adamw"))
    assert planned[1] / planned[0] == pytest.approx(planned[-1] / planned[-2])
    assert bounds("sgd") == pytest.approx((1e-3, 100))


def test_the_suggestion_is_a_tenth_of_the_rate_with_the_lowest_loss() -> None:
    curve = [RatePoint(10.0 ** (i / 5 - 5), 0.0, abs(i - 15) + 1.0) for i in range(20)]
    assert suggested(curve) == pytest.approx(1e-3)
    assert suggested(curve[:9]) is None, "too few points"
    assert suggested([RatePoint(r, 1.0, 1.0) for r in rates("adamw")]) is None, "no fall"


def test_find_lr_finds_a_rate(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["find-lr", "--task", "digits", "--method", "linear", "--json"]) == 0
    result = printed_json(capsys)
    points = result["points"]
    assert 10 <= len(points) <= STEPS
    assert min(point["smoothed"] for point in points) < 0.98 * points[0]["smoothed"]
    assert 1e-5 <= result["suggested"] <= 0.1


def test_the_augmentation_is_shown_next_to_the_stored_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a server may be started anywhere
    monkeypatch.delenv("PYTHONPATH", raising=False)
    rows = augmented_images(RunConfig("digits", augmentation="colour"))
    assert len(rows) == 6
    for versions in rows:
        images = [Image.open(io.BytesIO(base64.b64decode(version))) for version in versions]
        assert len(images) == 6
        assert len({image.size for image in images}) == 1
        assert len(set(versions)) > 1


def test_a_preview_that_cannot_start_says_why() -> None:
    with pytest.raises(PreviewError, match="nowhere"):
        rate_points(replace(RunConfig("digits", method="linear"), weights="/nowhere/weights.safetensors"))
