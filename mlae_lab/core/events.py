"""What a training run says of itself: plain records, one kind each.

`training.trainer.fit` yields them, the worker writes them to the store, pages read them. Arrays
are nested tuples with one value per cell of the plan's canvas, None where no expert exists.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar, get_args

Canvas = tuple[tuple[float | None, ...], ...]
StatisticValue = float | tuple[float | None, ...] | Canvas | None  # of a run, by layer, or by layer and expert
MAX_STATISTICS = 64  # in one event
_NAME = re.compile("[a-z][a-z0-9_]{0,47}")
_LABEL_LETTERS = 100


@dataclass(frozen=True)
class Preparing:
    """Now and then before `Started`, while images are decoded for the first time. done, total: images."""

    kind: ClassVar[str] = "preparing"
    done: int
    total: int


@dataclass(frozen=True)
class Started:
    """Once, before the first step. parameters: trained in experts; head_parameters: trained in the head;
    images: (train, evaluation); seconds: spent on loading before the first step; notes: what was changed to
    make the weights fit, and a GPU that was not used; weights: twelve hex digits of SHA-256 over the backbone's
    tensors, head excluded."""

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


@dataclass(frozen=True)
class Resumed:
    """Before the first step of a run that goes on from a checkpoint. epoch, step: of the last step that it holds;
    seconds: trained before; source: "" for the run's own checkpoint, else the run that it was taken from."""

    kind: ClassVar[str] = "resumed"
    epoch: int
    step: int
    seconds: float
    source: str = ""


@dataclass(frozen=True)
class TrainStep:
    """After every optimizer step. step and epoch count from 1; loss: mean cross-entropy of the batch;
    accuracy: of the training batch in percent; drawn: experts that took part; seconds: since the first step began;
    mask: which ones, as `packed` writes it, "" where there are none."""

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
    """After an evaluated epoch, behind the `ExpertStats`, `SimilarityStats` and `Predictions` of the same moment.

    split: "val" or "test"; accuracy: top-1 in percent, all experts on and unscaled; loss: mean cross-entropy;
    seconds: since the first step began, evaluation included.
    """

    kind: ClassVar[str] = "evaluation"
    epoch: int
    step: int
    split: str
    accuracy: float
    loss: float
    seconds: float


@dataclass(frozen=True)
class ExpertStats:
    """With each evaluation, one canvas each.

    share_drawn: share of the steps so far in which the expert took part, [0, 1].
    contribution: mean over tokens of ‖λ b aᵀx‖ / ‖W x + bias‖ on the first 256 evaluation images.
    coefficient: λ now. gradient: mean over the steps since the last evaluation of the norm of
    the gradient of a and b together, counted in the steps that drew the expert.
    """

    kind: ClassVar[str] = "experts"
    epoch: int
    active_share: Canvas
    contribution: Canvas
    coefficient: Canvas
    gradient: Canvas


