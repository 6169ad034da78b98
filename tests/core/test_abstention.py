"""The threshold below which a run abstains: the smallest that gives the wanted accuracy."""

from __future__ import annotations

import pytest

from mlae_lab.core.abstention import AbstentionError, chosen_threshold

CONFIDENCE = [0.5, 0.9, 0.8, 0.7, 0.6]
CORRECT = [True, True, True, False, True]  # by confidence: yes, yes, no, yes, yes


@pytest.mark.parametrize(
    ("wanted", "threshold", "kept", "correct"),
    [(100, 0.8, 2, 2), (75.1, 0.5, 5, 4), (80, 0.5, 5, 4), (80.1, 0.8, 2, 2), (1, 0.5, 5, 4)],
)
def test_it_keeps_as_many_as_the_accuracy_allows(wanted: float, threshold: float, kept: int, correct: int) -> None:
    chosen = chosen_threshold(CORRECT, CONFIDENCE, wanted)
    assert (chosen.threshold, chosen.kept, chosen.correct, chosen.images) == (threshold, kept, correct, 5)
    assert chosen.accuracy >= wanted


def test_equal_confidences_are_kept_or_not_together() -> None:
    assert chosen_threshold([True, True, False], [0.9, 0.8, 0.8], 90).kept == 1


def test_the_sentence_has_numbers_intervals_and_what_it_was_chosen_on() -> None:
    text = chosen_threshold(CORRECT, CONFIDENCE, 100).sentence
    assert "below a confidence of 0.8000" in text.lower()
    assert "2 (40.0 %, 95 % interval 11.8 to 76.9)" in text
    assert "chosen on these images" in text


@pytest.mark.parametrize(("correct", "wanted"), [([False, True], 90), ([True, True], 0), ([True], 101), ([], 90)])
def test_what_cannot_be_reached_is_refused(correct: list[bool], wanted: float) -> None:
    with pytest.raises(AbstentionError, match=r"choose|must be"):
        chosen_threshold(correct, [0.9, 0.8][: len(correct)], wanted)
