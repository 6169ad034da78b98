"""Lesson: what do experts add to a frozen network?"""

from __future__ import annotations

from mlae_lab.lessons.guess import Sliders
from mlae_lab.lessons.lesson import LOCATION, Arm, Lesson, Option, Teacher, Transfer, short_probe, short_run
from mlae_lab.lessons.recording import Results

DIGITS_TEST = (99.4, 99.7)  # LOG.md, 2026-11-23: linear probe and dense experts on test, 16 epochs, three seeds


def _reveal(results: Results) -> tuple[str, ...]:
    probe, experts = results.mean("probe"), results.mean("experts")
    return (
        f"The probe reaches {probe:.0f} %. With experts it is {experts:.0f} %: {experts - probe:.0f} percentage points "
        "more.",
        "The frozen network was trained to name letters and outlines, wherever they are. So it had little reason to "
        "keep exactly where they are.",
        "The probe can only use what is left of that. The experts change what the layers pass on, so that more of it "
        "gets through.",
        "The probe was trained for 100 epochs, until it no longer improved, the experts for 3. An epoch is one pass "
        "through all training images.",
    )


def _transfer(results: Results) -> Transfer:
    probe, experts = DIGITS_TEST
    return Transfer(
        f"On the images called Digits, the network must name a written digit. Trained for longer, the probe reaches "
        f"{probe:g} % and experts {experts:g} %. Why does the probe do so well there?",
        (
            Option(
                "The frozen network can tell digits apart already.",
                "Yes. It was trained on letters of many scripts, and digits look like them. What the network knows "
                "already, experts need not add.",
            ),
            Option(
                "Digits has more training images.",
                "No: each of the two tasks has 800. Think of what the network was trained on before.",
            ),
            Option(
                "Digits has only ten answers, so a blind guess is often correct.",
                "No: a blind guess is correct in 10 of 100 images, far from 99. Think of what the network was trained "
                "on before.",
            ),
        ),
        0,
    )


WHAT_EXPERTS_ADD = Lesson(
    name="what-experts-add",
    title="What do experts add?",
    summary="How much better is a frozen network if small experts may change its layers?",
    minutes=5,
    background=(
        "This network was trained before, on other images. Its twelve layers are frozen: they do not change any more.",
        "A linear probe adds one last layer and trains only that. It has to use the numbers that the frozen network "
        "gives it.",
        "An expert is a very small add-on to a layer. The layer itself stays frozen; the add-on learns, and it changes "
        "what the layer passes on. Each layer gets eight: 96 experts, which are trained together with the last layer.",
        "The task: how far to the right is a small shape? There are 16 answers, so a blind guess is correct in 6 of "
        "100 images.",
    ),
    question="How many of 100 new images will the probe alone get correct, and how many with experts?",
    guess=Sliders((("probe", "Linear probe"), ("experts", "96 experts"))),
    arms=(
        Arm("probe", "Linear probe", short_probe(LOCATION)),
        Arm("experts", "96 experts", short_run(LOCATION)),
    ),
    measure="accuracy",
    live=lambda value: ("probe", "experts"),
    reveal=_reveal,
    transfer=_transfer,
    explore=("train", {"task": LOCATION}),
    teacher=Teacher(
        teaches="A frozen network keeps what its training needed. A probe reads what is there, experts can change it. "
        "How much they add depends on the task.",
        ask="What did the network have to know in its first training? Does that help to say where a shape is?",
        wrong=(
            (
                "Both reach about the same, because the network is large.",
                "Size is not the point. The place of a shape was of no use in the first training.",
            ),
            (
                "Experts always help this much.",
                "The transfer question shows a task where they add almost nothing.",
            ),
        ),
    ),
)
