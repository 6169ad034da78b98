"""Events of a training run: plain records, one class per kind.

`training.trainer.fit` yields them, the worker writes them to the store, pages read them. Arrays
are nested tuples with one value per cell of the plan's canvas, None where no expert exists.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from types import MappingProxyType, UnionType
from typing import Any, ClassVar, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from mlae_lab.errors import LabError

Canvas = tuple[tuple[float | None, ...], ...]
StatisticValue = float | tuple[float | None, ...] | Canvas | None  # of a run, by layer, or by layer and expert
MAX_STATISTICS = 64  # in one event
MAX_STATISTIC_SIZE = 256  # layers, and columns of a layer, of a method without a mask
MAX_IMAGES_RECORDED = 1_000  # of an evaluation, image by image
_NAME = re.compile("[a-z][a-z0-9_]{0,47}")
_LABEL_LETTERS = 100
_NOTE_LETTERS = 400


@dataclass(frozen=True)
class Preparing:
    """At intervals before `Started`, while images are decoded for the first time. done, total: images."""

    kind: ClassVar[str] = "preparing"
    done: int
    total: int


@dataclass(frozen=True)
class Started:
    """Once, before the first step.

    Attributes:
        parameters: Trainable parameters of the experts.
        head_parameters: Trainable parameters of the head.
        backbone_parameters: Frozen parameters.
        train_images: Number of training images.
        evaluation_images: Number of evaluation images.
        steps: Steps of the whole run.
        device: "cpu" or "cuda".
        precision: "float32" or "bfloat16".
        seconds: Loading time before the first step.
        notes: Changes made to fit the weights, and why an available GPU is not used.
        weights: Twelve hex digits of SHA-256 over the backbone's tensors, head excluded.
        evaluated: In a cross-validation, which images of train and val, in this order, are the evaluation images; ()
            without one, or for more than `MAX_IMAGES_RECORDED`.
    """

    kind: ClassVar[str] = "started"
    parameters: int
    head_parameters: int
    backbone_parameters: int
    train_images: int
    evaluation_images: int
    steps: int
    device: str
    precision: str
    seconds: float
    notes: tuple[str, ...] = ()
    weights: str = ""
    evaluated: tuple[int, ...] = ()


@dataclass(frozen=True)
class Resumed:
    """Before the first step of a run that resumes from a checkpoint.

    Attributes:
        epoch: Epoch of the checkpoint's last step.
        step: Number of that step.
        seconds: Training time before it.
        source: "" for the run's own checkpoint, else the run that it was copied from.
        notes: Which newer checkpoints were skipped, and what differs from the machine that trained the steps so far.
    """

    kind: ClassVar[str] = "resumed"
    epoch: int
    step: int
    seconds: float
    source: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainStep:
    """After every optimizer step.

    Attributes:
        step: Counted from 1.
        epoch: Counted from 1.
        loss: Mean cross-entropy of the batch.
        accuracy: Of the training batch, in percent.
        learning_rate: Of this step.
        active: Number of active experts.
        seconds: Since the first step began.
        mask: The active experts as `packed` writes them; "" for a method without experts.
    """

    kind: ClassVar[str] = "step"
    step: int
    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    active: int
    seconds: float
    mask: str = ""


@dataclass(frozen=True)
class Evaluation:
    """After an evaluated epoch, following the `ExpertStats`, `SimilarityStats` and `Predictions` of the same step.

    Attributes:
        epoch: Counted from 1.
        step: Last step before the evaluation.
        split: "val" or "test".
        accuracy: Top-1 in percent, all experts on and not rescaled.
        loss: Mean cross-entropy.
        seconds: Since the first step began, evaluation included.
        correct: Which images are classified correctly, in the order of the split, as `packed` writes them; "" for a
            split of more than `MAX_IMAGES_RECORDED` images.
    """

    kind: ClassVar[str] = "evaluation"
    epoch: int
    step: int
    split: str
    accuracy: float
    loss: float
    seconds: float
    correct: str = ""


@dataclass(frozen=True)
class ExpertStats:
    """Statistics of the experts, with each evaluation; one canvas each.

    Attributes:
        epoch: Counted from 1.
        active_share: Share of the steps so far in which the expert was active, [0, 1].
        contribution: Mean over tokens of ‖λ b aᵀx‖ / ‖W x + bias‖ on the first 256 evaluation images.
        coefficient: Current λ.
        gradient: Norm of the gradient of a and b together, mean over the steps since the last evaluation in which
            the expert was active.
    """

    kind: ClassVar[str] = "experts"
    epoch: int
    active_share: Canvas
    contribution: Canvas
    coefficient: Canvas
    gradient: Canvas


@dataclass(frozen=True)
class SimilarityStats:
    """Cosine similarity between the experts of a row (appendix A.4), with each evaluation.

    Attributes:
        epoch: Counted from 1.
        signed: Mean cosine over pairs, one value per row, None for a row with fewer than two experts.
        absolute: Mean |cosine| over pairs, likewise.
        matrices: Per row the full matrix of its existing experts, in order.
        effective_rank: Of ΔW per row with all experts on, None where ΔW is 0; independent of how ΔW is split into
            experts (`analysis.spectrum`). Empty in runs of earlier versions.
        stable_rank: Likewise.
    """

    kind: ClassVar[str] = "similarity"
    epoch: int
    signed: tuple[float | None, ...]
    absolute: tuple[float | None, ...]
    matrices: tuple[Canvas, ...]
    effective_rank: tuple[float | None, ...] = ()
    stable_rank: tuple[float | None, ...] = ()


class Grid(NamedTuple):
    """How a canvas is drawn: one cell for each row and column.

    Attributes:
        rows: Labels of the rows, one for each layer.
        columns: Labels of the columns.
        axis: What a column is, such as "rank".
        note: What the colour of a cell means, and why a cell is crossed out; in sentences.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    axis: str
    note: str


