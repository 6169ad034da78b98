"""What if: switch experts of a trained run off and on, scale their λ, put another mask over it (`?off=`, `?scale=`)."""

from __future__ import annotations

from html import escape

import streamlit as st

from mlae_lab.core.expert_state import off_text
from mlae_lab.runs.store import Run
from mlae_lab.ui import figures, page
from mlae_lab.ui.expert_views.query_result import answer
from mlae_lab.ui.expert_views.saving import keeping
from mlae_lab.ui.expert_views.switches import State, ignored_note, opened, switches
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import plain

IMAGES = (200, 500, 1000, 2000)
_FORMULA = (
    "y = (W + Σ fᵢ λᵢ bᵢ aᵢᵀ) x + bias, with fᵢ = 0 for an expert that is off (paper, equations 3 to 5). Only what "
    "lies behind the first change is computed again."
)


def draw(run: Run) -> None:
    """Draw the view."""
    _body(run, opened(run))


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
        asked = {"off": off_text(plan, state.off), "scale": state.scale, "images": count}
        found = answer(run, "whatif", asked, f"{key}_answer", "the accuracy in this state")
        if found is not None:
            _answer(found, state)
    if found is not None:
        _flips(found)
    page.section("Keep what is left")
    keeping(run, state.off, state.scale, f"{key}_keep")


def _answer(found: dict, state: State) -> None:
    before, now = found["before"], found["now"]
    change = now["accuracy"] - before["accuracy"]
    page.facts(
        ("As trained", f"{before['accuracy']:.1f} %"),
        ("Now", f"{now['accuracy']:.1f} %"),
        ("Change", "none" if now == before else f"{change:+.1f} points"),
        ("Loss", f"{before['loss']:.3f} → {now['loss']:.3f}"),
        ("Images that flip", f"{found['flipped']} of {found['images']}"),
    )
    ignored_note(state)
    figure = figures.class_change_figure(found["classes"], before["class_accuracy"], now["class_accuracy"])
    live_plot(figure, key="whatif_classes")
    page.note(
        _FORMULA
        + (f" {found['images']} of the {found['of']} evaluation images." if found["images"] < found["of"] else "")
    )


def _flips(found: dict) -> None:
    page.section("Images that flip")
    if not found["flips"]:
        page.note("None: every image is answered as before. Switch experts off until one is answered otherwise.")
        return
    classes, items = found["classes"], []
    for flip in found["flips"]:
        truth, was, is_now = (escape(classes[flip[name]]) for name in ("truth", "before", "now"))
        word = "lost" if flip["before"] == flip["truth"] else "won" if flip["now"] == flip["truth"] else "still wrong"
        items.append(
            f'<figure title="{truth}: {was} ({flip["confidence_before"]:.0%}), now {is_now} '
            f'({flip["confidence_now"]:.0%})">'
            f'<img src="{flip["image"]}" alt="{truth}"><figcaption>{was} → {is_now}<br>{word}</figcaption></figure>'
        )
    st.html(f'<div class="lab-examples lab-flips">{"".join(items)}</div>')
    more = f" The first {len(items)} of {found['flipped']}." if len(items) < found["flipped"] else ""
    page.note(f"Lost: it was right. Won: it is right now. Rest on an image for how sure the run is.{more}")
