"""Make a dataset of own images: plan it from a source, then write it as a folder below own/ of the data folder.

`plan` decides and writes nothing, so a page previews it and a command prints it; `write` copies the images into
train/CLASS, val/CLASS and test/CLASS, which `data.own` reads, and appears whole or not at all. Next to them
mlae-lab-dataset.json keeps where the images came from and what was changed. A written dataset is never changed: a
change makes another one, which names the one it was made of, and runs keep theirs.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mlae_lab.core import catalog
from mlae_lab.core.catalog import Task
from mlae_lab.core.progress import ProgressCallback
from mlae_lab.core.units import format_bytes
from mlae_lab.data.bundled import DataError
from mlae_lab.data.duplicates import ImageFacts, NearDuplicates, near_duplicates, same_content
from mlae_lab.data.folder_files import DATASET_FILE, is_of_other_program, is_system_file
from mlae_lab.data.listing import SPLITS, composed, counted, natural, shown, some
from mlae_lab.data.own import read_own
from mlae_lab.data.own_source import ImageSource, SourceImage
from mlae_lab.data.sampled_splits import draw_key, stratified
from mlae_lab.files import read_regular, write_whole
from mlae_lab.locations import data_folder

FORMAT = 1
RATIO = (60.0, 20.0, 20.0)
DUPLICATES = ("keep", "exact", "near")
IMBALANCED = 1.5  # images of the largest class for one of the smallest, from which accuracy alone misleads
MAX_NAME = 80  # characters
_MAX_LISTED = 200  # files of each reason that the dataset's file names
_VERSION = re.compile(r"(?s)(.*\S) v(\d{1,4})")
_STAGING = ".own"  # below the data folder: what is not complete yet
_STAGING_SECONDS = 86_400.0  # after which something in it belongs to nobody


@dataclass(frozen=True)
class Origin:
    """Where images came from.

    Attributes:
        kind: "folder", "zip", "files", "hub" or "dataset".
        name: Of the folder, file, repository or dataset.
        labels: Name of the CSV that gave the labels, "" without one.
        parent: Name of the own dataset of which this one is a version, "" without one.
    """

    kind: str
    name: str
    labels: str = ""
    parent: str = ""


@dataclass(frozen=True)
class Changes:
    """What a dataset takes of its source, and how.

    Attributes:
        rename: Class to its new name; two classes with one new name become one.
        leave_out: Classes of the source to leave out.
        ratio: Shares of train, val and test in percent; None for the splits of the source.
        seed: Of a split by ratio.
        duplicates: "keep"; "exact" leaves out of val and test the images whose content an earlier split has; "near"
            also those that are nearly alike to one (`data.duplicates`).

    Raises:
        DataError: Shares that are not positive numbers with the sum 100, or another word for duplicates.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    leave_out: tuple[str, ...] = ()
    ratio: tuple[float, float, float] | None = RATIO
    seed: int = 0
    duplicates: str = "exact"

    def __post_init__(self) -> None:
        ratio = self.ratio
        if ratio is not None and (len(ratio) != 3 or min(ratio) <= 0 or abs(sum(ratio) - 100) > 0.01):
            text = ",".join(f"{share:g}" for share in ratio)
            raise DataError(
                f"the ratio is {text[:60]}: it must be three positive numbers with the sum 100, such as 60,20,20"
            )
        if self.duplicates not in DUPLICATES:
            raise DataError(f"duplicates is {self.duplicates[:60]!r}: choose {', '.join(DUPLICATES)}")


