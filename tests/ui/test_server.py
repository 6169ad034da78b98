"""Requests to the server that need a login, and uploaded files of ended sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFileRec

from mlae_lab.runs.store import RunStore
from mlae_lab.ui import login, server
from tests.lab import open_app

PASSWORD = "correct horse"
ADA = "ada-" * 5


@pytest.fixture(autouse=True)
def network(store: RunStore, bind: Callable[[str | None], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab with a password on a network."""
    monkeypatch.setenv("MLAE_LAB_PASSWORD", PASSWORD)
    bind("0.0.0.0")


def status(path: str, cookies: Mapping[str, str] = MappingProxyType({})) -> int:
    """The status of a request; 200 if it passes the middleware."""
    sent: list[dict[str, Any]] = []

    async def lab(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    scope = {"type": "http", "path": path, "headers": [(b"cookie", cookie.encode())], "method": "PUT"}
    asyncio.run(server.LoginForRequests(lab)(scope, receive, send))
    return sent[0]["status"]


def cookies(password: str = PASSWORD, visitor: str = ADA) -> dict[str, str]:
    return {login.VISITOR_COOKIE: visitor, login.COOKIE: login.of_password(ADA, password)}


@pytest.mark.parametrize(
    "path",
    [
        "/_stcore/upload_file/session/file", "/_stcore/metrics", "/media/0123.zip", "/_stcore/agent/interact",
        "/_stcore/script-health-check", "//_stcore//metrics", "/_stcore", "/_stcore/upload_file",
    ],
)  # fmt: skip
def test_without_a_login_the_server_takes_and_tells_nothing(path: str) -> None:
    assert status(path) == 403
    assert status(path, cookies(visitor="ben-" * 5)) == 403, "the login of another browser"
    assert status(path, cookies("another password")) == 403
    assert status(path, {login.COOKIE: login.of_password("", PASSWORD)}) == 403, "the login of no browser"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/masks",
        "/static/main.js",
        "/app/static/inter-latin.woff2",
        "/app/code/x.js",
        "/_stcore/health",
        "/_stcore/stream",
    ],
)
def test_the_login_page_needs_no_login(path: str) -> None:
    assert status(path) == 200


def test_a_browser_that_has_logged_in_gets_media_and_metrics() -> None:
    assert status("/media/0123.zip", cookies()) == 200
    assert status("/_stcore/metrics", cookies()) == 200
    by_provider = {login.VISITOR_COOKIE: ADA, login.COOKIE: login.of_provider(ADA)}
    assert status("/media/0123.zip", by_provider) == 200


def test_only_a_session_that_has_logged_in_uploads() -> None:
    assert status("/_stcore/upload_file/ada/file", cookies()) == 403
    login.admit("ada")
    assert status("/_stcore/upload_file/ada/file") == 200
    assert status("/_stcore/upload_file/ben/file") == 403


def test_a_session_may_upload_once_its_login_is_correct(monkeypatch: pytest.MonkeyPatch) -> None:
    admitted: list[str] = []
    monkeypatch.setattr(login, "admit", admitted.append)
    at = open_app()
    assert not admitted
    at.text_input(key="authentication_password").set_value(PASSWORD)
    at.button[0].click().run()
    assert admitted


def test_on_this_machine_nothing_needs_a_login(bind: Callable[[str | None], None]) -> None:
    bind("127.0.0.1")
    assert status("/_stcore/metrics") == 200
    assert status("/_stcore/upload_file/session/file") == 200


def test_the_address_below_a_base_path_is_protected_too() -> None:
    assert not server.is_allowed("/lab/media/0123.zip", {}, "lab")
    assert not server.is_allowed("/lab/_stcore/metrics", {}, "/lab/")
    assert server.is_allowed("/lab/_stcore/health", {}, "lab")
    assert server.is_allowed("/lab/masks", {}, "lab")


def test_uploads_are_freed_when_their_session_has_ended() -> None:
    class Runtime:
        def __init__(self) -> None:
            self.uploaded_file_mgr = MemoryUploadedFileManager("/upload")
            self.active = {"ada", "ben"}

        def is_active_session(self, session_id: str) -> bool:
            return session_id in self.active

    lab, left = Runtime(), {}
    uploads = lab.uploaded_file_mgr
    for session in ("ada", "ben"):
        uploads.add_file(session, UploadedFileRec("file", "run.mlae", "application/zip", b"x" * 1000))
    server.free_uploads(lab, left, 0.0)
    lab.active = {"ben"}
    server.free_uploads(lab, left, 10.0)
    server.free_uploads(lab, left, 9.0 + server.LEFT_SECONDS)
    assert set(uploads.file_storage) == {"ada", "ben"}, "Ada may still reconnect"
    server.free_uploads(lab, left, 10.0 + server.LEFT_SECONDS)
    assert set(uploads.file_storage) == {"ben"}
    assert not left
