"""The comparison of two runs: their masks, their difference over seeds, and their settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig, differences
from mlae_lab.core.settings import setting_of
from mlae_lab.data.listing import counted
from mlae_lab.runs import outcomes, pairs
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.ui import figures, page, queries, visitor
from mlae_lab.ui.cards import Card, cards
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import sentence
from mlae_lab.ui.navigation import link
from mlae_lab.ui.pair_view import pair_panel, started_text
from mlae_lab.ui.requirements import missing
from mlae_lab.ui.run_cards import card
from mlae_lab.ui.tables import large, table
from mlae_lab.ui.thumbnails import mask_image

REFRESH_SECONDS = 2.0
MAX_CARDS = 24  # in each group

difference_figure = lru_cache(maxsize=32)(figures.difference_figure)  # made once for each state, for all viewers
two_curves_figure = lru_cache(maxsize=32)(figures.two_curves_figure)


@dataclass(frozen=True)
class Comparison:
    """The current state of two runs.

    Attributes:
        sides: The runs of both sides, by seed.
        reason: Why the two are not a pair, None if they are.
    """

    a: Run
    b: Run
    sides: dict[int, tuple[Run | None, Run | None]]
    reason: str | None

    @property
    def runs(self) -> list[Run]:
        """The two runs and the others of their sides."""
        family = {run.id: run for pair in self.sides.values() for run in pair if run is not None}
        return list({self.a.id: self.a, self.b.id: self.b, **family}.values())

    @property
    def is_live(self) -> bool:
        return any(not run.status.is_over for run in self.runs)

    @property
    def state(self) -> tuple:
        """What the page outside the fragment depends on."""
        return tuple(sorted((run.id, run.status.value) for run in self.runs))


def load_comparison(a: str, b: str) -> Comparison:
    """Read two runs and the others of their sides.

    Raises:
        StoreError: If a run is unknown.
    """
    run_a, run_b = queries.run(a), queries.run(b)
    store = queries.store()
    return Comparison(run_a, run_b, pairs.sides(store, run_a, run_b), pairs.unpaired_runs_because(store, run_a, run_b))


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
            group = 0 if pairs.unpaired_runs_because(queries.store(), against, run) is None else 1
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
    _draw_next_seed(comparison)
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
    a, b, store = comparison.a, comparison.b, queries.store()
    pairs_of_runs = pairs.family(store, a, b) if comparison.sides else []
    epochs = max(a.config.epochs, b.config.epochs)
    if not comparison.sides and comparison.reason is None:
        large("There is no difference to show yet: neither run has an evaluation.")
        return
    if not comparison.sides:
        large("These two runs are not a pair.")
        page.note(f"{_sentence(comparison.reason or '')} Their difference is therefore not that of the masks alone.")
        apart = [name for name, value in vars(a.config.badge).items() if value != vars(b.config.badge)[name]]
        if apart:
            st.warning(f"They differ in {', '.join(apart)}: their accuracies are not comparable.")
            return
        live_plot(
            two_curves_figure(*_curves(a, b, ()), a.config.protocol, epochs),
            key="compare_curves",
        )
        return
    difference = pairs.difference(pairs_of_runs)
    if comparison.reason and not difference.pairs:
        large("These two runs are not a pair.")
        page.note(f"{_sentence(comparison.reason)} Pairs with these masks will appear below.")
    else:
        large(difference.verdict)
    if difference.seeds_needed:
        page.note(difference.seeds_needed)
    if comparison.reason and difference.pairs:
        page.note(f"These two runs are not a pair ({escape(comparison.reason)}); the result is of the pairs below.")
    with st.container(key="pair_compare_curves"):
        left, right = st.columns([6, 5], gap="medium")
    with left:
        if difference.pairs:
            live_plot(difference_figure(difference, epochs), key="compare_difference")
        page.note(figures.difference_caption(difference))
    with right:
        curves = _curves(a, b, pairs_of_runs)
        if any(curves):
            live_plot(two_curves_figure(*curves, a.config.protocol, epochs), key="compare_curves")
            page.note(
                "A dashed, B solid"
                + ("; the bands reach from the lowest to the highest seed." if len(pairs_of_runs) > 1 else ".")
                + " Only scheduled evaluations; the additional one of a stopped run is left out."
            )
    table(
        ("Seed", "A", "B", "A, last", "B, last", "B − A, points"),
        [_row(comparison, seed, pairs_of_runs) for seed in sorted(comparison.sides)],
    )


def _curves(
    a: Run, b: Run, pairs_of_runs: Sequence[pairs.Pair]
) -> tuple[tuple[outcomes.Curve, ...], tuple[outcomes.Curve, ...]]:
    """The curves of both sides; of several pairs only the epochs that both runs evaluated, so that both means are
    over the same seeds."""
    if not pairs_of_runs:
        of_a, of_b = (outcomes.accuracies(queries.store(), run) for run in (a, b))
        return (of_a,) if of_a else (), (of_b,) if of_b else ()
    if len(pairs_of_runs) == 1:
        return (pairs_of_runs[0].accuracy_a,), (pairs_of_runs[0].accuracy_b,)
    shared = [{epoch for epoch, _ in pair.difference} for pair in pairs_of_runs]

    def cut(curves: Sequence[outcomes.Curve]) -> tuple[outcomes.Curve, ...]:
        return tuple(
            tuple(point for point in curve if point[0] in epochs) for curve, epochs in zip(curves, shared, strict=True)
        )

    return cut([pair.accuracy_a for pair in pairs_of_runs]), cut([pair.accuracy_b for pair in pairs_of_runs])


def _row(comparison: Comparison, seed: int, pairs_of_runs: Sequence[pairs.Pair]) -> tuple[str, ...]:
    runs = comparison.sides[seed]
    pair = next((pair for pair in pairs_of_runs if pair.seed == seed), None)
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
        pairs.points(value, signed=True),
    )


def _draw_next_seed(comparison: Comparison) -> None:
    """Draw the button that starts the same pair with the next seed."""
    if not comparison.sides and comparison.reason:
        return
    try:
        base, plan, seeds = pairs.following(queries.store(), comparison.a, comparison.b)
        todo = pairs.wanted(queries.store(), base.id, plan, seeds)[-2:]
        lacking = missing(base.config)
        if st.button("Run this pair with another seed", key="compare_next", disabled=lacking is not None):
            pairs.launch_pair(queries.store(), base.id, plan, seeds, visitor.current())
            st.rerun()
        page.note(lacking or started_text(todo))
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
        for text in pairs.beyond_the_cells(comparison.a.config.plan, comparison.b.config.plan):
            page.note(_sentence(text))


# ---------------------------------------------------------------- pieces


def _sentence(text: str) -> str:
    return escape(sentence(text))


def _value(text: str) -> str:
    return f'<span style="overflow-wrap:anywhere">{escape(text)}</span>'
