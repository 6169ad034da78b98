"""Find the images of a task, check and label them, and load them for a run.

Bundled tasks are read from `assets/`. All others are listed on disk (`vtab`, `fgvc`, `own`), checked (`census`) and
decoded once into the cache. A user's own images are decoded before a run starts, and unreadable ones are left out
(`image_check`). By default they lie below the data folder: `vtab-1k/<task>`, `fgvc/<dataset>`,
`own/<name>`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlae_lab.core import catalog, image_labels
from mlae_lab.core.catalog import Group, Task
from mlae_lab.core.config import RunConfig
from mlae_lab.core.progress import ProgressCallback
from mlae_lab.core.weight_fit import require_weights
from mlae_lab.data import census as check
from mlae_lab.data.bundled import DataError, load_bundled
from mlae_lab.data.cache import cached
from mlae_lab.data.decode import ResizeRule, depth_of
from mlae_lab.data.fgvc import find_fgvc, read_fgvc
from mlae_lab.data.folder_files import is_of_other_program
from mlae_lab.data.folds import Fold, fold_of, is_evaluated
from mlae_lab.data.image_check import ImageCheck, check_images, known_check
from mlae_lab.data.image_record import NO_MATCH, ImageRecord, Match, as_listing, match, missing_sentence, record_of
from mlae_lab.data.listing import Listing, counted, shown
from mlae_lab.data.own import read_images, read_own
from mlae_lab.data.preprocessing import preprocessing
from mlae_lab.data.splits import LabelledImages, divided
from mlae_lab.data.vtab import find_vtab, has_lists, read_vtab
from mlae_lab.locations import PROGRAM, cache_folder, data_folder

OWN = "own"


def folder_of(task: Task, root: Path | None = None) -> Path | None:
    """The folder with the images of a task that is not bundled, None if there is none.

    Args:
        task: a task of the catalog.
        root: the task's own folder or a folder above it, by default the data folder. For a user's own images it is
            their folder itself.
    """
    if task.group is Group.OWN:
        return root or next((folder for own, folder in _own_folders() if own.name == task.name), None)
    if root and _holds(task, root):
        return root
    root = root or data_folder()
    return find_fgvc(root, task) if task.group is Group.FGVC else find_vtab(root, task)


def own_tasks() -> tuple[Task, ...]:
    """A task for every visible folder below `own/` of the data folder."""
    return tuple(task for task, folder in _own_folders() if not is_of_other_program(folder.name))


def _own_folders() -> list[tuple[Task, Path]]:
    """The folders below `own/` of the data folder with their tasks; of two with equal names (`own_task`) the first."""
    try:
        paths = sorted((data_folder() / OWN).iterdir())
    except OSError:
        return []
    tasks: dict[str, tuple[Task, Path]] = {}
    for path in filter(os.path.isdir, paths):  # Path.is_dir raises for a link that this user may not follow
        with suppress(catalog.CatalogError):
            task = catalog.own_task(path.name)
            tasks.setdefault(task.name, (task, path))
    return list(tasks.values())


def image_folder(text: str) -> Path:
    """The folder that a user named, as an absolute path. Raises DataError for an unknown home folder."""
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise DataError(f"the folder {text[:200]!r} cannot be located: name it in full") from None
    return path.resolve() if ".." in path.parts else path.absolute()


def own_task_of(folder: Path) -> Task:
    """The task of a folder of own images anywhere, titled as the folder. folder: absolute."""
    return catalog.own_task(folder.name or "images")  # the root of a disk has no name


def listed(task: Task, folder: Path, as_0_5: bool = False) -> Listing:
    """The images of a task in a folder, not decoded.

    Args:
        task: Of the images.
        folder: That holds them.
        as_0_5: Whether a user's own images are read as by version 0.5; else those that an earlier check
            (`checked`) could not read are left out.

    Raises:
        DataError: For a folder in another layout.
    """
    if task.group is Group.FGVC:
        return read_fgvc(folder, task)
    if task.group is not Group.OWN:
        return read_vtab(folder, task)
    listing = read_own(folder, as_0_5=as_0_5)
    return listing if as_0_5 else _with_check(listing, known_check(listing))


def checked(task: Task, folder: Path, progress: ProgressCallback | None = None) -> Listing:
    """The images of a task in a folder; a user's own images are decoded once, and unreadable ones are left out.

    Args:
        task: Of the images.
        folder: That holds them.
        progress: Called with (done, total) while images are decoded; it may raise.

    Raises:
        DataError: As for `listed`, and if too few images can be read.
    """
    if task.group is not Group.OWN:
        return listed(task, folder)
    listing = read_own(folder)
    return _with_check(listing, check_images(listing, progress))


def _with_check(listing: Listing, check: ImageCheck | None) -> Listing:
    if check is None:
        return listing
    if check.unreadable:
        listing = read_own(listing.folder, unreadable=check.unreadable)
    depth = depth_of(check.largest)
    if depth is None or depth == 16:
        return replace(listing, depth=depth)
    note = f"Values of 16 bits are read as {depth} bits, as the largest in the folder is {check.largest:,}."
    return replace(listing, depth=depth, notes=(*listing.notes, note))


def census(
    task: Task, listing: Listing, decode: bool = False, progress: ProgressCallback | None = None
) -> check.Census:
    """The `data.census` of a task's listing, which `listed` returned."""
    return check.census(listing, None if task.group is Group.OWN else task, decode, progress)


