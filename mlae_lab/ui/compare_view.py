"""Two runs beside each other: their masks, their difference over seeds, what differs besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig, differences
from mlae_lab.core.settings import setting_of
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
from mlae_lab.ui.run_cards import accuracy_text
from mlae_lab.ui.tables import large, table
from mlae_lab.ui.thumbnails import mask_image

REFRESH_SECONDS = 2.0
MAX_CARDS = 24  # in each group

difference_figure = lru_cache(maxsize=32)(figures.difference_figure)  # made once for each state, for all viewers
two_curves_figure = lru_cache(maxsize=32)(figures.two_curves_figure)
mask_difference_figure = lru_cache(maxsize=32)(figures.mask_difference_figure)


@dataclass(frozen=True)
class Look:
    """What is known of two runs now. sides: their family by seed; reason: why the two are not a pair, None if they are."""

    a: Run
    b: Run
    sides: dict[int, tuple[Run | None, Run | None]]
    reason: str | None

    @property
    def runs(self) -> list[Run]:
        """The two and all of their family."""
        found = {run.id: run for both in self.sides.values() for run in both if run is not None}
        return list({self.a.id: self.a, self.b.id: self.b, **found}.values())

    @property
    def is_live(self) -> bool:
        return any(not run.status.is_over for run in self.runs)

    @property
    def state(self) -> tuple:
        """What the page outside the live part depends on."""
        return tuple(sorted((run.id, run.status.value) for run in self.runs))


def look(a: str, b: str) -> Look:
    """Read two runs and their family. Raises StoreError for an unknown run."""
    one, other = queries.run(a), queries.run(b)
    store = queries.store()
    return Look(one, other, pairs.sides(store, one, other), pairs.unpaired_runs_because(store, one, other))


# ---------------------------------------------------------------- choosing


def choose(runs: Sequence[Run], role: str, against: Run | None = None) -> None:
    """Cards of runs; the one clicked becomes that side of the address. role: "a" or "b"; against: the other side."""
    candidates = [run for run in runs if against is None or run.id != against.id]
    page.section(f"Choose {role.upper()}{', the run that A is compared with' if role == 'b' else ', the reference'}")
    if not candidates:
        page.note("There is no other run in this store yet.")
        return
    groups = ["A pair with it", "The same task, data, weights and protocol", "Other runs"]
    items: dict[str, list[Card]] = {name: [] for name in groups}
    for run in candidates:
        group = 2
        if against is not None and run.config.badge == against.config.badge:
            group = 0 if pairs.unpaired_runs_because(queries.store(), against, run) is None else 1
        if len(items[groups[group]]) < MAX_CARDS:
            items[groups[group]].append(_card(run, "" if against is None else groups[group]))
    picked = cards([card for name in groups for card in items[name]], key=f"compare_{role}", label="Runs", size="small")
    if picked:
        st.query_params[role] = picked
        st.rerun()


def _card(run: Run, group: str) -> Card:
    return Card(
        id=run.id,
        title=catalog.task(run.config.task).title,
        line=f"{run.config.what} · {accuracy_text(run)} · seed {run.config.seed}",
        images=(mask_image(run.config.plan),) if run.config.method == "mlae" else (),
        word=run.status.value,
        tone="good" if run.status.value in ("finished", "running", "starting") else "",
        group=group,
    )


def chosen_half(side: str, run: Run, runs: Sequence[Run]) -> None:
    """One side stands, the other is wanted: choose it, or start it. side: "a" or "b", the one that stands."""
    st.html(_side(side.upper(), run))
    choose(runs, "b" if side == "a" else "a", run)
    pair_panel(run)


# ---------------------------------------------------------------- compared


def compared(a: str, b: str) -> None:
    """Draw two runs that exist. Raises StoreError for one that does not."""
    now = look(a, b)
    _masks(now)

    @st.fragment(run_every=REFRESH_SECONDS if now.is_live else None)
    def panel() -> None:
        try:
            found = look(a, b)
        except StoreError:  # deleted while one looks at it
            st.rerun()
        _result(found)
        if found.state != now.state:
            st.rerun()  # the button below depends on it, and runs that are over need no timer

    panel()
    _next(now)
    _differences(now)


def _side(name: str, run: Run) -> str:
    config = run.config
    image = f'<div><img src="{mask_image(config.plan)}" alt="mask of {name}"></div>' if config.method == "mlae" else ""
    experts = f"{config.plan.experts} experts in {config.plan.rows} layers · " if config.method == "mlae" else ""
    words = (
        f"<small>{name}</small><b>{config.what.capitalize()}</b><span>{escape(catalog.task(config.task).title)}</span>"
        f"<span>{experts}seed {config.seed}</span><span>run {run.id} {page.status_word(run.status)}</span>"
    )
    if not image:
        return f'<div class="lab-choice">{words}</div>'
    return f'<div class="lab-choice with-mask">{image}<div>{words}</div></div>'


def _masks(now: Look) -> None:
    both = now.a.config.method == now.b.config.method == "mlae"
    with st.container(key="pair_compare_masks"):
        words, cells = st.columns([4, 7], gap="large")
    with words:
        for name, run in (("A", now.a), ("B", now.b)):
            with st.container(border=True):
                st.html(_side(name, run))
                link("train", f"The bench of {name}", run=run.id)
        link("compare", "Swap A and B", a=now.b.id, b=now.a.id)
    with cells:
        if both:
            live_plot(mask_difference_figure(now.a.config.plan, now.b.config.plan), key="compare_masks")
            page.note(figures.MASK_KEY)
        else:
            page.note("A linear probe has no mask, so there are no cells to compare.")


def _result(now: Look) -> None:
    a, b, store = now.a, now.b, queries.store()
    found = pairs.family(store, a, b) if now.sides else []
    epochs = max(a.config.epochs, b.config.epochs)
    if not now.sides and now.reason is None:
        large("There is no difference to show yet: neither run has measured an epoch.")
        return
    if not now.sides:
        large("These two runs are not a pair.")
        page.note(f"{_sentence(now.reason or '')} So what stands between them is not the mask alone.")
        apart = [name for name, value in vars(a.config.badge).items() if value != vars(b.config.badge)[name]]
        if apart:
            st.warning(f"They differ in {', '.join(apart)}: their accuracies do not stand on one scale.")
            return
        live_plot(
            two_curves_figure(*_curves(a, b, ()), a.config.protocol, epochs),
            key="compare_curves",
        )
        return
    difference = pairs.difference(found)
    if now.reason and not difference.pairs:
        large("These two runs are not a pair.")
        page.note(f"{_sentence(now.reason)} Pairs like them stand below as soon as there are some.")
    else:
        large(difference.verdict)
    if difference.seeds_needed:
        page.note(difference.seeds_needed)
    if now.reason and difference.pairs:
        page.note(f"The two runs themselves are not a pair ({escape(now.reason)}); this is about the pairs below.")
    with st.container(key="pair_compare_curves"):
        left, right = st.columns([6, 5], gap="medium")
    with left:
        live_plot(difference_figure(difference, epochs), key="compare_difference")
        page.note(figures.difference_caption(difference))
    with right:
        live_plot(two_curves_figure(*_curves(a, b, found), a.config.protocol, epochs), key="compare_curves")
        page.note(
            "A dashed, B solid"
            + ("; the bands run from the lowest to the highest seed." if len(found) > 1 else ".")
            + " Only measurements that the schedule foresaw: what a stopped run measured on leaving is left out."
        )
    table(
        ("Seed", "A", "B", "A, last", "B, last", "B − A, points"),
        [_row(now, seed, found) for seed in sorted(now.sides)],
    )


def _curves(
    a: Run, b: Run, found: Sequence[pairs.Pair]
) -> tuple[tuple[outcomes.Curve, ...], tuple[outcomes.Curve, ...]]:
    """The curves of both sides. Of several pairs only the epochs that both have measured: the two means are then over
    the same seeds."""
    if not found:
        of_a, of_b = (outcomes.accuracies(queries.store(), run) for run in (a, b))
        return (of_a,) if of_a else (), (of_b,) if of_b else ()
    if len(found) == 1:
        return (found[0].accuracy_a,), (found[0].accuracy_b,)
    shared = [{epoch for epoch, _ in pair.difference} for pair in found]

    def cut(curves: Sequence[outcomes.Curve]) -> tuple[outcomes.Curve, ...]:
        return tuple(
            tuple(point for point in curve if point[0] in epochs) for curve, epochs in zip(curves, shared, strict=True)
        )

    return cut([pair.accuracy_a for pair in found]), cut([pair.accuracy_b for pair in found])


def _row(now: Look, seed: int, found: Sequence[pairs.Pair]) -> tuple[str, ...]:
    one, other = now.sides[seed]
    pair = next((pair for pair in found if pair.seed == seed), None)
    cells = [str(seed)]
    cells += ["–" if run is None else f"{run.id} {page.status_word(run.status)}" for run in (one, other)]
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


def _next(now: Look) -> None:
    """The same pair with the next seed."""
    if not now.sides and now.reason:
        return
    try:
        base, plan, seeds = pairs.following(queries.store(), now.a, now.b)
        todo = pairs.wanted(queries.store(), base.id, plan, seeds)[-2:]
        lacking = missing(base.config)
        if st.button("Run the same pair with another seed", key="compare_next", disabled=lacking is not None):
            pairs.launch_pair(queries.store(), base.id, plan, seeds, visitor.current())
            st.rerun()
        page.note(lacking or started_text(todo))
    except EXPECTED_ERRORS as error:
        st.info(visitor.sentence(error))


def _differences(now: Look) -> None:
    page.section("What differs in the settings")
    found = differences(now.a.config, now.b.config)
    if not found:
        page.note("Nothing: the two runs have one config.")
        return
    table(
        ("Setting", "A", "B"),
        [
            (escape(setting.label), _value(setting.shown(one)), _value(setting.shown(other)))
            for setting, (one, other) in ((setting_of(RunConfig, name), values) for name, values in found.items())
        ],
    )
    if now.a.config.method == now.b.config.method == "mlae":
        for text in pairs.beyond_the_cells(now.a.config.plan, now.b.config.plan):
            page.note(_sentence(text))


# ---------------------------------------------------------------- pieces


def _sentence(text: str) -> str:
    return escape(sentence(text))


def _value(text: str) -> str:
    return f'<span style="overflow-wrap:anywhere">{escape(text)}</span>'
