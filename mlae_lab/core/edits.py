"""Edits of a plan's rows. Rows of one kind of layer (`attn.qkv` of all blocks) form a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mlae_lab.core.backbones import MAX_DEFAULT_ROWS, Backbone
from mlae_lab.core.patterns import fitted
from mlae_lab.core.plan import MaskPlan, PlanError, groups


def onto(pattern: MaskPlan, plan: MaskPlan) -> MaskPlan:
    """The plan with the pattern's mask on each group of its rows; rank and λ stay."""
    keep, rates = list(plan.keep), list(plan.drop_rate)
    for rows in groups(plan.targets).values():
        part = fitted(pattern, [plan.targets[row] for row in rows])
        for index, row in enumerate(rows):
            keep[row], rates[row] = part.keep[index], part.drop_rate[index]
    return replace(plan, keep=tuple(keep), drop_rate=tuple(rates))


def with_modules(plan: MaskPlan, backbone: Backbone, modules: Sequence[str]) -> MaskPlan:
    """The plan with rows for these kinds of layers, in the backbone's order.

    Kinds that the plan already has keep their masks. A new kind gets the mask of the plan's first kind, stretched over
    its layers (at most 64 rows). Rows of a kind that is not in `backbone.modules` stay, at the end.

    Args:
        plan: The plan to change.
        backbone: The network whose layers the rows name.
        modules: Kinds of layers, at least one of `backbone.modules`.

    Raises:
        PlanError: If no row would be left.
        CatalogError: If the backbone does not have a kind.
    """
    existing = groups(plan.targets)
    first = _part(plan, next(iter(existing.values())))
    parts = []
    for module in sorted(modules, key=lambda m: backbone.modules.index(m) if m in backbone.modules else -1):
        if module in existing and module in backbone.modules:
            parts.append(_part(plan, existing[module]))
        else:
            parts.append(fitted(first, backbone.targets(module)[:MAX_DEFAULT_ROWS]))
    parts += [_part(plan, rows) for module, rows in existing.items() if module not in backbone.modules]
    if not parts:
        raise PlanError(f"the plan has no kind of layer: choose at least one of {', '.join(backbone.modules)}")
    return replace(
        plan,
        keep=sum((part.keep for part in parts), ()),
        drop_rate=sum((part.drop_rate for part in parts), ()),
        targets=sum((part.targets for part in parts), ()),
    )


def _part(plan: MaskPlan, rows: Sequence[int]) -> MaskPlan:
    keep, rates, targets = (tuple(values[row] for row in rows) for values in (plan.keep, plan.drop_rate, plan.targets))
    return replace(plan, keep=keep, drop_rate=rates, targets=targets)
