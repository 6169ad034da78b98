"""The learning rate over a run."""

from __future__ import annotations

import pytest

from mlae_lab.training.schedule import cosine


@pytest.mark.parametrize(("progress", "factor"), [(0, 1), (1 / 3, 0.75), (0.5, 0.5), (2 / 3, 0.25), (1, 0)])
def test_the_papers_cosine(progress: float, factor: float) -> None:
    assert cosine(progress) == pytest.approx(factor)


@pytest.mark.parametrize(("progress", "factor"), [(0, 0), (0.05, 0.25), (0.1, 0.5), (0.2, 1), (0.6, 0.5), (1, 0)])
def test_warmup_is_linear_and_the_cosine_takes_the_rest(progress: float, factor: float) -> None:
    assert cosine(progress, warmup=0.2) == pytest.approx(factor)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.9])
def test_the_factor_rises_once_then_falls_and_stays_between_zero_and_one(warmup: float) -> None:
    factors = [cosine(step / 1000, warmup) for step in range(1001)]
    assert all(0 <= factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert top == pytest.approx(1000 * warmup, abs=1)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert factors[-1] == pytest.approx(0)


def test_after_the_end_the_factor_is_zero() -> None:
    """A run that follows the clock may overshoot by one step."""
    assert cosine(1.7) == cosine(1.7, 0.1) == 0
