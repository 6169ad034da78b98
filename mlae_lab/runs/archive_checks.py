"""Validation of an untrusted run.json, list of images and safetensors: every value is checked before it is used."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from mlae_lab.core import bounded_json, image_labels
from mlae_lab.core.config import RunConfig
from mlae_lab.core.method import UnavailableMethod
from mlae_lab.core.sanitize import printable
from mlae_lab.core.settings import settings_of
from mlae_lab.errors import LabError
from mlae_lab.runs.annotations import AnnotationError, run_name, run_notes, run_tags
from mlae_lab.runs.archive_zip import FORMAT, OLD_FORMAT, RUN, ArchiveError, Packed, short
from mlae_lab.runs.paths import IMAGES, is_run_id
from mlae_lab.runs.schema import OLD_RELATIONS
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run

TENSORS_HEADER_BYTES = bounded_json.MAX_BYTES
_CLASS_NAME = 300  # characters; a folder's name has at most 255 bytes
LAST_TIME = 250_000_000_000  # seconds since 1970, a little before the year 9900
MAX_INTEGER = 2**53  # whole numbers up to here survive JSON, SQLite and floats
_HASH = re.compile(r"[0-9a-f]{12}")
_DTYPES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


# ---------------------------------------------------------------- safetensors


def checked_tensors(name: str, size: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a safetensors file, none of them before its header is checked.

    Args:
        name: Of the file, for errors.
        size: In bytes.
        chunks: Its content.

    Raises:
        ArchiveError: It is not a safetensors file.
    """
    start: bytes | None = b""
    for chunk in chunks:
        if start is None:
            yield chunk
            continue
        start += chunk
        length = int.from_bytes(start[:8], "little")
        if size < 8 or (len(start) >= 8 and length > min(TENSORS_HEADER_BYTES, size - 8)):
            break
        if len(start) >= 8 + length:
            trouble = tensors_trouble(start[8 : 8 + length], size - 8 - length)
            if trouble:
                raise ArchiveError(f"{name} is not a safetensors file: {trouble}")
            yield start
            start = None
    if start is not None:
        raise ArchiveError(
            f"{name} is not a safetensors file: its first eight bytes do not give the length of a header"
        )


def tensors_trouble(header: bytes, size: int) -> str:
    """What is wrong with the header of a safetensors file, "" if nothing is.

    Args:
        header: JSON.
        size: Of the data after it, in bytes.
    """
    try:
        entries = bounded_json.parsed(header)
    except json.JSONDecodeError:
        return "its header is not JSON"
    except ValueError as error:
        return f"its header cannot be used ({error})"
    if not isinstance(entries, dict):
        return "its header is not a JSON object"
    notes = entries.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        return "its __metadata__ is not an object of strings"
    spans = []
    for name, entry in entries.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            return f"{short(name)} does not have dtype, shape and data_offsets"
        dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            return f"{short(name)} has the unknown dtype {short(dtype)}"
        if not _are_counts(shape) or len(shape) > 64 or not _are_counts(span) or len(span) != 2:
            return f"shape and data_offsets of {short(name)} are not lists of whole numbers"
        if span[1] - span[0] != math.prod(shape) * _DTYPES[dtype]:
            return f"{short(name)} has {span[1] - span[0]} bytes, which does not match its shape {short(shape)}"
        spans.append(tuple(span))
    end = 0
    for begin, stop in sorted(spans):
        if begin != end:
            return f"its tensors leave a gap or overlap at byte {end}"
        end = stop
    return "" if end == size else f"its tensors take {end} bytes and the file has {size}"


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= MAX_INTEGER for n in value)


# ---------------------------------------------------------------- images.json.gz


def checked_images(packed: Packed, is_foreign: bool) -> bytes:
    """The content of the list of images, as it is kept in a run's folder.

    Args:
        packed: The open archive file, which has one.
        is_foreign: The run comes from another store: names of files are dropped, names of classes are sanitised.

    Raises:
        ArchiveError: It is not a list of images.
    """
    from mlae_lab.data import image_record
    from mlae_lab.data.bundled import DataError

    content = b"".join(packed.chunks(IMAGES))
    try:
        record = image_record.unpacked(content, f"{IMAGES} in {packed.name}")
    except DataError as error:
        raise ArchiveError(str(error)) from None
    if not is_foreign:
        return content
    names = tuple(printable(name)[:_CLASS_NAME] for name in record.classes)
    return image_record.packed(replace(record, classes=names), with_paths=False)


# ---------------------------------------------------------------- run.json


class Header(NamedTuple):
    """The content of run.json.

    Attributes:
        run: As its original store had it.
        local: That store's own fields of the run, {} in an export.
        format: Of the archive file.
    """

    run: Run
    local: dict
    format: int