@dataclass(frozen=True)
class Statistics:
    """With each evaluation: whatever else a method or an analysis records (`training.statistics`).

    The event describes itself, so that no reader has to know a statistic.

    Args:
        epoch: Of the evaluation.
        step: Of the evaluation.
        values: By name: a number, one number per layer, or a canvas; None where there is no value.
        labels: By name: title and unit ("" for none), as a figure shows them.
        grids: By name, of canvases that are drawn as a grid. Empty in runs of 0.8 and before.
    """

    kind: ClassVar[str] = "statistics"
    epoch: int
    step: int
    values: Mapping[str, StatisticValue]
    labels: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    grids: Mapping[str, Grid] = field(default_factory=dict)

    def __post_init__(self) -> None:
        grids = {name: Grid(*grid) for name, grid in self.grids.items()}
        object.__setattr__(self, "grids", MappingProxyType(grids))
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))

    def __hash__(self) -> int:
        return hash((self.epoch, self.step, frozenset(self.values.items()), frozenset(self.labels.items())))

    def require_valid(self, rows: int | None, columns: int | None) -> None:
        """Check names, labels, numbers and sizes.

        Args:
            rows: Layers of the plan's canvas; None for a method without a mask, whose layers are its own: then at most
                MAX_STATISTIC_SIZE layers, with equal numbers of columns in all statistics that have some.
            columns: Experts of the plan's canvas, or None.

        Raises:
            ValueError: For anything that a store, an archive or a figure could not take.
        """
        if len(self.values) > MAX_STATISTICS:
            raise ValueError(f"there are {len(self.values)} statistics: at most {MAX_STATISTICS} are recorded")
        for name, value in self.values.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"a statistic is named {name[:60]!r}: use 1 to 48 of a-z, 0-9 and _, a letter first")
            lines = value if isinstance(value, tuple) else ()
            of_experts = [line for line in lines if isinstance(line, tuple)]
            is_canvas = bool(of_experts) and len(of_experts) == len(lines)
            own_rows = len(lines) if rows is None else rows
            own_columns = len(of_experts[0]) if columns is None and of_experts else columns
            if isinstance(value, tuple) and (
                len(value) != own_rows
                or max(own_rows, own_columns or 0) > MAX_STATISTIC_SIZE
                or (of_experts and not is_canvas)
                or any(len(line) != own_columns for line in of_experts)
            ):
                size = f"{own_rows} x {own_columns}"
                raise ValueError(f"statistic {name} must be a number, {own_rows} numbers, or a canvas of {size}")
            numbers = [n for line in of_experts for n in line] if is_canvas else lines or [value]
            if not all(n is None or (isinstance(n, float | int) and math.isfinite(n)) for n in numbers):
                raise ValueError(f"statistic {name} holds something that is neither a finite number nor None")
        if set(self.labels) - set(self.values):
            raise ValueError("labels of statistics must belong to a value")
        if any(len(text) > _LABEL_LETTERS for label in self.labels.values() for text in label):
            raise ValueError(f"labels of statistics take at most {_LABEL_LETTERS} letters")
        for name, grid in self.grids.items():
            lines = self.values.get(name)
            shape = [len(line) if isinstance(line, tuple) else -1 for line in lines] if isinstance(lines, tuple) else []
            if not shape or shape != [len(grid.columns)] * len(grid.rows):
                raise ValueError(f"the grid of {name} must have a label for each row and column of its canvas")
            if any(len(text) > _LABEL_LETTERS for text in (*grid.rows, *grid.columns, grid.axis)):
                raise ValueError(f"labels of grids take at most {_LABEL_LETTERS} letters")
            if len(grid.note) > _NOTE_LETTERS:
                raise ValueError(f"the note of a grid takes at most {_NOTE_LETTERS} letters")


