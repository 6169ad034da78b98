"""MaskPlan: a mask over experts as plain data.

A plan is a canvas. A row is a linear layer of the backbone, by its exact name; a cell is an expert. A cell exists or
not (the fixed mask); an existing expert is dropped with its own probability in each training step (the stochastic
mask). `core.patterns` builds the paper's plans, `core.budget` computes what a plan costs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import Any

from mlae_lab.core import bounded_json
from mlae_lab.errors import LabError

MAX_COLUMNS = 16
MAX_ROWS = 512
MAX_NAME = 120  # characters of a target
_MAX_CODE = 200_000  # characters: 8,192 rates of six and 512 names
_CODE_VERSION = "m1"
_BLOCK_TARGET = re.compile(r"blocks\.(\d+)\.(.+)")
_IN_BLOCK = re.compile(r"(?:.*\.)?\d+\.(.+)")


class Kind(str, Enum):
    """Kind of masking, in the paper's terms (section 3.3)."""

    DENSE = "dense"
    FIXED = "fixed"
    STOCHASTIC = "stochastic"
    MIXED = "mixed"


class PlanError(LabError):
    """A plan that breaks a rule; the message gives the value, the rule and what would work."""


def block_targets(layers: int, module: str = "attn.qkv") -> tuple[str, ...]:
    """The names `blocks.0.<module>` to `blocks.<layers-1>.<module>` of a timm vision transformer."""
    return tuple(f"blocks.{i}.{module}" for i in range(layers))


def module_of(target: str) -> str:
    """The kind of a layer: its name within its block, `attn.qkv` for `blocks.0.attn.qkv`."""
    match = _IN_BLOCK.fullmatch(target)
    return match[1] if match else target


