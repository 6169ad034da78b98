"""Robustness of one run and of two runs under the same random masks, as text."""

from __future__ import annotations

from statistics import mean, stdev

import pytest

from mlae_lab.core.robustness import robustness_of, summary, verdict


def answer(trained: float, accuracies: list[float], images: int = 200) -> dict:
    return {
        "images": images, "trained": {"accuracy": trained}, "accuracies": accuracies, "mean": mean(accuracies),
        "samples": len(accuracies), "deviation": stdev(accuracies) if len(accuracies) > 1 else None,
        "lowest": min(accuracies), "rate": 0.5,
    }  # fmt: skip


def test_the_loss_is_the_mean_over_the_masks() -> None:
    assert robustness_of(answer(60.0, [50.0, 40.0])).loss == 15.0
    assert robustness_of(answer(60.0, [61.0, 62.0])).change == "gains 1.5 points"
    assert summary(answer(60.0, [50.0, 40.0]), "A") == (
        "A: 60.0 % with all experts, 45.0 % on average over 2 random masks at p = 0.5, standard deviation 7.1; "
        "minimum 40.0 %"
    )


LIMITS = (
    " This compares one seed per run on 200 images; use Seeds (repeats) to judge the effect of training with masking."
)


def test_the_run_that_loses_less_under_the_same_masks_is_more_robust() -> None:
    robust_run, fragile_run = answer(58.0, [56.0, 55.0, 57.0, 50.0]), answer(62.0, [40.0, 41.0, 45.0, 55.0])
    assert verdict(robust_run, fragile_run, ["A", "B"]) == (
        "A loses 3.5 points, B loses 16.8 points: A is more robust to these random masks by 13.2 points and loses less "
        "under 3 of 4 masks." + LIMITS
    )
    assert "A is more robust to these random masks" in verdict(fragile_run, robust_run, ["B", "A"])


def test_a_difference_within_its_error_is_not_significant() -> None:
    three_masks = verdict(answer(60.0, [50.0, 40.0, 45.0]), answer(60.0, [45.0, 50.0, 41.0]), ["A", "B"])
    assert three_masks.endswith("with 3 masks, neither is significantly more robust." + LIMITS)
    one_mask = verdict(answer(60.0, [50.0]), answer(60.0, [45.0]), ["A", "B"])
    assert one_mask.endswith("with 1 mask, neither is significantly more robust." + LIMITS)


def test_less_than_one_image_is_not_conclusive_with_any_number_of_masks() -> None:
    gains = [0.5, 0.0, 0.0, 0.0, 0.0] * 200  # mean 0.1 points, 16 standard errors over the masks
    a, b = answer(60.0, [50.0 + gain for gain in gains]), answer(60.0, [50.0] * 1000)
    assert verdict(a, b, ["A", "B"]) == (
        "A loses 9.9 points, B loses 10.0 points: the difference, 0.1 points, is less than one image and not "
        "conclusive." + LIMITS
    )
    assert "less than one image" in verdict(b, a, ["B", "A"])


@pytest.mark.parametrize(("images", "is_conclusive"), [(199, False), (200, True), (2000, True)])
def test_one_image_is_100_points_over_their_number(images: int, is_conclusive: bool) -> None:
    a, b = (answer(60.0, [50.0 + d, 45.0 + d, 40.0 + d], images) for d in (0.5, 0.0))
    text = verdict(a, b, ["A", "B"])
    assert ("A is more robust to these random masks by 0.5 points" in text) == is_conclusive
    assert ("less than one image" in text) != is_conclusive
    assert f"one seed per run on {images:,} images" in text


def test_the_smaller_number_of_images_counts() -> None:
    text = verdict(answer(60.0, [51.0, 46.0]), answer(60.0, [50.0, 45.0], 50), ["A", "B"])
    assert "less than one image" in text
    assert "on 50 images" in text
