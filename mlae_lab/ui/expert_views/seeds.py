"""Seeds of a run: how far the seed alone moves it, and whether another mask moves it farther (`?other=`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from mlae_lab.core.nearest_pattern import nearest
from mlae_lab.core.seed_statistics import SeedStatistics
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
    """Draw the repeats of a run, alone or beside those of another mask."""
    other = _other(run)
    now = _state(run, other)
    live = any(not entry.run.status.is_over for entry in now)

    @st.fragment(run_every=REFRESH_SECONDS if live else None)
    def panel() -> None:
        try:
            if other is None:
                _alone(run)
            else:
                _two(run, other)
            found = _state(run, other)
        except StoreError:  # deleted while one looks at it
            st.rerun()
        if [(e.run.id, e.run.status) for e in found] != [(e.run.id, e.run.status) for e in now]:
            st.rerun()  # the button below depends on it, and runs that are over need no timer

    panel()
    _start(run, other)


def _state(run: Run, other: Run | None) -> list[repeats.Repeat]:
    both = (run,) if other is None else (run, other)
    return [entry for one in both for entry in repeats.repeats(queries.store(), one).seeds]


def _other(run: Run) -> Run | None:
    candidates = pairs.other_masks(queries.store(), run)
    if not candidates:
        page.note(
            "No other mask has run with these settings yet: a pair, from Compare, shows whether a mask moves the "
            "result farther than the seed does."
        )
        link("compare", "Start a pair", a=run.id)
        return None
    asked = st.query_params.get(OTHER)
    plan = next((entry.config.plan for entry in queries.runs() if entry.id == asked), None)
    for entry in candidates:  # any run of a mask stands for it
        if entry.config.plan == plan and asked != entry.id:
            st.query_params[OTHER] = entry.id
    return other_run(candidates, "B, another mask", _called, "no other mask: this run alone")


def _called(run: Run) -> str:
    plan = run.config.plan
    close = nearest(plan)
    return f"{close.title if close.same else run.config.what} · {plan.experts} experts · run {run.id}"


# ---------------------------------------------------------------- what the seeds say


def _alone(run: Run) -> None:
    found = repeats.repeats(queries.store(), run)
    large(found.summary)
    if found.noise:
        page.note(found.noise)
    if found.statistics is not None:
        lane = _lane("mean" if len(found.done) > 1 else "", found, found.statistics)
        live_plot(figures.seeds_figure([lane], run.config.protocol), key="seeds_alone")
        page.note(figures.SEEDS_NOTE)
    _listed(found)


def _two(run: Run, other: Run) -> None:
    store = queries.store()
    both = [repeats.repeats(store, one) for one in (run, other)]
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
            page.note("No seed has both runs at their last epoch yet; the first that has is a dot here.")
    with right:
        lanes = [
            _lane(name, found, found.statistics)
            for name, found in zip("AB", both, strict=False)
            if found.statistics is not None
        ]
        if lanes:
            live_plot(figures.seeds_figure(lanes, run.config.protocol), key="seeds_both")
            page.note(figures.SEEDS_NOTE)
    cells = []
    of_a, of_b = ({entry.seed: entry for entry in found.seeds} for found in both)
    for seed in sorted({*of_a, *of_b}):
        one, two = of_a.get(seed), of_b.get(seed)
        apart = "–"
        if one and two and one.accuracy is not None and two.accuracy is not None:
            apart = pairs.points(two.accuracy - one.accuracy, signed=True)
        cells.append((str(seed), _cell(one), _cell(two), apart))
    table(("Seed", "A", "B", "B − A, points"), cells)
    page.note(
        f"A is the mask of run {run.id}, B that of run {other.id}. Means: A {_mean(both[0])}, B {_mean(both[1])}."
    )
    link("compare", "The difference over epochs", a=run.id, b=other.id)


def _lane(name: str, found: repeats.Repeats, statistics: SeedStatistics) -> figures.Lane:
    values = tuple((entry.seed, entry.accuracy) for entry in found.done if entry.accuracy is not None)
    return figures.Lane(name, values, statistics)


def _mean(found: repeats.Repeats) -> str:
    return repeats.mean_and_interval(found.statistics)


def _cell(entry: repeats.Repeat | None) -> str:
    if entry is None:
        return "–"
    number = "" if entry.accuracy is None else f"{entry.accuracy:.1f} % · "
    return f"{number}{entry.run.id} {page.status_word(entry.run.status)}"


def _listed(found: repeats.Repeats) -> None:
    table(("Seed", "Last epoch"), [(str(entry.seed), _cell(entry)) for entry in found.seeds])
    for other, reason in found.excluded:
        page.note(f"Run {other.id}, seed {other.config.seed}, is not counted: {reason}.")


# ---------------------------------------------------------------- starting more


def _start(run: Run, other: Run | None) -> None:
    """A button that starts the missing seeds: of this run, or of both masks."""
    page.section("More seeds")
    store, lacking = queries.store(), missing(run.config)
    most = repeats.MAX_SEEDS if other is None else pairs.MAX_SEEDS
    there = len([entry for entry in repeats.repeats(store, run).seeds if entry.accuracy is not None])
    left, right = st.columns([1, 3], vertical_alignment="bottom")
    seeds = int(
        left.number_input(
            "Seeds in all" if other is None else "Pairs in all",
            1,
            most,
            min(most, max(pairs.ENOUGH_SEEDS, there)),
            key=f"seeds_wanted_{run.id}_{other.id if other else ''}",
        )
    )
    try:
        launch: Callable[[], object]
        if other is None:
            todo = repeats.wanted(store, run.id, seeds)
            launch = partial(repeats.launch_repeats, store, run.id, seeds, visitor.current())
        else:
            sides = pairs.sides(store, run, other)
            first = sides[min(sides)] if sides else (run, None)  # none of them has measured an epoch
            base = first[0] or first[1] or run
            plan = other.config.plan if base.config.plan == run.config.plan else run.config.plan
            todo = pairs.wanted(store, base.id, plan, seeds)
            launch = partial(pairs.launch_pair, store, base.id, plan, seeds, visitor.current())
        new = repeats.starting(todo)
        if right.button(
            f"Start {len(new)} run{'s' if len(new) != 1 else ''}",
            key="seeds_start",
            type="primary" if new else "secondary",
            disabled=bool(lacking) or not new,
        ):
            launch()
            queries.refresh()
            st.rerun()
        page.note(lacking or started_text(todo))
    except EXPECTED_ERRORS as error:
        st.info(visitor.sentence(error))
