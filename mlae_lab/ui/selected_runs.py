"""What can be done with the selected runs: one is edited and acted on; several are compared, tagged, archived, ..."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.study_of_runs import study_of
from mlae_lab.core.units import format_bytes
from mlae_lab.data.listing import counted
from mlae_lab.runs import archive_file, commands, run_table, studies
from mlae_lab.runs.annotations import MAX_NAME, MAX_NOTES, MAX_TAGS
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.run_table import Row
from mlae_lab.runs.store import Run
from mlae_lab.ui import page, queries, run_actions, visitor
from mlae_lab.ui.markdown import plain
from mlae_lab.ui.navigation import go, link
from mlae_lab.ui.run_texts import accuracy_text, stalled_text
from mlae_lab.ui.thumbnails import mask_image

_RESULT, _STUDY = "selected_runs_result", "selected_runs_study"


def draw(rows: Sequence[Row]) -> None:
    """Draw what can be done with the selected runs, or that runs can be selected."""
    if result := st.session_state.pop(_RESULT, ""):
        st.info(result)
    if not rows:
        page.note("Select one run to rename, tag, stop, export or delete it, or several to act on all of them.")
        return
    with st.container(key="runs_selected", border=True):
        if len(rows) == 1:
            _draw_one(rows[0].run)
        else:
            _draw_many(rows)


# ---------------------------------------------------------------- one run


def description(run: Run) -> str:
    """What a run is, as HTML: task, settings, badge, owner, origin, reason."""
    config = run.config
    origin = f" · {run.relation} from {run.parent}" if run.parent else f" · {run.relation}" if run.relation else ""
    reason = stalled_text(run) or run.reason
    backbone = escape(catalog.backbone(config.backbone).title).replace(" ", "&nbsp;")
    mask = f" · mask “{escape(run.mask_name)}”" if run.mask_name else ""
    name = f"{escape(run.name)}, " if run.name else ""
    return (
        f'<div class="lab-choice"><b>{name}{escape(catalog.task(config.task).title)}</b>'
        f"<span>{escape(config.what)}{mask} · {counted(config.epochs, 'epoch')} · lr {config.learning_rate:g} · "
        f"seed {config.seed} · {backbone}</span>"
        f"<small>{escape(' · '.join((config.badge.data, config.badge.protocol, config.badge.preprocessing)))}</small>"
        f"<small>{run.id} · {escape(visitor.name_of(run.owner))}{escape(origin)}</small>"
        + (f"<small>{escape(reason)}</small>" if reason else "")
        + "</div>"
    )


def _draw_one(run: Run) -> None:
    image, what, number, status, buttons = st.columns([0.8, 4.2, 1.5, 1.7, 3.0], vertical_alignment="center")
    if run.config.has_mask:
        image.html(f'<img class="lab-thumb" src="{mask_image(run.config.plan)}" alt="">')
    what.html(description(run))
    number.html(f'<div class="lab-choice"><b>{accuracy_text(run)}</b><span>last epoch</span></div>')
    size = commands.disk_use(queries.store(), [run])[run.id].total
    status.html(f"{page.status_word(run.status)}<br><small>{format_bytes(size)} on the disk</small>")
    with buttons.container(horizontal=True, vertical_alignment="center", gap="small"):
        if st.button("Open", key=f"selected_open_{run.id}"):
            go("train", run=run.id)
        run_actions.controls(run, "runs" if run.status.is_over else "selected")
        if run.status.is_over:
            run_actions.more(run, "runs")
    run_actions.show_error(run.id)
    _draw_fields(run)


def _draw_fields(run: Run) -> None:
    """The fields for name, tags and notes. A new key for each stored value, so that others' changes are seen."""
    key = f"{run.id}_{abs(hash((run.name, run.tags, run.notes)))}"
    known = [tag for tag in queries.shared(("known_tags",), queries.store().known_tags, 5.0) if tag not in run.tags]
    left, right = st.columns(2, gap="medium")
    name = left.text_input("Name", run.name, max_chars=MAX_NAME, key=f"run_name_{key}", placeholder=run.id)
    tags = left.multiselect(
        "Tags", [*run.tags, *known], run.tags, key=f"run_tags_{key}", accept_new_options=True,
        max_selections=MAX_TAGS, placeholder="Choose or add tags",
    )  # fmt: skip
    notes = right.text_area("Notes", run.notes, max_chars=MAX_NOTES, key=f"run_notes_{key}", height=122)
    if (name, tuple(tags), notes) == (run.name, run.tags, run.notes):
        return

    def save() -> None:
        gone = [tag for tag in run.tags if tag not in tags]
        queries.store().annotate(run.id, name, notes, add=tags, remove=gone)

    question = (
        "" if run_actions.needs_no_confirmation(run) else f"This run belongs to {plain(visitor.name_of(run.owner))}."
    )
    if run_actions.confirmed_button("Save changes", f"run_save_{run.id}", question):
        _act([run], lambda _: save(), "Saved")


# ---------------------------------------------------------------- several runs


