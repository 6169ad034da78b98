"""The random baseline, compared with sampled random experts."""

from __future__ import annotations

import math
import random

import pytest

from mlae_lab.core.random_baseline import RandomBaseline, mean_cosine, over_layers, random_experts, random_overlap


def unit(draw: random.Random, dimension: int) -> list[float]:
    values = [draw.gauss(0, 1) for _ in range(dimension)]
    size = math.sqrt(sum(v * v for v in values))
    return [v / size for v in values]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_known_dimensions() -> None:
    assert mean_cosine(1) == pytest.approx(1)
    assert mean_cosine(2) == pytest.approx(2 / math.pi)
    assert mean_cosine(3) == pytest.approx(1 / 2)
    assert mean_cosine(768) == pytest.approx(math.sqrt(2 / (math.pi * 768)), rel=1e-3)


@pytest.mark.parametrize(("d_in", "d_out", "experts"), [(3, 5, 4), (8, 24, 8)])
def test_mean_and_deviation_are_those_of_sampled_experts(d_in: int, d_out: int, experts: int) -> None:
    draw, means = random.Random(1), []
    for _ in range(1500):
        sample = [(unit(draw, d_in), unit(draw, d_out)) for _ in range(experts)]
        pairs = [(x, y) for i, x in enumerate(sample) for y in sample[:i]]
        means.append(sum(abs(dot(x[0], y[0]) * dot(x[1], y[1])) for x, y in pairs) / len(pairs))
    mean = sum(means) / len(means)
    deviation = math.sqrt(sum((m - mean) ** 2 for m in means) / (len(means) - 1))
    baseline = random_experts(d_in, d_out, experts)
    assert baseline is not None
    assert mean == pytest.approx(baseline.mean, abs=4 * baseline.deviation / math.sqrt(len(means)))
    assert deviation == pytest.approx(baseline.deviation, rel=0.1)


def test_layers_without_pairs_do_not_count() -> None:
    assert random_experts(8, 8, 1) is random_experts(8, 8, 0) is over_layers([None]) is over_layers([]) is None
    layer = random_experts(8, 24, 8)
    assert layer is not None
    assert over_layers([layer, None]) == layer
    assert over_layers([layer] * 4) == RandomBaseline(pytest.approx(layer.mean), pytest.approx(layer.deviation / 2))


def test_overlap_of_random_subspaces() -> None:
    assert random_overlap(4, 8, 32) == random_overlap(8, 4, 32) == 0.25
