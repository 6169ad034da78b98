"""States of a trained run: one factor for each expert. 0 is off, 1 is on, anything between scales its λ.

A state is plain data, rows x columns as the plan's canvas, None where no expert exists. This file turns what people
write ("L3E2,L4", another mask) into states and back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from mlae_lab.core.patterns import fitted
from mlae_lab.core.plan import MaskPlan, PlanError

Factors = tuple[tuple[float | None, ...], ...]
Cell = tuple[int, int]  # row and column, from 0

MOST = 100.0  # size of a factor
_NAMED = re.compile(r"L(\d{1,3}|\d{1,3}\.[\w.]+?)(?:E(\d{1,2}))?", re.IGNORECASE | re.ASCII)


def all_on(plan: MaskPlan) -> Factors:
    """The run as it was trained: 1 for each expert."""
    return tuple(tuple(1.0 if kept else None for kept in row) for row in plan.keep)


def checked(plan: MaskPlan, factors: object) -> Factors:
    """Factors from outside as a state of this plan; a value where no expert exists is dropped.

    Raises PlanError for another shape, a missing value, or one that is no number from -100 to 100.
    """
    if not isinstance(factors, (list, tuple)) or len(factors) != plan.rows:
        raise PlanError(f"factors must be a list of {plan.rows} rows, one for each layer of the run's mask")
    found = []
    for number, (row, kept) in enumerate(zip(factors, plan.keep, strict=False), 1):
        if not isinstance(row, (list, tuple)) or len(row) != plan.columns:
            raise PlanError(f"row {number} of the factors must have {plan.columns} values, one for each expert")
        for value, exists in zip(row, kept, strict=False):
            number_given = isinstance(value, (int, float)) and not isinstance(value, bool)
            if exists and not (number_given and abs(value) <= MOST):
                raise PlanError(
                    f"a factor of row {number} is {value!r}: it must be a number from -{MOST:g} to {MOST:g}"
                )
        found.append(tuple(float(value) if exists else None for value, exists in zip(row, kept, strict=False)))
    return tuple(found)


def with_cells(factors: Factors, cells: Iterable[Cell], value: float) -> Factors:
    """The state with one value at these cells; a cell without an expert stays without."""
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
    """The state that another mask leaves of a run, and the names of its experts that the run does not have.

    Rows meet by the names of their layers; a mask of quite other layers is stretched over the run's as
    `core.patterns.fitted` does. An expert that the mask does not keep is off. Drop rates do not count here.
    """
    if not set(mask.targets) & set(plan.targets):
        mask = fitted(mask, plan.targets)
    rows = dict(zip(mask.targets, mask.keep, strict=False))
    found, width = [], max(plan.columns, mask.columns)
    for target, kept in zip(plan.targets, plan.keep, strict=False):
        wanted = rows.get(target, ())
        found.append(
            tuple((1.0 if c < len(wanted) and wanted[c] else 0.0) if exists else None for c, exists in enumerate(kept))
        )
    own = dict(zip(plan.targets, plan.keep, strict=False))
    ignored = []
    for label, target, wanted in zip(mask.row_labels, mask.targets, mask.keep, strict=False):
        has = own.get(target, ())
        missing = [c for c in range(width) if c < len(wanted) and wanted[c] and not (c < len(has) and has[c])]
        ignored += [f"layer {label}, expert {c + 1}" for c in missing]
    return tuple(found), tuple(ignored)


def kept_plan(plan: MaskPlan, factors: Factors) -> MaskPlan:
    """The run's plan with only the experts that are on (factor other than 0), their drop rates as they were."""
    return replace(plan, keep=tuple(tuple(bool(value) for value in row) for row in factors))


# ---------------------------------------------------------------- what people write


def read_off(plan: MaskPlan, text: str) -> tuple[Cell, ...]:
    """The experts that a text such as "L3E2,L4" names: expert 2 of layer 3 and all of layer 4.

    A layer is named by its label on the canvas, written "L3.fc1E2" where the mask has several kinds of layers. A
    number alone is a row of the canvas, counted from 1; with one kind of layer that is the same.

    Raises PlanError for a word that names nothing or an expert that the run does not have.
    """
    rows = {_layer_word(label).lower(): row for row, label in enumerate(plan.row_labels)}
    cells: list[Cell] = []
    for word in filter(None, re.split(r"[,\s]+", text.strip())):
        match = _NAMED.fullmatch(word)
        if match is None:
            raise PlanError(f"{word[:20]!r} names no expert: write L3E2 for expert 2 of layer 3, L4 for all of layer 4")
        name, column = match[1], int(match[2]) - 1 if match[2] else None
        row = int(name) - 1 if name.isdigit() else rows.get(f"l{name.lower()}", -1)
        if not 0 <= row < plan.rows:
            labels = plan.row_labels
            named = f" ({_layer_word(labels[0])} to {_layer_word(labels[-1])})" if " " in labels[0] else ""
            raise PlanError(f"{word[:40]} names layer {name[:30]}: this run has layers 1 to {plan.rows}{named}")
        if column is not None and not (0 <= column < plan.columns and plan.keep[row][column]):
            has = ", ".join(str(c + 1) for c, kept in enumerate(plan.keep[row]) if kept) or "none"
            raise PlanError(
                f"{word[:40]} names an expert that this run does not have: layer {plan.row_labels[row]} has {has}"
            )
        cells += [(row, c) for c, kept in enumerate(plan.keep[row]) if kept and column in (None, c)]
    return tuple(cells)


def off_text(plan: MaskPlan, cells: Sequence[Cell]) -> str:
    """The inverse of `read_off`, as short as it can be: "L3E2,L4"."""
    chosen, words = set(cells), []
    for row, kept in enumerate(plan.keep):
        layer = _layer_word(plan.row_labels[row])
        own = [c for c, exists in enumerate(kept) if exists]
        off = [c for c in own if (row, c) in chosen]
        words += [layer] if off and off == own else [f"{layer}E{c + 1}" for c in off]
    return ",".join(words)


def _layer_word(label: str) -> str:
    return f"L{label.replace(' ', '.')}"
