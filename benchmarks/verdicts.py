"""How often the intervals of a study hold the truth and how often its verdicts are false, where the truth is known.

    python -m benchmarks verdicts [--studies 2000] [--seeds 3]

The accuracy of arm a with seed s is 80 + shift_a + u_s + e_as in percent: u_s is what a seed does to all arms, normal
with a standard deviation of 2, e_as the rest, with one of 1. Each situation changes one thing. Reported are:

    mean       share of the arms whose 95 % interval of the mean holds the true mean
    difference share of the intervals of the difference to the reference that hold the true one
    all        share of the studies in which all of these do
    false      share of the studies with a false verdict: a difference where there is none, or of the wrong sign
    found      share of the true differences that are found
    equal      share of the arms that differ from the reference by the margin of 1 point or more and count as equivalent
    none       share of the differences without an interval, because they do not vary
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlae_lab.core.inference import comparisons
from mlae_lab.core.seed_statistics import PERCENT, seed_statistics

MARGIN = 1.0  # points
LEVEL, OF_SEEDS, REST = 80.0, 2.0, 1.0
MANY = 400_000  # draws of which the true mean is taken
Values = np.ndarray


@dataclass(frozen=True)
class Situation:
    """One situation.

    Attributes:
        shifts: Of the arms, the reference first.
        noise: Draws of shape (arms, seeds).
        measured: Of an accuracy what is seen.
        level: Mean accuracy without a shift.
    """

    shifts: tuple[float, ...]
    noise: Callable[[np.random.Generator, tuple[int, ...]], Values] = lambda draws, shape: draws.standard_normal(shape)
    measured: Callable[[Values], Values] = lambda values: values
    level: float = LEVEL

    def drawn(self, draws: np.random.Generator, seeds: int) -> Values:
        """Accuracies, (arms, seeds)."""
        shape = len(self.shifts), seeds
        shared = OF_SEEDS * draws.standard_normal(seeds)
        shifts = np.array(self.shifts)[:, None]
        return self.measured(self.level + shifts + shared + REST * self.noise(draws, shape))


def on_images(values: Values) -> Values:
    """As 200 images show it: steps of half a point, up to 100 %."""
    return np.clip(np.round(2 * values) / 2, 0, 100)


def heavy(draws: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Student's t with 3 degrees of freedom, scaled to variance 1: a run fails now and then."""
    return draws.standard_t(3, shape) / np.sqrt(3)


def skewed(draws: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Exponential downwards, with mean 0 and variance 1."""
    return 1 - draws.standard_exponential(shape)


SITUATIONS: dict[str, Situation] = {
    "2 equal arms": Situation((0, 0)),
    "6 equal arms": Situation((0,) * 6),
    "6 equal, on 200 images": Situation((0,) * 6, measured=on_images),
    "6 equal, on 200 images near 99 %": Situation((0,) * 6, measured=on_images, level=99.0),
    "6 equal, heavy tails": Situation((0,) * 6, heavy),
    "6 equal, skewed": Situation((0,) * 6, skewed),
    "2 arms, better by 2": Situation((0, 2)),
    "2 arms, better by 5": Situation((0, 5)),
    "6 arms, one better by 5": Situation((0, 0, 0, 0, 0, 5)),
    "6 arms, -5 to 5": Situation((0, -5, -2, 1, 2, 5)),
    "6 arms, -5 to 5, on 200 images": Situation((0, -5, -2, 1, 2, 5), measured=on_images),
}


def rates(situation: Situation, studies: int, seeds: int) -> dict[str, float]:
    """The shares of the module's description, NaN where nothing is counted."""
    draws = np.random.default_rng(0)
    truth = situation.drawn(np.random.default_rng(1), MANY).mean(axis=1)
    differences = truth - truth[0]
    if not any(situation.shifts):
        differences = np.zeros(len(truth))  # equal by construction
    counted: dict[str, list[bool]] = {
        name: [] for name in ("mean", "difference", "all", "false", "found", "equal", "none")
    }
    for _ in range(studies):
        values = situation.drawn(draws, seeds)
        for of_arm, mean in zip(values, truth, strict=True):
            low, high = (statistics := seed_statistics(1, of_arm.tolist(), PERCENT)).low, statistics.high
            counted["mean"].append(low is not None and high is not None and low <= mean <= high)
        results = comparisons({str(a): dict(enumerate(row.tolist())) for a, row in enumerate(values)}, "0", MARGIN)
        held, is_false = [], False
        for arm, result in results.items():
            true, shift = differences[int(arm)], situation.shifts[int(arm)]
            counted["none"].append(result.low is None)
            if result.low is not None and result.high is not None:
                held.append(result.low <= true <= result.high)
            is_false = is_false or (result.is_different and result.mean * shift <= 0)
            if shift:
                counted["found"].append(result.is_different and result.mean * shift > 0)
            if abs(true) >= MARGIN - 0.02:  # of the simulated true mean
                counted["equal"].append(bool(result.equivalent))
        counted["difference"] += held
        counted["all"].append(all(held))
        counted["false"].append(is_false)
    return {name: 100 * float(np.mean(entries)) if entries else float("nan") for name, entries in counted.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks verdicts")
    parser.add_argument("--studies", type=int, default=2_000, help="simulated studies of each situation")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    error = 100 * (0.05 * 0.95 / args.studies) ** 0.5
    print(
        f"{args.studies:,} studies each, {args.seeds} seeds, in %; standard error of 5 or 95 % of studies: {error:.1f}"
    )
    for number, (name, situation) in enumerate(SITUATIONS.items()):
        shares = rates(situation, args.studies, args.seeds)
        if number == 0:
            print(f"{'':<34}" + "".join(f"{column:>11}" for column in shares))
        shown = ("–" if value != value else f"{value:.1f}" for value in shares.values())
        print(f"{name:<34}" + "".join(f"{text:>11}" for text in shown), flush=True)


if __name__ == "__main__":
    main()
