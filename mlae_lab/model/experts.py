"""MLAELinear: a frozen linear layer and its masked low-rank experts.

    y = (W + Σ_i m_i λ_i b_i a_iᵀ) x + bias        m_i ∈ {0, 1/(1-p_i)} while training, 1 otherwise

Paper, equations 3 to 5. Where drop rates are learned, m_i is relaxed while training (`relaxed_factors`). Experts that
the plan does not keep do not exist. `MLAELinear` is one layer, `model.inject` puts layers into a network, and
`MaskSampler` samples the masks of all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.core.plan import MAX_COLUMNS, MaskPlan


def stream(seed: int, *names: object) -> torch.Generator:
    """A separate CPU generator for one purpose: the same seed and names give the same numbers."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


TEMPERATURE = 0.1  # of relaxed masks, as in the paper on concrete dropout
LEARNED_RATES = (0.01, 0.9)  # bounds of a learned drop rate: at 0 and 1 its logit has no gradient


def relaxed_factors(uniform: torch.Tensor, logit: torch.Tensor) -> torch.Tensor:
    """Factors m̃/(1-p) of masks that are differentiable in the drop rate p, float32.

        m̃ = σ((logit u - logit p) / t),  u ~ U(0, 1),  t = TEMPERATURE

    the concrete relaxation of Bernoulli(1-p) (Gal, Hron and Kendall 2017, Concrete dropout, there for 1-m̃): m̃ < 1/2
    where the mask of the same u drops, so P(m̃ < 1/2) = p. As t falls to 0, m̃ becomes that mask. At t = 0.1, E[m̃]/(1-p)
    is 1 within 1.7 % for every p in LEARNED_RATES, and the gradient of the expected loss, of which REINFORCE gives an
    unbiased estimate, comes out some 9 % too small in a small layer (tests/model/test_learned_rates.py).

    Args:
        uniform: u, (..., E) or (E,).
        logit: log(p/(1-p)), (E,) or (1,).
    """
    return torch.sigmoid((torch.logit(uniform).to(logit) - logit) / TEMPERATURE) * (1 + logit.exp())


_FACTORS: ContextVar[Mapping[MLAELinear, torch.Tensor] | None] = ContextVar("factors of the experts", default=None)


@contextmanager
def factored(factors: Mapping[MLAELinear, torch.Tensor]) -> Iterator[None]:
    """While open, λ is multiplied by a factor in every forward pass of this thread: 0 is off, 1 is on.

    Nothing is written into the layers, so other threads that use the same network are not affected.

    Args:
        factors: (E,) for each layer that is changed, on its device; they may require a gradient.
    """
    token = _FACTORS.set(factors)
    try:
        yield
    finally:
        _FACTORS.reset(token)


def experts_off(
    layers: Mapping[str, MLAELinear], on: Mapping[str, Sequence[int]] | None = None
) -> AbstractContextManager[None]:
    """While open, the experts of these layers are off; nothing is written into the layers (`factored`).

    Args:
        layers: target name to layer.
        on: experts that stay on, target name to positions among the layer's experts (from 0).
    """
    factors = {layer: torch.zeros_like(layer.coefficient) for layer in layers.values()}
    for target, positions in (on or {}).items():
        factors[layers[target]][list(positions)] = 1
    return factored(factors)


