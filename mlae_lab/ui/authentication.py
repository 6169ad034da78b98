"""Authentication when the lab is bound to a network. On the loopback address none is needed.

With an [auth] section in Streamlit's secrets, its providers authenticate; otherwise everyone needs the password in
MLAE_LAB_PASSWORD; without either the lab stays locked. A login outlives the session in a cookie (`ui.login`).
"""

from __future__ import annotations

import hmac
import os
import threading
import time
from collections.abc import Mapping

import streamlit as st
from streamlit.errors import Error as StreamlitError
from streamlit.runtime.scriptrunner import get_script_run_ctx

from mlae_lab.network import PASSWORD_LENGTH, PASSWORD_VARIABLE, password_problem
from mlae_lab.ui import login, navigation, page, visitor
from mlae_lab.ui.markdown import plain

WRONG_SECONDS = 1.0  # duration of a failed attempt, one at a time over all sessions
_WAIT_SECONDS = 10.0  # timeout of an attempt that waits for others
_OPEN = "authentication_open"
_attempt_lock = threading.Lock()


def pass_or_stop() -> str | None:
    """Authenticate this session, or show the login and stop the script.

    Returns:
        The login to store in the browser's cookie, None where none is needed.
    """
    if not login.is_needed():
        return None
    providers = _providers()
    if providers is not None:
        if getattr(st.user, "is_logged_in", False):
            _admit()
            return login.of_provider(visitor.current())
        _hide_pages()
        _ask_provider(providers)
        st.stop()
    password = login.password()
    if not password:
        _refuse(
            "This lab is bound to a network and has no password, so nobody can log in. Start it with a password of at "
            f"least {PASSWORD_LENGTH} characters in {PASSWORD_VARIABLE}, or bind it to 127.0.0.1."
        )
    if problem := password_problem(password):
        _refuse(f"{problem} Until then nobody can log in, as this lab is bound to a network.")
    if not st.session_state.get(_OPEN):
        if login.equal(visitor.cookie(login.COOKIE), login.of_password(visitor.current(), password)):
            st.session_state[_OPEN] = True
        else:
            _hide_pages()
            _ask_password(password)
            st.stop()
    _admit()
    return login.of_password(visitor.current(), password)


def _admit() -> None:
    """Let this session upload files."""
    context = get_script_run_ctx()
    if context is not None:
        login.admit(context.session_id)


def note() -> None:
    """A line in the sidebar about what authentication does not protect."""
    if not login.is_needed():
        return
    everyone = "who can log in" if _providers() is not None else "with the password"
    with st.sidebar:
        page.note(
            "No encryption: the password and everything shown travel in the clear unless a proxy adds TLS. Everyone "
            f"{everyone} can see, start and stop runs."
        )


def _hide_pages() -> None:
    """Register the pages without showing or running one: else Streamlit forgets which one was requested."""
    st.navigation(navigation.sections(), position="hidden")


def _refuse(message: str) -> None:
    _hide_pages()
    page.heading("The lab is locked")
    st.error(message)
    st.stop()


# ---------------------------------------------------------------- Streamlit's own login


def _providers() -> list[str | None] | None:
    """Provider names for `st.login`, with None for the default one; None if no login is configured."""
    try:
        auth = st.secrets.get("auth")
    except OSError:  # no file, or it cannot be read
        return None
    if not isinstance(auth, Mapping):
        return None
    return [None] if "client_id" in auth else [name for name, value in auth.items() if isinstance(value, Mapping)]


def _ask_provider(providers: list[str | None]) -> None:
    page.heading("Log in to the lab")
    for name in providers:
        if st.button(f"Log in with {name}" if name else "Log in", type="primary", key=f"authentication_login_{name}"):
            try:
                st.login(name)
            except StreamlitError as error:
                st.error(f"The login did not start: {plain(str(error))}")
    if not providers:
        st.error(
            "The [auth] section in Streamlit's secrets names no provider: it needs client_id, or a section for one."
        )


# ---------------------------------------------------------------- the password


def _ask_password(password: str) -> None:
    page.heading("Log in to the lab", "Ask the person who started this lab for its password.")
    with st.container(width=420), st.form("authentication", border=False):
        given = st.text_input(
            "Password", type="password", key="authentication_password", autocomplete="current-password"
        )
        submitted = st.form_submit_button("Log in", type="primary")
    if not submitted:
        return
    is_correct = _attempt(given, password)
    if is_correct:
        st.session_state[_OPEN] = True
        st.rerun()
    st.error(
        "Too many login attempts at the moment: try again in a few seconds."
        if is_correct is None
        else "Wrong password."
    )


def _attempt(given: str, password: str) -> bool | None:
    """Whether a password is correct; None if too many others are trying.

    Attempts run one at a time over all sessions and a wrong one takes a second, so many sessions are no
    faster than one.
    """
    if not _attempt_lock.acquire(timeout=_WAIT_SECONDS):
        return None
    try:
        is_correct = hmac.compare_digest(given.encode(errors="surrogatepass"), os.fsencode(password))
        if not is_correct:
            time.sleep(WRONG_SECONDS)
        return is_correct
    finally:
        _attempt_lock.release()
