"""Lesson: is one setting better than another?"""

from __future__ import annotations

from statistics import fmean

from mlae_lab.core.patterns import allocation
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.proportions import wilson
from mlae_lab.core.seed_statistics import between, points
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
    first = "A and B have the same mean."
    if points(gap.mean) != "0":
        first = f"B is {points(abs(gap.mean))} points {'above' if gap.mean > 0 else 'below'} A on average."
    if gap.interval is not None:
        _, low, high = gap.interval
        verdict = "so one cannot tell" if low <= 0 <= high else f"so {'B' if gap.mean > 0 else 'A'} is better"
        first += f" The 95 % interval of B − A goes from {between(low, high)}, {verdict}."
    share = round(results.mean("a") * IMAGES / 100)
    low, high = wilson(share, IMAGES)
    return (
        first,
        f"Two things blur the result. Another seed gives another result. And {IMAGES} test images give each "
        f"accuracy only to about ± {50 * (high - low):.1f} points.",
        _best_epoch(best_epoch_gain(results)),
    )


def _best_epoch(gain: float) -> str:
    if gain < 0.05:
        return (
            "One more trap: to report the best epoch in place of the last. In these short runs the last was the best. "
            "In a long run, the best of many epochs is higher by luck alone."
        )
    return (
        f"To report the best epoch in place of the last would add {gain:.2f} points to these numbers, and nothing "
        "would be better."
    )


def _transfer(results: Results) -> Transfer:
    return Transfer(
        "The paper reports 78.8 % with a p that was chosen for each task, and 77.5 % with one p for all tasks. How "
        "should one read the gap?",
        (
            Option(
                "A p chosen for each task makes the network better by 1.3 points.",
                "Perhaps, but the numbers do not show it: the best of many tries is higher by luck, too.",
            ),
            Option(
                "A part of the gap may be luck, as the best of many tries was reported.",
                "Yes. Who tries many settings and reports the best also picks the luckiest. Only new images or new "
                "seeds can say how large this part is.",
            ),
            Option(
                "There is no gap, as it is below 2.8 points.",
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
        "steps (p = 0.1). Both have experts in the last three layers only.",
        "Chance plays a part in each run: in the first values, in the order of the images and in the mask. The seed is "
        "the number that fixes this chance. Here A and B are trained with the same three seeds.",
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
