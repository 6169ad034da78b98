"""A race watched: every mask a small multiple with its place, who leads, and whether the lead is more than noise."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.events import TrainStep
from mlae_lab.core.plan import MaskPlan
from mlae_lab.runs import outcomes, race
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.paths import is_run_id
from mlae_lab.runs.race import Lane, Race
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore, StoreError
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
.st-key-race_lanes { display: grid !important; grid-template-columns: repeat(auto-fill, minmax(min(100%, 262px), 1fr)); gap: 1.4rem 1.6rem; align-items: start; }
.race-verdict { font-size: 1.5rem; font-weight: 620; line-height: 1.3; margin: .7rem 0 .2rem; max-width: 62ch; letter-spacing: -0.01em; min-height: 3.9rem; }
.race-doubt { font-size: 1rem; line-height: 1.5; margin: 0 0 .4rem; max-width: 84ch; min-height: 3rem; }
.race-lane { display: grid; grid-template-columns: 56px 1fr; gap: 12px; line-height: 1.35; min-height: 5.7rem; align-items: start; }
.race-lane img { width: 56px; display: block; }
.race-lane b { font-size: 1rem; font-weight: 620; overflow-wrap: anywhere; }
.race-lane p { margin: 0; font-size: .86rem; color: color-mix(in srgb, currentColor 76%, transparent); font-variant-numeric: tabular-nums; }
.race-lane .place { font-size: 1.16rem; font-weight: 620; color: inherit; }
.race-row { display: flex; flex-wrap: wrap; gap: .8rem; align-items: center; }
.race-row img { width: 44px; }
</style>"""

_figure = lru_cache(maxsize=256)(lane_figure)  # made once for each state of a race, for all viewers


# ---------------------------------------------------------------- reading


def asked(names: str) -> list[Run]:
    """The runs that an address names, `?runs=a,b,c`. Raises StoreError, in one sentence, for what is no such list."""
    words = list(dict.fromkeys(word.strip() for word in names.split(",") if word.strip()))
    if len(words) > MAX_RUNS:
        raise StoreError(f"the link names {len(words)} runs: a race has at most {MAX_RUNS}")
    if not all(map(is_run_id, words)) or not words:
        raise StoreError("the link does not hold names of runs: it looks like /race?runs=aaaaaaaa,bbbbbbbb")
    return [queries.run(word) for word in words]


_looked: dict[tuple, tuple[float, Race]] = {}


def look(runs: Sequence[Run], known: dict[MaskPlan, str]) -> Race:
    """Where a race stands, read at most twice a second for all who watch it. Raises StoreError if it is none."""
    key = (queries.store().folder, tuple((run.id, run.status, run.attempt) for run in runs), tuple(known.values()))
    now = time.monotonic()
    seen = _looked.get(key)
    if seen is None or now - seen[0] >= _SHARED_SECONDS:
        if len(_looked) > 100:
            _looked.clear()
        seen = _looked[key] = (now, _unchanging(race.race(queries.store(), runs, _curve, known)))
    return seen[1]


_curves: dict[tuple, race.Curve] = {}


def _curve(store: RunStore, run: Run) -> race.Curve:
    """A run's measurements; those of one that is over are read once."""
    key = (store.folder, run.id, run.ended)
    if key in _curves:
        return _curves[key]
    found = outcomes.accuracies(store, run)
    if run.status.is_over:
        if len(_curves) > 1000:
            _curves.clear()
        _curves[key] = found
    return found


_races: dict[tuple, Race] = {}


def _unchanging(now: Race) -> Race:
    """The same object for the same state, so that its figures are made once."""
    key = tuple(
        (lane.plan, lane.name, tuple(sorted(lane.curves.items())), tuple((r.id, r.status) for r in lane.runs.values()))
        for lane in now.lanes
    )
    if len(_races) > 100:
        _races.clear()
    return _races.setdefault(key, now)


# ---------------------------------------------------------------- drawing


def watched(runs: Sequence[Run]) -> None:
    """Draw a race. runs: those of its address."""
    st.html(_STYLE)
    known = _known()
    try:
        first = look(runs, known)
    except StoreError as error:
        st.warning(plain(sentence(error)))
        _list_of(runs)
        return
    live = any(not run.status.is_over for run in runs)
    run_actions.complaint()
    with st.container(horizontal=True, gap="small"):
        run_actions.stop_all(runs, "race", "Stop the race")
    ids = [run.id for run in runs]
    state = tuple(run.status for run in runs)

    @st.fragment(run_every=REFRESH_SECONDS if live else None)
    def panel() -> None:
        try:
            now = [queries.run(name) for name in ids]
            _draw(look(now, known))
        except StoreError:  # deleted while one looks at it
            st.rerun()
        if tuple(run.status for run in now) != state:
            st.rerun()  # the list below depends on it, and a race that is over needs no timer

    panel()
    _ways_on(first)


