"""Who may come in when the lab is bound to a network. On this machine alone nobody is asked.

With an [auth] section in Streamlit's secrets people log in there; else everyone needs the one password in
MLAE_LAB_PASSWORD; without either the lab stays shut. A login outlives the session in a cookie that only this browser's
id and this password, with the store's salt, can make.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import streamlit as st
from streamlit.errors import Error as StreamlitError

from mlae_lab.locations import default_store
from mlae_lab.network import PASSWORD_LENGTH, PASSWORD_VARIABLE, is_loopback, password_problem
from mlae_lab.runs.paths import login_salt
from mlae_lab.ui import navigation, page, visitor
from mlae_lab.ui.markdown import plain

COOKIE = "mlae_lab_login"  # visitor.js sets it
WRONG_SECONDS = 1.0  # that one wrong password takes, over all sessions
_TURN_SECONDS = 10.0  # that an attempt waits for those before it
_OPEN = "gate_open"
_SALT_BYTES = 32
_SPARE_SALT = secrets.token_bytes(_SALT_BYTES)  # where the store keeps none: logins then end with the server
_turn = threading.Lock()


def pass_or_stop() -> str | None:
    """Let this session in, or ask for what lets it in and end the script here.

    Returns the login that the browser's cookie shall hold, None where none is needed.
    """
    if is_loopback(st.get_option("server.address")):
        return None
    providers = _providers()
    if providers is not None:
        if getattr(st.user, "is_logged_in", False):
            return None
        _close()
        _ask_provider(providers)
        st.stop()
    password = os.environ.get(PASSWORD_VARIABLE, "")
    if not password:
        _shut(
            "This lab is bound to a network and has no password, so it lets nobody in. Start it with a password of at "
            f"least {PASSWORD_LENGTH} characters in {PASSWORD_VARIABLE}, or bind it to 127.0.0.1."
        )
    if problem := password_problem(password):
        _shut(f"{problem} Until then this lab, which is bound to a network, lets nobody in.")
    if not st.session_state.get(_OPEN):
        if _same(visitor.cookie(COOKIE), _login(password)):
            st.session_state[_OPEN] = True
        else:
            _close()
            _ask_password(password)
            st.stop()
    return _login(password)


def note() -> None:
    """One quiet line in the sidebar that says what the gate does not protect."""
    if is_loopback(st.get_option("server.address")):
        return
    everyone = "who can log in" if _providers() is not None else "with the password"
    with st.sidebar:
        page.note(
            "No encryption: the password and everything shown travel in the clear unless a proxy adds TLS. Everyone "
            f"{everyone} can see, start and stop runs."
        )


def _close() -> None:
    """Name the pages without showing or running one: else Streamlit forgets which one was asked for."""
    st.navigation(navigation.sections(), position="hidden")


def _shut(sentences: str) -> None:
    _close()
    page.heading("The lab is shut")
    st.error(sentences)
    st.stop()


# ---------------------------------------------------------------- Streamlit's own login


def _providers() -> list[str | None] | None:
    """Names for `st.login`, None for the default one; None in place of the list if no login is configured."""
    try:
        auth = st.secrets.get("auth")
    except OSError:  # no file, or one that cannot be read
        return None
    if not isinstance(auth, Mapping):
        return None
    return [None] if "client_id" in auth else [name for name, value in auth.items() if isinstance(value, Mapping)]


def _ask_provider(providers: list[str | None]) -> None:
    page.heading("Log in to the lab")
    for name in providers:
        if st.button(f"Log in with {name}" if name else "Log in", type="primary", key=f"gate_login_{name}"):
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
    page.heading("The lab has a password", "Whoever started it can tell you.")
    with st.container(width=420), st.form("gate", border=False):
        given = st.text_input("Password", type="password", key="gate_password", autocomplete="current-password")
        asked = st.form_submit_button("Open the lab", type="primary")
    if not asked:
        return
    right = _attempt(given, password)
    if right:
        st.session_state[_OPEN] = True
        st.rerun()
    st.error(
        "Too many people are trying passwords right now: try again in a moment."
        if right is None
        else "That is not the password."
    )


def _attempt(given: str, password: str) -> bool | None:
    """Whether a password is right; None if too many others are trying.

    One attempt at a time over all sessions, and a wrong one takes a second: many sessions guess no faster than one.
    """
    if not _turn.acquire(timeout=_TURN_SECONDS):
        return None
    try:
        right = hmac.compare_digest(given.encode(errors="surrogatepass"), os.fsencode(password))
        if not right:
            time.sleep(WRONG_SECONDS)
        return right
    finally:
        _turn.release()


def _login(password: str) -> str:
    """What the login cookie of this browser holds: nobody can make it without the password and the store's salt."""
    key = _key(password, default_store().absolute())
    return hmac.new(key, f"login {visitor.current()}".encode(), "sha256").hexdigest()


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogatepass"), right.encode())


@lru_cache(maxsize=4)
def _key(password: str, store: Path) -> bytes:
    try:
        salt = _salt(store)
    except OSError:
        salt = _SPARE_SALT
    return hashlib.scrypt(os.fsencode(password), salt=salt, n=2**14, r=8, p=1, dklen=32)


def _salt(store: Path) -> bytes:
    """The store's random salt, made at first use and readable only for its owner: logins outlive the server.

    Raises OSError if it can be neither read nor made.
    """
    path = login_salt(store)
    store.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{secrets.token_hex(4)}.part")
    if not path.exists():
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_SALT_BYTES))
        try:
            os.link(partial, path)  # whole or not at all, and never over one that another server just made
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    salt = path.read_bytes()
    if len(salt) != _SALT_BYTES:
        raise OSError(f"{path} is not a salt of {_SALT_BYTES} bytes: delete it")
    return salt
