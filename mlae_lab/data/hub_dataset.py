"""A dataset on the Hugging Face Hub as the source of an own dataset, from the Parquet tables that the Hub makes of it.

The tables are below CONFIG/SPLIT/ on the branch refs/convert/parquet. They are downloaded once, resumably, and their
images written to files; names of classes come from the table's own metadata where it has some.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlae_lab.core.hosts import Remote, RemoteFile
from mlae_lab.data import hub
from mlae_lab.data.bundled import DataError
from mlae_lab.data.dataset_input import MAX_FILES, DatasetInput
from mlae_lab.data.download import request
from mlae_lab.data.fetch import gather
from mlae_lab.data.file_kind import HEAD, kind_of
from mlae_lab.data.listing import some
from mlae_lab.data.own_dataset import Origin, new_staging
from mlae_lab.data.own_source import ImageSource, SourceImage
from mlae_lab.data.parquet_task import image_bytes, split_of, table_of
from mlae_lab.data.progress import Meter, Progress
from mlae_lab.locations import data_folder

BRANCH = "refs/convert/parquet"
_BATCH = 256  # images in memory at a time
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WebP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif"}
_REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def tables_of(repo: str, config: str = "") -> Remote:
    """The Parquet tables of a dataset on the Hub, with their sizes.

    Args:
        repo: OWNER/NAME.
        config: Name of the configuration, "" for the only one or the one named default.

    Raises:
        DataError: Not such a name, or no such configuration.
        FetchError: The Hub has no tables of it, or cannot be reached.
    """
    if not _REPO.fullmatch(repo):
        raise DataError(f"{repo[:100]!r} is no dataset of the Hub: name it as OWNER/NAME")
    remote = Remote(
        repo.replace("/", "--"), repo, "dataset", (RemoteFile("*.parquet"),), "see its page", repo, "own",
        revision=BRANCH,
    )  # fmt: skip
    files = request(lambda: hub.listed(remote), remote, Meter(lambda progress: None, lambda: False))
    configs = sorted({file.path.partition("/")[0] for file in files})
    chosen = config or ("default" if "default" in configs else configs[0] if len(configs) == 1 else "")
    if chosen not in configs:
        raise DataError(f"{repo} has the configurations {some(configs)}: name one with --config")
    return replace(remote, files=tuple(file for file in files if file.path.startswith(f"{chosen}/")))


@contextmanager
def opened_tables(
    remote: Remote,
    image_column: str = "image",
    label_column: str = "label",
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[DatasetInput]:
    """Download tables and write their images into a folder that exists until the block ends.

    Args:
        remote: Of `tables_of`.
        image_column: Whose cells are image files.
        label_column: Whose cells are class numbers or names.
        on_progress: Called at most four times a second; may raise.

    Raises:
        FetchError: The download fails, or a table is damaged or holds no image files; what was downloaded is kept.
        DataError: A table lacks a column, or there are too many images.
    """
    parts = data_folder() / ".fetch" / "_parts" / remote.name
    parts.mkdir(parents=True, exist_ok=True)
    meter = Meter(on_progress, lambda: False)
    gathered = gather(remote, parts, meter)
    tables = sorted((file.path, path) for file, path, _ in gathered)
    staging = new_staging()
    try:
        source = _written(tables, staging / "images", image_column, label_column, meter)
        yield DatasetInput(source, Origin("hub", remote.repo), True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(parts, ignore_errors=True)  # not after an error: the next attempt continues


def _written(
    tables: list[tuple[str, Path]], into: Path, image_column: str, label_column: str, meter: Meter
) -> ImageSource:
    rows = 0
    for _, path in tables:
        with table_of(path) as table:
            names = table.schema_arrow.names
            rows += table.metadata.num_rows
        if image_column not in names or label_column not in names:
            raise DataError(
                f"the table has the columns {some(names, 12)}: name those of image and class with --image-column and "
                "--label-column"
            )
    if rows > MAX_FILES:
        raise DataError(f"the dataset has {rows:,} images: at most {MAX_FILES:,} are taken")
    meter.start("unpacking", "images", 0, rows)
    images, notes = [], []
    for name, path in tables:
        split = split_of(name)
        if "partial-" in name:
            notes.append(f"The Hub converted only a part of {split}.")
        (into / split).mkdir(parents=True, exist_ok=True)
        with table_of(path) as table:
            classes = _class_names(table, label_column)
            for batch in table.iter_batches(_BATCH, columns=[image_column, label_column]):
                columns = (batch[image_column].to_pylist(), batch[label_column].to_pylist())
                for image, label in zip(*columns, strict=True):
                    content = image_bytes(image, path)
                    suffix = _SUFFIXES.get(kind_of(content[:HEAD]), "")
                    file = f"{split}/{len(images):06d}{suffix}"
                    (into / file).write_bytes(content)
                    images.append(SourceImage(file, _label(label, classes), split))
                meter.add(len(columns[0]))
    if not any(image.split == "train" for image in images):
        images = [replace(image, split="") for image in images]  # one split of another name: divided by ratio
    return ImageSource(into, tuple(images), {}, tuple(dict.fromkeys(notes)))


def _class_names(table: Any, column: str) -> list[str]:
    """The names of the classes in the metadata that the Hub writes into a table; empty without any."""
    try:
        metadata = json.loads(table.schema_arrow.metadata[b"huggingface"])
        names = metadata["info"]["features"][column]["names"]
        return [str(name) for name in names]
    except (KeyError, TypeError, ValueError):
        return []


def _label(value: object, names: list[str]) -> str:
    if isinstance(value, int) and 0 <= value < len(names):
        return names[value].replace("/", "-").replace("\\", "-")
    return str(value).strip()
