"""Reference implementations that the tests compare the lab's own with.

The buttons of the canvas (`ui/mask_grid.js`) do to a plan what the functions here do. Rows of one kind of layer are a
group, and an edit that moves cells keeps them in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mlae_lab.core.edits import groups
from mlae_lab.core.plan import MaskPlan

_WORD = (1 << 32) - 1


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
    """Row `source` (from 0), experts and rates, on the rows `onto`."""
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


# ---------------------------------------------------------------- events


def unpacked(text: str, cells: int) -> list[bool]:
    """The inverse of `packed`. cells: of the canvas. Raises ValueError for a text of another length."""
    whole = bytes.fromhex(text)
    if len(whole) != -(-cells // 8):
        raise ValueError(f"a mask of {cells} cells takes {-(-cells // 8)} bytes, this one has {len(whole)}")
    return [bool(whole[i // 8] >> i % 8 & 1) for i in range(cells)]
