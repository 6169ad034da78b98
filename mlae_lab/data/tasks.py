"""Find a task's images, say whether they are what they are called, and hand them to a run.

Bundled tasks come out of `assets/`. All others are listed on disk (`vtab`, `fgvc`, `own`), checked (`census`)
and decoded once into the cache. Where nothing else is said they lie below the data folder: `vtab-1k/<task>`,
`fgvc/<data set>`, `own/<name>`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mlae_lab.core import catalog
from mlae_lab.core.catalog import Group, Task
from mlae_lab.core.config import RunConfig
from mlae_lab.data import census as check
from mlae_lab.data.bundled import DataError, load_bundled
from mlae_lab.data.cache import cached
from mlae_lab.data.fgvc import find_fgvc, read_fgvc
from mlae_lab.data.listing import Listing
from mlae_lab.data.own import read_own
from mlae_lab.data.preprocessing import preprocessing
from mlae_lab.data.splits import LabelledImages
from mlae_lab.data.vtab import find_vtab, has_lists, read_vtab
from mlae_lab.locations import data_folder

OWN = "own"


def folder_of(task: Task, root: Path | None = None) -> Path | None:
    """Where the images of a task that is not bundled lie, None if nowhere.

    root: the task's own folder or one above it, by default the data folder.
    """
    root = root or data_folder()
    if task.group is Group.FGVC:
        return find_fgvc(root, task)
    if task.group is Group.OWN:
        name = task.name.partition(":")[2]
        return next((p for p in (root / OWN / name, root / name, root) if p.name == name and p.is_dir()), None)
    return find_vtab(root, task)


def own_tasks() -> tuple[Task, ...]:
    """A task for every folder below `own/` of the data folder whose name can be one."""
    found = []
    try:
        folders = sorted(path for path in (data_folder() / OWN).iterdir() if path.is_dir())
    except OSError:
        return ()
    for path in folders:
        try:
            found.append(catalog.task(f"own:{path.name}"))
        except catalog.CatalogError:
            continue
    return tuple(found)


def listed(task: Task, folder: Path) -> Listing:
    """The images that a folder holds for a task, not decoded. Raises DataError for a folder that cannot be read so."""
    if task.group is Group.FGVC:
        return read_fgvc(folder, task)
    return read_own(folder) if task.group is Group.OWN else read_vtab(folder, task)


def census(
    task: Task, folder: Path, decode: bool = False, progress: Callable[[int, int], None] | None = None
) -> check.Census:
    """What `data.census` says of a task in a folder. Raises DataError where `listed` does."""
    return check.census(listed(task, folder), None if task.group is Group.OWN else task, decode, progress)


def ready(task: Task) -> bool:
    """Whether the task's images are here: bundled, or in a folder of its name. Looks at no image."""
    return task.bundled or folder_of(task) is not None


def label(task: Task, found: check.Census) -> str:
    """What the images may be called beside a number."""
    counts = "/".join(f"{found.counts[split]:,}" for split in ("train", "val", "test"))
    if task.group is Group.OWN:
        return f"own images, {counts}"
    name = "FGVC" if task.group is Group.FGVC else "VTAB-1k"
    if not found.is_standard:
        return f"not {name}: its layout with {counts} images"
    odd = "" if found.counts["test"] == task.test else f", {found.counts['test']:,} test images for {task.test:,}"
    return name + odd


def located(config: RunConfig) -> RunConfig:
    """The run with the folder of its images and what they may be called, or as it was for a bundled task.

    Raises DataError, in one sentence, where there are no images or the census finds something wrong.
    """
    task = catalog.task(config.task)
    if task.bundled:
        if config.data:
            raise DataError(f"{task.name} comes with the lab and reads no folder: leave out {config.data}")
        return config
    given = Path(config.data).expanduser().absolute() if config.data else None
    if given and not given.is_dir():
        raise DataError(f"{given} is not a folder: name one that holds the images of {task.title}")
    folder = folder_of(task, given) or (given if given and _holds(task, given) else None)
    if folder is None:
        raise DataError(_missing(task, given))
    found = census(task, folder)
    if found.state != check.READY:
        raise DataError(f"{task.title} in {folder} is {found.state}: {found.problems[0].rstrip('.')}")
    return replace(config, data=str(folder), data_label=label(task, found))


def _holds(task: Task, folder: Path) -> bool:
    """Whether a folder that was named outright can be the task's, whatever its own name."""
    if task.group is Group.OWN:
        return True
    return (folder / "train.json").is_file() if task.group is Group.FGVC else has_lists(folder)


def _missing(task: Task, given: Path | None) -> str:
    where = given or data_folder()
    bundled = ", ".join(t.name for t in catalog.TASKS if t.bundled)
    if task.group is Group.OWN:
        return f"{where / OWN} has no folder for {task.name}: put class folders with images there, or name a folder with --data"
    wanted = (
        "train.json, val.json and test.json" if task.group is Group.FGVC else "train800.txt, val200.txt and test.txt"
    )
    return (
        f"{task.title} ({task.name}) has no data here, in {where}: fetch it with `mlae_lab fetch {task.name}`, name "
        f"its folder (with {wanted}) with --data, or take a bundled task: {bundled}"
    )


def load_protocol(
    config: RunConfig, on_progress: Callable[[int, int], None] | None = None
) -> tuple[LabelledImages, LabelledImages, tuple[str, ...]]:
    """What a run trains on, what it is measured on, and the names of the classes.

    Images that are not bundled are decoded on first use, into the cache below the data folder.
    on_progress: told (done, of how many) meanwhile. Raises DataError as `located` and `cached` do.
    """
    task = catalog.task(config.task)
    if task.bundled:
        splits = load_bundled(task.name)
        return *splits.protocol(config.protocol), splits.class_names
    config = located(config)
    listing = listed(task, Path(config.data))
    rule = preprocessing(config.prepared).rule(catalog.backbone(config.backbone).image)
    parts, total = listing.protocol(config.protocol), sum(map(len, listing.protocol(config.protocol)))
    made, before = [], 0
    for name, items in zip(("train", "evaluation"), parts, strict=False):
        counted = (lambda done, _, before=before: on_progress(before + done, total)) if on_progress else None
        files = [(listing.folder / path, label) for path, label in items]
        fingerprint = f"{listing.fingerprint} {config.protocol} {name}"
        made.append(cached(files, rule, data_folder() / "cache", fingerprint, counted))
        before += len(items)
    return made[0], made[1], listing.class_names
