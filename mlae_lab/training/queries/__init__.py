"""All queries that a trained network answers, by name. Each module holds the queries of one topic."""

from __future__ import annotations

from mlae_lab.training.loaded_run import Query
from mlae_lab.training.queries import about, errors, images, maps, predict, similarity, whatif

TOPICS = (about, errors, maps, images, predict, similarity, whatif)


def queries() -> dict[str, Query]:
    """All queries, by name."""
    return {name: query for topic in TOPICS for name, query in topic.QUERIES.items()}