@dataclass(frozen=True)
class DatasetPlan:
    """What `write` would write.

    Attributes:
        source: Of the images.
        images: Path in the source, final class and split of each.
        left_out: Reason to the paths of files that are not in the dataset.
        problems: Why it cannot be written, sentences; empty if it can.
        notes: Facts that need no action.
        changes: That were asked for.
        same: Groups of images with the same content, before duplicates were left out.
        near: Images that are nearly alike, likewise; its positions count in `compared`.
        compared: The images before duplicates were left out.
    """

    source: ImageSource
    images: tuple[SourceImage, ...]
    left_out: dict[str, tuple[str, ...]]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    changes: Changes
    same: tuple[tuple[SourceImage, ...], ...]
    near: NearDuplicates
    compared: tuple[SourceImage, ...]

    @property
    def classes(self) -> list[str]:
        """In the order of their labels."""
        return sorted({image.label for image in self.images}, key=natural)

    @property
    def counts(self) -> dict[str, list[int]]:
        """Images of each class, in the order of `classes`, by split."""
        number = Counter((image.split, image.label) for image in self.images)
        return {split: [number[split, name] for name in self.classes] for split in SPLITS}

    @property
    def imbalance(self) -> float:
        """Images of the largest class for one of the smallest, over all splits."""
        total = Counter(image.label for image in self.images)
        return max(total.values()) / min(total.values()) if total else 1.0

    @property
    def same_across(self) -> list[tuple[SourceImage, ...]]:
        """The groups of equal images in more than one split."""
        return [group for group in self.same if len({image.split for image in group}) > 1]

    @property
    def conflicts(self) -> list[tuple[SourceImage, ...]]:
        """The groups of equal images in more than one class."""
        return [group for group in self.same if len({image.label for image in group}) > 1]


# ---------------------------------------------------------------- plan


def plan(source: ImageSource, facts: Mapping[str, ImageFacts], changes: Changes | None = None) -> DatasetPlan:
    """Decide what a dataset would hold. Writes nothing.

    Args:
        source: Of the images.
        facts: `examine` of its images.
        changes: None: the source's splits if it has some, else 60 / 20 / 20.

    Raises:
        DataError: A class that is to be renamed or left out is none of the source's, or the source has no splits.
    """
    if changes is None:
        changes = Changes(ratio=None if source.has_splits else RATIO)
    _check_changes(source, changes)
    left_out = {reason: list(paths) for reason, paths in source.left_out.items()}
    taken: list[SourceImage] = []
    for image in source.images:
        if image.label in changes.leave_out:
            left_out.setdefault(f"class {image.label}", []).append(image.path)
        elif problem := facts[image.path].problem:
            left_out.setdefault(f"cannot be read: {problem}", []).append(image.path)
        else:
            taken.append(SourceImage(image.path, changes.rename.get(image.label, image.label).strip(), image.split))
    divided, notes = _divided(taken, facts, changes)
    compared = [facts[image.path] for image in divided]
    groups = same_content(compared)
    near = near_duplicates(compared, [SPLITS.index(image.split) for image in divided])
    leaked: dict[int, str] = {}
    if changes.duplicates != "keep":
        for group in groups:
            first = min(SPLITS.index(divided[i].split) for i in group)
            reason = "the content of an image of an earlier split"
            leaked |= {i: reason for i in group if SPLITS.index(divided[i].split) > first}
    if changes.duplicates == "near":
        for i in near.leaked:
            leaked.setdefault(i, "nearly alike to an image of an earlier split")
    for i, reason in sorted(leaked.items()):
        left_out.setdefault(reason, []).append(divided[i].path)
    images = [image for i, image in enumerate(divided) if i not in leaked]
    same = tuple(tuple(divided[i] for i in group) for group in groups)
    named = {reason: tuple(sorted(paths)) for reason, paths in left_out.items()}
    problems, notes = tuple(_problems(images)), (*source.notes, *notes)
    return DatasetPlan(source, tuple(images), named, problems, notes, changes, same, near, tuple(divided))


def _check_changes(source: ImageSource, changes: Changes) -> None:
    classes = sorted({image.label for image in source.images}, key=natural)
    for name in (*changes.rename, *changes.leave_out):
        if name not in classes:
            raise DataError(f"{shown(name)[:100]!r} is no class of the images: they have {some(classes, 8)}")
    if changes.ratio is None and not source.has_splits:
        raise DataError("the images name no splits: give a ratio such as 60,20,20")


