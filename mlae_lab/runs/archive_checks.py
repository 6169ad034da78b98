"""What a stranger's run.json, events.jsonl and safetensors may hold: every value is checked before it is used."""

from __future__ import annotations

import itertools
import json
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any

from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.sanitize import printable
from mlae_lab.core.settings import settings_of
from mlae_lab.core.units import format_bytes
from mlae_lab.errors import LabError
from mlae_lab.runs.archive_zip import EVENTS, FORMAT, MAX_EVENTS, RUN, ArchiveError, Packed, short
from mlae_lab.runs.paths import is_run_id
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run

LINE_BYTES = 4_000_000  # the similarity of the largest canvas takes 1.3 MB
TENSORS_HEADER_BYTES = 10_000_000
_HEX, _BASE64 = re.compile("[0-9a-f]*"), re.compile("[A-Za-z0-9+/=]{1,40000}")
_LAST_TIME = 250_000_000_000  # seconds since 1970, a little before the year 9900
_MOST = 2**53  # whole numbers up to here survive JSON, SQLite and floats
_HASH = re.compile(r"[0-9a-f]{12}")
_DTYPES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


# ---------------------------------------------------------------- safetensors


def checked_tensors(name: str, size: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a safetensors file of that size; nothing is passed on before its header is checked."""
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
    """What is wrong with the header of a safetensors file, "" if nothing is. size: of the data behind it, in bytes."""
    try:
        told = json.loads(header.decode())
    except (ValueError, RecursionError):
        return "its header is not JSON"
    if not isinstance(told, dict):
        return "its header is not a JSON object"
    notes = told.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        return "its __metadata__ is not an object of texts"
    spans = []
    for name, about in told.items():
        if not isinstance(about, dict) or set(about) != {"dtype", "shape", "data_offsets"}:
            return f"{short(name)} does not have dtype, shape and data_offsets"
        dtype, shape, span = about["dtype"], about["shape"], about["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            return f"{short(name)} has the unknown dtype {short(dtype)}"
        if not _are_counts(shape) or len(shape) > 64 or not _are_counts(span) or len(span) != 2:
            return f"shape and data_offsets of {short(name)} are not lists of whole numbers"
        if span[1] - span[0] != math.prod(shape) * _DTYPES[dtype]:
            return f"{short(name)} has {span[1] - span[0]} bytes, which is not what its shape {short(shape)} takes"
        spans.append(tuple(span))
    end = 0
    for begin, stop in sorted(spans):
        if begin != end:
            return f"its tensors leave a gap or overlap at byte {end}"
        end = stop
    return "" if end == size else f"its tensors take {end} bytes and {size} are there"


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= _MOST for n in value)


# ---------------------------------------------------------------- run.json


def header_of(packed: Packed) -> tuple[Run, dict]:
    """The run as its first store had it, and what concerned that store alone, {} in an export."""
    try:
        told = json.loads(b"".join(packed.chunks(RUN)).decode())
        json.dumps(told, ensure_ascii=False).encode()  # half a surrogate pair fits into no database and on no page
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{RUN} in {packed.name} is not JSON ({str(error)[:80]}): ask for the file again") from None
    if not isinstance(told, dict):
        raise ArchiveError(f"{RUN} in {packed.name} is not a JSON object: ask for the file again")
    number = told.get("format")
    if type(number) is int and number > FORMAT:
        raise ArchiveError(
            f"{packed.name} was written by a newer lab (format {number}, this one reads {FORMAT}): update this lab"
        )
    _require(number == FORMAT and type(number) is int, "format", number, f"{FORMAT}")
    name: Any = told.get("id")
    status: Any = told.get("status")
    device: Any = told.get("device")
    _require(isinstance(name, str) and is_run_id(name), "id", name, "eight letters a-z or digits 2-7")
    ends = [s.value for s in Status if s.is_over]
    _require(status in ends, "status", status, f"an end, one of {', '.join(ends)}")
    _require(device in ("cpu", "cuda"), "device", device, "cpu or cuda")
    for key in ("reason", "parent", "relation"):
        _require(isinstance(told.get(key), str), key, told.get(key), "a text")
    for key in ("created", "started", "ended"):
        value = told.get(key)
        missing = value is None and key in told and key != "created"
        seconds = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LAST_TIME
        _require(missing or seconds, key, value, "a time in seconds since 1970")
    run = Run(
        name, told["created"], _config(told), told.get("first_hash", told["config_hash"]), Status(status), told["reason"],
        device, None, told["started"], told["ended"], parent=told["parent"], relation="branched" if told["relation"] == "continued" else told["relation"],
    )  # fmt: skip
    here: Any = told.get("here", {})
    kinds = {"owner": str, "attempt": int, "source": str, "data_folder": str}
    fits = isinstance(here, dict) and all(type(here.get(key, kind())) is kind for key, kind in kinds.items())
    _require(fits and 0 <= here.get("attempt", 0) <= _MOST, "here", here, "owner, attempt, source and data_folder")
    return run, {key: here[key] for key in kinds if key in here}


def _config(told: Mapping) -> RunConfig:
    given: Any = told.get("config")
    try:
        config = RunConfig.from_dict(given)
    except (LabError, ValueError, TypeError, OverflowError, RecursionError) as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise ArchiveError(f"the settings in {RUN} cannot be used here: {said}") from None
    for key in ("config_hash", "first_hash"):
        value = told.get(key, told.get("config_hash"))
        _require(isinstance(value, str) and _HASH.fullmatch(value), key, value, "twelve hex digits")
    settings = settings_of(RunConfig)
    added = {setting.name for setting in settings if setting.hashed != "always"}
    complete = set(given) | added == {setting.name for setting in settings}  # an older lab had fewer, and other hashes
    if complete and config.hash != told["config_hash"]:
        raise ArchiveError(
            f"{RUN} was changed after it was exported: its settings have the hash {config.hash} and it says "
            f"{told['config_hash']}; ask for the file again"
        )
    return config


def _require(fits: object, key: str, value: object, rule: str) -> None:
    if not fits:
        raise ArchiveError(f"{RUN} says that {key} is {short(value)}: it must be {rule}")


# ---------------------------------------------------------------- events.jsonl


def events_of(packed: Packed, config: RunConfig) -> Iterator[tuple[float, ev.Event] | None]:
    """(time, event) for every line, None for one of a kind that this lab does not know."""
    for number, line in enumerate(_lines(packed.chunks(EVENTS)), 1):
        if number > MAX_EVENTS:
            raise ArchiveError(f"{EVENTS} in {packed.name} has more than {MAX_EVENTS} lines, the most that are taken")
        try:
            yield _event(line, config)
        except (ValueError, RecursionError) as error:
            raise ArchiveError(f"line {number} of {EVENTS} cannot be taken: {str(error)[:300]}") from None


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        if len(rest) > LINE_BYTES:
            raise ArchiveError(f"a line of {EVENTS} is longer than {format_bytes(LINE_BYTES)}, the most that is taken")
    if rest:
        yield rest


def _event(line: bytes, config: RunConfig) -> tuple[float, ev.Event] | None:
    told = json.loads(line.decode())
    if not isinstance(told, dict) or set(told) != {"kind", "time", "payload"}:
        raise ValueError("it must be a JSON object with kind, time and payload")
    kind, at, payload = told["kind"], told["time"], told["payload"]
    if not isinstance(kind, str):
        raise ValueError(f"kind is {short(kind)} and must be a text")
    if isinstance(payload, dict):
        kind, payload = ev.renamed(kind, payload)  # an archive of version 0.5
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
            raise ValueError(f"{name} of {kind} holds {error}") from None
    event = ev.KINDS[kind](**values)  # each value was read as its field's type
    _require_possible(event)
    _require_on_canvas(event, config)
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
    """A run can tell of NaN where it diverged, but not in what is counted or measured by a clock."""
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
        told = itertools.chain(
            (n for numbers in single for n in numbers if n is not None), *(row for m in event.matrices for row in m)
        )
        if not all(n is not None and math.isfinite(n) for n in told):
            raise ValueError("similarity holds something that is not a finite number")


def _require_on_canvas(event: ev.Event, config: RunConfig) -> None:
    """What is drawn on the plan's canvas must have its size."""
    plan = config.plan
    if isinstance(event, ev.ExpertStats):
        canvases = (event.active_share, event.contribution, event.coefficient, event.gradient)
        fits = all(len(c) == plan.rows and all(len(row) == plan.columns for row in c) for c in canvases)
    elif isinstance(event, ev.SimilarityStats):
        sides = tuple(len(m) if all(len(row) == len(m) for row in m) else -1 for m in event.matrices)
        ranks = all(len(ranks) in (0, plan.rows) for ranks in (event.effective_rank, event.stable_rank))
        fits = sides == plan.kept and len(event.signed) == len(event.absolute) == plan.rows and ranks
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
                "watched must hold at most 48 images in base64 of at most 40,000 letters, one for each truth"
            )
        return
    elif isinstance(event, ev.Predictions):
        if not len(event.predicted) == len(event.confidence) <= 48:
            raise ValueError("guesses must be at most 48, with one confidence for each")
        return
    else:
        return
    if not fits:
        raise ValueError(f"{event.kind} does not have the size of the plan, {plan.rows} x {plan.columns}")


