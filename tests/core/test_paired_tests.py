"""Paired tests of two runs, compared with counts by hand."""

from __future__ import annotations

import pytest

from mlae_lab.core.paired_tests import PairedTestError, PairedTests, p_text, paired_tests
from mlae_lab.core.proportions import mcnemar, wilson

A = {
    "task": "digits", "fingerprint": "aaaaaaaaaaaa", "names": ["0", "1", "none"], "indices": [0, 2, 4, 6, 8, 10],
    "truth": [0, 0, 0, 1, 1, 1], "predicted": [0, 0, 1, 1, 0, 0], "confidence": [0.9, 0.5, 0.6, 0.7, 0.8, 0.4],
}  # fmt: skip
B = A | {"predicted": [1, 2, 0, 1, 1, 0], "confidence": [0.9, 0.5, 0.6, 0.7, 0.8, 0.4]}


def test_counts_by_hand() -> None:
    result = paired_tests(A, B)
    counts = [(s.name, s.images, s.correct_a, s.correct_b, s.only_a, s.only_b) for s in (result.whole, *result.classes)]
    assert counts == [
        ("all", 6, 3, 3, 2, 2), ("0", 3, 2, 1, 2, 1), ("1", 3, 1, 2, 0, 1), ("none", 0, 0, 0, 0, 0),
    ]  # fmt: skip
    assert (result.only_a, result.only_b) == ((0, 2), (8, 4)), "highest confidence first"
    assert result.predictions == {0: ("0", "1"), 2: ("0", "none"), 8: ("0", "1"), 4: ("1", "0")}
    zero = result.classes[0]
    assert zero.difference == pytest.approx(-100 / 3)
    assert zero.intervals == (wilson(2, 3), wilson(1, 3))
    assert (zero.exact, zero.mid) == mcnemar(2, 1)
    assert result.classes[2].difference is None


def test_swapping_the_runs_swaps_the_results() -> None:
    result, swapped = paired_tests(A, B), paired_tests(B, A)
    assert (result.only_a, result.only_b) == (swapped.only_b, swapped.only_a)
    assert [s.difference for s in result.classes[:2]] == [-s.difference for s in swapped.classes[:2]]
    p_values, swapped_p_values = ([(s.exact, s.mid, s.adjusted) for s in t.classes] for t in (result, swapped))
    assert p_values == swapped_p_values


def discordant(only_a: int, only_b: int, classes: int = 2) -> PairedTests:
    """Images of class 0; on 5 more of them, A and B are both correct."""
    predicted_a = [0] * only_a + [1] * only_b + [0] * 5
    predicted_b = [1] * only_a + [0] * only_b + [0] * 5
    n = len(predicted_a)
    common = {"names": [str(i) for i in range(classes)], "indices": list(range(n)), "truth": [0] * n}
    common["confidence"] = [0.5] * n
    return paired_tests(A | common | {"predicted": predicted_a}, A | common | {"predicted": predicted_b})


def test_verdicts() -> None:
    assert discordant(0, 0).verdict == "A and B are correct on the same 5 of 5 images."
    assert discordant(5, 9).verdict == (
        "Only B is correct on 9 images, only A on 5: the difference is not significant "
        f"(McNemar, mid-p = {mcnemar(5, 9)[1]:.2g})."
    )
    assert "the difference is significant" in discordant(2, 12).verdict
    assert "the difference is significant" in discordant(12, 2).verdict


def test_of_a_hundred_classes_some_differ_by_chance() -> None:
    assert discordant(2, 12).of_classes == (
        "Classes with a significant difference (Holm-corrected over all classes): 0."
    )
    assert discordant(2, 12).classes[0].adjusted == pytest.approx(2 * mcnemar(2, 12)[1])
    assert discordant(2, 12, classes=100).of_classes.startswith("No class differs significantly")


def test_p_as_text() -> None:
    assert [p_text(p) for p in (1.0, 0.0312, 0.00099, 1e-9)] == ["1", "0.031", "< 0.001", "< 0.001"]


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("task", "fashion", r"different tasks \(digits and fashion\)"),
        ("indices", [0, 1, 2, 3, 4, 5], "different choices of images"),
        ("truth", [0, 0, 0, 1, 1, 0], "different labels"),
        ("fingerprint", "bbbbbbbbbbbb", "different images"),
    ],
)
def test_other_images_are_refused(name: str, value: object, word: str) -> None:
    with pytest.raises(PairedTestError, match=f"{word}: a paired test needs the same images"):
        paired_tests(A, B | {name: value})