@dataclass(frozen=True)
class SimilarityStats:
    """With each evaluation: cosine between the experts of a row (appendix A.4), diagonal left out.

    signed, absolute: mean over pairs, one value per row, None for a row with fewer than two experts.
    matrices: per row the full matrix of its existing experts, in order.
    effective_rank, stable_rank: of ΔW of a row, all experts on, None where it is 0; they do not depend on how ΔW is cut
    into experts (`analysis.spectrum`). Runs of an older lab do not have them.
    """

    kind: ClassVar[str] = "similarity"
    epoch: int
    signed: tuple[float | None, ...]
    absolute: tuple[float | None, ...]
    matrices: tuple[Canvas, ...]
    effective_rank: tuple[float | None, ...] = ()
    stable_rank: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Statistics:
    """With each evaluation: whatever else a method or an analysis records (`training.statistics`).

    The event describes itself, so that no reader has to know a statistic.

    Args:
        epoch: Of the evaluation.
        step: Of the evaluation.
        values: By name: a number, one number per layer, or a canvas; None where there is no value.
        labels: By name: title and unit ("" for none), as a figure shows them.
    """

    kind: ClassVar[str] = "statistics"
    epoch: int
    step: int
    values: Mapping[str, StatisticValue]
    labels: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))

    def __hash__(self) -> int:
        return hash((self.epoch, self.step, frozenset(self.values.items()), frozenset(self.labels.items())))

    def require_valid(self, rows: int, columns: int) -> None:
        """Check names, labels, numbers and sizes.

        Args:
            rows: Layers of the plan's canvas.
            columns: Experts of the plan's canvas.

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
            if isinstance(value, tuple) and (
                len(value) != rows or (of_experts and not is_canvas) or any(len(line) != columns for line in of_experts)
            ):
                raise ValueError(
                    f"statistic {name} must be a number, {rows} numbers, or a canvas of {rows} x {columns}"
                )
            numbers = [n for line in of_experts for n in line] if is_canvas else lines or [value]
            if not all(n is None or (isinstance(n, float | int) and math.isfinite(n)) for n in numbers):
                raise ValueError(f"statistic {name} holds something that is neither a finite number nor None")
        if set(self.labels) - set(self.values):
            raise ValueError("labels of statistics must belong to a value")
        if any(len(text) > _LABEL_LETTERS for label in self.labels.values() for text in label):
            raise ValueError(f"labels of statistics take at most {_LABEL_LETTERS} letters")


@dataclass(frozen=True)
class SampleImages:
    """Once, behind `Started`: the few evaluation images whose answers are told with every evaluation.

    images: each a small JPEG or PNG in base64; truth: the names of their classes.
    """

    kind: ClassVar[str] = "sample_images"
    images: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Predictions:
    """With each evaluation: what the network says of the images of `SampleImages`, in their order.

    guess: name of the class with the highest probability; confidence: that probability, [0, 1].
    """

    kind: ClassVar[str] = "predictions"
    epoch: int
    step: int
    predicted: tuple[str, ...]
    confidence: tuple[float, ...]


@dataclass(frozen=True)
class Saved:
    """Adapter and checkpoint after this step lie on disk. bytes: size of the adapter file."""

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
    | Saved
)
E = TypeVar("E", bound=Event)
KINDS: dict[str, type[Event]] = {e.kind: e for e in get_args(Event)}
OF_EVALUATION = (ExpertStats, SimilarityStats, Predictions, Statistics)  # an Evaluation follows and completes them

# What versions up to 0.5 called kinds and fields; `runs.schema` renames them in a store, `renamed` in an archive.
OLD_KINDS = {"watched": SampleImages.kind, "guesses": Predictions.kind}
OLD_FIELDS: dict[str, dict[str, str]] = {
    Started.kind: {"train_pictures": "train_images", "evaluation_pictures": "evaluation_images"},
    TrainStep.kind: {"drawn": "active"},
    ExpertStats.kind: {"share_drawn": "active_share"},
    SampleImages.kind: {"pictures": "images", "truth": "labels"},
    Predictions.kind: {"guess": "predicted"},
}


def renamed(kind: str, payload: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Kind and payload of an event that version 0.5 wrote, under the names of today; those of today stay."""
    kind = OLD_KINDS.get(kind, kind)
    names = OLD_FIELDS.get(kind, {})
    return kind, {names.get(name, name): value for name, value in payload.items()}


def packed(mask: Iterable[bool]) -> str:
    """A mask as hexadecimal bytes: cell i of the canvas, counted row by row, is bit i % 8 of byte i // 8."""
    cells = [bool(cell) for cell in mask]
    whole = (sum(cell << i for i, cell in enumerate(cells[at : at + 8])) for at in range(0, len(cells), 8))
    return bytes(whole).hex()


def to_json(event: Event) -> str:
    """The event's fields as JSON; not-a-number and infinities survive (NaN, Infinity)."""
    return json.dumps({f.name: getattr(event, f.name) for f in fields(event)}, separators=(",", ":"), default=dict)


def from_json(kind: type[E], text: str) -> E:
    """The inverse of `to_json`; fields that only a newer lab knows are left out."""
    names = {f.name for f in fields(kind)}
    return kind(**{name: _immutable(value) for name, value in json.loads(text).items() if name in names})


def _immutable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _immutable(entry) for name, entry in value.items()}
    return tuple(map(_immutable, value)) if isinstance(value, list) else value


def mean_of(values: tuple[float | None, ...]) -> float | None:
    """Mean of the values that exist, None if none does."""
    present = [v for v in values if v is not None]
    return sum(present) / len(present) if present else None