def groups(targets: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Row numbers (from 0) of each kind of layer, in the order of their first rows."""
    rows_of: dict[str, list[int]] = {}
    for row, target in enumerate(targets):
        rows_of.setdefault(module_of(target), []).append(row)
    return {module: tuple(rows) for module, rows in rows_of.items()}


def row_labels(targets: Sequence[str]) -> tuple[str, ...]:
    """The label of the row of each layer.

    The number of the layer among the layers of its kind, counted from 1 through all stages, followed by the kind
    where there are several: "3", or "3 qkv" and "3 fc1". A kind is named in full where its last part alone would be
    ambiguous ("3 mlp_tokens.fc1").
    """
    kinds = groups(targets)
    endings = [kind.rpartition(".")[2] for kind in kinds]
    labels = [""] * len(targets)
    for (kind, rows), ending in zip(kinds.items(), endings, strict=True):
        name = ending if endings.count(ending) == 1 else kind
        for number, row in enumerate(rows, 1):
            labels[row] = f"{number} {name}" if len(kinds) > 1 else str(number)
    return tuple(labels)


@dataclass(frozen=True)
class MaskPlan:
    """A mask over experts: ΔW_l = Σ_i m_li λ_li b_li a_liᵀ (paper, equations 3 to 5).

    Attributes:
        keep: rows x columns, True where an expert exists. Columns: 1 to 16. A row may be empty.
        drop_rate: rows x columns, probability in [0, 1) that the expert is dropped in a training step; rounded to 4
            decimals, and 0 where no expert exists. Active experts are rescaled by 1/(1-p).
        targets: One exact module name for each row, such as `blocks.0.attn.qkv`; all different.
        expert_rank: Rank of each expert, 1 (the paper's choice) to 256.
        coefficient_init: Initial λ, |λ| from 1e-6 to 1000 (the paper: 1, or 0.125 to 4 by task, Table 10).
        train_coefficients: Whether λ is trained ("adaptive", section 3.3) or keeps its initial value.

    Raises:
        PlanError: If a value breaks its rule.
    """

    keep: tuple[tuple[bool, ...], ...]
    drop_rate: tuple[tuple[float, ...], ...]
    targets: tuple[str, ...]
    expert_rank: int = 1
    coefficient_init: float = 1.0
    train_coefficients: bool = True

    def __post_init__(self) -> None:
        keep = _canvas(self.keep, "keep", _as_bool)
        rates = _canvas(self.drop_rate, "drop_rate", _as_rate)
        rows, columns = len(keep), len(keep[0])
        if not 1 <= columns <= MAX_COLUMNS:
            raise PlanError(f"the plan has {columns} columns: a canvas is 1 to {MAX_COLUMNS} experts wide")
        if rows > MAX_ROWS:
            raise PlanError(f"the plan has {rows} rows: a canvas has at most {MAX_ROWS} target layers")
        if (len(rates), len(rates[0])) != (rows, columns):
            raise PlanError(
                f"drop_rate is {len(rates)} x {len(rates[0])} and keep is {rows} x {columns}: "
                "both must have one value for each cell"
            )
        if not isinstance(self.targets, Sequence) or isinstance(self.targets, str):
            raise PlanError(f"targets is {_short(self.targets)}: it must be a list of module names")
        targets = tuple(self.targets)
        if len(targets) != rows:
            raise PlanError(f"{len(targets)} targets for {rows} rows: name exactly one linear layer for each row")
        for name in targets:
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", name):
                raise PlanError(
                    f"{_short(name)} is not a module name: write it as timm does, for example blocks.0.attn.qkv"
                )
            _require_short(name)
        if len(set(targets)) != rows:
            duplicate = next(name for name in targets if targets.count(name) > 1)
            raise PlanError(f"{_short(duplicate)[1:-1]} is the target of two rows: each target layer has one row")
        if type(self.expert_rank) is not int or not 1 <= self.expert_rank <= 256:
            raise PlanError(f"expert_rank is {_short(self.expert_rank)}: it must be a whole number from 1 to 256")
        init = _as_number(self.coefficient_init, "coefficient_init")
        if not 1e-6 <= abs(init) <= 1000:  # smaller values underflow in float32 products: the expert never learns
            raise PlanError(f"coefficient_init is {init:g}: its absolute value must be from 1e-06 to at most 1000")
        if not isinstance(self.train_coefficients, bool):
            raise PlanError(f"train_coefficients is {_short(self.train_coefficients)}: it must be true or false")
        rates = tuple(
            tuple(p if k else 0.0 for p, k in zip(row, kept, strict=True))
            for row, kept in zip(rates, keep, strict=True)
        )  # a rate without an expert has no meaning, and equal plans must be equal data
        for field, value in (("keep", keep), ("drop_rate", rates), ("targets", targets), ("coefficient_init", init)):
            object.__setattr__(self, field, value)

    # ------------------------------------------------------------ properties

    @property
    def rows(self) -> int:
        return len(self.keep)

    @property
    def columns(self) -> int:
        return len(self.keep[0])

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """Experts that exist in each row."""
        return tuple(sum(row) for row in self.keep)

    @cached_property
    def rates(self) -> tuple[tuple[float, ...], ...]:
        """The drop rates of the experts that exist, in each row."""
        return tuple(
            tuple(p for k, p in zip(kept, row, strict=True) if k)
            for kept, row in zip(self.keep, self.drop_rate, strict=True)
        )

    @property
    def experts(self) -> int:
        """Experts that exist, over all rows."""
        return sum(self.kept)

    @cached_property
    def row_labels(self) -> tuple[str, ...]:
        """The label of each row on every page, in links and in answers."""
        return row_labels(self.targets)

    @property
    def kind(self) -> Kind:
        fixed = self.experts < self.rows * self.columns
        stochastic = any(p > 0 for row in self.drop_rate for p in row)
        if fixed:
            return Kind.MIXED if stochastic else Kind.FIXED
        return Kind.STOCHASTIC if stochastic else Kind.DENSE

    @property
    def kind_name(self) -> str:
        """The kind in words; "empty" for a plan without experts, whose run trains only the head."""
        return self.kind.value if self.experts else "empty"

    def row_rates(self) -> tuple[float | None, ...]:
        """The drop rate of each row: None where its experts differ, 0 for an empty row."""
        shared = []
        for rates in self.rates:
            values = set(rates) or {0.0}
            shared.append(values.pop() if len(values) == 1 else None)
        return tuple(shared)

    @cached_property
    def hash(self) -> str:
        """Twelve hex digits of SHA-256 over the canonical JSON; the same on every machine."""
        data = self.to_dict()
        data["drop_rate"] = [[round(p * 10_000) for p in row] for row in self.drop_rate]
        data["coefficient_init"] = repr(self.coefficient_init)
        canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    # ------------------------------------------------------------ changed plans

    def with_rates(self, rates: Sequence[float]) -> MaskPlan:
        """The plan with one drop rate for each row. rates: one number in [0, 1) per row."""
        if len(rates) != self.rows:
            raise PlanError(f"{len(rates)} drop rates for {self.rows} rows: give one for each row")
        return replace(self, drop_rate=tuple((rate,) * self.columns for rate in rates))

    # ------------------------------------------------------------ JSON and text code

    def to_dict(self) -> dict:
        """Plain data: lists, numbers, strings; keep as 0 and 1."""
        return {
            "targets": list(self.targets),
            "keep": [[int(k) for k in row] for row in self.keep],
            "drop_rate": [list(row) for row in self.drop_rate],
            "expert_rank": self.expert_rank,
            "coefficient_init": self.coefficient_init,
            "train_coefficients": self.train_coefficients,
        }

    @classmethod
    def from_dict(cls, data: object) -> MaskPlan:
        """The inverse of `to_dict`.

        Raises:
            PlanError: If an entry is missing, unknown or not valid.
        """
        if not isinstance(data, Mapping):
            raise PlanError(f"a plan is a JSON object with keep, drop_rate and targets, not {_short(data)}")
        known = {"targets", "keep", "drop_rate", "expert_rank", "coefficient_init", "train_coefficients"}
        missing = {"targets", "keep", "drop_rate"} - set(data)
        if missing:
            raise PlanError(f"the plan lacks {', '.join(sorted(missing))}: it needs targets, keep and drop_rate")
        unknown = set(data) - known
        if unknown:
            first = min(map(_short, unknown))
            raise PlanError(f"the plan has the unknown entry {first}: it may have {', '.join(sorted(known))}")
        return cls(**data)

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> MaskPlan:
        try:
            data = bounded_json.parsed(text)
        except ValueError as error:
            raise PlanError(f"this is not JSON ({error}): a plan file is one JSON object") from None
        return cls.from_dict(data)

    @cached_property
    def code(self) -> str:
        """The whole plan as one line that fits in a link, for example `m1_12x8_ff*12_.5*12`.

        Parts, joined by `_`: version, rows x columns, the kept cells of each row as a hexadecimal
        number (bit 0 is expert 1), the drop rate of each row (or of each existing cell, joined by
        `,`), and where they differ from the default: `r` rank, `c` initial λ, `frozen`,
        `t` the module below each block or `n` all names joined by `,`. `*n` repeats a row n times.
        """
        bits = [format(sum(k << i for i, k in enumerate(row)), "x") for row in self.keep]
        rates = []
        for row in self.rates:
            values = row or (0.0,)
            rates.append(",".join(map(_rate_text, values if len(set(values)) > 1 else values[:1])))
        parts = [_CODE_VERSION, f"{self.rows}x{self.columns}", _runs(bits), _runs(rates)]
        if self.expert_rank != 1:
            parts.append(f"r{self.expert_rank}")
        if self.coefficient_init != 1.0:
            parts.append(f"c{self.coefficient_init!r}")
        if not self.train_coefficients:
            parts.append("frozen")
        if self.targets != block_targets(self.rows):
            module = _BLOCK_TARGET.fullmatch(self.targets[0])
            is_regular = module and self.targets == block_targets(self.rows, module[2])
            parts.append("t" + module[2] if module and is_regular else "n" + ",".join(self.targets))
        return "_".join(_escape(part) for part in parts)

    @classmethod
    def from_code(cls, code: str) -> MaskPlan:
        """The inverse of `code`.

        Raises:
            PlanError: If a part cannot be read.
        """
        if len(code) > _MAX_CODE:
            raise PlanError(f"the mask code has {len(code):,} characters: it may have {_MAX_CODE:,}")
        parts = [part.replace("~u", "_") for part in code.strip().split("_")]
        shape = re.fullmatch(r"(\d{1,3})x(\d{1,2})", parts[1]) if len(parts) >= 4 else None
        if parts[0] != _CODE_VERSION or shape is None:
            raise PlanError(f"{_short(code)} is not a mask code: one looks like m1_12x8_ff*12_.5*12")
        rows, columns = int(shape[1]), int(shape[2])
        if not (1 <= rows <= MAX_ROWS and 1 <= columns <= MAX_COLUMNS):
            raise PlanError(f"the mask code says {rows} x {columns}: at most {MAX_ROWS} rows and {MAX_COLUMNS} columns")
        keep = []
        for text in _unrun(parts[2], rows, "kept experts"):
            if not re.fullmatch(r"[0-9a-f]{1,4}", text) or int(text, 16) >= 1 << columns:
                raise PlanError(f"{_short(text)} in the mask code is not a row of {columns} experts in hexadecimal")
            keep.append(tuple(bool(int(text, 16) >> i & 1) for i in range(columns)))
        rates = []
        for kept, text in zip(keep, _unrun(parts[3], rows, "drop rates"), strict=True):
            values = [_parse_rate(value) for value in text.split(",")]
            if len(values) == 1:
                values *= max(1, sum(kept))
            if len(values) != max(1, sum(kept)):
                raise PlanError(f"{len(values)} drop rates for {sum(kept)} experts in one row of the mask code")
            remaining = iter(values)
            rates.append(tuple(next(remaining) if k else 0.0 for k in kept))
        fields: dict = {"targets": block_targets(rows)}
        for part in parts[4:]:
            if re.fullmatch(r"r\d{1,3}", part):
                fields["expert_rank"] = int(part[1:])
            elif part == "frozen":
                fields["train_coefficients"] = False
            elif re.fullmatch(r"c-?[0-9.e+-]{1,24}", part):
                fields["coefficient_init"] = _parse_number(part[1:])
            elif part.startswith("t"):
                _require_short(part)  # before it is repeated in every row
                fields["targets"] = block_targets(rows, part[1:])
            elif part.startswith("n"):
                fields["targets"] = tuple(part[1:].split(","))
            else:
                raise PlanError(f"{_short(part)} in the mask code is unknown: expected r2, c0.5, frozen, t... or n...")
        return cls(keep=tuple(keep), drop_rate=tuple(rates), **fields)


# ---------------------------------------------------------------- parsing of values


def _require_short(name: str) -> None:
    if len(name) > MAX_NAME:
        raise PlanError(f"the target {_short(name)} has {len(name):,} characters: it may have {MAX_NAME}")


def _short(value: object) -> str:
    """The value's representation, shortened to 60 characters for an error message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits, an endlessly nested list
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def _canvas(value: object, name: str, parse: Callable[[object, str], Any]) -> tuple[tuple, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise PlanError(f"{name} is {_short(value)}: it must be a list of rows")
    rows = []
    for row in value:
        if not isinstance(row, Sequence) or isinstance(row, str) or not row:
            raise PlanError(f"a row of {name} is {_short(row)}: each row must be a list with one value for each expert")
        if len(row) != len(value[0]):
            raise PlanError(f"{name} has rows of {len(value[0])} and {len(row)} cells: all rows must be equally wide")
        rows.append(tuple(parse(cell, name) for cell in row))
    return tuple(rows)


def _as_bool(value: object, name: str) -> bool:
    if isinstance(value, (bool, int)) and value in (0, 1):
        return bool(value)
    raise PlanError(f"a cell of {name} is {_short(value)}: it must be true, false, 1 or 0")


def _as_number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PlanError(f"{name} is {_short(value)}: it must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if number != number or number in (float("inf"), float("-inf")):
        raise PlanError(f"{name} is {_short(value)}: it must be a finite number")
    return number


def _as_rate(value: object, name: str) -> float:
    rate = round(_as_number(value, name), 4)
    if not 0 <= rate < 1:
        raise PlanError(
            f"a drop rate is {_short(value)}: it must be at least 0 and below 1, rounded to four decimals "
            "(at 1 an expert would never learn)"
        )
    return rate + 0.0  # -0.0 becomes 0.0


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise PlanError(f"{_short(text)} in the mask code is not a number") from None


def _parse_rate(text: str) -> float:
    return _as_rate(_parse_number(text), "drop_rate")


def _rate_text(rate: float) -> str:
    return f"{rate:.4f}".strip("0").rstrip(".") or "0"


def _runs(values: Iterable[str]) -> str:
    """Join rows with `-` and write equal neighbours once: ff-ff-3 becomes ff*2-3."""
    runs: list[list] = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1][1] += 1
        else:
            runs.append([value, 1])
    return "-".join(value if count == 1 else f"{value}*{count}" for value, count in runs)


def _unrun(text: str, rows: int, what: str) -> list[str]:
    """The inverse of `_runs`. what: the rows' content, for an error message."""
    values: list[str] = []
    for run in text.split("-"):
        value, star, count = run.partition("*")
        if star and not re.fullmatch(r"[1-9]\d{0,2}", count):
            raise PlanError(f"{_short(run)} in the mask code has no valid number of repetitions: write ff*12")
        values += [value] * (int(count) if star else 1)
        if len(values) > rows:
            break
    if len(values) != rows:
        raise PlanError(f"the mask code gives {what} for {len(values)} rows: it must be {rows}, as its size says")
    return values


def _escape(part: str) -> str:
    return part.replace("_", "~u")


def first_block(plan: MaskPlan | None, blocks: int) -> int:
    """Number (from 0) of the first block that has an expert; `blocks` if none has.

    Args:
        plan: None for a linear probe. A target outside `blocks.<number>`, as in Swin, counts as block 0.
        blocks: number of blocks, 1 for a network of stages.
    """
    if plan is None:
        return blocks
    numbers = [blocks]
    for target, kept in zip(plan.targets, plan.kept, strict=True):
        names = target.split(".")
        if kept:
            numbers.append(int(names[1]) if names[0] == "blocks" else 0)
    return min(numbers)
