"""The rows of a plan: which layers they stand for, how they are grouped and labelled, and how they change.

Rows of one kind of layer (`attn.qkv` of all blocks) are a group.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from mlae_lab.core.backbones import MAX_DEFAULT_ROWS, Backbone
from mlae_lab.core.patterns import fitted
from mlae_lab.core.plan import MaskPlan, PlanError

_IN_BLOCK = re.compile(r"(?:.*\.)?\d+\.(.+)")


def module_of(target: str) -> str:
    """The kind of a layer: what its name says below its block, `attn.qkv` for `blocks.0.attn.qkv`."""
    found = _IN_BLOCK.fullmatch(target)
    return found[1] if found else target


def groups(targets: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Row numbers (from 0) of each kind of layer, in the order of their first rows."""
    found: dict[str, list[int]] = {}
    for row, target in enumerate(targets):
        found.setdefault(module_of(target), []).append(row)
    return {module: tuple(rows) for module, rows in found.items()}


def row_labels(targets: Sequence[str]) -> tuple[str, ...]:
    """What to call each row: its layer's number from 1, and its kind ("3 qkv") where there are several."""
    kinds = groups(targets)
    labels = [""] * len(targets)
    for module, rows in kinds.items():
        for number, row in enumerate(rows, 1):
            labels[row] = f"{number} {module.rpartition('.')[2]}" if len(kinds) > 1 else str(number)
    return tuple(labels)


# ---------------------------------------------------------------- the rows


def onto(pattern: MaskPlan, plan: MaskPlan) -> MaskPlan:
    """The pattern's mask on the plan's rows, each group for itself; the plan's rank and λ stay."""
    keep, rates = [()] * plan.rows, [()] * plan.rows
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
