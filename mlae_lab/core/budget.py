"""What a plan costs, from the plan and the shapes of its targets alone, before any model is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

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
    empty_chance: tuple[float, ...]
    any_empty_chance: float


def expert_parameters(plan: MaskPlan, d_in: int, d_out: int) -> int:
    """Trained numbers in one expert: rank (d_in + d_out), and its coefficient if that is trained.

    For ViT-B/16's qkv (768 to 2304) and rank 1 this is 3,073; 96 of them are 295,008.
    """
    return plan.expert_rank * (d_in + d_out) + int(plan.train_coefficients)


def budget(plan: MaskPlan, shapes: Mapping[str, tuple[int, int]]) -> Budget:
    """Count a plan. shapes: target name to (d_in, d_out). Raises KeyError for a target without shape."""
    parameters = sum(kept * expert_parameters(plan, *shapes[t]) for kept, t in zip(plan.kept, plan.targets) if kept)
    empty = []
    for kept, rates in zip(plan.keep, plan.drop_rate):
        empty.append(math.prod(p for k, p in zip(kept, rates) if k))
    some = math.prod(1 - chance for chance, kept in zip(empty, plan.kept) if kept)
    return Budget(plan.experts, parameters, expected_active(plan), tuple(empty), 1 - some)


def expected_active(plan: MaskPlan) -> float:
    """Σ keep (1 - p): mean number of experts at work in one training step."""
    return sum(1 - p for kept, rates in zip(plan.keep, plan.drop_rate) for k, p in zip(kept, rates) if k)
