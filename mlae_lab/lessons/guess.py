"""The forms of a guess: what a person can answer before a network trains.

A guess is plain data that survives JSON. What comes from a browser is checked by `checked`, which returns None for
anything that is not a complete guess.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


def _number(value: object, low: float, high: float) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number and low <= value <= high else None  # type: ignore[arg-type, operator]


def _numbers(value: object, count: int, low: float, high: float) -> list[float] | None:
    if not isinstance(value, list | tuple) or len(value) != count:
        return None
    numbers = [_number(entry, low, high) for entry in value]
    return None if None in numbers else [number for number in numbers if number is not None]


@dataclass(frozen=True)
class Sliders:
    """One number for each of several things.

    Attributes:
        handles: (arm, label) of each slider.
        low: Lowest value.
        high: Highest value.
        unit: Of the values.
    """

    kind: ClassVar[str] = "sliders"
    handles: tuple[tuple[str, str], ...]
    low: float = 0.0
    high: float = 100.0
    unit: str = "%"

    def checked(self, value: object) -> list[float] | None:
        return _numbers(value, len(self.handles), self.low, self.high)

    def words(self, value: Any) -> str:
        """A guess as text."""
        return ", ".join(f"{label} {v:g} {self.unit}" for (_, label), v in zip(self.handles, value, strict=True))


@dataclass(frozen=True)
class Row:
    """One layer of the grid. arms: the arm of each layer, from the input to the output."""

    kind: ClassVar[str] = "row"
    arms: tuple[str, ...]
    columns: int = 8

    def checked(self, value: object) -> int | None:
        return value if type(value) is int and 0 <= value < len(self.arms) else None

    def words(self, value: Any) -> str:
        """A guess as text."""
        return f"layer {value + 1}"


@dataclass(frozen=True)
class Curve:
    """A curve through several points; the first one is given.

    Attributes:
        x: Position of each point, the given one first.
        arms: The arm of each point.
        x_label: Name of the x axis.
        low: Lowest value.
        high: Highest value.
    """

    kind: ClassVar[str] = "curve"
    x: tuple[float, ...]
    arms: tuple[str, ...]
    x_label: str
    low: float = 0.0
    high: float = 100.0

    def checked(self, value: object) -> list[float] | None:
        return _numbers(value, len(self.x) - 1, self.low, self.high)

    def words(self, value: Any) -> str:
        """A guess as text."""
        return ", ".join(f"{v:.0f} % at {x:g}" for x, v in zip(self.x[1:], value, strict=True))


@dataclass(frozen=True)
class Arrow:
    """Up or down. quantity: what rises or falls."""

    kind: ClassVar[str] = "arrow"
    quantity: str

    def checked(self, value: object) -> str | None:
        return value if value in ("up", "down") else None  # type: ignore[return-value]

    def words(self, value: Any) -> str:
        """A guess as text."""
        return f"{self.quantity} {'rises' if value == 'up' else 'falls'}"


@dataclass(frozen=True)
class Cells:
    """Some cells of the grid of experts. count: how many must be picked."""

    kind: ClassVar[str] = "cells"
    count: int = 5
    rows: int = 12
    columns: int = 8

    def checked(self, value: object) -> list[list[int]] | None:
        if not isinstance(value, list | tuple) or len(value) != self.count:
            return None
        cells = [self._cell(entry) for entry in value]
        known = [cell for cell in cells if cell is not None]
        return [list(cell) for cell in sorted(set(known))] if len(set(known)) == self.count else None

    def _cell(self, entry: object) -> tuple[int, int] | None:
        if not isinstance(entry, list | tuple) or len(entry) != 2:
            return None
        row, column = entry
        if type(row) is not int or type(column) is not int:
            return None
        return (row, column) if 0 <= row < self.rows and 0 <= column < self.columns else None

    def words(self, value: Any) -> str:
        """A guess as text."""
        return ", ".join(f"layer {row + 1} expert {column + 1}" for row, column in value)


@dataclass(frozen=True)
class Verdict:
    """A is better, B is better, or one cannot tell; and how many seeds one would want.

    Attributes:
        first: The arm A.
        second: The arm B.
        labels: Of A and B.
        max_seeds: Highest number of seeds that can be given.
    """

    kind: ClassVar[str] = "verdict"
    first: str
    second: str
    labels: tuple[str, str]
    max_seeds: int = 20
    choices: ClassVar[tuple[str, ...]] = ("A", "B", "cannot tell")

    def checked(self, value: object) -> list | None:
        if not isinstance(value, list | tuple) or len(value) != 2 or value[0] not in self.choices:
            return None
        seeds = _number(value[1], 1, self.max_seeds)
        return None if seeds is None else [value[0], int(seeds)]

    def words(self, value: Any) -> str:
        """A guess as text."""
        what = {"A": f"{self.labels[0]} is better", "B": f"{self.labels[1]} is better"}.get(value[0], "cannot tell")
        return f"{what}; {value[1]} {'seed' if value[1] == 1 else 'seeds'} needed"


Guess = Sliders | Row | Curve | Arrow | Cells | Verdict


def counts(guess: Guess, values: Sequence[Any]) -> dict[str, int]:
    """How often each answer was given, for guesses that choose among a few answers."""
    if isinstance(guess, Row):
        return {str(row + 1): sum(value == row for value in values) for row in range(len(guess.arms))}
    if isinstance(guess, Arrow):
        return {name: sum(value == key for value in values) for key, name in (("up", "rises"), ("down", "falls"))}
    if isinstance(guess, Verdict):
        return {name: sum(value[0] == name for value in values) for name in guess.choices}
    return {}
