"""Whether a folder holds the images of a run, wherever the run found them when it was trained."""

from __future__ import annotations

from collections.abc import Callable

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.data import tasks
from mlae_lab.data.bundled import DataError
from mlae_lab.data.image_record import ImageRecord, missing_sentence


def checked_folder(
    config: RunConfig, record: ImageRecord | None, text: str, on_chunk: Callable[[], None] = lambda: None
) -> str:
    """The path of the images of a run in a folder that a person names, "" for "".

    Images are the same if their content is: folders and files may have other names. For a run without a record, of
    version 0.5 or before its first step, label or fingerprint decide.

    Args:
        config: Of the run.
        record: Which images are the run's, None without a record.
        text: The folder.
        on_chunk: Called between pieces of the work; it may raise.

    Raises:
        DataError: The folder lacks images of the run, or does not exist.
    """
    if not text.strip():
        return ""
    task = catalog.task(config.task)
    if task.bundled:
        raise DataError(f"{task.name} is bundled and reads no folder: leave out {text[:200]}")
    folder = tasks.images_folder(task, text)
    as_0_5 = record is None and not config.data_fingerprint
    try:
        if record is not None or as_0_5:
            listing = tasks.listed(task, folder, as_0_5)
        else:  # as the launch has read them
            listing = tasks.checked(task, folder, lambda done, total: on_chunk())
    except DataError:
        if record is None:
            raise
        listing = None  # no new run can start on the folder, but it may still hold the images of this one
    if listing and listing.fingerprint == config.data_fingerprint:
        return str(folder)
    if record is not None:
        lacks = missing_sentence(tasks.match_in_folder(record, folder, listing, on_chunk), record, folder)
    else:
        assert listing is not None
        label = tasks.label(task, tasks.census(task, listing))
        lacks = f"{folder} holds {label} and the run is of {config.data_label}" if label != config.data_label else ""
    if lacks:
        raise DataError(f"{lacks}: name the folder that holds the run's images")
    return str(folder)
