"""Activation: what each expert adds, by layer, by class and by image."""

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
    "what it adds to its layer, as a part of what the frozen layer says. All experts are on, as at inference."
)


def draw(run: Run) -> None:
    """Draw the grid, classes by experts, and one image beside the average."""
    page.note(_FORMULA)
    tail, plan = queries.tail(run.id), run.config.plan
    images = tail.started.evaluation_images if tail.started else 0
    count = _count(run, images)
    found = answer(
        run, "activation", {"by": "class", "images": count}, "activation_class", "what each expert adds to each class"
    )
    if found is None:
        return
    canvas, classes = found["canvas"], found["classes"]
    epoch = tail.experts[-1].epoch

    with st.container(key="pair_activation"):
        left, right = st.columns([4, 6], gap="large")
    with left:
        live_plot(figures.expert_figure(canvas, "contribution", plan, epoch), key="activation_grid")
        page.note(
            f"Mean over the tokens of {found['images']:,} evaluation images, spread over the split. Share of steps, λ "
            "and gradient stand under Grids."
        )
    with right:
        rows = [r for r, kept in enumerate(plan.kept) if kept]
        with st.container(horizontal=True, vertical_alignment="bottom"):
            row = st.selectbox(
                "Experts of",
                [None, *rows],
                format_func=lambda r: "all layers" if r is None else f"layer {plan.row_labels[r]}",
                key="activation_row",
                width=150,
            )
            relative = (
                st.segmented_control(
                    "Colour", ["against its mean", "as it is"], default="against its mean", key="activation_colour"
                )
                != "as it is"
            )
        live_plot(figures.class_figure(found["values"], canvas, classes, plan, row, relative), key="activation_classes")
        page.note(
            "Mean over the images of a class; “against its mean” is how much more or less an expert adds to a class "
            "than to all images. The paper speaks of specialised experts (section 4.3): a specialist has a row of "
            "strong colours, an expert that serves all alike has none."
        )

    page.section("One class or one image against the average")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        what = st.segmented_control("What", ["A class", "An image"], default="A class", key="activation_what")
        label: int | None = None
        if what != "An image":
            label = st.selectbox(
                "Class",
                range(len(classes)),
                format_func=lambda k: classes[k],
                key=f"activation_label_{run.id}",
                width=220,
            )
    if label is None:
        one = chosen_images(run, "activation", 1)
        single = (
            answer(
                run,
                "predict",
                {"image": one[0].argument},
                "activation_image",
                "what each expert adds to this image",
            )
            if one
            else None
        )
        if single is None:
            return
        name, shown = one[0].name, single["canvas"]
    else:
        name, shown = classes[label], found["values"][label]
        page.note(f"{found['counts'][label]} images of this class are among the {found['images']:,}.")
    with st.container(key="pair_activation_one"):
        left, right = st.columns(2, gap="large")
    with left:
        live_plot(figures.against_figure(shown, canvas, plan, escape(name)), key="activation_against")
        page.note("Contribution here / mean contribution over all these images − 1.")
    with right:
        live_plot(figures.expert_figure(shown, "contribution", plan, epoch), key="activation_one")


def _count(run: Run, images: int) -> int:
    """How many images to average over; more take longer, so a few are the start."""
    counts = sorted({min(count, images) for count in COUNTS} - {0}) or [COUNTS[0]]
    if len(counts) == 1:
        return counts[0]
    return (
        st.segmented_control(
            "Images", counts, default=counts[0], format_func=lambda n: f"{n:,}", key=f"activation_count_{run.id}"
        )
        or counts[0]
    )
