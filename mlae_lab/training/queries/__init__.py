"""All queries that a trained network answers, by name. Each module holds the queries of one topic."""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import Any

from mlae_lab.training.loaded_run import LoadedRun, ProgressCallback, Query, require_images
from mlae_lab.training.queries import about, classify, errors, images, maps, predict, similarity, whatif

TOPICS = (about, classify, errors, maps, images, predict, similarity, whatif)
_WITHOUT_IMAGES = ("similarity", "pruned", "classify")  # need the adapter only, or other images


def queries() -> dict[str, Query]:
    """All queries, by name. Those that use the run's images raise QueryError for a run that lacks some of them."""
    return {
        name: query if name in _WITHOUT_IMAGES else _with_images(query)
        for topic in TOPICS
        for name, query in topic.QUERIES.items()
    }


def _with_images(query: Query) -> Query:
    @wraps(query)
    def checked(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
        if not isinstance(arguments.get("image"), Mapping):  # an uploaded file
            require_images(loaded)
        return query(loaded, arguments, on_progress)

    return checked
