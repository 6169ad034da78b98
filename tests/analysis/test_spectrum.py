"""Spectrum, ranks and spaces of ΔW from its factors, compared with the dense matrix."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mlae_lab.analysis.spectrum import effective_rank, overlap, spectrum, stable_rank
from tests.analysis.test_similarity import D_IN, D_OUT, factors


def matrix(a: Tensor, b: Tensor, coefficient: Tensor, rank: int) -> Tensor:
    """ΔW built as a dense matrix, expert by expert."""
    total = torch.zeros(b.shape[0], a.shape[1], dtype=torch.float64)
    for i, value in enumerate(coefficient.double()):
        columns = slice(i * rank, (i + 1) * rank)
        total += value * b[:, columns].double() @ a[columns].double()
    return total


@pytest.mark.parametrize(("experts", "rank"), [(1, 1), (4, 1), (3, 2), (8, 1), (14, 1), (4, 4)])
@pytest.mark.parametrize("seed", range(2))
def test_spectrum_equals_that_of_the_matrix(experts: int, rank: int, seed: int) -> None:
    own = factors(experts, rank, seed)
    dense = matrix(*own, rank)
    result = spectrum(*own, rank)
    expected = torch.linalg.svdvals(dense)
    expected = expected[expected > 1e-6 * expected[0]]
    torch.testing.assert_close(result.values, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close((result.left * result.values) @ result.right.t(), dense, rtol=0, atol=1e-6)
    for basis in (result.left, result.right):
        torch.testing.assert_close(basis.t() @ basis, torch.eye(len(result.values)).double(), rtol=0, atol=1e-9)
    assert result.left.shape[0] == D_OUT
    assert result.right.shape[0] == D_IN
    assert stable_rank(result.values) == pytest.approx(float(dense.square().sum() / expected[0] ** 2), rel=1e-6)
    share = expected / expected.sum()
    assert effective_rank(result.values) == pytest.approx(math.exp(-sum(float(p) * math.log(p) for p in share)))


def test_spectrum_does_not_depend_on_the_division_into_experts() -> None:
    """BA = (BR)(R⁻¹A): cosines between rank-1 parts change, the spectrum does not."""
    a, b, _ = factors(4, 1)
    ones, mixing = torch.ones(4), torch.randn(4, 4, generator=torch.Generator().manual_seed(8)).double()
    first, second = spectrum(a, b, ones), spectrum(torch.linalg.inv(mixing) @ a.double(), b.double() @ mixing, ones)
    torch.testing.assert_close(first.values, second.values, rtol=1e-7, atol=1e-7)
    assert overlap(first.left, second.left) == pytest.approx(1)
    assert overlap(first.right, second.right) == pytest.approx(1)


def test_new_experts_have_no_spectrum() -> None:
    a, b, coefficient = factors(3, 2)
    result = spectrum(a, b * 0, coefficient, 2)
    assert len(result.values) == 0
    assert result.left.shape == (D_OUT, 0)
    assert result.right.shape == (D_IN, 0)
    assert effective_rank(result.values) is stable_rank(result.values) is overlap(result.left, result.left) is None


def test_equal_experts_have_rank_one() -> None:
    a, b, _ = factors(1, 1)
    result = spectrum(a.repeat(5, 1), b.repeat(1, 5), torch.ones(5))
    assert len(result.values) == 1
    assert effective_rank(result.values) == stable_rank(result.values) == 1


def test_ranks_of_known_spectra() -> None:
    assert effective_rank(torch.ones(6)) == pytest.approx(6)
    assert stable_rank(torch.ones(6)) == pytest.approx(6)
    assert stable_rank(torch.tensor([2.0, 1.0, 1.0])) == pytest.approx(1.5)
    assert effective_rank(torch.tensor([2.0, 1.0, 1.0])) == pytest.approx(2 * math.sqrt(2))


def test_overlap_of_spaces_is_the_mean_squared_cosine_of_their_angles() -> None:
    rng = torch.Generator().manual_seed(2)
    u, v = (torch.linalg.qr(torch.randn(20, n, generator=rng).double()).Q for n in (3, 5))
    expected = torch.linalg.svdvals(u.t() @ v).square().mean()
    assert overlap(u, v) == pytest.approx(float(expected))
    assert overlap(v, u) == pytest.approx(float(expected))
    assert overlap(u, u) == pytest.approx(1)
    assert overlap(u, torch.cat([u, v], 1)[:, :3]) == pytest.approx(1)
    whole = torch.linalg.qr(torch.randn(20, 20, generator=rng).double()).Q
    assert overlap(whole[:, :4], whole[:, 4:]) == pytest.approx(0, abs=1e-12)
