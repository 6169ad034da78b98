"""Authentication when the server is bound to a network."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit import config
from streamlit.testing.v1 import AppTest

from mlae_lab.runs import paths
from mlae_lab.runs.store import RunStore
from mlae_lab.ui import authentication, login
from tests.lab import html, open_app

PASSWORD = "correct horse"
Bind = Callable[[str | None], None]


@pytest.fixture(autouse=True)
def no_password_from_outside(monkeypatch: pytest.MonkeyPatch, store: RunStore) -> None:
    monkeypatch.delenv("MLAE_LAB_PASSWORD", raising=False)


def is_open(at: AppTest) -> bool:
    """Whether anything of the lab itself was drawn."""
    return "Draw where a network may learn" in html(at)


def given(at: AppTest, password: str) -> AppTest:
    at.text_input(key="authentication_password").set_value(password)
    at = at.button[0].click().run()
    assert not at.exception
    return at


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_password(address: str, bind: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
    bind(address)
    monkeypatch.setenv("MLAE_LAB_PASSWORD", PASSWORD)
    at = open_app()
    assert is_open(at)
    assert "No encryption" not in html(at)


def test_a_public_name_needs_a_password_on_the_loopback_address_too(
    bind: Bind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy on this machine serves the lab to everybody, so the address says nothing about who asks."""
    bind("127.0.0.1")
    monkeypatch.setenv("MLAE_LAB_PASSWORD", PASSWORD)
    before = config.get_option("server.allowedHosts")
    config.set_option("server.allowedHosts", ["localhost", "127.0.0.1", "lab.example.com"])
    try:
        at = open_app()
        assert not is_open(at)
        assert is_open(given(at, PASSWORD))
    finally:
        config.set_option("server.allowedHosts", before)


@pytest.mark.parametrize("address", [None, "", "0.0.0.0", "::", "192.168.1.5", "some-name"])
def test_network_without_a_password_is_locked(address: str | None, bind: Bind, store: RunStore) -> None:
    bind(address)
    at = open_app()
    assert not is_open(at)
    assert not at.button
    assert not at.text_input
    assert len(at.error) == 1
    message = at.error[0].value
    assert "bound to a network" in message
    assert "MLAE_LAB_PASSWORD" in message
    assert "127.0.0.1" in message


def test_short_password_opens_nothing(bind: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
    bind("0.0.0.0")
    monkeypatch.setenv("MLAE_LAB_PASSWORD", "short")
    at = open_app()
    assert not is_open(at)
    assert not at.text_input
    assert "5 characters" in at.error[0].value


@pytest.mark.parametrize("password", [PASSWORD, "pässwörd", "日本語のパスワード"])
def test_correct_password_opens_with_a_note_about_encryption(
    password: str, bind: Bind, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind("0.0.0.0")
    monkeypatch.setenv("MLAE_LAB_PASSWORD", password)
    at = open_app()
    assert not is_open(at)
    assert password not in str(at)
    at = given(at, password)
    assert is_open(at)
    assert "No encryption" in html(at)
    assert "Everyone with the password" in html(at)
    assert is_open(at.run()), "the session is open now"
    assert not is_open(open_app()), "another one is not"


@pytest.mark.parametrize("wrong", ["", "correct hors", "correct horse ", "Correct horse", "\x00", "ü"])
def test_a_wrong_password_takes_a_second_and_opens_nothing(
    wrong: str, bind: Bind, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind("0.0.0.0")
    monkeypatch.setenv("MLAE_LAB_PASSWORD", PASSWORD)
    began = time.monotonic()
    at = given(open_app(), wrong)
    assert time.monotonic() - began >= authentication.WRONG_SECONDS
    assert not is_open(at)
    assert at.error[0].value == "Wrong password."
    assert not is_open(at.run())


def test_many_sessions_are_not_faster_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "WRONG_SECONDS", 0.2)
    results: list[bool | None] = []
    threads = [
        threading.Thread(target=lambda: results.append(authentication._attempt("guess", PASSWORD))) for _ in range(5)
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [False] * 5
    assert time.monotonic() - began >= 5 * 0.2


def test_attempt_times_out_behind_others_without_checking_the_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(authentication, "_WAIT_SECONDS", 0.05)
    with authentication._attempt_lock:
        assert authentication._attempt(PASSWORD, PASSWORD) is None
    assert authentication._attempt(PASSWORD, PASSWORD) is True


# ---------------------------------------------------------------- the login cookie


def test_a_login_is_of_one_browser_one_password_and_one_store(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = login.of_password("ada-" * 5, PASSWORD)
    assert len(ada) == 64
    assert login.of_password("ada-" * 5, PASSWORD) == ada
    login._key.cache_clear()  # as after a restart of the server
    assert login.of_password("ada-" * 5, PASSWORD) == ada
    others = {login.of_password("ben-" * 5, PASSWORD), login.of_password("ada-" * 5, "another password")}
    monkeypatch.setenv("MLAE_LAB_STORE", str(tmp_path / "another"))
    others.add(login.of_password("ada-" * 5, PASSWORD))
    assert len(others) == 3
    assert ada not in others


def test_salt_is_private_and_created_once(store: RunStore) -> None:
    salts: list[bytes] = []
    threads = [threading.Thread(target=lambda: salts.append(login._salt(store.folder))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    path = paths.login_salt(store.folder)
    assert set(salts) == {path.read_bytes()}
    assert len(salts) == 8
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not list(store.folder.glob("*.part"))


def test_a_damaged_salt_keeps_logins_for_the_life_of_the_server(store: RunStore) -> None:
    paths.login_salt(store.folder).write_bytes(b"short")
    login._key.cache_clear()
    ada = login.of_password("ada-" * 5, PASSWORD)
    assert len(ada) == 64
    assert ada == login.of_password("ada-" * 5, PASSWORD)
    login._key.cache_clear()


# ---------------------------------------------------------------- Streamlit's own login


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict], AppTest]:
    """Opens the lab with these secrets."""

    return lambda secrets_of_lab: open_app(secrets=secrets_of_lab)


def test_provider_replaces_the_password(
    secrets: Callable[[dict], AppTest], bind: Bind, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind("0.0.0.0")
    monkeypatch.setenv("MLAE_LAB_PASSWORD", PASSWORD)
    at = secrets({"auth": {"client_id": "x", "client_secret": "y", "redirect_uri": "z", "cookie_secret": "c"}})
    assert not is_open(at)
    assert not at.text_input
    assert [button.label for button in at.button] == ["Log in"]
    at.button[0].click().run()
    assert not at.exception
    assert not is_open(at)


def test_named_providers_have_a_button_each_and_none_is_an_error(
    secrets: Callable[[dict], AppTest], bind: Bind
) -> None:
    bind("0.0.0.0")
    common = {"redirect_uri": "z", "cookie_secret": "c"}
    at = secrets({"auth": common | {"uni": {"client_id": "x"}, "google": {"client_id": "y"}}})
    assert [button.label for button in at.button] == ["Log in with uni", "Log in with google"]
    at = secrets({"auth": common})
    assert not at.button
    assert "names no provider" in at.error[0].value
    assert not is_open(at)


def test_other_secrets_are_no_login(secrets: Callable[[dict], AppTest], bind: Bind) -> None:
    bind("0.0.0.0")
    at = secrets({"auth": "yes", "token": "t"})
    assert not is_open(at)
    assert "MLAE_LAB_PASSWORD" in at.error[0].value
