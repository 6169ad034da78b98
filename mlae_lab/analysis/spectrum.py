"""Properties of ΔW that do not depend on its division into experts: its spectrum, its rank, its row and column spaces.

    ΔW = (B λ) A = Q_b (R_b R_aᵀ) Q_aᵀ        Q_a R_a = Aᵀ,  Q_b R_b = B λ

The r x r core R_b R_aᵀ has the singular values of ΔW, and its singular vectors, multiplied by Q_b and Q_a, are those of
ΔW. So nothing of size d_out x d_in is built. The rank-1 parts of a product are arbitrary, BA = (BR)(R⁻¹A), and so are
their cosines (the paper, A.4, compares only the parts); what is computed here is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

SMALLEST = 1e-6  # a singular value below this share of the largest is rounding error and has no direction


@dataclass(frozen=True)
class Spectrum:
    """Singular value decomposition of one layer's ΔW in float64.

    Attributes:
        values: (r,) singular values in descending order, those above `SMALLEST` times the first.
        left: (d_out, r), orthonormal basis of the column space.
        right: (d_in, r), orthonormal basis of the row space.
    """

    values: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor


@torch.no_grad()
def spectrum(a: torch.Tensor, b: torch.Tensor, coefficient: torch.Tensor, rank: int = 1) -> Spectrum:
    """Singular values and spaces of ΔW; r is 0 for ΔW = 0.

    Args:
        a: (E k, d_in).
        b: (d_out, E k).
        coefficient: (E,).
        rank: k.
    """
    scaled = b.double() * coefficient.double().repeat_interleave(rank)
    right, of_a = torch.linalg.qr(a.double().t())
    left, of_b = torch.linalg.qr(scaled)
    u, values, vt = torch.linalg.svd(of_b @ of_a.t())
    count = int((values > SMALLEST * values[:1].clamp_min(torch.finfo(torch.float64).tiny)).sum())
    return Spectrum(values[:count], left @ u[:, :count], right @ vt[:count].t())


def effective_rank(values: torch.Tensor) -> float | None:
    """exp(−Σ p ln p) with p = σ / Σσ (Roy and Vetterli, 2007), from the singular values (r,); None for r = 0.

    It is r if all are equal, and 1 if all but one are 0.
    """
    if not len(values):
        return None
    share = values.double() / values.sum()
    return float(torch.exp(-torch.xlogy(share, share).sum()))


def stable_rank(values: torch.Tensor) -> float | None:
    """‖ΔW‖_F² / σ₁² from 1 to r, from the singular values (r,) in descending order; None for r = 0."""
    if not len(values):
        return None
    return float((values / values[0]).square().sum())


def overlap(first: torch.Tensor, second: torch.Tensor) -> float | None:
    """Mean squared cosine of the principal angles between two spaces, ‖UᵀV‖_F² / min(r, s), in [0, 1].

    1 means that the smaller space lies within the larger; random spaces have an expected value of max(r, s) / d. None
    if either is empty.

    Args:
        first: (d, r), orthonormal columns.
        second: (d, s), orthonormal columns.
    """
    smaller = min(first.shape[1], second.shape[1])
    return float((first.t() @ second).square().sum() / smaller) if smaller else None


def overlaps(spaces: Sequence[torch.Tensor], others: Sequence[torch.Tensor] | None = None) -> list[list[float | None]]:
    """`overlap` of every space with every other; None where one is empty or their dimensions d_l differ.

    Args:
        spaces: (d_l, r_l) each, orthonormal columns.
        others: likewise, by default the spaces themselves.
    """
    return [
        [overlap(first, second) if first.shape[0] == second.shape[0] else None for second in others or spaces]
        for first in spaces
    ]