def ready(task: Task) -> bool:
    """Whether the task is bundled or has a folder of its name. No image is read."""
    return task.bundled or folder_of(task) is not None


def label(task: Task, result: check.Census) -> str:
    """The label of the images that is shown with every accuracy measured on them."""
    counts = "/".join(f"{result.counts[split]:,}" for split in ("train", "val", "test"))
    if task.group is Group.OWN:
        images = sum(result.counts.values())
        readable = f" ({images:,} of {images + result.left_out:,} readable)" if result.left_out else ""
        return f"own images, {counts}{readable}"
    name = "FGVC" if task.group is Group.FGVC else "VTAB-1k"
    if not result.is_standard:
        return f"not {name}: its layout with {counts} images"
    tested = result.counts["test"]
    return name + ("" if tested == task.test else f", {tested:,} test images for {task.test:,}")


def located(config: RunConfig, progress: ProgressCallback | None = None) -> RunConfig:
    """The config of a run that is about to be launched, with the folder of its images and what the census found there.

    This is the one census of a launch: label, notes and fingerprint of the images travel with the config. A bundled
    task has none of them.

    Args:
        config: Of the run.
        progress: Called with (done, total) while a user's own images are decoded for the first time; it may raise.

    Raises:
        DataError: there are no images, or the census finds something wrong with them.
        BackboneError: the weights cannot be used.
    """
    require_weights(config)  # before any image is read
    task = catalog.task(config.task)
    if task.bundled:
        if config.data:
            raise DataError(f"{task.name} is bundled and reads no folder: leave out {config.data}")
        return config
    folder = images_folder(task, config.data)
    new = replace(config, data=str(folder), data_label="", data_notes=(), data_fingerprint="")
    return _labelled(new, task, folder, checked(task, folder, progress))


def images_folder(task: Task, data: str) -> Path:
    """The folder of a run's images; a folder that this returned gives itself."""
    given = image_folder(data) if data else None
    if given and not given.is_dir():
        raise DataError(f"{given} is not a folder: name one that holds the images of {task.title}")
    folder = folder_of(task, given)
    if folder is None:
        raise DataError(_missing(task, given))
    return folder


def _labelled(config: RunConfig, task: Task, folder: Path, listing: Listing) -> RunConfig:
    """The config with label, notes and fingerprint of the images as they are now, and a note where they changed.

    Images with the fingerprint that the config has already are not counted again.
    """
    fingerprint = listing.fingerprint
    if fingerprint == config.data_fingerprint:
        return config
    result = census(task, listing)
    if result.state != check.READY:
        raise DataError(f"{task.title} in {folder} is {result.state}: {result.problems[0].rstrip('.')}")
    old, new = config.data_label, label(task, result)
    notes = [*result.warnings, *result.notes]
    if old and (new != old or config.data_fingerprint):  # without a fingerprint, equal labels may be of equal images
        notes.insert(0, image_labels.change_note(old, new))
    return replace(config, data_label=new, data_notes=tuple(notes), data_fingerprint=fingerprint)


