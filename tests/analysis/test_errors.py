"""Confusion, calibration and extremes, compared with loops over single images."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from mlae_lab.analysis import errors
from mlae_lab.core.proportions import wilson

CLASSES = 5


def some(n: int = 200, seed: int = 0, classes: int = CLASSES) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes - 1, (n,), generator=rng)  # the last class has no image
    logits = 2 * torch.randn(n, classes, generator=rng)
    logits[torch.arange(n), labels] += 1.5
    return logits, labels


def by_hand(logits: torch.Tensor, labels: torch.Tensor) -> list[dict]:
    """Every image separately, in plain Python."""
    result = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        top = max(row)
        shares = [math.exp(v - top) for v in row]
        p = [v / sum(shares) for v in shares]
        predicted = row.index(top)
        result.append(
            {
                "truth": label,
                "predicted": predicted,
                "confidence": p[predicted],
                "loss": -math.log(p[label]),
                "brier": sum((v - (k == label)) ** 2 for k, v in enumerate(p)),
            }
        )
    return result


@pytest.mark.parametrize("seed", range(3))
def test_each_prediction_equals_the_definition(seed: int) -> None:
    predictions, expected = errors.compare(*some(seed=seed)), by_hand(*some(seed=seed))
    for name in ("truth", "predicted"):
        assert getattr(predictions, name).tolist() == [image[name] for image in expected]
    for name in ("confidence", "loss", "brier"):
        assert getattr(predictions, name).tolist() == pytest.approx([image[name] for image in expected], abs=1e-9)


def test_concatenated_parts_equal_the_whole() -> None:
    logits, labels = some()
    whole = errors.compare(logits, labels)
    pieces = errors.concatenated(
        [errors.compare(logits[at : at + 64], labels[at : at + 64]) for at in range(0, 200, 64)]
    )
    assert all(torch.equal(getattr(whole, name), getattr(pieces, name)) for name in vars(whole))
    assert len(pieces) == 200


def test_extreme_logits() -> None:
    predictions = errors.compare(torch.tensor([[2000.0, -2000.0], [-2000.0, 2000.0]]), torch.tensor([0, 0]))
    assert predictions.confidence.tolist() == [1.0, 1.0]
    assert predictions.loss.tolist() == [0.0, 4000.0]
    assert predictions.brier.tolist() == [0.0, 2.0]


def test_confusion_matrix_counts_pairs() -> None:
    predictions = errors.compare(*some())
    counts = errors.confusion(predictions.truth, predictions.predicted, CLASSES)
    for i in range(CLASSES):
        for j in range(CLASSES):
            assert counts[i, j] == sum(
                t == i and g == j
                for t, g in zip(predictions.truth.tolist(), predictions.predicted.tolist(), strict=True)
            )
    shares = errors.row_shares(counts)
    assert torch.allclose(shares[:-1].sum(1), torch.ones(CLASSES - 1, dtype=torch.float64))
    assert bool(shares[-1].isnan().all()), "a class without an image has no shares"
    assert float(shares[0, 1]) == int(counts[0, 1]) / sum(t == 0 for t in predictions.truth.tolist())


def test_accuracy_by_class() -> None:
    predictions = errors.compare(*some())
    result = errors.by_class(errors.confusion(predictions.truth, predictions.predicted, CLASSES))
    for number, entry in enumerate(result):
        own = [
            g == number
            for t, g in zip(predictions.truth.tolist(), predictions.predicted.tolist(), strict=True)
            if t == number
        ]
        assert (entry.images, entry.correct) == (len(own), sum(own))
        assert (entry.low, entry.high) == wilson(sum(own), len(own))
    assert (result[-1].images, result[-1].low, result[-1].high) == (0, 0.0, 1.0)


def test_most_frequent_errors() -> None:
    counts = torch.tensor([[9, 2, 0], [3, 7, 2], [0, 0, 5]])
    assert errors.confused(counts, 10) == [(1, 0, 3), (0, 1, 2), (1, 2, 2)]
    assert errors.confused(counts, 1) == [(1, 0, 3)]
    assert errors.confused(torch.diag(torch.tensor([3, 4])), 5) == []


def test_extremes_equal_the_definition() -> None:
    predictions = errors.compare(*some())
    every = list(enumerate(by_hand(*some())))
    result = errors.extremes(predictions, 7)
    right = [(i, p) for i, p in every if p["truth"] == p["predicted"]]
    wrong = [(i, p) for i, p in every if p["truth"] != p["predicted"]]
    assert result["correct"] == [i for i, p in sorted(right, key=lambda e: -e[1]["confidence"])[:7]]
    assert result["wrong"] == [i for i, p in sorted(wrong, key=lambda e: -e[1]["confidence"])[:7]]
    assert result["lowest_confidence"] == [i for i, p in sorted(every, key=lambda e: e[1]["confidence"])[:7]]
    assert result["highest_loss"] == [i for i, p in sorted(every, key=lambda e: -e[1]["loss"])[:7]]


def test_extremes_of_equal_images_are_in_order() -> None:
    predictions = errors.compare(torch.tensor([[1.0, 0.0]] * 4), torch.tensor([0, 0, 1, 0]))
    assert errors.extremes(predictions, 12) == {
        "correct": [0, 1, 3],
        "wrong": [2],
        "lowest_confidence": [0, 1, 2, 3],
        "highest_loss": [2, 0, 1, 3],
    }


@pytest.mark.parametrize("bins", [1, 7, 10, 15])
def test_calibration_equals_the_definition(bins: int) -> None:
    predictions, every = errors.compare(*some(400, 4)), by_hand(*some(400, 4))
    result, ece = errors.calibration(predictions, bins), 0.0
    for m, entry in enumerate(result.bins):
        own = [p for p in every if m / bins < p["confidence"] <= (m + 1) / bins]
        assert (entry.low, entry.high, entry.images) == (m / bins, (m + 1) / bins, len(own))
        if not own:
            assert entry.accuracy is None
            assert entry.confidence is None
            continue
        accuracy = sum(p["truth"] == p["predicted"] for p in own) / len(own)
        confidence = sum(p["confidence"] for p in own) / len(own)
        assert (entry.accuracy, entry.confidence) == (pytest.approx(accuracy), pytest.approx(confidence))
        ece += len(own) / len(every) * abs(accuracy - confidence)
    assert result.ece == pytest.approx(ece)
    for name, value in (("confidence", "confidence"), ("brier", "brier"), ("loss", "loss")):
        assert getattr(result, name) == pytest.approx(sum(p[value] for p in every) / len(every))
    assert result.accuracy == sum(p["truth"] == p["predicted"] for p in every) / len(every)
    assert sum(entry.images for entry in result.bins) == 400


def test_a_confidence_on_an_edge_lies_in_the_lower_bin() -> None:
    edges = torch.tensor([float(Fraction(k, 10)) for k in range(1, 11)], dtype=torch.float64)
    same = torch.zeros(10, dtype=torch.int64)
    predictions = errors.LabelledPredictions(same, same, edges, edges, edges)
    assert [entry.images for entry in errors.calibration(predictions).bins] == [1] * 10


def test_labels_sampled_from_the_predictions_are_calibrated() -> None:
    """With labels sampled from p the ECE goes to 0; with logits three times as large it does not."""
    rng = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 4, generator=rng)
    labels = torch.multinomial(logits.softmax(1), 1, generator=rng)[:, 0]
    good, proud = (errors.calibration(errors.compare(scale * logits, labels)) for scale in (1, 3))
    assert good.ece < 0.02
    assert good.confidence == pytest.approx(good.accuracy, abs=0.01)
    assert proud.ece > 0.1
    assert proud.brier > good.brier
    assert proud.loss > good.loss
