"""Validation of an untrusted run.json, events.jsonl and safetensors: every value is checked before it is used."""

from __future__ import annotations

import itertools
import json
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, replace
from functools import cache
from typing import Any, NamedTuple

from mlae_lab.core import bounded_json, image_labels
from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.sanitize import printable
from mlae_lab.core.settings import settings_of
from mlae_lab.core.units import format_bytes
from mlae_lab.errors import LabError
from mlae_lab.runs.archive_zip import EVENTS, FORMAT, MAX_EVENTS, OLD_FORMAT, RUN, ArchiveError, Packed, short
from mlae_lab.runs.paths import IMAGES, is_run_id
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run

LINE_BYTES = 4_000_000  # the similarity of the largest canvas takes 1.3 MB
_LINE_VALUES = 500_000
TENSORS_HEADER_BYTES = bounded_json.MAX_BYTES
_CLASS_NAME = 300  # characters; a folder's name has at most 255 bytes
_HEX, _BASE64 = re.compile("[0-9a-f]*"), re.compile("[A-Za-z0-9+/=]{1,40000}")
_LAST_TIME = 250_000_000_000  # seconds since 1970, a little before the year 9900
_MAX_INTEGER = 2**53  # whole numbers up to here survive JSON, SQLite and floats
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
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= _MAX_INTEGER for n in value)


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


def header_of(packed: Packed) -> Header:
    """The checked content of run.json. Raises ArchiveError."""
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
        seconds = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LAST_TIME
        _require(missing or seconds, key, value, "a time in seconds since 1970")
    config = _config(header)
    if number == OLD_FORMAT:
        config = replace(config, data_label=image_labels.current(config.data_label))
        relation = "branched" if relation == "continued" else relation
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
        parent=header["parent"],
        relation=relation,
    )
    local: Any = header.get("here", {})
    kinds = {"owner": str, "attempt": int, "source": str, "data_folder": str, "location": dict}
    fits = isinstance(local, dict) and all(type(local.get(key, kind())) is kind for key, kind in kinds.items())
    names = "owner, attempt, source, data_folder and location"
    _require(fits and 0 <= local.get("attempt", 0) <= _MAX_INTEGER, "here", local, names)
    return Header(run, {key: local[key] for key in kinds if key in local}, number)


def _config(header: Mapping) -> RunConfig:
    given: Any = header.get("config")
    try:
        config = RunConfig.from_dict(given)
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


# ---------------------------------------------------------------- events.jsonl


def events_of(packed: Packed, header: Header) -> Iterator[tuple[float, ev.Event] | None]:
    """(time, event) for every line, None for an event of a kind that this version does not know."""
    for number, line in enumerate(_lines(packed.chunks(EVENTS)), 1):
        if number > MAX_EVENTS:
            raise ArchiveError(f"{EVENTS} in {packed.name} has too many lines: at most {MAX_EVENTS} are allowed")
        try:
            yield _event(line, header)
        except (ValueError, RecursionError) as error:
            raise ArchiveError(f"line {number} of {EVENTS} is not valid: {str(error)[:300]}") from None


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > LINE_BYTES:
            raise ArchiveError(f"a line of {EVENTS} is too long: at most {format_bytes(LINE_BYTES)} are allowed")
    if rest:
        yield rest


def _event(line: bytes, header: Header) -> tuple[float, ev.Event] | None:
    row = bounded_json.parsed(line, _LINE_VALUES)
    if not isinstance(row, dict) or set(row) != {"kind", "time", "payload"}:
        raise ValueError("it must be a JSON object with kind, time and payload")
    kind, at, payload = row["kind"], row["time"], row["payload"]
    if not isinstance(kind, str):
        raise ValueError(f"kind is {short(kind)} and must be a string")
    if header.format == OLD_FORMAT and isinstance(payload, dict):
        kind, payload = ev.renamed(kind, payload)
    if type(at) not in (int, float) or not 0 <= at <= _LAST_TIME:
        raise ValueError(f"time is {short(at)} and must be in seconds since 1970")
    if kind not in ev.KINDS:
        return None
    known, needed = _fields(kind)
    if not isinstance(payload, dict) or not needed <= set(payload) <= set(known):
        raise ValueError(f"the payload of {kind} must have {', '.join(known)} and nothing else")
    values = {}
    for name, value in payload.items():
        try:
            values[name] = known[name](value)
        except ValueError as error:
            raise ValueError(f"{name} of {kind} is {error}") from None
    event = ev.KINDS[kind](**values)  # each value has the type of its field
    _require_possible(event)
    _require_on_canvas(event, header.run.config)
    return at, event


_COUNTED = {
    ev.Started: ("train_images", "evaluation_images", "steps"),
    ev.TrainStep: ("step", "epoch"),
    ev.Evaluation: ("epoch",),
    ev.ExpertStats: ("epoch",),
    ev.SimilarityStats: ("epoch",),
    ev.Predictions: ("epoch",),
    ev.Statistics: ("epoch",),
}  # fmt: skip - at least 1, as others divide by them


