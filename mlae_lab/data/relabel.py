"""Correct labels of a dataset: the corrections make a further version of it, as every change does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from mlae_lab.core.progress import ProgressCallback
from mlae_lab.data.bundled import DataError
from mlae_lab.data.dataset_input import DatasetInput, of_dataset
from mlae_lab.data.duplicates import examine
from mlae_lab.data.listing import counted, natural, shown, some
from mlae_lab.data.own_dataset import Changes, DatasetPlan, plan, stored
from mlae_lab.locations import PROGRAM

LEFT_OUT = "left out by hand"
_NAMED = 200  # corrections that the dataset's file names


def require_own(given: DatasetInput) -> None:
    """Raise DataError for a dataset that the lab did not make."""
    if stored(given.source.folder) is None:
        name = shown(given.origin.name)
        raise DataError(
            f"{name!r} was not made by the lab, so its labels are its folders: move the files there, or make a dataset "
            f"of it with `{PROGRAM} dataset new NAME own:{name}`"
        )


def corrected(
    task: str,
    labels: Mapping[str, str],
    leave_out: Collection[str] = (),
    csv_name: str = "",
    contents: Mapping[str, int] | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[DatasetInput, DatasetPlan]:
    """The images of a dataset with other labels, and the plan of a version of it; splits stay. Writes nothing.

    Args:
        task: Name of the task of a dataset that the lab made.
        labels: New class of some of its images, by path; an image that has the class already does not change.
        leave_out: Paths of images to leave out.
        csv_name: Of the file with the labels, "" without one.
        contents: `content_hash` of the images as they were looked at, by path; None: not known.
        progress: Called with (done, total) while images are decoded; it may raise.

    Raises:
        DataError: There is no such dataset or image, an image is another one now, or nothing would change.
    """
    given = of_dataset(task)
    require_own(given)
    source = given.source
    before = {image.path: image.label for image in source.images}
    if unknown := [path for path in (*labels, *leave_out) if path not in before]:
        raise DataError(f"{shown(unknown[0])!r} is no image of {shown(given.origin.name)!r}: name one of its files")
    without = {path for path in leave_out}
    changed = {path: new.strip() for path, new in labels.items() if path not in without and new.strip() != before[path]}
    if not changed and not without:
        raise DataError("no label would change: give another class to at least one image, or leave one out")
    images = tuple(
        replace(image, label=changed.get(image.path, image.label))
        for image in source.images
        if image.path not in without
    )
    left_out = source.left_out | ({LEFT_OUT: tuple(sorted(without))} if without else {})
    notes = (*source.notes, *_notes(before, changed))
    source = replace(source, images=images, left_out=left_out, notes=notes)
    facts = examine(source.folder, list(before), progress)
    for path in (*changed, *without):
        if contents is not None and facts[path].content != contents.get(path):
            raise DataError(
                f"{shown(path)!r} of {shown(given.origin.name)!r} is another image than the one that was looked at: "
                "run on the dataset as it is now, and check the labels there"
            )
    given = replace(given, source=source, origin=replace(given.origin, labels=csv_name))
    return given, plan(source, facts, Changes(ratio=None, duplicates="keep"))


def _notes(before: Mapping[str, str], changed: Mapping[str, str]) -> list[str]:
    if not changed:
        return []
    lines = [f"{path} from {before[path]} to {changed[path]}" for path in sorted(changed, key=natural)]
    notes = [f"Corrected labels: {counted(len(changed))} ({some(lines, _NAMED)})."]
    if new := sorted(set(changed.values()) - set(before.values()), key=natural):
        notes.append(f"New classes: {some(new)}.")
    return notes
