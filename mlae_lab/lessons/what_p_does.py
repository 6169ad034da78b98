"""Lesson: what does the drop rate p do?"""

from __future__ import annotations

from mlae_lab.core.patterns import dense, uniform
from mlae_lab.core.plan import MaskPlan
from mlae_lab.lessons.guess import Curve
from mlae_lab.lessons.lesson import FASHION, LOCATION, Arm, Lesson, Option, Teacher, Transfer, short_run
from mlae_lab.lessons.recording import Results

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
        "The more experts are left out in each step, the less each of them learns in the same short time. In so few "
        "epochs the network cannot make up for that.",
        "The paper trains 500 epochs, and there a mask helps on many tasks. Its authors say that it keeps experts from "
        "leaning on each other. A short run does not show this.",
    )


def _transfer(results: Results) -> Transfer:
    flat, dropped = results.mean("p0", FASHION), results.mean("p0.5", FASHION)
    return Transfer(
        f"On Fashion, where a piece of clothing is to be named, accuracy is {flat:.0f} % at p = 0 and {dropped:.0f} % "
        f"at p = 0.5. That curve is far flatter. Why?",
        (
            Option(
                "Masks do nothing on Fashion.",
                "No: half of the experts are left out in each step there, too. Think of what the frozen network can do "
                "without any expert.",
            ),
            Option(
                "The frozen network does most of the work on Fashion.",
                "Yes. On Fashion a probe alone is already close to the experts. Where experts have little to add, "
                "little is lost when they learn less.",
            ),
            Option(
                "Fashion has more training images.",
                "No: each task has 800. Think of what the frozen network can do without any expert.",
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
        "In each step of training, a mask leaves out some experts by chance. The drop rate p says how many: with "
        "p = 0.5 each of the 96 experts is out in half of the steps.",
        "When the network is tested, all experts are on.",
        "The task: how far to the right is a small shape? All runs train for three epochs: they see each image three "
        "times.",
    ),
    question="Draw accuracy over p. The point at p = 0 is given; drag the other four.",
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
