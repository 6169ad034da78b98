"""Convert a VTAB-1k task from the Hub's Parquet tables into the layout of lists and image files.

The tables have the columns `img` (the bytes of the image file) and `label`; there are one or more per split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlae_lab.core.catalog import Task
from mlae_lab.data.progress import CorruptFile, FetchError, Meter

NOTE = "note.txt"
_BATCH = 256  # images in memory at a time
_SPLITS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "test": "test"}
_IMAGE_COLUMNS = ("img", "image")


def unpack_parquet(files: Mapping[str, Path], into: Path, task: Task, meter: Meter) -> str | None:
    """Write images/train800/000000.jpg and so on, and train800.txt, val200.txt, test.txt below `into`.

    The images' bytes are kept as they are stored, whatever their format; the suffix is the layout's.

    Args:
        files: path in the repository, which names the split, to the local file.
        into: the target folder.
        task: of the catalog.
        meter: counts images; may raise Cancelled.

    Returns:
        A note that the validation images were split from the training set, also written to note.txt, or None.

    Raises:
        CorruptFile: a file is damaged.
        FetchError: the tables are not such a task: other columns or counts, or labels outside 0 to classes - 1.
    """
    by_split: dict[str, list[Path]] = {}
    for name in sorted(files):
        by_split.setdefault(split_of(name), []).append(files[name])
    lengths = {split: sum(_rows(path) for path in paths) for split, paths in by_split.items()}
    train, val, test = (lengths.get(split, 0) for split in ("train", "val", "test"))
    note = None
    if (train, val) == (1000, 0):
        note = "The table has 1,000 training images and no validation images: the last 200 became the validation set."
    elif (train, val) != (800, 200):
        raise FetchError(
            f"{task.name} has {train} training and {val} validation images in these tables: it must be 800 and 200, "
            f"or 1000 and none; fetch {task.name} from the archive instead"
        )
    if not test:
        raise FetchError(f"{task.name} has no test images in these tables: fetch {task.name} from the archive instead")
    meter.start("unpacking", task.name, 0, sum(lengths.values()))
    training = _images(by_split["train"], task)
    _write(training, into, "train800", 800, meter)
    _write(_images(by_split["val"], task) if val else training, into, "val200", 200, meter)
    _write(_images(by_split["test"], task), into, "test", test, meter)
    if note:
        (into / NOTE).write_text(note + "\n", encoding="utf-8")
    return note


def split_of(name: str) -> str:
    """The split that a path names: `data/train-00000-of-00001.parquet` and `default/train/0000.parquet` are train."""
    for word in reversed(re.split(r"[/.\-_]", name.lower())):
        if word in _SPLITS:
            return _SPLITS[word]
    raise FetchError(f"{name} names no split: its path must contain train, validation or test")


def table_of(path: Path) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise CorruptFile(f"{path.name} is not a readable table ({' '.join(str(error).split())[:80]})") from None


def _rows(path: Path) -> int:
    with table_of(path) as table:
        return table.metadata.num_rows


def _images(paths: list[Path], task: Task) -> Iterator[tuple[bytes, int]]:
    """Bytes and label of each image, in stored order."""
    import pyarrow

    for path in paths:
        with table_of(path) as table:
            names = table.schema_arrow.names
            column = next((name for name in _IMAGE_COLUMNS if name in names), None)
            if column is None or "label" not in names:
                raise FetchError(f"{path.name} has the columns {', '.join(names)[:80]}: it must have img and label")
            try:
                for batch in table.iter_batches(_BATCH, columns=[column, "label"]):
                    for image, label in zip(batch[column].to_pylist(), batch["label"].to_pylist(), strict=True):
                        yield image_bytes(image, path), _checked(label, task)
            except (pyarrow.ArrowException, OSError) as error:
                raise CorruptFile(f"{path.name} is damaged ({' '.join(str(error).split())[:80]})") from None


def image_bytes(image: object, path: Path) -> bytes:
    data = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(data, bytes) or not data:
        raise FetchError(f"{path.name} has an image without its bytes: the table must contain the image files")
    return data


def _checked(label: object, task: Task) -> int:
    if not isinstance(label, int) or not 0 <= label < task.classes:
        raise FetchError(
            f"{task.name} has a label {label!r} in these tables: labels must be whole numbers from 0 to "
            f"{task.classes - 1}; fetch {task.name} from the archive instead"
        )
    return label


def _write(images: Iterator[tuple[bytes, int]], into: Path, split: str, count: int, meter: Meter) -> None:
    folder = into / "images" / split
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        data, label = next(images)
        name = f"{number:06d}.jpg"
        (folder / name).write_bytes(data)
        lines.append(f"images/{split}/{name} {label}\n")
        meter.add(1)
    (into / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
