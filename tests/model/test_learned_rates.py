"""Drop rates that are trained: relaxed masks, their gradient, the entropy and what experts learn with it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from mlae_lab.core.plan import MaskPlan
from mlae_lab.methods.adapter import Adapter, attach
from mlae_lab.methods.mlae import MLAE
from mlae_lab.model import experts as module
from mlae_lab.model.experts import LEARNED_RATES, TEMPERATURE, MaskSampler, relaxed_factors
from mlae_lab.model.inject import Experts, inject, merge

D_IN, D_OUT, IMAGES = 8, 4, 200
PLAN = MaskPlan(((1, 1, 1, 1, 0),), ((0.3, 0.3, 0.3, 0.3, 0),), ("0",))


def logits(*rates: float) -> Tensor:
    return torch.logit(torch.tensor(rates, dtype=torch.float64)).requires_grad_()


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def uniforms(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def loss_of(factors: Tensor) -> Tensor:
    """The squared error of a layer with three experts, for each line of factors: (..., 3) -> (...)."""
    a, b, x, y = (numbers(*shape, seed=i).double() for i, shape in enumerate([(3, 5), (4, 3), (7, 5), (7, 4)]))
    outputs = torch.einsum("oi,...i,id,nd->...no", b, factors, a, x)
    return (outputs - y).square().mean((-1, -2))


# ---------------------------------------------------------------- relaxed masks


def test_the_gradient_of_relaxed_masks_equals_finite_differences() -> None:
    logit = logits(0.2, 0.5, 0.8)
    uniform_numbers = torch.tensor([[0.21, 0.47, 0.83], [0.18, 0.52, 0.7]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda value: loss_of(relaxed_factors(uniform_numbers, value)).mean(), (logit,))


@pytest.mark.parametrize(("temperature", "low"), [(TEMPERATURE, 0.88), (0.02, 0.97)])
def test_the_mean_gradient_is_that_of_the_sampled_masks(
    temperature: float, low: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient of E[loss] over all eight masks of {0, 1/(1-p)}, which REINFORCE estimates, from relaxed ones.

    Relaxed masks vary less, so the estimate is some 9 % too small, and less so at a lower temperature.
    """
    monkeypatch.setattr(module, "TEMPERATURE", temperature)
    logit = logits(0.3, 0.5, 0.6)
    rates = logit.sigmoid()
    expected = torch.zeros((), dtype=torch.float64)
    for mask in itertools.product((0.0, 1.0), repeat=3):
        on = torch.tensor(mask, dtype=torch.float64)
        expected = expected + (on * (1 - rates) + (1 - on) * rates).prod() * loss_of(on / (1 - rates))
    exact = torch.autograd.grad(expected, logit)[0]
    relaxed = torch.autograd.grad(loss_of(relaxed_factors(uniforms(200_000, 3), logit)).mean(), logit)[0]
    assert (exact > 0).all(), "dropping more does not help the training loss"
    ratio = relaxed / exact
    assert low < float(ratio.min()) <= float(ratio.max()) < 1.02


@pytest.mark.parametrize("rate", [*LEARNED_RATES, 0.1, 0.5])
def test_relaxed_masks_keep_the_mean_and_drop_at_their_rate(rate: float) -> None:
    """An even grid in place of random numbers: the integral over u."""
    grid = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    factors = relaxed_factors(grid, logits(rate).detach())
    assert float(factors.mean()) == pytest.approx(1, abs=0.017)
    assert float((factors < 0.5 / (1 - rate)).double().mean()) == pytest.approx(rate, abs=1e-4)
    assert TEMPERATURE == 0.1


def test_u_of_zero_gives_a_finite_gradient() -> None:
    logit = logits(0.5)
    relaxed_factors(torch.zeros(1), logit).sum().backward()
    assert logit.grad is not None
    assert torch.isfinite(logit.grad).all()


# ---------------------------------------------------------------- in a network


def injected(plan: MaskPlan = PLAN, learned: str = "expert", mask_per: str = "step") -> tuple[nn.Module, Experts]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D_IN, D_OUT))
    experts = inject(model, plan, 3, mask_per, learned_rates=learned)
    with torch.no_grad():
        for layer in experts.layers.values():
            layer.b.copy_(numbers(*layer.b.shape))
    model.train()
    return model, experts


def test_learned_rates_take_the_masks_of_fixed_ones() -> None:
    (_, learned), (_, fixed) = injected(), injected(learned="off")
    for _ in range(20):
        assert torch.equal(learned.sample(), fixed.sample())
        own, other = learned.layers["0"], fixed.layers["0"]
        assert own.mask is not None
        assert own.active is not None
        assert other.mask is not None
        assert torch.equal(own.active, other.mask > 0)
        assert torch.equal(own.mask > 0.5 / 0.7, own.active)
        assert not torch.equal(own.mask, other.mask), "a relaxed mask is no mask of 0 and 1/(1-p)"
    assert torch.equal(learned.sampler.active_steps, fixed.sampler.active_steps)
    assert not learned.sampler.active_steps[0, 4], "an expert that the mask does not keep stays absent"


def test_a_rate_acts_on_training_only() -> None:
    """Eval mode, ΔW and the merged network are those of the experts, whatever p."""
    model, experts = injected()
    x = numbers(3, D_IN)
    model.eval()
    before, delta = model(x), experts.layers["0"].delta()
    with torch.no_grad():
        experts.drop_logits["0"].fill_(2.0)
    assert torch.equal(model(x), before)
    assert torch.equal(experts.layers["0"].delta(), delta)
    merged = merge(model)
    assert isinstance(merged.get_submodule("0"), nn.Linear)
    assert torch.allclose(merged(x), before, atol=1e-5)


