"""How well `choose` chooses, where the truth is known: simulated accuracies on few validation images.

    python -m benchmarks choice [--studies N]

Arm a classifies image i with seed s correctly if m_a + √c z_i + √g u_ai + √r e_asi > 0, with independent standard
normal z (how hard an image is), u (how hard for an arm) and e (the seed), c + g + r = 1. Its true accuracy is Φ(m_a).
Reported for each situation and rule: how often the chosen arm is within one point of the best, the mean regret, and the
mean optimism of the gain over the default (seen minus true).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from statistics import NormalDist, fmean

import numpy as np

from mlae_lab.core.choice import Choice, Scores, choose

COMMON, OWN, REST = 0.75, 0.10, 0.15
SITUATIONS: dict[str, tuple[float, ...]] = {  # true accuracies in percent, the default first
    "8 equal": (80.0,) * 8,
    "8, default best by 2": (82.0, *(80.0,) * 7),
    "8, one better by 2": (80.0, *(80.0,) * 6, 82.0),
    "8, one better by 5": (80.0, *(80.0,) * 6, 85.0),
    "8, spread over 7": (80.0, 77.0, 78.0, 79.0, 81.0, 82.0, 83.0, 84.0),
    "3, one better by 2": (80.0, 80.0, 82.0),
}


@dataclass(frozen=True)
class Outcome:
    """One simulated choice, in points. seen: gain over the default on the images; true: without them; regret."""

    seen: float
    true: float
    regret: float


def simulated(truth: tuple[float, ...], draws: np.random.Generator, seeds: int = 2, images: int = 200) -> Choice:
    """A choice between arms with these true accuracies, the first the default, all others one setting away from it."""
    means = np.array([NormalDist().inv_cdf(accuracy / 100) for accuracy in truth])
    arms = len(truth)
    latent = (
        means[:, None, None]
        + np.sqrt(COMMON) * draws.standard_normal(images)
        + np.sqrt(OWN) * draws.standard_normal((arms, 1, images))
        + np.sqrt(REST) * draws.standard_normal((arms, seeds, images))
    )
    correct = latent > 0
    scores = {
        str(arm): Scores(
            {seed: 100 * float(correct[arm, seed].mean()) for seed in range(seeds)},
            {seed: correct[arm, seed].tolist() for seed in range(seeds)},
            images,
        )
        for arm in range(arms)
    }
    choice = choose(scores, "0", {str(arm): int(arm > 0) for arm in range(arms)})
    assert choice is not None
    return choice


def outcomes(truth: tuple[float, ...], choice: Choice) -> dict[str, Outcome]:
    """What the rule and, for comparison, the highest accuracy would have brought."""
    means = {entry.arm: entry.mean for entry in choice.candidates}

    def of(arm: str) -> Outcome:
        return Outcome(means[arm] - means["0"], truth[int(arm)] - truth[0], max(truth) - truth[int(arm)])

    return {"rule": of(choice.chosen), "highest": of(choice.best)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks choice", description=__doc__)
    parser.add_argument("--studies", type=int, default=400, help="simulated studies of each situation")
    args = parser.parse_args()
    print(f"{args.studies} studies each, 2 seeds, 200 images; within 1 point of the best, regret, optimism")
    for name, truth in SITUATIONS.items():
        draws = np.random.default_rng(0)
        choices = [simulated(truth, draws) for _ in range(args.studies)]
        results = [outcomes(truth, choice) for choice in choices]
        print(name)
        for rule in ("rule", "highest"):
            of = [result[rule] for result in results]
            print(
                f"  {rule:<8} {100 * fmean(entry.regret <= 1 for entry in of):5.1f} %"
                f"  {fmean(entry.regret for entry in of):5.2f}  {fmean(entry.seen - entry.true for entry in of):5.2f}"
            )
        expected = fmean(choice.optimism for choice in choices if choice.optimism is not None)
        sure = fmean(choice.of(choice.chosen).share or 0.0 for choice in choices)
        print(f"  expected optimism of the rule {expected:.2f}; chosen again in {100 * sure:.0f} % of the resamples")
