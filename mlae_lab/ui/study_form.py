"""The form of a new study: factors and their values, or a YAML text, and what it would start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from html import escape
from typing import Any

import streamlit as st

from mlae_lab.core import catalog, recipes
from mlae_lab.core import method as methods
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import NAMES
from mlae_lab.core.settings import ConfigError, settings_of
from mlae_lab.core.study import MAX_SEEDS, PLAN_FACTORS, Study, shown
from mlae_lab.core.study_file import as_yaml, command, described, read_study, shared_values
from mlae_lab.core.units import format_bytes
from mlae_lab.data.listing import counted
from mlae_lab.data.tasks import located
from mlae_lab.errors import LabError
from mlae_lab.runs import studies
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.studies import Plan
from mlae_lab.ui import draft, page, queries, terms, visitor
from mlae_lab.ui.estimating import estimated_arm
from mlae_lab.ui.navigation import go, link
from mlae_lab.ui.tables import table
from mlae_lab.ui.thumbnails import mask_image

MAX_FACTORS = 6
MAX_SHOWN = 40  # arms of the preview
_ROWS, _ADDED = "study_form_rows", "study_form_added"
_WAYS = {"form": "Form", "yaml": "YAML"}
_FIRST_VALUES = {"drop_rate": "0, 0.3, 0.5"}
_EXAMPLE = """title: Which drop rate?
task: digits
epochs: 8
seeds: 3
factors:
  drop_rate: [0, 0.3, 0.5]