def _divided(
    images: Sequence[SourceImage], facts: Mapping[str, ImageFacts], changes: Changes
) -> tuple[list[SourceImage], list[str]]:
    """The images with their splits, and notes. Images are drawn by content, so copies of one are in one split."""

    def key(path: str) -> bytes:
        return draw_key(f"{facts[path].content:016x}", changes.seed)

    by_class: dict[str, list[str]] = {}
    for image in images:
        if changes.ratio is not None or image.split == "train":
            by_class.setdefault(image.label, []).append(image.path)
    number = sum(map(len, by_class.values()))
    notes = []
    if changes.ratio is not None:
        val, test = (max(1, round(number * share / 100)) for share in changes.ratio[1:])
        sizes = {"train": max(0, number - val - test), "val": val, "test": test}
        notes.append(f"Split by ratio with seed {changes.seed}, each class alike.")
    else:
        missing = [split for split in ("val", "test") if all(image.split != split for image in images)]
        fifth = max(1, round(number / 5))
        sizes = {"train": max(0, number - fifth * len(missing)), **dict.fromkeys(missing, fifth)}
        if missing:
            notes.append(f"Split with seed {changes.seed} from train: {', '.join(missing)}.")
    splits = stratified(by_class, sizes, key)
    split_of = {path: split for split, classes in splits.items() for paths in classes.values() for path in paths}
    return [SourceImage(i.path, i.label, split_of.get(i.path, i.split)) for i in images], notes


def _problems(images: Sequence[SourceImage]) -> list[str]:
    total = Counter(image.label for image in images)
    problems = [f"The class {shown(name)!r} {why}" for name in sorted(total) if (why := name_problem(name))]
    if len(total) < 2:
        problems.append(f"There must be at least two classes with images, and there is {some(list(total)) or 'none'}.")
    if single := [name for name, count in total.items() if count < 2]:
        problems.append(f"Each class needs at least two images, and {some(single)} has one: leave it out or merge it.")
    for split in SPLITS:
        present = {image.label for image in images if image.split == split}
        if not present:
            problems.append(f"{split} has no image: use more images or another ratio.")
        elif split == "train" and (absent := sorted(set(total) - present, key=natural)):
            problems.append(f"train has no image of {some(absent)}: leave the class out, or split by ratio.")
    folded = Counter(name.casefold() for name in total)
    if similar := sorted(name for name in total if folded[name.casefold()] > 1):
        problems.append(f"Classes differ only in case: {some(similar)}; rename one, or give them one name.")
    return problems


def name_problem(name: str) -> str:
    """What is wrong with a name for a folder, as the end of a sentence; "" for a good one."""
    if not name:
        return "needs a name."
    if re.search(r"[/\\]", name) or any(ord(c) < 32 for c in name):
        return "has a slash or a control character in its name: rename it."
    if is_system_file(name) or is_of_other_program(name):
        return "has a name that file managers hide: rename it."
    if len(name.encode("utf-8", "surrogateescape")) > 200:
        return "has a name of more than 200 bytes: rename it."
    return ""


# ---------------------------------------------------------------- names


def own_folder() -> Path:
    """Where own datasets are."""
    return data_folder() / "own"


def new_task(name: str) -> Task:
    """The task of a dataset that does not exist yet. Raises DataError for a name that cannot be used."""
    name = composed(name.strip())
    if problem := name_problem(name):
        raise DataError(f"the dataset {shown(name)[:100]!r} {problem.rstrip('.')}")
    if len(name) > MAX_NAME:
        raise DataError(f"the name has {len(name)} characters: a dataset's has at most {MAX_NAME}")
    existing = _names().get(name.casefold())
    if existing is not None:
        raise DataError(
            f"there is a dataset {shown(existing)!r}: choose another name, such as {shown(next_version(existing))!r}"
        )
    return catalog.own_task(name)


