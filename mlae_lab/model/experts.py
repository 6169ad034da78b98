"""MLAELinear: a frozen linear layer and its masked low-rank experts.

    y = (W + Σ_i m_i λ_i b_i a_iᵀ) x + bias        m_i ∈ {0, 1/(1-p_i)} while training, 1 otherwise

Paper, equations 3 to 5. An expert that the plan does not keep is not here at all. This file knows
one layer; `model.inject` puts layers into a network, `MaskSampler` draws the masks of all of them.
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
    """A CPU generator of its own for one purpose: the same seed and names give the same numbers."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


_FACTORS: ContextVar[Mapping[MLAELinear, torch.Tensor] | None] = ContextVar("factors of the experts", default=None)


@contextmanager
def factored(factors: Mapping[MLAELinear, torch.Tensor]) -> Iterator[None]:
    """While open, λ counts times a factor in every forward pass of this thread: 0 is off, 1 is on.

    factors: (E,) for each layer that is changed, on its device; a gradient may be wanted of them. Nothing is
    written into the layers, so another thread that asks the same network meanwhile sees none of it.
    """
    before = _FACTORS.set(factors)
    try:
        yield
    finally:
        _FACTORS.reset(before)


def experts_off(
    layers: Mapping[str, MLAELinear], on: Mapping[str, Sequence[int]] | None = None
) -> AbstractContextManager[None]:
    """While open, the experts of these layers are off (`factored`), and the layers themselves stay untouched.

    Args:
        layers: target name to layer.
        on: experts that stay on all the same, target name to positions among the layer's experts (from 0).
    """
    factors = {layer: torch.zeros_like(layer.coefficient) for layer in layers.values()}
    for target, positions in (on or {}).items():
        factors[layers[target]][list(positions)] = 1
    return factored(factors)


class MLAELinear(nn.Module):
    """Frozen linear + Σ m λ b aᵀ over E existing experts of rank k.

    Args:
        base: the layer to adapt, (d_in -> d_out). It is frozen and kept as it is.
        columns: the canvas columns (from 0) of the experts that exist, E of them, at least one.
        drop_rate: E probabilities in [0, 1).
        rank: k, 1 or more. coefficient_init: start of λ. train_coefficients: whether λ learns.
        seed, name: of the draws of a; each expert draws from a stream of its own, so that two
            plans with one seed start from the same a wherever their cells coincide.
        by_token: m is drawn anew for every token instead of once a step: dropout on z = A x.
        input_dropout: rate in [0, 1) at which single numbers of x are dropped in front of A (LoRA's lora_dropout).

    Parameters: a (E k, d_in), b (d_out, E k), coefficient (E,).

    b starts at 0, so a fresh layer equals the frozen one bit for bit. a starts uniform in
    ±1/sqrt(d_in), Kaiming-uniform with a = √5, as in the authors' code (and LoRA's). The paper's
    text (section 3.2) says Gaussian instead; the spread of the two is the same order and nothing
    else in the paper depends on it. λ starts at 1 by section 3.3 and is tuned per task in A.2;
    it is not divided by the rank.

    Shapes: (..., d_in) -> (..., d_out).
    Raises RuntimeError in training mode if an expert has p > 0 and no mask was drawn yet.
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
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.columns = columns
        self.rank = rank
        self.drop_rate = drop_rate
        like = {"dtype": torch.float32, "device": base.weight.device}
        bound = base.in_features**-0.5
        drawn = torch.empty(len(columns) * rank, base.in_features)
        for i, column in enumerate(columns):
            own = stream(seed, "a", name, column)
            drawn[i * rank : (i + 1) * rank] = torch.rand(rank, base.in_features, generator=own) * 2 * bound - bound
        self.a = nn.Parameter(drawn.to(**like))
        self.b = nn.Parameter(torch.zeros(base.out_features, len(columns) * rank, **like))
        self.coefficient = nn.Parameter(torch.full((len(columns),), coefficient_init, **like), train_coefficients)
        self.mask: torch.Tensor | None = None  # (E,) for this training step; None before the first draw
        self.by_token = by_token and any(drop_rate)
        self.input_dropout = input_dropout
        self.noise: int | None = None  # seed of this step's draws within the batch

    @property
    def in_features(self) -> int:
        return self.base.in_features

    @property
    def out_features(self) -> int:
        return self.base.out_features

    def scale(self) -> torch.Tensor:
        """Factor of each rank-1 column, (E k,): λ, and while training λ m; inside `factored` times its factor."""
        factor, given = self.coefficient, _FACTORS.get()
        if given is not None and self in given:
            factor = factor * given[self]
        if self.training:
            if self.mask is not None:
                factor = factor * self.mask
            elif any(self.drop_rate):
                raise RuntimeError("no mask was drawn for this step: call MaskSampler.sample before a training forward")
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
            return _MaskedLinear.apply(x, weight, bias, self.a, self.b, scale)
        # In 16 bits W + ΔW would round a young update away, so the experts keep a branch of their own.
        low = F.linear(x, self.a.to(x.dtype)) * scale.to(x.dtype)
        return F.linear(x, weight, bias) + F.linear(low, self.b.to(x.dtype))

    def _noisy(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Σ_i s_i b_i m_i a_iᵀ (d ∘ x), with m_i ∈ {0, 1/(1-p_i)} drawn for every token and d ∈ {0, 1/(1-q)} for every
        number of x: (..., d_in) -> (..., d_out). Its mean over the draws is the branch without them."""
        if self.noise is None:
            raise RuntimeError("no mask was drawn for this step: call MaskSampler.sample before a training forward")
        draws = torch.Generator(x.device).manual_seed(self.noise)
        if self.input_dropout:
            kept = torch.rand(x.shape, generator=draws, device=x.device) >= self.input_dropout
            x = x * kept.to(x.dtype) / (1 - self.input_dropout)
        low = F.linear(x, self.a.to(x.dtype)) * scale.to(x.dtype)
        if self.by_token:
            rates = torch.tensor(self.drop_rate, device=x.device)
            drawn = torch.rand(*x.shape[:-1], len(rates), generator=draws, device=x.device) >= rates
            factor = (drawn / (1 - rates)).to(low.dtype)
            low = low * (factor if self.rank == 1 else factor.repeat_interleave(self.rank, -1))
        return F.linear(low, self.b.to(low.dtype))

    def extra_repr(self) -> str:
        return f"experts={len(self.columns)}, rank={self.rank}, drop_rate={self.drop_rate}"


