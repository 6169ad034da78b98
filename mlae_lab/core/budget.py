"""The cost of a plan, computed from the plan and the shapes of its targets without building a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.memory import tokens_in
from mlae_lab.core.plan import MaskPlan


@dataclass(frozen=True)
class Budget:
    """Counts of a plan.

    Attributes:
        experts: Existing experts.
        parameters: Trainable parameters of the experts, without the head.
        expected_active: Mean number of active experts per step.
        empty_probability: Per row, the probability that none of its experts is active in a step; 1 for a row
            without experts.
        any_empty_probability: Probability that a step has at least one empty row, among rows with experts.
    """

    experts: int
    parameters: int
    expected_active: float
    empty_probability: tuple[float, ...]
    any_empty_probability: float


def expert_parameters(plan: MaskPlan, d_in: int, d_out: int) -> int:
    """Trainable parameters of one expert: rank (d_in + d_out), plus 1 if its coefficient is trained.

    For ViT-B/16's qkv (768 to 2304) and rank 1 this is 3,073; 96 of them are 295,008.
    """
    return plan.expert_rank * (d_in + d_out) + int(plan.train_coefficients)


def budget(plan: MaskPlan, shapes: Mapping[str, tuple[int, int]]) -> Budget:
    """Count a plan.

    Args:
        plan: The plan.
        shapes: Target name to (d_in, d_out); rows without experts need none.

    Raises:
        KeyError: If a target with experts has no shape.
    """
    parameters = sum(
        kept * expert_parameters(plan, *shapes[t]) for kept, t in zip(plan.kept, plan.targets, strict=True) if kept
    )
    empty = []
    for kept, rates in zip(plan.keep, plan.drop_rate, strict=True):
        empty.append(math.prod(p for k, p in zip(kept, rates, strict=True) if k))
    none_empty = math.prod(1 - probability for probability, kept in zip(empty, plan.kept, strict=True) if kept)
    return Budget(plan.experts, parameters, expected_active(plan), tuple(empty), 1 - none_empty)


def expected_active(plan: MaskPlan) -> float:
    """Mean number of active experts per training step: Σ keep (1 - p)."""
    return sum(
        1 - p
        for kept, rates in zip(plan.keep, plan.drop_rate, strict=True)
        for k, p in zip(kept, rates, strict=True)
        if k
    )


# ---------------------------------------------------------------- operations of a step


@dataclass(frozen=True)
class StepCost:
    """Multiply-adds of one training step, per token.

    Attributes:
        forward: Forward pass of the frozen blocks: the whole cost of a linear probe's step.
        backward: Backward pass through the frozen blocks.
        experts: Forward and backward pass of the experts.
        cached: The part of `forward` in blocks before the first expert, whose outputs are the same in every step as
            long as nothing is augmented.
    """

    forward: int
    backward: int
    experts: int
    cached: int

    @property
    def total(self) -> int:
        return self.forward + self.backward + self.experts


def step_cost(plan: MaskPlan, backbone: Backbone) -> StepCost | None:
    """The cost of one step of this plan; None for a network that is not a plain vision transformer.

    For T tokens of width w, a linear layer d_in -> d_out costs d_in d_out forward, and the same backward if it comes
    after an expert (its weights are frozen: only the gradient of its input is needed). The two products of attention,
    q kᵀ and the sum over v, cost 2 T w forward and 4 T w backward. E experts of rank k at a layer cost
    3 E k (d_in + d_out): forward, for the gradients of a and b, and for the gradient of their input, which the first
    layer with experts does not need (- E k d_in). A dropped expert is multiplied by 0 rather than skipped, so the drop
    rate does not change the cost. Not counted: patch embedding, norms, the head, the optimizer.
    """
    if not backbone.heads or backbone.tokens is None:
        return None
    rows = [r for r in backbone.linears if r.pattern.startswith("blocks.*.")]
    kept = dict(zip(plan.targets, plan.kept, strict=True))
    forward = backward = experts = cached = 0
    for block in range(backbone.layers):
        for row in rows:
            name, cost = row.pattern.replace("*", str(block)), row.d_in * row.d_out
            forward += cost
            if experts:
                backward += cost
            if count := kept.get(name, 0) * plan.expert_rank:
                experts += 3 * count * (row.d_in + row.d_out) - (0 if experts else count * row.d_in)
            if row.pattern.endswith(".attn.qkv"):
                attention = 2 * backbone.tokens * row.d_out // 3
                forward += attention
                if experts:
                    backward += 2 * attention
        if not experts:
            cached = forward
    return StepCost(forward, backward, experts, cached)


def forward_cost(backbone: Backbone) -> int:
    """Multiply-adds of a forward pass for one image: its linear layers, and the two products of global attention.

    Not counted: convolutions, attention in windows, norms, the head. Enough to compare image sizes of one network.
    """
    linear = sum(tokens_in(backbone, r.pattern) * r.count * r.d_in * r.d_out for r in backbone.linears)
    attention = 2 * backbone.layers * backbone.tokens**2 * backbone.width if backbone.heads and backbone.tokens else 0
    return linear + attention