def _holds(task: Task, folder: Path) -> bool:
    """Whether a folder that was named explicitly has the task's layout, whatever its name."""
    return (folder / "train.json").is_file() if task.group is Group.FGVC else has_lists(folder)


def _missing(task: Task, given: Path | None) -> str:
    where = given or data_folder()
    bundled = ", ".join(t.name for t in catalog.TASKS if t.bundled)
    if task.group is Group.OWN:
        return (
            f"{where / OWN} has no folder for {task.name}: put class folders with images there, or name a folder "
            "with --data"
        )
    wanted = (
        "train.json, val.json and test.json" if task.group is Group.FGVC else "train800.txt, val200.txt and test.txt"
    )
    return (
        f"{task.title} ({task.name}) has no data here, in {where}: fetch it with `{PROGRAM} fetch {task.name}`, name "
        f"its folder (with {wanted}) with --data, or choose a bundled task: {bundled}"
    )


@dataclass(frozen=True)
class Loaded:
    """The images of a run.

    Attributes:
        config: With the label and notes of the images as they are now.
        train: The training images.
        evaluation: The evaluation images.
        class_names: In label order.
        record: Which images these are; None for a bundled task.
        missing: What the run was trained or evaluated on and is not among them, a sentence without a full stop.
        evaluated: Which images of train and val, in this order, are evaluated in a cross-validation; () without one.
    """

    config: RunConfig
    train: LabelledImages
    evaluation: LabelledImages
    class_names: tuple[str, ...]
    record: ImageRecord | None = None
    missing: str = ""
    evaluated: tuple[int, ...] = ()


def load_protocol(
    config: RunConfig,
    on_progress: ProgressCallback | None = None,
    record: ImageRecord | None = None,
    trained_by_0_5: bool = False,
    on_chunk: Callable[[], None] = lambda: None,
) -> Loaded:
    """The images of a run.

    Images that are not bundled are decoded on first use, into the cache below the data folder.

    Args:
        config: Of the run. Its `data_fingerprint` says which images the launch saw: the census is made again only if
            they have changed since.
        on_progress: Called with (done, total) while images are decoded.
        record: Of a run that has begun: its own images are loaded, as far as the folder still holds them.
        trained_by_0_5: Whether the run began without a record, in version 0.5: missing splits are sampled as it did.
        on_chunk: Called between other pieces of the work; it may raise.

    Raises:
        DataError: As `located` and `cached` do.
    """
    task = catalog.task(config.task)
    if task.bundled:
        splits, fold = load_bundled(task.name), fold_of(config)
        labels = np.concatenate([splits.train.labels, splits.val.labels])
        return Loaded(
            config, *splits.protocol(config.protocol, fold), splits.class_names, evaluated=_evaluated(labels, fold)
        )
    if record is None:
        config, listing, missing = _as_launched(config, task, trained_by_0_5, on_chunk)
        protocol, fingerprint, fold = config.protocol, config.data_fingerprint, fold_of(config)
    else:
        config, listing, protocol, missing = _as_recorded(config, task, record, on_chunk)
        fingerprint = listing.fingerprint
        # a listing that is made from the record is divided as the run was
        fold = fold_of(config) if fingerprint == config.data_fingerprint else None
    divides = protocol
    if fold is not None:
        protocol = "test"  # whose training images are decoded once for all folds
    size = config.network.image_size
    rule = replace(preprocessing(config.prepared).rule(size), depth=listing.depth)
    state = f"{fingerprint} {protocol}" + ("" if listing.depth is None else f" {listing.depth} bits")
    parts = listing.protocol(protocol) if fold is None else listing.protocol(protocol)[:1]
    total, done_before, loaded = sum(map(len, parts)), 0, []
    for name, items in zip(("train", "evaluation"), parts, strict=fold is None):
        report = (lambda done, _, before=done_before: on_progress(before + done, total)) if on_progress else None
        files = [(listing.folder / path, label) for path, label in items]
        loaded.append(_decoded(files, rule, f"{state} {name}", report))
        done_before += len(items)
    train, evaluation = loaded if fold is None else divided(loaded[0], fold)
    if record is None:
        assert train.content is not None
        assert evaluation.content is not None
        record = record_of(listing, divides, (train.content, evaluation.content), fold)
    evaluated = _evaluated(loaded[0].labels, fold)
    return Loaded(config, train, evaluation, record.classes, record, missing, evaluated)


