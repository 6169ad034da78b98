"""Attention: where each expert of a layer acts and where the network attends, images down and experts across."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import streamlit as st

from mlae_lab.data.overlay import Row
from mlae_lab.runs.store import Run
from mlae_lab.ui import figures, page
from mlae_lab.ui.expert_views.image_picker import chosen_images
from mlae_lab.ui.expert_views.query_result import answer
from mlae_lab.ui.figures.maps import SCALES, glow_note
from mlae_lab.ui.live_plot import live_plot

MAX_IMAGES = 6  # images side by side
# name: (label, whether signed, title of the figure after the layer, quantity, note)
SHOWN: dict[str, tuple[str, bool, str, str, str]] = {
    "added": (
        "Contribution",
        False,
        "what each expert adds, patch by patch",
        "‖λ b aᵀx‖ at each patch",
        "Feature map of expert i at patch t: ‖λᵢ bᵢ aᵢᵀx_t‖, what the expert adds to the layer's output there.",
    ),
    "signed": (
        "Signed contribution",
        True,
        "what each expert adds, and in which direction",
        "λ ‖b‖ aᵀx at each patch",
        "λᵢ ‖bᵢ‖ aᵢᵀx_t. Its magnitude is what the expert adds. Orange: along bᵢ, blue: against it, dark: 0.",
    ),
    "change": (
        "Change of attention",
        True,
        "how each expert alone changes the attention of its block",
        "change of attention to each patch",
        "Attention of the block to each patch with only expert i in this layer, minus that with none of its experts; "
        "all other layers as trained. Orange: the patch gains attention, blue: it loses attention, dark: 0.",
    ),
}
_PLAIN = {  # the same without formulas
    "added": "How much each expert adds at each patch of the image.",
    "signed": "How much each expert adds at each patch, and in which direction.",
    "change": "How the attention moves when one expert alone is switched on.",
}
_OPEN = (
    "The paper shows such maps for one block (section 4.3, figure 6; appendix A.7, figure 7) but states neither the "
    "quantity nor the block; choose both here."
)


def draw(run: Run) -> None:
    """Draw the maps of the experts, then the attention of the block and the rollout."""
    chosen = chosen_images(run, "attention", MAX_IMAGES, default=3)
    layers = [r + 1 for r, kept in enumerate(run.config.plan.kept) if kept]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        layer = st.selectbox(
            "Layer",
            layers,
            index=_layer_index(layers),
            key=f"attention_layer_{run.id}",
            width=110,
            format_func=lambda row: run.config.plan.row_labels[row - 1],
        )
        show = (
            st.segmented_control(
                "Quantity", list(SHOWN), format_func=lambda n: SHOWN[n][0], default="added", key="attention_show"
            )
            or "added"
        )
        scale = st.segmented_control("Scale", SCALES, default=SCALES[0], key="attention_scale") or SCALES[0]
        opacity = st.slider("Opacity", 0, 100, 70, 5, format="%d %%", key="attention_opacity", width=180) / 100
    st.query_params["layer"] = str(layer)
    if not chosen:
        return
    name = run.config.plan.row_labels[layer - 1]
    arguments = {"images": [image.argument for image in chosen], "layer": layer}
    result = answer(run, "attention", arguments, "attention_maps", f"Computing the maps of layer {name}")
    if result is None:
        return
    names = [
        _name(image, result["classes"], given.name) for image, given in zip(result["images"], chosen, strict=False)
    ]
    _experts(result, name, names, show, scale, opacity)
    _network(result, name, names, scale, opacity)
    st.download_button(
        "Save all maps as JSON",
        lambda: json.dumps(_without_images(result)),
        f"maps-{run.id}-layer-{layer}.json",
        "application/json",
    )


def _layer_index(layers: list[int]) -> int:
    requested = st.query_params.get("layer", "")
    return (
        layers.index(int(requested))
        if requested.isascii() and requested.isdigit() and int(requested) in layers
        else len(layers) - 1
    )


def _name(image: dict[str, Any], classes: list[str], given: str) -> str:
    return given if image["truth"] is None else classes[image["truth"]]


def _experts(result: dict[str, Any], layer: str, names: list[str], show: str, scale: str, opacity: float) -> None:
    page.section(f"Experts of layer {layer}")
    _, signed, title, quantity, note = SHOWN[show]
    reason = result["no_maps"] if show != "change" else result["no_attention"] or result["no_alone"]
    maps = [_expert_maps(image, show) for image in result["images"]]
    complete = [image_maps for image_maps in maps if image_maps is not None]
    if reason or len(complete) < len(maps):
        page.note(f"{reason or 'An expert of rank above 1 has no single direction, so its map has no sign'}.")
        return
    columns = [f"expert {number}" for number in result["experts"]]
    rows = [
        Row(image["image"], name, tuple(image_maps))
        for image, name, image_maps in zip(result["images"], names, complete, strict=False)
    ]
    title = f"Layer {layer}: {title}"
    signs = (signed,) * len(columns)
    live_plot(
        figures.maps_figure(
            rows, columns, title, quantity, f"experts-layer-{result['layer']}-{show}", signs, scale, opacity
        ),
        key="attention_experts",
    )
    page.computed(_PLAIN[show] + ("" if signed else f" {glow_note(scale)}"), f"{note} {_OPEN}")


def _expert_maps(image: dict[str, Any], show: str) -> np.ndarray | None:
    """Return the maps of an image, (experts, height, width), or None where this run has none of this kind."""
    if show != "change":
        return None if image[show] is None else np.array(image[show], float)
    attention = image["attention"]
    return None if attention is None else np.array(attention["alone"], float) - np.array(attention["none"], float)


def _network(result: dict[str, Any], layer: str, names: list[str], scale: str, opacity: float) -> None:
    page.section("The network with and without the adapter")
    if result["no_attention"]:
        page.note(f"{result['no_attention']}.")
        return
    columns, signs = ["rollout, with", "rollout, without", "rollout, change"], [False, False, True]
    if not result["no_alone"]:
        columns += [f"layer {layer}, {state}" for state in ("with", "without", "change")]
        signs += [False, False, True]
    rows = []
    for image, name in zip(result["images"], names, strict=False):
        maps = _with_and_without(image["rollout"]["with"], image["rollout"]["without"])
        if not result["no_alone"]:
            maps += _with_and_without(image["attention"]["trained"], image["attention"]["frozen"])
        rows.append(Row(image["image"], name, tuple(maps)))
    live_plot(
        figures.maps_figure(
            rows, columns, "What the network attends to, with and without the adapter", "attention to each patch",
            "rollout", signs, scale, opacity,
        ),
        key="attention_rollout",
    )  # fmt: skip
    page.computed(
        "Where the network looks with and without its experts. Attention shows which patches are mixed, not which ones "
        f"determine the prediction. {glow_note(scale)} Change is with minus without; orange: more attention, blue: "
        f"less, "
        "dark: 0.",
        "Rollout: rᵀ Ã_L ⋯ Ã_1 with Ã = (A + I) / 2, A the mean over heads of softmax(q kᵀ / √d) (Abnar and Zuidema "
        f"2020). Attention of the layer: rᵀA of its block. r: {result['tokens']}. “Without” is the network with every "
        "expert off. Attention to class and register tokens is left out, so a map sums to less than 1.",
    )
    if result["no_alone"]:
        page.note(f"{result['no_alone']}.")


def _with_and_without(on: list, off: list) -> list[np.ndarray]:
    a, b = np.array(on, float), np.array(off, float)
    return [a, b, a - b]


def _without_images(result: dict[str, Any]) -> dict[str, Any]:
    return {**result, "images": [{k: v for k, v in image.items() if k != "image"} for image in result["images"]]}
