"""Every page with a store that cannot be used: one sentence and a way out, never Streamlit's box without a text."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab.runs import paths
from mlae_lab.runs.store import RunStore, StoreError
from mlae_lab.ui import failures
from tests.lab import html, open_page

PAGES = ("home", "runs", "experts", "compare", "race", "train", "masks", "task")


def newer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    with RunStore(folder)._connection(write=True) as db:
        db.execute("PRAGMA user_version=99")
    return "update MLAE Lab"


def damaged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder.mkdir()
    paths.database(folder).write_bytes(b"a letter to nobody " * 1000)
    return "not a database"


def a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder.write_text("")
    return str(folder.name)


def full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunStore, "runs", full)
    monkeypatch.setattr(RunStore, "studies", full)
    return "free some disk space"


@pytest.mark.parametrize("damage", [newer, damaged, a_file, full_disk])
def test_every_page_gives_one_sentence_and_a_way_out(
    damage: Callable[[Path, pytest.MonkeyPatch], str],
    bind: Callable[[str | None], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "store"
    monkeypatch.setenv("MLAE_LAB_STORE", str(folder))
    bind("127.0.0.1")
    words = damage(folder, monkeypatch)
    for page in PAGES:
        at = open_page(page)  # asserts that there is no exception
        sentences = [error.value for error in at.error if words in error.value.replace("\\", "")]
        if page in ("home", "runs", "experts", "compare", "race"):
            assert len(sentences) == 1, (page, [error.value for error in at.error])
            assert sentences[0].endswith(".")
            assert [link.proto.page for link in at.get("page_link")][-1:] == ["doctor"]
        assert "lab-title" in html(at), f"{page} has its heading"


def test_an_error_of_a_fragment_or_a_click_is_shown_by_the_server() -> None:
    def script() -> None:
        import sqlite3

        import streamlit as st

        from mlae_lab.runs.store import StoreError
        from mlae_lab.ui import failures

        st.text(failures.show(StoreError("the store *is* full")))
        st.text(failures.show(sqlite3.OperationalError("database is locked")))
        st.text(failures.show(ValueError("a defect")))

    at = AppTest.from_function(script).run()
    assert not at.exception
    assert [text.value for text in at.text] == ["True", "True", "False"]
    assert [error.value for error in at.error] == [
        "The store \\*is\\* full.",
        "The store cannot be used now (database is locked): try again when no other program has it locked.",
    ]


def test_a_defect_is_left_to_streamlit(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="a defect"), failures.shown():
        raise ValueError("a defect")
    with failures.shown():
        raise StoreError("no store")
    assert "Traceback" not in capsys.readouterr().err
    with failures.shown():
        raise sqlite3.OperationalError("disk I/O error")
    assert "disk I/O error" in capsys.readouterr().err, "the log has the traceback"
