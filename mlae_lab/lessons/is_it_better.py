"""Lesson: is one setting better than another?"""

from __future__ import annotations

from statistics import fmean

from mlae_lab.core.inference import seeds_for
from mlae_lab.core.patterns import allocation
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.proportions import wilson
from mlae_lab.core.seed_statistics import SeedStatistics, between, points
from mlae_lab.lessons.guess import Verdict
from mlae_lab.lessons.lesson import FASHION, SEEDS, Arm, Lesson, Option, Teacher, Transfer, short_run
from mlae_lab.lessons.recording import Results

IMAGES = 200  # of val


def _late(rate: float) -> MaskPlan:
    """Experts in the last three layers, so that six runs fit into a minute."""
    return allocation((0,) * 9 + (8,) * 3, drop_rate=rate)


def best_epoch_gain(results: Results) -> float:
    """How much higher the best epoch is than the last, mean over all runs of the lesson."""
    runs = [run for arm in ("a", "b") for run in results.runs(arm)]
    return fmean(max(y for _, y in run.curve) - run.accuracy for run in runs)


def _reveal(results: Results) -> tuple[str, ...]:
    gap = results.difference("a", "b")
    first = "A and B have the same mean accuracy over the three seeds."
    if points(gap.mean) != "0":
        first = f"B is {points(abs(gap.mean))} points {'above' if gap.mean > 0 else 'below'} A on average."
    if gap.interval is not None:
        _, low, high = gap.interval
        verdict = "so one cannot tell" if low <= 0 <= high else f"so {'B' if gap.mean > 0 else 'A'} is better"
        first += (
            " The 95 % interval of B − A, the range that chance leaves open, goes from "
            f"{between(low, high)}, {verdict}."
        )
    share = round(results.mean("a") * IMAGES / 100)
    low, high = wilson(share, IMAGES)
    return (
        first,
        f"Two things blur the result. Another seed gives another result: that is the interval above. And {IMAGES} test "
        f"images give each accuracy only to about ± {50 * (high - low):.1f} points; A and B are tested on the same "
        "ones, so part of this cancels in the difference.",
        *_seeds_needed(gap),
        _best_epoch(best_epoch_gain(results)),
    )


def _seeds_needed(gap: SeedStatistics) -> tuple[str, ...]:
    """How many seeds would show a difference of one point, if the spread stays as it is."""
    if not gap.deviation:
        return ()
    needed = seeds_for(1 / gap.deviation)
    if needed is None:
        return ()
    return (
        f"With the spread of these differences, a true difference of one point would take about {needed} seeds to show "
        "(in four of five such studies).",
    )


def _best_epoch(gain: float) -> str:
    if gain < 0.05:
        return (
            "One more trap: some people report the best epoch instead of the last. In these short runs the last was "
            "the best. In a long run, the best of many epochs can look better by luck."
        )
    return (
        f"Reporting the best epoch instead of the last would add {gain:.2f} points to these numbers, and nothing "
        "would be better."
    )


def _transfer(results: Results) -> Transfer:
    return Transfer(
        "The authors of the paper tried several p on each task and report the best result of each: 78.8 % on average. "
        "With one p for all tasks it is 77.5 %. How should one read the gap of 1.3 points?",
        (
            Option(
                "The right p for each task makes the network better by 1.3 points.",
                "Perhaps, but the numbers do not show it: the best of many tries is higher by luck, too.",
            ),
            Option(
                "The best of many tries is higher by luck, too, so nobody can say how large the real gap is.",
                "Yes. Who tries many settings and reports the best also picks the luckiest. Only new images or new "
                "seeds can say how much is luck.",
            ),
            Option(
                "A gap of 1.3 points is small, so both are equally good.",
                "No. A noisy number does not show that there is no gap. It shows that one does not know yet.",
            ),
        ),
        1,
    )


IS_IT_BETTER = Lesson(
    name="is-it-better",
    title="Is it better?",
    summary="Two settings, three runs each: which one is better, and how sure can one be?",
    minutes=6,
    background=(
        "Two settings differ in one thing. A always uses its experts. B leaves out each expert in one of ten "
        "steps on average (p = 0.1). Both have experts in the last three layers only, so that six runs fit into a "
        "minute.",
        "Chance plays a part in each run: in the starting weights, in the order of the images and in the mask. The "
        "seed is the number that fixes this chance. Here A and B are trained with the same three seeds.",
        "The task: name a piece of clothing. 200 images are used for the test.",
    ),
    question="Which one is better: A, B, or can one not tell? And how many seeds would you want to see?",
    guess=Verdict("a", "b", ("A (no mask)", "B (p = 0.1)")),
    arms=(
        Arm("a", "A (no mask)", short_run(FASHION, _late(0.0))),
        Arm("b", "B (p = 0.1)", short_run(FASHION, _late(0.1))),
    ),
    measure="accuracy",
    live=lambda value: ("a", "b"),
    reveal=_reveal,
    transfer=_transfer,
    explore=("studies", {}),
    teacher=Teacher(
        teaches="One run shows no difference between two settings. Paired seeds and an interval do, or they say that "
        "one cannot tell.",
        ask="A has 80.5 %, B has 81.5 %. Would you bet on B for the next seed?",
        wrong=(
            (
                "B, because its mean is higher.",
                "A mean is always higher on one side. The interval says whether that means something.",
            ),
            (
                "They are equal.",
                "“Cannot tell” is not “equal”. More seeds could still show a gap.",
            ),
        ),
    ),
    live_seeds=SEEDS,
)
