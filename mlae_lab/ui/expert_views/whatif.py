"""What if: switch experts of a trained run off and on, scale their λ, apply another mask (`?off=`, `?scale=`)."""

from __future__ import annotations

from html import escape

import streamlit as st

from mlae_lab.core.expert_state import off_text
from mlae_lab.runs.store import Run
from mlae_lab.ui import figures, page
from mlae_lab.ui.expert_views.query_result import answer
from mlae_lab.ui.expert_views.saving import save_options
from mlae_lab.ui.expert_views.switches import State, ignored_note, state_key, switches
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import plain

IMAGES = (200, 500, 1000, 2000)
_FORMULA = (
    "y = (W + Σ fᵢ λᵢ bᵢ aᵢᵀ) x + bias, with fᵢ = 0 for an expert that is off (paper, equations 3 to 5). Only the "
    "layers from the first change on are recomputed."
)


def draw(run: Run) -> None:
    """Draw the view."""
    _body(run, state_key(run))


@st.fragment
def _body(run: Run, key: str) -> None:
    state: State = st.session_state[key]
    plan = run.config.plan
    with st.container(key="pair_whatif"):
        left, right = st.columns([5, 6], gap="large")
    with left:
        switches(run, key, state, IMAGES)
    with right:
        if state.trouble:
            st.warning(plain(state.trouble))
        count = st.session_state.get(f"{key}_images", IMAGES[0])
        arguments = {"off": off_text(plan, state.off), "scale": state.scale, "images": count}
        result = answer(run, "whatif", arguments, f"{key}_answer", "Evaluating this state")
        is_old = result is None
        state.result = result or state.result
        with st.container(key="whatif_result"):
            if state.result is not None:
                _draw_result(state.result, state)
    with st.container(key="whatif_flips"):
        if state.result is not None:
            _flips(state.result)
    dimmed = ":is(.st-key-whatif_result, .st-key-whatif_flips)"  # page.css dims them as soon as the state changes
    st.html(f"<style>{dimmed} {{ opacity: .4; }}</style>" if is_old else "<style></style>")
    page.section("Save the remaining experts")
    save_options(run, state.off, state.scale, f"{key}_keep")


def _draw_result(result: dict, state: State) -> None:
    before, now = result["before"], result["now"]
    change = now["accuracy"] - before["accuracy"]
    page.facts(
        ("As trained", f"{before['accuracy']:.1f} %"),
        ("Now", f"{now['accuracy']:.1f} %"),
        ("Change", "none" if now == before else f"{change:+.1f} points"),
        ("Loss", f"{before['loss']:.3f} → {now['loss']:.3f}"),
        ("Images that flip", f"{result['flipped']} of {result['images']}"),
    )
    ignored_note(state)
    if before["class_accuracy"] != now["class_accuracy"]:
        figure = figures.class_change_figure(result["classes"], before["class_accuracy"], now["class_accuracy"])
        live_plot(figure, key="whatif_classes")
    else:
        page.note("The accuracy of every class is as trained.")
    page.computed(
        "The run as trained, evaluated again with these experts off and λ scaled.",
        _FORMULA
        + (f" {result['images']} of the {result['of']} evaluation images." if result["images"] < result["of"] else ""),
    )


def _flips(result: dict) -> None:
    page.section("Images that flip")
    if not result["flips"]:
        page.note("None: all predictions are unchanged. Switch off more experts until a prediction flips.")
        return
    classes, items = result["classes"], []
    for flip in result["flips"]:
        truth, before_name, now_name = (escape(classes[flip[name]]) for name in ("truth", "before", "now"))
        verdict = (
            "now incorrect"
            if flip["before"] == flip["truth"]
            else "now correct"
            if flip["now"] == flip["truth"]
            else "still incorrect"
        )
        items.append(
            f'<figure title="{truth}: {before_name} ({flip["confidence_before"]:.0%}), now {now_name} '
            f'({flip["confidence_now"]:.0%})">'
            f'<img src="{flip["image"]}" alt="{truth}"><figcaption>{before_name} → {now_name}<br>'
            f"{verdict}</figcaption></figure>"
        )
    st.html(f'<div class="lab-examples lab-flips">{"".join(items)}</div>')
    more = f" The first {len(items)} of {result['flipped']}." if len(items) < result["flipped"] else ""
    page.note(f"Hover over an image for the confidence.{more}")
