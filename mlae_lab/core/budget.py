"""What a plan costs, from the plan and the shapes of its targets alone, before any model is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.plan import MaskPlan


@dataclass(frozen=True)
class Budget:
    """experts: that exist. parameters: trained in them, head not counted. expected_active: mean
    number of experts drawn in a step. empty_chance: per row, the chance that a step draws none
    of a row's experts (1 for a row without experts). any_empty_chance: the chance that at least
    one row that has experts is empty in a step."""

    experts: int
    parameters: int
    expected_active: float
    empty_probability: tuple[float, ...]
    any_empty_probability: float


def expert_parameters(plan: MaskPlan, d_in: int, d_out: int) -> int:
    """Trained numbers in one expert: rank (d_in + d_out), and its coefficient if that is trained.

    For ViT-B/16's qkv (768 to 2304) and rank 1 this is 3,073; 96 of them are 295,008.
    """
    return plan.expert_rank * (d_in + d_out) + int(plan.train_coefficients)


def budget(plan: MaskPlan, shapes: Mapping[str, tuple[int, int]]) -> Budget:
    """Count a plan. shapes: target name to (d_in, d_out). Raises KeyError for a target without shape."""
    parameters = sum(
        kept * expert_parameters(plan, *shapes[t]) for kept, t in zip(plan.kept, plan.targets, strict=False) if kept
    )
    empty = []
    for kept, rates in zip(plan.keep, plan.drop_rate, strict=False):
        empty.append(math.prod(p for k, p in zip(kept, rates, strict=False) if k))
    some = math.prod(1 - chance for chance, kept in zip(empty, plan.kept, strict=False) if kept)
    return Budget(plan.experts, parameters, expected_active(plan), tuple(empty), 1 - some)


def expected_active(plan: MaskPlan) -> float:
    """Σ keep (1 - p): mean number of experts at work in one training step."""
    return sum(
        1 - p
        for kept, rates in zip(plan.keep, plan.drop_rate, strict=False)
        for k, p in zip(kept, rates, strict=False)
        if k
    )


# ---------------------------------------------------------------- the arithmetic of a step


@dataclass(frozen=True)
class StepCost:
    """Multiply-adds of one training step, per token. forward: of the frozen blocks, which is all that a step of a
    linear probe needs; backward: through them; experts: their own, both ways. cached: the part of `forward` that
    lies in blocks before the first expert and gives the same in every step, as long as nothing is augmented."""

    forward: int
    backward: int
    experts: int
    cached: int

    @property
    def total(self) -> int:
        return self.forward + self.backward + self.experts


def step_cost(plan: MaskPlan, backbone: Backbone) -> StepCost | None:
    """What a step of this plan costs; None for a network that is no plain vision transformer.

    For T tokens of width w, a linear layer d_in -> d_out costs d_in d_out forward, and the same again backward if
    an expert lies before it (its own weights are frozen: only the gradient of its input is needed). The two products
    of attention, q kᵀ and the sum over v, cost 2 T w forward and 4 T w backward. E experts of rank k at a layer cost
    3 E k (d_in + d_out): forward, for the gradients of a and b, and for that of their input, which the first layer
    with experts does not need (- E k d_in). A dropped expert is multiplied by 0, not left out: p changes nothing
    here. Not counted: patch embedding, norms, the head, the optimizer.
    """
    if not backbone.heads or backbone.tokens is None:
        return None
    rows = [r for r in backbone.linears if r.pattern.startswith("blocks.*.")]
    kept = dict(zip(plan.targets, plan.kept, strict=False))
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
