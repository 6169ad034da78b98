"""Check the images of a listing: do they exist, can they be read, and do their numbers agree with the catalog?

Existence is checked by reading folders, readability by decoding every image completely.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from mlae_lab.core.catalog import Group, Task
from mlae_lab.core.progress import ProgressCallback
from mlae_lab.data.image_check import problems
from mlae_lab.data.listing import SPLITS, UNKNOWN_LABEL, DiskNames, Listing, counted, some

READY, PARTIAL, MISSING = "ready", "partial", "missing"


@dataclass(frozen=True)
class Census:
    """The result of a check. Problems, warnings and notes are whole sentences.

    Attributes:
        state: "ready" without problems, "partial" with some, "missing" if no listed image exists.
        counts: listed images per split.
        expected: the same numbers of the catalog, empty without a task.
        classes: classes of the listing.
        expected_classes: classes of the catalog's task, 0 without a task.
        problems: images that are missing, unreadable, mislabelled or listed twice.
        warnings: numbers that differ from the catalog.
        notes: facts that need no action.
        is_standard: whether the images may be labelled VTAB-1k or FGVC.
        decoded: whether every image was decoded.
        missing: paths of all missing images, in the listing's order.
        unreadable: paths of all unreadable images, in the listing's order.
        left_out: number of images that cannot be read and are in no split.
    """

    state: str
    counts: dict[str, int]
    expected: dict[str, int]
    classes: int
    expected_classes: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    is_standard: bool
    decoded: bool
    missing: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    left_out: int = 0


def census(
    listing: Listing | None, task: Task | None, decode: bool, progress: ProgressCallback | None = None
) -> Census:
    """Check a listing against the disk and a task of the catalog. It raises no exceptions itself.

    Args:
        listing: None if no folder was found.
        task: None for a user's own images.
        decode: also decode every image, which takes milliseconds each.
        progress: called with (images done, total) while decoding; an exception that it raises stops the check.
    """
    if task is not None and not task.classes:  # a user's own images: the catalog knows no numbers
        task = None
    expected: dict[str, int] = {split: getattr(task, split) for split in SPLITS} if task else {}
    expected_classes = task.classes if task else 0
    if listing is None:
        name = f"{task.title} ({task.name})" if task else "this task"
        problem = f"No folder with images of {name} was found."
        counts: dict[str, int] = dict.fromkeys(SPLITS, 0)
        return Census(MISSING, counts, expected, 0, expected_classes, (problem,), (), (), False, decode)
    paths = list(dict.fromkeys(path for split in SPLITS for path, _ in listing.splits[split]))
    disk = DiskNames(listing.folder)
    missing = [path for path in paths if disk.find(path) != path]
    missing_paths = set(missing)
    present = [path for path in paths if path not in missing_paths]
    unreadable = []
    if decode:
        checked = zip(present, problems(listing.folder, present, progress), strict=True)
        unreadable = [path for path, (problem, _) in checked if problem]
    sentences = list(listing.problems)
    if missing:
        sentences.append(f"Missing: {len(missing):,} of {counted(len(paths))}, {some(missing)}.")
    if unreadable:
        sentences.append(f"Unreadable: {len(unreadable):,} of {counted(len(present))}, {some(unreadable)}.")
    sentences += [*_bad_labels(listing), *_repeated(listing)]
    warnings = tuple(_differences(listing, task)) if task else ()
    return Census(
        state=MISSING if not present else PARTIAL if sentences else READY,
        counts=listing.counts,
        expected=expected,
        classes=listing.classes,
        expected_classes=expected_classes,
        problems=tuple(sentences),
        warnings=warnings,
        notes=(*listing.notes, *_absent_classes(listing)),
        is_standard=task is not None and not sentences and _is_standard(listing, task),
        decoded=decode,
        missing=tuple(missing),
        unreadable=tuple(unreadable),
        left_out=len(listing.left_out),
    )


def _bad_labels(listing: Listing) -> Iterator[str]:
    reported = {UNKNOWN_LABEL} if listing.kind == "fgvc" else set()  # the reader reports them with their class ids
    for split in SPLITS:
        name, first = listing.lists.get(split, ("", 0))
        bad = [
            f"{name} line {first + i}, {path} {label}" if name else f"{path} {label}"
            for i, (path, label) in enumerate(listing.splits[split])
            if not 0 <= label < listing.classes and label not in reported
        ]
        if bad:
            yield f"{split} has {counted(len(bad), 'label')} outside 0 to {listing.classes - 1}: {some(bad)}."


def _repeated(listing: Listing) -> Iterator[str]:
    splits_of: dict[str, list[str]] = {}
    for split in SPLITS:
        for path, _ in listing.splits[split]:
            splits_of.setdefault(path, []).append(split)
    repeated = {path: splits for path, splits in splits_of.items() if len(splits) > 1}
    across = [f"{path} ({' and '.join(dict.fromkeys(s))})" for path, s in repeated.items() if len(set(s)) > 1]
    if across:
        yield f"In more than one split: {counted(len(across))}, {some(across)}."
    within = [f"{path} ({splits[0]})" for path, splits in repeated.items() if len(set(splits)) < len(splits)]
    if within:
        yield f"More than once in a split: {counted(len(within))}, {some(within)}."


def _absent_classes(listing: Listing) -> Iterator[str]:
    for split in SPLITS if listing.kind == "own" else ("train",):
        seen = {label for _, label in listing.splits[split]}
        absent = [name for label, name in enumerate(listing.class_names) if label not in seen]
        if absent:
            yield f"{split} has no image of {len(absent):,} of {listing.classes:,} classes: {some(absent)}."
    if listing.kind == "own":
        counts = Counter(label for _, label in listing.splits["train"])
        single = [name for label, name in enumerate(listing.class_names) if counts[label] == 1]
        if single:
            yield f"train has a single image of {len(single):,} of {listing.classes:,} classes: {some(single)}."


def _differences(listing: Listing, task: Task) -> Iterator[str]:
    for split, count in listing.counts.items():
        if count != getattr(task, split):
            yield f"{split} lists {counted(count)}, the catalog has {getattr(task, split):,}."
    if listing.classes != task.classes:
        yield f"The images have {listing.classes:,} classes, the catalog has {task.classes:,}."


def _is_standard(listing: Listing, task: Task) -> bool:
    """Test may differ by one image: a widespread copy of Caltech-101 has one more than VTAB counts."""
    kind = "fgvc" if task.group is Group.FGVC else "vtab"
    counts = listing.counts
    return (
        not task.bundled
        and listing.kind == kind
        and listing.classes == task.classes
        and (counts["train"], counts["val"]) == (task.train, task.val)
        and abs(counts["test"] - task.test) <= 1
    )
