"""Expert importance: leave-one-out, greedy curves, experts that decide on one image, and random masks."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import streamlit as st

from mlae_lab.core.data_url import data_url
from mlae_lab.core.expert_state import Cell, existing
from mlae_lab.core.robustness import summary, verdict
from mlae_lab.runs.store import Run
from mlae_lab.ui import figures, page, queries
from mlae_lab.ui.expert_views.image_picker import chosen_images
from mlae_lab.ui.expert_views.query_result import answer
from mlae_lab.ui.expert_views.saving import save_options
from mlae_lab.ui.live_plot import live_plot

_GREEDY_IMAGES = (50, 100, 200)
_SAMPLES = (200, 500, 1000)
_NO_RUN = "none"


def draw(run: Run) -> None:
    """Draw the view."""
    _leave_one_out(run)
    _greedy(run)
    _image_importance(run)
    _robustness(run)


def _leave_one_out(run: Run) -> None:
    page.section("Leave one out")
    result = answer(run, "importance", {}, f"importance_{run.id}", "Evaluating without each expert")
    if result is None:
        return
    exact, estimate = figures.importance_figures(result, run.config.plan)
    with st.container(key="pair_importance"):
        left, right = st.columns(2, gap="large")
    with left:
        live_plot(exact, key="importance_exact")
        page.computed(
            "How much the loss rises when one expert is switched off. Orange: the run needs the expert. Blue: better "
            "without it.",
            f"loss(fᵢ = 0) − loss(f = 1) on {result['images']} evaluation images, one evaluation for each expert; fᵢ "
            "scales λᵢ bᵢ aᵢᵀ (paper, equations 4 and 5).",
        )
    with right:
        live_plot(estimate, key="importance_estimate")
        page.computed(
            "An estimate of the same from a single pass, on the same images and scale.",
            "−∂loss/∂fᵢ at f = 1: one backward pass for all experts at once.",
        )
    live_plot(figures.layers_figure(result, run.config.plan), key="importance_layers")
    page.note("The same with all experts of a layer left out; its estimate is the sum over them.")


# ---------------------------------------------------------------- greedy


def _greedy(run: Run) -> None:
    page.section("Greedy selection")
    key, total = f"greedy_{run.id}", run.config.plan.experts
    requested = st.query_params.get("greedy", "")
    if requested in map(str, _GREEDY_IMAGES):
        st.session_state.setdefault(f"{key}_images", int(requested))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        count = st.selectbox("Images", _GREEDY_IMAGES, key=f"{key}_images", width=140)
        run_curves = st.button("Compute the curves", key=f"{key}_go") or bool(requested)
    evaluations = total * (total + 1) // 2
    if not run_curves:
        page.note(
            "Three curves of accuracy against experts kept: removal in the order of the first-order estimate, which is "
            "computed first; removal of the least useful expert at each step; and addition of the most useful one. The "
            f"last two evaluate all remaining experts at each step: {evaluations:,} evaluations per curve, slow on CPU."
        )
        return
    st.query_params["greedy"] = str(count)  # a reload or a shared link shows the curves
    curves, agreement = {}, None
    for direction in ("estimate", "removal", "addition"):
        arguments = {"direction": direction, "images": count}
        activity = (
            "Evaluating the order of the estimate" if direction == "estimate" else f"Evaluating greedy {direction}"
        )
        result = answer(run, "greedy", arguments, f"{key}_{direction}", activity)
        if result is None:
            break  # curves are computed one after another
        curves[direction] = result["steps"]
        agreement = result["agreement"] if direction == "removal" else agreement
    if not curves:
        return
    live_plot(figures.greedy_figure(curves, run.config.plan), key="greedy")
    page.computed(
        "The accuracy with fewer and fewer experts. Selection and evaluation use the same images: accuracy on other "
        "images may be slightly lower.",
        f"Each step selects the expert that gives the lowest mean cross-entropy on {count} evaluation images; ties are "
        "resolved by layer. Dotted: evaluated exactly, in the order of −∂loss/∂fᵢ at f = 1, smallest first"
        + ("." if agreement is None else f"; the two orders have a Spearman correlation of {agreement:+.2f}."),
    )
    direction_kept = "removal" if "removal" in curves else "estimate"
    kept = st.slider("Experts kept, least useful removed first", 0, total, total, key=f"{key}_kept")
    save_options(run, _off(run, curves[direction_kept], kept), 1.0, f"{key}_keep")


def _off(run: Run, steps: list[dict], kept: int) -> tuple[Cell, ...]:
    """Return the experts that a removal curve has removed when `kept` are left."""
    removed = [step["cell"] for step in steps if step["cell"] is not None and step["kept"] >= kept]
    off = {(row - 1, column - 1) for row, column in removed}
    return tuple(cell for cell in existing(run.config.plan) if cell in off)


# ---------------------------------------------------------------- one image


def _image_importance(run: Run) -> None:
    page.section("Expert importance for one image")
    chosen = chosen_images(run, "image_importance", 1)
    if not chosen:
        return
    arguments = {"image": chosen[0].argument}
    result = answer(
        run, "image_importance", arguments, f"image_importance_{run.id}", "Evaluating the image without each expert"
    )
    if result is None:
        return
    classes, plan = result["classes"], run.config.plan
    predicted, truth = classes[result["predicted"]], "unknown" if result["truth"] is None else classes[result["truth"]]
    cells = [(v, r, c) for r, row in enumerate(result["change"]) for c, v in enumerate(row) if v is not None]
    strongest = min(cells)
    flips = sum(result["margin"] + v < 0 for v, *_ in cells)
    title = (
        f"Layer {plan.row_labels[strongest[1]]}, expert {strongest[2] + 1} supports the prediction most "
        f"(margin lower by {-strongest[0]:.2f} without it)"
        if strongest[0] < 0 else "No expert supports the prediction"
    )  # fmt: skip
    with st.container(key="pair_image_importance"):
        left, right = st.columns([3, 7], gap="large")
    with left:
        st.html(
            f'<div class="lab-examples" style="max-width:120px;grid-template-columns:1fr"><figure>'
            f'<img src="{data_url(result["image"])}" alt="{escape(truth)}"></figure></div>'
        )
        page.facts(("Prediction", f"{escape(predicted)}, {result['confidence']:.0%}"), ("Truth", escape(truth)))
        flip_text = (
            f"{flips} of {len(cells)} experts flip{'s' * (flips == 1)} the prediction when switched off alone."
            if flips
            else "No single expert flips the prediction."
        )
        page.note(f"{flip_text} Margin {result['margin']:.2f}.")
    with right:
        support = [[None if v is None else -v for v in row] for row in result["change"]]
        figure = figures.cell_figure(support, plan, title, "contribution to the margin", "image-importance", form=".3f")
        live_plot(figure, key="image_importance")
        page.computed(
            "How much each expert supports the prediction. Orange: it supports it. Blue: it opposes it.",
            "Margin: the logit of the class that the run predicts with all experts, minus the largest other logit. "
            "Shown: the decrease of the margin with each expert off; when the margin falls below 0, the prediction "
            "flips.",
        )


# ---------------------------------------------------------------- random masks


@dataclass(frozen=True)
class _MaskRequest:
    """Random masks that the URL requests."""

    rate: float
    samples: int
    other: str
    rescaled: bool


def _requested_masks(text: str) -> _MaskRequest | None:
    """Parse `p,masks,other run,plain`, where the last two may be missing; None for anything else."""
    rate, samples, other, scaling = [*text.split(","), "", "", "", ""][:4]
    try:
        value = round(float(rate), 2)
    except ValueError:
        return None
    if not 0.05 <= value <= 0.95 or samples not in map(str, _SAMPLES) or scaling not in ("", "plain"):
        return None
    return _MaskRequest(value, int(samples), other, scaling != "plain")


def _initial_value(key: str, name: str, value: float | bool) -> dict:
    """Return a widget's initial value; nothing if the session has one already, which Streamlit would warn of."""
    return {} if f"{key}_{name}" in st.session_state else {"value": value}


