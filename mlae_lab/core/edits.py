"""Edits of a plan as pure functions: what the buttons of the canvas do, and which layers it has rows for.

The canvas in the browser does the same to the same cells, so that a stroke need not wait for the server.
Rows of one kind of layer (`attn.qkv` of all blocks) are a group, and an edit that moves cells keeps them in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from mlae_lab.core.backbones import MAX_DEFAULT_ROWS, Backbone
from mlae_lab.core.patterns import fitted
from mlae_lab.core.plan import MaskPlan, PlanError

_IN_BLOCK = re.compile(r"(?:.*\.)?\d+\.(.+)")
_WORD = (1 << 32) - 1


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


# ---------------------------------------------------------------- the buttons


def mirrored(plan: MaskPlan) -> MaskPlan:
    """First layer and last change places, in each group: incremental becomes decremental."""
    source = list(range(plan.rows))
    for rows in groups(plan.targets).values():
        for row, other in zip(rows, reversed(rows), strict=False):
            source[row] = other
    return replace(
        plan, keep=tuple(plan.keep[r] for r in source), drop_rate=tuple(plan.drop_rate[r] for r in source)
    )  # fmt: skip


def inverted(plan: MaskPlan) -> MaskPlan:
    """What exists goes, what does not comes, with the rate of its row's first expert (0 for a row without one)."""
    return _kept(plan, tuple(tuple(not k for k in row) for row in plan.keep))


def filled(plan: MaskPlan) -> MaskPlan:
    """Every expert exists; the new ones have the rate of their row's first expert (0 for a row without one)."""
    return _kept(plan, ((True,) * plan.columns,) * plan.rows)


def cleared(plan: MaskPlan) -> MaskPlan:
    """No expert is left."""
    return _kept(plan, ((False,) * plan.columns,) * plan.rows)


def _kept(plan: MaskPlan, keep: tuple[tuple[bool, ...], ...]) -> MaskPlan:
    rates = []
    for _row, old, known in zip(keep, plan.keep, plan.drop_rate, strict=False):
        first = next((p for k, p in zip(old, known, strict=False) if k), 0.0)
        rates.append(tuple(p if was else first for was, p in zip(old, known, strict=False)))
    return replace(plan, keep=keep, drop_rate=tuple(rates))


def copied(plan: MaskPlan, source: int, onto: Sequence[int]) -> MaskPlan:
    """Row `source` (from 0), experts and rates, on the rows `onto`. Raises PlanError for a row that is not there."""
    for row in (source, *onto):
        if not 0 <= row < plan.rows:
            raise PlanError(f"row {row} is not on this canvas: it has rows 0 to {plan.rows - 1}")
    pick = [source if row in set(onto) else row for row in range(plan.rows)]
    return replace(plan, keep=tuple(plan.keep[r] for r in pick), drop_rate=tuple(plan.drop_rate[r] for r in pick))


def shuffled(plan: MaskPlan, seed: int) -> MaskPlan:
    """The same cells, each with its rate, in other places of their group.

    seed: 0 to 2^32 - 1. Fisher-Yates from the last cell to the second, driven by mulberry32: the same seed gives
    the same plan here, in the browser and on every machine.
    """
    numbers = _mulberry32(seed)
    cells = [list(zip(kept, rates, strict=False)) for kept, rates in zip(plan.keep, plan.drop_rate, strict=False)]
    for rows in groups(plan.targets).values():
        flat = [cell for row in rows for cell in cells[row]]
        for last in range(len(flat) - 1, 0, -1):
            other = int(next(numbers) * (last + 1))
            flat[last], flat[other] = flat[other], flat[last]
        for place, row in enumerate(rows):
            cells[row] = flat[place * plan.columns : (place + 1) * plan.columns]
    return replace(
        plan,
        keep=tuple(tuple(k for k, _ in row) for row in cells),
        drop_rate=tuple(tuple(p for _, p in row) for row in cells),
    )


def _mulberry32(seed: int) -> Iterator[float]:
    """Numbers in [0, 1) by T. Ettinger's mulberry32 (public domain), which is short in every language."""
    state = seed & _WORD
    while True:
        state = (state + 0x6D2B79F5) & _WORD
        t = ((state ^ state >> 15) * (state | 1)) & _WORD
        t ^= (t + (t ^ t >> 7) * (t | 61)) & _WORD
        yield (t ^ t >> 14) / (1 << 32)


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
