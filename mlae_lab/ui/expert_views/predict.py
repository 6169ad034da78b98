"""Predict: what a run makes of one image, what it takes for alike, and which layer the answer hangs on."""

from __future__ import annotations

from html import escape

import numpy as np
import streamlit as st

from mlae_lab.core.expert_state import off_text
from mlae_lab.data.overlay import Row
from mlae_lab.runs.store import Run
from mlae_lab.ui import figures, page
from mlae_lab.ui.expert_views.image_picker import Chosen, chosen_images, image_address
from mlae_lab.ui.expert_views.query_result import answer
from mlae_lab.ui.expert_views.switches import State, ignored_note, opened, switches
from mlae_lab.ui.figures.maps import glow_words
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import plain
from mlae_lab.ui.navigation import link


def draw(run: Run) -> None:
    """Draw the answer to an image and where it comes from."""
    chosen = chosen_images(run, "predict", 1)
    if not chosen:
        return
    one = chosen[0]
    found = answer(run, "predict", {"image": one.argument}, "predict_answer", "what this run makes of the image")
    if found is None:
        return
    classes, top = found["classes"], found["top"]
    with st.container(key="pair_predict"):
        left, right = st.columns([5, 6], gap="large")
    with left:
        name = one.name if found["truth"] is None else f"{one.name}, {classes[found['truth']]}"
        _images([(name, found["image"])], "lab-examples lab-one")
        live_plot(figures.classes_figure(top, classes, found["truth"]), key="predict_classes")
        page.note(
            "Softmax of the logits, as trained. An image unlike those of the task gets an answer too: this run knows "
            "no “none of these”."
        )
    with right:
        if found["without_all"] is None:
            _nearest(found)
        else:
            _without(run, found)
    if found["without_all"] is None:
        page.note("This run trained a head alone: there are no experts to look into or to switch off.")
        return
    _nearest(found)
    _experts(run, one, found)
    whatif(run, opened(run), one.argument, found["truth"])


def _without(run: Run, found: dict) -> None:
    first = found["top"][0]
    labels = run.config.plan.row_labels
    without = [{**layer, "layer": labels[layer["layer"] - 1]} for layer in found["without_layer"]]
    figure = figures.without_figure(
        without, found["without_all"], first["probability"], found["classes"], first["class"]
    )
    live_plot(figure, key="predict_without")
    page.note(
        "All experts of one layer off at a time, everything else as trained; the head stays as it learned to read the "
        "network with them."
    )


def _nearest(found: dict) -> None:
    page.section("The nearest training images")
    classes = found["classes"]
    _images([(f"{classes[n['truth']]}, {n['cosine']:.3f}", n["image"]) for n in found["nearest"]], "lab-examples")
    page.note(
        "Cosine of what the head reads, over the images that the run was trained on. Alike for the head is what lies "
        "close there."
    )


def _experts(run: Run, one: Chosen, found: dict) -> None:
    page.section("What each expert adds to this image, and where")
    with st.container(key="pair_predict_experts"):
        left, right = st.columns([4, 6], gap="large")
    with left:
        live_plot(
            figures.expert_figure(found["canvas"], "contribution", run.config.plan, run.config.epochs),
            key="predict_grid",
        )
        page.note("Mean over the tokens of this image of ‖λ b aᵀx‖ / ‖Wx + bias‖ (equations 3 to 5 of the paper).")
    with right:
        _maps(run, one.argument, found)
    with st.container(horizontal=True):
        query = {} if found["index"] is None else {"images": str(found["index"])}
        link("experts", "All maps of this image", run=run.id, view="attention", **query)


@st.fragment
def whatif(run: Run, key: str, argument: int | dict[str, str], truth: int | None) -> None:
    """The same image with experts off: switches, and both answers beside each other."""
    state: State = st.session_state[key]
    page.section("What if experts were off, on this image")
    with st.container(key="pair_predict_whatif"):
        left, right = st.columns([5, 6], gap="large")
    with left:
        switches(run, key, state)
    with right:
        if state.trouble:
            st.warning(plain(state.trouble))
        asked = {"image": argument, "off": off_text(run.config.plan, state.off), "scale": state.scale}
        found = answer(run, "predict_without", asked, "predict_whatif", "the answer in this state")
        if found is None:
            return
        ignored_note(state)
        live_plot(figures.two_answers_figure(found["before"], found["now"], found["classes"], truth), key="predict_two")
        page.note(
            "y = (W + Σ fᵢ λᵢ bᵢ aᵢᵀ) x + bias, with fᵢ = 0 for an expert that is off (paper, equations 3 to 5). "
            "Nothing is trained, and the head stays as it is."
        )
        link("experts", "The same on all evaluation images", run=run.id, view="whatif", **_set(asked))


def _set(asked: dict) -> dict[str, str]:
    """What of a state stands in an address."""
    given = {"off": asked["off"]} if asked["off"] else {}
    return given | ({"scale": f"{asked['scale']:g}"} if asked["scale"] != 1.0 else {})


def _maps(run: Run, argument: int | dict[str, str], found: dict) -> None:
    strongest = max((v, r) for r, row in enumerate(found["canvas"]) for v in row if v is not None)[1] + 1
    maps = answer(
        run, "attention", {"images": [argument], "layer": strongest}, "predict_maps", "where the experts look"
    )
    if maps is None:
        return
    if maps["no_maps"]:
        page.note(f"{maps['no_maps']}.")
        return
    each = tuple(np.array(one, float) for one in maps["images"][0]["added"])
    half = -(-len(each) // 2) if len(each) > 4 else len(each)  # two rows where one would be too fine
    names = [f"expert {n}" for n in maps["experts"]]
    rows = [Row(found["image"], "", each[:half])]
    if half < len(each):
        rows.append(Row(found["image"], "", (*each[half:], *(None,) * (2 * half - len(each)))))
        names = [
            f"{a} and {b}" if b else a
            for a, b in zip(names[:half], [*(str(n) for n in maps["experts"][half:]), ""], strict=False)
        ]
    title = f"Layer {run.config.plan.row_labels[strongest - 1]}, where one expert adds most: what each adds"
    live_plot(
        figures.maps_figure(rows, names, title, "‖λ b aᵀx‖ at each patch", f"experts-layer-{strongest}"),
        key="predict_maps",
    )
    page.note(f"‖λᵢ bᵢ aᵢᵀx_t‖ at each patch, in the manner of the paper's figure 6. {glow_words()}")


def _images(shown: list[tuple[str, str]], kind: str) -> None:
    tiles = "".join(
        f'<figure><img src="{image_address(image)}" '
        f'alt="{escape(name)}"><figcaption>{escape(name)}</figcaption></figure>'
        for name, image in shown
    )
    st.html(f'<div class="{kind}">{tiles}</div>')
