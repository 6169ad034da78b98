"""Lesson: what does the drop rate p do?"""

from __future__ import annotations

from mlae_lab.core.patterns import dense, uniform
from mlae_lab.core.plan import MaskPlan
from mlae_lab.lessons.guess import Curve
from mlae_lab.lessons.lesson import FASHION, LOCATION, Arm, Lesson, Option, Teacher, Transfer, short_run
from mlae_lab.lessons.recording import Results, below_the_probe

RATES = (0.0, 0.3, 0.5, 0.7, 0.9)


def plan_of(rate: float) -> MaskPlan:
    """All 96 experts with one drop rate."""
    return uniform(rate) if rate else dense()


def arm_name(rate: float) -> str:
    """The name of the arm with a drop rate."""
    return f"p{rate:g}"


def _reveal(results: Results) -> tuple[str, ...]:
    means = [results.mean(arm_name(rate)) for rate in RATES]
    listed = ", ".join(f"{mean:.0f} % at {rate:g}" for rate, mean in zip(RATES, means, strict=True))
    return (
        f"Accuracy by p: {listed}.",
        "A likely reason: the more experts are left out in each step, the less each of them learns in the same short "
        "time.",
        "The research paper behind this lab trains 500 epochs, and reports that a mask helps on many tasks: it keeps "
        "experts from depending too much on each other. Our run is too short to test this.",
        *below_the_probe(),
    )


def _transfer(results: Results) -> Transfer:
    flat, dropped = results.mean("p0", FASHION), results.mean("p0.5", FASHION)
    return Transfer(
        "On the images called Fashion, the network must name a piece of clothing. With p = 0.5 in place of 0, accuracy "
        f"goes from {flat:.1f} to {dropped:.1f} %. With the small shape it went from {results.mean('p0'):.1f} to "
        f"{results.mean('p0.5'):.1f} %. Why does Fashion lose so much less?",
        (
            Option(
                "On Fashion the mask leaves out fewer experts.",
                "No: half of the experts are left out in each step there, too. Think of what the frozen network can do "
                "without any expert.",
            ),
            Option(
                "The frozen network does most of the work on Fashion.",
                "Yes. On Fashion a probe alone is already close to the experts. Where experts have little to add, "
                "little is lost when they learn less.",
            ),
            Option(
                "The runs on Fashion are longer.",
                "No: all train for three epochs on 800 images. Think of what the frozen network can do without any "
                "expert.",
            ),
        ),
        1,
    )


WHAT_P_DOES = Lesson(
    name="what-p-does",
    title="What does p do?",
    summary="What happens to accuracy if experts are left out at random during training?",
    minutes=6,
    background=(
        "In each step of training, a mask leaves out some experts at random. The drop rate p is the chance of being "
        "left out: with p = 0.5 each of the 96 experts misses half of the steps on average. Those that take part "
        "count more, "
        "so that the sum stays the same on average.",
        "When the network is tested, all experts are on.",
        "The task: how far to the right is a small shape? All runs train for three epochs: they see each image three "
        "times.",
    ),
    question="Draw how accuracy changes as p grows. The point at p = 0 is given; drag the other four.",
    guess=Curve(RATES, tuple(arm_name(rate) for rate in RATES), "drop rate p"),
    arms=(
        *(Arm(arm_name(rate), f"p = {rate:g}", short_run(LOCATION, plan_of(rate))) for rate in RATES),
        *(Arm(arm_name(rate), f"p = {rate:g}", short_run(FASHION, plan_of(rate)), later=True) for rate in (0.0, 0.5)),
    ),
    measure="accuracy",
    live=lambda value: ("p0.5",),
    reveal=_reveal,
    transfer=_transfer,
    explore=("train", {"task": LOCATION, "mask": uniform(0.5).code}),
    teacher=Teacher(
        teaches="p has a price and a gain. The price shows at once: experts that are left out learn less. The gain "
        "needs long training.",
        ask="If half of a team is away on each day, what happens to the work of a short week? And of a long year?",
        wrong=(
            (
                "Accuracy is best at p = 0.5, because the paper says so.",
                "The paper trains 500 epochs, this lesson three. The best p depends on the length and the task.",
            ),
            (
                "Accuracy falls in a straight line to chance at p = 0.9.",
                "Even at 0.9 every expert is on in one of ten steps, and the last step always learns.",
            ),
        ),
    ),
)
