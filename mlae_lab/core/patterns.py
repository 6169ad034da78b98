"""The masks of the paper (figure 2, section 4.4, appendix A.5) as plans.

Fixed patterns set the number of experts per block, stochastic patterns the drop rate per block, mixed patterns
combine a fixed allocation with one drop rate for all. Blocks are listed from the input to the output, as in the
paper. Five more patterns, not from the paper, each demonstrate one effect.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from mlae_lab.core.plan import MAX_COLUMNS, Kind, MaskPlan, PlanError, block_targets

LAYERS = 12
EXPERTS = 8
BUDGET = LAYERS * EXPERTS  # 96 experts: the budget of every pattern in the paper
MIXED_DROP_RATE = 0.5  # the paper does not give the rate of its mixed rows; 0.5 is its best single rate (Table 9)

FIXED_COUNTS: dict[str, tuple[int, ...]] = {
    "incremental": (2, 2, 2, 6, 6, 6, 10, 10, 10, 14, 14, 14),
    "decremental": (14, 14, 14, 10, 10, 10, 6, 6, 6, 2, 2, 2),
    "hourglass": (14, 14, 14, 2, 2, 2, 2, 2, 2, 14, 14, 14),
    # printed with five 14s, 11 numbers that sum to 82; twelve blocks and 96 experts need six
    "protruding": (2, 2, 2, 14, 14, 14, 14, 14, 14, 2, 2, 2),
}
STOCHASTIC_RATES: dict[str, tuple[float, ...]] = {
    "incremental": (0.8, 0.8, 0.7, 0.7, 0.6, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0),
    "decremental": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6, 0.7, 0.7, 0.8, 0.8),
    "hourglass": (0.0, 0.1, 0.3, 0.5, 0.6, 0.8, 0.8, 0.6, 0.5, 0.3, 0.1, 0.0),
    "protruding": (0.8, 0.6, 0.5, 0.3, 0.1, 0.0, 0.0, 0.1, 0.3, 0.5, 0.6, 0.8),
}
FIXED_NAMES = (*FIXED_COUNTS, "random")
STOCHASTIC_NAMES = (*STOCHASTIC_RATES, "uniform")
NAMES = (*FIXED_COUNTS, "random", "uniform", "dense")


@dataclass(frozen=True)
class Pattern:
    """One mask of the paper. name: one of `NAMES`; kind: its row of Table 4; plan: 12 blocks, qkv."""

    name: str
    kind: Kind
    plan: MaskPlan

    @property
    def title(self) -> str:
        return "Dense" if self.kind is Kind.DENSE else f"{self.name.capitalize()}, {self.kind.value}"


def allocation(counts: Sequence[int], columns: int | None = None, drop_rate: float = 0.0) -> MaskPlan:
    """A plan that keeps the first `counts[l]` experts of row l, all with one drop rate.

    Args:
        counts: One whole number per row, 0 to 16.
        columns: Width of the canvas, by default the largest count (at least 1).
        drop_rate: Of every expert.

    Raises:
        PlanError: If a count does not fit.
    """
    if not counts:
        raise PlanError("the plan has 0 rows: give at least one target layer")
    for count in counts:
        if type(count) is not int or not 0 <= count <= MAX_COLUMNS:
            raise PlanError(f"a row keeps {count!r} experts: it must be a whole number from 0 to {MAX_COLUMNS}")
    width = columns or max(1, *counts)
    if max(counts) > width:
        raise PlanError(f"a row keeps {max(counts)} experts on a canvas of {width} columns: widen the canvas")
    keep = tuple(tuple(i < count for i in range(width)) for count in counts)
    return MaskPlan(keep, ((drop_rate,) * width,) * len(counts), block_targets(len(counts)))


def dense(layers: int = LAYERS, experts: int = EXPERTS) -> MaskPlan:
    """Every expert exists and is never dropped: LoRA of rank `experts`, split into rank-1 parts."""
    return allocation((experts,) * layers)


def uniform(drop_rate: float, layers: int = LAYERS, experts: int = EXPERTS) -> MaskPlan:
    """One drop rate for all experts: the paper's proposed method ("Ours", Table 4)."""
    return allocation((experts,) * layers, drop_rate=drop_rate)


def random_counts(
    seed: int, budget: int = BUDGET, layers: int = LAYERS, low: int = 1, high: int = 14
) -> tuple[int, ...]:
    """Random numbers of experts per row, in [low, high], that sum to `budget` (A.5: 1 to 14, mean 8).

    Every valid allocation is equally likely: each row is sampled in proportion to the number of
    ways to complete the remaining rows. The same seed gives the same counts on every machine.
    """
    if not low * layers <= budget <= high * layers:
        raise PlanError(
            f"a budget of {budget} experts over {layers} layers with {low} to {high} each is not possible: "
            f"it must lie between {low * layers} and {high * layers}"
        )
    draw = random.Random(f"mlae-random-{seed}")
    ways = _ways(layers, budget, high - low)
    counts, rest = [], budget - low * layers
    for row in range(layers):
        left = layers - row - 1
        weights = [ways[left][rest - extra] if extra <= rest else 0 for extra in range(high - low + 1)]
        extra = draw.choices(range(high - low + 1), weights)[0]
        counts.append(low + extra)
        rest -= extra
    return tuple(counts)


def _ways(rows: int, total: int, most: int) -> list[list[int]]:
    """ways[r][s]: the number of r-tuples of numbers in [0, most] that sum to s."""
    ways = [[1] + [0] * total]
    for _ in range(rows):
        last = ways[-1]
        ways.append([sum(last[s - k] for k in range(min(most, s) + 1)) for s in range(total + 1)])
    return ways


