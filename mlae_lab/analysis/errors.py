"""Where a network is wrong and how well it knows it: from logits and labels, nothing else.

    p = softmax(logits), guess = argmax p, confidence = max p, loss = -ln p_label (nats)
    Brier score = mean over images of Σ_k (p_k - [k = label])², 0 (perfect) to 2   (Brier 1950)
    ECE = Σ_m n_m / n · |accuracy_m - confidence_m| over M bins of equal width, bin m = ((m-1)/M, m/M]
                                                                     (Naeini et al. 2015; Guo et al. 2017, eq. 3)

Per-class accuracy has a Wilson interval (`core.proportions.wilson`). The paper reports top-1 alone (tables 1 and 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mlae_lab.core.proportions import wilson

BINS = 10


@dataclass(frozen=True)
class Judged:
    """What a network said of n images, each (n,) on the CPU. truth, guess: class numbers, int64; confidence of the
    guess in (0, 1], loss in nats, brier: Σ_k (p_k - [k = label])², all float64."""

    truth: torch.Tensor
    predicted: torch.Tensor
    confidence: torch.Tensor
    loss: torch.Tensor
    brier: torch.Tensor

    @property
    def right(self) -> torch.Tensor:
        """(n,) bool."""
        return self.predicted == self.truth

    def __len__(self) -> int:
        return len(self.truth)


@torch.no_grad()
def judge(logits: torch.Tensor, labels: torch.Tensor) -> Judged:
    """Judge logits (n, classes) by labels (n,). The guess is the first of the largest, as in training's evaluation."""
    predicted = logits.argmax(1)
    log = logits.double().log_softmax(1)
    p, at = log.exp(), labels[:, None]
    brier = (p * p).sum(1) - 2 * p.gather(1, at)[:, 0] + 1
    found = labels, predicted, p.gather(1, predicted[:, None])[:, 0], -log.gather(1, at)[:, 0], brier
    return Judged(*(value.cpu() for value in found))


def joined(parts: Sequence[Judged]) -> Judged:
    """Several judgements as one, in order. parts: at least one."""
    return Judged(*(torch.cat([getattr(part, name) for part in parts]) for name in Judged.__dataclass_fields__))


def confusion(truth: torch.Tensor, predicted: torch.Tensor, classes: int) -> torch.Tensor:
    """(classes, classes) int64: images by class (row) and guess (column)."""
    return torch.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def row_shares(counts: torch.Tensor) -> torch.Tensor:
    """Counts as shares of their row, float64; a class without images is a row of NaN."""
    return counts.double() / counts.sum(1, keepdim=True)


@dataclass(frozen=True)
class ClassAccuracy:
    """right of images, and the 95 % Wilson interval of that share, in [0, 1]."""

    images: int
    right: int
    low: float
    high: float


def by_class(counts: torch.Tensor) -> list[ClassAccuracy]:
    """The accuracy of each class from a confusion matrix."""
    totals, rights = counts.sum(1).tolist(), counts.diagonal().tolist()
    return [ClassAccuracy(total, right, *wilson(right, total)) for total, right in zip(totals, rights, strict=False)]


def confused(counts: torch.Tensor, most: int) -> list[tuple[int, int, int]]:
    """The commonest mistakes, (class, guess, images), the commonest first; of equals the lower class first."""
    off = counts - torch.diag(counts.diagonal())
    order = off.flatten().argsort(descending=True, stable=True)[:most].tolist()
    classes = len(counts)
    return [(at // classes, at % classes, n) for at in order if (n := int(off[at // classes, at % classes]))]


def extremes(judged: Judged, most: int) -> dict[str, list[int]]:
    """Rows of the images worth a look, `most` of each at most; of equals the earlier first.

    "right": right, and the network most sure of it; "wrong": wrong, and most sure; "unsure": least confidence of all,
    right or wrong; "costly": the largest loss, those on which most of the label's probability is missing.
    """
    right, confidence = judged.right, judged.confidence

    def first(key: torch.Tensor, of: torch.Tensor) -> list[int]:
        rows = of.nonzero()[:, 0]
        return rows[key[rows].argsort(stable=True)][:most].tolist()

    every = torch.ones_like(right)
    return {
        "right": first(-confidence, right),
        "wrong": first(-confidence, ~right),
        "unsure": first(confidence, every),
        "costly": first(-judged.loss, every),
    }


@dataclass(frozen=True)
class Bin:
    """Images whose confidence lies in (low, high]. accuracy, confidence: their means in [0, 1], None for no image."""

    low: float
    high: float
    images: int
    accuracy: float | None
    confidence: float | None


@dataclass(frozen=True)
class Calibration:
    """confidence, accuracy: means over all images in [0, 1]; ece, brier as above; loss: mean cross-entropy in nats."""

    bins: tuple[Bin, ...]
    ece: float
    confidence: float
    accuracy: float
    brier: float
    loss: float


def calibration(judged: Judged, bins: int = BINS) -> Calibration:
    """How confidence and accuracy agree. judged: at least one image; bins: 1 or more, of equal width."""
    confidence, right = judged.confidence, judged.right.double()
    edges = torch.arange(1, bins, dtype=torch.float64) / bins
    places = torch.bucketize(confidence, edges)  # the first edge that is not below: bin m holds ((m-1)/M, m/M]
    count = torch.bincount(places, minlength=bins)
    sums = [torch.bincount(places, weights=value, minlength=bins) for value in (right, confidence)]
    found = []
    for m, n in enumerate(count.tolist()):
        accuracy, mean = ((float(total[m]) / n) if n else None for total in sums)
        found.append(Bin(m / bins, (m + 1) / bins, n, accuracy, mean))
    ece = float((sums[0] - sums[1]).abs().sum()) / len(judged)
    return Calibration(
        tuple(found), ece, *(float(v.mean()) for v in (confidence, right, judged.brier, judged.loss))
    )  # fmt: skip
