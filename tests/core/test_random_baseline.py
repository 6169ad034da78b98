"""The null line, against random experts that are drawn."""

from __future__ import annotations

import math
import random

import pytest

from mlae_lab.core.random_baseline import RandomBaseline, mean_cosine, over_layers, random_experts, random_overlap


def unit(draw: random.Random, dimension: int) -> list[float]:
    values = [draw.gauss(0, 1) for _ in range(dimension)]
    size = math.sqrt(sum(v * v for v in values))
    return [v / size for v in values]


def dot(one: list[float], other: list[float]) -> float:
    return sum(x * y for x, y in zip(one, other, strict=False))


def test_known_dimensions() -> None:
    assert mean_cosine(1) == pytest.approx(1)
    assert mean_cosine(2) == pytest.approx(2 / math.pi)
    assert mean_cosine(3) == pytest.approx(1 / 2)
    assert mean_cosine(768) == pytest.approx(math.sqrt(2 / (math.pi * 768)), rel=1e-3)


@pytest.mark.parametrize(("d_in", "d_out", "experts"), [(3, 5, 4), (8, 24, 8)])
def test_mean_and_deviation_are_those_of_drawn_experts(d_in: int, d_out: int, experts: int) -> None:
    draw, means = random.Random(1), []
    for _ in range(1500):
        drawn = [(unit(draw, d_in), unit(draw, d_out)) for _ in range(experts)]
        pairs = [(x, y) for i, x in enumerate(drawn) for y in drawn[:i]]
        means.append(sum(abs(dot(x[0], y[0]) * dot(x[1], y[1])) for x, y in pairs) / len(pairs))
    mean = sum(means) / len(means)
    deviation = math.sqrt(sum((m - mean) ** 2 for m in means) / (len(means) - 1))
    found = random_experts(d_in, d_out, experts)
    assert mean == pytest.approx(found.mean, abs=4 * found.deviation / math.sqrt(len(means)))
    assert deviation == pytest.approx(found.deviation, rel=0.1)


def test_layers_without_pairs_do_not_count() -> None:
    assert random_experts(8, 8, 1) is random_experts(8, 8, 0) is over_layers([None]) is over_layers([]) is None
    one = random_experts(8, 24, 8)
    assert over_layers([one, None]) == one
    four = over_layers([one] * 4)
    assert four == RandomBaseline(pytest.approx(one.mean), pytest.approx(one.deviation / 2))


def test_random_spaces_overlap_by_their_share_of_the_dimension() -> None:
    assert random_overlap(4, 8, 32) == random_overlap(8, 4, 32) == 0.25
