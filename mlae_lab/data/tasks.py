"""Find a task's pictures: which tasks are ready on this machine, and load them."""

from __future__ import annotations

from mlae_lab.core import catalog
from mlae_lab.data.bundled import DataError, load_bundled
from mlae_lab.data.splits import Splits


def ready(task: catalog.Task) -> bool:
    """Whether the task can be trained on here and now."""
    return task.bundled


def load(name: str) -> Splits:
    """All pictures of a task. Raises CatalogError for an unknown name, DataError where there is no data."""
    task = catalog.task(name)
    if not ready(task):
        bundled = ", ".join(t.name for t in catalog.TASKS if t.bundled)
        raise DataError(
            f"{task.title} ({task.name}) has no data here and the lab cannot fetch it yet: "
            f"the bundled tasks are {bundled}"
        )
    return load_bundled(task.name)