class MLAELinear(nn.Module):
    """Frozen linear + Σ m λ b aᵀ over E existing experts of rank k.

    Args:
        base: the layer to adapt, (d_in -> d_out). It is frozen and not changed.
        columns: canvas columns (from 0) of the E existing experts, at least one.
        drop_rate: E probabilities in [0, 1).
        rank: k, 1 or more.
        coefficient_init: initial λ.
        train_coefficients: whether λ is trainable.
        seed: of the initial a.
        name: of the layer. Each expert has its own generator from seed, name and column, so two plans with the same
            seed start from the same a wherever their cells coincide.
        by_token: sample m for every token instead of once per step, which is dropout on z = A x.
        input_dropout: rate in [0, 1) at which elements of the input of A are dropped (LoRA's lora_dropout).
        learned_rates: "layer" or "expert": p is trained, one for the layer (initially the mean of drop_rate) or one for
            each expert; "off".

    Parameters: a (E k, d_in), b (d_out, E k), coefficient (E,); with learned rates drop_logit, log(p/(1-p)), (1,) or
    (E,). Training alone needs it: neither eval mode nor `delta` reads it.

    b starts at 0, so a new layer equals the frozen one bit for bit. a starts uniform in ±1/sqrt(d_in), Kaiming-uniform
    with a = √5, as in the authors' code (and LoRA's). The paper's text (section 3.2) says Gaussian instead; the
    standard deviations have the same order and nothing else in the paper depends on it. λ starts at 1 by section 3.3
    and is tuned per task in A.2; it is not divided by the rank.

    Shapes: (..., d_in) -> (..., d_out).

    Raises:
        RuntimeError: in training mode, if an expert has p > 0 and no mask was sampled yet.
    """

    def __init__(
        self,
        base: nn.Linear,
        columns: tuple[int, ...],
        drop_rate: tuple[float, ...],
        rank: int = 1,
        coefficient_init: float = 1.0,
        train_coefficients: bool = True,
        seed: int = 0,
        name: str = "",
        by_token: bool = False,
        input_dropout: float = 0.0,
        learned_rates: str = "off",
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.columns = columns
        self.rank = rank
        self.drop_rate = drop_rate
        like = {"dtype": torch.float32, "device": base.weight.device}
        bound = base.in_features**-0.5
        a = torch.empty(len(columns) * rank, base.in_features)
        for i, column in enumerate(columns):
            uniform = torch.rand(rank, base.in_features, generator=stream(seed, "a", name, column))
            a[i * rank : (i + 1) * rank] = uniform * 2 * bound - bound
        self.a = nn.Parameter(a.to(**like))
        self.b = nn.Parameter(torch.zeros(base.out_features, len(columns) * rank, **like))
        self.coefficient = nn.Parameter(torch.full((len(columns),), coefficient_init, **like), train_coefficients)
        self.drop_logit: nn.Parameter | None = None
        if learned_rates != "off":
            initial = torch.tensor(drop_rate, **like)
            initial = initial.mean(0, keepdim=True) if learned_rates == "layer" else initial
            self.drop_logit = nn.Parameter(initial.clamp(*LEARNED_RATES).logit())
        self.mask: torch.Tensor | None = None  # (E,) for this training step; None before the first one
        self.active: torch.Tensor | None = None  # (E,) bool: which experts the mask does not drop
        self.by_token = by_token and self.is_sampled
        self.input_dropout = input_dropout
        self.noise: int | None = None  # seed of what is sampled within this step's batch

    @property
    def in_features(self) -> int:
        return self.base.in_features

    @property
    def out_features(self) -> int:
        return self.base.out_features

    @property
    def is_sampled(self) -> bool:
        """Whether a training step may drop one of its experts."""
        return self.drop_logit is not None or any(self.drop_rate)

    def scale(self) -> torch.Tensor:
        """Factor of each rank-1 column, (E k,): λ, in training λ m; inside `factored` multiplied by its factor."""
        factor, given = self.coefficient, _FACTORS.get()
        if given is not None and self in given:
            factor = factor * given[self]
        if self.training:
            if self.mask is not None:
                factor = factor * self.mask
            elif self.is_sampled:
                raise RuntimeError("this step has no mask: call MaskSampler.sample before a forward pass in training")
        return factor if self.rank == 1 else factor.repeat_interleave(self.rank)

    def delta(self) -> torch.Tensor:
        """ΔW = Σ λ b aᵀ with all experts on, (d_out, d_in)."""
        factor = self.coefficient.repeat_interleave(self.rank)
        return (self.b * factor) @ self.a

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias, scale = self.base.weight, self.base.bias, self.scale()
        if self.training and (self.by_token or self.input_dropout):
            return F.linear(x, weight, bias) + self._noisy(x, scale)
        if weight.dtype is torch.float32 and x.dtype is torch.float32 and not torch.is_autocast_enabled(x.device.type):
            return MaskedLinear.apply(x, weight, bias, self.a, self.b, scale)
        # In 16 bits W + ΔW would round small updates away, so the experts are computed separately.
        low = F.linear(x, self.a.to(x.dtype)) * scale.to(x.dtype)
        return F.linear(x, weight, bias) + F.linear(low, self.b.to(x.dtype))

    def _noisy(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Σ_i s_i b_i m_i a_iᵀ (d ∘ x): (..., d_in) -> (..., d_out).

        m_i ∈ {0, 1/(1-p_i)}, relaxed where p is learned, is sampled for every token and d ∈ {0, 1/(1-q)} for every
        element of x; the expected value is the branch without them.
        """
        if self.noise is None:
            raise RuntimeError("this step has no mask: call MaskSampler.sample before a forward pass in training")
        generator = torch.Generator(x.device).manual_seed(self.noise)
        if self.input_dropout:
            kept = torch.rand(x.shape, generator=generator, device=x.device) >= self.input_dropout
            x = x * kept.to(x.dtype) / (1 - self.input_dropout)
        low = F.linear(x, self.a.to(x.dtype)) * scale.to(x.dtype)
        if self.by_token:
            uniform = torch.rand(*x.shape[:-1], len(self.columns), generator=generator, device=x.device)
            if self.drop_logit is None:
                rates = torch.tensor(self.drop_rate, device=x.device)
                factor = ((uniform >= rates) / (1 - rates)).to(low.dtype)
            else:
                factor = relaxed_factors(uniform, self.drop_logit).to(low.dtype)
            low = low * (factor if self.rank == 1 else factor.repeat_interleave(self.rank, -1))
        return F.linear(low, self.b.to(low.dtype))

    def extra_repr(self) -> str:
        return f"experts={len(self.columns)}, rank={self.rank}, drop_rate={self.drop_rate}"


class MaskedLinear(torch.autograd.Function):
    """y = x (W + (b s) a)ᵀ + bias, with a low-rank backward pass.

    One product forward and one for the gradient of x, as in the frozen layer; the gradients of the experts cost
    O(N r (d_in + d_out)) for N tokens. Autograd would build the full gradient of W, half as much again. This form needs
    one mask for the whole batch.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, a, b, scale):
        merged = torch.addmm(weight, b * scale, a)
        ctx.save_for_backward(x, merged, a, b, scale)
        return F.linear(x, merged, bias)

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride] - torch passes one gradient per output
        x, merged, a, b, scale = ctx.saved_tensors
        flat, tokens = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        onto_b, onto_a = flat @ b, tokens @ a.t()  # (N, r) each
        grad_x = grad @ merged if ctx.needs_input_grad[0] else None
        grad_a = (onto_b * scale).t() @ tokens
        grad_b = flat.t() @ (onto_a * scale)
        grad_scale = (onto_b * onto_a).sum(0) if ctx.needs_input_grad[5] else None
        return grad_x, None, None, grad_a, grad_b, grad_scale


