"""Validation of an untrusted events.jsonl: every value has the type and the range of its field before it is used."""

from __future__ import annotations

import itertools
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, fields
from functools import cache

from mlae_lab.core import bounded_json
from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.sanitize import printable
from mlae_lab.core.units import format_bytes
from mlae_lab.runs.archive_checks import LAST_TIME, MAX_INTEGER, Header
from mlae_lab.runs.archive_zip import EVENTS, MAX_EVENTS, OLD_FORMAT, ArchiveError, Packed, short

LINE_BYTES = 4_000_000  # the similarity of the largest canvas takes 1.3 MB
_LINE_VALUES = 500_000
_HEX, _BASE64 = re.compile("[0-9a-f]*"), re.compile("[A-Za-z0-9+/=]{1,40000}")


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
    if type(at) not in (int, float) or not 0 <= at <= LAST_TIME:
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
    ev.SearchGeneration: ("epoch", "step", "generation", "generations", "candidates", "images"),
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
        event.require_valid(*config.canvas_size)
        return
    elif isinstance(event, ev.SearchGeneration):
        event.require_valid()
        return
    elif isinstance(event, ev.TrainStep):
        fits = not event.mask or (
            bool(_HEX.fullmatch(event.mask)) and len(event.mask) == 2 * -(-plan.rows * plan.columns // 8)
        )
    elif isinstance(event, ev.Evaluation):
        letters = len(event.correct)
        if letters > 2 * -(-ev.MAX_IMAGES_RECORDED // 8) or letters % 2 or not _HEX.fullmatch(event.correct):
            raise ValueError(
                f"correct of evaluation must be the hexadecimal bytes of at most {ev.MAX_IMAGES_RECORDED:,} images"
            )
        return
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
    special: dict[str, _Read] = {}
    if event is ev.Statistics:
        special = {"values": _statistics, "labels": _labels, "grids": _grids}
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


def _grids(value: object) -> dict[str, ev.Grid]:
    return {name: _grid(_list(grid)) for name, grid in _object(value).items()}


def _grid(parts: list) -> ev.Grid:
    if len(parts) != len(ev.Grid._fields):
        raise ValueError("an object with a grid that is not its rows, columns, axis and note")
    rows, columns = (tuple(str(_string(label)) for label in _list(labels)) for labels in parts[:2])
    axis, note = (str(_string(text)) for text in parts[2:])
    return ev.Grid(rows, columns, axis, note)


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"{short(value)}: it must be a JSON object")
    return value


def _integer(value: object) -> object:
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise ValueError(f"{short(value)}: it must be a whole number from 0 to 2**53")
    return value


def _number(value: object) -> object:
    if type(value) is not float and not (type(value) is int and -MAX_INTEGER <= value <= MAX_INTEGER):
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
