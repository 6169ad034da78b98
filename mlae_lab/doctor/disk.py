"""The section Disk: how much room is left, and what the lab takes of it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator

from mlae_lab.core.units import format_bytes
from mlae_lab.doctor.context import Context
from mlae_lab.doctor.findings import Finding, good, note, trouble
from mlae_lab.doctor.folders import bytes_of, database_files, existing, tree

LITTLE_ROOM = 2_000_000_000  # bytes free on a disk: worth a note
NO_ROOM = 200_000_000  # bytes free on a disk: trouble
OLD_PART = 3600.0  # seconds after which nobody writes a *.part file any more


def section(context: Context) -> Iterator[Finding]:
    """What is free for the store and the data folder, and what lies in them."""
    folder, data = context.folder, context.data
    places = {"store": existing(folder), "data folder": existing(data)}
    if os.stat(places["store"]).st_dev == os.stat(places["data folder"]).st_dev:
        places = {"store and data folder": places["store"]}
    for name, place in places.items():
        free = shutil.disk_usage(place).free
        value = f"{format_bytes(free)} on the disk of {place}"
        if free < NO_ROOM:
            yield trouble(
                f"free for {name}", value, "delete runs or other files: a run that cannot write its checkpoints fails"
            )
        elif free < LITTLE_ROOM:
            yield note(f"free for {name}", value, "deleting runs that nobody needs makes room")
        else:
            yield good(f"free for {name}", value)
    total, parts, now = 0, [], time.time()
    for file, found in tree(folder / "runs"):
        total += found.st_size
        if file.name.endswith(".part") and now - found.st_mtime > OLD_PART:
            parts.append(found.st_size)
    yield good("database", format_bytes(bytes_of(*database_files(folder))))
    yield good("files of runs", format_bytes(total))
    for name, place in (("archive", folder / "archive"), ("decoded images", data / "cache")):
        yield good(name, format_bytes(sum(found.st_size for _, found in tree(place))))
    if parts:
        yield note(
            "leftovers",
            f"{len(parts)} unfinished file{'s' if len(parts) != 1 else ''} of runs, {format_bytes(sum(parts))}",
            "they go when their run is resumed or deleted",
        )
    if unfinished := sum(found.st_size for _, found in tree(data / ".fetch" / "_parts")):
        yield note(
            "unfinished downloads",
            format_bytes(unfinished),
            f"the next fetch goes on with them; delete {data / '.fetch' / '_parts'} to give them up",
        )
