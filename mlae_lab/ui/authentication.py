"""Authentication when the lab is bound to a network. On the loopback address none is needed.

With an [auth] section in Streamlit's secrets, its providers authenticate; otherwise everyone needs the password in
MLAE_LAB_PASSWORD; without either the lab stays locked. A login outlives the session in a cookie, an HMAC of this
browser's id under a key from the password and the store's salt.
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
from mlae_lab.network import PASSWORD_LENGTH, PASSWORD_VARIABLE, is_public, password_problem
from mlae_lab.runs.paths import login_salt
from mlae_lab.ui import navigation, page, visitor
from mlae_lab.ui.markdown import plain

COOKIE = "mlae_lab_login"  # visitor.js sets it
WRONG_SECONDS = 1.0  # duration of a failed attempt, one at a time over all sessions
_WAIT_SECONDS = 10.0  # timeout of an attempt that waits for others
_OPEN = "authentication_open"
_SALT_BYTES = 32
_SPARE_SALT = secrets.token_bytes(_SALT_BYTES)  # if the store cannot hold one: logins then end with the server
_attempt_lock = threading.Lock()


def pass_or_stop() -> str | None:
    """Authenticate this session, or show the login and stop the script.

    Returns:
        The login to store in the browser's cookie, None where none is needed.
    """
    if not is_public(st.get_option("server.address"), st.get_option("server.allowedHosts")):
        return None
    providers = _providers()
    if providers is not None:
        if getattr(st.user, "is_logged_in", False):
            return None
        _hide_pages()
        _ask_provider(providers)
        st.stop()
    password = os.environ.get(PASSWORD_VARIABLE, "")
    if not password:
        _refuse(
            "This lab is bound to a network and has no password, so nobody can log in. Start it with a password of at "
            f"least {PASSWORD_LENGTH} characters in {PASSWORD_VARIABLE}, or bind it to 127.0.0.1."
        )
    if problem := password_problem(password):
        _refuse(f"{problem} Until then nobody can log in, as this lab is bound to a network.")
    if not st.session_state.get(_OPEN):
        if _equal(visitor.cookie(COOKIE), _login(password)):
            st.session_state[_OPEN] = True
        else:
            _hide_pages()
            _ask_password(password)
            st.stop()
    return _login(password)


def note() -> None:
    """A line in the sidebar about what authentication does not protect."""
    if not is_public(st.get_option("server.address"), st.get_option("server.allowedHosts")):
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


def _login(password: str) -> str:
    """The login cookie of this browser; to forge it takes the password and the store's salt."""
    key = _key(password, default_store().absolute())
    return hmac.new(key, f"login {visitor.current()}".encode(), "sha256").hexdigest()


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogatepass"), expected.encode())


@lru_cache(maxsize=4)
def _key(password: str, store: Path) -> bytes:
    try:
        salt = _salt(store)
    except OSError:
        salt = _SPARE_SALT
    return hashlib.scrypt(os.fsencode(password), salt=salt, n=2**14, r=8, p=1, dklen=32)


def _salt(store: Path) -> bytes:
    """The store's random salt, created at first use and readable only for its owner, so that logins outlive the server.

    Raises:
        OSError: If it can be neither read nor created.
    """
    path = login_salt(store)
    store.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{secrets.token_hex(4)}.part")
    if not path.exists():
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_SALT_BYTES))
        try:
            os.link(partial, path)  # atomic, and never replaces one that another server just created
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    salt = path.read_bytes()
    if len(salt) != _SALT_BYTES:
        raise OSError(f"{path} is not a salt of {_SALT_BYTES} bytes: delete it")
    return salt
