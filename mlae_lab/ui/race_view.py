"""A race: every mask of a study as a small multiple with its rank, and who leads."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.events import TrainStep
from mlae_lab.core.study_presets import MAX_MASKS, MAX_SEEDS, compared_masks
from mlae_lab.data.listing import counted
from mlae_lab.runs import presets, standings, study_results
from mlae_lab.runs.comparability import unequal_because
from mlae_lab.runs.paths import is_run_id
from mlae_lab.runs.standings import Lane, Race
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.runs.study_table import StoredStudy
from mlae_lab.ui import page, queries, visitor
from mlae_lab.ui.figures.race import lane_figure
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.navigation import link
from mlae_lab.ui.study_queries import load, stored_studies
from mlae_lab.ui.thumbnails import mask_image

REFRESH_SECONDS = 1.5
MAX_RUNS = MAX_MASKS * MAX_SEEDS
MAX_LISTED = 12
_SHARED_SECONDS = 0.5
_STYLE = """<style>
.st-key-race_lanes {
  display: grid !important; grid-template-columns: repeat(auto-fill, minmax(min(100%, 262px), 1fr));
  gap: 1.4rem 1.6rem; align-items: start;
}
.race-headline { font-size: 1.16rem; font-weight: 620; line-height: 1.4; margin: .2rem 0 .6rem; max-width: 72ch; }
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


# ---------------------------------------------------------------- one race


def draw_lanes(current: Race, hidden: Collection[str] = ()) -> None:
    """Draw who leads, and each mask with its rank and its curve.

    Args:
        current: The state of the race.
        hidden: Names of masks that are left out.
    """
    st.html(_STYLE)
    text = " ".join(filter(None, [current.headline, current.missing]))
    st.html(f'<p class="race-headline" role="status">{escape(text)}</p>')
    by_lane = {entry.lane: entry for entry in current.standings}
    with st.container(key="race_lanes"):
        for number, lane in enumerate(current.lanes):
            if lane.name in hidden:
                continue
            with st.container(key=f"race_lane_{number}"):
                entry = by_lane.get(number)
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
            "head and the random numbers of the masks. Filled cells: an expert exists, paler the more often it is "
            "dropped."
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


def _ordinal(rank: int) -> str:
    return f"{rank}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(rank, 'th') }"


# ---------------------------------------------------------------- a link with runs


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


def draw_runs(runs: Sequence[Run]) -> None:
    """Draw the race that runs of a link make, and a link to their study if they are of one."""
    if why := unequal_because(queries.store(), runs):
        st.warning(plain(sentence(f"these runs are not a race: {why}")))
        for run in runs:
            link("train", f"Run {run.id}, {run.config.what}, seed {run.config.seed}", run=run.id)
        return
    ids = [run.id for run in runs]
    if name := study_of(ids):
        link("studies", "Open the study of these runs", study=name)
    statuses = tuple(run.status for run in runs)

    @st.fragment(run_every=REFRESH_SECONDS if any(not run.status.is_over for run in runs) else None)
    def panel() -> None:
        try:
            current = [queries.run(name) for name in ids]
            race = queries.shared(("race", *ids), lambda: _race(current), _SHARED_SECONDS)
            verdict = queries.shared(("race_verdict", *ids), lambda: _verdict(current), _SHARED_SECONDS)
        except StoreError:  # deleted meanwhile
            st.rerun()
        draw_lanes(race)
        page.note(escape(verdict))
        if tuple(run.status for run in current) != statuses:
            st.rerun()  # a finished race needs no timer

    panel()
    with st.expander("The runs of this race"), st.container(horizontal=True, gap="small"):
        for run in runs:
            link("train", f"Run {run.id}, {run.config.what}, seed {run.config.seed}", run=run.id)


_races: dict[tuple, Race] = {}


def _race(runs: Sequence[Run]) -> Race:
    """The race of these runs; the same object for equal states, so that its figures are made once."""
    latest = standings.race(queries.store(), presets.of_runs(queries.store(), runs, queries.curve), queries.curve)
    assert latest is not None  # `unequal_because` requires several masks
    key = tuple(
        (lane.plan, lane.name, tuple(sorted(lane.curves.items())), tuple((r.id, r.status) for r in lane.runs.values()))
        for lane in latest.lanes
    )
    if len(_races) > 100:
        _races.clear()
    return _races.setdefault(key, latest)


def _verdict(runs: Sequence[Run]) -> str:
    """What the race says about noise, as the page of its study does."""
    store = queries.store()
    return study_results.results(store, presets.of_runs(store, runs, queries.curve)).verdict


def study_of(runs: Sequence[str]) -> str | None:
    """The id of a study that all these runs belong to, None without one."""
    shared = set.intersection(*(set(queries.store().studies_of(run)) for run in runs))
    own = [stored for stored in stored_studies() if stored.id in shared]  # the newest first
    return min(own, key=lambda stored: len(stored.study.arms)).id if own else None


# ---------------------------------------------------------------- all races


def draw_races() -> None:
    """Draw links to the studies that compare masks, or if there are none, what a race is."""
    st.html(_STYLE)
    races = [(stored, arms) for stored in stored_studies() if (arms := compared_masks(stored.study))]
    if not races:
        page.section("No race yet")
        page.note(
            "A race is a study of up to eight masks with the same task, settings and seeds. Its page compares them "
            "during training: which one leads, and in the end whether a difference exceeds the noise of the seed."
        )
        link("train", "Set up a race")
        return
    page.section("Studies that compare masks")
    for stored, arms in races[:MAX_LISTED]:
        _draw_row(stored, "".join(f'<img src="{mask_image(arm.config.plan)}" alt="">' for arm in arms), len(arms))
        names = " · ".join(arm.name for arm in arms[:3]) + (f" and {len(arms) - 3} more" if len(arms) > 3 else "")
        link("studies", f"Open: {names}", study=stored.id)
    if len(races) > MAX_LISTED:
        link("studies", f"All studies: {len(races) - MAX_LISTED} more compare masks")


def _draw_row(stored: StoredStudy, images: str, masks: int) -> None:
    state = load(stored.id, 5.0).state
    title = escape(catalog.task(stored.study.arms[0].config.task).title)
    st.html(
        f'<div class="race-row">{images}<div class="lab-choice"><b>{title}, {masks} masks</b><span>{state.done} of '
        f"{len(state.cells)} runs are done · {counted(len(stored.study.seeds), 'seed')} · started by "
        f"{escape(visitor.name_of(stored.owner))}</span></div></div>"
    )
