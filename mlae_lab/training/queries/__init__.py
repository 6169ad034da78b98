"""All questions that a trained network can be asked, by name. Each module of this room holds those of one topic."""

from __future__ import annotations

from mlae_lab.training.queries import about, errors, maps, images, predict, similarity, whatif
from mlae_lab.training.loaded_run import Question

TOPICS = (about, errors, maps, images, predict, similarity, whatif)


def questions() -> dict[str, Question]:
    """Name to question."""
    return {name: question for topic in TOPICS for name, question in topic.QUESTIONS.items()}