_Read = Callable[[object], object]


@cache
def _fields(kind: str) -> tuple[dict[str, _Read], set[str]]:
    """How each field of an event is read from JSON, and the fields that must be there."""
    of = ev.KINDS[kind]
    types_ = typing.get_type_hints(of)
    own: dict[str, _Read] = {"values": _statistics, "labels": _labels} if of is ev.Statistics else {}
    read = {f.name: own.get(f.name) or _reader(types_[f.name]) for f in fields(of)}
    return read, {f.name for f in fields(of) if f.default is MISSING and f.default_factory is MISSING}


def _reader(of: object) -> _Read:
    """Reads one JSON value of a type of `core.events`; the result raises ValueError for any other."""
    arguments = typing.get_args(of)
    if of is int:
        return _whole
    if of is float:
        return _number
    if of is str:
        return _text
    if typing.get_origin(of) is tuple:
        each = _reader(arguments[0])
        return lambda value: tuple(map(each, _list(value)))
    if typing.get_origin(of) in (types.UnionType, typing.Union):
        some = _reader(next(a for a in arguments if a is not types.NoneType))
        return lambda value: None if value is None else some(value)
    raise TypeError(f"no rule reads {of}")


def _statistics(value: object) -> dict[str, object]:
    """Values of `Statistics`, whose names and sizes `require_valid` checks."""
    return {name: _statistic(entry, 2) for name, entry in _object(value).items()}


def _statistic(value: object, depth: int) -> object:
    if depth and isinstance(value, list):
        return tuple(_statistic(entry, depth - 1) for entry in value)
    return None if value is None else _number(value)


def _labels(value: object) -> dict[str, tuple[object, ...]]:
    labels = {name: tuple(map(_text, _list(label))) for name, label in _object(value).items()}
    if any(len(label) != 2 for label in labels.values()):
        raise ValueError("a label that is not a title and a unit")
    return labels


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"{short(value)} and must be a JSON object")
    return value


def _whole(value: object) -> object:
    if type(value) is not int or not 0 <= value <= _MOST:
        raise ValueError(f"{short(value)} and must be a whole number from 0 to 2**53")
    return value


def _number(value: object) -> object:
    if type(value) is not float and not (type(value) is int and -_MOST <= value <= _MOST):
        raise ValueError(f"{short(value)} and must be a number")
    return value


def _text(value: object) -> object:
    if not isinstance(value, str) or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{short(value)} and must be a text")
    return printable(value)


def _list(value: object) -> list:
    if not isinstance(value, list):
        raise ValueError(f"{short(value)} and must be a list")
    return value
