"""The draft: the run that a person is about to start. It survives a change of page in the session
and a reload in the address (`?task=`, `?mask=`)."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.patterns import fitted
from mlae_lab.core.plan import MaskPlan, PlanError

_DRAFT, _REV = "draft", "draft_rev"


def current() -> RunConfig:
    """The draft of this browser tab."""
    return st.session_state.setdefault(_DRAFT, FIRST_RUN)


def revision() -> int:
    """Rises whenever Python, not the painting hand, replaces the plan."""
    return st.session_state.setdefault(_REV, 1)


def change(**settings) -> RunConfig:
    """Replace settings of the draft; a plan whose layers the backbone does not have is stretched over those it has.

    Raises ConfigError, PlanError or CatalogError; the draft is then unchanged.
    """
    backbone = catalog.backbone(settings.get("backbone", current().backbone))
    plan = settings.get("plan", current().plan)
    try:
        backbone.shapes(plan.targets)
    except catalog.CatalogError:
        if "backbone" not in settings or settings["backbone"] == current().backbone:
            raise
        settings["plan"] = fitted(plan, backbone.default_targets)
    new = replace(current(), **settings)
    if new.plan != current().plan:
        st.session_state[_REV] = revision() + 1
    st.session_state[_DRAFT] = new
    return new


def painted(plan: MaskPlan) -> None:
    """Take over a plan that the browser already shows."""
    st.session_state[_DRAFT] = replace(current(), plan=plan)


def read_address() -> str | None:
    """Take task and mask from the page's address into the draft, once per address.

    Returns one sentence if the address holds something that cannot be read, else None.
    """
    asked = {name: st.query_params[name] for name in ("task", "mask") if name in st.query_params}
    if not asked or st.session_state.get("draft_address") == asked:
        return None
    st.session_state["draft_address"] = asked
    try:
        changes: dict = {}
        if "task" in asked:
            changes["task"] = catalog.task(asked["task"]).name
        if "mask" in asked:
            changes["plan"] = MaskPlan.from_code(asked["mask"])
        if changes:
            change(**changes)
    except (PlanError, catalog.CatalogError) as error:
        return f"The link could not be opened: {error}."
    return None


def write_address(*names: str) -> None:
    """Put task or mask of the draft into the address, so that the view is a link and survives F5."""
    draft = current()
    values = {"task": draft.task, "mask": draft.plan.code}
    for name in names:
        if st.query_params.get(name) != values[name]:
            st.query_params[name] = values[name]
    st.session_state["draft_address"] = {name: values[name] for name in ("task", "mask") if name in st.query_params}
