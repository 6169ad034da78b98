"""Runs as rows: for each run its fields by name, which the Runs page and `runs --where` filter, sort and group."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from statistics import mean
from typing import Any

from mlae_lab.core import catalog
from mlae_lab.core import method as methods
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation, Started, TrainStep
from mlae_lab.core.nearest_pattern import nearest
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.sanitize import spreadsheet_text
from mlae_lab.core.settings import ConfigError, settings_of
from mlae_lab.core.where import Field, Kind, parse
from mlae_lab.errors import LabError
from mlae_lab.runs.owners import owner_name
from mlae_lab.runs.store import Run, RunStore

_OF_THE_RUN = (
    Field("run", "text", "id of the run"),
    Field("name", "text", "given by a person"),
    Field("task", "text", "name of the task, as `tasks` lists it"),
    Field("method", "text", "name of the method, as `methods` lists it"),
    Field("status", "text", "queued, starting, running, stopping, finished, stopped, failed or lost"),
    Field("accuracy", "number", "top-1 accuracy of the last evaluation in percent, on the split of `protocol`"),
    Field("parameters", "number", "trained parameters without the head"),
    Field("created", "time", "time of the launch"),
    Field("started", "time", "time of the last start"),
    Field("ended", "time", "time of the end"),
    Field("duration", "number", "seconds of training so far, evaluations included"),
    Field("owner", "text", "nickname, or name of the user of the terminal"),
    Field("tags", "list", "given by people"),
    Field("notes", "text", "given by people"),
    Field("reason", "text", "why it failed, was lost or was stopped"),
    Field("study", "list", "ids of the studies that it belongs to"),
    Field("parent", "text", "the run from which it was launched"),
    Field("relation", "text", "how it was made from its parent"),
    Field("mask", "text", "name of the mask: in the library, else of the paper's pattern, else a hash"),
    Field("kind", "text", "dense, fixed, stochastic or mixed mask"),
    Field("experts", "number", "experts of the mask"),
    Field(
        "drop_rate",
        "number",
        "drop probability p, mean over the experts of the mask; where p is learned, the initial one",
    ),
    Field("expert_rank", "number", "rank of each expert"),
    Field("coefficient_init", "number", "initial coefficient λ"),
    Field("images", "text", "origin of the images, empty for bundled ones"),
)
_LEFT_OUT = ("task", "plan", "method", "data_label", "data_notes", "data_fingerprint", "method_settings")
_OF_MASKS = ("mask", "kind", "experts", "drop_rate", "expert_rank", "coefficient_init")
_KINDS: Mapping[type, Kind] = {int: "number", float: "number", bool: "switch", str: "text"}


@cache
def fields() -> tuple[Field, ...]:
    """All fields: of the run, settings of the run, settings of the methods that are installed here."""
    known = {field.name: field for field in _OF_THE_RUN}
    for entry in settings_of(RunConfig):
        if entry.name not in _LEFT_OUT:
            known.setdefault(entry.name, Field(entry.name, _KINDS.get(entry.kind, "text"), f"setting: {entry.label}"))
    for described in methods.available()[0].values():
        for entry in settings_of(described):
            help = f"setting of methods: {entry.label}"
            known.setdefault(entry.name, Field(entry.name, _KINDS.get(entry.kind, "text"), help))
    return tuple(known.values())


@cache
def field_kinds() -> dict[str, Kind]:
    """The kind of each field by name."""
    return {field.name: field.kind for field in fields()}


@cache
def _shown_settings() -> tuple[tuple[str, str], ...]:
    """The settings of a run that are fields, and the only method that each affects, "" for all."""
    return tuple((entry.name, entry.method) for entry in settings_of(RunConfig) if entry.name not in _LEFT_OUT)


@dataclass(frozen=True)
class Row:
    """One run. values: every field by name, None where the run has no value; text: what a search looks through."""

    run: Run
    values: Mapping[str, Any]
    text: str


Known = MutableMapping[str, tuple[tuple, dict[str, Any], str]]


def rows(store: RunStore, runs: Sequence[Run], known: Known | None = None) -> list[Row]:
    """The rows of runs, in their order; a few queries for all of them together.

    Args:
        store: Of the runs.
        runs: With their actual statuses.
        known: What was read before of runs that are over, by id; it is filled.
    """
    known = {} if known is None else known
    nicknames, studies = store.nicknames(), store.studies_by_run()
    unread = [run for run in runs if run.id not in known or known[run.id][0] != _revision(run)]
    names = [run.id for run in unread]
    started, steps = store.last_of_each(names, Started), store.last_of_each(names, TrainStep)
    evaluations = store.last_of_each(names, Evaluation)
    fresh = {}
    for run in unread:
        values = _settings(run.config) | _measured(run, started.get(run.id), steps.get(run.id), evaluations.get(run.id))
        fresh[run.id] = (_revision(run), values, _searched(run))
        if run.status.is_over:
            known[run.id] = fresh[run.id]
    listed = []
    for run in runs:
        _, values, searched = fresh.get(run.id) or known[run.id]
        owner = owner_name(run.owner, nicknames)
        given = {
            "name": run.name, "notes": run.notes, "tags": run.tags, "owner": owner,
            "study": tuple(studies.get(run.id, ())), "mask": run.mask_name or values["mask"],
        }  # fmt: skip
        text = f"{searched} {run.name} {run.notes} {' '.join(run.tags)} {owner} {given['mask'] or ''}".lower()
        listed.append(Row(run, {**values, **given}, text))
    return listed


def _revision(run: Run) -> tuple:
    return run.status, run.ended, run.attempt, run.dataset, run.reason


def _measured(run: Run, started: Started | None, step: TrainStep | None, last: Evaluation | None) -> dict[str, Any]:
    config = run.config
    parameters = started.parameters if started else _parameters(config)
    seconds = None if step is None else max(step.seconds, last.seconds if last else 0.0)
    return {
        "run": run.id, "status": run.status.value, "reason": run.reason, "created": run.created,
        "started": run.started, "ended": run.ended, "parent": run.parent, "relation": run.relation,
        "accuracy": last.accuracy if last else None, "parameters": parameters,
        "duration": None if seconds is None else round(seconds, 1),
    }  # fmt: skip


def _parameters(config: RunConfig) -> int | None:
    try:
        return config.tuning.parameters(config.network)
    except LabError:  # not installed, or a backbone that is unknown here
        return None


def _settings(config: RunConfig) -> dict[str, Any]:
    tuning = config.tuning
    own = {entry.name: getattr(tuning, entry.name) for entry in settings_of(type(tuning))}
    values = dict.fromkeys(field_kinds()) | own
    for name, method in _shown_settings():
        if method in ("", config.method):
            values[name] = getattr(config, name)
    values |= {"task": config.task, "method": config.method, "images": config.data_label}
    if config.has_mask:
        values |= zip(_OF_MASKS, _of_mask(config.plan), strict=True)
    return values


@lru_cache(maxsize=4096)
def _of_mask(plan: MaskPlan) -> tuple:
    """The values of `_OF_MASKS`."""
    pattern = nearest(plan)
    rates = [rate for row in plan.rates for rate in row]
    return (
        pattern.title if pattern.same else plan.hash, plan.kind_name, plan.experts,
        round(mean(rates), 4) if rates else None, plan.expert_rank,
        plan.coefficient_init,
    )  # fmt: skip


def _searched(run: Run) -> str:
    config = run.config
    parts = (
        run.id, config.task, catalog.task(config.task).title, config.method, config.what, config.backbone,
        config.data_label, run.reason, *config.method_settings,
    )  # fmt: skip
    return " ".join(parts)


# ---------------------------------------------------------------- filter, sort, group


def matching(listed: Iterable[Row], where: str = "", words: str = "") -> list[Row]:
    """The rows that meet a condition and have all words.

    Args:
        listed: The rows.
        where: A condition as of `core.where`, "" for none.
        words: Separated by spaces, each somewhere in id, name, notes, tags, task, method, mask, owner or reason.

    Raises:
        WhereError: The condition cannot be used.
    """
    test, wanted = parse(where, fields()), words.lower().split()
    return [row for row in listed if all(word in row.text for word in wanted) and test(row.values)]


def ordered(listed: Sequence[Row], field: str, descending: bool, group: str = "") -> list[Row]:
    """Rows by a field, within groups by another field; those without a value last, equal ones in their order.

    Args:
        listed: The rows.
        field: To sort by.
        descending: The largest value first.
        group: To group by, ascending; "" for no groups.

    Raises:
        ConfigError: An unknown field.
    """
    for name in filter(None, (field, group)):
        if name not in field_kinds():
            raise ConfigError(f"there is no field {name[:60]!r} to sort or group by: `runs --fields` lists them")
    result = _sorted(listed, field, descending)
    if group and field_kinds()[group] == "time":  # whole days, so that a day keeps the order within it
        return sorted(result, key=lambda row: (is_missing(row.values[group]), group_title(row.values[group], group)))
    return _sorted(result, group, False) if group else result


def _sorted(listed: Sequence[Row], field: str, descending: bool) -> list[Row]:
    valued = [row for row in listed if not is_missing(row.values[field])]
    missing = [row for row in listed if is_missing(row.values[field])]
    return [*sorted(valued, key=lambda row: sort_key(row.values[field]), reverse=descending), *missing]


def is_missing(value: Any) -> bool:
    """Whether a row has no value."""
    return value is None or value in ("", ())


def sort_key(value: Any) -> tuple[bool, float, str]:
    """The position of a value among others; numbers come before texts."""
    if isinstance(value, (bool, int, float)):
        return False, float(value), ""
    return True, 0.0, group_text(value).lower()


def group_text(value: Any) -> str:
    """A value as the title of its group."""
    if is_missing(value):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def group_title(value: Any, field: str) -> str:
    """The title of the group of a value; times are grouped by day."""
    if field_kinds()[field] == "time" and not is_missing(value):
        return time.strftime("%Y-%m-%d", time.localtime(value))
    return group_text(value)


@dataclass(frozen=True)
class Group:
    """Rows with one value of a field. title: the value; runs: how many; accuracy: mean over those with one."""

    title: str
    runs: int
    accuracy: float | None


def groups(listed: Iterable[Row], field: str) -> dict[str, Group]:
    """The groups of rows by their title."""
    members: dict[str, list[Row]] = {}
    for row in listed:
        members.setdefault(group_title(row.values[field], field), []).append(row)
    result = {}
    for title, held in members.items():
        known = [row.values["accuracy"] for row in held if row.values["accuracy"] is not None]
        comparable = len({(row.values["task"], row.values["protocol"]) for row in held}) == 1
        result[title] = Group(title, len(held), mean(known) if known and comparable else None)
    return result


def as_csv(listed: Sequence[Row]) -> str:
    """All fields that any of the rows has a value of, one line for each run; times in seconds since 1970."""
    names = [field.name for field in fields() if any(not is_missing(row.values[field.name]) for row in listed)]
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(names)
    for row in listed:
        writer.writerow([_cell(row.values[name]) for name in names])
    return file.getvalue()


def _cell(value: Any) -> Any:
    if is_missing(value):
        return ""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if number else spreadsheet_text(group_text(value))
