"""The grids of a run: contribution, λ, active share and gradient of each expert, and similarity within each layer; for
a method without a mask what it recorded by layer."""

from __future__ import annotations

from html import escape

import streamlit as st

from mlae_lab.runs.store import Run
from mlae_lab.ui import figures, page, queries
from mlae_lab.ui.layer_grids import layer_grids
from mlae_lab.ui.live_plot import live_plot


def draw(run: Run) -> None:
    """Draw the statistics that the run recorded, at any evaluated epoch."""
    tail = queries.tail(run.id)
    if not run.config.has_mask:
        _by_layer(run, tail)
        return
    epochs = [stats.epoch for stats in tail.experts]
    epoch = (
        st.select_slider("Epoch", epochs, value=epochs[-1], key=f"experts_epoch_{run.id}")
        if len(epochs) > 1
        else epochs[0]
    )
    stats = tail.experts[epochs.index(epoch)]
    similarity = [entry for entry in tail.similarity if entry.epoch <= epoch]

    columns = []
    for number, quantity in enumerate(figures.QUANTITIES):
        if not columns:  # a container for each row keeps its titles level
            with st.container(key=f"pair_experts_{number}"):
                columns = list(st.columns(2, gap="large"))
        with columns.pop(0):
            figure = figures.expert_figure(getattr(stats, quantity), quantity, run.config.plan, epoch)
            live_plot(figure, key=f"experts_{quantity}")
            page.computed(figures.PLAIN[quantity], f"{figures.QUANTITIES[quantity][1]}.")

    for own in layer_grids(tail.statistics, described=True):  # such as learned drop rates
        step = next((event.step for event in tail.evaluations if event.epoch == epoch), None)
        if (canvas := own.canvases.get(step or 0)) is None:
            continue
        if not columns:
            with st.container(key=f"pair_experts_{own.name}"):
                columns = list(st.columns(2, gap="large"))
        with columns.pop(0):
            live_plot(figures.layer_grid_figure(own, canvas, epoch), key=f"experts_{own.name}")
            page.note(escape(own.grid.note))

    page.section("Similarity of the experts of a layer")
    if not similarity or similarity[-1].epoch != epoch:  # damaged, or not read yet
        page.note(f"The similarity after epoch {epoch} cannot be read.")
        return
    with st.container(key="pair_similarity"):
        left, right = st.columns(2, gap="large")
    with left:
        live_plot(figures.similarity_tiles(similarity[-1], run.config.plan.row_labels), key="experts_tiles")
    with right:
        live_plot(figures.similarity_curve(similarity), key="experts_similarity")
        page.computed(
            "|cosine| shows how much two experts overlap; the signed mean also shows whether they act in the same or "
            "in opposite directions.",
            "cos(bᵢ aᵢᵀ, bⱼ aⱼᵀ) = cos(bᵢ, bⱼ) · cos(aᵢ, aⱼ), with the sign of λᵢ λⱼ (paper, A.4), averaged over the "
            "pairs of a layer without the diagonal and then over layers.",
        )


def _by_layer(run: Run, tail: queries.Tail) -> None:
    grids = layer_grids(tail.statistics)
    epochs = {event.step: event.epoch for event in tail.evaluations}
    steps = [step for step in epochs if any(step in own.canvases for own in grids)]
    if not steps:
        page.note(
            f"This run of {escape(run.config.what)} recorded no grid; the values that it recorded are on its page."
        )
        return
    step = steps[-1]
    if len(steps) > 1:
        step = st.select_slider(
            "Epoch", steps, value=step, format_func=lambda each: str(epochs[each]), key=f"experts_epoch_{run.id}"
        )
    for first in range(0, len(grids), 2):
        with st.container(key=f"pair_layers_{first}"):
            columns = st.columns(2, gap="large")
        for column, own in zip(columns, grids[first : first + 2], strict=False):
            with column:
                if (canvas := own.canvases.get(step)) is None:
                    page.note(f"{escape(own.title)}: not recorded in this epoch.")
                    continue
                live_plot(figures.layer_grid_figure(own, canvas, epochs[step]), key=f"layers_{own.name}")
                page.note(escape(own.grid.note))
