"""The table of runs, and what is shown of it: search, condition, groups, columns, order, page; a link has that, too."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.where import WhereError
from mlae_lab.data.listing import counted
from mlae_lab.runs import run_table
from mlae_lab.runs.run_table import Row
from mlae_lab.runs.store import Run
from mlae_lab.ui import page, queries, visitor
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.navigation import go
from mlae_lab.ui.rows_table import marked_rows, rows_table
from mlae_lab.ui.thumbnails import mask_image

KEY = "runs_table"
PAGE = 50  # rows
COLUMNS = ("name", "task", "method", "status", "accuracy", "parameters", "created", "duration", "owner", "tags")
_NEWEST = "-created"
_LABELS = {"created": "Date", "drop_rate": "Drop rate p", "coefficient_init": "Initial λ", "run": "Run id"}
_WORDS = {
    "check": "", "box": "Select {}", "region": "Runs", "one": "run", "many": "runs",
}  # fmt: skip
_SEARCH_HELP = "Words that are in a run's id, name, notes, tags, task, method, mask, owner or reason."
_WHERE_HELP = (
    "A condition on any field, such as `task=digits and drop_rate>0.3`. Compare with = != < <= > >= ~ (contains) or "
    "in (a, b); join with and, or, not and parentheses. The command `runs --fields` lists all fields."
)


@dataclass(frozen=True)
class View:
    """What is shown. sort: a field, after "-" with the largest first; number: of the page, from 1."""

    search: str
    where: str
    group: str
    sort: str
    columns: tuple[str, ...]
    number: int

    @property
    def field(self) -> str:
        """To sort by."""
        return self.sort.removeprefix("-")

    @property
    def descending(self) -> bool:
        return self.sort.startswith("-")


def label_of(field: str) -> str:
    """A field in the head of the table and in menus."""
    return _LABELS.get(field, field.replace("_", " ").capitalize())


def rows(runs: Sequence[Run]) -> list[Row]:
    """The rows of runs; those of runs that are over are read once."""
    store = queries.store()
    return run_table.rows(store, runs, queries.known_rows(store))


def view() -> View:
    """Draw the fields that say what is shown; a link may bring their first values."""
    fields = [field.name for field in run_table.fields()]
    columns = tuple(name for name in st.query_params.get("columns", "").split(",") if name in fields)
    _first("search", st.query_params.get("search", ""))
    _first("where", st.query_params.get("where", ""))
    _first("group", group if (group := st.query_params.get("group", "")) in fields else None)
    _first("columns", list(columns or COLUMNS))
    _first("sort", sort if (sort := st.query_params.get("sort", "")).removeprefix("-") in fields else _NEWEST)
    _first("page", 1)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        search = st.text_input("Search", key="runs_search", width=230, placeholder="Words", help=_SEARCH_HELP)
        where = st.text_input(
            "Filter", key="runs_where", width=330, placeholder="task=digits and drop_rate>0.3", help=_WHERE_HELP
        )
        group = st.selectbox(
            "Group by", fields, None, key="runs_group", width=190, format_func=label_of, placeholder="No groups"
        )
        with st.popover("Columns"):
            chosen = st.multiselect("Columns", fields, key="runs_columns", format_func=label_of)
    shown = (search, where, group, tuple(chosen), st.session_state["runs_sort"])
    if st.session_state.setdefault("runs_shown", shown) != shown:
        st.session_state["runs_shown"], st.session_state["runs_page"] = shown, 1
    current = View(
        search, where, group or "", st.session_state["runs_sort"], tuple(chosen) or ("name",),
        st.session_state["runs_page"],
    )  # fmt: skip
    _remember("search", search)
    _remember("where", where)
    _remember("group", current.group)
    _remember("sort", current.sort if current.sort != _NEWEST else "")
    _remember("columns", ",".join(current.columns) if current.columns != COLUMNS else "")
    return current


def _first(name: str, value: Any) -> None:
    st.session_state.setdefault(f"runs_{name}", value)


def _remember(name: str, value: str) -> None:
    """Put a value into the address, or take it out."""
    if st.query_params.get(name, "") != value:
        if value:
            st.query_params[name] = value
        else:
            del st.query_params[name]


def chosen(everything: Sequence[Row], current: View) -> list[Row]:
    """The rows that match, in order; a condition that cannot be used is named, and then filters nothing."""
    try:
        matching = run_table.matching(everything, current.where, current.search)
    except WhereError as error:
        st.warning(plain(sentence(error)))
        matching = run_table.matching(everything, "", current.search)
    return run_table.ordered(matching, current.field, current.descending, current.group)


def selected(matching: Sequence[Row]) -> list[Row]:
    """The rows that are selected; a link may name the first ones (`?select=`)."""
    first = frozenset(st.query_params.get("select", "").split(","))
    marked = marked_rows(KEY, {row.run.id for row in matching}, first)
    return [row for row in matching if row.run.id in marked]


def draw(matching: Sequence[Row], current: View) -> None:
    """Draw one page of the table with the buttons that turn it."""
    pages = max(1, -(-len(matching) // PAGE))
    number = min(current.number, pages)
    shown = matching[(number - 1) * PAGE : number * PAGE]
    groups = run_table.groups(matching, current.group) if current.group else {}
    titles = list(groups)
    images: dict[str, int] = {}
    marked = [row.run.id for row in selected(matching)]
    opened = rows_table(
        {
            "kind": "runs",
            "rows": [_row(row, current, images, titles) for row in shown],
            "columns": [[name, label_of(name), True] for name in current.columns],
            "images": list(images),
            "marked": marked,
            "all": [row.run.id for row in matching],
            "hides": False,
            "words": _WORDS,
            "sorted": [current.field, current.descending],
            "groups": [[f"{label_of(current.group)}: {group.title}", _about(group)] for group in groups.values()],
        },
        KEY,
        _sort,
    ).opened
    if pages > 1:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            if st.button("Previous", key="runs_previous", disabled=number == 1):
                _turn(number - 1)
            if st.button("Next", key="runs_next", disabled=number == pages):
                _turn(number + 1)
            first = (number - 1) * PAGE + 1
            page.note(f"{first:,} to {first + len(shown) - 1:,} of {len(matching):,}")
    badges = [vars(row.run.config.badge) for row in shown if row.values["accuracy"] is not None]
    differing = [name for name in (badges[0] if badges else ()) if len({badge[name] for badge in badges}) > 1]
    if differing:
        page.note(f"These runs differ in {', '.join(differing)}: their accuracies are not comparable.")
    if opened in {row.run.id for row in shown}:
        go("train", run=opened)


def _turn(number: int) -> None:
    st.session_state["runs_page"] = number
    st.rerun(scope="fragment")


def _sort(column: str) -> None:
    """Sort by a column; a second click reverses the order. Numbers and times begin with the largest."""
    before, kind = st.session_state["runs_sort"], run_table.field_kinds().get(column)
    if kind is None:
        return
    descending = not before.startswith("-") if before.removeprefix("-") == column else kind in ("number", "time")
    st.session_state["runs_sort"] = f"-{column}" if descending else column


def _about(group: run_table.Group) -> str:
    mean = f", mean accuracy {group.accuracy:.1f} %" if group.accuracy is not None else ""
    return f"{counted(group.runs, 'run')}{mean}"


def _row(row: Row, current: View, images: dict[str, int], titles: list[str]) -> dict[str, Any]:
    run, config = row.run, row.run.config
    mask = mask_image(config.plan) if config.has_mask else ""
    name = run.name or run.id
    small = [*([run.id] if run.name else []), config.what, f"seed {config.seed}"]
    if run.reason:
        small.append(run.reason)
    group = (
        {"group": titles.index(run_table.group_title(row.values[current.group], current.group))}
        if current.group
        else {}
    )
    numeric = {field: "number" for field in current.columns if run_table.field_kinds()[field] == "number"}
    return {
        "id": run.id,
        "cells": {field: [cell_text(row, field), None] for field in {*current.columns, "name"}},
        "small": " · ".join(small),
        "links": {"name": [{"id": run.id, "text": name, "label": f"Open run {name}"}]},
        "styles": {**numeric, "status": page.STATUS_TONE[run.status]},
        "titles": {"notes": run.notes},
        **({"image": images.setdefault(mask, len(images))} if mask else {}),
        **group,
    }


def cell_text(row: Row, field: str) -> str:
    """A field of a run as the table shows it."""
    run, value = row.run, row.values[field]
    if field == "name":
        return run.name or run.id
    if field == "owner":
        return visitor.name_of(run.owner)
    if run_table.is_missing(value):
        return "–"
    if field == "task":
        return catalog.task(value).title
    if field == "method":
        return run.config.tuning.title
    if field == "accuracy":
        return f"{value:.1f} % {run.config.protocol}"
    if field == "duration":
        return page.seconds_text(value)
    if field == "drop_rate" and run.config.learned_drop_rates != "off":
        return f"{value:g}, initial"
    if field == "backbone":
        return catalog.backbone(value).title
    if run_table.field_kinds()[field] == "time":
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else run_table.group_text(value)
