"""Two runs under the same random masks, in words."""

from __future__ import annotations

from statistics import mean, stdev

import pytest

from mlae_lab.core.robustness import stand, verdict, words


def answer(trained: float, accuracies: list[float], images: int = 200) -> dict:
    return {
        "images": images,
        "trained": {"accuracy": trained}, "accuracies": accuracies, "mean": mean(accuracies), "samples": len(accuracies),
        "deviation": stdev(accuracies) if len(accuracies) > 1 else None, "lowest": min(accuracies), "rate": 0.5,
    }  # fmt: skip


def test_the_fall_is_what_is_lost_on_average() -> None:
    assert stand(answer(60.0, [50.0, 40.0])).fall == 15.0
    assert stand(answer(60.0, [61.0, 62.0])).loses == "gains 1.5 points"
    assert words(answer(60.0, [50.0, 40.0]), "A") == (
        "A: 60.0 % with all experts, 45.0 % on average over 2 random masks at p = 0.5, standard deviation 7.1; "
        "the worst left 40.0 %"
    )


LIMITS = " That is one seed per run on 200 images; what training with masking does, only Seeds (repeats) can say."


def test_whoever_loses_less_under_the_same_masks_stands_them_better() -> None:
    sturdy, frail = answer(58.0, [56.0, 55.0, 57.0, 50.0]), answer(62.0, [40.0, 41.0, 45.0, 55.0])
    told = verdict(sturdy, frail, ["A", "B"])
    assert told == (
        "A loses 3.5 points, B loses 16.8 points: A stands these random masks better, by 13.2 points; it lost less "
        "under 3 of 4 masks that both saw." + LIMITS
    )
    assert "A stands these random masks better" in verdict(frail, sturdy, ["B", "A"])


def test_a_difference_within_its_error_is_none() -> None:
    same = verdict(answer(60.0, [50.0, 40.0, 45.0]), answer(60.0, [45.0, 50.0, 41.0]), ["A", "B"])
    assert same.endswith("with 3 masks neither stands them better." + LIMITS)
    one = verdict(answer(60.0, [50.0]), answer(60.0, [45.0]), ["A", "B"])
    assert one.endswith("with 1 mask neither stands them better." + LIMITS)


def test_less_than_an_image_settles_nothing_however_many_the_draws() -> None:
    apart = [0.5, 0.0, 0.0, 0.0, 0.0] * 200  # mean 0.1 points, 16 standard errors of the samples
    one, other = answer(60.0, [50.0 + d for d in apart]), answer(60.0, [50.0] * 1000)
    told = verdict(one, other, ["A", "B"])
    assert told == (
        "A loses 9.9 points, B loses 10.0 points: the difference, 0.1 points, is no more than an image's worth and "
        "settles nothing." + LIMITS
    )
    assert "no more than an image's worth" in verdict(other, one, ["B", "A"])


@pytest.mark.parametrize(("images", "settles"), [(199, False), (200, True), (2000, True)])
def test_one_image_is_100_points_over_their_number(images: int, settles: bool) -> None:
    one, other = (answer(60.0, [50.0 + d, 45.0 + d, 40.0 + d], images) for d in (0.5, 0.0))
    told = verdict(one, other, ["A", "B"])
    assert ("A stands these random masks better, by 0.5 points" in told) == settles
    assert ("no more than an image's worth" in told) != settles
    assert f"one seed per run on {images:,} images" in told


def test_of_two_numbers_of_images_the_smaller_counts() -> None:
    told = verdict(answer(60.0, [51.0, 46.0]), answer(60.0, [50.0, 45.0], 50), ["A", "B"])
    assert "no more than an image's worth" in told
    assert "on 50 images" in told
