"""Activation: how much each expert adds, by layer, by class and by image."""

from __future__ import annotations

from html import escape

import streamlit as st

from mlae_lab.runs.store import Run
from mlae_lab.ui import figures, page, queries
from mlae_lab.ui.expert_views.image_picker import chosen_images
from mlae_lab.ui.expert_views.query_result import answer
from mlae_lab.ui.live_plot import live_plot

COUNTS = (256, 1_000, 4_000)  # images
_FORMULA = (
    "Contribution of expert i to a token x = ‖λᵢ bᵢ aᵢᵀx‖ / ‖Wx + bias‖ (bᵢ aᵢᵀ of equations 3 to 5 of the paper): "
    "its output relative to the output of the frozen layer. All experts are on, as at inference."
)


def draw(run: Run) -> None:
    """Draw the grid, classes by experts, and one class or image compared with the average."""
    page.computed(
        "How much each expert adds to the output of its layer, by class and by image. All experts are on.", _FORMULA
    )
    tail, plan = queries.tail(run.id), run.config.plan
    images = tail.started.evaluation_images if tail.started else 0
    count = _count(run, images)
    result = answer(
        run,
        "activation",
        {"by": "class", "images": count},
        "activation_class",
        "Computing the contribution of each expert to each class",
    )
    if result is None:
        return
    canvas, classes = result["canvas"], result["classes"]
    epoch = tail.experts[-1].epoch

    with st.container(key="pair_activation"):
        left, right = st.columns([4, 6], gap="large")
    with left:
        live_plot(figures.expert_figure(canvas, "contribution", plan, epoch), key="activation_grid")
        page.note(
            f"Mean over the tokens of {result['images']:,} evaluation images, spread over the split. Active share, λ "
            "and gradient are in the view Grids."
        )
    with right:
        layers = [r for r, kept in enumerate(plan.kept) if kept]
        with st.container(horizontal=True, vertical_alignment="bottom"):
            layer = st.selectbox(
                "Layer",
                [None, *layers],
                format_func=lambda r: "all layers" if r is None else f"layer {plan.row_labels[r]}",
                key="activation_row",
                width=150,
            )
            relative = (
                st.segmented_control(
                    "Colour", ["relative to mean", "absolute"], default="relative to mean", key="activation_colour"
                )
                != "absolute"
            )
        live_plot(
            figures.class_figure(result["values"], canvas, classes, plan, layer, relative), key="activation_classes"
        )
        page.note(
            "Mean over the images of a class. “Relative to mean”: how much more or less an expert adds to a class "
            "than to all images. The paper describes specialised experts (section 4.3): a specialised expert has a "
            "column with strong colours, an expert that serves all classes equally has none."
        )

    page.section("Compare a class or an image with the average")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        choice = st.segmented_control("Compare", ["A class", "An image"], default="A class", key="activation_what")
        label: int | None = None
        if choice != "An image":
            label = st.selectbox(
                "Class",
                range(len(classes)),
                format_func=lambda k: classes[k],
                key=f"activation_label_{run.id}",
                width=220,
            )
    if label is None:
        chosen = chosen_images(run, "activation", 1)
        image_result = (
            answer(
                run,
                "predict",
                {"image": chosen[0].argument},
                "activation_image",
                "Computing the contribution of each expert to this image",
            )
            if chosen
            else None
        )
        if image_result is None:
            return
        name, canvas_shown = chosen[0].name, image_result["canvas"]
    else:
        name, canvas_shown = f"Class {classes[label]}", result["values"][label]
        page.note(f"Images of this class: {result['counts'][label]:,} of {result['images']:,}.")
    with st.container(key="pair_activation_one"):
        left, right = st.columns(2, gap="large")
    with left:
        live_plot(figures.against_figure(canvas_shown, canvas, plan, escape(name)), key="activation_against")
        page.computed(
            "How much more or less each expert adds here than on average. 0: as much as on average.",
            "Contribution / mean contribution over all images − 1.",
        )
    with right:
        live_plot(figures.expert_figure(canvas_shown, "contribution", plan, epoch), key="activation_one")


def _count(run: Run, images: int) -> int:
    """Let the user choose how many images to average over; the default is the smallest number, which is the fastest."""
    counts = sorted({min(count, images) for count in COUNTS} - {0}) or [COUNTS[0]]
    if len(counts) == 1:
        return counts[0]
    return (
        st.segmented_control(
            "Images", counts, default=counts[0], format_func=lambda n: f"{n:,}", key=f"activation_count_{run.id}"
        )
        or counts[0]
    )
