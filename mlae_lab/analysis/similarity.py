"""Cosine similarity between the experts of a layer (paper, appendix A.4), from the factors alone.

    cos(λ_i B_i A_i, λ_j B_j A_j) = sign(λ_i λ_j) ⟨B_iA_i, B_jA_j⟩ / (‖B_iA_i‖ ‖B_jA_j‖)
    ⟨B_iA_i, B_jA_j⟩ = Σ (B_iᵀ B_j) ∘ (A_i A_jᵀ)

so no d_out x d_in matrix is built: two Gram matrices of size E k, summed over k x k blocks.
"""

from __future__ import annotations

import torch

from mlae_lab.analysis.spectrum import effective_rank, spectrum, stable_rank
from mlae_lab.core.events import SimilarityStats
from mlae_lab.core.random_baseline import RandomBaseline, random_experts
from mlae_lab.model.inject import Experts


@torch.no_grad()
def cosines(a: torch.Tensor, b: torch.Tensor, coefficient: torch.Tensor, rank: int = 1) -> torch.Tensor:
    """Cosine between all pairs of experts, (E, E) float64.

    An expert of norm 0 (a new one) has cosine 0 with every other and 1 with itself.

    Args:
        a: (E k, d_in).
        b: (d_out, E k).
        coefficient: (E,).
        rank: k.
    """
    a, b = a.double(), b.double()
    experts = coefficient.numel()
    gram = (a @ a.t()) * (b.t() @ b)
    gram = gram.reshape(experts, rank, experts, rank).sum((1, 3))
    norm = gram.diagonal().clamp_min(0).sqrt()
    scale = torch.where(norm > 0, coefficient.double().sign() / norm.clamp_min(1e-300), 0.0)
    cosine = (gram * scale[:, None] * scale[None, :]).clamp(-1, 1)
    return cosine.fill_diagonal_(1.0)


def off_diagonal_means(cosine: torch.Tensor) -> tuple[float | None, float | None]:
    """(signed, absolute) mean over the pairs i ≠ j; (None, None) for fewer than two experts."""
    experts = len(cosine)
    if experts < 2:
        return None, None
    pairs = experts * (experts - 1)
    return (
        float((cosine.sum() - cosine.trace()) / pairs),
        float((cosine.abs().sum() - cosine.diagonal().abs().sum()) / pairs),
    )


SAMPLES = 24


def random_baseline_of(d_in: int, d_out: int, experts: int, rank: int = 1) -> RandomBaseline | None:
    """Mean |cosine| of random experts of these shapes over the pairs of a layer; None for fewer than two experts.

    Rank 1 in closed form (`core.random_baseline`); a higher rank from 24 layers of Gaussian factors with a fixed seed.
    """
    if rank == 1 or experts < 2:
        return random_experts(d_in, d_out, experts)
    generator = torch.Generator().manual_seed(0)
    means = []
    for _ in range(SAMPLES):
        a = torch.randn(experts * rank, d_in, generator=generator)
        b = torch.randn(d_out, experts * rank, generator=generator)
        means.append(off_diagonal_means(cosines(a, b, torch.ones(experts), rank))[1])
    values = torch.tensor(means, dtype=torch.float64)
    return RandomBaseline(float(values.mean()), float(values.std()))


def similarity_stats(experts: Experts, epoch: int) -> SimilarityStats:
    """Current similarity of every row of a plan, and the rank of its ΔW."""
    signed, absolute, matrices, effective, stable = [], [], [], [], []
    for target in experts.plan.targets:
        layer = experts.layers.get(target)
        factors = (layer.a.cpu(), layer.b.cpu(), layer.coefficient.cpu(), layer.rank) if layer else None
        matrix = cosines(*factors) if factors else torch.zeros(0, 0)
        values = spectrum(*factors).values if factors else torch.zeros(0)
        means = off_diagonal_means(matrix)
        signed.append(means[0])
        absolute.append(means[1])
        matrices.append(tuple(tuple(round(v, 5) for v in row) for row in matrix.tolist()))
        effective.append(_rounded(effective_rank(values)))
        stable.append(_rounded(stable_rank(values)))
    return SimilarityStats(epoch, tuple(signed), tuple(absolute), tuple(matrices), tuple(effective), tuple(stable))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)
