"""Lesson: does masking make experts alike or different?"""

from __future__ import annotations

from mlae_lab.lessons.guess import Arrow
from mlae_lab.lessons.lesson import FASHION, LOCATION, Arm, Lesson, Option, Teacher, Transfer, short_run
from mlae_lab.lessons.recording import Results
from mlae_lab.lessons.what_p_does import arm_name, plan_of


def _reveal(results: Results) -> tuple[str, ...]:
    dense, masked = results.mean("p0"), results.mean("p0.5")
    word = "falls" if masked < dense else "rises"
    return (
        f"The similarity {word} from {dense:.3f} to {masked:.3f}.",
        "0 means that two experts have nothing in common, 1 that they are the same. So the experts are not very alike "
        "in either run, and the mask makes them "
        f"{'less' if masked < dense else 'more'} alike.",
        "One may expect the opposite: if experts are missing by chance, each could become a spare part for the others. "
        "A theory and two toy models said so. The real network disagrees with them.",
    )


def _gap(points: float) -> str:
    if abs(points) < 4:
        return "The gap is small, so “learned less” explains little."
    return "So in these short runs the objection stands."


def _transfer(results: Results) -> Transfer:
    dense = results.mean("p0", measure="accuracy")
    masked = results.mean("p0.5", measure="accuracy")
    return Transfer(
        "Suppose masked experts turn out less alike, and somebody objects: “They only learned less. Experts that have "
        "not learned yet are never alike.” What would speak against this?",
        (
            Option("Both runs took the same number of steps.",
                   "That is true, but it does not help: a run can take as many steps and still learn less."),
            Option("Both runs have 96 experts.",
                   "That is true, but it says nothing about how much they have learned."),
            Option("Both runs reach about the same accuracy.",
                   f"Yes. Here it is {dense:.1f} % without and {masked:.1f} % with the mask. {_gap(dense - masked)} In "
                   "long runs on dSprites-Loc (the log of this lab) accuracy is equal, and the masked experts are half "
                   "as alike."),
        ),
        2,
    )  # fmt: skip


ALIKE_OR_DIFFERENT = Lesson(
    name="alike-or-different",
    title="Alike or different?",
    summary="Do experts become more alike if a mask leaves them out at random?",
    minutes=6,
    background=(
        "Eight experts share each layer. If two of them make the same change, one is a waste. So it is good if experts "
        "differ.",
        "Similarity is a number from 0 to 1: 0 for two changes with nothing in common, 1 for two that are the same. It "
        "is the mean of |cos| over all pairs in a layer.",
        "The mask leaves out each expert in half of the steps (p = 0.5).",
    ),
    question="With the mask, will the similarity of the experts rise or fall?",
    guess=Arrow("similarity"),
    arms=tuple(
        Arm(arm_name(rate), "no mask" if not rate else f"p = {rate:g}", short_run(task, plan_of(rate)))
        for task in (FASHION, LOCATION)
        for rate in (0.0, 0.5)
    ),
    measure="similarity",
    live=lambda value: ("p0", "p0.5"),
    reveal=_reveal,
    transfer=_transfer,
    explore=("train", {"task": FASHION, "mask": plan_of(0.5).code}),
    teacher=Teacher(
        teaches="A claim of the paper can be tested in a minute: masks make experts less alike. A good test also rules "
        "out a simpler reason.",
        ask="You work in a team in which half are away each day. Do you become more like the others, or less?",
        wrong=(
            (
                "It rises: each expert must be able to replace the others.",
                "This is what theory predicts for a simpler loss. The network shows the opposite, which is why one "
                "measures.",
            ),
            (
                "It falls, and so accuracy must rise.",
                "Less alike is not the same as better. Look at the accuracy of the two runs.",
            ),
        ),
    ),
)