@dataclass(frozen=True)
class SearchGeneration:
    """After every generation of a search over a super-network (`core.search`).

    Attributes:
        epoch: The last one before the search.
        step: The last one before the search.
        generation: Counted from 1.
        generations: Of the whole search.
        candidates: Evaluated so far.
        images: On which each was evaluated; none of them is trained on before the search.
        best: Accuracy of the best candidate so far, in percent.
        mean: Accuracy of this generation's candidates, in percent.
        parameters: That the best candidate uses, without the head.
        seconds: Since the first step began.
        labels: Of the lines of `chosen`.
        chosen: What the best candidate is: for each label the form in each block.
        levels: Likewise, the form as a share of the fullest, [0, 1].
    """

    kind: ClassVar[str] = "search"
    epoch: int
    step: int
    generation: int
    generations: int
    candidates: int
    images: int
    best: float
    mean: float
    parameters: int
    seconds: float
    labels: tuple[str, ...]
    chosen: tuple[tuple[str, ...], ...]
    levels: Canvas

    def require_valid(self) -> None:
        """Raise ValueError for sizes, shares or accuracies that no search reports."""
        sizes = {len(row) for row in (*self.chosen, *self.levels)}
        if not len(self.labels) == len(self.chosen) == len(self.levels) or len(sizes) > 1:
            raise ValueError("labels, chosen and levels of search must have equal numbers of lines and of blocks")
        if max(len(self.labels), *sizes, 0) > MAX_STATISTIC_SIZE:
            raise ValueError(f"search must have at most {MAX_STATISTIC_SIZE} lines and blocks")
        if any(len(text) > _LABEL_LETTERS for text in (*self.labels, *(form for row in self.chosen for form in row))):
            raise ValueError(f"labels and forms of search take at most {_LABEL_LETTERS} letters")
        if not all(value is not None and 0 <= value <= 1 for row in self.levels for value in row):
            raise ValueError("levels of search must be from 0 to 1")
        if not (0 <= self.mean <= 100 and 0 <= self.best <= 100):
            raise ValueError("accuracies of search must be from 0 to 100")


@dataclass(frozen=True)
class SampleImages:
    """A few evaluation images whose predictions are recorded with every evaluation; once, after `Started`.

    Attributes:
        images: Each a small JPEG or PNG in base64.
        labels: Names of their classes.
    """

    kind: ClassVar[str] = "sample_images"
    images: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Predictions:
    """Predictions for the images of `SampleImages`, in their order, with each evaluation.

    Attributes:
        epoch: Counted from 1.
        step: Last step before the evaluation.
        predicted: Name of the class with the highest probability.
        confidence: That probability, [0, 1].
    """

    kind: ClassVar[str] = "predictions"
    epoch: int
    step: int
    predicted: tuple[str, ...]
    confidence: tuple[float, ...]


@dataclass(frozen=True)
class Saved:
    """Adapter and checkpoint of this step are on disk. bytes: size of the adapter file."""

    kind: ClassVar[str] = "saved"
    epoch: int
    step: int
    bytes: int


Event = (
    Preparing
    | Started
    | SampleImages
    | Resumed
    | TrainStep
    | Evaluation
    | ExpertStats
    | SimilarityStats
    | Predictions
    | Statistics
    | SearchGeneration
    | Saved
)
E = TypeVar("E", bound=Event)
KINDS: dict[str, type[Event]] = {e.kind: e for e in get_args(Event)}
OF_EVALUATION = (ExpertStats, SimilarityStats, Predictions, Statistics)  # an Evaluation follows and completes them

