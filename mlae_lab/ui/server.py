"""The server around the pages: which requests need a login, and when uploaded files are freed.

The pages authenticate sessions, but Streamlit accepts uploads, serves media and reports metrics without a page. Here
such requests need a login, too. Without one the server answers only what a browser needs for the login page: its
static files, the components, the connection of a session, and whether the server is up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from streamlit import runtime

from mlae_lab.ui import login

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_PROTECTED = ("_stcore", "media")
_OPEN = ("health", "host-config", "stream", "bidi-components")  # below _stcore
_UPLOAD = "upload_file"
SWEEP_SECONDS = 30.0
LEFT_SECONDS = 120.0  # a session that was away for so long has ended: Streamlit lets it reconnect until then


class LoginForRequests:
    """ASGI middleware: refuses requests with status 403 that need a login and come without one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and login.is_needed():
            cookies = HTTPConnection(scope).cookies
            if not await asyncio.to_thread(is_allowed, scope["path"], cookies, st.get_option("server.baseUrlPath")):
                answer = PlainTextResponse("Log in to the lab first.", status_code=403)
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)


MIDDLEWARE = Middleware(LoginForRequests)


def is_allowed(path: str, cookies: Mapping[str, str], base: str = "") -> bool:
    """Whether the server answers a request on a network.

    Args:
        path: Of the request.
        cookies: Of the request.
        base: Streamlit's `server.baseUrlPath`.
    """
    words, prefix = ([word for word in text.split("/") if word] for text in (path, base or ""))
    if prefix and words[: len(prefix)] == prefix:
        words = words[len(prefix) :]
    if not words or words[0] not in _PROTECTED or (words[0] == "_stcore" and words[1:2] and words[1] in _OPEN):
        return True
    if words[:2] == ["_stcore", _UPLOAD]:  # its address names the session; a browser may refuse cookies
        return len(words) > 2 and login.is_admitted(words[2])
    return login.is_valid(cookies)


# ---------------------------------------------------------------- uploaded files


class _Uploads(Protocol):
    """Streamlit's storage of uploaded files. file_storage: files by session."""

    file_storage: dict[str, Any]

    def remove_session_files(self, session_id: str) -> None: ...


class _Runtime(Protocol):
    """Streamlit's runtime."""

    @property
    def uploaded_file_mgr(self) -> Any: ...

    def is_active_session(self, session_id: str) -> bool: ...


@asynccontextmanager
async def lifespan(app: object) -> AsyncIterator[dict[str, Any]]:
    """Free the uploaded files of ended sessions while the server runs."""
    task = asyncio.create_task(_sweep())
    try:
        yield {}
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _sweep() -> None:
    left: dict[str, float] = {}
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        free_uploads(runtime.get_instance(), left, time.monotonic())


def free_uploads(server: _Runtime, left: dict[str, float], now: float) -> None:
    """Remove the uploaded files of sessions that have ended; Streamlit keeps them until another session ends.

    Args:
        server: Streamlit's runtime.
        left: Since when each session is away; updated.
        now: Time by the same clock.
    """
    uploads: _Uploads = server.uploaded_file_mgr
    for session in list(uploads.file_storage):
        if server.is_active_session(session):
            left.pop(session, None)
        elif now - left.setdefault(session, now) >= LEFT_SECONDS:
            uploads.remove_session_files(session)
            del left[session]
