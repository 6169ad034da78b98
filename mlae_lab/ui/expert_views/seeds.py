"""Seeds of a run: variation over seeds, alone or compared with another mask (`?other=`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from mlae_lab.core.nearest_pattern import nearest
from mlae_lab.core.seed_statistics import SeedStatistics
from mlae_lab.data.listing import counted
from mlae_lab.runs import pairs, repeats
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.ui import figures, page, queries, visitor
from mlae_lab.ui.expert_views.other_run import OTHER, other_run
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.navigation import link
from mlae_lab.ui.pair_view import started_text
from mlae_lab.ui.requirements import missing
from mlae_lab.ui.tables import large, table

REFRESH_SECONDS = 2.0


def draw(run: Run) -> None:
    """Draw the repeats of a run, alone or next to those of another mask."""
    other = _other(run)
    initial = _state(run, other)
    live = any(not entry.run.status.is_over for entry in initial)

    @st.fragment(run_every=REFRESH_SECONDS if live else None)
    def panel() -> None:
        try:
            if other is None:
                _alone(run)
            else:
                _compare(run, other)
            entries = _state(run, other)
        except StoreError:  # deleted while it is shown
            st.rerun()
        if [(e.run.id, e.run.status) for e in entries] != [(e.run.id, e.run.status) for e in initial]:
            st.rerun()  # the button below depends on the states, and finished runs need no timer

    panel()
    _start(run, other)


def _state(run: Run, other: Run | None) -> list[repeats.Repeat]:
    pair = (run,) if other is None else (run, other)
    return [entry for member in pair for entry in repeats.repeats(queries.store(), member).seeds]


def _other(run: Run) -> Run | None:
    candidates = pairs.other_masks(queries.store(), run)
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


def _alone(run: Run) -> None:
    repeated = repeats.repeats(queries.store(), run)
    large(repeated.summary)
    if repeated.noise:
        page.note(repeated.noise)
    if repeated.statistics is not None:
        lane = _lane("mean" if len(repeated.done) > 1 else "", repeated, repeated.statistics)
        live_plot(figures.seeds_figure([lane], run.config.protocol), key="seeds_alone")
        page.note(figures.SEEDS_NOTE)
    _table_of_seeds(repeated)


def _compare(run: Run, other: Run) -> None:
    store = queries.store()
    pair = [repeats.repeats(store, member) for member in (run, other)]
    difference = pairs.difference(pairs.family(store, run, other))
    large(difference.verdict)
    if difference.seeds_needed:
        page.note(difference.seeds_needed)
    with st.container(key="pair_seeds"):
        left, right = st.columns(2, gap="large")
    last = difference.last
    with left:
        if last is not None:
            values = tuple((pair.seed, pair.difference[-1][1]) for pair in difference.pairs if pair.is_complete)
            lane = figures.Lane("mean", values, last)
            live_plot(figures.paired_figure(lane), key="seeds_paired")
            page.note(figures.PAIRED_NOTE)
        else:
            page.note("No pair has finished yet. Each finished pair will be a dot here.")
    with right:
        lanes = [
            _lane(name, repeated, repeated.statistics)
            for name, repeated in zip("AB", pair, strict=False)
            if repeated.statistics is not None
        ]
        if lanes:
            live_plot(figures.seeds_figure(lanes, run.config.protocol), key="seeds_both")
            page.note(figures.SEEDS_NOTE)
    cells = []
    of_a, of_b = ({entry.seed: entry for entry in repeated.seeds} for repeated in pair)
    for seed in sorted({*of_a, *of_b}):
        entry_a, entry_b = of_a.get(seed), of_b.get(seed)
        difference_text = "–"
        if entry_a and entry_b and entry_a.accuracy is not None and entry_b.accuracy is not None:
            difference_text = pairs.points(entry_b.accuracy - entry_a.accuracy, signed=True)
        cells.append((str(seed), _cell(entry_a), _cell(entry_b), difference_text))
    table(("Seed", "A", "B", "B − A, points"), cells)
    page.note(
        f"A is the mask of run {run.id}, B that of run {other.id}. Means: A {_mean(pair[0])}, B {_mean(pair[1])}."
    )
    link("compare", "Show the difference over epochs", a=run.id, b=other.id)


def _lane(name: str, repeated: repeats.Repeats, statistics: SeedStatistics) -> figures.Lane:
    values = tuple((entry.seed, entry.accuracy) for entry in repeated.done if entry.accuracy is not None)
    return figures.Lane(name, values, statistics)


def _mean(repeated: repeats.Repeats) -> str:
    return repeats.mean_and_interval(repeated.statistics)


def _cell(entry: repeats.Repeat | None) -> str:
    if entry is None:
        return "–"
    number = "" if entry.accuracy is None else f"{entry.accuracy:.1f} % · "
    return f"{number}{entry.run.id} {page.status_word(entry.run.status)}"


def _table_of_seeds(repeated: repeats.Repeats) -> None:
    table(("Seed", "Last epoch"), [(str(entry.seed), _cell(entry)) for entry in repeated.seeds])
    for other, reason in repeated.excluded:
        page.note(f"Run {other.id}, seed {other.config.seed}, is not included: {reason}.")


# ---------------------------------------------------------------- more seeds


def _start(run: Run, other: Run | None) -> None:
    """Draw a button that starts the missing seeds: of this run, or of both masks."""
    page.section("More seeds")
    store, unmet = queries.store(), missing(run.config)
    limit = repeats.MAX_SEEDS if other is None else pairs.MAX_SEEDS
    finished = len([entry for entry in repeats.repeats(store, run).seeds if entry.accuracy is not None])
    left, right = st.columns([1, 3], vertical_alignment="bottom")
    seeds = int(
        left.number_input(
            "Total seeds" if other is None else "Total pairs",
            1,
            limit,
            min(limit, max(pairs.ENOUGH_SEEDS, finished)),
            key=f"seeds_wanted_{run.id}_{other.id if other else ''}",
        )
    )
    try:
        launch: Callable[[], object]
        if other is None:
            planned = repeats.wanted(store, run.id, seeds)
            launch = partial(repeats.launch_repeats, store, run.id, seeds, visitor.current())
        else:
            sides = pairs.sides(store, run, other)
            first = sides[min(sides)] if sides else (run, None)  # no evaluation yet
            base = first[0] or first[1] or run
            plan = other.config.plan if base.config.plan == run.config.plan else run.config.plan
            planned = pairs.wanted(store, base.id, plan, seeds)
            launch = partial(pairs.launch_pair, store, base.id, plan, seeds, visitor.current())
        new = repeats.starting(planned)
        if right.button(
            f"Start {counted(len(new), 'run')}",
            key="seeds_start",
            type="primary" if new else "secondary",
            disabled=bool(unmet) or not new,
        ):
            launch()
            queries.refresh()
            st.rerun()
        page.note(unmet or started_text(planned))
    except EXPECTED_ERRORS as error:
        st.info(visitor.sentence(error))
