"""The masks of a study: as a race where they are all that varies, side by side where there are two, else as images."""

from __future__ import annotations

from functools import lru_cache
from html import escape

import streamlit as st

from mlae_lab.runs import paired_curves
from mlae_lab.runs.standings import Lane, Race
from mlae_lab.runs.study_results import of_task
from mlae_lab.ui import figures, page, queries
from mlae_lab.ui.arms_table import ordered
from mlae_lab.ui.figures.study_parts import mean_of
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.navigation import link
from mlae_lab.ui.race_view import draw_lanes
from mlae_lab.ui.study_queries import LoadedStudy
from mlae_lab.ui.thumbnails import mask_image

MAX_MASKS = 24  # shown as thumbnails
STYLE = """<style>
.study-masks { display: grid; grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); gap: 16px 18px; }
.study-masks figure { margin: 0; } .study-masks img { width: 100%; display: block; }
.study-masks figcaption { font-size: .8rem; line-height: 1.3; margin-top: 5px; overflow-wrap: anywhere; }
.study-masks b { font-weight: 620; display: block; }
</style>"""

difference_figure = lru_cache(maxsize=32)(figures.difference_figure)  # made once for each state, for all viewers


def draw_masks(loaded: LoadedStudy, hidden: frozenset[str], task: str = "") -> None:
    """Draw the masks of a study; nothing if it has less than two.

    Args:
        loaded: The study.
        hidden: Names of arms that are left out.
        task: Of a study on several tasks the one that is drawn, "" for the first.
    """
    if loaded.race is None:
        _draw_images(loaded, hidden, task)
        return
    page.section("Masks")
    draw_lanes(loaded.race, hidden)
    if len(loaded.race.lanes) == 2:
        _draw_two(loaded, loaded.race)


def _draw_images(loaded: LoadedStudy, hidden: frozenset[str], task: str) -> None:
    masks = {}
    for result in ordered(of_task(loaded.results, task)):
        if result.arm.config.has_mask and result.arm.name not in hidden:
            masks.setdefault(mask_image(result.arm.config.plan), result)
    if len(masks) < 2:
        return
    page.section("Masks")
    cells = "".join(
        f'<figure><img src="{image}" alt=""><figcaption><b>{escape(result.arm.name)}</b>'
        f"{mean_of(result)}</figcaption></figure>"
        for image, result in list(masks.items())[:MAX_MASKS]
    )
    st.html(f'{STYLE}<div class="study-masks">{cells}</div>')
    more = f" The {MAX_MASKS} best of {len(masks)}." if len(masks) > MAX_MASKS else ""
    page.note(f"Filled: an expert exists, paler the more often it is dropped. The best first.{more}")


def _draw_two(loaded: LoadedStudy, race: Race) -> None:
    """Draw the cells in which two masks differ, and their difference over epochs. A is the reference if it is one."""
    first, second = race.lanes
    a, b = (second, first) if loaded.results.study.reference == second.name else (first, second)
    pairs = paired_curves.pairs_of(queries.store(), loaded.state, a.name, b.name, queries.curve)
    difference = paired_curves.difference(pairs)
    page.note(f"A is {escape(a.name)}, B is {escape(b.name)}.")
    with st.container(key="pair_compare_masks"):
        left, right = st.columns([3, 2], gap="medium")
    with left:
        live_plot(figures.mask_difference_figure(a.plan, b.plan), key="study_mask_difference")
        page.note(figures.MASK_KEY)
    with right:
        if difference.pairs:
            live_plot(difference_figure(difference, race.epochs), key="study_difference")
        page.note(figures.difference_caption(difference))
        if difference.seeds_needed:
            page.note(difference.seeds_needed)
    if runs := _first_runs(a, b):
        link("compare", "Compare the two runs", a=runs[0], b=runs[1])


def _first_runs(a: Lane, b: Lane) -> tuple[str, str] | None:
    """The runs of the lowest seed of which both are there."""
    seed = min(a.runs.keys() & b.runs.keys(), default=None)
    return None if seed is None else (a.runs[seed].id, b.runs[seed].id)
