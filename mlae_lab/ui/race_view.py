"""A race: every mask as a small multiple with its rank, the leader, and whether its lead exceeds the noise."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.events import TrainStep
from mlae_lab.core.plan import MaskPlan
from mlae_lab.data.listing import counted
from mlae_lab.runs import race
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.paths import is_run_id
from mlae_lab.runs.race import Lane, Race
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.ui import page, queries, run_actions, visitor
from mlae_lab.ui.figures.race import lane_figure
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.navigation import link
from mlae_lab.ui.thumbnails import mask_image

REFRESH_SECONDS = 1.5
MAX_RUNS = race.MAX_MASKS * race.MAX_SEEDS
MAX_LISTED = 12
_SHARED_SECONDS = 0.5
_STYLE = """<style>
.st-key-race_lanes {
  display: grid !important; grid-template-columns: repeat(auto-fill, minmax(min(100%, 262px), 1fr));
  gap: 1.4rem 1.6rem; align-items: start;
}
.race-verdict {
  font-size: 1.5rem; font-weight: 620; line-height: 1.3; margin: .7rem 0 .2rem; max-width: 62ch;
  letter-spacing: -0.01em; min-height: 3.9rem;
}
.race-doubt { font-size: 1rem; line-height: 1.5; margin: 0 0 .4rem; max-width: 84ch; min-height: 3rem; }
.race-lane {
  display: grid; grid-template-columns: 56px 1fr; gap: 12px; line-height: 1.35; min-height: 5.7rem; align-items: start;
}
.race-lane img { width: 56px; display: block; }
.race-lane b { font-size: 1rem; font-weight: 620; overflow-wrap: anywhere; }
.race-lane p {
  margin: 0; font-size: .86rem; color: color-mix(in srgb, currentColor 76%, transparent);
  font-variant-numeric: tabular-nums;
}
.race-lane .rank { font-size: 1.16rem; font-weight: 620; color: inherit; }
.race-row { display: flex; flex-wrap: wrap; gap: .8rem; align-items: center; }
.race-row img { width: 44px; }
</style>"""

_figure = lru_cache(maxsize=256)(lane_figure)  # made once for each state of a race, for all viewers


# ---------------------------------------------------------------- queries


def runs_of_link(text: str) -> tuple[list[Run], list[str]]:
    """The runs that an address names, `?runs=a,b,c`, and the ids of those that the store does not have any more.

    Raises:
        StoreError: If the text is no such list or the store has none of the runs.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if len(names) > MAX_RUNS:
        raise StoreError(f"the link names {len(names)} runs: a race has at most {MAX_RUNS}")
    if not all(map(is_run_id, names)) or not names:
        raise StoreError("the link does not contain run ids: write it as /race?runs=aaaaaaaa,bbbbbbbb")
    runs, missing = [], []
    for name in names:
        if queries.store().holds(name):
            runs.append(queries.run(name))
        else:
            missing.append(name)
    if not runs:
        raise StoreError(f"this store has none of the runs {', '.join(names)}: they may be archived or deleted")
    return runs, missing


_loaded: dict[tuple, tuple[float, Race]] = {}


def load_race(runs: Sequence[Run], names: dict[MaskPlan, str]) -> Race:
    """The state of a race, read at most twice a second for all viewers.

    Raises:
        StoreError: If the runs are not a race.
    """
    key = (queries.store().folder, tuple((run.id, run.status, run.attempt) for run in runs), tuple(names.values()))
    now = time.monotonic()
    entry = _loaded.get(key)
    if entry is None or now - entry[0] >= _SHARED_SECONDS:
        if len(_loaded) > 100:
            _loaded.clear()
        entry = _loaded[key] = (now, _interned(race.race(queries.store(), runs, queries.curve, names)))
    return entry[1]


_races: dict[tuple, Race] = {}


def _interned(latest: Race) -> Race:
    """The same object for equal states, so that its figures are made once."""
    key = tuple(
        (lane.plan, lane.name, tuple(sorted(lane.curves.items())), tuple((r.id, r.status) for r in lane.runs.values()))
        for lane in latest.lanes
    )
    if len(_races) > 100:
        _races.clear()
    return _races.setdefault(key, latest)


# ---------------------------------------------------------------- drawing


def draw_race(runs: Sequence[Run]) -> None:
    """Draw a race, given the runs of its address."""
    st.html(_STYLE)
    known = _saved_names()
    try:
        first = load_race(runs, known)
    except StoreError as error:
        st.warning(plain(sentence(error)))
        _draw_run_links(runs)
        return
    live = any(not run.status.is_over for run in runs)
    run_actions.show_error()
    with st.container(horizontal=True, gap="small"):
        run_actions.stop_all(runs, "race", "Stop the race")
    ids = [run.id for run in runs]
    statuses = tuple(run.status for run in runs)

    @st.fragment(run_every=REFRESH_SECONDS if live else None)
    def panel() -> None:
        try:
            current = [queries.run(name) for name in ids]
            _draw(load_race(current, known))
        except StoreError:  # deleted meanwhile
            st.rerun()
        if tuple(run.status for run in current) != statuses:
            st.rerun()  # the list below depends on it, and a finished race needs no timer

    panel()
    _draw_links(first)


