"""The grids of a run: contribution, λ, active share and gradient of each expert, and similarity within each layer."""

from __future__ import annotations

import streamlit as st

from mlae_lab.runs.store import Run
from mlae_lab.ui import figures, page, queries
from mlae_lab.ui.live_plot import live_plot


def draw(run: Run) -> None:
    """Draw the statistics that the run recorded, at any evaluated epoch."""
    tail = queries.tail(run.id)
    epochs = [stats.epoch for stats in tail.experts]
    epoch = (
        st.select_slider("Epoch", epochs, value=epochs[-1], key=f"experts_epoch_{run.id}")
        if len(epochs) > 1
        else epochs[0]
    )
    index = epochs.index(epoch)
    stats, similarity = tail.experts[index], tail.similarity[index]

    columns = []
    for number, quantity in enumerate(figures.QUANTITIES):
        if not columns:  # a container for each row keeps its titles level
            with st.container(key=f"pair_experts_{number}"):
                columns = list(st.columns(2, gap="large"))
        with columns.pop(0):
            figure = figures.expert_figure(getattr(stats, quantity), quantity, run.config.plan, epoch)
            live_plot(figure, key=f"experts_{quantity}")
            page.note(f"{figures.QUANTITIES[quantity][1]}.")

    page.section("Similarity of the experts of a layer")
    with st.container(key="pair_similarity"):
        left, right = st.columns(2, gap="large")
    with left:
        live_plot(figures.similarity_tiles(similarity, run.config.plan), key="experts_tiles")
    with right:
        live_plot(figures.similarity_curve(tail.similarity[: index + 1]), key="experts_similarity")
        page.note(
            "cos(bᵢ aᵢᵀ, bⱼ aⱼᵀ) = cos(bᵢ, bⱼ) · cos(aᵢ, aⱼ), with the sign of λᵢ λⱼ (paper, A.4), averaged over the "
            "pairs of a layer without the diagonal and then over layers. |cosine| shows how much two experts overlap; "
            "the signed mean also shows whether they act in the same or in opposite directions."
        )
