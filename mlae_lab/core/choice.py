"""Choosing an arm on validation images: the one-standard-error rule, how sure it is, its optimism and its regret.

The arm with the highest accuracy on few images is often not the best one, and its accuracy is too good: it was chosen
for being high. So the default is kept unless another arm is better by more than the standard error of the difference
(Breiman et al. 1984, Classification and regression trees, section 3.4.3, with the default in the place of the smallest
tree). Differences are paired: the same images and seeds in all arms.

For two arms, S seeds and n images let d_si be the difference of correctness. Seeds and images are both samples, so the
variance of the mean follows from the two-way analysis of variance without replication,

    var(d̄) = (MS_images + MS_seeds - MS_rest) / (n S),

and is at least that of the images alone, MS_images / (n S). Where correctness by image is not known, errors of two arms
are taken as independent, var = (a (1 - a) + b (1 - b)) / n + s² / S with s from the differences of the seeds, which is
too large.

In a cross-validation of K folds, a seed stands for one division of all images, S divisions have S K runs, and n are all
images. The images of a fold share a trained network, so the variance is at least s² / (S K) with s from the paired
differences by run. Runs of one division share training images; no unbiased estimate of the variance exists for that
(Bengio and Grandvalet 2004, JMLR 5), and this one is too small rather than too large.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, variance
from typing import Any

RESAMPLES = 1_000
UNITS = ("runs", "seconds")
_EQUAL = 1e-9  # points


@dataclass(frozen=True)
class ChoiceRule:
    """How a study chooses an arm.

    Attributes:
        budget: Upper limit of its cost.
        unit: Of the budget, "runs" of the full length, of which shorter runs are fractions, or estimated "seconds".
        rungs: (epochs, arms) of each stage of successive halving; the last has the full length. The arms of a later
            stage are those kept of the one before.
        space: Setting to (lowest, highest) value, for arms that a sampler proposes one after the other; empty for a
            grid.
    """

    budget: float
    unit: str
    rungs: tuple[tuple[int, int], ...]
    space: tuple[tuple[str, float, float], ...] = ()

    def __post_init__(self) -> None:
        if self.unit not in UNITS or not self.rungs:
            raise ValueError(f"unit is {self.unit!r} and rungs has {len(self.rungs)} entries: it needs runs or seconds")

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        data = {"budget": self.budget, "unit": self.unit, "rungs": [list(rung) for rung in self.rungs]}
        return data | ({"space": [list(entry) for entry in self.space]} if self.space else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ChoiceRule:
        """The inverse of `to_dict`."""
        return cls(
            float(data["budget"]), str(data["unit"]),
            tuple((int(epochs), int(arms)) for epochs, arms in data["rungs"]),
            tuple((str(name), float(low), float(high)) for name, low, high in data.get("space", ())),
        )  # fmt: skip

    @property
    def epochs(self) -> int:
        """Of a run of the full length."""
        return self.rungs[-1][0]


@dataclass(frozen=True)
class Scores:
    """Validation results of an arm.

    Attributes:
        accuracies: Seed to accuracy in percent.
        correct: Seed to correctness by image, for seeds for which it is known.
        images: Number of validation images.
        folds: In a cross-validation, seed (here: a division of the images) to the accuracy of each fold in percent.
    """

    accuracies: Mapping[int, float]
    correct: Mapping[int, Sequence[bool]] = field(default_factory=dict)
    images: int = 0
    folds: Mapping[int, Sequence[float]] = field(default_factory=dict)


def cross_validated(
    folds: int,
    accuracies: Mapping[int, float],
    correct: Mapping[int, Sequence[bool]],
    evaluated: Mapping[int, Sequence[int]],
) -> Scores:
    """The results of a cross-validation by division of the images; a division counts when all its folds are known.

    Args:
        folds: Number of folds; the run with seed s evaluated fold s % folds of division s // folds.
        accuracies: Seed to accuracy in percent.
        correct: Seed to correctness by image, where it is known.
        evaluated: Seed to the numbers of these images among all.
    """
    means, by_image, by_fold, images = {}, {}, {}, 0
    for division in sorted({seed // folds for seed in accuracies}):
        seeds = range(division * folds, (division + 1) * folds)
        if any(seed not in accuracies for seed in seeds):
            continue
        by_fold[division] = tuple(accuracies[seed] for seed in seeds)
        means[division] = fmean(by_fold[division])
        known = {
            image: is_correct
            for seed in seeds
            for image, is_correct in zip(evaluated.get(seed, ()), correct.get(seed, ()), strict=False)
        }
        if sorted(known) == list(range(len(known))) and all(correct.get(seed) for seed in seeds):
            by_image[division] = tuple(known[image] for image in range(len(known)))
            images = len(known)
    return Scores(means, by_image, images, by_fold)


@dataclass(frozen=True)
class Candidate:
    """An arm that could be chosen.

    Attributes:
        arm: Its name.
        mean: Accuracy over the seeds that all arms share, in percent.
        behind: Points behind the best arm, 0 for that one.
        error: Standard error of `behind`, in points.
        distance: Number of settings in which it differs from the default.
        share: Share of the resamples in which the rule chooses it, None without correctness by image.
    """

    arm: str
    mean: float
    behind: float
    error: float
    distance: int
    share: float | None

    @property
    def is_within(self) -> bool:
        """Whether it is within one standard error of the best."""
        return self.behind <= self.error + _EQUAL


@dataclass(frozen=True)
class Choice:
    """What the rule chooses.

    Attributes:
        chosen: Name of the arm.
        best: Name of the arm with the highest accuracy.
        default: Name of the default.
        candidates: All arms, the highest accuracy first.
        seeds: That all arms share.
        images: Number of validation images, 0 if it is not known.
        gain: Points of the chosen arm above the default, on validation images.
        gain_error: Standard error of the gain, 0 for the default itself.
        optimism: Points by which `gain` is expected to be too high, because the arm was chosen on the same images
            (bootstrap over images and seeds); None without correctness by image.
        unknown: Share of the resamples in which a first stage keeps an arm that was not trained to the end, so that
            what it would have reached is not known; None where no first stage was resampled.
    """

    chosen: str
    best: str
    default: str
    candidates: tuple[Candidate, ...]
    seeds: tuple[int, ...]
    images: int
    gain: float
    gain_error: float
    optimism: float | None
    unknown: float | None = None

    def of(self, arm: str) -> Candidate:
        """One arm. Raises KeyError for an unknown one."""
        for candidate in self.candidates:
            if candidate.arm == arm:
                return candidate
        raise KeyError(arm)


@dataclass(frozen=True)
class FirstStage:
    """A shorter stage that decided which arms train to the end.

    Attributes:
        scores: By the names that the arms have, or would have, in the last stage.
        distances: As of `choose`.
        kept: Number of arms that it keeps, with the default.
    """

    scores: Mapping[str, Scores]
    distances: Mapping[str, int]
    kept: int


def choose(
    scores: Mapping[str, Scores], default: str, distances: Mapping[str, int], first: FirstStage | None = None
) -> Choice | None:
    """Choose an arm: of those within one standard error of the best, and not below the default, the nearest to it.

    Args:
        scores: By arm. Only seeds that all arms have count.
        default: An arm.
        distances: By arm, the number of settings in which it differs from the default. Of equally near arms the one
            with the higher accuracy is chosen.
        first: The stage before, which is then resampled, too. It changes no choice, only how sure it is.

    Returns:
        The choice, None without a seed in common.
    """
    import numpy as np

    arms = list(scores)
    seeds = sorted(set.intersection(*(set(entry.accuracies) for entry in scores.values()))) if arms else []
    if not seeds:
        return None
    values = np.array([[scores[arm].accuracies[seed] for seed in seeds] for arm in arms])
    images = {scores[arm].images for arm in arms}
    count = images.pop() if len(images) == 1 else 0
    known = count and all(len(scores[arm].correct.get(seed, ())) == count for arm in arms for seed in seeds)
    table = np.array([[scores[arm].correct[seed] for seed in seeds] for arm in arms], dtype=float) if known else None
    errors = np.array([[_error(table, values, i, j, count) for j in range(len(arms))] for i in range(len(arms))])
    errors = np.maximum(errors, _errors_of_runs([[scores[arm].folds.get(seed, ()) for seed in seeds] for arm in arms]))
    far = np.array([distances[arm] for arm in arms])
    means = values.mean(axis=1)
    start = arms.index(default)
    best, chosen = int(_best(means[None], far)[0]), int(_rule(means[None], errors, far, start)[0])
    shares: list[float | None] = [None] * len(arms)
    optimism = unknown = None
    if table is not None:
        resampled = _resampled(table)
        if first is not None and (survive := _survivors(first, default, seeds, count)) is not None:
            always = np.ones(RESAMPLES, dtype=bool)  # an arm that was added to the last stage
            kept = np.stack([survive.pop(arm, always) for arm in arms], axis=1)
            unknown = float(np.any(list(survive.values()), axis=0).mean()) if survive else 0.0
            resampled = np.where(kept, resampled, -np.inf)
        picks = _rule(resampled, errors, far, start)
        shares = [float((picks == i).mean()) for i in range(len(arms))]
        rows = np.arange(len(picks))
        apparent = resampled[rows, picks] - resampled[:, start]
        optimism = float((apparent - (means[picks] - means[start])).mean())
    candidates = sorted(
        (
            Candidate(
                arm,
                float(means[i]),
                float(means[best] - means[i]),
                float(errors[best, i]),
                int(far[i]),
                shares[i],
            )
            for i, arm in enumerate(arms)
        ),
        key=lambda candidate: (candidate.behind, candidate.distance),
    )
    return Choice(
        arms[chosen], arms[best], default, tuple(candidates), tuple(seeds), count,
        float(means[chosen] - means[start]), float(errors[chosen, start]), optimism, unknown,
    )  # fmt: skip


def _survivors(first: FirstStage, default: str, seeds: Sequence[int], images: int) -> dict[str, Any] | None:
    """Arm to whether the first stage keeps it, for each resample; None without correctness by image.

    The draws are those of `_resampled` in the last stage, which has the same seeds and images.
    """
    import numpy as np

    arms = list(first.scores)
    if any(len(first.scores[arm].correct.get(seed, ())) != images for arm in arms for seed in seeds):
        return None
    means = _resampled(np.array([[first.scores[arm].correct[seed] for seed in seeds] for arm in arms], dtype=float))
    merit = means - 1e-6 * np.array([first.distances[arm] for arm in arms])
    merit[:, arms.index(default)] = np.inf  # the default is always kept
    kept = np.argsort(-merit, axis=1, kind="stable").argsort(axis=1) < first.kept
    return {arm: kept[:, i] for i, arm in enumerate(arms)}


def _best(means: Any, far: Any) -> Any:
    """The index of the highest mean in each row; of equal ones the nearest to the default."""
    return (means - 1e-6 * far).argmax(axis=1)


def _rule(means: Any, errors: Any, far: Any, start: int) -> Any:
    """The index that the rule chooses in each row, never of an arm below the default.

    Args:
        means: (rows, arms).
        errors: (arms, arms).
        far: (arms,).
        start: Index of the default.
    """
    import numpy as np

    behind = means.max(axis=1, keepdims=True) - means
    within = (behind <= errors[_best(means, far)] + _EQUAL) & (means >= means[:, [start]] - _EQUAL)
    rank = np.where(within, far * 1000.0 + behind, np.inf)  # the nearest, then the most accurate
    return rank.argmin(axis=1)


def _error(table: Any, values: Any, i: int, j: int, images: int) -> float:
    """Standard error of the mean difference of two arms, in points.

    Args:
        table: Correctness, (arms, seeds, images), None if it is not known.
        values: Accuracies in percent, (arms, seeds).
        i: An arm.
        j: Another one.
        images: Number of images, 0 if it is not known.
    """
    if i == j:
        return 0.0
    if table is None:
        a, b = values[i].mean() / 100, values[j].mean() / 100
        seeds = variance((values[i] - values[j]) / 100) / len(values[i]) if len(values[i]) > 1 else 0.0
        return 100 * math.sqrt(((a * (1 - a) + b * (1 - b)) / images if images else 0.0) + seeds)
    differences = table[i] - table[j]
    seeds, n = differences.shape
    if n < 2:
        return 0.0
    by_image, by_seed, mean = differences.mean(axis=0), differences.mean(axis=1), differences.mean()
    of_images = seeds * float(((by_image - mean) ** 2).sum()) / (n - 1)
    if seeds == 1:
        return 100 * math.sqrt(of_images / n)
    of_seeds = n * float(((by_seed - mean) ** 2).sum()) / (seeds - 1)
    rest = float(((differences - by_image[None] - by_seed[:, None] + mean) ** 2).sum()) / ((n - 1) * (seeds - 1))
    return 100 * math.sqrt(max(of_images, of_images + of_seeds - rest) / (n * seeds))


def _errors_of_runs(folds: Sequence[Sequence[Sequence[float]]]) -> Any:
    """Standard errors of the mean differences of all pairs of arms by the differences of their runs alone, in points.

    Args:
        folds: Arms × seeds × accuracies of the folds, without these for runs that are no cross-validation.
    """
    import numpy as np

    by_run = np.array([[accuracy for of_seed in of_arm for accuracy in of_seed] for of_arm in folds])
    if by_run.shape[1] < 2:
        return 0.0
    differences = by_run[:, None] - by_run[None, :]
    return differences.std(axis=2, ddof=1) / math.sqrt(by_run.shape[1])


def _resampled(table: Any) -> Any:
    """Accuracies in percent, (RESAMPLES, arms), with images and seeds drawn with replacement; always the same draws."""
    import numpy as np

    _, seeds, images = table.shape
    draws = np.random.default_rng(0)
    of_images = draws.multinomial(images, np.full(images, 1 / images), RESAMPLES) / images
    of_seeds = draws.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds
    return 100 * np.einsum("bs,asb->ba", of_seeds, table @ of_images.T)


def kept_arms(means: Mapping[str, float], default: str, distances: Mapping[str, int], count: int) -> tuple[str, ...]:
    """The arms that train longer: the default, and the best of the others, in their order.

    Args:
        means: Accuracy by arm.
        default: An arm.
        distances: As of `choose`; of equal arms the nearer one comes first.
        count: Number of arms to keep, with the default.
    """
    others = sorted((arm for arm in means if arm != default), key=lambda arm: (-means[arm], distances[arm]))
    kept = {default, *others[: max(0, count - 1)]}
    return tuple(arm for arm in means if arm in kept)


# ---------------------------------------------------------------- afterwards


@dataclass(frozen=True)
class Honesty:
    """What the test images say about a choice; every number in points, over the seeds that both arms have.

    Attributes:
        test_gain: The chosen arm above the default on test images; 0 if it is the default; None without both.
        optimism: Gain on validation images minus gain on test images; None without the latter.
        seeds: That `test_gain` is based on.
        regret: The best arm on test images above the chosen one; None unless another arm was tested, too. The best arm
            is chosen in hindsight on these images, so regret is too large rather than too small.
        best: Name of that arm, "" without one.
        tested: Number of arms with test results.
    """

    test_gain: float | None
    optimism: float | None
    seeds: tuple[int, ...]
    regret: float | None
    best: str
    tested: int


def honesty(choice: Choice, tests: Mapping[str, Mapping[int, float]]) -> Honesty:
    """Compare a choice with test results.

    Args:
        choice: The choice.
        tests: Arm to seed to accuracy on test images in percent, for arms that were tested.
    """
    tests = {arm: values for arm, values in tests.items() if values}
    chosen = tests.get(choice.chosen, {})
    gains = {arm: _paired(values, chosen) for arm, values in tests.items() if arm != choice.chosen}
    gains = {arm: gain for arm, gain in gains.items() if gain is not None}
    best = max(gains, key=lambda arm: gains[arm], default="")
    regret = max(0.0, gains[best]) if best else None
    if choice.chosen == choice.default:
        gain, optimism, seeds = (0.0, 0.0, tuple(sorted(chosen))) if chosen else (None, None, ())
    else:
        default = tests.get(choice.default, {})
        gain, seeds = _paired(chosen, default), tuple(sorted(set(chosen) & set(default)))
        optimism = None if gain is None else choice.gain - gain
    return Honesty(gain, optimism, seeds, regret, choice.chosen if regret == 0 else best, len(tests))


def _paired(values: Mapping[int, float], base: Mapping[int, float]) -> float | None:
    """Mean difference over the seeds that both have."""
    shared: Collection[int] = set(values) & set(base)
    return fmean(values[seed] - base[seed] for seed in shared) if shared else None
