"""Distance of a plan from the masks of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from statistics import median

from mlae_lab.core.patterns import MIXED_DROP_RATE, Pattern, paper_patterns
from mlae_lab.core.plan import Kind, MaskPlan, groups


@dataclass(frozen=True)
class NearestPattern:
    """The mask of the paper with the smallest distance.

    Attributes:
        name: Name of the pattern.
        kind: Its kind.
        cells: Number of experts that only one of the two has.
        rate: Σ |p - p'| over the experts that both have.
        drop_rate: Of a uniform or mixed pattern, else None.
    """

    name: str
    kind: Kind
    cells: int
    rate: float
    drop_rate: float | None

    @property
    def same(self) -> bool:
        return self.cells == 0 and self.rate < 5e-5

    @property
    def title(self) -> str:
        """Name for use in a sentence: "hourglass, fixed", "uniform, stochastic (p = 0.7)", "dense"."""
        if self.kind is Kind.DENSE:
            return "dense"
        return f"{self.name}, {self.kind.value}" + (f" (p = {self.drop_rate:g})" if self.drop_rate else "")


def difference(pattern: MaskPlan, plan: MaskPlan) -> tuple[int, float]:
    """(cells, rate) between a pattern with one drop rate per row and a plan, summed over the groups of its rows.

    The experts of a layer have no order: a row differs in |kept - kept'| cells, and its rates are matched so that
    the sum is minimal. Rows are stretched as in `patterns.fitted`, so that a backbone of 24 layers can be compared.
    """
    cells, rate = 0, 0.0
    shared = pattern.row_rates()
    for rows in groups(plan.targets).values():
        for index, row in enumerate(rows):
            source = index * pattern.rows // len(rows)
            common = min(pattern.kept[source], plan.kept[row])
            cells += abs(pattern.kept[source] - plan.kept[row])
            expected = shared[source]
            assert expected is not None, "a pattern has one drop rate per row"
            distances = sorted(abs(p - expected) for p in plan.rates[row])
            rate += sum(distances[:common])
    return cells, rate


@lru_cache(maxsize=256)
def nearest(plan: MaskPlan) -> NearestPattern:
    """The mask of the paper with the smallest cells + rate; the first of `paper_patterns` among equals.

    Uniform and mixed masks are compared at the plan's median drop rate, or at 0.5 where that is 0.
    """
    rates = [p for row in plan.rates for p in row]
    middle = round(median(rates), 4) if rates else 0.0

    def distance(candidate: Pattern) -> NearestPattern:
        has_rate = candidate.name == "uniform" or candidate.kind is Kind.MIXED
        cells, rate = difference(candidate.plan, plan)
        drop_rate = candidate.plan.drop_rate[0][0] if has_rate else None
        return NearestPattern(candidate.name, candidate.kind, cells, rate, drop_rate)

    return min(map(distance, paper_patterns(middle or MIXED_DROP_RATE)), key=lambda n: n.cells + n.rate)


def matches(pattern: MaskPlan, plan: MaskPlan) -> bool:
    """Whether the plan equals the pattern cell by cell, in each group of its rows."""
    return pattern.columns == plan.columns and all(
        (pattern.keep[source], pattern.drop_rate[source]) == (plan.keep[row], plan.drop_rate[row])
        for rows in groups(plan.targets).values()
        for row, source in ((row, index * pattern.rows // len(rows)) for index, row in enumerate(rows))
    )
