"""Seeds of a run: variation over its seeds, and links to what compares it with other masks."""

from __future__ import annotations

from html import escape

import streamlit as st

from mlae_lab.core.study_presets import ENOUGH_SEEDS, MAX_REPEATS
from mlae_lab.data.listing import counted
from mlae_lab.runs import presets, studies, study_results
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.presets import KnownRuns
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.runs.studies import CellState
from mlae_lab.runs.study_results import Results
from mlae_lab.ui import figures, page, queries, visitor
from mlae_lab.ui.expert_views.other_run import OTHER
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.navigation import link
from mlae_lab.ui.pair_view import open_study, started_text
from mlae_lab.ui.requirements import missing
from mlae_lab.ui.study_queries import stored_studies
from mlae_lab.ui.tables import large, table

REFRESH_SECONDS = 2.0
_SHARED_SECONDS = 1.0
_MOST_STUDIES = 5


def draw(run: Run) -> None:
    """Draw the seeds of a run."""
    initial = _known_runs(run)

    @st.fragment(run_every=REFRESH_SECONDS if any(not entry.status.is_over for entry in initial.runs) else None)
    def panel() -> None:
        try:
            seeds = _known_runs(run)
            _draw_results(run, seeds, study_results.results(queries.store(), seeds.state, queries.seconds))
        except StoreError:  # deleted while it is shown
            st.rerun()
        if [(entry.id, entry.status) for entry in seeds.runs] != [(entry.id, entry.status) for entry in initial.runs]:
            st.rerun()  # the button below depends on the states, and finished runs need no timer

    panel()
    _start(run, initial)
    _draw_comparisons(run)


def _known_runs(run: Run) -> KnownRuns:
    """What the store has of the seeds of a run. Raises StoreError if a run was deleted."""
    return queries.shared(
        ("seeds", run.id), lambda: presets.alone(queries.store(), run, queries.curve), _SHARED_SECONDS
    )


def _draw_results(run: Run, seeds: KnownRuns, results: Results) -> None:
    (arm,) = results.arms
    large(results.verdict)
    if noise := study_results.noise(arm.statistics):
        page.note(noise)
    if arm.statistics is not None:
        live_plot(figures.seeds_figure(arm.values, arm.statistics, run.config.protocol), key="seeds_alone")
        page.computed("A dot is a run; the band shows where the mean over seeds lies.", figures.SEEDS_NOTE)
    table(("Seed", "Last epoch"), [(str(cell.seed), _cell(cell)) for cell in arm.cells if cell.run is not None])
    for other, reason in seeds.excluded:
        page.note(f"Run {other.id}, seed {other.config.seed}, is not included: {escape(reason)}.")


def _cell(cell: CellState) -> str:
    if cell.run is None:
        return "–"
    number = "" if cell.accuracy is None else f"{cell.accuracy:.1f} % · "
    return f"{number}{cell.run.id} {page.status_word(cell.run.status)}"


def _start(run: Run, seeds: KnownRuns) -> None:
    """Draw a button that starts the missing seeds as a study."""
    page.section("More seeds")
    store, unmet = queries.store(), missing(run.config)
    left, right = st.columns([1, 3], vertical_alignment="bottom")
    proposed = min(MAX_REPEATS, max(ENOUGH_SEEDS, seeds.state.done))
    wanted = int(left.number_input("Total seeds", 1, MAX_REPEATS, proposed, key=f"seeds_wanted_{run.id}"))
    try:
        study = presets.repeats(store, run, wanted)
        entries = studies.reusable(store, study, queries.curve)
        new = sum(known is None for _, known in entries)
        if right.button(
            f"Start {counted(new, 'run')}",
            key="seeds_start",
            type="primary" if new else "secondary",
            disabled=bool(unmet) or not new,
        ):
            open_study(study)
        page.note(unmet or f"As a study: {started_text(entries)}")
    except EXPECTED_ERRORS as error:
        st.info(visitor.sentence(error))


def _draw_comparisons(run: Run) -> None:
    """Draw links to the studies of the run, and to its comparison with another mask."""
    page.section("Compared with other settings")
    own = set(queries.store().studies_of(run.id))
    listed = [stored for stored in stored_studies() if stored.id in own and len(stored.study.arms) > 1]
    for stored in listed[:_MOST_STUDIES]:
        link("studies", stored.study.title, study=stored.id)
    if not listed:
        page.note("A study shows whether another mask or setting changes the result more than the seed does.")
    other = st.query_params.get(OTHER, "")  # chosen in another view, or by a link of version 0.11
    if other in {entry.id for entry in queries.runs()} - {run.id}:
        link("compare", f"Compare with run {other}", a=run.id, b=other)
    elif run.config.has_mask:
        link("compare", "Compare with another mask", a=run.id)
