"""The section Disk: free space, and the space that the lab uses."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator

from mlae_lab.core.units import format_bytes
from mlae_lab.doctor.context import Context
from mlae_lab.doctor.findings import Finding, good, note, trouble
from mlae_lab.doctor.folders import bytes_of, database_files, existing, tree
from mlae_lab.files import LEFTOVER_SECONDS
from mlae_lab.runs import paths

LITTLE_SPACE = 2_000_000_000  # bytes; less free space is a note
NO_SPACE = 200_000_000  # bytes; less free space is trouble


def section(context: Context) -> Iterator[Finding]:
    """Free space for the store and the data folder, and the size of what they hold."""
    folder, data = context.folder, context.data
    folders = {"store": existing(folder), "data folder": existing(data)}
    if os.stat(folders["store"]).st_dev == os.stat(folders["data folder"]).st_dev:
        folders = {"store and data folder": folders["store"]}
    for name, path in folders.items():
        free = shutil.disk_usage(path).free
        value = f"{format_bytes(free)} on the disk of {path}"
        if free < NO_SPACE:
            yield trouble(
                f"free for {name}", value, "delete runs or other files: a run that cannot write its checkpoints fails"
            )
        elif free < LITTLE_SPACE:
            yield note(f"free for {name}", value, "delete runs that nobody needs")
        else:
            yield good(f"free for {name}", value)
    total, parts, now = 0, [], time.time()
    for file, status in tree(folder / "runs"):
        total += status.st_size
        if file.name.endswith(".part") and now - status.st_mtime > LEFTOVER_SECONDS:
            parts.append(status.st_size)
    yield good("database", format_bytes(bytes_of(*database_files(folder))))
    yield good("files of runs", format_bytes(total))
    for name, path in (("archive", paths.archive(folder)), ("decoded images", data / "cache")):
        yield good(name, format_bytes(sum(status.st_size for _, status in tree(path))))
    if parts:
        yield note(
            "leftovers",
            f"{len(parts)} unfinished file{'s' if len(parts) != 1 else ''} of runs, {format_bytes(sum(parts))}",
            "they are removed when their run is resumed or deleted",
        )
    if unfinished := sum(status.st_size for _, status in tree(data / ".fetch" / "_parts")):
        yield note(
            "unfinished downloads",
            format_bytes(unfinished),
            f"the next fetch continues them; delete {data / '.fetch' / '_parts'} to discard them",
        )
