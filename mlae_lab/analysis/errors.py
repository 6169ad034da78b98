"""Errors and calibration of a network, from logits and labels only.

    p = softmax(logits), prediction = argmax p, confidence = max p, loss = -ln p_label (nats)
    Brier score = mean over images of Σ_k (p_k - [k = label])², 0 (perfect) to 2   (Brier 1950)
    ECE = Σ_m n_m / n · |accuracy_m - confidence_m| over M bins of equal width, bin m = ((m-1)/M, m/M]
                                                                     (Naeini et al. 2015; Guo et al. 2017, eq. 3)

Per-class accuracy has a Wilson interval (`core.proportions.wilson`). The paper reports only top-1 (tables 1 and 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mlae_lab.core.proportions import wilson

BINS = 10


@dataclass(frozen=True)
class LabelledPredictions:
    """Predictions on n images, each attribute (n,) on the CPU.

    Attributes:
        truth: class numbers, int64.
        predicted: class numbers, int64.
        confidence: of the prediction, in (0, 1], float64.
        loss: in nats, float64.
        brier: Σ_k (p_k - [k = label])², float64.
    """

    truth: torch.Tensor
    predicted: torch.Tensor
    confidence: torch.Tensor
    loss: torch.Tensor
    brier: torch.Tensor

    @property
    def correct(self) -> torch.Tensor:
        """Whether each prediction is correct, (n,) bool."""
        return self.predicted == self.truth

    def __len__(self) -> int:
        return len(self.truth)


@torch.no_grad()
def compare(logits: torch.Tensor, labels: torch.Tensor) -> LabelledPredictions:
    """Compare logits (n, classes) with labels (n,). The first of equal logits is predicted, as in evaluation."""
    predicted = logits.argmax(1)
    log = logits.double().log_softmax(1)
    p, label = log.exp(), labels[:, None]
    brier = (p * p).sum(1) - 2 * p.gather(1, label)[:, 0] + 1
    confidence = p.gather(1, predicted[:, None])[:, 0]
    return LabelledPredictions(
        labels.cpu(), predicted.cpu(), confidence.cpu(), -log.gather(1, label)[:, 0].cpu(), brier.cpu()
    )


def concatenated(parts: Sequence[LabelledPredictions]) -> LabelledPredictions:
    """The predictions of one or more parts, in order."""
    return LabelledPredictions(
        *(torch.cat([getattr(part, name) for part in parts]) for name in LabelledPredictions.__dataclass_fields__)
    )


def confusion(truth: torch.Tensor, predicted: torch.Tensor, classes: int) -> torch.Tensor:
    """(classes, classes) int64: images by class (row) and prediction (column)."""
    return torch.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def row_shares(counts: torch.Tensor) -> torch.Tensor:
    """Counts as shares of their row, float64; a class without images is a row of NaN."""
    return counts.double() / counts.sum(1, keepdim=True)


@dataclass(frozen=True)
class ClassAccuracy:
    """Number of images and of correct ones, and the 95 % Wilson interval of the accuracy, in [0, 1]."""

    images: int
    correct: int
    low: float
    high: float


def by_class(counts: torch.Tensor) -> list[ClassAccuracy]:
    """The accuracy of each class from a confusion matrix."""
    totals, correct = counts.sum(1).tolist(), counts.diagonal().tolist()
    return [ClassAccuracy(images, hits, *wilson(hits, images)) for images, hits in zip(totals, correct, strict=True)]


def confused(counts: torch.Tensor, most: int) -> list[tuple[int, int, int]]:
    """The most frequent errors, (class, prediction, images), in descending order; of equals the lower class first."""
    errors = counts - torch.diag(counts.diagonal())
    order = errors.flatten().argsort(descending=True, stable=True)[:most].tolist()
    cells = [divmod(position, len(counts)) for position in order]
    return [(truth, predicted, n) for truth, predicted in cells if (n := int(errors[truth, predicted]))]


def extremes(predictions: LabelledPredictions, most: int) -> dict[str, list[int]]:
    """Rows of extreme images, at most `most` of each kind; of equals the earlier first.

    "correct": correct with the highest confidence; "wrong": wrong with the highest confidence; "lowest_confidence" and
    "highest_loss": of all predictions.
    """
    correct, confidence = predictions.correct, predictions.confidence

    def lowest(key: torch.Tensor, selected: torch.Tensor) -> list[int]:
        rows = selected.nonzero()[:, 0]
        return rows[key[rows].argsort(stable=True)][:most].tolist()

    every = torch.ones_like(correct)
    return {
        "correct": lowest(-confidence, correct),
        "wrong": lowest(-confidence, ~correct),
        "lowest_confidence": lowest(confidence, every),
        "highest_loss": lowest(-predictions.loss, every),
    }


@dataclass(frozen=True)
class Bin:
    """Images with a confidence in (low, high]; accuracy and confidence are means in [0, 1], None without images."""

    low: float
    high: float
    images: int
    accuracy: float | None
    confidence: float | None


@dataclass(frozen=True)
class Calibration:
    """Calibration over all images: mean confidence and accuracy in [0, 1], ECE, mean Brier score, mean loss in nats."""

    bins: tuple[Bin, ...]
    ece: float
    confidence: float
    accuracy: float
    brier: float
    loss: float


def calibration(predictions: LabelledPredictions, bins: int = BINS) -> Calibration:
    """Calibration of at least one prediction, with one or more bins of equal width."""
    confidence, correct = predictions.confidence, predictions.correct.double()
    edges = torch.arange(1, bins, dtype=torch.float64) / bins
    bin_of = torch.bucketize(confidence, edges)  # the first edge that is not below: bin m is ((m-1)/M, m/M]
    count = torch.bincount(bin_of, minlength=bins)
    sums = [torch.bincount(bin_of, weights=value, minlength=bins) for value in (correct, confidence)]
    filled = []
    for m, n in enumerate(count.tolist()):
        accuracy, mean = ((float(total[m]) / n) if n else None for total in sums)
        filled.append(Bin(m / bins, (m + 1) / bins, n, accuracy, mean))
    return Calibration(
        bins=tuple(filled),
        ece=float((sums[0] - sums[1]).abs().sum()) / len(predictions),
        confidence=float(confidence.mean()),
        accuracy=float(correct.mean()),
        brier=float(predictions.brier.mean()),
        loss=float(predictions.loss.mean()),
    )
