"""Experts: what the experts of a run became (`?run=`)."""

from __future__ import annotations

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.runs.store import StoreError
from mlae_lab.ui import figures, page, reads
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.navigation import link
from mlae_lab.ui.run_cards import accuracy_text, run_cards

page.heading(
    "Experts", "What each expert of a run adds, how its coefficient moved, and how alike the experts of a layer are."
)
measured = [run for run in reads.runs() if run.config.method == "mlae" and reads.store().last(run.id, "experts")]
asked = st.query_params.get("run")
try:
    run = reads.run(asked) if asked else (measured[0] if measured else None)
except StoreError as error:
    st.warning(f"{error}.")
    run = measured[0] if measured else None

if run is None:
    page.section("No run has experts to show yet")
    page.note(
        "After the first measured epoch of a run, four grids stand here: contribution, coefficient, share of steps and "
        "gradient of each expert; and the similarity of the experts in every layer."
    )
    link("train", "Set up a run")
    st.stop()

tail = reads.tail(run.id)
if not tail.experts:
    page.section(f"Run {run.id} has no experts to show")
    page.note("A linear probe has none; other runs show theirs after the first measured epoch.")
    link("train", "Watch this run", run=run.id)
    st.stop()

page.facts(
    ("Run", f"{run.id} {page.status_word(run.status)}"),
    ("Task", catalog.task(run.config.task).title),
    ("Mask", f"{run.config.plan.kind.value}, {run.config.plan.experts} experts"),
    ("Accuracy, last epoch", accuracy_text(run)),
)
epochs = [stats.epoch for stats in tail.experts]
chosen = (
    st.select_slider("Epoch", epochs, value=epochs[-1], key=f"experts_epoch_{run.id}") if len(epochs) > 1 else epochs[0]
)
index = epochs.index(chosen)
stats, alike = tail.experts[index], tail.similarity[index]

with st.container(key="pair_experts"):
    left, right = st.columns(2, gap="large")
for number, quantity in enumerate(figures.QUANTITIES):
    with (left, right)[number % 2]:
        figure = figures.expert_figure(getattr(stats, quantity), quantity, run.config.plan, chosen)
        live_plot(figure, key=f"experts_{quantity}")
        page.note(f"{figures.QUANTITIES[quantity][1]}.")

page.section("How alike the experts of a layer are")
with st.container(key="pair_similarity"):
    left, right = st.columns(2, gap="large")
with left:
    live_plot(figures.similarity_tiles(alike), key="experts_tiles")
with right:
    live_plot(figures.similarity_curve(tail.similarity[: index + 1]), key="experts_similarity")
    page.note(
        "cos(bᵢ aᵢᵀ, bⱼ aⱼᵀ) = cos(bᵢ, bⱼ) · cos(aᵢ, aⱼ), with the sign of λᵢ λⱼ (paper, A.4), averaged over the "
        "pairs of a layer without the diagonal and then over layers. |cosine| says how much two experts overlap; the signed "
        "mean also says whether they pull together or against each other."
    )
link("train", "The run itself", run=run.id)
others = [entry for entry in measured if entry.id != run.id][:12]
if others:
    page.section("Other runs")
    picked = run_cards(others, key="experts_others")
    if picked:
        st.query_params["run"] = picked
        st.rerun()
