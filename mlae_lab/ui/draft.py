"""The draft: the run that a person is about to start.

Each session has one; the store keeps the one that a browser changed last, so that it survives a reload, a new tab and a
restart of the server. The parameters of an address (`?task=`, `?mask=`, `?set=`) take precedence over it.
"""

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
from mlae_lab.core.settings import ConfigError
from mlae_lab.errors import LabError
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.ui import queries, visitor
from mlae_lab.ui.markdown import plain
from mlae_lab.ui.settings_code import SETTINGS, read_settings, settings_code

_DRAFT, _REV, _FORM = "draft", "draft_rev", "draft_form"
_OWNER, _IS_CHANGED, _KEPT, _TROUBLE = "draft_owner", "draft_changed", "draft_kept", "draft_trouble"
_NAMES = ("task", "mask", "set")  # the parameters of an address that belong to a draft
_ADDRESS, _REPLACED, _PAGE, _ARRIVED = "draft_address", "draft_replaced", "draft_page", "draft_arrived"
_LINK = "draft_link"  # the address that opened this tab, until another one is opened
_PAGES = "draft_pages"  # number of pages, or views of a page, that this session has visited
_ECHO_SECONDS = 120.0  # on one page: the time in which a slow browser may still send its previous address
_ARRIVAL_SECONDS = 3.0  # after a change of page, when a link to an older mask is likely


def current() -> RunConfig:
    """The draft of this browser tab."""
    _load()
    return st.session_state[_DRAFT]


def revision() -> int:
    """The revision of the plan, increased whenever Python (not an edit on the canvas) replaces it."""
    return st.session_state.setdefault(_REV, 1)


def widget_key(name: str) -> str:
    """The key of a widget for a setting of the draft.

    It changes whenever Python replaces the settings: a widget that kept its key would restore its old value.
    """
    form = st.session_state.get(_FORM, 0)
    return f"{name}_{form}" if form else name


def change(by_hand: bool = True, **settings) -> RunConfig:
    """Replace settings of the draft.

    A plan whose layers the backbone does not have is stretched over those it has, an image size that a newly chosen
    backbone does not take becomes its own, the preprocessing becomes "auto" for images that are too small to crop, and
    the consistency 0 for a mask that drops no expert.

    Args:
        by_hand: A person made the change in this tab, so the store keeps it.
        **settings: Fields of `RunConfig`.

    Raises:
        ConfigError, PlanError, CatalogError: If a value is invalid; the draft is then unchanged.
    """
    before = current()
    new = _with(settings)
    _replace(new, by_hand)
    if any(getattr(new, name) != getattr(before, name) for name in SETTINGS):
        st.session_state[_FORM] = st.session_state.get(_FORM, 0) + 1
    return new


def take_over(config: RunConfig, task: str) -> RunConfig:
    """Take the settings of a run, on the images of another task; raises as `change` does."""
    settings = {name: getattr(config, name) for name in SETTINGS}
    return change(**settings | {"task": task, "data": "", "plan": config.plan, "weights": config.weights})


def filled_in(**settings) -> RunConfig:
    """Replace settings by those that the form already shows, as `change` does.

    If a value is invalid, the valid ones are kept, so that one wrong value does not discard the rest.
    """
    try:
        new = _with(settings)
    except LabError:
        for name, value in settings.items():
            with suppress(LabError):
                _replace(_with({name: value}))
        raise
    if new.image_size != settings.get("image_size", new.image_size) and new.backbone != current().backbone:
        st.session_state[_FORM] = st.session_state.get(_FORM, 0) + 1  # the form still shows the size before
    _replace(new)
    return new


def _with(settings: dict) -> RunConfig:
    """The draft with other settings and their consequences; raises as `change` does."""
    settings = dict(settings)
    backbone = catalog.backbone(settings.get("backbone", current().backbone))
    plan = settings.get("plan", current().plan)
    try:
        backbone.shapes(plan.targets)
    except catalog.CatalogError:
        if "backbone" not in settings or settings["backbone"] == current().backbone:
            raise
        settings["plan"] = fitted(plan, backbone.default_targets)
    size = current().image_size
    if backbone.name != current().backbone and settings.get("image_size", size) == size:
        settings["image_size"] = size if backbone.nearest_sizes(size) == (size,) else 0
    crops = settings.get("preprocessing", current().preprocessing) not in ("auto", "vtab")
    if crops and "preprocessing" not in settings and catalog.task(settings.get("task", current().task)).bundled:
        settings["preprocessing"] = "auto"
    try:
        return replace(current(), **settings)
    except ConfigError:
        if "consistency" in settings or not current().consistency:
            raise
        return replace(current(), **settings, consistency=0.0)  # of a mask that samples nothing


def _replace(new: RunConfig, by_hand: bool = True) -> None:
    if new.plan != current().plan:
        st.session_state[_REV] = revision() + 1
    _set(new, by_hand)


def painted(plan: MaskPlan, rev: int) -> None:
    """Take over a plan that the browser already shows.

    Args:
        plan: The edited plan.
        rev: The revision that was edited. An edit of a replaced plan is ignored: a canvas that was not yet updated
            would undo the replacement.
    """
    if rev == revision():
        _set(_with({"plan": plan}))


