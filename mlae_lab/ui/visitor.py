"""The identity of a browser: a random id in a cookie, and a nickname.

The id identifies the owner of a run or a draft. It does not authenticate. It cannot be guessed and is never shown on a
page or in an address. A browser without cookies has an id for the duration of its session.
"""

from __future__ import annotations

import re
import secrets
import time
import unicodedata
from pathlib import Path

import streamlit as st
from streamlit.components.v2 import component

from mlae_lab.runs.error_messages import EXPECTED_ERRORS, error_message
from mlae_lab.runs.library import SavedPlan
from mlae_lab.runs.owners import terminal_user
from mlae_lab.runs.store import Run
from mlae_lab.ui import markdown, queries
from mlae_lab.ui.login import VISITOR_COOKIE
from mlae_lab.ui.markdown import plain

NICKNAME_LENGTH = 24  # characters
TIMEOUT_SECONDS = 0.5  # that a click waits for another writer of the store
_SHAPE = re.compile(r"[A-Za-z0-9_-]{16,64}")
_OWN_WORDS = ("you", "somebody", "nobody known")
_LOOK_SECONDS = 1.0
_TOUR = "mlae_lab_tour"  # a cookie, and a key of the session
_ID, _LEARNED, _TROUBLE = "visitor_id", "visitor_learned", "visitor_trouble"
_HERE = Path(__file__).parent
_COMPONENT = component(
    "mlae_lab_visitor",
    html="<span hidden></span>",
    css=".st-key-visitor_cookie { position: absolute; height: 0; overflow: hidden; }",
    js=(_HERE / "history.js").read_text() + (_HERE / "visitor.js").read_text(),  # every page has this component
    isolate_styles=False,  # the rule above hides the box around the component
)
_names: dict[Path, tuple[float, dict[str, str]]] = {}


def sentence(error: Exception) -> str:
    """The message of an error for a box on a page."""
    return plain(markdown.sentence(error_message(error)))


def is_id(text: object) -> bool:
    """Whether a text has the shape of a visitor's id."""
    return isinstance(text, str) and bool(_SHAPE.fullmatch(text))


def cookie(name: str) -> str:
    """The value of a cookie at the start of the session's connection, "" if there was none."""
    value = st.context.cookies.get(name)
    return value if isinstance(value, str) else ""


def current() -> str:
    """The id of this session's browser: from its cookie, else a new one that the cookie will store."""
    if _ID not in st.session_state:
        stored = cookie(VISITOR_COOKIE)
        st.session_state[_ID] = stored if is_id(stored) else secrets.token_urlsafe(16)
    return st.session_state[_ID]


def keep_cookies(login: str | None = None) -> None:
    """Store the id and, if given, the login in the browser; invisible, called by app.py for every page."""

    def commit() -> None:
        state = st.session_state.get("visitor_cookie")
        stored = state.get("stored") if state is not None else None
        if is_id(stored) and stored != current():
            st.session_state[_ID] = stored
            st.session_state[_LEARNED] = st.session_state.get(_LEARNED, 0) + 1

    with st.sidebar:
        _COMPONENT(
            key="visitor_cookie",
            data={"visitor": current(), "login": login, "tour": has_seen_tour()},
            default={"stored": None},
            on_stored_change=commit,
            height="content",
        )


def has_seen_tour() -> bool:
    """Whether this browser's person has closed the tour that Home offers at the first visit."""
    return bool(st.session_state.get(_TOUR)) or cookie(_TOUR) == "seen"


def close_tour() -> None:
    """Offer the tour on Home no more; for a callback, so that the browser stores it in the same run."""
    st.session_state[_TOUR] = True


def name_field() -> None:
    """Draw the field for the nickname in the sidebar."""
    # a session that learns its id later gets a new field, with the name of that visitor
    key = f"visitor_nickname_{st.session_state.get(_LEARNED, 0)}"

    def commit() -> None:
        try:
            rename(st.session_state[key])
            st.session_state.pop(_TROUBLE, None)
        except EXPECTED_ERRORS as error:
            st.session_state[_TROUBLE] = f"The name could not be stored. {sentence(error)}"

    with st.sidebar:
        st.text_input(
            "Your name in the queue",
            nickname(),
            max_chars=NICKNAME_LENGTH,
            key=key,
            placeholder="no name yet",
            on_change=commit,
            autocomplete="nickname",
        )
        if _TROUBLE in st.session_state:
            st.error(st.session_state[_TROUBLE])


def nickname() -> str:
    """The nickname of this browser's person, "" for none."""
    return _nicknames().get(current(), "")


def rename(text: str) -> None:
    """Change the nickname: at most 24 characters, without control characters; "" for none.

    Raises:
        EXPECTED_ERRORS: If the store cannot be written.
    """
    queries.store().keep_visitor(current(), timeout=TIMEOUT_SECONDS, nickname=cleaned(text))
    _names.pop(queries.store().folder, None)


def cleaned(text: str) -> str:
    """A nickname as stored: one line, no control or invisible characters, at most 24 characters."""
    visible = "".join(" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    return " ".join(visible.split())[:NICKNAME_LENGTH].strip()


def name_of(owner: str) -> str:
    """The name of an owner as plain text (escape it in HTML).

    Returns:
        "you", a nickname, "ada (terminal)", "somebody" for a browser without a nickname, or "nobody known" for "".
    """
    if not owner:
        return "nobody known"
    if (user := terminal_user(owner)) is not None:
        return f"{cleaned(user) or 'somebody'} (terminal)"
    if owner == current():
        return "you"
    name = _nicknames().get(owner, "")
    return "somebody" if name.lower() in ("", *_OWN_WORDS) else name


def is_mine(run: Run | SavedPlan) -> bool:
    """Whether this browser started a run or saved a mask."""
    return run.owner == current()


def _nicknames() -> dict[str, str]:
    """Nicknames by id, read at most once a second, as a page may need them for each of its runs."""
    try:
        folder = queries.store().folder
        at, names = _names.get(folder, (float("-inf"), {}))
        if time.monotonic() - at >= _LOOK_SECONDS:
            names = queries.store().nicknames()
            _names[folder] = time.monotonic(), names
        return names
    except EXPECTED_ERRORS:
        return {}
