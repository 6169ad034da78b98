"""Lesson: which of the 96 experts matter?"""

from __future__ import annotations

from statistics import fmean

from mlae_lab.core.patterns import uniform
from mlae_lab.lessons.guess import Cells
from mlae_lab.lessons.lesson import LOCATION, Arm, Lesson, Option, Teacher, Transfer, short_run
from mlae_lab.lessons.recording import Results


def _reveal(results: Results) -> tuple[str, ...]:
    what = results.whatif
    trained, top = what["trained"], what["top"]
    chance = fmean(entry["loss"] for entry in what["random"])
    return (
        f"As trained, the loss is {trained['loss']:.2f} and accuracy {trained['accuracy']:.0f} %. Without "
        f"five random experts the loss is {chance:.2f}, the mean of {len(what['random'])} tries.",
        f"Without the five that a quick rule picks it is {top['loss']:.2f}, and accuracy {top['accuracy']:.0f} %.",
        "The rule asks of each expert: if it became a little weaker, how fast would the loss rise? One calculation, "
        "forward and back through the network, answers this for all 96 at once. It need not find the worst five.",
    )


def _transfer(results: Results) -> Transfer:
    half = results.whatif["half_off"]
    lost = [entry["trained"] - fmean(entry["accuracies"]) for entry in half]
    is_masked_better = lost[1] < lost[0]
    falls = [f"from {entry['trained']:.0f} to {fmean(entry['accuracies']):.0f} %" for entry in half]
    numbers = (
        f"In {len(half[0]['accuracies'])} random halves of one run each, accuracy falls {falls[0]} without a mask and "
        f"{falls[1]} after training with p = 0.5."
    )
    why = (
        "A network that had to work without half of its experts in each step has learned to do without them. But look "
        "where each one began."
        if is_masked_better
        else "In so short a run, training with gaps did not help against gaps."
    )
    correct = 0 if is_masked_better else 1
    return Transfer(
        f"The network above was trained with all experts on and reaches {half[0]['trained']:.0f} %. Another one was "
        f"trained with a mask (p = 0.5), so with half of its experts missing in each step; it reaches "
        f"{half[1]['trained']:.0f} %. Now half of all experts are switched off at random. Which network loses fewer "
        "points?",
        tuple(
            Option(text, f"{'Yes' if i == correct else 'No'}. {numbers} {why}")
            for i, text in enumerate(
                ("The one trained with the mask.", "The one trained without.", "Both lose the same, within a point.")
            )
        ),
        correct,
    )


WHICH_EXPERTS_MATTER = Lesson(
    name="which-experts-matter",
    title="Which experts matter?",
    summary="If five of 96 experts are switched off, which five hurt most?",
    minutes=5,
    background=(
        "This network is trained. Its 96 experts stand in a grid: twelve layers from the input at the top to the "
        "output at the bottom, eight experts each.",
        "Each expert can be switched off after training. Then the network is tested again. Nothing is trained here.",
        "The loss says how wrong the network is: 0 is perfect, higher is worse, without an upper limit. The task: how "
        "far to the right is a small shape?",
    ),
    question="Pick the five experts whose removal would hurt the network most.",
    guess=Cells(5),
    arms=(
        Arm("p0", "no mask", short_run(LOCATION)),
        Arm("p0.5", "p = 0.5", short_run(LOCATION, uniform(0.5)), later=True),
    ),
    measure="loss",
    live=lambda value: (),
    reveal=_reveal,
    transfer=_transfer,
    explore=("experts", {"view": "whatif"}),
    teacher=Teacher(
        teaches="Most experts can be missed, a few cannot. A cheap rule finds these few far better than chance.",
        ask="Before you look at the grid: do the five stand together or apart?",
        wrong=(
            (
                "The five of the last layer, because they are next to the answer.",
                "Experts near the input change what all later layers see.",
            ),
            (
                "Any five, because each is only one of 96.",
                "Compare the random fives with the five of the rule in the figure.",
            ),
        ),
    ),
    whatif="p0",
)
