"""Further statistics that are recorded with every evaluation.

A new statistic is one function and one line in `STATISTICS`; store, bench, report and archive take it as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mlae_lab.core.events import Statistics, StatisticValue
from mlae_lab.training.setup import Setup

DIGITS = 6  # significant digits that are kept


@dataclass(frozen=True)
class Statistic:
    """One recorded quantity.

    Attributes:
        name: 1 to 48 letters a-z, digits and underscores, a letter first.
        measure: Gives the value now: a number, one number per layer of the plan, one line of numbers per layer with one
            per expert, or None where there is nothing to record. Anything that is not finite is recorded as None. It
            leaves the network and every random generator as they are.
        title: As a figure shows it.
        unit: Of the value, "" for none.
    """

    name: str
    measure: Callable[[Setup], Any]
    title: str
    unit: str = ""


@torch.no_grad()
def update_norm(setup: Setup) -> list[float | None] | None:
    """‖ΔW‖_F of each layer, all experts on; from the factors, without building ΔW = (B λ) A.

    ‖ΔW‖_F² = Σ (λBᵀBλ) ∘ (A Aᵀ)
    """
    if setup.experts is None:
        return None
    norms: list[float | None] = []
    for target in setup.experts.plan.targets:
        layer = setup.experts.layers.get(target)
        if layer is None:
            norms.append(None)
            continue
        a = layer.a.cpu().double()
        b = layer.b.cpu().double() * layer.coefficient.cpu().double().repeat_interleave(layer.rank)
        norms.append(math.sqrt(max(0.0, float(((b.t() @ b) * (a @ a.t())).sum()))))
    return norms


STATISTICS: tuple[Statistic, ...] = (Statistic("update_norm", update_norm, "Norm of ΔW", "Frobenius"),)


@torch.no_grad()
def collect(statistics: Sequence[Statistic], setup: Setup, epoch: int, step: int) -> Statistics | None:
    """All statistics of a moment, None if there is nothing to record.

    Raises:
        ValueError: For a statistic whose name, size or label breaks a rule of `Statistics.require_valid`.
    """
    values = {s.name: value for s in statistics if (value := _plain(s.measure(setup))) is not None}
    labels = {s.name: (s.title, s.unit) for s in statistics if s.name in values}
    for name, (title, value) in setup.adapter.statistics().items():
        if (plain := _plain(value)) is not None:
            values[name], labels[name] = plain, (title, "")
    if not values:
        return None
    grids = {name: grid for name, grid in setup.adapter.grids().items() if name in values}
    event = Statistics(epoch, step, values, labels, grids)
    event.require_valid(*setup.config.canvas_size)
    return event


def _plain(value: Any) -> StatisticValue:
    """Nested tuples of finite numbers; None for a number that is not finite."""
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))  # pyright: ignore[reportReturnType] - `require_valid` checks the nesting
    return float(f"{value:.{DIGITS}g}") if value is not None and math.isfinite(value) else None
