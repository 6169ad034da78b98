"""Write a run that is over as an archive file."""

from __future__ import annotations

import json
import os
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from mlae_lab.core import events as ev
from mlae_lab.core.units import format_bytes
from mlae_lab.files import replacing
from mlae_lab.runs.archive_zip import CHUNK, EVENTS, FORMAT, LOG, MAX_EVENTS, RUN, ArchiveError, is_stored, limit
from mlae_lab.runs.store import Run, RunStore, StoreError

KEPT_LOG_BYTES = 1_000_000  # of a log's end, when it is exported


def write(
    store: RunStore, run: Run, file: Path, members: Mapping[str, Path | bytes], local: Mapping[str, object]
) -> int:
    """Write an archive file.

    Args:
        store: Of the run.
        run: One that is over.
        file: To write.
        members: Name to path or content of each further member; files that are missing are left out.
        local: Fields that concern this store only, {} for an export.

    Returns:
        The number of its events.

    Raises:
        ArchiveError: The file cannot be written, or the run is too large.
        StoreError: The run changed while it was written.
    """
    if not file.name:
        raise ArchiveError(f"{file} is a folder: give the file a name, such as {run.id}.mlae")
    events = store.events(run.id)
    if len(events) > MAX_EVENTS:
        raise ArchiveError(f"run {run.id} has {len(events)} events: an archive file holds at most {MAX_EVENTS}")
    header = _header_of(run) | ({"here": dict(local)} if local else {})
    lines = (
        f'{{"kind":{json.dumps(s.event.kind)},"time":{json.dumps(s.time)},"payload":{ev.to_json(s.event)}}}\n'.encode()
        for s in events
    )
    try:
        with replacing(file) as partial:
            with zipfile.ZipFile(partial, "x") as packed:
                _add(packed, RUN, [json.dumps(header, indent=1).encode()])
                _add(packed, EVENTS, _chunked(lines))
                for name, content in {LOG: store.paths(run.id).log, **members}.items():
                    if isinstance(content, bytes):
                        _add(packed, name, [content])
                        continue
                    with suppress(FileNotFoundError), content.open("rb") as source:
                        if name == LOG:
                            source.seek(max(0, os.fstat(source.fileno()).st_size - KEPT_LOG_BYTES))
                        _add(packed, name, iter(lambda: source.read(CHUNK), b""))
            _require_same(store, run)
    except OSError as error:
        _require_same(store, run)  # the files of a run that was deleted meanwhile vanish
        raise ArchiveError(
            f"{file} cannot be written ({error.strerror or error}): choose an existing, writable folder with free space"
        ) from None
    return len(events)


def _header_of(run: Run) -> dict:
    """Content of run.json. config_hash is that of the config in it; first_hash is that of the row where it differs,
    because the run came from another machine or an earlier version."""
    config_hash = run.config.hash
    header = {
        "format": FORMAT, "id": run.id, "status": run.status.value, "reason": run.reason, "created": run.created,
        "started": run.started, "ended": run.ended, "device": run.device, "parent": run.parent,
        "relation": run.relation, "config_hash": config_hash, "config": run.config.to_dict(),
    }  # fmt: skip
    given = {"name": run.name, "notes": run.notes, "tags": list(run.tags), "mask_name": run.mask_name}
    header |= {key: value for key, value in given.items() if value}
    return header if run.config_hash == config_hash else header | {"first_hash": run.config_hash}


def _add(packed: zipfile.ZipFile, name: str, chunks: Iterable[bytes]) -> None:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
    info.compress_type = zipfile.ZIP_STORED if is_stored(name) else zipfile.ZIP_DEFLATED
    most, size = limit(name), 0
    with packed.open(info, "w") as target:
        for chunk in chunks:
            size += len(chunk)
            if size > most:
                raise ArchiveError(f"{name} of the run is too large: at most {format_bytes(most)} are allowed")
            target.write(chunk)


def _chunked(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in larger pieces: zipfile has an overhead for each."""
    pending: list[bytes] = []
    size = 0
    for line in lines:
        pending.append(line)
        size += len(line)
        if size >= CHUNK:
            yield b"".join(pending)
            pending, size = [], 0
    yield b"".join(pending)


def _require_same(store: RunStore, run: Run) -> None:
    if store.run(run.id) != run:
        raise StoreError(f"run {run.id} changed while it was being exported: try again when it is over")
