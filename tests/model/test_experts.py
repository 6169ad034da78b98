"""MLAELinear and MaskSampler, compared with the method as explicit sums."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mlae_lab.core.patterns import allocation, dense, pattern, uniform
from mlae_lab.core.plan import MaskPlan, block_targets
from mlae_lab.model.experts import MaskedLinear, MaskSampler, MLAELinear, experts_off, stream

SHAPES = [(6,), (5, 6), (2, 3, 6)]  # the last axis is d_in = 6
D_IN, D_OUT = 6, 4


def by_hand(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, coefficient: Tensor, mask: Tensor, rank: int
) -> Tensor:
    """y = (W + Σ_i m_i λ_i Σ_r b_ir a_irᵀ) x + bias: the dense matrix, one outer product after the other."""
    matrix = weight
    for i in range(len(coefficient)):
        for r in range(rank):
            matrix = matrix + mask[i] * coefficient[i] * torch.outer(b[:, i * rank + r], a[i * rank + r])
    rows = []
    for token in x.reshape(-1, x.shape[-1]):
        y = matrix.mv(token)
        rows.append(y if bias is None else y + bias)
    return torch.stack(rows).reshape(*x.shape[:-1], len(weight))


def make_layer(
    experts: int = 3, rank: int = 1, rates: tuple[float, ...] | None = None, bias: bool = True, seed: int = 0
) -> MLAELinear:
    """A layer with random b and λ, in training mode and without a mask."""
    numbers = torch.Generator().manual_seed(seed)
    base = nn.Linear(D_IN, D_OUT, bias=bias)
    layer = MLAELinear(base, tuple(range(experts)), rates or (0.5,) * experts, rank, seed=seed, name="here")
    with torch.no_grad():
        for p in (*base.parameters(), layer.b, layer.coefficient):
            p.copy_(torch.randn(p.shape, generator=numbers))
    return layer.train()


def numbers(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---------------------------------------------------------------- the formula


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("mask", [[1.0, 1.0, 1.0], [2.0, 0.0, 1.25], [0.0, 0.0, 0.0]])
@pytest.mark.parametrize("bias", [True, False])
def test_forward_and_gradients_equal_the_formula(shape: tuple, rank: int, mask: list[float], bias: bool) -> None:
    """Output and the gradients of x, a, b and λ, in float64 for a strict comparison."""
    layer = make_layer(3, rank, bias=bias).double()
    layer.mask = torch.tensor(mask, dtype=torch.float64)
    x, onto = numbers(*shape).requires_grad_(), numbers(*shape[:-1], D_OUT, seed=2)
    own = [x, layer.a, layer.b, layer.coefficient]
    y = layer(x)
    result = torch.autograd.grad((y * onto).sum(), own)

    copies = [t.detach().clone().requires_grad_() for t in own]
    expected = by_hand(copies[0], layer.base.weight, layer.base.bias, copies[1], copies[2], copies[3], layer.mask, rank)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    for value, second in zip(result, torch.autograd.grad((expected * onto).sum(), copies), strict=True):
        torch.testing.assert_close(value, second, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("mask", [[1.0, 1.0, 1.0], [2.0, 0.0, 1.25]])
@pytest.mark.parametrize("bias", [True, False])
def test_float32_path_equals_the_formula(shape: tuple, rank: int, mask: list[float], bias: bool) -> None:
    """float32 uses W + ΔW with its own backward pass: it is compared with the float64 formula."""
    layer = make_layer(3, rank, bias=bias)
    layer.mask = torch.tensor(mask)
    x, onto = numbers(*shape, dtype=torch.float32).requires_grad_(), numbers(*shape[:-1], D_OUT, seed=2)
    own = [x, layer.a, layer.b, layer.coefficient]
    y = layer(x)
    result = torch.autograd.grad((y * onto.float()).sum(), own)

    copies = [t.detach().double().requires_grad_() for t in own]
    weight, bias_ = layer.base.weight.double(), None if layer.base.bias is None else layer.base.bias.double()
    expected = by_hand(copies[0], weight, bias_, copies[1], copies[2], copies[3], layer.mask.double(), rank)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    for value, second in zip(result, torch.autograd.grad((expected * onto).sum(), copies), strict=True):
        torch.testing.assert_close(value.double(), second, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_backward_pass_passes_gradcheck(shape: tuple, bias: bool) -> None:
    x, a, b, scale = (numbers(*s, seed=i).requires_grad_() for i, s in enumerate((shape, (3, D_IN), (D_OUT, 3), (3,))))
    weight, offset = numbers(D_OUT, D_IN, seed=9), numbers(D_OUT, seed=10) if bias else None
    assert torch.autograd.gradcheck(lambda *own: MaskedLinear.apply(own[0], weight, offset, *own[1:]), (x, a, b, scale))


def test_gradients_of_a_and_b_without_gradients_of_x_and_lambda() -> None:
    """The first adapted layer gets an x without gradient, and a plan may freeze λ."""
    layer = make_layer()
    layer.coefficient.requires_grad_(False)
    layer.mask = torch.ones(3)
    layer(numbers(5, D_IN, dtype=torch.float32)).sum().backward()
    assert layer.coefficient.grad is None
    assert layer.a.grad is not None
    assert layer.b.grad is not None
    assert layer.base.weight.grad is None
    assert layer.base.bias.grad is None


@pytest.mark.parametrize("rank", [1, 2])
def test_bfloat16_autocast_is_close_to_the_formula(rank: int) -> None:
    layer = make_layer(3, rank)
    layer.mask = torch.tensor([2.0, 0.0, 2.0])
    x, onto = numbers(64, D_IN, dtype=torch.float32).requires_grad_(), numbers(64, D_OUT, seed=2)
    own = [x, layer.a, layer.b, layer.coefficient]
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype is torch.bfloat16
    result = torch.autograd.grad((y.float() * onto.float()).sum(), own)
    copies = [t.detach().double().requires_grad_() for t in own]
    expected = by_hand(
        copies[0], layer.base.weight.double(), layer.base.bias.double(), *copies[1:], layer.mask.double(), rank
    )
    pairs = zip((y, *result), (expected, *torch.autograd.grad((expected * onto).sum(), copies)), strict=True)
    for value, second in pairs:
        assert (value.double() - second).norm() < 0.02 * second.norm()


def test_delta_is_the_unmasked_sum_over_experts() -> None:
    layer = make_layer(3, 2)
    layer.mask = torch.zeros(3)
    zero, ones = torch.zeros(D_OUT, D_IN, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    unit = torch.eye(D_IN, dtype=torch.float64)
    own = [t.detach().double() for t in (layer.a, layer.b, layer.coefficient)]
    torch.testing.assert_close(
        layer.delta().double(), by_hand(unit, zero, None, *own, ones, 2).t(), rtol=1e-5, atol=1e-6
    )


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("on", [(), (1,), (0, 2), (0, 1, 2)])
def test_experts_off_equals_zeroed_coefficients_and_writes_nothing(on: tuple, rank: int, dtype: torch.dtype) -> None:
    layer, zeroed = (make_layer(rank=rank, seed=3).eval() for _ in range(2))
    zeroed.coefficient[[i for i in range(3) if i not in on]] = 0
    for module in (layer.base, zeroed.base):
        module.to(dtype)
    x = numbers(5, D_IN, dtype=dtype)
    output, version = layer(x), layer.coefficient._version
    with experts_off({"here": layer}, {"here": on}):
        assert torch.equal(layer(x), zeroed(x))
        assert torch.equal(layer.coefficient, make_layer(rank=rank, seed=3).coefficient)
    assert torch.equal(layer(x), output)
    with pytest.raises(RuntimeError), experts_off({"here": layer}):
        layer(x[:, :-1])
    assert torch.equal(layer(x), output)
    assert layer.coefficient._version == version


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("autocast", [False, True])
def test_dropped_experts_get_zero_gradient_and_active_ones_do_not(rank: int, autocast: bool) -> None:
    layer = make_layer(4, rank)
    layer.mask = torch.tensor([0.0, 2.0, 0.0, 2.0])
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        layer(numbers(16, D_IN, dtype=torch.float32)).float().square().sum().backward()
    for expert in range(4):
        part = slice(expert * rank, (expert + 1) * rank)
        gradients = (layer.a.grad[part], layer.b.grad[:, part], layer.coefficient.grad[expert])
        for gradient in gradients:
            assert bool((gradient == 0).all()) if expert in (0, 2) else bool((gradient != 0).any())


def test_dropped_experts_add_exactly_zero() -> None:
    layer, x = make_layer(2), numbers(16, D_IN, dtype=torch.float32)
    layer.mask = torch.tensor([0.0, 0.0])
    assert torch.equal(layer(x), layer.base(x))


def test_active_experts_are_rescaled_by_the_keep_rate() -> None:
    rates = (0.0, 0.5, 0.75, 0.9)
    plan = MaskPlan(((1, 1, 1, 1),), (rates,), ("here",))
    layer = make_layer(4, rates=rates)
    sampler = MaskSampler(plan, seed=3)
    seen = [set(), set(), set(), set()]
    for _ in range(200):
        layer.mask = sampler.sample()[0]
        for expert, factor in enumerate((layer.scale() / layer.coefficient).tolist()):
            seen[expert].add(round(factor, 4))
    assert seen == [{1.0}, {0.0, 2.0}, {0.0, 4.0}, {0.0, 10.0}]


@pytest.mark.parametrize("rank", [1, 2])
def test_all_experts_are_on_and_unscaled_in_evaluation(rank: int) -> None:
    layer = make_layer(3, rank).eval()
    for mask in (None, torch.zeros(3), torch.full((3,), 2.0)):
        layer.mask = mask
        assert torch.equal(layer.scale(), layer.coefficient.repeat_interleave(rank))


def test_mean_training_output_equals_evaluation_output() -> None:
    """Over all 2^3 masks with their probabilities, the factors 1/(1-p) make it exact (the layer is linear in m)."""
    rates = (0.5, 0.25, 0.9)
    layer, x = make_layer(3, rates=rates).double(), numbers(4, D_IN)
    mean = torch.zeros(4, D_OUT, dtype=torch.float64)
    for bits in range(8):
        alive = [bool(bits >> i & 1) for i in range(3)]
        chance = 1.0
        for on, p in zip(alive, rates, strict=True):
            chance *= 1 - p if on else p
        layer.mask = torch.tensor([on / (1 - p) for on, p in zip(alive, rates, strict=True)], dtype=torch.float64)
        mean += chance * layer(x).detach()
    torch.testing.assert_close(mean, layer.eval()(x).detach())


def test_training_step_without_mask_raises() -> None:
    layer = make_layer(2)
    with pytest.raises(RuntimeError, match=r"this step has no mask: call MaskSampler.sample"):
        layer(numbers(2, D_IN, dtype=torch.float32))
    layer.eval()(numbers(2, D_IN, dtype=torch.float32))


def test_no_mask_is_needed_without_drop_rates() -> None:
    layer, x = make_layer(2, rates=(0.0, 0.0)), numbers(2, D_IN, dtype=torch.float32)
    assert torch.equal(layer(x), layer.eval()(x))


# ---------------------------------------------------------------- initial values


def test_new_layer_equals_the_frozen_layer_bit_for_bit() -> None:
    base = nn.Linear(D_IN, D_OUT)
    layer, x = MLAELinear(base, (0, 5), (0.5, 0.0), rank=2), numbers(32, D_IN, dtype=torch.float32)
    assert torch.equal(layer.eval()(x), base(x))
    layer.train().mask = torch.tensor([2.0, 1.0])
    assert torch.equal(layer(x), base(x))


def test_parameters_are_those_of_existing_experts_only() -> None:
    layer = MLAELinear(nn.Linear(D_IN, D_OUT), (2, 7, 11), (0.0,) * 3, rank=4, coefficient_init=0.25)
    assert layer.a.shape == (12, D_IN)
    assert layer.b.shape == (D_OUT, 12)
    assert layer.coefficient.tolist() == [0.25] * 3
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == {"a", "b", "coefficient"}
    frozen = MLAELinear(nn.Linear(D_IN, D_OUT), (0,), (0.0,), train_coefficients=False)
    assert {name for name, p in frozen.named_parameters() if p.requires_grad} == {"a", "b"}
    assert (layer.in_features, layer.out_features) == (D_IN, D_OUT)


def test_initial_a_is_uniform_within_the_bound() -> None:
    layer = MLAELinear(nn.Linear(768, 4), tuple(range(16)), (0.0,) * 16)
    bound = 768**-0.5
    assert float(layer.a.detach().abs().max()) <= bound
    assert float(layer.a.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.02)  # 12,288 numbers: 0.6 % expected
    assert float(layer.a.detach().mean()) == pytest.approx(0, abs=4 * bound / 3**0.5 / 12_288**0.5)


def test_initial_experts_are_equal_where_cells_of_two_plans_coincide() -> None:
    def start(columns: tuple[int, ...], seed: int = 0, name: str = "blocks.0.attn.qkv") -> dict[int, Tensor]:
        layer = MLAELinear(nn.Linear(D_IN, D_OUT), columns, (0.0,) * len(columns), seed=seed, name=name)
        return dict(zip(columns, layer.a.detach(), strict=True))

    wide, holed = start((0, 1, 2, 3)), start((3, 1))
    assert torch.equal(wide[1], holed[1])
    assert torch.equal(wide[3], holed[3])
    assert not torch.equal(wide[0], wide[1])
    assert not torch.equal(wide[0], start((0,), seed=1)[0])
    assert not torch.equal(wide[0], start((0,), name="blocks.1.attn.qkv")[0])


def test_streams_depend_only_on_seed_and_names() -> None:
    def first(generator: torch.Generator) -> float:
        return float(torch.rand(1, generator=generator))

    torch.manual_seed(1)
    value = first(stream(0, "a", "x", 1))
    torch.manual_seed(2)
    assert first(stream(0, "a", "x", 1)) == value
    others = [
        first(stream(0, "a", "x", 2)),
        first(stream(1, "a", "x", 1)),
        first(stream(0, "mask")),
        first(stream(0, "ax", 1)),
    ]
    assert len({value, *others}) == 5


def test_layer_and_sampler_leave_the_global_generator_unchanged() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    base = nn.Linear(D_IN, D_OUT)
    torch.manual_seed(7)
    MLAELinear(base, (0, 1), (0.5, 0.5))
    MaskSampler(uniform(0.5), 0).sample()
    assert torch.equal(torch.rand(3), expected)


# ---------------------------------------------------------------- the sequence of masks


def draws(plan: MaskPlan, seed: int = 0, steps: int = 50) -> Tensor:
    sampler = MaskSampler(plan, seed)
    return torch.stack([sampler.sample() for _ in range(steps)])


def test_factors_are_zero_or_one_over_the_keep_rate() -> None:
    plan = MaskPlan(((1, 0, 1), (1, 1, 1)), ((0.25, 0.9, 0.0), (0.5, 0.5, 0.8)), block_targets(2))
    result = draws(plan, steps=300)
    assert result.shape == (300, 2, 3)
    assert result.dtype is torch.float32
    for row in range(2):
        for column in range(3):
            values = {round(v, 5) for v in result[:, row, column].tolist()}
            p = plan.drop_rate[row][column]
            expected = {0.0} if not plan.keep[row][column] else {1.0} if p == 0 else {0.0, round(1 / (1 - p), 5)}
            assert values == expected


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.7, 0.9, 0.9999])
def test_share_of_active_experts_is_the_keep_rate(rate: float) -> None:
    """Within three standard deviations of 96 x 500 independent samples; the mean factor is 1."""
    result = draws(uniform(rate), seed=11, steps=500)
    share = float((result > 0).double().mean())
    deviation = (rate * (1 - rate) / result.numel()) ** 0.5
    assert abs(share - (1 - rate)) < 3 * deviation


def test_each_layer_of_a_pattern_is_sampled_at_its_own_rate() -> None:
    plan = pattern("incremental", "stochastic")
    result = (draws(plan, seed=5, steps=1000) > 0).double().mean(dim=(0, 2))
    for share, rate in zip(result.tolist(), plan.row_rates(), strict=True):
        assert abs(share - (1 - rate)) <= 3 * (rate * (1 - rate) / 8000) ** 0.5


def test_cells_are_dropped_independently() -> None:
    alive = (draws(uniform(0.5, layers=2, experts=4), steps=4000) > 0).double().reshape(4000, 8)
    correlation = torch.corrcoef(alive.t()) - torch.eye(8)
    assert float(correlation.abs().max()) < 4 / 4000**0.5


def test_sampler_counts_active_steps() -> None:
    sampler = MaskSampler(pattern("random", "mixed"), 0)
    total = torch.zeros(12, 14)
    for _ in range(40):
        total += sampler.sample() > 0
    assert sampler.steps == 40
    assert torch.equal(sampler.active_steps, total.long())


def test_mask_sequence_follows_from_the_seed() -> None:
    assert torch.equal(draws(uniform(0.5), 3), draws(uniform(0.5), 3))
    assert not torch.equal(draws(uniform(0.5), 3), draws(uniform(0.5), 4))


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: dataclasses.replace(plan, expert_rank=4, coefficient_init=0.5, train_coefficients=False),
        lambda plan: dataclasses.replace(plan, targets=block_targets(12, "mlp.fc1")),
        lambda plan: uniform(0.5, experts=4),
        lambda plan: uniform(0.5, experts=16),
        lambda plan: allocation((2, 2, 2, 6, 6, 6, 10, 10, 10, 14, 14, 0), drop_rate=0.5),
    ],
)
def test_plans_with_one_seed_share_the_mask_sequence_cell_by_cell(change: Callable[[MaskPlan], MaskPlan]) -> None:
    first, second = uniform(0.5), change(uniform(0.5))
    width = min(first.columns, second.columns)
    shared = torch.tensor(first.keep)[:, :width] & torch.tensor(second.keep)[:, :width]
    a, b = draws(first)[:, :, :width], draws(second)[:, :, :width]
    assert torch.equal(a[:, shared], b[:, shared])
    assert int(shared.sum()) >= 12


def test_experts_kept_at_a_higher_rate_are_kept_at_a_lower_rate() -> None:
    low, high = draws(uniform(0.3)) > 0, draws(pattern("decremental", "stochastic").with_rates((0.8,) * 12)) > 0
    assert bool((low | ~high).all())
    assert int(low.sum()) > int(high.sum()) > 0


def test_additional_rows_do_not_change_the_masks_of_others() -> None:
    """Twelve blocks alone, and the same twelve with a second module of each: "whatever else differs"."""
    value = uniform(0.5)
    two = MaskPlan(value.keep * 2, value.drop_rate * 2, value.targets + block_targets(12, "attn.proj"))
    assert torch.equal(draws(value), draws(two)[:, :12])


def test_dense_plan_activates_every_expert() -> None:
    assert bool((draws(dense(), steps=3) == 1).all())
