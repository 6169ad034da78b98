"""How far a plan is from the masks of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from statistics import median

from mlae_lab.core.patterns import MIXED_DROP_RATE, Pattern, paper_patterns
from mlae_lab.core.plan import Kind, MaskPlan, groups


@dataclass(frozen=True)
class NearestPattern:
    """The mask of the paper that is least away. cells: experts that one has and the other has not; rate: Σ |p - p'|
    over the experts that both have. drop_rate: of a uniform or mixed pattern, else None."""

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
        """As a sentence can hold it: "hourglass, fixed", "uniform, stochastic (p = 0.7)", "dense"."""
        if self.kind is Kind.DENSE:
            return "dense"
        return f"{self.name}, {self.kind.value}" + (f" (p = {self.drop_rate:g})" if self.drop_rate else "")


def difference(pattern: MaskPlan, plan: MaskPlan) -> tuple[int, float]:
    """(cells, rate) between a pattern with one drop rate a row and a plan, each group of its rows for itself.

    The experts of a layer have no order: a row differs in |kept - kept'| cells, and its rates are compared so that
    the sum is least. Rows are stretched as `patterns.fitted` does, so that a backbone of 24 layers has them too.
    """
    cells, rate = 0, 0.0
    shared = pattern.row_rates()
    for rows in groups(plan.targets).values():
        for place, row in enumerate(rows):
            source = place * pattern.rows // len(rows)
            common = min(pattern.kept[source], plan.kept[row])
            cells += abs(pattern.kept[source] - plan.kept[row])
            expected = shared[source]
            assert expected is not None, "a pattern has one drop rate a row"
            distances = sorted(
                abs(p - expected) for k, p in zip(plan.keep[row], plan.drop_rate[row], strict=False) if k
            )
            rate += sum(distances[:common])
    return cells, rate


@lru_cache(maxsize=256)
def nearest(plan: MaskPlan) -> NearestPattern:
    """The mask of the paper with the least cells + rate; the first of `paper_patterns` where several are.

    Uniform and mixed masks are a family: the one compared has the plan's own median rate, or 0.5 where that is 0.
    """
    rates = [
        p for kept, row in zip(plan.keep, plan.drop_rate, strict=False) for k, p in zip(kept, row, strict=False) if k
    ]
    middle = round(median(rates), 4) if rates else 0.0

    def away(found: Pattern) -> NearestPattern:
        family = found.name == "uniform" or found.kind is Kind.MIXED
        cells, rate = difference(found.plan, plan)
        return NearestPattern(found.name, found.kind, cells, rate, found.plan.drop_rate[0][0] if family else None)

    return min(map(away, paper_patterns(middle or MIXED_DROP_RATE)), key=lambda n: n.cells + n.rate)


def matches(pattern: MaskPlan, plan: MaskPlan) -> bool:
    """Whether the plan is the pattern cell by cell, each group of its rows for itself."""
    return pattern.columns == plan.columns and all(
        (pattern.keep[source], pattern.drop_rate[source]) == (plan.keep[row], plan.drop_rate[row])
        for rows in groups(plan.targets).values()
        for row, source in ((row, place * pattern.rows // len(rows)) for place, row in enumerate(rows))
    )
