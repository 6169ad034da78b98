"""The canvas: an inline component that edits a plan and returns it.

The browser owns the stroke and the undo history, Python owns the plan: `rev` increases only when Python replaces the
plan (a pattern, a link), and an edit of an older `rev` is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import streamlit as st

from mlae_lab.core.plan import MaskPlan, PlanError, module_of
from mlae_lab.ui.bundle import bundled


def _button(kind: str, name: str, text: str, title: str) -> str:
    pressed = ' aria-pressed="false"' if kind != "act" else ""
    return f'<button type="button" data-{kind}="{name}" data-name="{text}" title="{title}"{pressed}>{text}</button>'


_HTML = f"""<div class="mg">
<div class="mg-bar" role="toolbar" aria-label="Canvas tools">
<div class="mg-set choice" role="group" aria-label="What is painted">
{_button("layer", "exists", "Exists", "Paint which experts exist")}
{_button("layer", "rate", "Drop rate", "Paint how often an expert is dropped")}</div>
<label>Brush p <input class="mg-strength" type="range" min="0" max="0.95" step="0.05" value="0.5">
<output class="mg-strong">0.50</output></label>
<div class="mg-set choice" role="group" aria-label="Tool">
{_button("tool", "brush", "Brush", "Paint cell by cell, or along the numbers")}
{_button("tool", "block", "Block", "Drag a rectangle; or hold Shift with the brush")}
{_button("tool", "copy", "Copy layer", "Copy one layer onto others")}</div>
<div class="mg-set plain" role="group" aria-label="History">
{_button("act", "undo", "Undo", "Control Z")}
{_button("act", "redo", "Redo", "Control Shift Z or Control Y")}</div>
<div class="mg-set plain" role="group" aria-label="The whole canvas">
{_button("act", "mirror", "Mirror", "Reverse the order of the layers")}
{_button("act", "invert", "Invert", "Remove existing experts and add missing ones")}
{_button("act", "fill", "Fill", "Add all experts")}
{_button("act", "clear", "Clear", "Remove all experts")}</div>
<div class="mg-set plain" role="group" aria-label="Shuffle">
{_button("act", "shuffle", "Shuffle", "The same cells in a random order, given by the seed")}
<label>&nbsp;seed <input class="mg-seed" type="number" min="0" max="4294967295" step="1" value="1"></label></div>
</div>
<div class="mg-message" aria-live="polite"></div>
<div class="mg-scroll"></div>
<div class="mg-legend"><span><i class="a"></i>expert, always active</span>
<span><i class="b"></i>expert, dropped with probability p in each step</span>
<span><i class="c"></i>no expert</span></div>
</div>"""
_COMPONENT = bundled("mask_grid", ("random.js", "mask_grid.js"), css="mask_grid.css", markup=_HTML, isolated=True)


def edited(plan: MaskPlan, rev: int, edit: object, layers: Collection[str] = ()) -> MaskPlan | None:
    """The plan after an edit from the browser; None if the edit is stale, malformed or changes nothing.

    The data of a browser is not trusted: it must be an edit of this `rev` and give a valid plan. An undo may restore
    another number of columns and other rows, but only rows of the plan or of `layers`.
    """
    if not isinstance(edit, dict) or edit.get("rev") != rev:
        return None
    try:
        new = replace(
            plan, keep=edit.get("keep"), drop_rate=edit.get("rate"), targets=edit.get("targets", plan.targets)
        )
    except (PlanError, TypeError):
        return None
    return new if new != plan and set(new.targets) <= {*plan.targets, *layers} else None


def mask_grid(
    plan: MaskPlan,
    rev: int,
    on_edit: Callable[[MaskPlan, int], None],
    key: str,
    family: str = "",
    layers: Collection[str] = (),
) -> None:
    """Draw the editor.

    Args:
        plan: The plan to edit.
        rev: Increased whenever Python replaces the plan.
        on_edit: Called with the new plan and the `rev` that was edited, before the page runs again.
        key: Unique on the page.
        family: What the rows belong to, such as a backbone; each family has a separate undo history.
        layers: Names that rows of this family can have.
    """

    def commit() -> None:
        state = st.session_state.get(key)
        new = edited(plan, rev, state.get("edit") if state is not None else None, layers)
        if new is not None:
            on_edit(new, rev)

    _COMPONENT(
        key=key,
        data={
            "rev": rev,
            "keep": [[int(k) for k in row] for row in plan.keep],
            "rate": [list(row) for row in plan.drop_rate],
            "targets": list(plan.targets),
            "labels": list(plan.row_labels),
            "groups": [module_of(target) for target in plan.targets],
            "family": family,
        },
        default={"edit": None},
        on_edit_change=commit,
        height="content",
    )