def header_of(packed: Packed, is_foreign: bool = True) -> Header:
    """The checked content of run.json. Raises ArchiveError.

    Args:
        packed: The open archive file.
        is_foreign: The run is to be imported; an archived run of this store may have a method that is not installed.
    """
    try:
        header = bounded_json.parsed(b"".join(packed.chunks(RUN)))
        json.dumps(header, ensure_ascii=False).encode()  # no database or page can hold half a surrogate pair
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{RUN} in {packed.name} is not JSON ({str(error)[:80]}): request the file again") from None
    if not isinstance(header, dict):
        raise ArchiveError(f"{RUN} in {packed.name} is not a JSON object: request the file again")
    number: Any = header.get("format")
    if type(number) is int and number > FORMAT:
        raise ArchiveError(
            f"{packed.name} was written by a newer version (format {number}, this one reads {FORMAT}): update MLAE Lab"
        )
    _require(type(number) is int and number >= OLD_FORMAT, "format", number, f"{OLD_FORMAT} or {FORMAT}")
    relation: Any = header.get("relation")
    name: Any = header.get("id")
    status: Any = header.get("status")
    device: Any = header.get("device")
    _require(isinstance(name, str) and is_run_id(name), "id", name, "eight letters a-z or digits 2-7")
    ends = [s.value for s in Status if s.is_over]
    _require(status in ends, "status", status, f"final, one of {', '.join(ends)}")
    _require(device in ("cpu", "cuda"), "device", device, "cpu or cuda")
    for key in ("reason", "parent", "relation"):
        _require(isinstance(header.get(key), str), key, header.get(key), "a string")
    for key in ("created", "started", "ended"):
        value = header.get(key)
        missing = value is None and key in header and key != "created"
        seconds = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LAST_TIME
        _require(missing or seconds, key, value, "a time in seconds since 1970")
    config = _config(header, is_foreign)
    if number == OLD_FORMAT:
        config = replace(config, data_label=image_labels.current(config.data_label))
        relation = "branched" if relation == "continued" else relation
    is_of_preset = relation in OLD_RELATIONS
    run = Run(
        id=name,
        created=header["created"],
        config=config,
        config_hash=header.get("first_hash", header["config_hash"]),
        status=Status(status),
        reason=header["reason"],
        device=device,
        pid=None,
        started=header["started"],
        ended=header["ended"],
        parent="" if is_of_preset else header["parent"],
        relation="" if is_of_preset else relation,
        **_annotations(header),
    )
    local: Any = header.get("here", {})
    kinds = {"owner": str, "attempt": int, "source": str, "data_folder": str, "location": dict}
    fits = isinstance(local, dict) and all(type(local.get(key, kind())) is kind for key, kind in kinds.items())
    names = "owner, attempt, source, data_folder and location"
    _require(fits and 0 <= local.get("attempt", 0) <= MAX_INTEGER, "here", local, names)
    return Header(run, {key: local[key] for key in kinds if key in local}, number)


def _annotations(header: Mapping) -> dict[str, Any]:
    """Name, notes, tags and the name of the mask, where run.json has them."""
    given: dict[str, Any] = {key: header.get(key, "") for key in ("name", "notes", "mask_name")}
    for key, value in given.items():
        _require(isinstance(value, str), key, value, "a string")
    tags: Any = header.get("tags", [])
    _require(isinstance(tags, list) and all(isinstance(tag, str) for tag in tags), "tags", tags, "a list of strings")
    try:
        return {
            "name": run_name(given["name"]), "notes": run_notes(given["notes"]), "tags": run_tags(tags),
            "mask_name": run_name(given["mask_name"]),
        }  # fmt: skip
    except AnnotationError as error:
        raise ArchiveError(f"{RUN} cannot be used here: {error}") from None


def _config(header: Mapping, is_foreign: bool) -> RunConfig:
    given: Any = header.get("config")
    try:
        config = RunConfig.from_dict(given) if is_foreign else RunConfig.stored(given)
    except UnavailableMethod as error:
        cause = " ".join(error.of_a_run.split())[:300]
        raise ArchiveError(f"the run cannot be imported, {cause}") from None
    except (LabError, ValueError, TypeError, OverflowError, RecursionError) as error:
        cause = " ".join(str(error).split())[:300] or type(error).__name__
        raise ArchiveError(f"the settings in {RUN} cannot be used here: {cause}") from None
    for key in ("config_hash", "first_hash"):
        value = header.get(key, header.get("config_hash"))
        _require(isinstance(value, str) and _HASH.fullmatch(value), key, value, "twelve hex digits")
    settings = settings_of(RunConfig)
    added = {setting.name for setting in settings if setting.hashed != "always"}
    complete = set(given) | added == {s.name for s in settings}  # earlier versions had fewer settings, so other hashes
    if complete and config.hash != header["config_hash"]:
        raise ArchiveError(
            f"{RUN} was changed after the export: the hash of its settings is {config.hash}, not "
            f"{header['config_hash']} as it states; request the file again"
        )
    return config


def _require(fits: object, key: str, value: object, rule: str) -> None:
    if not fits:
        raise ArchiveError(f"{key} in {RUN} is {short(value)}: it must be {rule}")
