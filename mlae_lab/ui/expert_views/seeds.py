"""Seeds of a run: variation over seeds, alone or compared with another mask (`?other=`)."""

from __future__ import annotations

from html import escape

import streamlit as st

from mlae_lab.core.nearest_pattern import nearest
from mlae_lab.core.seed_statistics import points
from mlae_lab.core.study_presets import ENOUGH_SEEDS, MAX_REPEATS, MAX_SEEDS
from mlae_lab.data.listing import counted
from mlae_lab.runs import paired_curves, presets, studies, study_results
from mlae_lab.runs.comparability import other_masks
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.presets import KnownRuns
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.runs.studies import CellState
from mlae_lab.runs.study_results import ArmResult, Results
from mlae_lab.ui import figures, page, queries, visitor
from mlae_lab.ui.expert_views.other_run import OTHER, other_run
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.navigation import link
from mlae_lab.ui.pair_view import open_study, started_text
from mlae_lab.ui.requirements import missing
from mlae_lab.ui.tables import large, table

REFRESH_SECONDS = 2.0


def draw(run: Run) -> None:
    """Draw the seeds of a run, alone or next to those of another mask."""
    other = _other(run)
    initial = _known_runs(run, other)

    @st.fragment(run_every=REFRESH_SECONDS if any(not entry.status.is_over for entry in initial.runs) else None)
    def panel() -> None:
        try:
            seeds = _known_runs(run, other)
            results = study_results.results(queries.store(), seeds.state, queries.seconds)
            if other is None:
                _alone(run, seeds, results)
            else:
                _compare(run, other, seeds, results)
        except StoreError:  # deleted while it is shown
            st.rerun()
        if [(entry.id, entry.status) for entry in seeds.runs] != [(entry.id, entry.status) for entry in initial.runs]:
            st.rerun()  # the button below depends on the states, and finished runs need no timer

    panel()
    _start(run, other, initial)


def _known_runs(run: Run, other: Run | None) -> KnownRuns:
    """What the store has of the seeds of a run, or of both masks. Raises StoreError if a run was deleted."""
    seeds = presets.compared(queries.store(), run, other, queries.curve) if other else None
    return seeds or presets.alone(queries.store(), run, queries.curve)


def _other(run: Run) -> Run | None:
    candidates = other_masks(queries.store(), run)
    if not candidates:
        page.note(
            "No other mask has been run with these settings yet. A pair of runs, started from Compare, shows whether "
            "the mask changes the result more than the seed does."
        )
        link("compare", "Start a pair", a=run.id)
        return None
    requested = st.query_params.get(OTHER)
    plan = next((entry.config.plan for entry in queries.runs() if entry.id == requested), None)
    for entry in candidates:  # any run of a mask represents it
        if entry.config.plan == plan and requested != entry.id:
            st.query_params[OTHER] = entry.id
    return other_run(candidates, "Mask B", _label, "none, only this run")


def _label(run: Run) -> str:
    plan = run.config.plan
    close = nearest(plan)
    return f"{close.title if close.same else run.config.what} · {counted(plan.experts, 'expert')} · run {run.id}"


# ---------------------------------------------------------------- results


def _alone(run: Run, seeds: KnownRuns, results: Results) -> None:
    (arm,) = results.arms
    large(results.verdict)
    if noise := study_results.noise(arm.statistics):
        page.note(noise)
    if lane := _lane("mean" if results.done > 1 else "", arm):
        live_plot(figures.seeds_figure([lane], run.config.protocol), key="seeds_alone")
        page.computed("A dot is a run; the band shows where the mean over seeds lies.", figures.SEEDS_NOTE)
    table(("Seed", "Last epoch"), [(str(cell.seed), _cell(cell)) for cell in arm.cells if cell.run is not None])
    _draw_excluded(seeds)


def _compare(run: Run, other: Run, seeds: KnownRuns, results: Results) -> None:
    difference = paired_curves.difference(paired_curves.pairs_of(queries.store(), seeds.state, "A", "B", queries.curve))
    large(paired_curves.verdict(results, difference, "B"))
    if difference.seeds_needed:
        page.note(difference.seeds_needed)
    of_a, of_b = results.arms
    with st.container(key="pair_seeds"):
        left, right = st.columns(2, gap="large")
    last = difference.last
    with left:
        if last is not None:
            values = tuple((pair.seed, pair.difference[-1][1]) for pair in difference.pairs if pair.is_complete)
            live_plot(figures.paired_figure(figures.Lane("mean", values, last)), key="seeds_paired")
            page.computed(
                "A dot is the difference of the two masks with one seed. If the band does not hold 0, the masks "
                "differ.",
                figures.PAIRED_NOTE,
            )
        else:
            page.note("No pair has finished yet. Each finished pair will be a dot here.")
    with right:
        lanes = [lane for name, arm in (("A", of_a), ("B", of_b)) if (lane := _lane(name, arm))]
        if lanes:
            live_plot(figures.seeds_figure(lanes, run.config.protocol), key="seeds_both")
            page.computed("A dot is a run; the band shows where the mean over seeds lies.", figures.SEEDS_NOTE)
    rows = []
    for cell_a, cell_b in zip(of_a.cells, of_b.cells, strict=True):
        is_complete = cell_a.accuracy is not None and cell_b.accuracy is not None
        change = points((cell_b.accuracy or 0.0) - (cell_a.accuracy or 0.0), signed=True) if is_complete else "–"
        rows.append((str(cell_a.seed), _cell(cell_a), _cell(cell_b), change))
    table(("Seed", "A", "B", "B − A, points"), rows)
    means = ", ".join(f"{name} {study_results.mean_and_interval(arm)}" for name, arm in (("A", of_a), ("B", of_b)))
    page.note(f"A is the mask of run {run.id}, B that of run {other.id}. Means: {means}.")
    _draw_excluded(seeds)
    link("compare", "Show the difference over epochs", a=run.id, b=other.id)


def _lane(name: str, arm: ArmResult) -> figures.Lane | None:
    return figures.Lane(name, tuple(arm.values.items()), arm.statistics) if arm.statistics else None


def _cell(cell: CellState) -> str:
    if cell.run is None:
        return "–"
    number = "" if cell.accuracy is None else f"{cell.accuracy:.1f} % · "
    return f"{number}{cell.run.id} {page.status_word(cell.run.status)}"


def _draw_excluded(seeds: KnownRuns) -> None:
    for run, reason in seeds.excluded:
        page.note(f"Run {run.id}, seed {run.config.seed}, is not included: {escape(reason)}.")


# ---------------------------------------------------------------- more seeds


def _start(run: Run, other: Run | None, seeds: KnownRuns) -> None:
    """Draw a button that starts the missing seeds as a study: of this run, or of both masks."""
    page.section("More seeds")
    store, unmet = queries.store(), missing(run.config)
    limit = MAX_REPEATS if other is None else MAX_SEEDS
    left, right = st.columns([1, 3], vertical_alignment="bottom")
    finished = sum(cell.accuracy is not None for cell in seeds.state.of(seeds.state.stored.study.arms[0].name))
    wanted = int(
        left.number_input(
            "Total seeds" if other is None else "Total pairs",
            1,
            limit,
            min(limit, max(ENOUGH_SEEDS, finished)),
            key=f"seeds_wanted_{run.id}_{other.id if other else ''}",
        )
    )
    try:
        if other is None:
            study = presets.repeats(store, run, wanted)
        else:
            study = presets.pair_with_seeds(store, run, other, seeds, wanted)
        entries = studies.reusable(store, study)
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