def pattern(
    name: str,
    kind: Kind | str | None = None,
    drop_rate: float | None = None,
    experts: int | None = None,
    seed: int = 0,
) -> MaskPlan:
    """The paper's mask of that name.

    Args:
        name: One of `NAMES`.
        kind: fixed, stochastic or mixed; by default the name's first kind.
        drop_rate: Of uniform and mixed masks (default 0.5).
        experts: Columns of dense, uniform and stochastic masks (default 8).
        seed: Of the random allocation.

    Raises:
        PlanError: If the paper does not have the combination.
    """
    if name not in NAMES:
        raise PlanError(f"{name!r} is not a pattern: choose from {', '.join(NAMES)}")
    default = {"uniform": Kind.STOCHASTIC, "dense": Kind.DENSE}.get(name, Kind.FIXED)
    try:
        kind = default if kind is None else Kind(kind)
    except ValueError:
        raise PlanError(f"{kind!r} is not a kind of mask: choose fixed, stochastic or mixed") from None
    possible = [Kind.DENSE] if name == "dense" else [
        k for k, names in ((Kind.FIXED, FIXED_NAMES), (Kind.STOCHASTIC, STOCHASTIC_NAMES), (Kind.MIXED, FIXED_NAMES))
        if name in names
    ]  # fmt: skip
    if kind not in possible:
        raise PlanError(
            f"{name} has no {kind.value} mask in the paper: it can be {' or '.join(k.value for k in possible)}"
        )
    if drop_rate is not None and (kind in (Kind.FIXED, Kind.DENSE) or (kind is Kind.STOCHASTIC and name != "uniform")):
        reason = "its rates are the paper's" if kind is Kind.STOCHASTIC else "it drops nothing"
        raise PlanError(
            f"a drop rate of {drop_rate} does not apply to {name}, {kind.value}: {reason}; use uniform or mixed"
        )
    if experts is not None and kind in (Kind.FIXED, Kind.MIXED):
        raise PlanError(
            f"{experts} experts per layer does not apply to {name}, {kind.value}: the pattern sets their number; use "
            "dense, uniform or stochastic"
        )
    width = EXPERTS if experts is None else experts
    if type(width) is not int or not 1 <= width <= MAX_COLUMNS:
        raise PlanError(f"{width!r} experts per layer: it must be a whole number from 1 to {MAX_COLUMNS}")
    rate = MIXED_DROP_RATE if drop_rate is None else drop_rate
    if kind is Kind.DENSE:
        return dense(experts=width)
    if name == "uniform":
        return uniform(rate, experts=width)
    if kind is Kind.STOCHASTIC:
        return dense(experts=width).with_rates(STOCHASTIC_RATES[name])
    counts = random_counts(seed) if name == "random" else FIXED_COUNTS[name]
    return allocation(counts, columns=14, drop_rate=rate if kind is Kind.MIXED else 0.0)


@lru_cache(maxsize=64)
def paper_patterns(drop_rate: float = MIXED_DROP_RATE, seed: int = 0) -> tuple[Pattern, ...]:
    """All sixteen masks of figure 2 and Table 4: five fixed, five stochastic, five mixed, and dense.

    Args:
        drop_rate: Of the uniform and mixed masks.
        seed: Of the random allocation.
    """
    uniform_rate = {"uniform": drop_rate}
    return (
        Pattern("dense", Kind.DENSE, dense()),
        *(Pattern(n, Kind.FIXED, pattern(n, Kind.FIXED, seed=seed)) for n in FIXED_NAMES),
        *(Pattern(n, Kind.STOCHASTIC, pattern(n, Kind.STOCHASTIC, uniform_rate.get(n))) for n in STOCHASTIC_NAMES),
        *(Pattern(n, Kind.MIXED, pattern(n, Kind.MIXED, drop_rate, seed=seed)) for n in FIXED_NAMES),
    )


@dataclass(frozen=True)
class Lesson:
    """A mask that is not from the paper. name: one or two words; plan: 12 blocks, qkv; teaches: one sentence."""

    name: str
    plan: MaskPlan
    teaches: str


@lru_cache(maxsize=1)
def lessons() -> tuple[Lesson, ...]:
    """Five additional masks, each of which demonstrates one effect."""
    board = replace(dense(), keep=tuple(tuple((r + c) % 2 == 0 for c in range(EXPERTS)) for r in range(LAYERS)))
    return (
        Lesson("single layer", allocation([EXPERTS if r == 6 else 0 for r in range(LAYERS)]),
               "What accuracy does a single layer reach?"),
        Lesson("single expert", allocation([int(r == 6) for r in range(LAYERS)], columns=EXPERTS),
               "The smallest possible change: one rank-1 update."),
        Lesson("checkerboard", board,
               "Half the budget: four experts per layer. The order of columns has no effect."),
        Lesson("bottleneck", allocation((8, 8, 8, 8, 4, 1, 1, 4, 8, 8, 8, 8)),
               "Does accuracy drop if the middle layers can hardly change?"),
        Lesson("p = 0.9", uniform(0.9),
               "Too high: almost every step has an empty layer."),
    )  # fmt: skip


def fitted(plan: MaskPlan, targets: Sequence[str]) -> MaskPlan:
    """The plan stretched over other target layers: each takes the row at the same relative depth.

    A plan with these targets is returned unchanged; 24 layers take each of 12 rows twice.

    Args:
        plan: The plan to stretch.
        targets: Names of the new rows, at least one.
    """
    if plan.targets == tuple(targets):
        return plan
    rows = [row * plan.rows // len(targets) for row in range(len(targets))]
    return replace(
        plan,
        keep=tuple(plan.keep[row] for row in rows),
        drop_rate=tuple(plan.drop_rate[row] for row in rows),
        targets=tuple(targets),
    )
