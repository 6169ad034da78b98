"""What a training run says of itself: plain records, one kind each.

`training.trainer.fit` yields them, the worker writes them to the store, pages read them. Arrays
are nested tuples with one value per cell of the plan's canvas, None where no expert exists.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import ClassVar

Canvas = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Preparing:
    """Now and then before `Started`, while pictures are decoded for the first time. done, total: pictures."""

    kind: ClassVar[str] = "preparing"
    done: int
    total: int


@dataclass(frozen=True)
class Started:
    """Once, before the first step. parameters: trained in experts; head_parameters: trained in the head;
    pictures: (train, evaluation); seconds: spent on loading before the first step; notes: what was changed to
    make the weights fit; weights: twelve hex digits of SHA-256 over the backbone's tensors, head excluded."""

    kind: ClassVar[str] = "started"
    parameters: int
    head_parameters: int
    backbone_parameters: int
    train_pictures: int
    evaluation_pictures: int
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
    accuracy: of the training batch in percent; drawn: experts that took part; seconds: since the first step began."""

    kind: ClassVar[str] = "step"
    step: int
    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    drawn: int
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """After an evaluated epoch, behind the `ExpertStats` and `SimilarityStats` of the same moment. split: "val" or "test"; accuracy: top-1 in percent, all experts on and
    unscaled; loss: mean cross-entropy; seconds: since the first step began, evaluation included."""

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
    contribution: mean over tokens of ‖λ b aᵀx‖ / ‖W x + bias‖ on the first 256 evaluation pictures.
    coefficient: λ now. gradient: mean over the steps since the last evaluation of the norm of
    the gradient of a and b together, counted in the steps that drew the expert.
    """

    kind: ClassVar[str] = "experts"
    epoch: int
    share_drawn: Canvas
    contribution: Canvas
    coefficient: Canvas
    gradient: Canvas


@dataclass(frozen=True)
class SimilarityStats:
    """With each evaluation: cosine between the experts of a row (appendix A.4), diagonal left out.

    signed, absolute: mean over pairs, one value per row, None for a row with fewer than two experts.
    matrices: per row the full matrix of its existing experts, in order.
    """

    kind: ClassVar[str] = "similarity"
    epoch: int
    signed: tuple[float | None, ...]
    absolute: tuple[float | None, ...]
    matrices: tuple[Canvas, ...]


@dataclass(frozen=True)
class Saved:
    """Adapter and checkpoint after this step lie on disk. bytes: size of the adapter file."""

    kind: ClassVar[str] = "saved"
    epoch: int
    step: int
    bytes: int


Event = Preparing | Started | Resumed | TrainStep | Evaluation | ExpertStats | SimilarityStats | Saved
KINDS: dict[str, type] = {
    e.kind: e for e in (Preparing, Started, Resumed, TrainStep, Evaluation, ExpertStats, SimilarityStats, Saved)
}


def to_json(event: Event) -> str:
    """The event's fields as JSON; not-a-number and infinities survive (NaN, Infinity)."""
    return json.dumps(asdict(event), separators=(",", ":"))


def from_json(kind: str, text: str) -> Event:
    """The inverse of `to_json`. Raises KeyError for an unknown kind."""
    return KINDS[kind](**{name: _tuples(value) for name, value in json.loads(text).items()})


def _tuples(value):
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def mean_of(values: tuple[float | None, ...]) -> float | None:
    """Mean of the values that exist, None if none does."""
    present = [v for v in values if v is not None]
    return sum(present) / len(present) if present else None
