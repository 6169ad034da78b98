"""Lesson: in which layer must a network learn?"""

from __future__ import annotations

from mlae_lab.core.patterns import EXPERTS, LAYERS, allocation
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.seed_statistics import SeedStatistics, between
from mlae_lab.lessons.guess import Row
from mlae_lab.lessons.lesson import LOCATION, Arm, Lesson, Option, Teacher, Transfer, short_run
from mlae_lab.lessons.recording import Results, below_the_probe

REFERENCE = 6  # layer 7, from 0: trained with the layer of every guess


def _row(row: int) -> MaskPlan:
    """Eight experts in one layer and none elsewhere."""
    return allocation(tuple(EXPERTS * (layer == row) for layer in range(LAYERS)))


def _name(row: int) -> str:
    return f"layer-{row + 1}"


def _live(value: int) -> tuple[str, ...]:
    return (_name(value),) if value == REFERENCE else (_name(value), _name(REFERENCE))


def _reveal(results: Results) -> tuple[str, ...]:
    means = {row: results.mean(_name(row)) for row in range(LAYERS)}
    best, worst = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    alike = [
        row for row in range(LAYERS) if row != best and _includes_zero(results.difference(_name(row), _name(best)))
    ]
    return (
        f"Layer {best + 1} is highest with {means[best]:.0f} %, layer {worst + 1} is lowest with {means[worst]:.0f} %. "
        f"Layer 7 reaches {means[REFERENCE]:.0f} %. Only the layer differs, not the number of experts.",
        *([_alike(alike)] if alike else []),
        "A likely reason: later layers can build on a change in an early layer. A change in the last layer cannot "
        "recover what earlier layers have lost. This says why late layers do badly, not which early layer is best.",
        *below_the_probe(),
    )


def _alike(rows: list[int]) -> str:
    """That the seeds cannot tell these rows from the best one."""
    numbers = [str(row + 1) for row in rows]
    listed = f"s {', '.join(numbers[:-1])} and {numbers[-1]}" if len(numbers) > 1 else f" {numbers[0]}"
    return f"With three runs per layer, luck may decide between it and layer{listed}: they come too close."


def _includes_zero(gap: SeedStatistics) -> bool:
    """Whether the seeds leave open which one is better."""
    return gap.low is not None and gap.high is not None and gap.low <= 0 <= gap.high


def _transfer(results: Results) -> Transfer:
    lower, upper = results.mean("lower"), results.mean("upper")
    gap = results.difference("upper", "lower")
    gap_text = f"The gap is {gap.mean:.0f} points"
    if gap.interval is not None:
        gap_text += f" (95 % interval {between(gap.interval[1], gap.interval[2])})"
    correct = 2 if _includes_zero(gap) else 0 if gap.mean > 0 else 1
    numbers = f"The half near the input reaches {lower:.0f} %, the half near the output {upper:.0f} %. {gap_text}."
    return Transfer(
        "Now half of the layers get experts, 48 in all. The task is again: how far to the right is a small shape? "
        "Which half does better?",
        tuple(
            Option(text, f"{'Yes' if correct == i else 'No'}. {numbers}")
            for i, text in enumerate(
                ("The half near the input, layers 1 to 6.", "The half near the output, layers 7 to 12.",
                 "Both halves come so close that luck may decide.")
            )
        ),
        correct,
    )  # fmt: skip


WHERE_TO_LEARN = Lesson(
    name="where-to-learn",
    title="Where must a network learn?",
    summary="If only one of twelve layers may change, which one should it be?",
    minutes=5,
    background=(
        "The network has twelve layers. An image enters at layer 1, the answer leaves after layer 12.",
        "All layers are frozen. You may give experts to just one of them: eight small add-ons to that layer.",
        "The task: how far to the right is a small shape? There are 16 answers. Each layer is tried in three runs with "
        "different random starts, called seeds.",
    ),
    question="With experts in which layer is accuracy highest? Click that layer.",
    guess=Row(tuple(_name(row) for row in range(LAYERS)), EXPERTS),
    arms=(
        *(Arm(_name(row), f"layer {row + 1}", short_run(LOCATION, _row(row))) for row in range(LAYERS)),
        Arm("lower", "Layers 1 to 6", short_run(LOCATION, allocation((8,) * 6 + (0,) * 6)), later=True),
        Arm("upper", "Layers 7 to 12", short_run(LOCATION, allocation((0,) * 6 + (8,) * 6)), later=True),
    ),
    measure="accuracy",
    live=_live,
    reveal=_reveal,
    transfer=_transfer,
    explore=("masks", {"mask": _row(3).code}),
    teacher=Teacher(
        teaches="The same experts are worth more in one layer than in another. Where to put them is a question that a "
        "mask answers.",
        ask="Where in the network could the place of the shape get lost?",
        wrong=(
            (
                "The last layer, because it is next to the answer.",
                "It is also the one that can do the least: nothing after it can use its change.",
            ),
            (
                "It makes no difference, because the number of experts is the same.",
                "All twelve runs in the figure have equal numbers. Compare the bands with the range of the means.",
            ),
        ),
    ),
)
