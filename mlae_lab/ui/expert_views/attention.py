"""Attention: where each expert of a layer and the network itself look, images down and experts across."""

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
from mlae_lab.ui.figures.maps import SCALES, glow_words
from mlae_lab.ui.live_plot import live_plot

MOST = 6  # images side by side
# name: (words on the screen, both signs, the figure's title behind the layer, its quantity, its note)
SHOWN: dict[str, tuple[str, bool, str, str, str]] = {
    "added": (
        "Adds",
        False,
        "what each expert adds, patch by patch",
        "‖λ b aᵀx‖ at each patch",
        "Feature map of expert i at patch t: ‖λᵢ bᵢ aᵢᵀx_t‖, what the expert adds to the layer's output there.",
    ),
    "signed": (
        "Adds, signed",
        True,
        "what each expert adds, and in which direction",
        "λ ‖b‖ aᵀx at each patch",
        "λᵢ ‖bᵢ‖ aᵢᵀx_t. Its magnitude is what the expert adds. Orange: along bᵢ, blue: against it, dark: 0.",
    ),
    "turned": (
        "Turns attention",
        True,
        "how each expert alone turns the attention of its block",
        "change of attention to each patch",
        "Attention of the block to each patch with expert i alone in this layer, less that with none of its experts; "
        "all other layers as trained. Orange: the patch gains attention, blue: it loses some, dark: 0.",
    ),
}
_OPEN = (
    "The paper shows such maps of one block (section 4.3, figure 6; appendix A.7, figure 7) and does not say what they "
    "are maps of, nor of which block; so the reading is yours to choose here."
)


def draw(run: Run) -> None:
    """Draw the maps of the experts, then the attention of the block and the rollout."""
    chosen = chosen_images(run, "attention", MOST, default=3)
    rows = [r + 1 for r, kept in enumerate(run.config.plan.kept) if kept]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        layer = st.selectbox(
            "Layer",
            rows,
            index=_asked_layer(rows),
            key=f"attention_layer_{run.id}",
            width=110,
            format_func=lambda row: run.config.plan.row_labels[row - 1],
        )
        show = (
            st.segmented_control(
                "What to show", list(SHOWN), format_func=lambda n: SHOWN[n][0], default="added", key="attention_show"
            )
            or "added"
        )
        scale = st.segmented_control("Scale of a map", SCALES, default=SCALES[0], key="attention_scale") or SCALES[0]
        opacity = st.slider("Over the image", 0, 100, 70, 5, format="%d %%", key="attention_opacity", width=180) / 100
    st.query_params["layer"] = str(layer)
    if not chosen:
        return
    name = run.config.plan.row_labels[layer - 1]
    arguments = {"images": [one.argument for one in chosen], "layer": layer}
    found = answer(run, "attention", arguments, "attention_maps", f"where the experts of layer {name} look")
    if found is None:
        return
    names = [_name(one, found["classes"], given.name) for one, given in zip(found["images"], chosen, strict=False)]
    _experts(found, name, names, show, scale, opacity)
    _network(found, name, names, scale, opacity)
    st.download_button(
        "Save all maps as JSON",
        lambda: json.dumps(_without_images(found)),
        f"maps-{run.id}-layer-{layer}.json",
        "application/json",
    )


def _asked_layer(rows: list[int]) -> int:
    asked = st.query_params.get("layer", "")
    return rows.index(int(asked)) if asked.isascii() and asked.isdigit() and int(asked) in rows else len(rows) - 1


def _name(one: dict[str, Any], classes: list[str], given: str) -> str:
    return given if one["truth"] is None else classes[one["truth"]]


def _experts(found: dict[str, Any], layer: str, names: list[str], show: str, scale: str, opacity: float) -> None:
    page.section(f"Experts of layer {layer}")
    _, signed, title, quantity, note = SHOWN[show]
    why = found["no_maps"] if show != "turned" else found["no_attention"] or found["no_alone"]
    maps = [_of_experts(one, show) for one in found["images"]]
    drawn = [found for found in maps if found is not None]
    if why or len(drawn) < len(maps):
        page.note(f"{why or 'An expert of rank above 1 has no single direction, so its map has no sign'}.")
        return
    columns = [f"expert {number}" for number in found["experts"]]
    rows = [Row(one["image"], name, tuple(m)) for one, name, m in zip(found["images"], names, drawn, strict=False)]
    title = f"Layer {layer}: {title}"
    signs = (signed,) * len(columns)
    live_plot(
        figures.maps_figure(
            rows, columns, title, quantity, f"experts-layer-{found['layer']}-{show}", signs, scale, opacity
        ),
        key="attention_experts",
    )
    page.note(f"{note} {'' if signed else glow_words(scale) + ' '}{_OPEN}")


def _of_experts(one: dict[str, Any], show: str) -> np.ndarray | None:
    """(experts, height, width), None where this run has none such."""
    if show != "turned":
        return None if one[show] is None else np.array(one[show], float)
    held = one["attention"]
    return None if held is None else np.array(held["alone"], float) - np.array(held["none"], float)


def _network(found: dict[str, Any], layer: str, names: list[str], scale: str, opacity: float) -> None:
    page.section("The network with and without the adapter")
    if found["no_attention"]:
        page.note(f"{found['no_attention']}.")
        return
    columns, signs = ["rollout, with", "rollout, without", "rollout, change"], [False, False, True]
    if not found["no_alone"]:
        columns += [f"layer {layer}, {word}" for word in ("with", "without", "change")]
        signs += [False, False, True]
    rows = []
    for one, name in zip(found["images"], names, strict=False):
        maps = _with_and_without(one["rollout"]["with"], one["rollout"]["without"])
        if not found["no_alone"]:
            maps += _with_and_without(one["attention"]["trained"], one["attention"]["frozen"])
        rows.append(Row(one["image"], name, tuple(maps)))
    live_plot(
        figures.maps_figure(
            rows, columns, "What the network draws on, with and without the adapter", "attention to each patch",
            "rollout", signs, scale, opacity,
        ),
        key="attention_rollout",
    )  # fmt: skip
    page.note(
        "Rollout: rᵀ Ã_L ⋯ Ã_1 with Ã = (A + I) / 2, A the mean over heads of softmax(q kᵀ / √d) (Abnar and Zuidema "
        f"2020). Attention of the layer: rᵀA of its block. r: {found['tokens']}. “Without” is the network with every "
        "expert off. What goes to class and register tokens is left out, so a map sums to less than 1. Attention says "
        f"what is mixed, not what decides. {glow_words(scale)} Change is with minus without; orange: more attention, "
        "blue: less, dark: 0."
    )
    if found["no_alone"]:
        page.note(f"{found['no_alone']}.")


def _with_and_without(on: list, off: list) -> list[np.ndarray]:
    a, b = np.array(on, float), np.array(off, float)
    return [a, b, a - b]


def _without_images(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "images": [{k: v for k, v in one.items() if k != "image"} for one in found["images"]]}