# ---------------------------------------------------------------- in the store


def _set(new: RunConfig, by_hand: bool = True) -> None:
    if by_hand and new != current():
        st.session_state[_IS_CHANGED] = True
    st.session_state[_DRAFT] = new
    _keep()


def _keep() -> None:
    """Store the draft if this session changed it; if the store fails, the next change tries again."""
    state = st.session_state
    if not state.get(_IS_CHANGED):
        return
    text = json.dumps(state[_DRAFT].to_dict())
    if text != state.get(_KEPT):
        try:
            queries.store().keep_visitor(visitor.current(), timeout=visitor.TIMEOUT_SECONDS, draft=text)
        except EXPECTED_ERRORS:
            return
        state[_KEPT] = text


def _load() -> None:
    """Load the stored draft at the first use in a session, and when the session learns its browser later.

    Changes that the session has made until then are newer than the stored draft.
    """
    state, owner = st.session_state, visitor.current()
    if state.get(_OWNER) == owner and _DRAFT in state:
        return
    state[_OWNER] = owner
    state.pop(_KEPT, None)
    shown = state.get(_DRAFT)
    state.setdefault(_DRAFT, FIRST_RUN)
    if state.get(_IS_CHANGED):
        _keep()
        return
    try:
        text = queries.store().visitor(owner).draft
        if not text:
            return
        kept = RunConfig.from_dict(json.loads(text))
    except (*EXPECTED_ERRORS, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        state[_TROUBLE] = f"The stored draft could not be read ({_short(error)}): this is a new one."
        return
    state[_DRAFT], state[_KEPT] = kept, text
    if shown not in (None, kept):  # the page already shows widgets with the other draft
        state[_REV] = revision() + 1
        state[_FORM] = state.get(_FORM, 0) + 1
    if link := state.get(_LINK):  # it takes precedence over the stored draft
        with suppress(LabError):
            state[_DRAFT] = _with(_settings_of(link))


def _short(error: Exception) -> str:
    """The message of an error, shortened and with markdown escaped."""
    text = str(error) or type(error).__name__
    return plain(text if len(text) <= 300 else f"{text[:300]} ...")


# ---------------------------------------------------------------- in the address


def entered(page: str) -> None:
    """Record which page, or view of a page, this run of the script draws; called before `read_address`."""
    st.session_state[_ARRIVED] = st.session_state.get(_PAGE) != page
    st.session_state[_PAGES] = st.session_state.get(_PAGES, 0) + st.session_state[_ARRIVED]
    st.session_state[_PAGE] = page


def read_address() -> str | None:
    """Take task, mask and settings from the address of the page into the draft, once per address.

    Returns:
        One sentence if the address or the stored draft cannot be read, else None.
    """
    current()
    trouble = st.session_state.pop(_TROUBLE, None)
    query = {name: st.query_params[name] for name in _NAMES if name in st.query_params}
    if not query or st.session_state.get(_ADDRESS) == query or _is_echo(query):
        return trouble
    # The address of a tab that is opened, reloaded or reconnected may be older than edits in another tab: it counts in
    # this tab and does not replace the stored draft.
    is_first = _ADDRESS not in st.session_state and st.session_state.get(_PAGES, 0) <= 1
    st.session_state[_ADDRESS] = query
    st.session_state[_LINK] = query if is_first else None
    try:
        change(by_hand=not is_first, **_settings_of(query))
    except LabError as error:
        broken = f"The link could not be opened: {_short(error)}."
        return f"{trouble} {broken}" if trouble else broken
    return trouble


def _settings_of(query: dict[str, str]) -> dict[str, object]:
    """The settings in the parameters of an address.

    Raises:
        ConfigError, PlanError, CatalogError: If one cannot be read.
    """
    settings = read_settings(query["set"]) if "set" in query else {}
    if "task" in query:
        settings["task"] = catalog.task(query["task"]).name
    if "mask" in query:
        settings["plan"] = MaskPlan.from_code(query["mask"])
    return settings


def write_address(*names: str) -> None:
    """Put task, mask or settings ("set") of the draft into the address, so that it is a link and survives a reload.

    Parameters that the address already has are updated too, so that a draft has one spelling.
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
        kept.pop(old, None)  # inserted again: the oldest come first
        kept[old] = time.monotonic()
    st.session_state[_ADDRESS] = written


def _replaced() -> dict[tuple, float]:
    """The addresses that this session replaced recently, with the time of replacement."""
    kept, now = st.session_state.setdefault(_REPLACED, {}), time.monotonic()
    for old in [old for old, since in kept.items() if now - since > _ECHO_SECONDS]:
        del kept[old]
    return kept


def _is_echo(query: dict[str, str]) -> bool:
    """Whether an address is not an opened link but one that the lab has just replaced.

    A browser sends its address with every click. A stroke that was painted before the browser received the new address
    comes with the old one; to read it as a link would undo the previous stroke.
    """
    since = time.monotonic() - _replaced().get(tuple(query.items()), float("-inf"))
    return since < (_ARRIVAL_SECONDS if st.session_state.get(_ARRIVED) else _ECHO_SECONDS)
