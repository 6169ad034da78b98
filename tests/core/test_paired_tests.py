"""Two runs on the same images, from plain data; counts done by hand."""

from __future__ import annotations

import pytest

from mlae_lab.core.paired_tests import PairedTestError, PairedTests, p_text, paired_tests
from mlae_lab.core.proportions import mcnemar, wilson

A = {
    "task": "digits", "print": "aaaaaaaaaaaa", "names": ["0", "1", "none"], "indices": [0, 2, 4, 6, 8, 10],
    "truth": [0, 0, 0, 1, 1, 1], "predicted": [0, 0, 1, 1, 0, 0], "confidence": [0.9, 0.5, 0.6, 0.7, 0.8, 0.4],
}  # fmt: skip
B = A | {"predicted": [1, 2, 0, 1, 1, 0], "confidence": [0.9, 0.5, 0.6, 0.7, 0.8, 0.4]}


def test_counts_by_hand() -> None:
    found = paired_tests(A, B)
    assert [(s.name, s.images, s.correct_a, s.correct_b, s.only_a, s.only_b) for s in (found.whole, *found.classes)] == [
        ("all", 6, 3, 3, 2, 2), ("0", 3, 2, 1, 2, 1), ("1", 3, 1, 2, 0, 1), ("none", 0, 0, 0, 0, 0),
    ]  # fmt: skip
    assert (found.only_a, found.only_b) == ((0, 2), (8, 4)), "the surest first"
    assert found.predictions == {0: ("0", "1"), 2: ("0", "none"), 8: ("0", "1"), 4: ("1", "0")}
    zero = found.classes[0]
    assert zero.difference == pytest.approx(-100 / 3)
    assert zero.intervals == (wilson(2, 3), wilson(1, 3))
    assert (zero.exact, zero.mid) == mcnemar(2, 1)
    assert found.classes[2].difference is None


def test_the_other_way_round_is_the_mirror_image() -> None:
    there, back = paired_tests(A, B), paired_tests(B, A)
    assert (there.only_a, there.only_b) == (back.only_b, back.only_a)
    assert [s.difference for s in there.classes[:2]] == [-s.difference for s in back.classes[:2]]
    assert [(s.exact, s.mid, s.adjusted) for s in there.classes] == [(s.exact, s.mid, s.adjusted) for s in back.classes]


def many(a: int, b: int, both: int = 5, classes: int = 2) -> PairedTests:
    """A alone is right on an images of class 0, B alone on b."""
    of_a = [0] * a + [1] * b + [0] * both
    of_b = [1] * a + [0] * b + [0] * both
    n = len(of_a)
    common = {"names": [str(i) for i in range(classes)], "indices": list(range(n)), "truth": [0] * n}
    common["confidence"] = [0.5] * n
    return paired_tests(A | common | {"predicted": of_a}, A | common | {"predicted": of_b})


def test_verdicts() -> None:
    assert many(0, 0).verdict == "A and B are right on the same 5 of 5 images."
    assert many(5, 9).verdict == (
        "B gets 9 images right that A gets wrong, and A 5 that B gets wrong: no more than the toss of a coin would give "
        f"(McNemar, mid-p = {mcnemar(5, 9)[1]:.2g})."
    )
    assert ": more than the toss of a coin" in many(2, 12).verdict
    assert ": more than" in many(12, 2).verdict


def test_of_a_hundred_classes_some_look_different_by_chance() -> None:
    assert many(2, 12).of_classes.endswith("they differ by more than chance in 0.")
    assert many(2, 12).classes[0].adjusted == pytest.approx(2 * mcnemar(2, 12)[1])
    assert many(2, 12, classes=100).of_classes.startswith("In no single class do they differ")


def test_p_as_text() -> None:
    assert [p_text(p) for p in (1.0, 0.0312, 0.00099, 1e-9)] == ["1", "0.031", "< 0.001", "< 0.001"]


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("task", "fashion", r"different tasks \(digits and fashion\)"),
        ("indices", [0, 1, 2, 3, 4, 5], "different choices of images"),
        ("truth", [0, 0, 0, 1, 1, 0], "different labels"),
        ("print", "bbbbbbbbbbbb", "different images"),
    ],
)
def test_other_images_are_refused(name: str, value: object, word: str) -> None:
    with pytest.raises(PairedTestError, match=f"{word}: slices need the same images"):
        paired_tests(A, B | {name: value})
