"""Race: the studies that compare masks; or several runs of a link, compared during training (`?runs=a,b,...`)."""

from __future__ import annotations

from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.data.listing import counted
from mlae_lab.runs.store import StoreError
from mlae_lab.ui import page
from mlae_lab.ui.markdown import plain
from mlae_lab.ui.navigation import link, show_address
from mlae_lab.ui.race_view import draw_races, draw_runs, runs_of_link

show_address()
runs, missing = [], []
if names := st.query_params.get("runs"):
    try:
        runs, missing = runs_of_link(names)
    except StoreError as error:
        page.heading("Race")
        st.warning(f"This race cannot be shown: {plain(str(error))}.")
        link("race", "See all races")
if runs:
    config = runs[0].config
    seeds = sorted({run.config.seed for run in runs})
    page.heading(
        f"Race on {escape(catalog.task(config.task).title)}",
        f"{counted(len({run.config.plan for run in runs}), 'mask')}, {counted(len(seeds), 'seed')}, "
        f"{counted(config.epochs, 'epoch')} each, {catalog.backbone(config.backbone).title}, "
        f"evaluated on {config.protocol}.",
    )
    if missing:
        st.info(
            f"{'Run' if len(missing) == 1 else 'Runs'} {', '.join(missing)} of this race "
            f"{'is' if len(missing) == 1 else 'are'} not in the list of runs any more, archived or deleted: this page "
            "shows the others."
        )
    draw_runs(runs)
    link("race", "All races")
elif not names:
    page.heading("Race", "Masks with equal settings and seeds, compared during training.")
    draw_races()
