"""Lesson: what do experts add to a frozen network?"""

from __future__ import annotations

from mlae_lab.lessons.guess import Sliders
from mlae_lab.lessons.lesson import LOCATION, Arm, Lesson, Option, Teacher, Transfer, short_probe, short_run
from mlae_lab.lessons.recording import Results

DIGITS_TEST = (99.4, 99.7)  # LOG.md, 2026-11-23: linear probe and dense experts on test, 16 epochs, three seeds


def _reveal(results: Results) -> tuple[str, ...]:
    probe, experts = results.mean("probe"), results.mean("experts")
    return (
        f"The probe reaches {probe:.0f} %. With experts it is {experts:.0f} %: {experts - probe:.0f} points more.",
        "The frozen network was trained to name a shape, wherever it is. So it had no reason to keep the place.",
        "The probe can only use what is left of the place. The experts change the layers, so that more of it gets "
        "through.",
    )


def _transfer(results: Results) -> Transfer:
    probe, experts = DIGITS_TEST
    return Transfer(
        f"On Digits, where a written digit is to be named, longer runs reach {probe:g} % with the probe and "
        f"{experts:g} % with experts. Why do experts add so little there?",
        (
            Option(
                "The frozen network can tell digits apart already.",
                "Yes. It was trained on letters of many scripts, and digits look like them. What the network knows "
                "already, experts need not add.",
            ),
            Option(
                "Digits has too few images for experts.",
                "No: each of the two tasks has 800 training images. Look at the probe: how much is left to gain?",
            ),
            Option(
                "Experts only work for shapes.",
                "No. Experts change the layers for any task. Look at the probe: how much is left to gain?",
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
        "A linear probe adds one last step and trains only that step. It has to use what the network sees now.",
        "An expert is a very small change of one layer. Each layer gets eight. Training fits these 96 experts and the "
        "last step.",
        "The task: how far to the right is a small shape? There are 16 answers, so a blind guess is correct in 6 of "
        "100 images.",
    ),
    question="How many of 100 new images will each of the two get correct?",
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