def _draw(current: Race) -> None:
    st.html(
        f'<div role="status"><p class="race-verdict">{escape(current.headline)}</p>'
        f'<p class="race-doubt">{escape(current.doubt) or "&nbsp;"}</p></div>'
    )
    standings = {entry.lane: entry for entry in current.standings}
    with st.container(key="race_lanes"):
        for number, lane in enumerate(current.lanes):
            with st.container(key=f"race_lane_{number}"):
                entry = standings.get(number)
                rank = f"{_ordinal(entry.rank)}, {entry.accuracy:.1f} %" if entry else "no rank yet"
                when = "" if current.is_through else f" after epoch {current.epoch}"
                description = f"{current.distance(entry)}{when}" if entry else ""
                st.html(
                    f'<div class="race-lane"><img src="{mask_image(lane.plan)}" alt=""><div><b>{escape(lane.name)}</b>'
                    f'<p class="rank">{rank}</p><p>{description or "&nbsp;"}</p><p>{_seeds(lane)}</p></div></div>'
                )
                if lane.curves:
                    live_plot(_figure(current, number), key=f"race_plot_{number}")
    if current.epoch is not None:
        seeds = f"seed{'s' if len(current.seeds) > 1 else ''} {', '.join(map(str, current.seeds))}"
        page.note(
            f"Ranked by the mean accuracy after epoch {current.epoch}, {seeds}. Thin lines: seeds; thick line: their "
            "mean; dashed line: the leader. All runs share everything but the mask: settings, batches, the initial "
            "head and the random numbers of the masks."
        )


def _seeds(lane: Lane) -> str:
    """The status of each run of a mask as HTML, grouped by status."""
    seeds_by_status: dict[str, list[int]] = {}
    for seed, run in sorted(lane.runs.items()):
        seeds_by_status.setdefault(_status(run), []).append(seed)
    return " · ".join(
        f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))} {status}"
        for status, seeds in seeds_by_status.items()
    )


def _status(run: Run) -> str:
    if run.status is Status.RUNNING and (step := queries.store().last(run.id, TrainStep)):
        return f'<span class="lab-status live">epoch {step.epoch} of {run.config.epochs}</span>'
    return page.status_word(run.status)


def _draw_links(current: Race) -> None:
    config = next(iter(current.lanes[0].runs.values())).config
    if len(current.lanes) == 2:
        a, b = (next(iter(lane.runs.values())) for lane in current.lanes)
        link("compare", "Compare the two runs", a=a.id, b=b.id)
    with st.expander("The runs of this race"):
        for lane in current.lanes:
            with st.container(horizontal=True, gap="small", vertical_alignment="center"):
                st.html(f"<b>{escape(lane.name)}</b>")
                for seed, run in sorted(lane.runs.items()):
                    link("train", f"seed {seed}", run=run.id)
    with st.expander("Equivalent command"):
        seeds = sorted({seed for lane in current.lanes for seed in lane.runs})
        plans = [lane.plan for lane in current.lanes]
        if seeds == list(range(seeds[0], seeds[0] + len(seeds))) and len(seeds) <= race.MAX_SEEDS:
            first = next((lane.runs[seeds[0]].config for lane in current.lanes if seeds[0] in lane.runs), config)
            page.command(race.command(first, plans, len(seeds)))
        else:
            page.note("The seeds are not consecutive: no single command starts all of them.")


def draw_races(runs: Sequence[Run]) -> None:
    """Draw links to the races of the store, or if there are none, what a race is."""
    st.html(_STYLE)
    races = race.races(runs)
    if not races:
        page.section("No race yet")
        page.note(
            "A race trains up to eight masks with the same task, settings and seeds. This page compares them during "
            "training: which one leads, and whether its lead exceeds the noise of the seed."
        )
        link("train", "Set up a race")
        return
    page.section("Races")
    names = _saved_names()
    for entry in races[:MAX_LISTED]:
        plans = list(dict.fromkeys(run.config.plan for run in entry))[: race.MAX_MASKS]
        shown = [run for run in entry if run.config.plan in plans][:MAX_RUNS]
        seeds = counted(len({run.config.seed for run in shown}), "seed")
        over = sum(run.status.is_over for run in shown)
        images = "".join(f'<img src="{mask_image(plan)}" alt="">' for plan in plans)
        title = escape(catalog.task(shown[0].config.task).title)
        st.html(
            f'<div class="race-row">{images}<div class="lab-choice"><b>{title}, {len(plans)} masks</b><span>{over} of '
            f"{len(shown)} runs have ended · {seeds} · started by "
            f"{escape(visitor.name_of(shown[-1].owner))}</span></div></div>"
        )
        link("race", "Open: " + " · ".join(race.names(plans, names)), runs=",".join(run.id for run in shown))


def _draw_run_links(runs: Sequence[Run]) -> None:
    for run in runs:
        link("train", f"Run {run.id}, {run.config.what}, seed {run.config.seed}", run=run.id)


def _saved_names() -> dict[MaskPlan, str]:
    """The names of the saved masks."""
    try:
        return {entry.plan: entry.name for entry in reversed(queries.store().plans())}
    except EXPECTED_ERRORS:
        return {}


def _ordinal(rank: int) -> str:
    return f"{rank}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(rank, 'th') }"
