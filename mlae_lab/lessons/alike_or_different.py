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
        f"The similarity {word} from {dense:.3f} to {masked:.3f}, the means of three seeds. The experts are not very "
        f"alike in either case, and the mask makes them {'less' if masked < dense else 'more'} alike.",
        "One may expect the opposite: if experts are missing at random, each could become a backup for the others. "
        "A theory for a simpler kind of network says so. In these runs it did not happen.",
        f"Accuracy is {results.mean('p0', measure='accuracy'):.1f} % without and "
        f"{results.mean('p0.5', measure='accuracy'):.1f} % with the mask.",
    )


def _transfer(results: Results) -> Transfer:
    dense = results.mean("p0", measure="accuracy")
    masked = results.mean("p0.5", measure="accuracy")
    return Transfer(
        "Suppose masked experts turn out less alike, and somebody objects: “They only learned less. Experts that have "
        "not learned yet are hardly alike.” Which finding would weaken this objection most?",
        (
            Option("Both runs took the same number of steps.",
                   "That is true, but it does not help: a run can take as many steps and still learn less."),
            Option("Both runs have 96 experts.",
                   "That is true, but it says nothing about how much they have learned."),
            Option("Both reach the same accuracy on a task that needs experts.",
                   "Yes. If they had learned less, such a task would show it. Here it is "
                   f"{dense:.1f} % without and {masked:.1f} % with the mask, but on Fashion the frozen network does "
                   "most of the work, so this says little. In longer runs on dSprites-Loc, which needs experts (the "
                   "log of this lab), accuracy is 79 % for both, and masked experts are half as alike."),
        ),
        2,
    )  # fmt: skip


ALIKE_OR_DIFFERENT = Lesson(
    name="alike-or-different",
    title="Alike or different?",
    summary="Do experts become more alike if a mask leaves them out at random?",
    minutes=6,
    background=(
        "Eight experts share each layer. If two of them make the same change, one may be a waste. So the paper wants "
        "experts to differ.",
        "Similarity compares the directions of two changes, not their size. It is 1 for the same direction or its "
        "exact opposite, and 0 for directions at right angles. We take the mean over all pairs in a layer (mean "
        "|cos|).",
        "The mask leaves out each expert in half of the steps on average (p = 0.5). The task: name a piece of "
        "clothing.",
    ),
    question="Will the similarity of the experts rise or fall if a mask is used in training?",
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
