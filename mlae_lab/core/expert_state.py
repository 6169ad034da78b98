"""Expert states of a trained run: one factor per expert that scales its λ; 0 is off, 1 is on.

A state is plain data, rows x columns like the plan's canvas, None where no expert exists. This module converts
user input ("L3E2,L4", another mask) to states and back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from mlae_lab.core.patterns import fitted
from mlae_lab.core.plan import MaskPlan, PlanError

Factors = tuple[tuple[float | None, ...], ...]
Cell = tuple[int, int]  # row and column, from 0

MAX_FACTOR = 100.0  # largest absolute value of a factor
_NAMED = re.compile(r"L(\d{1,3}|\d{1,3}\.[\w.]+?)(?:E(\d{1,2}))?", re.IGNORECASE | re.ASCII)


def all_on(plan: MaskPlan) -> Factors:
    """The state of the run as trained: 1 for each expert."""
    return tuple(tuple(1.0 if kept else None for kept in row) for row in plan.keep)


def checked(plan: MaskPlan, factors: object) -> Factors:
    """Validate untrusted factors as a state of this plan; values where no expert exists are dropped.

    Raises:
        PlanError: If the shape differs, or if a value is missing or not a number from -100 to 100.
    """
    if not isinstance(factors, (list, tuple)) or len(factors) != plan.rows:
        raise PlanError(f"factors must be a list of {plan.rows} rows, one for each layer of the run's mask")
    state = []
    for number, (row, kept) in enumerate(zip(factors, plan.keep, strict=True), 1):
        if not isinstance(row, (list, tuple)) or len(row) != plan.columns:
            raise PlanError(f"row {number} of the factors must have {plan.columns} values, one for each expert")
        for value, exists in zip(row, kept, strict=True):
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if exists and not (is_number and abs(value) <= MAX_FACTOR):
                raise PlanError(
                    f"a factor of row {number} is {value!r}: it must be a number from -{MAX_FACTOR:g} to {MAX_FACTOR:g}"
                )
        state.append(tuple(float(value) if exists else None for value, exists in zip(row, kept, strict=True)))
    return tuple(state)


def with_cells(factors: Factors, cells: Iterable[Cell], value: float) -> Factors:
    """The state with one value at these cells; a cell without an expert stays None."""
    chosen = set(cells)
    return tuple(
        tuple(value if old is not None and (r, c) in chosen else old for c, old in enumerate(row))
        for r, row in enumerate(factors)
    )


def scaled(factors: Factors, scale: float) -> Factors:
    """The state with every factor times `scale`."""
    return tuple(tuple(None if old is None else old * scale for old in row) for row in factors)


def cells_on(factors: Factors) -> tuple[Cell, ...]:
    """The cells whose factor is not 0, by row and column."""
    return tuple((r, c) for r, row in enumerate(factors) for c, value in enumerate(row) if value)


def existing(plan: MaskPlan) -> tuple[Cell, ...]:
    """All experts of a plan, by row and column."""
    return cells_on(all_on(plan))


def through_mask(plan: MaskPlan, mask: MaskPlan) -> tuple[Factors, tuple[str, ...]]:
    """Apply another mask to a run: experts that the mask does not keep are off.

    Rows are matched by layer name; a mask that shares no layer with the plan is stretched over the plan's layers by
    `core.patterns.fitted`. Drop rates are ignored.

    Args:
        plan: The run's plan.
        mask: The mask to apply.

    Returns:
        The state, and the names of the mask's experts that the run does not have.
    """
    if not set(mask.targets) & set(plan.targets):
        mask = fitted(mask, plan.targets)
    mask_rows = dict(zip(mask.targets, mask.keep, strict=True))
    state = []
    for target, kept in zip(plan.targets, plan.keep, strict=True):
        wanted = mask_rows.get(target, ())
        state.append(
            tuple((1.0 if c < len(wanted) and wanted[c] else 0.0) if exists else None for c, exists in enumerate(kept))
        )
    plan_rows = dict(zip(plan.targets, plan.keep, strict=True))
    ignored = []
    for label, target, wanted in zip(mask.row_labels, mask.targets, mask.keep, strict=True):
        kept = plan_rows.get(target, ())
        missing = [c for c, is_wanted in enumerate(wanted) if is_wanted and not (c < len(kept) and kept[c])]
        ignored += [f"layer {label}, expert {c + 1}" for c in missing]
    return tuple(state), tuple(ignored)


def kept_plan(plan: MaskPlan, factors: Factors) -> MaskPlan:
    """The run's plan reduced to the experts that are on (factor other than 0); drop rates are unchanged."""
    return replace(plan, keep=tuple(tuple(bool(value) for value in row) for row in factors))


# ---------------------------------------------------------------- experts as text


def read_off(plan: MaskPlan, text: str) -> tuple[Cell, ...]:
    """Parse a text such as "L3E2,L4": expert 2 of layer 3 and all experts of layer 4.

    A layer is named by its label on the canvas, written "L3.fc1E2" where the mask has several kinds of layers. A
    number alone is a row of the canvas, counted from 1; with one kind of layer both are the same.

    Raises:
        PlanError: If a word cannot be read or names an expert that the run does not have.
    """
    cells: list[Cell] = []
    for word in filter(None, re.split(r"[,\s]+", text.strip())):
        match = _NAMED.fullmatch(word)
        if match is None:
            raise PlanError(f"{word[:20]!r} names no expert: write L3E2 for expert 2 of layer 3, L4 for all of layer 4")
        name, column = match[1], int(match[2]) - 1 if match[2] else None
        row = row_named(plan, name, word)
        if column is not None and not (0 <= column < plan.columns and plan.keep[row][column]):
            columns = ", ".join(str(c + 1) for c, kept in enumerate(plan.keep[row]) if kept) or "none"
            raise PlanError(
                f"{word[:40]} names an expert that this run does not have: layer {plan.row_labels[row]} has {columns}"
            )
        cells += [(row, c) for c, kept in enumerate(plan.keep[row]) if kept and column in (None, c)]
    return tuple(cells)


def row_named(plan: MaskPlan, name: str, word: str) -> int:
    """The row of a layer, from 0.

    Args:
        plan: The mask of the run.
        name: The layer's label, such as "3" or "3.fc1", or the number of its row, from 1.
        word: What named the layer, for the message.

    Raises:
        PlanError: If the run has no such layer.
    """
    rows = {_layer_token(label).lower(): row for row, label in enumerate(plan.row_labels)}
    row = int(name) - 1 if name.isdecimal() else rows.get(_layer_token(name).lower(), -1)
    if not 0 <= row < plan.rows:
        labels = plan.row_labels
        label_range = f" ({_layer_token(labels[0])} to {_layer_token(labels[-1])})" if " " in labels[0] else ""
        raise PlanError(f"{word[:40]} names layer {name[:30]}: this run has layers 1 to {plan.rows}{label_range}")
    return row


def off_text(plan: MaskPlan, cells: Sequence[Cell]) -> str:
    """The inverse of `read_off`, as short as possible: "L3E2,L4"."""
    chosen, parts = set(cells), []
    for row, kept in enumerate(plan.keep):
        layer = _layer_token(plan.row_labels[row])
        columns = [c for c, exists in enumerate(kept) if exists]
        off = [c for c in columns if (row, c) in chosen]
        parts += [layer] if off and off == columns else [f"{layer}E{c + 1}" for c in off]
    return ",".join(parts)


def _layer_token(label: str) -> str:
    return f"L{label.replace(' ', '.')}"
