"""The comparison of two runs: their masks, their difference over seeds, and their settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from statistics import fmean

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig, differences
from mlae_lab.core.inference import saturation
from mlae_lab.core.seed_statistics import points
from mlae_lab.core.settings import setting_of
from mlae_lab.data.listing import counted
from mlae_lab.runs import outcomes, paired_curves, presets, studies, study_results
from mlae_lab.runs.comparability import beyond_the_cells, is_one_family, unpaired_runs_because
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.presets import KnownRuns
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.ui import figures, page, queries, visitor
from mlae_lab.ui.cards import Card, cards
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import sentence
from mlae_lab.ui.navigation import link
from mlae_lab.ui.pair_view import open_study, pair_panel, started_text
from mlae_lab.ui.race_view import study_of
from mlae_lab.ui.requirements import missing
from mlae_lab.ui.run_cards import card
from mlae_lab.ui.tables import large, table
from mlae_lab.ui.thumbnails import mask_image

REFRESH_SECONDS = 2.0
_SHARED_SECONDS = 1.0
MAX_CARDS = 24  # in each group

difference_figure = lru_cache(maxsize=32)(figures.difference_figure)  # made once for each state, for all viewers
two_curves_figure = lru_cache(maxsize=32)(figures.two_curves_figure)


@dataclass(frozen=True)
class Comparison:
    """The current state of two runs.

    Attributes:
        a: The reference.
        b: The other run.
        seeds: All seeds of both masks that the store has; None for runs that differ in more than mask and seed.
        reason: Why the two are not a pair, None if they are.
    """

    a: Run
    b: Run
    seeds: KnownRuns | None
    reason: str | None

    @property
    def state(self) -> tuple[tuple[str, Status], ...]:
        """What the page outside the fragment depends on."""
        runs = {run.id: run.status for run in [self.a, self.b, *(self.seeds.runs if self.seeds else ())]}
        return tuple(sorted(runs.items()))

    @property
    def is_live(self) -> bool:
        return any(not status.is_over for _, status in self.state)


def load_comparison(a: str, b: str) -> Comparison:
    """Read two runs and the others of their masks.

    Raises:
        StoreError: If a run is unknown.
    """
    return queries.shared(("comparison", a, b), lambda: _load_comparison(a, b), _SHARED_SECONDS)


def _load_comparison(a: str, b: str) -> Comparison:
    run_a, run_b, store = queries.run(a), queries.run(b), queries.store()
    seeds = presets.compared(store, run_a, run_b, queries.curve)
    return Comparison(run_a, run_b, seeds if seeds and seeds.runs else None, unpaired_runs_because(store, run_a, run_b))


# ---------------------------------------------------------------- choosing


def choose(runs: Sequence[Run], role: str, against: Run | None = None) -> None:
    """Draw cards of runs; the one clicked becomes a side of the address.

    Args:
        runs: All runs.
        role: The side to choose: "a" or "b".
        against: The run of the other side.
    """
    candidates = [run for run in runs if against is None or run.id != against.id]
    page.section(f"Choose {role.upper()}{', the run to compare with A' if role == 'b' else ', the reference'}")
    if not candidates:
        page.note("This store has no other run yet.")
        return
    groups = ["Pairs", "The same task, data, weights and protocol", "Other runs"]
    items: dict[str, list[Card]] = {name: [] for name in groups}
    for run in candidates:
        group = 2
        if against is not None and run.config.badge == against.config.badge:
            group = 0 if unpaired_runs_because(queries.store(), against, run) is None else 1
        if len(items[groups[group]]) < MAX_CARDS:
            title = "" if against is None else groups[group]
            items[groups[group]].append(card(run, title, f" · seed {run.config.seed}"))
    picked = cards([item for name in groups for item in items[name]], key=f"compare_{role}", label="Runs", size="small")
    if picked:
        st.query_params[role] = picked
        st.rerun()


def chosen_half(side: str, run: Run, runs: Sequence[Run]) -> None:
    """Draw one run, and the choice or the start of the other.

    Args:
        side: The side of the given run: "a" or "b".
        run: The given run.
        runs: All runs.
    """
    st.html(_side(side.upper(), run))
    choose(runs, "b" if side == "a" else "a", run)
    page.section("Rerun with another mask")
    pair_panel(run)


# ---------------------------------------------------------------- compared


def compared(a: str, b: str) -> None:
    """Draw the comparison.

    Raises:
        StoreError: If a run is unknown.
    """
    comparison = load_comparison(a, b)
    _draw_masks(comparison)

    @st.fragment(run_every=REFRESH_SECONDS if comparison.is_live else None)
    def panel() -> None:
        try:
            latest = load_comparison(a, b)
        except StoreError:  # deleted meanwhile
            st.rerun()
        _draw_result(latest)
        if latest.state != comparison.state:
            st.rerun()  # the button below depends on the state, and finished runs need no timer

    panel()
    _draw_study(comparison)
    _draw_differences(comparison)


def _side(name: str, run: Run) -> str:
    config = run.config
    image = f'<div><img src="{mask_image(config.plan)}" alt="mask of {name}"></div>' if config.has_mask else ""
    experts = (
        f"{counted(config.plan.experts, 'expert')} in {counted(config.plan.rows, 'layer')} · "
        if config.has_mask
        else ""
    )
    text = (
        f"<small>{name}</small><b>{config.what[:1].upper()}{config.what[1:]}</b><span>{escape(catalog.task(config.task).title)}</span>"
        f"<span>{experts}seed {config.seed}</span><span>run {run.id} {page.status_word(run.status)}</span>"
    )
    if not image:
        return f'<div class="lab-choice">{text}</div>'
    return f'<div class="lab-choice with-mask">{image}<div>{text}</div></div>'


def _draw_masks(comparison: Comparison) -> None:
    have_masks = comparison.a.config.has_mask and comparison.b.config.has_mask
    with st.container(key="pair_compare_masks"):
        sides, cells = st.columns([4, 7], gap="large")
    with sides:
        for name, run in (("A", comparison.a), ("B", comparison.b)):
            with st.container(border=True):
                st.html(_side(name, run))
                link("train", f"Live bench of {name}", run=run.id)
        link("compare", "Swap A and B", a=comparison.b.id, b=comparison.a.id)
    with cells:
        if have_masks:
            live_plot(
                figures.mask_difference_figure(comparison.a.config.plan, comparison.b.config.plan), key="compare_masks"
            )
            page.note(figures.MASK_KEY)
        else:
            page.note("Only runs with a mask have cells to compare.")


def _draw_result(comparison: Comparison) -> None:
    a, b, seeds = comparison.a, comparison.b, comparison.seeds
    epochs = max(a.config.epochs, b.config.epochs)
    if seeds is None:
        _draw_unpaired(comparison, epochs)
        return
    pairs = paired_curves.pairs_of(queries.store(), seeds.state, "A", "B", queries.curve)
    difference = paired_curves.difference(pairs)
    if comparison.reason and not difference.pairs:
        large("These two runs are not a pair.")
        page.note(f"{_sentence(comparison.reason)} Pairs with these masks will appear below.")
    else:
        results = study_results.results(queries.store(), seeds.state, queries.seconds)
        large(paired_curves.verdict(results, difference, "B"))
    if difference.seeds_needed:
        page.note(difference.seeds_needed)
    ends = [pair for pair in pairs if pair.is_complete]
    if ends:
        means = (fmean(pair.accuracy_a[-1][1] for pair in ends), fmean(pair.accuracy_b[-1][1] for pair in ends))
        if text := saturation(means):
            page.note(text)
    if comparison.reason and difference.pairs:
        page.note(f"These two runs are not a pair ({escape(comparison.reason)}); the result is of the pairs below.")
    with st.container(key="pair_compare_curves"):
        left, right = st.columns([6, 5], gap="medium")
    with left:
        if difference.pairs:
            live_plot(difference_figure(difference, epochs), key="compare_difference")
        page.note(figures.difference_caption(difference))
    with right:
        curves = _curves(a, b, pairs)
        if any(curves):
            live_plot(two_curves_figure(*curves, a.config.protocol, epochs), key="compare_curves")
            page.note(
                "A dashed, B solid"
                + ("; the bands reach from the lowest to the highest seed." if len(pairs) > 1 else ".")
                + " Only scheduled evaluations; the additional one of a stopped run is left out."
            )
    table(
        ("Seed", "A", "B", "A, last", "B, last", "B − A, points"),
        [_row(seeds, seed, pairs) for seed in seeds.state.stored.study.seeds],
    )
    for run, reason in seeds.excluded:
        page.note(f"Run {run.id}, seed {run.config.seed}, is not included: {escape(reason)}.")


def _draw_unpaired(comparison: Comparison, epochs: int) -> None:
    """Draw two runs of which no seed can be compared."""
    a, b = comparison.a, comparison.b
    if comparison.reason is None:
        large("There is no difference to show yet: neither run has an evaluation.")
        return
    large("These two runs are not a pair.")
    page.note(f"{_sentence(comparison.reason)} Their difference is therefore not that of the masks alone.")
    apart = [name for name, value in vars(a.config.badge).items() if value != vars(b.config.badge)[name]]
    if apart:
        st.warning(f"They differ in {', '.join(apart)}: their accuracies are not comparable.")
        return
    live_plot(two_curves_figure(*_curves(a, b, ()), a.config.protocol, epochs), key="compare_curves")


def _curves(
    a: Run, b: Run, pairs: Sequence[paired_curves.Pair]
) -> tuple[tuple[outcomes.Curve, ...], tuple[outcomes.Curve, ...]]:
    """The curves of both sides; of several pairs only the epochs that both runs evaluated, so that both means are
    over the same seeds."""
    if not pairs:
        of_a, of_b = (queries.curve(queries.store(), run) for run in (a, b))
        return (of_a,) if of_a else (), (of_b,) if of_b else ()
    if len(pairs) == 1:
        return (pairs[0].accuracy_a,), (pairs[0].accuracy_b,)
    shared = [{epoch for epoch, _ in pair.difference} for pair in pairs]

    def cut(curves: Sequence[outcomes.Curve]) -> tuple[outcomes.Curve, ...]:
        return tuple(
            tuple(point for point in curve if point[0] in epochs) for curve, epochs in zip(curves, shared, strict=True)
        )

    return cut([pair.accuracy_a for pair in pairs]), cut([pair.accuracy_b for pair in pairs])


def _row(seeds: KnownRuns, seed: int, pairs: Sequence[paired_curves.Pair]) -> tuple[str, ...]:
    runs = [seeds.run(arm, seed) for arm in ("A", "B")]
    pair = next((pair for pair in pairs if pair.seed == seed), None)
    cells = [str(seed)]
    cells += ["–" if run is None else f"{run.id} {page.status_word(run.status)}" for run in runs]
    if pair is None or not pair.difference:
        return (*cells, "–", "–", "–")
    epoch, value = pair.difference[-1]
    note = "" if pair.is_complete else f", epoch {epoch}"
    return (
        *cells,
        f"{dict(pair.accuracy_a)[epoch]:.1f} %{note}",
        f"{dict(pair.accuracy_b)[epoch]:.1f} %{note}",
        points(value, signed=True),
    )


def _draw_study(comparison: Comparison) -> None:
    """Draw a link to the study of the two runs, and the button that starts one of their masks with the next seed."""
    a, b = comparison.a, comparison.b
    if name := study_of([a.id, b.id]):
        link("studies", "Open the study of these runs", study=name)
    if not is_one_family(a, b):
        return
    try:
        study = presets.pair_with_seeds(queries.store(), a, b, comparison.seeds)
        lacking = missing(a.config)
        if st.button("Run this pair with another seed", key="compare_next", disabled=lacking is not None):
            open_study(study)
        page.note(lacking or f"As a study: {started_text(studies.reusable(queries.store(), study, queries.curve))}")
    except EXPECTED_ERRORS as error:
        st.info(visitor.sentence(error))


def _draw_differences(comparison: Comparison) -> None:
    page.section("Different settings")
    differing = differences(comparison.a.config, comparison.b.config)
    if not differing:
        page.note("Nothing: both runs have the same settings.")
        return
    table(
        ("Setting", "A", "B"),
        [
            (escape(setting.label), _value(setting.shown(value_a)), _value(setting.shown(value_b)))
            for setting, (value_a, value_b) in (
                (setting_of(RunConfig, name), values) for name, values in differing.items()
            )
        ],
    )
    if comparison.a.config.has_mask and comparison.b.config.has_mask:
        for text in beyond_the_cells(comparison.a.config.plan, comparison.b.config.plan):
            page.note(_sentence(text))


# ---------------------------------------------------------------- pieces


def _sentence(text: str) -> str:
    return escape(sentence(text))


def _value(text: str) -> str:
    return f'<span style="overflow-wrap:anywhere">{escape(text)}</span>'
