"""Who matters: each expert and layer left out, greedy curves, who decides an image, and random masks."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import streamlit as st

from mlae_lab.core.expert_state import Cell, existing
from mlae_lab.core.robustness import verdict, words
from mlae_lab.runs.store import Run
from mlae_lab.ui import figures, page, queries
from mlae_lab.ui.expert_views.image_picker import chosen_images, image_address
from mlae_lab.ui.expert_views.query_result import answer
from mlae_lab.ui.expert_views.saving import keeping
from mlae_lab.ui.live_plot import live_plot

_GREEDY_IMAGES = (50, 100, 200)
_SAMPLES = (200, 500, 1000)
_NOBODY = "no other run"


def draw(run: Run) -> None:
    """Draw the view."""
    _leave_one_out(run)
    _greedy(run)
    _image_importance(run)
    _robustness(run)


def _leave_one_out(run: Run) -> None:
    page.section("Without one of them")
    found = answer(
        run, "importance", {}, f"matters_{run.id}", "what each expert is worth, one left out after the other"
    )
    if found is None:
        return
    exact, estimate = figures.importance_figures(found, run.config.plan)
    with st.container(key="pair_matters"):
        left, right = st.columns(2, gap="large")
    with left:
        live_plot(exact, key="matters_exact")
        page.note(
            f"loss(fᵢ = 0) − loss(f = 1) on {found['images']} evaluation images, one evaluation for each expert; fᵢ "
            "scales λᵢ bᵢ aᵢᵀ (paper, equations 4 and 5). Orange: the run needs it. Blue: it does better without."
        )
    with right:
        live_plot(estimate, key="matters_estimate")
        page.note("−∂loss/∂fᵢ at f = 1: one backward pass for all experts at once, on the same images and scale.")
    live_plot(figures.layers_figure(found, run.config.plan), key="matters_layers")
    page.note("The same with all experts of a layer left out; its estimate is the sum over them.")


# ---------------------------------------------------------------- greedy


def _greedy(run: Run) -> None:
    page.section("How few are enough")
    key, total = f"greedy_{run.id}", run.config.plan.experts
    asked = st.query_params.get("greedy", "")
    if asked in map(str, _GREEDY_IMAGES):
        st.session_state.setdefault(f"{key}_images", int(asked))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        count = st.selectbox("Images", _GREEDY_IMAGES, key=f"{key}_images", width=140)
        wanted = st.button("Grow the curves", key=f"{key}_go") or bool(asked)
    tries = total * (total + 1) // 2
    if not wanted:
        page.note(
            "Three curves of accuracy against experts kept: taken away in the order of the first-order estimate, which "
            "is there first; the least useful taken away one by one; and the most useful added one by one. The last "
            f"two try every expert that is left at each step: {tries:,} tries a curve, which is slow on a CPU."
        )
        return
    st.query_params["greedy"] = str(count)  # a reload, or whoever gets the link, finds the curves
    curves, agreement = {}, None
    for direction in ("estimate", "removal", "addition"):
        arguments = {"direction": direction, "images": count}
        what = "the curve in the order of the estimate" if direction == "estimate" else f"the curve of {direction}"
        found = answer(run, "greedy", arguments, f"{key}_{direction}", what)
        if found is None:
            break  # the next is asked when this one is there
        labels = run.config.plan.row_labels
        curves[direction] = [
            step | {"cell": step["cell"] and [labels[step["cell"][0] - 1], step["cell"][1]]} for step in found["steps"]
        ]
        agreement = found["agreement"] if direction == "removal" else agreement
    if not curves:
        return
    live_plot(figures.greedy_figure(curves, total), key="greedy")
    page.note(
        f"Each step takes the expert that leaves the lowest mean cross-entropy on {count} evaluation images; equal "
        "ones go by layer. Dotted: measured as exactly, but in the order of −∂loss/∂fᵢ at f = 1, the smallest first"
        + ("" if agreement is None else f"; the two orders have a Spearman correlation of {agreement:+.2f}")
        + ". Chosen and measured on the same images: a pruned run may do a little worse on others."
    )
    by = "removal" if "removal" in curves else "estimate"
    kept = st.slider("Experts kept, least useful taken away first", 0, total, total, key=f"{key}_kept")
    keeping(run, _off(run, curves[by], kept), 1.0, f"{key}_keep")


def _off(run: Run, steps: list[dict], kept: int) -> tuple[Cell, ...]:
    """The experts that a curve of removal has taken away when `kept` are left."""
    gone = [step["cell"] for step in steps if step["cell"] is not None and step["kept"] >= kept]
    off = {(row - 1, column - 1) for row, column in gone}
    return tuple(cell for cell in existing(run.config.plan) if cell in off)


# ---------------------------------------------------------------- one image


def _image_importance(run: Run) -> None:
    page.section("Who decides this image")
    chosen = chosen_images(run, "image_importance", 1)
    if not chosen:
        return
    asked = {"image": chosen[0].argument}
    found = answer(run, "image_importance", asked, f"decides_{run.id}_answer", "who decides this image")
    if found is None:
        return
    classes, plan = found["classes"], run.config.plan
    said, truth = classes[found["predicted"]], "not known" if found["truth"] is None else classes[found["truth"]]
    cells = [(v, r, c) for r, row in enumerate(found["change"]) for c, v in enumerate(row) if v is not None]
    most = min(cells)
    flips = sum(found["margin"] + v < 0 for v, *_ in cells)
    title = (
        f"Layer {plan.row_labels[most[1]]}, expert {most[2] + 1} holds it up most ({most[0]:+.2f} without it)"
        if most[0] < 0 else "No expert holds the answer up"
    )  # fmt: skip
    with st.container(key="pair_decides"):
        left, right = st.columns([3, 7], gap="large")
    with left:
        st.html(
            f'<div class="lab-examples" style="max-width:120px;grid-template-columns:1fr"><figure>'
            f'<img src="{image_address(found["image"])}" alt="{escape(truth)}"></figure></div>'
        )
        page.facts(("Answer", f"{escape(said)}, {found['confidence']:.0%}"), ("Truth", escape(truth)))
        alone = f"{flips} of {len(cells)} experts would flip it alone." if flips else "No single expert would flip it."
        page.note(f"{alone} Margin {found['margin']:.2f}.")
    with right:
        adds = [[None if v is None else -v for v in row] for row in found["change"]]
        figure = figures.cell_figure(adds, plan, title, "adds to the margin", "image_importance", form=".3f")
        live_plot(figure, key="image_importance")
        page.note(
            "Margin: the logit of the class that the whole run answers, minus the largest other logit. Shown is how "
            "much less it is with each expert off; below 0 the image flips. Orange: the expert speaks for the answer. "
            "Blue: against it."
        )


# ---------------------------------------------------------------- random masks


@dataclass(frozen=True)
class _Masks:
    """Random masks that an address asks for."""

    rate: float
    samples: int
    other: str
    rescaled: bool


def _asked_masks(text: str) -> _Masks | None:
    """`p,masks,other run,plain`, the last two may be missing; None for anything else."""
    rate, samples, other, how = [*text.split(","), "", "", "", ""][:4]
    try:
        value = round(float(rate), 2)
    except ValueError:
        return None
    if not 0.05 <= value <= 0.95 or samples not in map(str, _SAMPLES) or how not in ("", "plain"):
        return None
    return _Masks(value, int(samples), other, how != "plain")


def _start(key: str, name: str, value: float | bool) -> dict:
    """Where a widget begins; nothing for one that the session knows already, which Streamlit would warn of."""
    return {} if f"{key}_{name}" in st.session_state else {"value": value}


def _robustness(run: Run) -> None:
    page.section("Under random masks")
    others = [
        other for other in queries.runs()
        if other.id != run.id and other.config.method == "mlae" and other.config.badge == run.config.badge
        and other.status.is_over and queries.store().paths(other.id).adapter.is_file()
    ]  # fmt: skip
    key, given = f"robust_{run.id}", _asked_masks(st.query_params.get("robustness", ""))
    others.sort(key=lambda other: given is None or other.id != given.other)  # whom the address names is always offered
    names = {_NOBODY: None} | {
        f"{other.id}, {other.config.what}, seed {other.config.seed}": other for other in others[:30]
    }
    if given is not None:
        st.session_state.setdefault(f"{key}_rate", given.rate)
        st.session_state.setdefault(f"{key}_draws", given.samples)
        st.session_state.setdefault(f"{key}_rescaled", given.rescaled)
        label = next((name for name, other in names.items() if other is not None and other.id == given.other), _NOBODY)
        st.session_state.setdefault(f"{key}_other", label)
    with st.container(key="four_robust"):
        columns = st.columns(4, vertical_alignment="bottom")
    rate = columns[0].slider(
        "Chance that an expert is off", 0.05, 0.95, step=0.05, key=f"{key}_rate", **_start(key, "rate", 0.5)
    )
    samples = columns[1].selectbox("Random masks", _SAMPLES, key=f"{key}_draws")
    beside = names[columns[2].selectbox("Beside it", list(names), key=f"{key}_other")]
    rescaled = columns[3].toggle("Survivors count 1/(1−p)", key=f"{key}_rescaled", **_start(key, "rescaled", True))
    if not (columns[3].button("Draw them", key=f"{key}_go") or given is not None):
        page.note(
            "The accuracy under hundreds of random masks, as a distribution. A run that was trained with masking "
            "should lose less than one that was not: put both side by side, they see the same masks. Each mask is a "
            "pass over 200 images."
        )
        return
    address = (f"{rate:g}", str(samples), beside.id if beside else "", "" if rescaled else "plain")
    st.query_params["robustness"] = ",".join(address).rstrip(",")
    arguments = {"rate": rate, "samples": samples, "rescaled": rescaled}
    found: list[tuple[Run, dict]] = []
    for one in (run, beside):
        if one is None:
            continue
        told = answer(
            one, "robustness", arguments, f"robust_{run.id}_{one.id}", f"how run {one.id} stands {samples} masks"
        )
        if told is None:
            break
        found.append((one, told))
    if not found:
        return
    live_plot(figures.robustness_figure([(one.id, told) for one, told in found]), key="robustness")
    for one, told in found:
        page.note(f"{words(told, f'{one.id} ({one.config.what})')}.")
    if len(found) == 2:
        page.note(verdict(found[0][1], found[1][1], [one.id for one, _ in found]))
    how = "mᵢ / (1 − p), as in training" if rescaled else "mᵢ, without the 1 / (1 − p) of training"
    page.note(
        f"fᵢ = {how}; mᵢ = 0 with chance p, the same for every expert (paper, section 3.3). Seed 0 for every run."
    )
