"""Choosing p, initial λ and learning rate: the form of a new choice, and what a study has chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.choice_study import (
    FACTORS,
    FINAL_SEEDS,
    LEAST_SAMPLED,
    SEEDS,
    Design,
    choice_study,
    command,
    finalists,
    proposed,
    repetitions,
    seeds_of,
    stages,
)
from mlae_lab.core.config import RunConfig
from mlae_lab.core.seed_statistics import points
from mlae_lab.core.settings import ConfigError
from mlae_lab.core.study import Study
from mlae_lab.core.units import format_bytes
from mlae_lab.data.listing import counted
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import choosing, sampling, studies
from mlae_lab.runs.choosing import Report
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.studies import Plan
from mlae_lab.ui import draft, page, queries, terms, visitor
from mlae_lab.ui.estimating import estimated_arm
from mlae_lab.ui.navigation import link
from mlae_lab.ui.study_form import draw_base, start_located, time_text
from mlae_lab.ui.study_queries import LoadedStudy
from mlae_lab.ui.tables import large, table

MAX_SEEDS = 20
_LABELS = {
    "drop_rate": "Drop rates p", "coefficient_init": "Initial λ", "learning_rate": "Learning rates",
}  # fmt: skip
_UNITS = {"runs": "Runs", "minutes": "Minutes"}
_FOLDS = (0, 2, 3, 5, 10)
_SAMPLERS = {"grid": "Grid", "optuna": "Sampler"}


def draw_choice_form() -> None:
    """Draw the form of a new choice and below it what it would start."""
    if trouble := draft.read_address():
        st.warning(trouble)
    try:
        _draw_form(replace(draft.current().to_the_end(), protocol="val", keep_best=False))
    except EXPECTED_ERRORS as error:
        st.warning(visitor.sentence(error))


def _draw_form(base: RunConfig) -> None:
    draw_base(base)
    left, right = st.columns([3, 2], gap="large")
    with right, st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        budget = float(
            st.number_input(
                "Budget", 1.0, 10_000.0, 12.0, 1.0, key="choice_budget", format="%g",
                help="Runs of the full length, of which shorter ones are fractions, or estimated minutes.",
            )
        )  # fmt: skip
        unit = st.segmented_control(
            "Unit", list(_UNITS), format_func=lambda unit: _UNITS[unit], default="runs", required=True,
            key="choice_unit", label_visibility="collapsed",
        )  # fmt: skip
        seeds = int(
            st.number_input(
                "Seeds",
                1,
                MAX_SEEDS,
                SEEDS,
                key="choice_seeds",
                help=terms.help_text("seed", first="Every setting trains with each."),
            )
        )
    with right, st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        folds = st.selectbox(
            "Folds", _FOLDS, format_func=lambda folds: f"{folds}" if folds else "None", key="choice_folds",
            help="Cross-validation: train and val together are divided into so many parts, and each setting trains "
            "once without each part, with every seed. None: trained on train, evaluated on val.",
        )  # fmt: skip
        sampler = st.segmented_control(
            "Settings", list(_SAMPLERS), format_func=lambda name: _SAMPLERS[name], default="grid", required=True,
            key="choice_sampler",
            help=f"A grid of few values, or values between the lowest and the highest, proposed one after the other by "
            f"Optuna from the results so far; this needs a budget of at least {LEAST_SAMPLED} settings.",
        )  # fmt: skip
        is_sampled = sampler == "optuna"
        if is_sampled and (problem := sampling.missing()):
            raise ConfigError(problem)
    base = replace(base, folds=folds)
    with left:
        known = proposed(base, is_sampled)
        values = {}
        for name in FACTORS:
            text = st.text_input(
                _LABELS[name], ", ".join(known[name]), key=f"choice_{name}_{base.learning_rate:g}_{is_sampled}",
                help="The first is the default, kept unless another is better by a standard error. "
                + ("The others are the ends of the range." if is_sampled else "A small budget tries the first only."),
            )  # fmt: skip
            values[name] = tuple(word.strip() for word in text.split(",") if word.strip())
    amount, stated = (budget, f"{budget:g}") if unit == "runs" else (60 * budget, f"{budget:g}min")
    study, design = choice_study(
        base, amount, "runs" if unit == "runs" else "seconds", _seconds, values, seeds_of(base, seeds),
        is_sampled=is_sampled,
    )  # fmt: skip
    _draw_preview(base, study, design, command(base, stated, values, seeds, is_sampled))


def _seconds(config: RunConfig) -> float:
    seconds = estimated_arm(config).seconds
    if seconds is None:
        raise ConfigError(
            "a budget in minutes needs the time of a run, and no similar run was timed on this machine: give the "
            "budget in runs"
        )
    return seconds


def _draw_preview(base: RunConfig, study: Study, design: Design, command_text: str) -> None:
    plan: Plan = queries.shared(
        ("study_plan", study.hash),
        lambda: studies.plan(queries.store(), study, lambda _, config: estimated_arm(config)),
        5.0,
    )
    page.section(escape(study.title))
    assert study.choice is not None
    seeds, in_runs, is_sampled = len(study.seeds), study.choice.unit == "runs", bool(study.choice.space)
    first = "first setting" if is_sampled else "stage 1" if len(design.rungs) > 1 else ""
    page.facts(
        ("Settings tried", f"{design.arms}"),
        ("Runs", f"{seeds * sum(arms for _, arms in design.rungs)}"),
        ("Cost", f"{design.cost:g} full runs" if in_runs else page.seconds_text(design.cost)),
        (f"Estimated time, {first}" if first else "Estimated time", time_text(plan)),
        ("Minimum memory", format_bytes(plan.memory)),
    )
    images = "parts of train and val together" if base.folds else "train → val"
    page.note(
        f"{escape('; then '.join(stages(study)).capitalize())}; {repetitions(study)} of each, on {images}. The test "
        "images are not used. The default is kept unless another setting is better by more than one standard error."
    )
    if st.button("Start choosing", type="primary", key="choice_start"):
        start_located(lambda complete: _described(base, study, complete))
    table(
        ("Setting", "Values that are tried"),
        [(escape(_LABELS[name]), escape(_tried_text(texts, is_sampled))) for name, texts in design.values.items()],
    )
    with st.expander("Equivalent command"):
        page.command(command_text)


def _tried_text(texts: Sequence[str], is_sampled: bool) -> str:
    if not is_sampled or len(texts) == 1:
        return ", ".join(texts)
    return f"{texts[0]}, then from {min(texts, key=float)} to {max(texts, key=float)}"


def _described(base: RunConfig, study: Study, complete: Callable[[RunConfig], RunConfig]) -> Study:
    """The study with the images of its arms."""
    known = complete(base)
    images = {
        name: getattr(known, name) for name in ("data", "data_label", "data_notes", "data_fingerprint")
    }  # the same for every arm
    return replace(study, arms=tuple(replace(arm, config=replace(arm.config, **images)) for arm in study.arms))


# ---------------------------------------------------------------- what was chosen


def draw_choice(loaded: LoadedStudy, report: Report) -> None:
    """Draw what a study has chosen: the sentences, its candidates, and the button of the final runs."""
    large(report.sentences[0])
    if report.sentences[1:]:
        page.note(escape(" ".join(report.sentences[1:])))
    if report.choice is None:
        return
    choice = report.choice
    with st.popover("Final runs", type="secondary" if any(report.tests.values()) else "primary"):
        _draw_final(loaded, report)
    rows = []
    for entry in choice.candidates:
        tests = report.tests.get(entry.arm, {})
        test = f"{sum(tests.values()) / len(tests):.1f} % ({counted(len(tests), 'seed')})" if tests else "–"
        name = escape(choosing.values_text(report.study, entry.arm)) + (
            " (default)" if entry.arm == choice.default else ""
        )
        behind = "the best" if entry.arm == choice.best else f"{points(entry.behind)} ± {points(entry.error)}"
        rows.append(
            (
                f"<b>{name}, chosen</b>" if entry.arm == choice.chosen else name,
                f"{entry.mean:.1f} %", behind, "–" if entry.share is None else f"{100 * entry.share:.0f} %", test,
            )
        )  # fmt: skip
    on = "in cross-validation" if report.study.arm(choice.chosen).config.folds else "on val"
    table(("Setting", f"Accuracy {on}", "Points behind the best", "Chosen in resamples", "Accuracy on test"), rows)
    page.note(
        "± one standard error of the paired difference, over seeds and images. A setting within it counts as equally "
        "good, and of these the nearest to the default is chosen. The figures and the table of arms below compare by "
        "seeds alone."
    )


def _draw_final(loaded: LoadedStudy, report: Report) -> None:
    assert report.choice is not None
    seeds = int(st.number_input("Seeds", 1, 100, FINAL_SEEDS, key="choice_final_seeds"))
    every = st.checkbox(
        "Also the other settings of the last stage", key="choice_final_all",
        help="Then the regret is known: how far the chosen setting is behind the best in hindsight.",
    )  # fmt: skip
    count = len(finalists(report.study)) if every else len({report.choice.chosen, report.choice.default})
    page.note(
        f"{counted(count, 'setting')} × {counted(seeds, 'seed')}: at most {counted(count * seeds, 'run')}, trained on "
        "train and val and evaluated on test."
    )
    if st.button("Start the final runs", type="primary", key="choice_final"):
        start_located(lambda complete: choosing.final(loaded.stored, report, seeds, every, complete))
    page.command(f"{PROGRAM} choose {loaded.stored.id} --final --seeds {seeds}{' --all' * every}")


def draw_choose_link(config: RunConfig) -> None:
    """A link to the form, for a page that starts runs."""
    if config.has_mask:
        link("studies", f"Choose p and λ for {catalog.task(config.task).title}", choose="1")
