"""The draft: the run that a person is about to start. It survives a change of page in the session
and a reload in the address (`?task=`, `?mask=`)."""

from __future__ import annotations

import time
from dataclasses import replace

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.patterns import fitted
from mlae_lab.core.plan import MaskPlan, PlanError

_DRAFT, _REV = "draft", "draft_rev"
_ADDRESS, _REPLACED, _PAGE, _ARRIVED = "draft_address", "draft_replaced", "draft_page", "draft_arrived"
_ECHO_SECONDS = 30.0  # on one page: a browser on a busy machine may take that long to learn of its new address
_ARRIVAL_SECONDS = 3.0  # after a change of page, when the older mask may well be meant


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


def entered(page: str) -> None:
    """Say which page, or which view of it, this run of the script draws. Called before `read_address`."""
    st.session_state[_ARRIVED] = st.session_state.get(_PAGE) != page
    st.session_state[_PAGE] = page


def read_address() -> str | None:
    """Take task and mask from the page's address into the draft, once per address.

    Returns one sentence if the address holds something that cannot be read, else None.
    """
    asked = {name: st.query_params[name] for name in ("task", "mask") if name in st.query_params}
    if not asked or st.session_state.get(_ADDRESS) == asked or _is_echo(asked):
        return None
    st.session_state[_ADDRESS] = asked
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
    written = {name: values[name] for name in ("task", "mask") if name in st.query_params}
    before = st.session_state.get(_ADDRESS)
    if before and before != written:
        _replaced()[tuple(before.items())] = time.monotonic()
    st.session_state[_ADDRESS] = written


def _replaced() -> dict[tuple, float]:
    """Addresses that this session wrote over, and when; the last thirty."""
    kept = st.session_state.setdefault(_REPLACED, {})
    for old in list(kept)[:-30]:
        del kept[old]
    return kept


def _is_echo(asked: dict[str, str]) -> bool:
    """Whether an address is not a link that somebody opened but one that the lab itself has just replaced.

    A browser sends its address with every click. A stroke painted before it heard of the new one comes with the
    old, and taking that for a link would undo the stroke before it.
    """
    since = time.monotonic() - _replaced().get(tuple(asked.items()), float("-inf"))
    return since < (_ARRIVAL_SECONDS if st.session_state.get(_ARRIVED) else _ECHO_SECONDS)
