"""Cosine similarity of experts from their factors, compared with the dense matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from mlae_lab.analysis.similarity import SAMPLES, cosines, off_diagonal_means, random_baseline_of, similarity_stats
from mlae_lab.core.patterns import allocation, dense
from mlae_lab.model.inject import inject

D_IN, D_OUT = 11, 7


def factors(experts: int, rank: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    a = torch.randn(experts * rank, D_IN, generator=rng)
    b = torch.randn(D_OUT, experts * rank, generator=rng)
    return a, b, torch.randn(experts, generator=rng)


def by_hand(a: Tensor, b: Tensor, coefficient: Tensor, rank: int) -> Tensor:
    """Every expert as a dense matrix λ B A, flattened; then plain cosines of vectors."""
    a, b = a.double(), b.double()
    experts = len(coefficient)
    flat = [
        (float(coefficient[i]) * b[:, i * rank : (i + 1) * rank] @ a[i * rank : (i + 1) * rank]).flatten()
        for i in range(experts)
    ]
    return torch.tensor([[float(u @ v / (u.norm() * v.norm())) for v in flat] for u in flat], dtype=torch.float64)


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("experts", [1, 2, 8])
@pytest.mark.parametrize("seed", range(3))
def test_cosines_equal_those_of_the_dense_matrices(experts: int, rank: int, seed: int) -> None:
    own = factors(experts, rank, seed)
    result = cosines(*own, rank)
    assert result.shape == (experts, experts)
    assert result.dtype is torch.float64
    torch.testing.assert_close(result, by_hand(*own, rank), rtol=0, atol=1e-6)
    torch.testing.assert_close(result, result.t())
    assert bool((result.diagonal() == 1).all())
    assert float(result.abs().max()) <= 1


@pytest.mark.parametrize("rank", [1, 3])
def test_the_sign_of_lambda_is_the_sign_of_the_expert(rank: int) -> None:
    a, b, _ = factors(3, rank)
    plus = cosines(a, b, torch.ones(3), rank)
    turned = cosines(a, b, torch.tensor([1.0, -2.0, 1.0]), rank)
    sign = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    expected = plus * sign[:, None] * sign[None, :]
    torch.testing.assert_close(turned, expected)
    assert off_diagonal_means(turned)[1] == pytest.approx(off_diagonal_means(plus)[1])


def test_the_size_of_lambda_and_of_the_factors_does_not_matter() -> None:
    a, b, coefficient = factors(4, 2)
    expected = cosines(a, b, coefficient, 2)
    for size in (1e-12, 1e-3, 1e6):
        torch.testing.assert_close(cosines(a * size, b, coefficient, 2), expected)
        torch.testing.assert_close(cosines(a, b * size, coefficient / size, 2), expected)


def test_equal_and_opposite_experts() -> None:
    a, b, _ = factors(1, 1)
    result = cosines(a.repeat(3, 1), b.repeat(1, 3), torch.tensor([1.0, 0.5, -1.0]))
    torch.testing.assert_close(result, torch.tensor([[1, 1, -1], [1, 1, -1], [-1, -1, 1]], dtype=torch.float64))


@pytest.mark.parametrize("rank", [1, 2])
def test_new_experts_have_cosine_zero_with_others(rank: int) -> None:
    a, b, coefficient = factors(3, rank)
    assert torch.equal(cosines(a, b * 0, coefficient, rank), torch.eye(3, dtype=torch.float64))
    half = b.clone()
    half[:, :rank] = 0  # the first expert alone is fresh
    result = cosines(a, half, coefficient, rank)
    assert result[0].tolist() == result[:, 0].tolist() == [1, 0, 0]
    torch.testing.assert_close(result[1:, 1:], by_hand(a, b, coefficient, rank)[1:, 1:])


def test_means_leave_the_diagonal_out() -> None:
    matrix = torch.tensor([[1.0, 0.5, -0.25], [0.5, 1.0, 0.0], [-0.25, 0.0, 1.0]])
    assert off_diagonal_means(matrix) == (pytest.approx(0.25 / 3), pytest.approx(0.75 / 3))
    assert off_diagonal_means(torch.ones(1, 1)) == (None, None)
    assert off_diagonal_means(torch.zeros(0, 0)) == (None, None)


def test_statistics_of_a_network_have_one_entry_for_each_row(small_vit: Callable[..., VisionTransformer]) -> None:
    model = small_vit()
    plan = replace(allocation((3, 0, 1)), expert_rank=2)
    experts = inject(model, plan)
    fresh = similarity_stats(experts, epoch=0)
    assert fresh.signed == fresh.absolute == (0, None, None)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in experts.layers.values():
            layer.b.copy_(torch.randn(layer.b.shape, generator=rng))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stats = similarity_stats(experts, epoch=4)
    layer = experts.layers["blocks.0.attn.qkv"]
    expected = by_hand(layer.a.detach(), layer.b.detach(), layer.coefficient.detach(), 2)
    assert stats.epoch == 4
    assert [len(matrix) for matrix in stats.matrices] == [3, 0, 1]
    torch.testing.assert_close(torch.tensor(stats.matrices[0], dtype=torch.float64), expected, rtol=0, atol=1e-5)
    pairs = [expected[i, j].item() for i in range(3) for j in range(3) if i != j]
    assert stats.signed[0] == pytest.approx(sum(pairs) / 6)
    assert stats.absolute[0] == pytest.approx(sum(map(abs, pairs)) / 6)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_similarity_of_dense_rank_one_experts_is_the_product_of_two_cosines(
    small_vit: Callable[..., VisionTransformer],
) -> None:
    experts = inject(small_vit(), dense(3, 4))
    layer = experts.layers["blocks.1.attn.qkv"]
    a, b = layer.a.detach().double(), torch.randn(96, 4, generator=torch.Generator().manual_seed(1)).double()
    unit_a, unit_b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=0, keepdim=True)
    torch.testing.assert_close(cosines(a, b, torch.ones(4)), (unit_a @ unit_a.t()) * (unit_b.t() @ unit_b))


@pytest.mark.parametrize("rank", [1, 3])
def test_random_baseline_matches_random_experts(rank: int) -> None:
    """Compared with dense matrices of 200 layers of random experts, within three standard errors."""
    result, means = random_baseline_of(D_IN, D_OUT, 4, rank), []
    for seed in range(200):
        rng = torch.Generator().manual_seed(1000 + seed)
        a, b = torch.randn(4 * rank, D_IN, generator=rng), torch.randn(D_OUT, 4 * rank, generator=rng)
        means.append(off_diagonal_means(by_hand(a, b, torch.ones(4), rank))[1])
    sampled = torch.tensor(means)
    error = result.deviation * (1 / 200 + (1 / SAMPLES if rank > 1 else 0)) ** 0.5
    assert float(sampled.mean()) == pytest.approx(result.mean, abs=3 * error)
    assert float(sampled.std()) == pytest.approx(result.deviation, rel=0.5)
    assert random_baseline_of(D_IN, D_OUT, 4, rank) == result
    assert random_baseline_of(D_IN, D_OUT, 1, rank) is None


def test_similarity_stats_include_the_rank_of_each_row(small_vit: Callable[..., VisionTransformer]) -> None:
    experts = inject(small_vit(), replace(allocation((3, 0, 1)), expert_rank=2))
    assert similarity_stats(experts, 0).effective_rank == similarity_stats(experts, 0).stable_rank == (None,) * 3
    with torch.no_grad():
        for layer in experts.layers.values():
            layer.b.copy_(torch.randn(layer.b.shape, generator=torch.Generator().manual_seed(0)))
    stats = similarity_stats(experts, 1)
    values = torch.linalg.svdvals(experts.layers["blocks.0.attn.qkv"].delta().detach().double())[:6]
    share = values / values.sum()
    assert stats.effective_rank[0] == pytest.approx(float((-(share * share.log()).sum()).exp()), abs=1e-4)
    assert stats.stable_rank[0] == pytest.approx(float((values / values[0]).square().sum()), abs=1e-4)
    assert stats.effective_rank[1] is None
    assert 1 <= stats.stable_rank[2] <= stats.effective_rank[2] <= 2