def _require_possible(event: ev.Event) -> None:
    """Check counts, times and percentages; other numbers may be NaN, as in a run that diverged."""
    for name in _COUNTED.get(type(event), ()):
        if getattr(event, name) < 1:
            raise ValueError(f"{name} of {event.kind} is {getattr(event, name)} and must be at least 1")
    seconds = getattr(event, "seconds", 0.0)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"seconds of {event.kind} is {seconds} and must be a time")
    if isinstance(event, ev.Evaluation) and not 0 <= event.accuracy <= 100:
        raise ValueError(f"accuracy of evaluation is {event.accuracy} and must be from 0 to 100")
    if isinstance(event, ev.SimilarityStats):
        single = (event.signed, event.absolute, event.effective_rank, event.stable_rank)
        values = itertools.chain(
            (n for numbers in single for n in numbers if n is not None), *(row for m in event.matrices for row in m)
        )
        if not all(n is not None and math.isfinite(n) for n in values):
            raise ValueError("similarity has a value that is not a finite number")


def _require_on_canvas(event: ev.Event, config: RunConfig) -> None:
    """Check that values for the cells of the plan's canvas have its size."""
    plan = config.plan
    if isinstance(event, ev.ExpertStats):
        canvases = (event.active_share, event.contribution, event.coefficient, event.gradient)
        fits = all(len(c) == plan.rows and all(len(row) == plan.columns for row in c) for c in canvases)
    elif isinstance(event, ev.SimilarityStats):
        sizes = tuple(len(m) if all(len(row) == len(m) for row in m) else -1 for m in event.matrices)
        ranks = all(len(ranks) in (0, plan.rows) for ranks in (event.effective_rank, event.stable_rank))
        fits = sizes == plan.kept and len(event.signed) == len(event.absolute) == plan.rows and ranks
    elif isinstance(event, ev.Statistics):
        event.require_valid(plan.rows, plan.columns)
        return
    elif isinstance(event, ev.TrainStep):
        fits = not event.mask or (
            bool(_HEX.fullmatch(event.mask)) and len(event.mask) == 2 * -(-plan.rows * plan.columns // 8)
        )
    elif isinstance(event, ev.SampleImages):
        if not len(event.labels) == len(event.images) <= 48 or not all(map(_BASE64.fullmatch, event.images)):
            raise ValueError(
                "sample_images must have at most 48 images in base64 of at most 40,000 letters, one for each label"
            )
        return
    elif isinstance(event, ev.Predictions):
        if not len(event.predicted) == len(event.confidence) <= 48:
            raise ValueError("predictions must be at most 48, with one confidence for each")
        return
    else:
        return
    if not fits:
        raise ValueError(f"{event.kind} does not have the size of the plan, {plan.rows} x {plan.columns}")


_Read = Callable[[object], object]


@cache
def _fields(kind: str) -> tuple[dict[str, _Read], set[str]]:
    """How each field of an event is read from JSON, and the required fields."""
    event = ev.KINDS[kind]
    hints = typing.get_type_hints(event)
    special: dict[str, _Read] = {"values": _statistics, "labels": _labels} if event is ev.Statistics else {}
    readers = {f.name: special.get(f.name) or _reader(hints[f.name]) for f in fields(event)}
    return readers, {f.name for f in fields(event) if f.default is MISSING and f.default_factory is MISSING}


def _reader(hint: object) -> _Read:
    """A function that reads a JSON value of one type of `core.events`, and raises ValueError for any other."""
    arguments = typing.get_args(hint)
    if hint is int:
        return _integer
    if hint is float:
        return _number
    if hint is str:
        return _string
    if typing.get_origin(hint) is tuple:
        read_entry = _reader(arguments[0])
        return lambda value: tuple(map(read_entry, _list(value)))
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        read_value = _reader(next(a for a in arguments if a is not types.NoneType))
        return lambda value: None if value is None else read_value(value)
    raise TypeError(f"no rule reads {hint}")


def _statistics(value: object) -> dict[str, object]:
    """Values of `Statistics`, whose names and sizes `require_valid` checks."""
    return {name: _statistic(entry, 2) for name, entry in _object(value).items()}


def _statistic(value: object, depth: int) -> object:
    if depth and isinstance(value, list):
        return tuple(_statistic(entry, depth - 1) for entry in value)
    return None if value is None else _number(value)


def _labels(value: object) -> dict[str, tuple[object, ...]]:
    labels = {name: tuple(map(_string, _list(label))) for name, label in _object(value).items()}
    if any(len(label) != 2 for label in labels.values()):
        raise ValueError("an object with a label that is not a title and a unit")
    return labels


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"{short(value)}: it must be a JSON object")
    return value


def _integer(value: object) -> object:
    if type(value) is not int or not 0 <= value <= _MAX_INTEGER:
        raise ValueError(f"{short(value)}: it must be a whole number from 0 to 2**53")
    return value


def _number(value: object) -> object:
    if type(value) is not float and not (type(value) is int and -_MAX_INTEGER <= value <= _MAX_INTEGER):
        raise ValueError(f"{short(value)}: it must be a number")
    return value


def _string(value: object) -> object:
    if not isinstance(value, str) or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{short(value)}: it must be a string")
    return printable(value)


def _list(value: object) -> list:
    if not isinstance(value, list):
        raise ValueError(f"{short(value)}: it must be a list")
    return value
