"""Predict: the prediction for one image, the nearest training images, and the layers that it depends on."""

from __future__ import annotations

from html import escape

import numpy as np
import streamlit as st

from mlae_lab.core.data_url import data_url
from mlae_lab.core.expert_state import off_text
from mlae_lab.data.overlay import Row
from mlae_lab.runs.store import Run
from mlae_lab.ui import figures, page, queries
from mlae_lab.ui.expert_views import batch
from mlae_lab.ui.expert_views.image_picker import Chosen, chosen_images
from mlae_lab.ui.expert_views.query_result import answer
from mlae_lab.ui.expert_views.switches import State, ignored_note, state_key, switches
from mlae_lab.ui.figures.maps import glow_note
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import plain
from mlae_lab.ui.navigation import link

_MANY = "Many images"


def draw(run: Run) -> None:
    """Draw the prediction for an image and what it depends on, or those for many images."""
    kinds = ["One image", _MANY]
    chosen_kind = st.segmented_control(
        "Predict", kinds, default=kinds[0], key="predict_kind", label_visibility="collapsed"
    )
    if chosen_kind == _MANY:
        batch.draw(run)
        return
    chosen = chosen_images(run, "predict", 1)
    if not chosen:
        return
    image = chosen[0]
    result = answer(run, "predict", {"image": image.argument}, "predict_answer", "Classifying the image")
    if result is None:
        return
    classes, top = result["classes"], result["top"]
    with st.container(key="pair_predict"):
        left, right = st.columns([5, 6], gap="large")
    with left:
        name = image.name if result["truth"] is None else f"{image.name}, {classes[result['truth']]}"
        _images([(name, result["image"])], "lab-examples lab-one")
        live_plot(figures.classes_figure(top, classes, result["truth"]), key="predict_classes")
        page.note(
            "Softmax of the logits, as trained. An image unlike those of the task is also assigned to one of these "
            "classes: there is no class for “none of these”."
        )
    with right:
        if result["without_all"] is None:
            _nearest(result)
        else:
            _without_layers(run, result)
    if result["without_all"] is None:
        page.note(f"This run ({escape(run.config.what)}) has no experts to inspect or to switch off.")
        return
    _nearest(result)
    _experts(run, image, result)
    whatif(run, state_key(run), image.argument, result["truth"])


def _without_layers(run: Run, result: dict) -> None:
    first = result["top"][0]
    labels = run.config.plan.row_labels
    without = [{**layer, "layer": labels[layer["layer"] - 1]} for layer in result["without_layer"]]
    figure = figures.without_figure(
        without, result["without_all"], first["probability"], result["classes"], first["class"]
    )
    live_plot(figure, key="predict_without")
    page.note(
        "All experts of one layer off at a time, everything else as trained. The head was trained with all experts on."
    )


def _nearest(result: dict) -> None:
    page.section("The nearest training images")
    classes = result["classes"]
    _images([(f"{classes[n['truth']]}, {n['cosine']:.3f}", n["image"]) for n in result["nearest"]], "lab-examples")
    page.note("Cosine similarity of the features that the head receives, over the training images of the run.")


def _experts(run: Run, image: Chosen, result: dict) -> None:
    page.section("Contribution of each expert to this image")
    with st.container(key="pair_predict_experts"):
        left, right = st.columns([4, 6], gap="large")
    with left:
        epoch = queries.tail(run.id).experts[-1].epoch
        live_plot(
            figures.expert_figure(result["canvas"], "contribution", run.config.plan, epoch),
            key="predict_grid",
        )
        page.computed(
            "How much each expert adds to the output of its layer for this image.",
            "Mean over the tokens of this image of ‖λ b aᵀx‖ / ‖Wx + bias‖ (equations 3 to 5 of the paper).",
        )
    with right:
        _maps(run, image.argument, result)
    with st.container(horizontal=True):
        query = {} if result["index"] is None else {"images": str(result["index"])}
        link("experts", "All maps of this image", run=run.id, view="attention", **query)


@st.fragment
def whatif(run: Run, key: str, argument: int | dict[str, str], truth: int | None) -> None:
    """Draw the same image with experts off: switches, and both predictions next to each other."""
    state: State = st.session_state[key]
    page.section("What if: this image with experts off")
    with st.container(key="pair_predict_whatif"):
        left, right = st.columns([5, 6], gap="large")
    with left:
        switches(run, key, state)
    with right:
        if state.trouble:
            st.warning(plain(state.trouble))
        arguments = {"image": argument, "off": off_text(run.config.plan, state.off), "scale": state.scale}
        result = answer(run, "predict_without", arguments, "predict_whatif", "Evaluating this state")
        if result is None:
            return
        ignored_note(state)
        live_plot(
            figures.two_answers_figure(result["before"], result["now"], result["classes"], truth), key="predict_two"
        )
        page.computed(
            "The prediction as trained and with these experts off. Nothing is trained, and the head does not change.",
            "y = (W + Σ fᵢ λᵢ bᵢ aᵢᵀ) x + bias, with fᵢ = 0 for an expert that is off (paper, equations 3 to 5).",
        )
        link("experts", "Apply to all evaluation images", run=run.id, view="whatif", **_state_query(arguments))


def _state_query(arguments: dict) -> dict[str, str]:
    """Return the query parameters of a state that differ from the defaults."""
    query = {"off": arguments["off"]} if arguments["off"] else {}
    return query | ({"scale": f"{arguments['scale']:g}"} if arguments["scale"] != 1.0 else {})


def _maps(run: Run, argument: int | dict[str, str], result: dict) -> None:
    strongest = max((v, r) for r, row in enumerate(result["canvas"]) for v in row if v is not None)[1] + 1
    maps = answer(run, "attention", {"images": [argument], "layer": strongest}, "predict_maps", "Computing the maps")
    if maps is None:
        return
    if maps["no_maps"]:
        page.note(f"{maps['no_maps']}.")
        return
    contributions = tuple(np.array(image, float) for image in maps["images"][0]["added"])
    half = (
        -(-len(contributions) // 2) if len(contributions) > 4 else len(contributions)
    )  # two rows where the maps of one would be too small
    names = [f"expert {n}" for n in maps["experts"]]
    rows = [Row(result["image"], "", contributions[:half])]
    if half < len(contributions):
        rows.append(Row(result["image"], "", (*contributions[half:], *(None,) * (2 * half - len(contributions)))))
        names = [
            f"{a} and {b}" if b else a
            for a, b in zip(names[:half], [*(str(n) for n in maps["experts"][half:]), ""], strict=False)
        ]
    title = f"Layer {run.config.plan.row_labels[strongest - 1]}, which has the strongest expert: contribution of each"
    live_plot(
        figures.maps_figure(rows, names, title, "‖λ b aᵀx‖ at each patch", f"experts-layer-{strongest}"),
        key="predict_maps",
    )
    page.note(f"‖λᵢ bᵢ aᵢᵀx_t‖ at each patch, as in the paper's figure 6. {glow_note()}")


def _images(images: list[tuple[str, str]], kind: str) -> None:
    tiles = "".join(
        f'<figure><img src="{data_url(image)}" alt="{escape(name)}"><figcaption>{escape(name)}</figcaption></figure>'
        for name, image in images
    )
    st.html(f'<div class="{kind}">{tiles}</div>')