def _robustness(run: Run) -> None:
    page.section("Under random masks")
    others = [
        other for other in queries.runs()
        if other.id != run.id and other.config.has_mask and other.config.badge == run.config.badge
        and other.status.is_over and queries.store().paths(other.id).adapter.is_file()
    ]  # fmt: skip
    key, requested = f"robustness_{run.id}", _requested_masks(st.query_params.get("robustness", ""))
    others.sort(
        key=lambda other: requested is None or other.id != requested.other
    )  # the run in the URL is always offered
    names = {_NO_RUN: None} | {
        f"{other.id}, {other.config.what}, seed {other.config.seed}": other for other in others[:30]
    }
    if requested is not None:
        st.session_state.setdefault(f"{key}_rate", requested.rate)
        st.session_state.setdefault(f"{key}_samples", requested.samples)
        st.session_state.setdefault(f"{key}_rescaled", requested.rescaled)
        label = next(
            (name for name, other in names.items() if other is not None and other.id == requested.other), _NO_RUN
        )
        st.session_state.setdefault(f"{key}_other", label)
    with st.container(key="four_robustness"):
        columns = st.columns(4, vertical_alignment="bottom")
    rate = columns[0].slider(
        "Drop probability p", 0.05, 0.95, step=0.05, key=f"{key}_rate", **_initial_value(key, "rate", 0.5)
    )
    samples = columns[1].selectbox("Random masks", _SAMPLES, key=f"{key}_samples")
    other_run = names[columns[2].selectbox("Compare with", list(names), key=f"{key}_other")]
    rescaled = columns[3].toggle("Rescale by 1/(1−p)", key=f"{key}_rescaled", **_initial_value(key, "rescaled", True))
    if not (columns[3].button("Evaluate", key=f"{key}_go") or requested is not None):
        page.note(
            "The distribution of accuracy under hundreds of random masks. A run trained with masking should lose less "
            "than one trained without. Two runs are evaluated under the same masks. Each mask is one pass over 200 "
            "images."
        )
        return
    address = (f"{rate:g}", str(samples), other_run.id if other_run else "", "" if rescaled else "plain")
    st.query_params["robustness"] = ",".join(address).rstrip(",")
    arguments = {"rate": rate, "samples": samples, "rescaled": rescaled}
    results: list[tuple[Run, dict]] = []
    for entry in (run, other_run):
        if entry is None:
            continue
        result = answer(entry, "robustness", arguments, f"robustness_{run.id}_{entry.id}", "Evaluating random masks")
        if result is None:
            break
        results.append((entry, result))
    if not results:
        return
    live_plot(figures.robustness_figure([(entry.id, result) for entry, result in results]), key="robustness")
    for entry, result in results:
        page.note(f"{summary(result, f'{entry.id} ({entry.config.what})')}.")
    if len(results) == 2:
        page.note(verdict(results[0][1], results[1][1], [entry.id for entry, _ in results]))
    factor_text = "mᵢ / (1 − p), as in training" if rescaled else "mᵢ, without the 1 / (1 − p) of training"
    page.computed(
        "Each mask leaves out experts at random, as in training.",
        f"fᵢ = {factor_text}; mᵢ = 0 with probability p, the same for every expert (paper, section 3.3). "
        "Seed 0 for every run.",
    )