# Kinds and fields as versions up to 0.5 called them; `runs.schema` renames them in a store, `renamed` in an archive.
OLD_KINDS = {"watched": SampleImages.kind, "guesses": Predictions.kind}
OLD_FIELDS: dict[str, dict[str, str]] = {
    Started.kind: {"train_pictures": "train_images", "evaluation_pictures": "evaluation_images"},
    TrainStep.kind: {"drawn": "active"},
    ExpertStats.kind: {"share_drawn": "active_share"},
    SampleImages.kind: {"pictures": "images", "truth": "labels"},
    Predictions.kind: {"guess": "predicted"},
}


def renamed(kind: str, payload: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Kind and payload of an event under their current names; accepts those of version 0.5 and current ones."""
    kind = OLD_KINDS.get(kind, kind)
    names = OLD_FIELDS.get(kind, {})
    return kind, {names.get(name, name): value for name, value in payload.items()}


def packed(mask: Iterable[bool]) -> str:
    """A mask as hexadecimal bytes: cell i of the canvas, counted row by row, is bit i % 8 of byte i // 8."""
    cells = [bool(cell) for cell in mask]
    return bytes(sum(cell << i for i, cell in enumerate(cells[k : k + 8])) for k in range(0, len(cells), 8)).hex()


def unpacked(text: str, count: int) -> tuple[bool, ...]:
    """The inverse of `packed`. Raises ValueError for a text that does not hold `count` cells."""
    data = bytes.fromhex(text)
    if len(data) != -(-count // 8):
        raise ValueError(f"{len(data)} bytes do not hold {count} cells")
    return tuple(bool(data[i // 8] >> i % 8 & 1) for i in range(count))


def to_json(event: Event) -> str:
    """The event's fields as JSON; not-a-number and infinities are kept (NaN, Infinity)."""
    return json.dumps({f.name: getattr(event, f.name) for f in fields(event)}, separators=(",", ":"), default=dict)


class EventError(LabError, ValueError):
    """A text that is not an event of its kind, as after damage to the disk."""


def from_json(kind: type[E], text: str) -> E:
    """The inverse of `to_json`; ignores fields that only a newer version knows.

    Raises:
        EventError: The text is not JSON, lacks a field, or has a value of another type.
    """
    checks = _checks(kind)
    try:
        values = {name: _immutable(value) for name, value in json.loads(text).items() if name in checks}
        event = kind(**values)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise EventError(f"it is not an event of kind {kind.kind}: {str(error)[:200]}") from None
    for name, value in values.items():
        if not checks[name](value):
            raise EventError(f"its {name} has a value of another type: {str(value)[:60]}")
    return event


@cache
def _checks(kind: type[Event]) -> dict[str, Callable[[Any], bool]]:
    """For each field a function that tells whether a value has its type."""
    hints = get_type_hints(kind)
    return {f.name: _check(hints[f.name]) for f in fields(kind)}


def _check(hint: Any) -> Callable[[Any], bool]:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint == Canvas:
        is_row = _check(arguments[0])
        return lambda v: type(v) is tuple and all(map(is_row, v)) and len(set(map(len, v))) <= 1
    if hint is Grid:
        origin, arguments = tuple, tuple(get_type_hints(Grid).values())
    if origin is tuple and arguments[-1] is not Ellipsis:
        parts = tuple(map(_check, arguments))
        return lambda v: type(v) is tuple and len(v) == len(parts) and all(c(e) for c, e in zip(parts, v, strict=True))
    if origin is tuple:
        is_entry = _check(arguments[0])
        return lambda v: type(v) is tuple and all(map(is_entry, v))
    if origin in (UnionType, Union):
        options = tuple(map(_check, arguments))
        return lambda v: any(option(v) for option in options)
    if origin is not None:  # a mapping
        is_value = _check(arguments[1])
        return lambda v: isinstance(v, Mapping) and all(map(is_value, v.values()))
    types = (float, int) if hint is float else (hint,)  # not isinstance: True is no number
    return lambda v: type(v) in types


def _immutable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _immutable(entry) for name, entry in value.items()}
    return tuple(map(_immutable, value)) if isinstance(value, list) else value


def mean_of(values: tuple[float | None, ...]) -> float | None:
    """Mean of the values other than None; None if there are none."""
    present = [v for v in values if v is not None]
    return sum(present) / len(present) if present else None
