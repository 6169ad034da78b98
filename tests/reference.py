"""Reference implementations for the tests.

The buttons of the canvas (`ui/mask_grid.js`) edit a plan as these functions do. Rows of one kind of layer are a group,
and an edit that moves cells keeps them in their group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mlae_lab.core.edits import groups
from mlae_lab.core.plan import MaskPlan

_WORD = (1 << 32) - 1


def mirrored(plan: MaskPlan) -> MaskPlan:
    """The rows of each group in reverse order: incremental becomes decremental."""
    source = list(range(plan.rows))
    for rows in groups(plan.targets).values():
        for row, other in zip(rows, reversed(rows), strict=True):
            source[row] = other
    return replace(
        plan, keep=tuple(plan.keep[r] for r in source), drop_rate=tuple(plan.drop_rate[r] for r in source)
    )  # fmt: skip


def inverted(plan: MaskPlan) -> MaskPlan:
    """Existing experts removed and missing ones added, with the rate of their row's first expert (0 without one)."""
    return _kept(plan, tuple(tuple(not k for k in row) for row in plan.keep))


def filled(plan: MaskPlan) -> MaskPlan:
    """Every expert exists; new ones get the rate of their row's first expert (0 without one)."""
    return _kept(plan, ((True,) * plan.columns,) * plan.rows)


def cleared(plan: MaskPlan) -> MaskPlan:
    """No expert exists."""
    return _kept(plan, ((False,) * plan.columns,) * plan.rows)


def _kept(plan: MaskPlan, keep: tuple[tuple[bool, ...], ...]) -> MaskPlan:
    rates = []
    for old, known in zip(plan.keep, plan.drop_rate, strict=True):
        first = next((p for k, p in zip(old, known, strict=True) if k), 0.0)
        rates.append(tuple(p if existed else first for existed, p in zip(old, known, strict=True)))
    return replace(plan, keep=keep, drop_rate=tuple(rates))


def copied(plan: MaskPlan, source: int, onto: Sequence[int]) -> MaskPlan:
    """Experts and rates of row `source` (from 0) copied to the rows `onto`."""
    pick = [source if row in set(onto) else row for row in range(plan.rows)]
    return replace(plan, keep=tuple(plan.keep[r] for r in pick), drop_rate=tuple(plan.drop_rate[r] for r in pick))


def shuffled(plan: MaskPlan, seed: int) -> MaskPlan:
    """The same cells, each with its rate, at other positions of their group.

    Fisher-Yates from the last cell to the second with numbers of mulberry32: a seed gives the same plan here, in the
    browser and on every machine.

    Args:
        plan: The plan.
        seed: 0 to 2^32 - 1.
    """
    numbers = _mulberry32(seed)
    cells = [list(zip(kept, rates, strict=True)) for kept, rates in zip(plan.keep, plan.drop_rate, strict=True)]
    for rows in groups(plan.targets).values():
        flat = [cell for row in rows for cell in cells[row]]
        for last in range(len(flat) - 1, 0, -1):
            other = int(next(numbers) * (last + 1))
            flat[last], flat[other] = flat[other], flat[last]
        for position, row in enumerate(rows):
            cells[row] = flat[position * plan.columns : (position + 1) * plan.columns]
    return replace(
        plan,
        keep=tuple(tuple(k for k, _ in row) for row in cells),
        drop_rate=tuple(tuple(p for _, p in row) for row in cells),
    )


def _mulberry32(seed: int) -> Iterator[float]:
    """Numbers in [0, 1) of T. Ettinger's mulberry32 (public domain), which is short in every language."""
    state = seed & _WORD
    while True:
        state = (state + 0x6D2B79F5) & _WORD
        t = ((state ^ state >> 15) * (state | 1)) & _WORD
        t ^= (t + (t ^ t >> 7) * (t | 61)) & _WORD
        yield (t ^ t >> 14) / (1 << 32)


# ---------------------------------------------------------------- events


def unpacked(text: str, cells: int) -> list[bool]:
    """The inverse of `packed`. cells: number of cells of the canvas. Raises ValueError for another length."""
    content = bytes.fromhex(text)
    if len(content) != -(-cells // 8):
        raise ValueError(f"a mask of {cells} cells takes {-(-cells // 8)} bytes, this one has {len(content)}")
    return [bool(content[i // 8] >> i % 8 & 1) for i in range(cells)]
