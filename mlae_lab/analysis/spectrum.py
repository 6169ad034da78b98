"""What ΔW is, however it is cut into experts: its spectrum, its rank, the spaces it reads and writes.

    ΔW = (B λ) A = Q_b (R_b R_aᵀ) Q_aᵀ        Q_a R_a = Aᵀ,  Q_b R_b = B λ

The r x r core R_b R_aᵀ has the singular values of ΔW, and its singular vectors, turned by Q_b and Q_a, are ΔW's. So
nothing of size d_out x d_in is ever built. Rank-1 parts can be chosen at will, BA = (BR)(R⁻¹A), and with them their
cosines; what is here cannot (paper, A.4 compares the parts only).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

SMALLEST = 1e-6  # a singular value below this share of the largest is rounding: it has no direction


@dataclass(frozen=True)
class Spectrum:
    """ΔW of one layer in float64. values: (r,) singular values, falling, those above `SMALLEST` of the first.
    left: (d_out, r) and right: (d_in, r), orthonormal: what it writes into and what it reads from."""

    values: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor


@torch.no_grad()
def spectrum(a: torch.Tensor, b: torch.Tensor, coefficient: torch.Tensor, rank: int = 1) -> Spectrum:
    """Singular values and spaces of ΔW. a: (E k, d_in), b: (d_out, E k), coefficient: (E,). r is 0 for ΔW = 0."""
    scaled = b.double() * coefficient.double().repeat_interleave(rank)
    right, of_a = torch.linalg.qr(a.double().t())
    left, of_b = torch.linalg.qr(scaled)
    u, values, vt = torch.linalg.svd(of_b @ of_a.t())
    there = values > SMALLEST * values[:1].clamp_min(torch.finfo(torch.float64).tiny)
    count = int(there.sum())
    return Spectrum(values[:count], left @ u[:, :count], right @ vt[:count].t())


def effective_rank(values: torch.Tensor) -> float | None:
    """exp(−Σ p ln p) with p = σ / Σσ, from 1 to the number of σ (Roy and Vetterli, 2007); None without any.

    values: (r,) singular values. It is r where all are equal, and 1 where one has all the weight.
    """
    if not len(values):
        return None
    share = values.double() / values.sum()
    return float(torch.exp(-torch.xlogy(share, share).sum()))


def stable_rank(values: torch.Tensor) -> float | None:
    """‖ΔW‖_F² / σ₁², from 1 to the number of σ; None without any. Small σ hardly count. values: (r,), falling."""
    if not len(values):
        return None
    return float((values / values[0]).square().sum())


def overlap(one: torch.Tensor, other: torch.Tensor) -> float | None:
    """Mean squared cosine of the principal angles between two spaces, ‖UᵀV‖_F² / min(r, s), in [0, 1].

    one: (d, r), other: (d, s), orthonormal columns. 1: the smaller lies within the larger. Two random spaces have
    max(r, s) / d in the mean. None if either is empty.
    """
    least = min(one.shape[1], other.shape[1])
    return float((one.t() @ other).square().sum() / least) if least else None


def overlaps(spaces: Sequence[torch.Tensor], others: Sequence[torch.Tensor] | None = None) -> list[list[float | None]]:
    """`overlap` of every space with every other: None where one is empty or they lie in spaces of another size.

    spaces, others: (d_l, r_l) each, orthonormal columns; others None: with themselves.
    """
    return [
        [overlap(one, other) if one.shape[0] == other.shape[0] else None for other in others or spaces]
        for one in spaces
    ]
