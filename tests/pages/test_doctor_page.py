"""The Doctor page, opened through app.py: one verdict first, cures, text that stays text, and torch on request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from mlae_lab import doctor
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.data import fetching
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import paths
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from mlae_lab.ui.queries import _open
from tests.lab import html, open_page


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Empty caches and a separate data folder."""
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    _open.cache_clear()
    st.cache_data.clear()
    yield
    st.cache_data.clear()
    _open.cache_clear()


def opened(store: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setenv("MLAE_LAB_STORE", str(store))
    at = open_page("doctor")
    assert not at.error
    return at


def verdict(at: AppTest) -> str:
    """The sentence under the title."""
    return html(at).partition('<p class="lab-line">')[2].partition("</p>")[0]


def fake_torch(folder: Path, monkeypatch: pytest.MonkeyPatch, **report: object) -> Path:
    """A quick process in place of the one that loads torch; it appends to a file on each call."""
    calls = folder / "asked"
    usual = {"version": "9.9", "seconds": 0.1, "threads": 1, "cuda": "", "gpus": [], "broken": []}
    answer = json.dumps({**usual, **report})
    monkeypatch.setattr(doctor.torch_check, "_SCRIPT", f"open({str(calls)!r}, 'a').write('.')\nprint({answer!r})")
    return calls


def test_everything_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = opened(tmp_path / "store", monkeypatch)
    assert verdict(at) == "Everything is in order."
    shown = html(at)
    assert "trouble</span>" not in shown
    for title in ("Devices", "Versions", "Weights and data", "Disk", "Store", "Runs"):
        assert f'<h2 class="lab-section">{title}</h2>' in shown
    assert "not tested" in shown
    assert f"<code>{PROGRAM} doctor --deep</code>" in shown
    assert at.code[0].value.startswith("Everything is in order.\n\nDevices\n")


def test_troubles_come_first_with_fixes_and_escaped_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunStore(tmp_path / "store")
    failed = store.enqueue(FIRST_RUN, "cpu")
    store.move(failed.id, Status.FAILED, "no file /a/<b>bold</b> & <script>alert(1)</script>")
    folder = tmp_path / "data" / ".fetch" / "svhn"
    folder.mkdir(parents=True)
    fetching._write(folder, "failed", None, "the host said <i>no</i>")
    monkeypatch.setenv("HF_ENDPOINT", "https://a.example/<img src=x onerror=alert(2)>")
    at = opened(store.folder, monkeypatch)
    assert verdict(at) == "1 thing needs attention."
    shown = html(at)
    first = shown.index("fetch svhn")
    assert first < shown.index(">Devices<"), "the trouble stands above all sections"
    assert f"<code>{PROGRAM} fetch svhn</code>" in shown[first : shown.index(">Devices<")]
    assert "the host said &lt;i&gt;no&lt;/i&gt;" in shown
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; &lt;script&gt;" in shown
    assert "&lt;img src=x" in shown
    assert not any(tag in shown for tag in ("<script", "<i>", "<b>", "<img src=x"))


def test_refresh_shows_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data" / ".fetch" / "svhn"
    folder.mkdir(parents=True)
    fetching._write(folder, "failed", None, "no network")
    at = opened(tmp_path / "store", monkeypatch)
    assert verdict(at) == "1 thing needs attention."
    (folder / "progress.json").unlink()
    assert verdict(at.button(key="doctor_again").click().run()) == "Everything is in order."


def test_torch_report_is_shared_for_a_minute_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_torch(tmp_path, monkeypatch)
    at = opened(tmp_path / "store", monkeypatch)
    assert not calls.exists(), "opening the page loads no torch"
    at = at.button(key="doctor_test").click().run()
    assert not at.exception
    assert "9.9 without CUDA" in html(at)
    assert verdict(at) == "Everything is in order."
    assert calls.read_text() == "."
    again = at.button(key="doctor_again").click().run()
    assert "9.9 without CUDA" in html(again)
    assert calls.read_text() == "."
    other = opened(tmp_path / "store", monkeypatch)
    assert "not tested" in html(other)
    other = other.button(key="doctor_test").click().run()
    assert "9.9 without CUDA" in html(other)
    assert calls.read_text() == "."


def test_broken_torch_is_a_trouble_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.torch_check, "_SCRIPT", "raise ImportError('libcudart.so.<13> is not here')")
    at = opened(tmp_path / "store", monkeypatch).button(key="doctor_test").click().run()
    assert not at.exception
    assert verdict(at) == "1 thing needs attention."
    assert "libcudart.so.&lt;13&gt; is not here" in html(at)


@pytest.mark.parametrize("damage", ["a file", "no database", "newer", "damaged"])
def test_page_opens_with_a_damaged_store(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "store"
    if damage == "a file":
        folder.write_text("")
    else:
        store = RunStore(folder)
        run = store.enqueue(replace(FIRST_RUN, seed=1), "cpu")
        store.move(run.id, Status.STOPPED, "x" * 200_000)
        with store._connection(write=damage == "newer") as db:
            db.execute("PRAGMA user_version=99" if damage == "newer" else "PRAGMA wal_checkpoint(TRUNCATE)")
        file = paths.database(folder)
        if damage == "no database":
            file.write_bytes(b"a letter to nobody " * 1000)
        elif damage == "damaged":
            whole = file.read_bytes()
            file.write_bytes(whole[:8192] + b"\xa5" * (len(whole) - 8192))
    at = opened(folder, monkeypatch)
    assert "attention" in verdict(at)