def _evaluated(labels: np.ndarray, fold: Fold | None) -> tuple[int, ...]:
    return () if fold is None else tuple(np.flatnonzero(is_evaluated(labels, fold)).tolist())


def _as_launched(
    config: RunConfig, task: Task, trained_by_0_5: bool, on_chunk: Callable[[], None]
) -> tuple[RunConfig, Listing, str]:
    """The images of a run without a record, its config with their label, and what is wrong with them (`Loaded`)."""
    folder = images_folder(task, config.data)
    if trained_by_0_5:
        listing = listed(task, folder, as_0_5=True)
    else:
        listing = checked(task, folder, lambda done, total: on_chunk())
    new, missing = _labelled(config, task, folder, listing), ""
    if trained_by_0_5 and config.data_label and new.data_label != config.data_label:
        missing = (
            f"the run was made by version 0.5, which kept no list of a run's images, on {config.data_label}; "
            f"{shown(str(folder))} holds {new.data_label} now"
        )
    return new, listing, missing


def _as_recorded(
    config: RunConfig, task: Task, record: ImageRecord, on_chunk: Callable[[], None]
) -> tuple[RunConfig, Listing, str, str]:
    """The images of a record as far as they are still there, the config with notes on what changed, the protocol that
    divides the listing into training and evaluation images, and what is missing (`Loaded`)."""
    try:
        folder = images_folder(task, config.data)
    except DataError:
        where = Path(config.data) if config.data else data_folder()
        missing = f"{shown(str(where))} holds none of the run's images"
        return config, as_listing(NO_MATCH, record, where), "val", missing
    try:
        listing = listed(task, folder)
        if listing.fingerprint == config.data_fingerprint:
            return config, replace(listing, depth=record.depth), config.protocol, ""
        if task.group is Group.OWN:
            listing = checked(task, folder, lambda done, total: on_chunk())
    except DataError:
        listing = None  # the folder cannot start a new run, but may still hold the images of this one
    matched = match_in_folder(record, folder, listing, on_chunk)
    missing = missing_sentence(matched, record, folder)
    config = replace(config, data_notes=(*_changes(matched, record, missing), *config.data_notes))
    return config, as_listing(matched, record, folder), "val", missing


def match_in_folder(
    record: ImageRecord, folder: Path, listing: Listing | None, on_chunk: Callable[[], None] = lambda: None
) -> Match:
    """Find the images of a run in a folder: in its listing or, where that lacks some, anywhere below the folder.

    Args:
        record: Of the run.
        folder: That may hold its images.
        listing: Of the folder as a new run would read it; None if no new run can start on it.
        on_chunk: Called between pieces of the work; it may raise.

    Raises:
        DataError: The folder cannot be read.
    """
    matched = match(record, listing, on_chunk) if listing else None
    if matched and matched.is_complete:
        return matched
    return replace(match(record, read_images(folder), on_chunk), unused=matched.unused if matched else 0)


def _decoded(
    files: list[tuple[Path, int]], rule: ResizeRule, fingerprint: str, report: ProgressCallback | None
) -> LabelledImages:
    if not files:  # a folder that holds none of a run's images any more
        return LabelledImages(np.zeros((0, rule.size, rule.size, 3), np.uint8), np.zeros(0, np.int64))
    return cached(files, rule, cache_folder(), fingerprint, report)


def _changes(matched: Match, record: ImageRecord, missing: str) -> Iterator[str]:
    """Notes on how the folder of a run that has begun differs from its images."""
    if missing:
        yield f"{missing}."
    if record.unused is not None and matched.unused > record.unused:
        yield image_labels.added_note(counted(matched.unused - record.unused))
