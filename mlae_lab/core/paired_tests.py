"""Paired comparison of two runs on the same images: overall, by class and by image.

It needs only two answers to the query `errors`, which are plain data, and loads no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mlae_lab.core.proportions import holm, mcnemar, wilson
from mlae_lab.errors import LabError

SIGNIFICANCE_LEVEL = 0.05  # significance level


class PairedTestError(LabError):
    """Two answers that cannot be compared; the message says what differs and what would work."""


@dataclass(frozen=True)
class PairedTest:
    """One set of images, classified by two runs.

    Attributes:
        name: The class, or "all".
        images: Number of images.
        correct_a: Images that A classifies correctly.
        correct_b: Images that B classifies correctly.
        only_a: Images that only A classifies correctly.
        only_b: Images that only B classifies correctly.
        exact: Exact p of McNemar's test (`core.proportions.mcnemar`).
        mid: Its mid-p.
        adjusted: mid-p after Holm's correction over all classes; equal to `mid` for the set of all images.
    """

    name: str
    images: int
    correct_a: int
    correct_b: int
    only_a: int
    only_b: int
    exact: float
    mid: float
    adjusted: float

    @property
    def difference(self) -> float | None:
        """B - A in points of accuracy; None for no image."""
        return 100 * (self.correct_b - self.correct_a) / self.images if self.images else None

    @property
    def intervals(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """95 % Wilson intervals of both shares, A and B, in [0, 1]."""
        return wilson(self.correct_a, self.images), wilson(self.correct_b, self.images)


@dataclass(frozen=True)
class PairedTests:
    """The comparison of two runs, A and B.

    Attributes:
        whole: All images.
        classes: One entry per class, in the order of the class indices.
        only_a: Indices of the images that only A classifies correctly, by falling confidence of A.
        only_b: Likewise for B.
        predictions: Index of each of these images to the classes predicted by A and B.
    """

    whole: PairedTest
    classes: tuple[PairedTest, ...]
    only_a: tuple[int, ...]
    only_b: tuple[int, ...]
    predictions: Mapping[int, tuple[str, str]]

    @property
    def verdict(self) -> str:
        """The difference on all images, in one sentence."""
        whole = self.whole
        if whole.only_a == whole.only_b == 0:
            return f"A and B are correct on the same {whole.correct_a:,} of {whole.images:,} images."
        result = "not significant" if whole.mid >= SIGNIFICANCE_LEVEL else "significant"
        count = f"{whole.only_b:,} image{'s' * (whole.only_b != 1)}"
        return (
            f"Only B is correct on {count}, only A on {whole.only_a:,}: the difference is {result} "
            f"(McNemar, mid-p = {p_text(whole.mid)})."
        )

    @property
    def of_classes(self) -> str:
        """The classes with a significant difference after Holm's correction, in one sentence."""
        significant = [entry.name for entry in self.classes if entry.adjusted < SIGNIFICANCE_LEVEL]
        if not significant:
            return "No class differs significantly (Holm-corrected over all classes)."
        names = ", ".join(significant[:4]) + (f" and {len(significant) - 4} more" if len(significant) > 4 else "")
        return f"Classes with a significant difference (Holm-corrected over all classes): {names}."


def p_text(p: float) -> str:
    """A p-value as text, with two digits; "< 0.001" below that."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def paired_tests(a: Mapping, b: Mapping) -> PairedTests:
    """Compare two answers to the query `errors`, A and B.

    Raises:
        PairedTestError: If the answers are about different tasks, images, labels or choices of images.
    """
    for name, noun in (
        ("task", "tasks"),
        ("indices", "choices of images"),
        ("truth", "labels"),
        ("fingerprint", "images"),
    ):
        if a[name] != b[name]:
            values = f" ({a[name]} and {b[name]})" if name == "task" else ""
            raise PairedTestError(
                f"the two runs were evaluated on different {noun}{values}: a paired test needs the same images, so "
                "choose runs of one task and one protocol, and the same number of images"
            )
    names, truth, indices = a["names"], a["truth"], a["indices"]
    correct_a = [predicted == label for predicted, label in zip(a["predicted"], truth, strict=True)]
    correct_b = [predicted == label for predicted, label in zip(b["predicted"], truth, strict=True)]
    whole = _paired_test("all", correct_a, correct_b)
    by_class: list[tuple[list[bool], list[bool]]] = [([], []) for _ in names]
    for label, is_correct_a, is_correct_b in zip(truth, correct_a, correct_b, strict=True):
        by_class[label][0].append(is_correct_a)
        by_class[label][1].append(is_correct_b)
    classes = [_paired_test(name, *correct) for name, correct in zip(names, by_class, strict=True)]
    adjusted = holm([entry.mid for entry in classes])
    classes = [replace(entry, adjusted=p) for entry, p in zip(classes, adjusted, strict=True)]
    only_a = [i for i in range(len(truth)) if correct_a[i] and not correct_b[i]]
    only_b = [i for i in range(len(truth)) if correct_b[i] and not correct_a[i]]
    only_a.sort(key=lambda i: -a["confidence"][i])
    only_b.sort(key=lambda i: -b["confidence"][i])
    return PairedTests(
        whole,
        tuple(classes),
        tuple(indices[i] for i in only_a),
        tuple(indices[i] for i in only_b),
        {indices[i]: (names[a["predicted"][i]], names[b["predicted"][i]]) for i in (*only_a, *only_b)},
    )


def _paired_test(name: str, correct_a: list[bool], correct_b: list[bool]) -> PairedTest:
    only_a = sum(in_a and not in_b for in_a, in_b in zip(correct_a, correct_b, strict=True))
    only_b = sum(in_b and not in_a for in_a, in_b in zip(correct_a, correct_b, strict=True))
    exact, mid = mcnemar(only_a, only_b)
    return PairedTest(name, len(correct_a), sum(correct_a), sum(correct_b), only_a, only_b, exact, mid, mid)
