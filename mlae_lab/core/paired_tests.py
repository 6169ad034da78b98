"""What two runs got right on the same images: over all of them, class by class and image by image.

Made from two answers to the question `errors`, which are plain data, so that nobody has to load a network for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlae_lab.core.proportions import holm, mcnemar, wilson
from mlae_lab.errors import LabError

SURE = 0.05  # a difference with a smaller p is called one


class PairedTestError(LabError):
    """Two answers that cannot be compared; the text says what differs and what would work."""


@dataclass(frozen=True)
class PairedTest:
    """A set of images under two runs. images: how many; right_a, right_b: of them; only_a, only_b: right in one run
    and wrong in the other. exact, mid: p of McNemar's test (`core.proportions.mcnemar`); adjusted: mid-p after Holm's
    correction over all classes, of the whole equal to mid."""

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
    """classes: one slice for each class, in the order of their numbers. only_a, only_b: places of the images that one
    run alone gets right, those first of which it is most sure. guesses: place to the guess of A and of B, of those."""

    whole: PairedTest
    classes: tuple[PairedTest, ...]
    only_a: tuple[int, ...]
    only_b: tuple[int, ...]
    predictions: Mapping[int, tuple[str, str]]

    @property
    def verdict(self) -> str:
        """What stands between the two on all images, in one sentence."""
        whole = self.whole
        if whole.only_a == whole.only_b == 0:
            return f"A and B are right on the same {whole.correct_a:,} of {whole.images:,} images."
        more = "no more than" if whole.mid >= SURE else "more than"
        count = f"{whole.only_b:,} image{'s' * (whole.only_b != 1)}"
        return (
            f"B gets {count} right that A gets wrong, and A {whole.only_a:,} that B gets wrong: {more} the "
            f"toss of a coin would give (McNemar, mid-p = {p_text(whole.mid)})."
        )

    @property
    def of_classes(self) -> str:
        """The same of single classes, all of them tested at once, in one sentence."""
        apart = [entry.name for entry in self.classes if entry.adjusted < SURE]
        if not apart:
            return "In no single class do they differ by more than chance, all classes tested at once."
        named = ", ".join(apart[:4]) + (f" and {len(apart) - 4} more" if len(apart) > 4 else "")
        return f"Class by class, all of them tested at once, they differ by more than chance in {named}."


def p_text(p: float) -> str:
    """A p as text: two digits, and no more of the very small."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def paired_tests(a: Mapping, b: Mapping) -> PairedTests:
    """Compare two answers of the question `errors`, A and B.

    Raises SliceError if they are not about the same images: another task, other images, or another choice of them.
    """
    for name, word in (
        ("task", "tasks"),
        ("indices", "choices of images"),
        ("truth", "labels"),
        ("print", "images"),
    ):
        if a[name] != b[name]:
            values = f" ({a[name]} and {b[name]})" if name == "task" else ""
            raise PairedTestError(
                f"the two runs were asked about different {word}{values}: slices need the same images in both, so choose runs of "
                "one task and one protocol, and ask about as many images"
            )
    names, truth, indices = a["names"], a["truth"], a["indices"]
    correct_a = [predicted == label for predicted, label in zip(a["predicted"], truth, strict=False)]
    correct_b = [predicted == label for predicted, label in zip(b["predicted"], truth, strict=False)]
    whole = _slice("all", correct_a, correct_b)
    by_class: list[tuple[list[bool], list[bool]]] = [([], []) for _ in names]
    for label, one, other in zip(truth, correct_a, correct_b, strict=False):
        by_class[label][0].append(one)
        by_class[label][1].append(other)
    classes = [_slice(name, one, other) for name, (one, other) in zip(names, by_class, strict=False)]
    adjusted = holm([entry.mid for entry in classes])
    classes = [PairedTest(**{**vars(entry), "adjusted": p}) for entry, p in zip(classes, adjusted, strict=False)]
    only_a = [at for at, (one, other) in enumerate(zip(correct_a, correct_b, strict=False)) if one and not other]
    only_b = [at for at, (one, other) in enumerate(zip(correct_a, correct_b, strict=False)) if other and not one]
    only_a.sort(key=lambda at: -a["confidence"][at])
    only_b.sort(key=lambda at: -b["confidence"][at])
    return PairedTests(
        whole,
        tuple(classes),
        tuple(indices[at] for at in only_a),
        tuple(indices[at] for at in only_b),
        {indices[at]: (names[a["predicted"][at]], names[b["predicted"][at]]) for at in (*only_a, *only_b)},
    )


def _slice(name: str, correct_a: list[bool], correct_b: list[bool]) -> PairedTest:
    only_a = sum(one and not other for one, other in zip(correct_a, correct_b, strict=False))
    only_b = sum(other and not one for one, other in zip(correct_a, correct_b, strict=False))
    exact, mid = mcnemar(only_a, only_b)
    return PairedTest(name, len(correct_a), sum(correct_a), sum(correct_b), only_a, only_b, exact, mid, mid)
