"""Dropout within the batch, a mask per token and dropped inputs, compared with explicit sums per token."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mlae_lab.core.patterns import dense, uniform
from mlae_lab.core.plan import MaskPlan
from mlae_lab.model.experts import MaskSampler, MLAELinear
from mlae_lab.model.inject import inject

D_IN, D_OUT, EXPERTS = 6, 4, 3
RATES = (0.5, 0.0, 0.25)


def layer(rank: int = 1, by_token: bool = True, input_dropout: float = 0.0, rates: tuple = RATES) -> MLAELinear:
    """A layer in float64 with random b and λ, in training mode and sampled for one step."""
    rng = torch.Generator().manual_seed(5)
    adapted = MLAELinear(
        nn.Linear(D_IN, D_OUT), (0, 1, 2), rates, rank, name="here", by_token=by_token, input_dropout=input_dropout
    )
    with torch.no_grad():
        for p in (adapted.b, adapted.coefficient):
            p.copy_(torch.randn(p.shape, generator=rng))
    adapted.mask, adapted.noise = torch.ones(EXPERTS, dtype=torch.float64), 11
    return adapted.double().train()


def draws(adapted: MLAELinear, tokens: int) -> tuple[Tensor, Tensor]:
    """What the layer samples: which inputs stay, (N, d_in), and the factor of each expert, (N, E)."""
    own = torch.Generator().manual_seed(adapted.noise)
    stay = torch.ones(tokens, D_IN, dtype=torch.float64)
    if adapted.input_dropout:
        stay = (torch.rand(tokens, D_IN, generator=own) >= adapted.input_dropout).double() / (1 - adapted.input_dropout)
    factor = torch.ones(tokens, EXPERTS, dtype=torch.float64)
    if adapted.by_token:
        rates = torch.tensor(adapted.drop_rate)
        factor = ((torch.rand(tokens, EXPERTS, generator=own) >= rates) / (1 - rates)).double()
    return stay, factor


def by_hand(x: Tensor, a: Tensor, b: Tensor, coefficient: Tensor, adapted: MLAELinear) -> Tensor:
    """Token by token and expert by expert."""
    stay, factor = draws(adapted, len(x))
    rows = []
    for n, token in enumerate(x):
        y = adapted.base.weight @ token + adapted.base.bias
        for i in range(EXPERTS):
            for r in range(i * adapted.rank, (i + 1) * adapted.rank):
                y = y + adapted.mask[i] * factor[n, i] * coefficient[i] * b[:, r] * (a[r] @ (stay[n] * token))
        rows.append(y)
    return torch.stack(rows)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize(("by_token", "input_dropout"), [(True, 0.0), (False, 0.4), (True, 0.4)])
def test_output_and_gradients_equal_explicit_sums(rank: int, by_token: bool, input_dropout: float) -> None:
    adapted = layer(rank, by_token, input_dropout)
    if not by_token:
        adapted.mask = torch.tensor([2.0, 0.0, 4 / 3], dtype=torch.float64)
    x = torch.randn(7, D_IN, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    onto = torch.randn(7, D_OUT, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    own = [x, adapted.a, adapted.b, adapted.coefficient]
    y = adapted(x)
    result = torch.autograd.grad((y * onto).sum(), own)
    copies = [t.detach().clone().requires_grad_() for t in own]
    expected = by_hand(*copies, adapted)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    for first, second in zip(result, torch.autograd.grad((expected * onto).sum(), copies), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-11, atol=1e-11)
    assert torch.equal(adapted(x), y)  # one step, one sample
    adapted.noise = 12
    assert not torch.equal(adapted(x), y)


@pytest.mark.parametrize(("by_token", "input_dropout"), [(True, 0.0), (False, 0.4), (True, 0.4)])
def test_mean_over_samples_equals_evaluation_output(by_token: bool, input_dropout: float) -> None:
    """400 rows of one token at 50 seeds: the mean lies within four standard errors of the output in eval mode."""
    adapted = layer(by_token=by_token, input_dropout=input_dropout, rates=RATES if by_token else (0.0,) * 3)
    x = torch.randn(1, D_IN, generator=torch.Generator().manual_seed(3), dtype=torch.float64).expand(400, D_IN)
    with torch.no_grad():
        outputs = []
        for adapted.noise in range(50):
            outputs.append(adapted(x))
        sampled = torch.cat(outputs)
        goal = adapted.eval()(x[:1])[0]
    error = (sampled.mean(0) - goal).abs() / (sampled.std(0) / len(sampled) ** 0.5)
    assert bool((sampled.std(0) > 0.01).all())
    assert float(error.max()) < 4


def test_without_rates_nothing_is_sampled_and_outputs_are_equal_bit_for_bit() -> None:
    adapted, plain = layer(rates=(0.0,) * 3).float(), layer(by_token=False, rates=(0.0,) * 3).float()
    adapted.mask = plain.mask = torch.ones(EXPERTS)
    plain.base = adapted.base
    x = torch.randn(5, D_IN, generator=torch.Generator().manual_seed(4))
    adapted.noise = None
    assert torch.equal(adapted(x), plain(x))


def test_step_without_sampling_raises() -> None:
    adapted = layer()
    adapted.noise = None
    with pytest.raises(RuntimeError, match="this step has no mask"):
        adapted(torch.zeros(2, D_IN, dtype=torch.float64))
    adapted.eval()(torch.zeros(2, D_IN, dtype=torch.float64))


def test_branch_keeps_16_bits_under_autocast() -> None:
    adapted = layer(input_dropout=0.2).float()
    adapted.mask = torch.ones(EXPERTS)
    x = torch.randn(64, D_IN, generator=torch.Generator().manual_seed(6))
    with torch.autocast("cpu", torch.bfloat16):
        y = adapted(x)
    assert y.dtype is torch.bfloat16
    assert float(((y.float() - adapted(x)).norm() / adapted(x).norm()).detach()) < 0.02


# ---------------------------------------------------------------- the sampler


PLAN = MaskPlan(((1, 1), (0, 1)), ((0.5, 0.9), (0, 0.9)), ("blocks.0.attn.qkv", "blocks.1.attn.qkv"))


def test_with_masks_per_token_every_expert_is_active_in_every_step() -> None:
    sampler = MaskSampler(PLAN, 3, "token")
    for _ in range(20):
        assert sampler.sample().tolist() == [[1, 1], [0, 1]]
    assert sampler.active_steps.tolist() == [[20, 20], [0, 20]]
    assert sampler.steps == 20


def test_the_seeds_within_a_batch_follow_from_the_state_of_the_mask_generators() -> None:
    """A checkpoint needs no other state, and masks per step are sampled as before."""
    token, step = MaskSampler(PLAN, 3, "token"), MaskSampler(PLAN, 3)
    outputs = []
    for _ in range(5):
        token.sample(), step.sample()
        assert token.noise == step.noise
        outputs += token.noise
    assert len(set(outputs)) == 10
    assert all(0 <= seed < 2**53 for seed in outputs)
    state = [own.get_state() for own in token.generators]
    token.sample()
    again = MaskSampler(PLAN, 99, "token")
    for own, kept in zip(again.generators, state, strict=True):
        own.set_state(kept)
    again.sample()
    assert again.noise == token.noise


def test_each_layer_and_step_samples_independently(small_vit: Callable[..., VisionTransformer]) -> None:
    experts = inject(small_vit(), uniform(0.5, 3, 2), mask_per="token", input_dropout=0.1)
    experts.sample()
    first = [adapted.noise for adapted in experts.layers.values()]
    experts.sample()
    second = [adapted.noise for adapted in experts.layers.values()]
    assert len({*first, *second}) == 6
    assert all(adapted.by_token and adapted.input_dropout == 0.1 for adapted in experts.layers.values())


def test_lora_is_the_dense_plan_with_lambda_left_at_one(small_vit: Callable[..., VisionTransformer]) -> None:
    plan = dataclasses.replace(dense(3, 2), train_coefficients=False)
    experts = inject(small_vit(), plan, input_dropout=0.1)
    assert not any(adapted.coefficient.requires_grad for adapted in experts.layers.values())
    torch.testing.assert_close(
        (adapted := experts.layers["blocks.0.attn.qkv"]).delta(), adapted.b @ adapted.a, rtol=0, atol=0
    )
    assert dataclasses.replace(plan, train_coefficients=True) == dense(3, 2)
