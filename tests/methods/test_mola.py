"""MoLA: routing token by token, the counts of its patterns, and the balance loss."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mlae_lab.core import catalog
from mlae_lab.methods.adapter import Noise
from mlae_lab.methods.mola import PATTERNS, MoLA, experts
from mlae_lab.methods.mola.layers import RoutedExperts

VIT_B16 = catalog.backbone("vit_base_patch16_224.orig_in21k")


def routed(number: int, method: MoLA, d_in: int = 5, d_out: int = 6) -> RoutedExperts:
    own = RoutedExperts(nn.Linear(d_in, d_out), number, method, Noise(0), torch.Generator().manual_seed(0))
    with torch.no_grad():
        own.b.normal_(generator=torch.Generator().manual_seed(1))
    return own.eval()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_digit_for_each_quarter_of_the_blocks(pattern: str) -> None:
    assert experts(pattern, 12) == tuple(int(digit) for digit in pattern for _ in range(3))
    total = 3 * sum(map(int, pattern))
    assert MoLA(pattern=pattern).parameters(VIT_B16) == total * 8 * (768 + 2304) + total * 768
    assert experts(pattern, 4) == tuple(map(int, pattern))


@torch.no_grad()
def test_each_token_gets_its_two_best_experts() -> None:
    """y = (α/r) Σ over the two largest router outputs, with the softmax over those two."""
    own = routed(4, MoLA(rank=3, alpha=6.0))
    x = torch.randn(2, 7, 5)
    for token, y in zip(x.flatten(0, 1), own(x).flatten(0, 1), strict=True):
        logits = own.router @ token
        best = logits.topk(2).indices
        gates = logits[best].softmax(0)
        expected = sum(
            gate * 2.0 * own.b[:, 3 * i : 3 * i + 3] @ own.a[3 * i : 3 * i + 3] @ token
            for gate, i in zip(gates, best.tolist(), strict=True)
        )
        assert torch.allclose(y, torch.as_tensor(expected), atol=1e-5)


def test_the_balance_is_one_where_experts_share_equally() -> None:
    own = routed(4, MoLA()).train()
    with torch.no_grad():
        own.router.copy_(torch.eye(4, 5))
    x = torch.zeros(4, 5)
    for token in range(4):  # each expert is first once and second once
        x[token, token], x[token, (token + 1) % 4] = 2.0, 1.0
    own(x)
    assert own.balance is not None
    assert own.shares is not None
    assert own.shares.tolist() == [0.25] * 4
    assert own.balance.item() == pytest.approx(1.0)
    own(torch.ones(3, 1) * x[:1])
    assert own.balance.item() > 1.2
    own.balance.backward()
    assert own.router.grad is not None
    assert own.router.grad.any()