def _draw(now: Race) -> None:
    st.html(
        f'<div role="status"><p class="race-verdict">{escape(now.headline)}</p>'
        f'<p class="race-doubt">{escape(now.doubt) or "&nbsp;"}</p></div>'
    )
    places = {entry.lane: entry for entry in now.standings}
    with st.container(key="race_lanes"):
        for number, lane in enumerate(now.lanes):
            with st.container(key=f"race_lane_{number}"):
                entry = places.get(number)
                rank = f"{_ordinal(entry.rank)}, {entry.accuracy:.1f} %" if entry else "not placed yet"
                at = "" if now.is_through else f" after epoch {now.epoch}"
                told = f"{now.distance(entry)}{at}" if entry else ""
                st.html(
                    f'<div class="race-lane"><img src="{mask_image(lane.plan)}" alt=""><div><b>{escape(lane.name)}</b>'
                    f'<p class="place">{rank}</p><p>{told or "&nbsp;"}</p><p>{_seeds(lane)}</p></div></div>'
                )
                live_plot(_figure(now, number), key=f"race_plot_{number}")
    if now.epoch is not None:
        seeds = f"seed{'s' if len(now.seeds) > 1 else ''} {', '.join(map(str, now.seeds))}"
        page.note(
            f"Placed by the mean accuracy after epoch {now.epoch}, {seeds}. Thin lines are seeds, the strong one their mean, "
            "the dashed one the leader. All runs share everything but the mask: settings, batches, the head's first values "
            "and the numbers that masks are drawn from."
        )


def _seeds(lane: Lane) -> str:
    """Where each run of a mask stands, as HTML; those that are at one status together."""
    said: dict[str, list[int]] = {}
    for seed, run in sorted(lane.runs.items()):
        said.setdefault(_status(run), []).append(seed)
    return " · ".join(
        f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))} {word}" for word, seeds in said.items()
    )


def _status(run: Run) -> str:
    if run.status is Status.RUNNING and (step := queries.store().last(run.id, TrainStep)):
        return f'<span class="lab-status live">epoch {step.epoch} of {run.config.epochs}</span>'
    return page.status_word(run.status)


def _ways_on(now: Race) -> None:
    config = next(iter(now.lanes[0].runs.values())).config
    if len(now.lanes) == 2:
        a, b = (next(iter(lane.runs.values())) for lane in now.lanes)
        link("compare", "The pair in detail", a=a.id, b=b.id)
    with st.expander("The runs of this race"):
        for lane in now.lanes:
            with st.container(horizontal=True, gap="small", vertical_alignment="center"):
                st.html(f"<b>{escape(lane.name)}</b>")
                for seed, run in sorted(lane.runs.items()):
                    link("train", f"seed {seed}", run=run.id)
    with st.expander("The command that does the same"):
        seeds = sorted({seed for lane in now.lanes for seed in lane.runs})
        plans = [lane.plan for lane in now.lanes]
        if seeds == list(range(seeds[0], seeds[0] + len(seeds))) and len(seeds) <= race.MAX_SEEDS:
            first = next((lane.runs[seeds[0]].config for lane in now.lanes if seeds[0] in lane.runs), config)
            page.command(race.command(first, plans, len(seeds)))
        else:
            page.note("The seeds do not follow each other: one command cannot start them all.")


def listed(runs: Sequence[Run]) -> None:
    """The races of the store, each a link; what a race is where there is none."""
    st.html(_STYLE)
    found = race.races(runs)
    if not found:
        page.section("No race yet")
        page.note(
            "Up to eight masks start on equal terms: the same task, settings and seeds. Here they stand side by side while "
            "they learn, with who leads and whether the lead is more than the noise of the seed."
        )
        link("train", "Set up a race")
        return
    page.section("Races")
    known = _known()
    for entry in found[:MAX_LISTED]:
        plans = list(dict.fromkeys(run.config.plan for run in entry))[: race.MAX_MASKS]
        shown = [run for run in entry if run.config.plan in plans][:MAX_RUNS]
        seeds = len({run.config.seed for run in shown})
        over = sum(run.status.is_over for run in shown)
        images = "".join(f'<img src="{mask_image(plan)}" alt="">' for plan in plans)
        title = escape(catalog.task(shown[0].config.task).title)
        st.html(
            f'<div class="race-row">{images}<div class="lab-choice"><b>{title}, {len(plans)} masks</b><span>{over} of '
            f"{len(shown)} runs over · {seeds} seed{'s' if seeds > 1 else ''} · started by "
            f"{escape(visitor.name_of(shown[-1].owner))}</span></div></div>"
        )
        link("race", "Watch: " + " · ".join(race.names(plans, known)), runs=",".join(run.id for run in shown))


def _list_of(runs: Sequence[Run]) -> None:
    for run in runs:
        link("train", f"Run {run.id}, {run.config.what}, seed {run.config.seed}", run=run.id)


def _known() -> dict[MaskPlan, str]:
    """The names of the library's masks."""
    try:
        return {entry.plan: entry.name for entry in reversed(queries.store().plans())}
    except EXPECTED_ERRORS:
        return {}


def _ordinal(rank: int) -> str:
    return f"{rank}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(rank, 'th') }"
