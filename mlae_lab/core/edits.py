"""The rows of a plan: which layers they stand forand how they change.

Rows of one kind of layer (`attn.qkv` of all blocks) are a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mlae_lab.core.backbones import MAX_DEFAULT_ROWS, Backbone
from mlae_lab.core.patterns import fitted
from mlae_lab.core.plan import MaskPlan, PlanError, groups

# ---------------------------------------------------------------- the rows


def onto(pattern: MaskPlan, plan: MaskPlan) -> MaskPlan:
    """The pattern's mask on the plan's rows, each group for itself; the plan's rank and λ stay."""
    keep, rates = list(plan.keep), list(plan.drop_rate)
    for rows in groups(plan.targets).values():
        part = fitted(pattern, [plan.targets[row] for row in rows])
        for place, row in enumerate(rows):
            keep[row], rates[row] = part.keep[place], part.drop_rate[place]
    return replace(plan, keep=tuple(keep), drop_rate=tuple(rates))


def with_modules(plan: MaskPlan, backbone: Backbone, modules: Sequence[str]) -> MaskPlan:
    """The plan with rows for these kinds of layers, in the backbone's order; what is drawn on a kind that stays stays.

    modules: of `backbone.modules`, at least one. A new kind begins as what is drawn on the plan's first one, stretched
    over its layers (64 rows at most). Rows of a kind that is not in `backbone.modules` stay, last.
    Raises PlanError if no row would be left, CatalogError for a kind that the backbone does not have.
    """
    have = groups(plan.targets)
    first = _part(plan, next(iter(have.values())))
    parts = []
    for module in sorted(modules, key=lambda m: backbone.modules.index(m) if m in backbone.modules else -1):
        known = module in have and module in backbone.modules
        parts.append(_part(plan, have[module]) if known else fitted(first, backbone.targets(module)[:MAX_DEFAULT_ROWS]))
    parts += [_part(plan, rows) for module, rows in have.items() if module not in backbone.modules]
    if not parts:
        raise PlanError(f"a plan without a kind of layer: choose at least one of {', '.join(backbone.modules)}")
    return replace(
        plan,
        keep=sum((part.keep for part in parts), ()),
        drop_rate=sum((part.drop_rate for part in parts), ()),
        targets=sum((part.targets for part in parts), ()),
    )


def _part(plan: MaskPlan, rows: Sequence[int]) -> MaskPlan:
    pick = [tuple(values[row] for row in rows) for values in (plan.keep, plan.drop_rate, plan.targets)]
    return replace(plan, keep=pick[0], drop_rate=pick[1], targets=pick[2])