def next_version(name: str) -> str:
    """A free name for a further version of a dataset: birds, birds v2, birds v3."""
    match = _VERSION.fullmatch(name)
    base, number = (match[1], int(match[2])) if match else (name, 1)
    taken = _names()
    while f"{base} v{number + 1}".casefold() in taken:
        number += 1
    return f"{base[: MAX_NAME - 6]} v{number + 1}"


def free_name(wanted: str) -> str:
    """A name that `new_task` accepts, as close as possible to the wanted one."""
    name = composed(re.sub(r"[/\\\x00-\x1f]+", " ", wanted).strip().lstrip("."))[: MAX_NAME - 6].strip()
    if not name or name_problem(name):
        name = "images"
    return name if name.casefold() not in _names() else next_version(name)


def _names() -> dict[str, str]:
    try:
        return {composed(entry).casefold(): composed(entry) for entry in os.listdir(own_folder())}
    except OSError:
        return {}


# ---------------------------------------------------------------- write


def write(
    plan: DatasetPlan, name: str, origin: Origin, owner: str = "", link: bool = False,
    progress: ProgressCallback | None = None,
) -> Task:  # fmt: skip
    """Write a dataset and return its task. It appears whole or not at all.

    Args:
        plan: Of the dataset.
        name: Free, as `new_task` accepts it.
        origin: Kept with the dataset.
        owner: Who makes it, as runs have one.
        link: Use hard links where the disk allows: for sources that belong to the lab and never change.
        progress: Called with (done, total); it may raise.

    Raises:
        DataError: The plan has a problem, the name is taken, or the disk has too little space.
        OSError: A file cannot be read or written.
    """
    if plan.problems:
        raise DataError(plan.problems[0].rstrip("."))
    task = new_task(name)
    target = own_folder() / composed(name.strip())
    own_folder().mkdir(parents=True, exist_ok=True)
    if not link:
        _require_space(plan)
    with suppress(OSError):
        remove_old_staging()
    staging = new_staging()
    try:
        names = _target_paths(plan.images)
        for done, (image, path) in enumerate(zip(plan.images, names, strict=True), 1):
            to = staging / path
            to.parent.mkdir(parents=True, exist_ok=True)
            _take(plan.source.folder / image.path, to, link)
            if progress and (done % 64 == 0 or done == len(names)):
                progress(done, len(names))
        write_whole(
            staging / DATASET_FILE, json.dumps(_record(plan, origin, owner), indent=1)
        )  # ASCII: names may not be valid Unicode
        read_own(staging)  # what a run would read
        if os.path.lexists(target):
            raise DataError(f"there is a dataset {shown(name)!r} since a moment ago: choose another name")
        os.rename(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return task


def _require_space(plan: DatasetPlan) -> None:
    needed = sum(os.stat(plan.source.folder / image.path).st_size for image in plan.images)
    free = shutil.disk_usage(own_folder()).free
    if needed > free:
        raise DataError(
            f"the dataset takes {format_bytes(needed)} and {own_folder()} has {format_bytes(free)} free: free some "
            "space there, or leave classes out"
        )


def _take(file: Path, to: Path, link: bool) -> None:
    if link:
        with suppress(OSError):
            os.link(file, to, follow_symlinks=True)
            return
    shutil.copyfile(file, to)


def _target_paths(images: Sequence[SourceImage]) -> list[str]:
    """split/class/name below the dataset; of equal names, up to case, the later ones get a number."""
    taken: set[str] = set()
    paths = []
    for image in images:
        name = PurePosixPath(image.path)
        file, number = name.name, 1
        while (path := f"{image.split}/{image.label}/{file}").casefold() in taken:
            number += 1
            file = f"{name.stem} ({number}){name.suffix}"
        taken.add(path.casefold())
        paths.append(path)
    return paths


def _record(plan: DatasetPlan, origin: Origin, owner: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "created": round(time.time()),
        "owner": owner,
        "origin": asdict(origin),
        "changes": asdict(plan.changes),
        "images": len(plan.images),
        "classes": {
            name: {split: plan.counts[split][i] for split in SPLITS} for i, name in enumerate(plan.classes)
        },
        "left_out": {
            _clean(reason): {"files": len(paths), "names": [_clean(path) for path in paths[:_MAX_LISTED]]}
            for reason, paths in plan.left_out.items()
        },
        "duplicates": {
            "groups": len(plan.same), "groups_across_splits": len(plan.same_across),
            "groups_across_classes": len(plan.conflicts), "near_pairs_across_splits": plan.near.across,
            "near_pairs_within_a_split": plan.near.within,
        },
        "notes": list(plan.notes),
    }  # fmt: skip


def _clean(text: str) -> str:
    """A path as JSON in UTF-8 can hold it."""
    return shown(text)


def new_staging() -> Path:
    """A new empty folder for what is not complete yet, on the disk of the datasets."""
    folder = data_folder() / _STAGING / secrets.token_hex(8)
    folder.mkdir(parents=True)
    return folder


def remove_old_staging() -> None:
    """Remove what killed processes and closed pages left in staging a day ago or earlier. Raises OSError."""
    for folder in (data_folder() / _STAGING).iterdir():
        if time.time() - folder.stat().st_mtime > _STAGING_SECONDS:
            with suppress(RecursionError):  # of folders nested too deeply: the others are removed
                shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------- existing datasets


@dataclass(frozen=True)
class StoredDataset:
    """A dataset that `write` made.

    Attributes:
        name: Of its folder.
        folder: Of its images.
        created: Seconds since 1970.
        owner: Who made it, "" if unknown.
        origin: Of its images.
        record: Everything that its file keeps.
    """

    name: str
    folder: Path
    created: float
    owner: str
    origin: Origin
    record: Mapping[str, Any]


def stored(folder: Path) -> StoredDataset | None:
    """The dataset in a folder; None for a folder that the lab did not make, or whose file is damaged."""
    try:
        data = json.loads(read_regular(folder / DATASET_FILE))
        origin = Origin(**{name: str(data["origin"][name]) for name in Origin.__dataclass_fields__})
        if data["format"] != FORMAT:
            return None
        return StoredDataset(folder.name, folder, float(data["created"]), str(data["owner"]), origin, data)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def delete(dataset: StoredDataset) -> None:
    """Delete a dataset with its images; for readers it disappears at one moment. Raises OSError."""
    staging = new_staging()
    os.rename(dataset.folder, staging / "deleted")
    shutil.rmtree(staging, ignore_errors=True)


def left_out_lines(plan: DatasetPlan) -> list[str]:
    """A sentence for each reason for which files are left out."""
    return [
        f"Left out, {shown(reason)}: {counted(len(paths), 'file')} ({some(paths, 3)})."
        for reason, paths in plan.left_out.items()
    ]


def findings(plan: DatasetPlan) -> list[str]:
    """Sentences about imbalance and duplicates."""
    lines = []
    if plan.imbalance >= IMBALANCED:
        total = {name: sum(plan.counts[split][i] for split in SPLITS) for i, name in enumerate(plan.classes)}
        large, small = max(total, key=total.__getitem__), min(total, key=total.__getitem__)
        lines.append(
            f"Unequal classes: {shown(large)} has {counted(total[large])}, {shown(small)} {total[small]:,}, a ratio of "
            f"{plan.imbalance:.1f} to 1. Read balanced accuracy next to accuracy."
        )
    if plan.same:
        across, conflicts = len(plan.same_across), len(plan.conflicts)
        lines.append(
            f"Images with the same content: {counted(len(plan.same), 'group')}, {across:,} of them across splits, "
            f"{conflicts:,} with different classes."
        )
    if plan.near.across or plan.near.within:
        lines.append(
            f"Images that are nearly alike: {counted(plan.near.across, 'pair')} across splits and "
            f"{plan.near.within:,} within a split."
        )
    return lines