class MaskSampler:
    """Samples the masks of a whole plan once per step and counts in how many steps each expert was active.

    Every row takes 16 uniform numbers per step from its own generator, whatever the plan keeps or drops: two runs with
    the same seed see the same sequence, cell by cell, whatever else differs, later rows included. The last of the 16
    also seeds what is sampled within the batch: `noise`, one number per row, needs no other state, and a run that
    resumes from a checkpoint samples what it would have sampled.

    Args:
        plan: which experts exist, and their drop rates.
        seed: of the run.
        mask_per: "step", or "token": then every existing expert is active in the step, and its layer samples per token.
    """

    def __init__(self, plan: MaskPlan, seed: int, mask_per: str = "step") -> None:
        self.plan = plan
        self.by_token = mask_per == "token"
        self.noise = [0] * plan.rows
        self.generators = [stream(seed, "mask", row) for row in range(plan.rows)]
        self.steps = 0
        rates = torch.tensor(plan.drop_rate, dtype=torch.float64)
        self.rates = rates
        self.keep = torch.tensor(plan.keep)
        self.uniform = torch.zeros_like(rates)  # what the last masks were sampled with, (rows, columns)
        self.active_steps = torch.zeros(plan.rows, plan.columns, dtype=torch.int64)

    def sample(self, rates: torch.Tensor | None = None) -> torch.Tensor:
        """The factors m/(1-p) of one step, (rows, columns) float32: 0 where dropped or absent.

        Args:
            rates: (rows, columns) drop rates of this step, by default those of the plan.
        """
        active, factors = self._masks(self.generators, rates)
        self.steps += 1
        self.active_steps += active
        return factors

    def resample(self, rates: torch.Tensor | None = None) -> torch.Tensor:
        """Factors as `sample` gives them, independent of its last ones, for a second pass of the same step.

        They follow from `noise`, so that the masks of later steps are the same with and without a second pass. Steps
        and experts are not counted.
        """
        return self._masks([stream(noise, "second mask") for noise in self.noise], rates)[1]

    def _masks(
        self, generators: Sequence[torch.Generator], rates: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Which experts are active, and the factors; both (rows, columns)."""
        uniform = torch.stack([torch.rand(MAX_COLUMNS, generator=row, dtype=torch.float64) for row in generators])
        self.noise = (uniform[:, -1] * 2**53).long().tolist()  # exact: they are multiples of 2^-53
        self.uniform = uniform[:, : self.plan.columns]
        rates = torch.zeros_like(self.rates) if self.by_token else self.rates if rates is None else rates
        active = (self.uniform >= rates) & self.keep
        return active, (active / (1 - rates)).float()