"""
_EXAMPLES = {
    "drop_rate": "0, 0.3, 0.5", "learning_rate": "0.001, 0.005", "epochs": "8, 16", "coefficient_init": "0.5, 1",
    "expert_rank": "1, 2", "rank": "4, 8", "batch_size": "32, 64",
}  # fmt: skip
_WITHOUT = ("seed", "max_seconds", "early_stopping", "data", "weights", "method_settings", "device")


def draw_form() -> None:
    """Draw the form and below it what it would start; a link may bring task, mask and settings of all arms."""
    if trouble := draft.read_address():
        st.warning(trouble)
    way = st.segmented_control(
        "Describe the study with", list(_WAYS), format_func=lambda way: _WAYS[way], default="form", required=True,
        key="study_way",
    )  # fmt: skip
    try:
        if way == "yaml":
            _draw_yaml()
        else:
            _draw_fields()
    except EXPECTED_ERRORS as error:
        st.warning(visitor.sentence(error))


# ---------------------------------------------------------------- from the form


def _draw_fields() -> None:
    base = draft.current().to_the_end()
    draw_base(base)
    left, right = st.columns([3, 2], gap="large")
    with right:
        title = st.text_input("Title", key="study_title", placeholder="From what varies")
        question = st.text_area("Question", key="study_question", height=80, placeholder="What shall the study answer?")
        with st.container(horizontal=True, gap="small"):
            seeds = int(
                st.number_input(
                    "Seeds", 1, MAX_SEEDS, 3, key="study_form_seeds",
                    help=terms.help_text(
                        "seed",
                        "arm",
                        first="Each arm trains with each seed. One seed cannot distinguish a difference from noise.",
                    ),
                )
            )  # fmt: skip
            margin = float(
                st.number_input(
                    "Margin, points", 0.0, 100.0, 0.0, 0.5, key="study_margin", format="%g",
                    help=terms.help_text(
                        "equivalence",
                        first="Differences below it count as equivalent, and the study tests for that. 0: no such "
                        "test.",
                    ),
                )
            )  # fmt: skip
    with left:
        factors = _draw_factors()
    data: dict[str, Any] = shared_values(base, factors) | {"factors": factors, "seeds": seeds}
    data |= {"margin": margin} if margin else {}
    data |= {name: value.strip() for name, value in (("title", title), ("question", question)) if value.strip()}
    study, notes = described(data)
    with right:
        names = [arm.name for arm in study.arms]
        reference = st.selectbox(
            "Reference",
            names,
            key=f"study_reference_{hash(tuple(names))}",
            help=terms.help_text("baseline", first="What the other arms are compared with."),
        )
    if reference and reference != names[0]:
        data["reference"] = reference
        study = replace(study, reference=reference)
    _draw_preview(data, study, notes, command(data))


def draw_base(config: RunConfig) -> None:
    """The settings of the draft, which the arms share."""
    image = f'<div><img src="{mask_image(config.plan)}" alt=""></div>' if config.has_mask else ""
    text = (
        f"<small>All arms share these settings, where no factor changes them</small>"
        f"<b>{escape(catalog.task(config.task).title)}, {escape(config.what)}</b>"
        f"<span>{escape(catalog.backbone(config.backbone).title)} · {counted(config.epochs, 'epoch')} · learning rate "
        f"{config.learning_rate:g} · batch size {config.batch_size} · evaluated on {config.protocol}</span>"
    )
    st.html(f'<div class="lab-choice with-mask">{image}<div>{text}</div></div>' if image else
            f'<div class="lab-choice">{text}</div>')  # fmt: skip
    with st.container(horizontal=True, gap="small"):
        link("train", "Change settings")
        link("task", "Change the task")
        link("masks", "Change the mask")


def _draw_factors() -> dict[str, list[str]]:
    """The rows of factors; returns name to values of those that have values."""
    choices = factor_choices()
    rows: list[int] = st.session_state.setdefault(_ROWS, [0])
    factors: dict[str, list[str]] = {}
    for row in list(rows):
        with st.container(key=f"study_factor_{row}", border=True):
            which, remove = st.columns([5, 1], vertical_alignment="bottom")
            name = which.selectbox(
                "Factor", list(choices), format_func=lambda name: choices[name], key=f"study_factor_name_{row}",
                index=list(choices).index("drop_rate") if row == 0 else 0,
            )  # fmt: skip
            if len(rows) > 1 and remove.button("Remove", key=f"study_factor_remove_{row}"):
                rows.remove(row)
                st.rerun()
            values = _draw_values(row, name)
        if name in factors:
            raise ConfigError(f"the factor {choices[name]} is chosen twice: put its values into one row")
        if values:
            factors[name] = values
    if len(rows) < MAX_FACTORS and st.button("Add a factor", key="study_factor_add"):
        st.session_state[_ADDED] = st.session_state.get(_ADDED, 0) + 1
        rows.append(st.session_state[_ADDED])
        st.rerun()
    return factors


def _draw_values(row: int, name: str) -> list[str]:
    key, known = f"study_values_{row}_{name}", _known_values(name)
    if known:
        return st.multiselect(
            "Values", list(known), format_func=lambda value: known.get(value) or str(value), key=key,
            accept_new_options=name in ("mask", "backbone"), placeholder="Choose two or more",
            help="Patterns, or the code of a mask (m1_...)." if name == "mask" else None,
        )  # fmt: skip
    text = st.text_input(
        "Values, separated by commas", _FIRST_VALUES.get(name, "") if row == 0 else "", key=key,
        placeholder=_EXAMPLES.get(name, "1, 2"),
    )  # fmt: skip
    return [value.strip() for value in text.split(",") if value.strip()]


@cache
def factor_choices() -> dict[str, str]:
    """What can be a factor, by name, with labels: of the mask, of a run, of a method."""
    labels = {"drop_rate": "Drop rate p", "mask": "Mask", "coefficient_init": "Initial λ", "expert_rank": "Expert rank"}
    choices = {name: labels.get(name, text) for name, text in PLAN_FACTORS.items()}
    choices |= {"method": "Method", "recipe": "Recipe", "task": "Task"}
    for entry in settings_of(RunConfig):
        if entry.option and entry.name not in _WITHOUT:
            choices.setdefault(entry.name, entry.label)
    own: dict[str, list[str]] = {}
    for described_method in methods.available()[0].values():
        for entry in settings_of(described_method):
            if entry.name not in choices:
                own.setdefault(entry.name, []).append(described_method.title)
    for name, titles in own.items():
        of = ", ".join(titles[:3]) + (f" and {len(titles) - 3} more" if len(titles) > 3 else "")
        choices[name] = f"{name.replace('_', ' ').capitalize()} ({of})"
    return choices


def _known_values(name: str) -> dict[str, str]:
    """The values that a factor can have, with titles; none for a number."""
    if name == "method":
        return {key: described_method.title for key, described_method in methods.available()[0].items()}
    if name == "mask":
        stems = [stem for stem in NAMES if stem not in ("uniform", "dense")]
        texts = ["dense", "uniform", *stems, *(f"{stem}.mixed" for stem in stems if stem != "random")]
        return {text: shown("mask", text) for text in texts}
    if name == "task":
        return {task.name: task.title for task in catalog.TASKS}
    if name == "recipe":
        return {recipe: title for recipe, (title, _) in recipes.available(draft.current().method).items()}
    entry = next((entry for entry in settings_of(RunConfig) if entry.name == name), None)
    if entry is None:
        return {}
    if entry.kind is bool:
        return {"on": "on", "off": "off"}
    return {choice: entry.titles.get(choice, choice) for choice in entry.choices}


# ---------------------------------------------------------------- from YAML


def _draw_yaml() -> None:
    given = st.file_uploader("A description of a study", type=["yaml", "yml", "json"], key="study_yaml_file")
    text = st.text_area("YAML", _EXAMPLE, height=240, key="study_yaml", help="A file above takes its place.")
    if given is not None:
        try:
            text = given.getvalue().decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"the file {given.name[:60]} is not text ({error}): choose a YAML file") from None
    study, notes = read_study(text)
    _draw_preview(text, study, notes, "")


# ---------------------------------------------------------------- what it would start


def _draw_preview(data: Mapping[str, Any] | str, study: Study, notes: tuple[str, ...], command_text: str) -> None:
    """What a description would start, and the button that starts it.

    Args:
        data: The description: a YAML text, or plain data as of `described`.
        study: What it describes, without the images' labels.
        notes: What was left out.
        command_text: The equivalent command, "" for none.
    """
    bundled = all(catalog.task(arm.config.task).bundled for arm in study.arms)
    plan: Plan = queries.shared(
        ("study_plan", study.hash),
        lambda: studies.plan(queries.store(), study, lambda _, config: estimated_arm(config)),
        5.0,
    )
    page.section(escape(study.title))
    page.facts(
        ("Arms × seeds", f"{len(study.arms)} × {len(study.seeds)}"),
        ("To run", f"{plan.to_run} of {study.runs}" if bundled else f"at most {study.runs}"),
        ("Reused", f"{plan.reused}" if bundled else "known at the start"),
        ("Estimated time", time_text(plan)),
        ("Minimum memory", format_bytes(plan.memory)),
    )
    for note in notes:
        page.note(escape(note))
    if plan.unknown and plan.to_run:
        arms = counted(len(plan.unknown), "arm")
        page.note(f"No estimated time: for {arms}, no similar run was timed on this machine.")
    if len(study.arms) == 1:
        page.note("One arm: choose a factor with two or more values to compare.")
    if st.button("Start study", type="primary", key="study_start"):
        _start(data)
    reused = [cell.arm for cell, run in plan.entries if run is not None]
    table(
        ("Arm", "Parameters", "Reused runs"),
        [
            (
                escape(arm.name) + (" (reference)" if arm.name == study.reference else ""),
                f"{arm.config.tuning.parameters(arm.config.network):,}",
                f"{reused.count(arm.name)} of {len(study.seeds)}",
            )
            for arm in study.arms[:MAX_SHOWN]
        ],
    )
    if len(study.arms) > MAX_SHOWN:
        page.note(f"The first {MAX_SHOWN} of {len(study.arms)} arms.")
    if command_text:
        with st.expander("Equivalent command"):
            page.command(command_text)
    st.download_button("Save as YAML", as_yaml(study), "study.yaml", "application/yaml", key="study_save_yaml")


def _start(data: Mapping[str, Any] | str) -> None:
    """Start the study of a description; opens its page."""
    start_located(
        lambda complete: (read_study(data, complete) if isinstance(data, str) else described(data, complete))[0]
    )


def start_located(make: Callable[[Callable[[RunConfig], RunConfig]], Study]) -> None:
    """Locate the images and start a study; opens its page. make: takes the function that locates the images."""
    bar = st.empty()

    def show(done: int, total: int) -> None:
        bar.progress(done / total, f"Checking the images: {done:,} of {total:,}")

    try:
        stored = studies.new(queries.store(), make(lambda config: located(config, show)), visitor.current())
    except LabError as error:
        bar.empty()
        st.error(visitor.sentence(error))
        return
    queries.refresh()
    go("studies", study=stored.id)


def time_text(plan: Plan) -> str:
    """The estimated time of a plan, with its range."""
    if not plan.to_run:
        return "none"
    if plan.seconds is None or plan.low is None or plan.high is None:
        return "not known"
    low, high = page.seconds_text(plan.low), page.seconds_text(plan.high)
    return page.seconds_text(plan.seconds) + ("" if low == high else f" ({low} to {high})")