@pytest.mark.parametrize("mask_per", ["step", "token"])
@pytest.mark.parametrize("learned", ["layer", "expert"])
def test_every_rate_has_a_gradient(learned: str, mask_per: str) -> None:
    model, experts = injected(PLAN, learned, mask_per)
    (logit,) = experts.drop_logits.values()
    assert logit.shape == ((1,) if learned == "layer" else (4,))
    total = torch.zeros_like(logit)
    for _ in range(30):  # one relaxed mask is 0 or 1 up to rounding where u is far from p
        experts.sample()
        first = model(numbers(5, D_IN))
        experts.resample()
        second = model(numbers(5, D_IN))
        assert not torch.equal(first, second)
        total += torch.autograd.grad(first.square().sum() + second.square().sum(), logit)[0]
    assert total.all()


def test_one_rate_per_layer_starts_at_the_mean_and_all_start_within_bounds() -> None:
    rates = MaskPlan(((1, 1, 1, 0),), ((0.0, 0.3, 0.6, 0),), ("0",))
    assert injected(rates, "layer")[1].drop_rates()[0].tolist() == pytest.approx([0.3, 0.3, 0.3, 0])
    ends = MaskPlan(((1, 1, 1, 0),), ((0.0, 0.3, 0.99, 0),), ("0",))
    assert injected(ends)[1].drop_rates()[0].tolist() == pytest.approx([0.01, 0.3, 0.9, 0])


def test_the_entropy_is_the_sum_over_experts() -> None:
    for learned in ("layer", "expert"):
        _, experts = injected(learned=learned)
        of_one = -0.3 * math.log(0.3) - 0.7 * math.log(0.7)
        assert experts.entropy().item() == pytest.approx(4 * of_one, rel=1e-5)


def test_fixed_rates_have_nothing_to_learn() -> None:
    _, experts = injected(learned="off")
    assert not experts.drop_logits
    assert len(experts.parameters()) == 3
    assert torch.equal(experts.drop_rates(), MaskSampler(PLAN, 0).rates)


# ---------------------------------------------------------------- what is learned


def trained(entropy: float = 1.0, learned: str = "expert", steps: int = 400) -> tuple[Adapter, nn.Module]:
    """Experts 1 and 2 read what the target depends on, experts 3 and 4 read inputs that are always 0."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D_IN, D_OUT))
    model.eval()
    adapter = attach(model, MLAE(PLAN, learned_drop_rates=learned, drop_rate_entropy=entropy), 3)
    adapter.images = IMAGES
    parameters = adapter.parameters()
    with torch.no_grad():
        parameters["0.a"].copy_(torch.eye(D_IN)[[0, 1, 6, 7]])
        x = numbers(IMAGES, D_IN) * (torch.arange(D_IN) < 6)
        target = model(x) + x @ (2 * torch.eye(D_IN)[:, :2] @ numbers(2, D_OUT, seed=5))
    rates = [value for name, value in parameters.items() if name in adapter.rate_factors()]
    others = [value for name, value in parameters.items() if name.endswith(("b", "coefficient"))]
    optimizer = torch.optim.AdamW(
        [{"params": others, "lr": 1e-2}, {"params": rates, "lr": 5e-2, "weight_decay": 0.0}], weight_decay=0.0
    )
    adapter.train(True)
    for step in range(steps):
        adapter.before_step(step, step / steps)
        loss, penalty = (model(x) - target).square().mean(), adapter.penalty()
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        optimizer.zero_grad()
        adapter.after_step(step, step / steps)
        assert adapter.experts is not None
        kept = adapter.experts.drop_rates()[0, :4]
        assert LEARNED_RATES[0] - 1e-6 <= float(kept.min()) <= float(kept.max()) <= LEARNED_RATES[1] + 1e-6
    return adapter, model


def test_experts_without_use_are_dropped_more_often_than_useful_ones() -> None:
    adapter, _ = trained()
    _, canvas = adapter.statistics()["drop_rate"]
    assert isinstance(canvas, tuple)
    (row,) = canvas
    assert isinstance(row, tuple)
    useful, useless = row[:2], row[2:4]
    assert max(v for v in useful if v is not None) < 0.1
    assert useless == pytest.approx((0.5, 0.5), abs=0.02), "the entropy alone: as often as not"
    assert row[4] is None


def test_without_the_entropy_rates_only_fall() -> None:
    rates = []
    for entropy in (0.0, 1.0):
        adapter, _ = trained(entropy, "layer")
        assert adapter.experts is not None
        rates.append(float(adapter.experts.drop_rates()[0, 0]))
    assert rates[0] < 0.03 < rates[1]


def test_rates_are_put_back_within_their_bounds() -> None:
    _, experts = injected()
    with torch.no_grad():
        experts.drop_logits["0"].copy_(torch.tensor([-9.0, -1.0, 1.0, 9.0]))
    experts.bound_rates()
    assert experts.drop_rates()[0, :4].tolist() == pytest.approx([0.01, 0.26894, 0.73106, 0.9], rel=1e-4)


def test_the_plan_of_an_adapter_has_the_present_rates() -> None:
    adapter, _ = trained(steps=20)
    assert adapter.experts is not None
    assert adapter.plan is not None
    assert adapter.experts.plan == PLAN
    assert adapter.plan.keep == PLAN.keep
    assert adapter.plan.drop_rate[0] == pytest.approx(adapter.experts.drop_rates()[0].tolist(), abs=5e-5)
    assert adapter.plan != PLAN
    assert "0.drop_logit" in adapter.parameters()
    assert set(adapter.state()) == {"0.a", "0.b", "0.coefficient"}
