"""Logins of browsers and of sessions, as the pages and the server check them (`ui.authentication`, `ui.server`).

A login is an HMAC of the browser's id, stored in a cookie. This module draws nothing and registers no component, so the
server imports it before it runs.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import streamlit as st

from mlae_lab.locations import default_store
from mlae_lab.network import PASSWORD_VARIABLE, is_public, password_problem
from mlae_lab.runs.paths import login_salt

COOKIE = "mlae_lab_login"  # visitor.js sets both
VISITOR_COOKIE = "mlae_lab_visitor"
_SALT_BYTES = 32
_SPARE_SALT = secrets.token_bytes(_SALT_BYTES)  # if the store cannot hold one: logins then end with the server
_SESSIONS = 10_000  # that are remembered; older ones have ended or log in again by their cookie
_admitted: OrderedDict[str, None] = OrderedDict()


def is_needed() -> bool:
    """Whether a login is needed: not if only this machine can reach the lab, directly or through a proxy."""
    return is_public(st.get_option("server.address"), st.get_option("server.allowedHosts"))


def password() -> str:
    """The password of this lab, "" for none."""
    return os.environ.get(PASSWORD_VARIABLE, "")


def of_password(visitor: str, password: str) -> str:
    """The login of a browser by password; to forge it takes the password and the store's salt."""
    return _signed(_key(password, default_store().absolute()), visitor)


def of_provider(visitor: str) -> str:
    """The login of a browser that a provider has authenticated; it ends with the server and opens no session."""
    return _signed(_SPARE_SALT, visitor)


def equal(given: str, expected: str) -> bool:
    """Whether two logins are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(given.encode(errors="surrogatepass"), expected.encode())


def is_valid(cookies: Mapping[str, str]) -> bool:
    """Whether the cookies of a request hold the login of their browser."""
    visitor, given, secret = cookies.get(VISITOR_COOKIE, ""), cookies.get(COOKIE, ""), password()
    if not visitor or not given:
        return False
    if equal(given, of_provider(visitor)):
        return True
    return bool(secret) and not password_problem(secret) and equal(given, of_password(visitor, secret))


def admit(session: str) -> None:
    """Record that a session of the server has logged in."""
    _admitted[session] = None
    _admitted.move_to_end(session)
    while len(_admitted) > _SESSIONS:
        _admitted.popitem(last=False)


def is_admitted(session: str) -> bool:
    """Whether a session of the server has logged in."""
    return session in _admitted


def _signed(key: bytes, visitor: str) -> str:
    return hmac.new(key, f"login {visitor}".encode(errors="surrogatepass"), "sha256").hexdigest()


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