class _MaskedLinear(torch.autograd.Function):
    """y = x (W + (b s) a)ᵀ + bias, with a low-rank backward.

    One product forward and one for the gradient of x, as in the frozen layer; the experts' own
    gradients cost O(N r (d_in + d_out)) for N tokens. Left to autograd, this form would build the
    full gradient of W, half as much again. Possible because the whole batch shares one mask.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, a, b, scale):
        merged = torch.addmm(weight, b * scale, a)
        ctx.save_for_backward(x, merged, a, b, scale)
        return F.linear(x, merged, bias)

    @staticmethod
    def backward(ctx, grad):
        x, merged, a, b, scale = ctx.saved_tensors
        flat, images = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        onto_b, onto_a = flat @ b, images @ a.t()  # (N, r) each
        grad_x = grad @ merged if ctx.needs_input_grad[0] else None
        grad_a = (onto_b * scale).t() @ images
        grad_b = flat.t() @ (onto_a * scale)
        grad_scale = (onto_b * onto_a).sum(0) if ctx.needs_input_grad[5] else None
        return grad_x, None, None, grad_a, grad_b, grad_scale


class MaskSampler:
    """Draws the masks of a whole plan, one draw per layer and step, and counts them.

    Every row takes 16 uniform numbers a step from a generator of its own, whatever the plan keeps or
    drops: two runs with one seed see one sequence, cell by cell, whatever else differs, later rows
    included. The last of the 16 also seeds what is drawn within the batch: `noise`, one number per row, needs no
    state of its own, and a run that goes on from a checkpoint draws what it would have drawn.

    mask_per: "step", or "token": then every expert that exists takes part in the step, and its layer draws for each
    token.
    """

    def __init__(self, plan: MaskPlan, seed: int, mask_per: str = "step") -> None:
        self.plan = plan
        self.by_token = mask_per == "token"
        self.noise = [0] * plan.rows
        self.generators = [stream(seed, "mask", row) for row in range(plan.rows)]
        self.steps = 0
        rates = torch.tensor(plan.drop_rate, dtype=torch.float64)
        self._rates = rates
        self._keep = torch.tensor(plan.keep)
        self.active_steps = torch.zeros(plan.rows, plan.columns, dtype=torch.int64)

    def sample(self) -> torch.Tensor:
        """The factors m/(1-p) of one step, (rows, columns) float32: 0 where dropped or absent."""
        chance = torch.stack([torch.rand(MAX_COLUMNS, generator=own, dtype=torch.float64) for own in self.generators])
        self.noise = (chance[:, -1] * 2**53).long().tolist()  # exact: they are multiples of 2^-53
        rates = torch.zeros_like(self._rates) if self.by_token else self._rates
        alive = (chance[:, : self.plan.columns] >= rates) & self._keep
        self.steps += 1
        self.active_steps += alive
        return (alive / (1 - rates)).float()