def _draw_many(rows: Sequence[Row]) -> None:
    runs = [row.run for row in rows]
    others = sum(not run_actions.needs_no_confirmation(run) for run in runs)
    belong = f"{others} of them {'belongs' if others == 1 else 'belong'} to other people." if others else ""
    store, number = queries.store(), counted(len(runs), "run")
    ended = [run for run in runs if run.status.is_over]
    # a question about other runs than these is void
    runs_mark = hashlib.sha256(",".join(sorted(run.id for run in (*ended, *runs))).encode()).hexdigest()[:8]
    page.section(f"{number} selected")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if len(runs) == 2:
            link("compare", "Compare", a=runs[0].id, b=runs[1].id)
        wants_study = st.button("Make a study", key="selected_study_open")
        _draw_tags(runs, belong)
        st.download_button(
            "Export CSV", lambda: run_table.as_csv(rows), "runs.csv", "text/csv", key="selected_csv",
            on_click="ignore", help="One line for each run with all its fields.",
        )  # fmt: skip
        if len(ended) < len(runs) and run_actions.confirmed_button("Stop", f"selected_stop_{runs_mark}", belong):
            _act([run for run in runs if not run.status.is_over], lambda run: commands.stop(store, run.id), "Stopped")
        if ended and run_actions.confirmed_button(
            "Archive",
            f"selected_archive_{runs_mark}",
            belong,
            "Moves each run out of the list into one file; it can be restored.",
        ):
            _act(ended, lambda run: archive_file.archive(store, run.id), "Archived")
        if ended and run_actions.confirmed_button(
            "Delete",
            f"selected_delete_{runs_mark}",
            f"Delete {counted(len(ended), 'run')} with their files? This cannot be undone. {belong}".rstrip(),
        ):
            _act(ended, lambda run: commands.delete(store, run.id), "Deleted")
    if 0 < len(ended) < len(runs):
        verb = "is" if len(runs) - len(ended) == 1 else "are"
        page.note(f"{len(runs) - len(ended)} of them {verb} not over: Archive and Delete leave those out.")
    names = tuple(run.id for run in runs)
    if wants_study:
        st.session_state[_STUDY] = names if st.session_state.get(_STUDY) != names else ()
    if st.session_state.get(_STUDY) == names:
        _draw_study(runs)


def _draw_tags(runs: Sequence[Run], belong: str) -> None:
    with st.popover("Tag"):
        tags = st.multiselect(
            "Tags", queries.shared(("known_tags",), queries.store().known_tags, 5.0), key="selected_tags",
            accept_new_options=True, placeholder="Choose or add tags",
        )  # fmt: skip
        names = [run.id for run in runs]
        store = queries.store()
        for label, change in (("Add to all", {"add": tags}), ("Remove from all", {"remove": tags})):
            key = f"selected_tags_{label.split()[0].lower()}"
            if run_actions.confirmed_button(label, key, belong) and tags:
                _act([runs[0]], lambda _, change=change: store.change_tags(names, **change), "Changed", len(runs))


def _draw_study(runs: Sequence[Run]) -> None:
    """Draw the study that the runs would be part of, and the button that creates it."""
    configs = [run.config for run in runs]
    try:
        proposed = queries.shared(("study_of_runs", *(run.id for run in runs)), lambda: study_of(configs), 60.0)
        names = [arm.name for arm in proposed.arms]
        left, right = st.columns(2, gap="medium")
        title = left.text_input("Title", proposed.title, max_chars=120, key=f"selected_study_title_{proposed.hash}")
        reference = right.selectbox("Reference", names, key=f"selected_study_reference_{proposed.hash}")
        study = replace(proposed, title=title, reference=reference)
        entries = queries.shared(
            ("reusable", study.hash), lambda: studies.reusable(queries.store(), study, queries.curve), 5.0
        )
        reused = sum(run is not None for _, run in entries)
        page.note(
            f"{counted(len(study.arms), 'arm')} × {counted(len(study.seeds), 'seed')}: {reused:,} of {study.runs:,} "
            f"runs are there, {study.runs - reused:,} would be trained."
        )
        if st.button("Create the study", type="primary", key="selected_study"):
            stored = studies.new(queries.store(), study, visitor.current())
            queries.refresh()
            go("studies", study=stored.id)
    except EXPECTED_ERRORS as error:
        st.warning(visitor.sentence(error))


def _act(runs: Sequence[Run], do: Callable[[Run], object], done: str, count: int = 0) -> None:
    """Act on each run, keep what came of it for the next drawing, and draw again.

    Args:
        runs: The runs.
        do: The action.
        done: What happened to a run, as a word.
        count: How many runs one action changes, 0 for one each.
    """
    errors = []
    for run in runs:
        try:
            do(run)
        except EXPECTED_ERRORS as error:
            errors.append(f"{run.id}: {visitor.sentence(error)}")
    changed = (count or len(runs)) if not errors else len(runs) - len(errors)
    shown = "; ".join(errors[:5]) + (f"; and {len(errors) - 5} more" if len(errors) > 5 else "")
    st.session_state[_RESULT] = f"{done}: {counted(changed, 'run')}. {shown}".strip()
    queries.refresh()
    st.rerun()
