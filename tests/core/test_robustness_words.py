"""Two runs under the same random masks, in words."""

from __future__ import annotations

from statistics import mean, stdev

from mlae_lab.core.robustness import stand, verdict, words


def answer(trained: float, accuracies: list[float]) -> dict:
    return {
        "trained": {"accuracy": trained}, "accuracies": accuracies, "mean": mean(accuracies), "draws": len(accuracies),
        "deviation": stdev(accuracies) if len(accuracies) > 1 else None, "lowest": min(accuracies), "rate": 0.5,
    }  # fmt: skip


def test_the_fall_is_what_is_lost_on_average() -> None:
    assert stand(answer(60.0, [50.0, 40.0])).fall == 15.0
    assert words(answer(60.0, [50.0, 40.0]), "A") == (
        "A: 60.0 % with all experts, 45.0 % on average over 2 random masks at p = 0.5, standard deviation 7.1; "
        "the worst left 40.0 %"
    )


def test_whoever_loses_less_under_the_same_masks_stands_them_better() -> None:
    sturdy, frail = answer(58.0, [56.0, 55.0, 57.0, 50.0]), answer(62.0, [40.0, 41.0, 45.0, 55.0])
    told = verdict(sturdy, frail, ["A", "B"])
    assert told == (
        "A loses 3.5 points, B 16.8: A stands random masks better, by 13.2 points; it lost less under 3 of 4 masks that "
        "both saw."
    )
    assert "A stands random masks better" in verdict(frail, sturdy, ["B", "A"])


def test_a_difference_within_its_error_is_none() -> None:
    same = verdict(answer(60.0, [50.0, 40.0, 45.0]), answer(60.0, [45.0, 50.0, 41.0]), ["A", "B"])
    assert same.endswith("with 3 masks neither stands them better.")
    assert verdict(answer(60.0, [50.0]), answer(60.0, [45.0]), ["A", "B"]).endswith("with 1 masks neither stands them better.")
