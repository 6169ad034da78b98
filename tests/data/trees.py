"""Small datasets on disk, in the layouts that the readers know, with real images of many kinds.

`from trees import make_vtab` works in tests of this folder, `from tests.data.trees import ...` anywhere.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from mlae_lab.core import catalog
from mlae_lab.data.fgvc import IMAGE_ROOTS

ROTATED = 6  # EXIF orientation: turn by a quarter to see it upright
_JPEG_MODES = ("RGB", "L", "CMYK", "RGB")  # the last one with an EXIF rotation
_PNG_MODES = ("RGBA", "P", "RGB", "1", "LA")


def write_image(path: Path, number: int = 0, of_class: int = 0) -> None:
    """Write an image whose size and mode follow from its number, its pixels from both, its format from the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([number, of_class] if of_class else number)
    height, width = 11 + 2 * (number % 7), 13 + 2 * (number % 5)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    if path.suffix.lower() in (".jpg", ".jpeg"):
        exif = Image.Exif()
        if number % len(_JPEG_MODES) == 3:
            exif[0x0112] = ROTATED
        image.convert(_JPEG_MODES[number % len(_JPEG_MODES)]).save(path, "JPEG", exif=exif)
    elif path.suffix.lower() == ".png":
        image.convert(_PNG_MODES[number % len(_PNG_MODES)]).save(path)
    else:
        image.save(path)


def truncate(path: Path) -> None:
    """Keep the first half of a file: its header still reads, its last rows do not."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def make_vtab(
    root: Path,
    task_name: str,
    train: int = 8,
    val: int = 2,
    test: int = 5,
    classes: int | None = None,
    broken: str | None = None,
    folder: str | None = None,
) -> Path:
    """Write a task's folder below root with train800, val200 and test of any size.

    Labels count 0, 1, ... and begin again after `classes` (the catalog's if not given). broken: the
    path of an image to truncate. folder: its name, if not the task's. Returns the task's folder.
    """
    classes = classes or catalog.task(task_name).classes
    home = root / (folder or task_name)
    for name, count in (("train800", train), ("val200", val), ("test", test)):
        lines = []
        for i in range(count):
            path = f"images/{name}/{i:06d}.jpg"
            write_image(home / path, i)
            lines.append(f"{path} {i % classes}\n")
        (home / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    if broken:
        truncate(home / broken)
    return home


def make_fgvc(
    root: Path,
    task_name: str,
    train: int = 8,
    val: int = 2,
    test: int = 5,
    classes: int = 4,
    first_id: int = 1,
    step: int = 1,
    broken: str | None = None,
    folder: str | None = None,
) -> Path:
    """Write a dataset's folder below root with train.json, val.json, test.json and images in class folders.

    The ids are first_id, first_id + step, ...; images lie below the dataset's usual image root,
    keys start below it. Names hold spaces and umlauts. Returns the dataset's folder.
    """
    task = catalog.task(task_name)
    home = root / (folder or (task.aliases[-1] if task.aliases else task.name))
    images = home / IMAGE_ROOTS.get(task.name, "")
    for split, count in (("train", train), ("val", val), ("test", test)):
        ids = {}
        for i in range(count):
            key = f"{i % classes:03d}.Grünspecht/{split} {i}.jpg"
            write_image(images / key, i)
            ids[key] = first_id + step * (i % classes)
        (home / f"{split}.json").write_text(json.dumps(ids), encoding="utf-8")
    if broken:
        truncate(images / broken)
    return home


def make_own(
    root: Path,
    counts: dict[str, int] | None = None,
    suffixes: tuple[str, ...] = (".jpg", ".PNG", ".jpeg"),
    broken: str | None = None,
) -> Path:
    """Write class folders with the given numbers of images below root, with alternating suffixes. Returns root."""
    for of_class, (name, count) in enumerate((counts or {"Äpfel": 6, "a pear": 5, "fig": 4}).items()):
        for i in range(count):
            write_image(root / name / f"image {i}{suffixes[i % len(suffixes)]}", i, of_class)
    if broken:
        truncate(root / broken)
    return root
