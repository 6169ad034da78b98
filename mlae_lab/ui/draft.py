"""The draft: the run that a person is about to start. Each session has one; the store keeps the one that a browser
changed last, so that it survives a reload, a new tab and another start of the server. An address
(`?task=`, `?mask=`, `?set=`) wins over it for what it names."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import replace

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.patterns import fitted
from mlae_lab.core.plan import MaskPlan
from mlae_lab.errors import LabError
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.ui import queries, visitor
from mlae_lab.ui.markdown import plain
from mlae_lab.ui.settings_code import SETTINGS, read_settings, settings_code

_DRAFT, _REV, _FORM = "draft", "draft_rev", "draft_form"
_WHOSE, _CHANGED, _KEPT, _TROUBLE = "draft_whose", "draft_changed", "draft_kept", "draft_trouble"
_NAMES = ("task", "mask", "set")  # what an address can hold of a draft
_ADDRESS, _REPLACED, _PAGE, _ARRIVED = "draft_address", "draft_replaced", "draft_page", "draft_arrived"
_LINK = "draft_link"  # the address that opened this tab, as long as nothing else did
_PAGES = "draft_pages"  # how many pages, or views of one, this session has come to
_ECHO_SECONDS = 30.0  # on one page: a browser on a busy machine may take that long to learn of its new address
_ARRIVAL_SECONDS = 3.0  # after a change of page, when the older mask may well be meant


def current() -> RunConfig:
    """The draft of this browser tab."""
    _know_whose()
    return st.session_state[_DRAFT]


def revision() -> int:
    """Rises whenever Python, not the painting hand, replaces the plan."""
    return st.session_state.setdefault(_REV, 1)


def widget_key(name: str) -> str:
    """The key of a widget that shows a setting of the draft. It is another one, and so the widget a new one, after
    Python replaced the settings: a widget that stays would put its old value back."""
    form = st.session_state.get(_FORM, 0)
    return f"{name}_{form}" if form else name


def change(by_hand: bool = True, **settings) -> RunConfig:
    """Replace settings of the draft; a plan whose layers the backbone does not have is stretched over those it has,
    and images that are too small to crop are not cropped. by_hand: a person did it in this tab; the store keeps it.

    Raises ConfigError, PlanError or CatalogError; the draft is then unchanged.
    """
    before = current()
    new = _with(settings)
    _take(new, by_hand)
    if any(getattr(new, name) != getattr(before, name) for name in SETTINGS):
        st.session_state[_FORM] = st.session_state.get(_FORM, 0) + 1
    return new


def filled_in(**settings) -> RunConfig:
    """Take over settings that the browser's form already shows: those that fit also where others do not, so that one
    wrong value loses nothing of the rest. Otherwise as `change`."""
    try:
        new = _with(settings)
    except LabError:
        for name, value in settings.items():
            with suppress(LabError):
                _take(_with({name: value}))
        raise
    _take(new)
    return new


def _with(settings: dict) -> RunConfig:
    """The draft with other settings, and what follows from them. Raises as `change` does."""
    settings = dict(settings)
    backbone = catalog.backbone(settings.get("backbone", current().backbone))
    plan = settings.get("plan", current().plan)
    try:
        backbone.shapes(plan.targets)
    except catalog.CatalogError:
        if "backbone" not in settings or settings["backbone"] == current().backbone:
            raise
        settings["plan"] = fitted(plan, backbone.default_targets)
    crops = settings.get("preprocessing", current().preprocessing) not in ("auto", "vtab")
    if crops and "preprocessing" not in settings and catalog.task(settings.get("task", current().task)).bundled:
        settings["preprocessing"] = "auto"
    return replace(current(), **settings)


def _take(new: RunConfig, by_hand: bool = True) -> None:
    if new.plan != current().plan:
        st.session_state[_REV] = revision() + 1
    _put(new, by_hand)


def painted(plan: MaskPlan, rev: int) -> None:
    """Take over a plan that the browser already shows.

    rev: of the plan that it is an edit of. Of one that was replaced meanwhile nothing is taken: a run of the page that
    was cut short may not have told the canvas yet, and the edit would undo what replaced it.
    """
    if rev == revision():
        _put(replace(current(), plan=plan))


# ---------------------------------------------------------------- in the store


def _put(new: RunConfig, by_hand: bool = True) -> None:
    if by_hand and new != current():
        st.session_state[_CHANGED] = True
    st.session_state[_DRAFT] = new
    _keep()


def _keep() -> None:
    """Write the draft down if this session changed it. A store that cannot take it now gets it with the next change."""
    state = st.session_state
    if not state.get(_CHANGED):
        return
    text = json.dumps(state[_DRAFT].to_dict())
    if text != state.get(_KEPT):
        try:
            queries.store().keep_visitor(visitor.current(), timeout=visitor.TIMEOUT_SECONDS, draft=text)
        except EXPECTED_ERRORS:
            return
        state[_KEPT] = text


def _know_whose() -> None:
    """Take up the kept draft, at the session's first use of one and when it learns late which browser it is in.

    What the session has changed until then is newer than what was kept.
    """
    state, whose = st.session_state, visitor.current()
    if state.get(_WHOSE) == whose and _DRAFT in state:
        return
    state[_WHOSE] = whose
    state.pop(_KEPT, None)
    shown = state.get(_DRAFT)
    state.setdefault(_DRAFT, FIRST_RUN)
    if state.get(_CHANGED):
        _keep()
        return
    try:
        text = queries.store().visitor(whose).draft
        if not text:
            return
        kept = RunConfig.from_dict(json.loads(text))
    except (*EXPECTED_ERRORS, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        state[_TROUBLE] = f"The kept draft could not be read ({_short(error)}): this is a fresh one."
        return
    state[_DRAFT], state[_KEPT] = kept, text
    if shown not in (None, kept):  # the page stands already, with widgets that show the other one
        state[_REV] = revision() + 1
        state[_FORM] = state.get(_FORM, 0) + 1
    if link := state.get(_LINK):  # it wins over what is kept
        with suppress(LabError):
            state[_DRAFT] = _with(_named(link))


def _short(error: Exception) -> str:
    """An error as it may stand in a sentence on a page: what a link or a file put into it is no markdown there."""
    text = str(error) or type(error).__name__
    return plain(text if len(text) <= 300 else f"{text[:300]} ...")


# ---------------------------------------------------------------- in the address


def entered(page: str) -> None:
    """Say which page, or which view of it, this run of the script draws. Called before `read_address`."""
    st.session_state[_ARRIVED] = st.session_state.get(_PAGE) != page
    st.session_state[_PAGES] = st.session_state.get(_PAGES, 0) + st.session_state[_ARRIVED]
    st.session_state[_PAGE] = page


def read_address() -> str | None:
    """Take task, mask and settings from the page's address into the draft, once per address.

    Returns one sentence if the address or the kept draft holds something that cannot be read, else None.
    """
    current()
    trouble = st.session_state.pop(_TROUBLE, None)
    asked = {name: st.query_params[name] for name in _NAMES if name in st.query_params}
    if not asked or st.session_state.get(_ADDRESS) == asked or _is_echo(asked):
        return trouble
    # A tab that is opened, reloaded or reconnected may be older than what another one has painted since: its address
    # counts here and does not replace the draft that is kept.
    is_first = _ADDRESS not in st.session_state and st.session_state.get(_PAGES, 0) <= 1
    st.session_state[_ADDRESS] = asked
    st.session_state[_LINK] = asked if is_first else None
    try:
        change(by_hand=not is_first, **_named(asked))
    except LabError as error:
        broken = f"The link could not be opened: {_short(error)}."
        return f"{trouble} {broken}" if trouble else broken
    return trouble


def _named(asked: dict[str, str]) -> dict[str, object]:
    """The settings that an address names. Raises ConfigError, PlanError or CatalogError."""
    found = read_settings(asked["set"]) if "set" in asked else {}
    if "task" in asked:
        found["task"] = catalog.task(asked["task"]).name
    if "mask" in asked:
        found["plan"] = MaskPlan.from_code(asked["mask"])
    return found


def write_address(*names: str) -> None:
    """Put task, mask or settings ("set") of the draft into the address, so that the view is a link and survives F5.

    What the address names already is brought up to date too: one spelling for one draft.
    """
    draft = current()
    values = {"task": draft.task, "mask": draft.plan.code, "set": settings_code(draft)}
    for name in _NAMES:
        if (name in names or name in st.query_params) and st.query_params.get(name) != values[name]:
            st.query_params[name] = values[name]
    written = {name: values[name] for name in _NAMES if name in st.query_params}
    before = st.session_state.get(_ADDRESS)
    if before and before != written:
        kept, old = _replaced(), tuple(before.items())
        kept.pop(old, None)  # one that came back counts from now: the oldest stand in front
        kept[old] = time.monotonic()
    st.session_state[_ADDRESS] = written


def _replaced() -> dict[tuple, float]:
    """Addresses that this session wrote over, and when, as long as one of them can be an echo: however many edits a
    quick hand makes or undoes in that time."""
    kept, now = st.session_state.setdefault(_REPLACED, {}), time.monotonic()
    for old in [old for old, since in kept.items() if now - since > _ECHO_SECONDS]:
        del kept[old]
    return kept


def _is_echo(asked: dict[str, str]) -> bool:
    """Whether an address is not a link that somebody opened but one that the lab itself has just replaced.

    A browser sends its address with every click. A stroke painted before it heard of the new one comes with the
    old, and taking that for a link would undo the stroke before it.
    """
    since = time.monotonic() - _replaced().get(tuple(asked.items()), float("-inf"))
    return since < (_ARRIVAL_SECONDS if st.session_state.get(_ARRIVED) else _ECHO_SECONDS)
